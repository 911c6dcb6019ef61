#!/bin/sh
# Starts `opd serve`, lets a stranger talk to it (check_serve.py), and checks that SIGTERM ends it
# in order.   serve_check.sh OPD MODEL PYTHON CHECK
set -u
out=$(mktemp)
"$1" serve --model "$2" --port 0 > "$out" &
serve=$!
for _ in $(seq 100); do
    url=$(sed -n 's/^opd serve: ready on //p' "$out")
    [ -n "$url" ] && break
    sleep 0.1
done
"$3" "$4" "$url"
checked=$?
kill -TERM "$serve"
wait "$serve" || { echo "opd serve ended with status $?"; checked=1; }
rm -f "$out"
exit "$checked"
