"""A provider's quotas hold for all workers of a cluster together: connections, requests per minute, bytes per second.

A block is read in one of as many slots as the provider allows connections. Slots are leases of the Dask scheduler
(`distributed.Semaphore`): a worker that dies loses its slot after a while, and nobody else can have it before. Without
a cluster they are those of this process. The rates hold because a slot is kept until the time is over that its requests
and bytes are allowed to take: each slot has its part of the rate, so all of them together never have more than the
whole. Requests and bytes of a block are not counted but bounded, by its size in internal tiles of the raster: in
pixels of the raster, of which a coarser grid takes many for each of its own. Scenes in radar geometry tell which lines
they took, whole internal strips of them, and their annotation. A request to the provider's catalogue takes a slot, too.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
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
_TILE_BYTES = _TILE**2 * BYTES_PER_PIXEL

_local: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_lock = threading.Lock()


#: how much the bounds of a block may grow when they are turned into another CRS; overviews are chosen with this reserve
_TURNED = math.sqrt(2)


@dataclass
class Slot:
    """A slot in use: learns from the opened rasters how much is really read.

    Parameters
    ----------
    shape
        Rows and columns that are read of each raster at most.
    taken
        Bytes read beside these, as far as they told of themselves.
    """

    shape: tuple[int, int]
    taken: int = 0

    @property
    def tiles(self) -> int:
        """Internal tiles of `_TILE` pixels side that the bytes taken fill."""
        return math.ceil(self.taken / _TILE_BYTES)

    def take(self, size: int) -> None:
        """Count bytes that were read, such as those of an annotation."""
        self.taken += size

    def take_window(self, source: Any, rows: slice, columns: slice) -> None:
        """Count a window of an opened rasterio dataset by the internal blocks that it touches, uncompressed."""
        down, across = source.block_shapes[0]
        touched = [
            (-(-part.stop // side) - part.start // side) * side for part, side in ((rows, down), (columns, across))
        ]
        self.taken += math.prod(touched) * np.dtype(source.dtypes[0]).itemsize

    def see(self, source: Any, geobox: GeoBox) -> None:
        """Widen the shape to what a block of some grid takes of an opened rasterio dataset, in the raster's pixels."""
        box, rows, columns = geobox.boundingbox, *geobox.shape
        left, bottom, right, top = box.bbox
        same = geobox.crs is None or source.crs == str(geobox.crs)
        if not same:
            left, bottom, right, top = transform_bounds(str(geobox.crs), source.crs, left, bottom, right, top)
        if not all(map(math.isfinite, (left, bottom, right, top))):
            return
        width, height = source.res
        # a block takes no more of a raster than there is
        tall = min((top - bottom) / height, source.height)
        wide = min((right - left) / width, source.width)
        shrink = min((top - bottom) / height / rows, (right - left) / width / columns) / (1 if same else _TURNED)
        # readers take the coarsest overview that is fine enough
        level = max([1, *(one for one in source.overviews(1) if one <= shrink)])
        self.shape = (
            max(self.shape[0], math.ceil(tall / level)),
            max(self.shape[1], math.ceil(wide / level)),
        )


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
        slot = Slot((shape[0], shape[1]))
        if self.connections is None:
            yield slot
            return
        with _semaphore(f"icemap-quota-{self.name}", self.connections):
            begun = time.monotonic()
            try:
                yield slot
            finally:
                # kept also after a fault: what failed has been asked for, too
                wanted = self.seconds(slot.shape, rasters, beside=slot.tiles)
                time.sleep(max(0.0, wanted - (time.monotonic() - begun)))

    @contextmanager
    def call(self) -> Iterator[None]:
        """Make one request of a catalogue in a slot of its own; its answer is small."""
        if self.connections is None:
            yield
            return
        with _semaphore(f"icemap-quota-{self.name}", self.connections):
            begun = time.monotonic()
            try:
                yield
            finally:
                pause = 0.0 if self.requests_per_min is None else 60 * self.connections / self.requests_per_min
                time.sleep(max(0.0, pause - (time.monotonic() - begun)))

    def seconds(self, shape: Sequence[int], rasters: int = 1, *, beside: int = 0) -> float:
        """Return how long a slot is kept at least for a block: what its requests and bytes may take.

        Parameters
        ----------
        shape
            Rows and columns that are read of each raster.
        rasters
            Rasters that are read.
        beside
            Tiles that are read beside these.
        """
        tiles = rasters * math.prod(math.ceil(side / _TILE) + 1 for side in shape) + beside
        seconds = 0.0
        if self.requests_per_min is not None and self.connections is not None:
            seconds = (rasters * OPENING + tiles) * 60 * self.connections / self.requests_per_min
        if self.mb_per_s is not None:
            seconds = max(seconds, tiles * _TILE_BYTES / (self.mb_per_s * 1e6))
        return seconds


def _semaphore(name: str, leases: int) -> Any:
    """Return the slots of the cluster that this process works for or is a client of, else those of this process."""
    if _on_cluster():
        from distributed import Semaphore

        return Semaphore(max_leases=leases, name=f"{name}-{leases}")
    with _lock:
        return _local.setdefault((name, leases), threading.BoundedSemaphore(leases))


def _on_cluster() -> bool:
    if "distributed" not in sys.modules:
        return False
    from distributed import Client, get_worker

    for current in (get_worker, Client.current):
        try:
            current()
        except ValueError:
            continue
        return True
    return False
