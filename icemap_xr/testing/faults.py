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
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from icemap_xr.testing.servers import Handler, serve

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
    token_lasts
        Requests after which a token expires by itself; 0 for never.
    hits
        How often each fault met each file.
    """

    address: str
    folder: Path
    faults: dict[str, Fault]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    token: int = 1
    token_lasts: int = 0
    token_uses: int = 0
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

    def use_token(self, good: bool) -> None:
        """Count a request with a token, which may be its last one."""
        with self.lock:
            self.token_uses += good
            if self.token_lasts and self.token_uses >= self.token_lasts:
                self.token, self.token_uses = self.token + 1, 0


@contextmanager
def serve_faults(folder: Path, faults: Mapping[str, Fault]) -> Iterator[FaultServer]:
    """Serve a folder with faults on a free port of 127.0.0.1."""
    running = FaultServer("", folder, dict(faults))

    class Faulty(_Faulty):
        state = running

    with serve(Faulty) as running.address:
        try:
            yield running
        finally:
            running.stop.set()


class _Faulty(Handler):
    state: FaultServer

    def answer(self) -> None:
        state = self.state
        if self.command == "POST":
            self.body()
        state.requests.append((self.command, self.path, dict(self.headers)))
        with suppress(ConnectionError):
            parts = urlsplit(self.path).path.strip("/").split("/")
            if parts[0] == "token":
                self._token()
                return
            name, file = parts[0], "/".join(parts[1:])
            path, fault = state.folder / file, state.faults.get(name)
            if fault is None or not path.is_file():
                self.send(404, b"{}", {})
                return
            content = path.read_bytes()
            first, last = self.asked(len(content))
            if state.takes(name, fault, file, first, last, self.command == "HEAD"):
                self._fail(fault, content, first, last, file)
            else:
                self.send_part(content, first, last)

    def _token(self) -> None:
        expiry = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        answer = {"token": f"sig=s3cr3t-{self.state.token}", "msft:expiry": expiry}
        answer |= {"access_token": f"s3cr3t-{self.state.token}", "expires_in": 3600}  # type: ignore[dict-item]
        self.send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _fail(self, fault: Fault, content: bytes, first: int, last: int, file: str) -> None:
        asked = content[first : last + 1]
        headers = {"Content-Range": f"bytes {first}-{last}/{len(content)}"} if "Range" in self.headers else {}
        status = 206 if headers else 200
        if fault.kind == "status":
            extra = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            body = json.dumps({"message": "no", "code": fault.status}).encode()
            self.send(fault.status, body, {"Content-Type": "application/json", **extra})
        elif fault.kind == "redirect":
            self.send(302, b"", {"Location": f"{fault.to}/{file}"})
        elif fault.kind == "token":
            wanted = f"s3cr3t-{self.state.token}"
            given = parse_qs(urlsplit(self.path).query).get("sig", [""])[0]
            given = given or self.headers.get("Authorization", "").removeprefix("Bearer ")
            self.send_part(content, first, last) if given == wanted else self.send(403, b"{}", {})
            self.state.use_token(given == wanted)
        elif fault.kind == "reset":
            # lingering for 0 s makes the close a reset
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "html":
            self.send(200, _HTML, {"Content-Type": "text/html"})
        elif fault.kind == "short":
            self.send_part(content, first, last, asked[: len(asked) // 2])
        elif fault.kind == "corrupt":
            start = max(0, fault.start - first)
            self.send_part(content, first, last, asked[:start] + bytes(byte ^ 0x55 for byte in asked[start:]))
        else:
            self.head(status, len(asked), headers)
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
