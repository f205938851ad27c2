"""A real HTTP server for the files of a folder that counts: connections at a time, requests and bytes by time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class CountingServer:
    """A running server.

    Parameters
    ----------
    address
        Its address.
    pause
        Seconds that each answer takes, so that requests at a time are seen.
    most
        Most requests under way at a time so far.
    answers
        Time (monotonic) and bytes of each answer.
    """

    folder: Path
    address: str = ""
    pause: float = 0.05
    now: int = 0
    most: int = 0
    answers: list[tuple[float, int]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def busiest(self, seconds: float) -> tuple[int, int]:
        """Return the most requests, and the most bytes, in any time of so many seconds."""
        answers = sorted(self.answers)
        windows = [[one for one in answers if start <= one[0] < start + seconds] for start, _ in answers]
        return max(map(len, windows)), max(sum(size for _, size in one) for one in windows)


@contextmanager
def serve_counting(folder: Path, *, pause: float = 0.05) -> Iterator[CountingServer]:
    """Serve a folder, with range requests, on a free port of 127.0.0.1."""
    running = CountingServer(folder, pause=pause)

    class Handler(_Handler):
        state = running

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: CountingServer

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        state = self.state
        with state.lock:
            state.now += 1
            state.most = max(state.most, state.now)
        try:
            time.sleep(state.pause)
            with suppress(ConnectionError):
                size = self._send()
                with state.lock:
                    state.answers.append((time.monotonic(), size))
        finally:
            with state.lock:
                state.now -= 1

    def _send(self) -> int:
        path = self.state.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return 0
        content, text = path.read_bytes(), self.headers.get("Range", "")
        size = len(content)
        self.send_response(206 if text else 200)
        if text:
            first, _, last = text.removeprefix("bytes=").partition("-")
            content = content[int(first) : int(last) + 1 if last else None]
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(content) - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return 0
        self.wfile.write(content)
        return len(content)
