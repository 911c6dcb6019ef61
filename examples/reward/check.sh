#!/bin/sh
# usage: OPD_EXAMPLE=length.so check.sh OPD   the judges answer the same questions alike, to the last digit.
set -eu
folder=$(dirname "$0")
python=${OPD_TEST_PYTHON:-python3}
command -v "$python" >/dev/null || { echo "skipped: no python3"; exit 77; }
questions='{"id": 1, "prompt": "2+5", "response": "it is 7\n", "label": "7", "source": ""}
{"id": 2, "prompt": "2+5", "response": "it is \u0038", "label": "7", "source": "a \"b\""}
{"id": 3, "prompt": "2+5", "responses": ["7", "8", ""], "label": "7", "source": ""}'
want='{"id":1,"reward":0.992}
{"id":2,"reward":-0.007}
{"id":3,"rewards":[0.999,-0.001,0]}'
ours=$(printf '%s\n' "$questions" | "$1" reward-host "$OPD_EXAMPLE")
[ "$ours" = "$want" ] || { echo "the library said: $ours"; exit 1; }
theirs=$(printf '%s\n' "$questions" | "$python" "$folder/length.py" | tr -d ' ' | sed 's/0\.0\]/0]/; s/-0]/0]/')
[ "$theirs" = "$want" ] || { echo "the script said: $theirs"; exit 1; }
[ -x /usr/bin/python3 ] && python=/usr/bin/python3 # Debian's has Debian's msgpack
if "$python" -c 'import msgpack' 2>/dev/null; then
  packed=$(printf '%s\n' "$questions" |
    "$python" -c 'import json, msgpack, sys
for line in sys.stdin: sys.stdout.buffer.write(msgpack.packb(json.loads(line)))' |
    "$python" "$folder/length_msgpack.py" |
    "$python" -c 'import json, msgpack, sys
for answer in msgpack.Unpacker(sys.stdin.buffer): print(json.dumps(answer))' |
    tr -d ' ' | sed 's/0\.0\]/0]/; s/-0]/0]/')
  [ "$packed" = "$want" ] || { echo "the script in msgpack said: $packed"; exit 1; }
fi
"$1" reward-host /nonexistent.so 2>/dev/null && { echo "a missing library was loaded"; exit 1; }
echo "the judges agree"
