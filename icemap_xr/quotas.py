"""A provider's quotas hold for all workers of a cluster together: connections, requests per minute, bytes per second.

A block is read in one of as many slots as the provider allows connections. Slots are leases of the Dask scheduler
(`distributed.Semaphore`): a worker that dies loses its slot after a while, and nobody else can have it before. Without
a cluster they are those of this process. The rates hold because a slot is kept until the time is over that its requests
and bytes are allowed to take: each slot has its part of the rate, so all of them together never have more than the
whole. Requests and bytes of a block are not counted but bounded, by its size in internal tiles of the raster.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

#: requests of a block before its pixels: the file's size, its header, and one more where the header is long
OPENING = 3
#: side in pixels of the smallest internal tiles that are usual; each may take a request of its own
_TILE = 256
#: bytes of one compressed float32 pixel: a recorded sentinel-1-rtc asset of 22203 x 29533 px has 1857486802 bytes
BYTES_PER_PIXEL = 1857486802 / (22203 * 29533)

_local: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """What reading may take from a provider; small, and travels with each task.

    Parameters
    ----------
    name
        Provider: whoever reads from it shares the slots.
    connections
        Slots; None for no limit, and then there are no other limits either.
    requests_per_min
        Requests per minute of all slots together; None for no limit.
    mb_per_s
        Megabytes (1e6) per second of each connection; None for no limit.
    """

    name: str = ""
    connections: int | None = None
    requests_per_min: float | None = None
    mb_per_s: float | None = None

    @contextmanager
    def slot(self, shape: Sequence[int], rasters: int = 1) -> Iterator[None]:
        """Read a block of so many rows and columns from so many rasters in a slot of its own."""
        if self.connections is None:
            yield
            return
        with _semaphore(f"icemap-quota-{self.name}", self.connections):
            begun = time.monotonic()
            try:
                yield
            finally:
                # kept also after a fault: what failed has been asked for, too
                time.sleep(max(0.0, self.seconds(shape, rasters) - (time.monotonic() - begun)))

    def seconds(self, shape: Sequence[int], rasters: int = 1) -> float:
        """Return how long a slot is kept at least for a block: what its requests and bytes may take."""
        tiles = math.prod(math.ceil(side / _TILE) + 1 for side in shape)
        seconds = 0.0
        if self.requests_per_min is not None and self.connections is not None:
            seconds = rasters * (OPENING + tiles) * 60 * self.connections / self.requests_per_min
        if self.mb_per_s is not None:
            seconds = max(seconds, rasters * tiles * _TILE**2 * BYTES_PER_PIXEL / (self.mb_per_s * 1e6))
        return seconds


def _semaphore(name: str, leases: int) -> Any:
    """Return the slots of this worker's cluster, or of this process."""
    if "distributed" in sys.modules:
        from distributed import Semaphore, get_worker

        try:
            get_worker()
        except ValueError:
            pass
        else:
            return Semaphore(max_leases=leases, name=f"{name}-{leases}")
    with _lock:
        return _local.setdefault((name, leases), threading.BoundedSemaphore(leases))
