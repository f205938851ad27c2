"""A real HTTP server for the files of a folder that counts: connections at a time, requests and bytes by time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from icemap_xr.testing.servers import Handler, serve


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

    class Counted(_Counted):
        state = running

    with serve(Counted) as running.address:
        yield running


class _Counted(Handler):
    state: CountingServer

    def answer(self) -> None:
        state = self.state
        with state.lock:
            state.now += 1
            state.most = max(state.most, state.now)
        try:
            time.sleep(state.pause)
            with suppress(ConnectionError):
                size = self._file()
                with state.lock:
                    state.answers.append((time.monotonic(), size))
        finally:
            with state.lock:
                state.now -= 1

    def _file(self) -> int:
        path = self.state.folder / self.path.lstrip("/")
        if not path.is_file():
            return self.send(404, b"", {})
        content = path.read_bytes()
        return self.send_part(content, *self.asked(len(content)))
