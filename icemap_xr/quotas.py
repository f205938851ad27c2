"""A provider's quotas hold for all workers of a cluster together: connections, requests per minute, bytes per second.

A block is read in one of as many slots as the provider allows connections. Slots are leases of the Dask scheduler
(`distributed.Semaphore`): a worker that dies loses its slot after a while, and nobody else can have it before. Without
a cluster they are those of this process. The rates hold because a slot is kept until the time is over that its requests
and bytes are allowed to take: each slot has its part of the rate, so all of them together never have more than the
whole. Requests and bytes of a block are not counted but worked out from the raster's layout: the internal tiles or
strips that the block touches at most, those of an overview where the grid is coarser. Scenes in radar geometry tell
which lines they took, and their annotation. A request to the provider's catalogue takes a slot, too.
"""

from __future__ import annotations

import math
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rasterio.warp import transform_bounds

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

#: requests of a block before its pixels: the file's size, its header, and one more where the header is long
OPENING = 3
#: side in pixels of the smallest internal tiles that are usual; each may take a request of its own
_TILE = 256
#: bytes of one compressed float32 pixel: a recorded sentinel-1-rtc asset of 22203 x 29533 px has 1857486802 bytes
BYTES_PER_PIXEL = 1857486802 / (22203 * 29533)
TILE_BYTES = _TILE**2 * BYTES_PER_PIXEL

_local: dict[tuple[str, int], Any] = {}
_shared: weakref.WeakKeyDictionary[Any, dict[tuple[str, int], Any]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


#: how much the bounds of a block may grow when they are turned into another CRS; overviews are chosen with this reserve
_TURNED = math.sqrt(2)


@dataclass
class Slot:
    """A slot in use: learns from the opened rasters what is read at most.

    Parameters
    ----------
    requests, size
        Requests and bytes so far.
    seen
        Whether a raster was opened that told its layout.
    """

    requests: int = 0
    size: float = 0.0
    seen: bool = False

    def take(self, size: int) -> None:
        """Count a small file that was read, such as an annotation."""
        self.size += size
        self.requests += math.ceil(size / TILE_BYTES)

    def take_window(self, source: Any, rows: slice, columns: slice) -> None:
        """Count a window that was read of an opened rasterio dataset, by the internal blocks that it touches."""
        down, across = source.block_shapes[0]
        blocks = [-(-part.stop // side) - part.start // side for part, side in ((rows, down), (columns, across))]
        self._add(source, blocks)

    def see(self, source: Any, geobox: GeoBox) -> None:
        """Count what a block of some grid takes of an opened rasterio dataset at most, in its internal blocks."""
        self.seen = True
        self.requests += OPENING
        box, rows, columns = geobox.boundingbox, *geobox.shape
        left, bottom, right, top = box.bbox
        same = geobox.crs is None or source.crs == str(geobox.crs)
        if not same:
            left, bottom, right, top = transform_bounds(str(geobox.crs), source.crs, left, bottom, right, top)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            # a block that has no place in the raster's CRS reads nothing of it
            return
        width, height = source.res
        tall, wide = (top - bottom) / height, (right - left) / width
        shrink = min(tall / rows, wide / columns) / (1 if same else _TURNED)
        # readers take the coarsest overview that is fine enough
        level = max([1, *(one for one in source.overviews(1) if one <= shrink)])
        sides = zip((tall, wide), (source.height, source.width), source.block_shapes[0], strict=True)
        # no more than there is; a block that begins inside of an internal one touches one more
        blocks = [min(math.ceil(size / level / one) + 1, math.ceil(whole / level / one)) for size, whole, one in sides]
        self._add(source, blocks)

    def _add(self, source: Any, blocks: Sequence[int]) -> None:
        """Count internal blocks, down and across: compressed ones at the bytes per pixel of a recorded scene."""
        down, across = source.block_shapes[0]
        pixel = float(np.dtype(source.dtypes[0]).itemsize)
        if source.compression is not None:
            pixel = min(pixel, BYTES_PER_PIXEL)
        size = math.prod(blocks) * down * across * pixel
        self.size += size
        # tiles may take a request each; strips lie one behind the other
        tiled = across < source.width
        self.requests += math.prod(blocks) if tiled else math.ceil(size / TILE_BYTES)


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
    def slot(self, shape: Sequence[int], rasters: int = 1) -> Iterator[Slot]:
        """Read a block of so many rows and columns from so many rasters in a slot of its own."""
        slot = Slot()
        if self.connections is None:
            yield slot
            return

        def wanted() -> float:
            told = slot.seen or slot.size > 0
            return self._kept(slot.requests, slot.size) if told else self.seconds(shape, rasters)

        with self._held(self.connections, wanted):
            yield slot

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make one request of a catalogue in a slot of its own; its answer is small."""
        if self.connections is None:
            yield
            return
        with self._held(self.connections, lambda: self._kept(1, 0)):
            yield

    @contextmanager
    def _held(self, connections: int, seconds: Callable[[], float]) -> Iterator[None]:
        """Hold a slot for as long as the quotas say at the end, and also after a fault: that was asked for, too."""
        with _semaphore(f"icemap-quota-{self.name}", connections):
            begun = time.monotonic()
            try:
                yield
            finally:
                time.sleep(max(0.0, seconds() - (time.monotonic() - begun)))

    def seconds(self, shape: Sequence[int], rasters: int = 1) -> float:
        """Return how long a slot is kept for a block of rasters of which nothing is known: compressed, small tiles.

        Parameters
        ----------
        shape
            Rows and columns that are read of each raster.
        rasters
            Rasters that are read.
        """
        tiles = tiles_touched(shape)
        return self._kept(rasters * (OPENING + tiles), rasters * tiles * TILE_BYTES)

    def _kept(self, requests: int, size: float) -> float:
        """Return how long a slot is kept at least for so many requests and bytes."""
        seconds = 0.0
        if self.requests_per_min is not None and self.connections is not None:
            seconds = requests * 60 * self.connections / self.requests_per_min
        if self.mb_per_s is not None:
            seconds = max(seconds, size / (self.mb_per_s * 1e6))
        return seconds


def tiles_touched(shape: Sequence[int]) -> int:
    """Return the internal tiles of 256 px that a block of rows and columns touches at most."""
    return math.prod(math.ceil(side / _TILE) + 1 for side in shape)


def _semaphore(name: str, leases: int) -> Any:
    """Return the slots of the cluster that this process works for or is a client of, else those of this process."""
    of_cluster = _cluster()
    with _lock:
        if of_cluster is None:
            return _local.setdefault((name, leases), threading.BoundedSemaphore(leases))
        # each has a callback that runs as long as it is there: one for all threads
        known = _shared.setdefault(of_cluster, {})
        if (name, leases) not in known:
            from distributed import Semaphore

            known[name, leases] = Semaphore(max_leases=leases, name=f"{name}-{leases}")
        return known[name, leases]


def _cluster() -> Any:
    """Return the worker that a task of this thread runs on, or the current client; None without a cluster."""
    if "distributed" not in sys.modules:
        return None
    from distributed import Client, get_worker

    for current in (get_worker, Client.current):
        try:
            return current()
        except ValueError:
            continue
    return None
