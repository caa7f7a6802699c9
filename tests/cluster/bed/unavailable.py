#!/usr/bin/env python3
"""Answers 503 to every request on the port of its argument, as an S3 store that is overloaded does; says when."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"


class Unavailable(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(BODY)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(BODY)

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("", int(sys.argv[1])), Unavailable)
print("ready", flush=True)
server.serve_forever()
