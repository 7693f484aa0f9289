"""A bare pass-through on the standard library's server: the minimum cost of a gateway.

It forwards each request with `requests`, and returns the answer as it arrives. It is the
baseline for `vibe-mux serve`, and does nothing else.
"""

from __future__ import annotations

import http.server
import sys
import threading

import requests


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    target = ""
    sessions = threading.local()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        session = self.sessions.__dict__.setdefault("session", requests.Session())
        headers = {
            name: self.headers[name]
            for name in ("Content-Type", "Authorization")
            if name in self.headers
        }
        with session.post(
            self.target + "/chat/completions",
            body,
            headers=headers,
            stream=True,
            timeout=60,
        ) as answer:
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            if "Content-Length" in answer.headers:
                self.send_header("Content-Length", answer.headers["Content-Length"])
                self.end_headers()
                self.wfile.write(answer.content)
                return
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := answer.raw.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Handler.target = sys.argv[1]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler)
    server.serve_forever()


if __name__ == "__main__":
    main()
