"""A door in front of a teacher, of Python's standard library alone: HTTP/1.1, shows those out who do not have the
key, and forwards the rest. What the front of a cluster does with keys, without our own code."""
import http.client
import http.server
import threading


class Gate:
    def __init__(self, target_port, key):
        self.key, self.shown, self.refused = key, 0, 0
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status, body):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def forward(self):
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("authorization") != f"Bearer {gate.key}":
                    gate.refused += 1
                    self.answer(401, b'{"error":"Unauthorized"}')
                    return
                gate.shown += 1
                inside = http.client.HTTPConnection("127.0.0.1", target_port, timeout=60)
                inside.request(self.command, self.path, body, {"content-type": "application/json"})
                answer = inside.getresponse()
                self.answer(answer.status, answer.read())
                inside.close()

            do_GET = do_POST = forward

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
