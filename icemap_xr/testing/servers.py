"""What the HTTP servers of tests have in common: a free port, a thread, quiet, and ranges of bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers in HTTP/1.1, keeps quiet, and knows ranges; `answer` gets GET, HEAD and POST."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer one request."""
        raise NotImplementedError

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        """Answer HEAD."""
        self.answer()

    def do_GET(self) -> None:
        """Answer GET."""
        self.answer()

    def do_POST(self) -> None:
        """Answer POST."""
        self.answer()

    def body(self) -> bytes:
        """Return what was sent with the request."""
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def asked(self, size: int) -> tuple[int, int]:
        """Return the first and last byte that are asked for, of so many."""
        text = self.headers.get("Range", "")
        if not text.startswith("bytes="):
            return 0, size - 1
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first or 0), min(int(last) if last else size - 1, size - 1)

    def head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        """Send the head of an answer."""
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> int:
        """Send an answer; returns the bytes of its body that were sent."""
        self.head(status, len(body), headers)
        if self.command == "HEAD":
            return 0
        self.wfile.write(body)
        return len(body)

    def send_part(self, content: bytes, first: int, last: int, body: bytes | None = None) -> int:
        """Send the asked bytes of a file, or others in their place."""
        body = content[first : last + 1] if body is None else body
        if "Range" not in self.headers:
            return self.send(200, body, {"Accept-Ranges": "bytes"})
        span = f"bytes {first}-{first + len(body) - 1}/{len(content)}"
        return self.send(206, body, {"Accept-Ranges": "bytes", "Content-Range": span})


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1 in a thread of this process; yields the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
