"""A real HTTP server that serves the files of a folder with the faults of real servers, for tests of what reads them.

The address of a file is ``<server>/<name of a fault>/<file>``; what a fault does is said by `Fault`. Tokens, as object
stores sign addresses with, come from ``<server>/token/<account>/<container>``.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Kind = Literal["none", "status", "reset", "truncated", "short", "html", "stall", "slow", "corrupt", "token", "redirect"]
_HTML = b"<!DOCTYPE html><html><body>Please sign in</body></html>"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a file.

    Parameters
    ----------
    kind
        ``"status"`` answers with `status` and a JSON body; ``"reset"`` drops the connection; ``"truncated"`` sends half
        of what it announced; ``"short"`` announces and sends half of what was asked for; ``"html"`` sends a page with
        status 200; ``"stall"`` sends the head and then nothing; ``"slow"`` sends in small pieces; ``"corrupt"`` sends
        other bytes from `start` on; ``"token"`` wants the newest token in the query; ``"redirect"`` sends to `to`.
    times
        Requests of each file that it meets; -1 for all.
    start
        Byte from which on it meets requests: 0 meets the opening, more only the pixels.
    status
        Status for ``"status"``.
    retry_after
        Seconds for a ``Retry-After`` header.
    to
        Target of ``"redirect"``, to which the name of the file is added.
    """

    kind: Kind = "none"
    times: int = -1
    start: int = 0
    status: int = 0
    retry_after: float | None = None
    to: str = ""


@dataclass
class FaultServer:
    """A running server.

    Parameters
    ----------
    address
        Its address.
    folder
        Folder that is served.
    faults
        Faults by name; more may be added.
    requests
        Method, path with query, and headers of every request.
    token
        Number of the token that is good; raise it, and older ones have expired.
    hits
        How often each fault met each file.
    """

    address: str
    folder: Path
    faults: dict[str, Fault]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    token: int = 1
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)

    def url(self, fault: str, name: str) -> str:
        """Return the address of a file with a fault."""
        return f"{self.address}/{fault}/{name}"

    def takes(self, name: str, fault: Fault, file: str, first: int, last: int, head: bool) -> bool:
        """Whether a request of some bytes is to fail, and count it."""
        if fault.kind == "none" or last < fault.start:
            return False
        if head and (fault.start or fault.kind in ("truncated", "short", "stall", "slow", "corrupt")):
            return False
        with self.lock:
            if 0 <= fault.times <= self.hits[name, file]:
                return False
            self.hits[name, file] += 1
        return True


@contextmanager
def serve_faults(folder: Path, faults: Mapping[str, Fault]) -> Iterator[FaultServer]:
    """Serve a folder with faults on a free port of 127.0.0.1."""
    running = FaultServer("", folder, dict(faults))

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
        running.stop.set()
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FaultServer

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer()

    def _answer(self) -> None:
        state = self.state
        state.requests.append((self.command, self.path, dict(self.headers)))
        with suppress(ConnectionError):
            parts = urlsplit(self.path).path.strip("/").split("/")
            if parts[0] == "token":
                self._token()
                return
            name, file = parts[0], "/".join(parts[1:])
            path, fault = state.folder / file, state.faults.get(name)
            if fault is None or not path.is_file():
                self._send(404, b"{}", {})
                return
            content = path.read_bytes()
            first, last = self._range(len(content))
            if state.takes(name, fault, file, first, last, self.command == "HEAD"):
                self._fail(fault, content, first, last, file)
            else:
                self._part(content, first, last)

    def _range(self, size: int) -> tuple[int, int]:
        text = self.headers.get("Range", "")
        if not text.startswith("bytes="):
            return 0, size - 1
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first or 0), min(int(last) if last else size - 1, size - 1)

    def _part(self, content: bytes, first: int, last: int, body: bytes | None = None) -> None:
        body = content[first : last + 1] if body is None else body
        if "Range" not in self.headers:
            self._send(200, body, {"Accept-Ranges": "bytes"})
        else:
            self._send(206, body, {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(content)}"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _token(self) -> None:
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        answer = {"token": f"sig=s3cr3t-{self.state.token}", "msft:expiry": expiry}
        answer |= {"access_token": f"s3cr3t-{self.state.token}", "expires_in": 3600}  # type: ignore[dict-item]
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _fail(self, fault: Fault, content: bytes, first: int, last: int, file: str) -> None:
        asked = content[first : last + 1]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"} if "Range" in self.headers else {}
        status = 206 if headers else 200
        if fault.kind == "status":
            extra = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            body = json.dumps({"message": "no", "code": fault.status}).encode()
            self._send(fault.status, body, {"Content-Type": "application/json", **extra})
        elif fault.kind == "redirect":
            self._send(302, b"", {"Location": f"{fault.to}/{file}"})
        elif fault.kind == "token":
            wanted = f"s3cr3t-{self.state.token}"
            given = parse_qs(urlsplit(self.path).query).get("sig", [""])[0]
            given = given or self.headers.get("Authorization", "").removeprefix("Bearer ")
            self._part(content, first, last) if given == wanted else self._send(403, b"{}", {})
        elif fault.kind == "reset":
            # lingering for 0 s makes the close a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "html":
            self._send(200, _HTML, {"Content-Type": "text/html"})
        elif fault.kind == "short":
            self._part(content, first, last, asked[: len(asked) // 2])
        elif fault.kind == "corrupt":
            start = max(0, fault.start - first)
            self._part(content, first, last, asked[:start] + bytes(byte ^ 0x55 for byte in asked[start:]))
        else:
            self._head(status, len(asked), headers)
            if self.command != "HEAD":
                self._body(fault, asked)

    def _body(self, fault: Fault, asked: bytes) -> None:
        if fault.kind == "slow":
            for part in range(0, len(asked), max(1, len(asked) // 5)):
                self.wfile.write(asked[part : part + max(1, len(asked) // 5)])
                self.wfile.flush()
                time.sleep(0.02)
            return
        self.wfile.write(asked[: len(asked) // 2])
        self.wfile.flush()
        self.close_connection = True
        if fault.kind == "stall":
            self.state.stop.wait(30)
