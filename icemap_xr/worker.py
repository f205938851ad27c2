"""Loaded by each worker of a local cluster when it starts (a Dask preload)."""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Leave Ctrl-C to the process that started the workers: a terminal sends it to all of them at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
