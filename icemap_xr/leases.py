"""Leases: several processes share a list of work through files in one folder, and none is done twice at a time.

Each try of a piece of work has a file of its own, ``NAME.TRY.json``, that only one process can create. Its owner renews
its time of change. One that has not been renewed for `seconds` is stale, and the next try may begin: it creates the
file of the next number, which again only one can do. An owner that finds a later try than its own has lost its lease,
and its result does not count. Nothing is ever deleted that another process may rely on, and the files are the record of
all tries. Times are those of the file system, so the clocks of machines need not agree.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

#: seconds without a sign of life after which a lease is stale
STALE = 120.0
_BEATS = 4


class LeaseLost(Exception):  # noqa: N818 - not an error of the user's
    """Another process has taken over the work."""


def owner_name() -> str:
    """Return a name for this process that no other has."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Try:
    """One try of a piece of work, as another process sees it.

    Parameters
    ----------
    number
        From 0.
    owner
        Process.
    began
        Time (ISO, UTC).
    age
        Seconds since its last sign of life.
    cause
        Why it failed; None where it is not known to have.
    final
        Whether trying again cannot help.
    counted
        Whether it counts as a try; one that its user stopped does not.
    """

    number: int
    owner: str
    began: str
    age: float
    cause: str | None = None
    final: bool = False
    counted: bool = True


@dataclass
class Leases:
    """The tries of all pieces of work in a folder.

    Parameters
    ----------
    folder
        Where the files are; made if it is not there.
    seconds
        Seconds without a sign of life after which a lease is stale; the same for all processes.
    owner
        Name of this process.
    """

    folder: Path
    seconds: float = STALE
    owner: str = field(default_factory=owner_name)

    def __post_init__(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def tries(self, name: str) -> list[Try]:
        """Return the tries of a piece of work, the last one last."""
        found: list[Try] = []
        while True:
            path = self._path(name, len(found))
            try:
                content, changed = json.loads(path.read_text()), path.stat().st_mtime
            except FileNotFoundError:
                return found
            failed = _read(self._failed(name, len(found)))
            told = {} if failed is None else {key: failed[key] for key in ("cause", "final", "counted")}
            found.append(Try(len(found), content["owner"], content["began"], self.now() - changed, **told))

    def alive(self, one: Try) -> bool:
        """Return whether a try is under way."""
        return one.cause is None and one.age < self.seconds

    def now(self) -> float:
        """Return the file system's time."""
        probe = self.folder / f".clock-{self.owner}"
        probe.touch()
        return probe.stat().st_mtime

    def take(self, name: str, number: int) -> bool:
        """Begin a try; return False where another process has begun it."""
        content = {"owner": self.owner, "began": _now()}
        temporary = self.folder / f".{name}.{self.owner}.partial"
        temporary.write_text(json.dumps(content))
        try:
            # a link comes into being whole, or not at all because the name is taken; also on network file systems
            os.link(temporary, self._path(name, number))
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True

    @contextmanager
    def kept(self, name: str, number: int) -> Iterator[None]:
        """Show signs of life for a try of this process; ended without an error, the lease is still its own.

        Raises
        ------
        LeaseLost
            Another process took over, because no sign of life could be given in time.
        """
        stop = threading.Event()
        path = self._path(name, number)

        def beat() -> None:
            while not stop.wait(self.seconds / _BEATS):
                # a file system that is away for a moment is no reason to stop
                with suppress(OSError):
                    os.utime(path)

        thread = threading.Thread(target=beat, name=f"lease {name}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        if self._path(name, number + 1).exists():
            raise LeaseLost(name)

    def fail(self, name: str, number: int, cause: str, *, final: bool = False, counted: bool = True) -> None:
        """Record that a try of this process failed, and why."""
        content = {"cause": cause, "final": final, "counted": counted, "when": _now()}
        _write(self._failed(name, number), content)

    def close(self) -> None:
        """Remove this process's clock."""
        (self.folder / f".clock-{self.owner}").unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self.folder / f"{name}.{number}.json"

    def _failed(self, name: str, number: int) -> Path:
        return self.folder / f"{name}.{number}.failed.json"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
