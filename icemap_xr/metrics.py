"""Counters of our own for Prometheus, beside those of Dask: each worker's dashboard port has them under ``/metrics``.

They need the extra monitoring (`prometheus_client`); without it counting costs nothing and does nothing.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Literal

Name = Literal["windows", "read_bytes", "read_retries", "holes", "blocks_failed"]

_HELP: dict[Name, str] = {
    "windows": "Windows that a model has mapped, each pass counted",
    "read_bytes": "Decoded bytes of the blocks that were read from rasters",
    "read_retries": "Tries at reading a block beyond the first",
    "holes": "Blocks that could not be read and were left empty",
    "blocks_failed": "Failed tries at a block, counted by the process that waits for it",
}

_LOCK = Lock()
_COUNTERS: dict[Name, Any] = {}


def count(name: Name, amount: float = 1) -> None:
    """Add to the counter ``icemap_<name>_total`` of this process."""
    counter = _counter(name)
    if counter is not None:
        counter.inc(amount)


def _counter(name: Name) -> Any:
    # threads of a worker count at once, and a second counter of one name is an error
    with _LOCK:
        if name not in _COUNTERS:
            _COUNTERS[name] = _made(name)
        return _COUNTERS[name]


def _made(name: Name) -> Any:
    try:
        from prometheus_client import Counter
    except ImportError:
        return None
    return Counter(f"icemap_{name}", _HELP[name])
