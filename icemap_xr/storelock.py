"""The right to write a store: one writer at a time, whatever becomes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from icemap_xr import manifest as files
from icemap_xr.errors import StoreBusyError
from icemap_xr.manifest import partial_path
from icemap_xr.types import StrPath


@contextmanager
def exclusive(path: StrPath) -> Iterator[None]:
    """Hold the right to write a store; it ends with the process, however that ends.

    Where a file system has no locks, there is none: chunks cannot be harmed by a second writer, metadata can.

    Raises
    ------
    StoreBusyError
        Another process, or another thread, has it.
    """
    lock = partial_path(path) / files.LOCK
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT)
        try:
            if not _locked(handle):
                raise StoreBusyError(
                    f"{path} is being written by another process: wait until it has ended and repeat the call"
                )
            # the store may have got its final name, and the lock file with it, before the lock was ours
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                yield
                return
        finally:
            os.close(handle)
            if Path(path).exists():
                _remove_empty(partial_path(path))


def _locked(handle: int) -> bool:
    """Lock a file; return False where someone else has it."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # no locks on this system or file system
        return True
    return True


def _remove_empty(partial: Path) -> None:
    """Remove the folder that only a lock was made in."""
    lock = partial / files.LOCK
    if partial.exists() and {*files.store_files(partial)} <= {files.LOCK}:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
            lock.parent.rmdir()
            partial.rmdir()
