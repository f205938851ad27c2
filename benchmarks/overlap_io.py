"""Does reading hide behind computing? Both only wait here, so the speed of the machine hardly matters.

    python benchmarks/overlap_io.py [--blocks 4]

A cube whose every read of a scene waits, as one from object storage does, is mapped by a model whose every call waits.
What both waited is added up, and the map's wall time compared with the larger of the two. Three shares of reading to
computing: target <= 1.1 in each. Two threads, as on a worker: one block computes while the next one reads.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import xarray as xr
from _harness import print_head, print_row
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.blockjob import BLOCK_TARGET
from icemap_xr.storearray import StoreArray, lazy
from icemap_xr.testing.fakes import FakePredictor, small_grid
from icemap_xr.types import Batch, ModelSpec

FEATURES = ("grd", "insar")
STEPS, WINDOW, CHUNK = 5, 384, 512


class Clock:
    """Waits, and adds up how long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.total = 0.0

    def wait(self, seconds: float) -> None:
        """Wait that long."""
        time.sleep(seconds)
        with self._lock:
            self.total += seconds


READING, COMPUTING = Clock(), Clock()


@dataclass(frozen=True)
class SlowArray(StoreArray):
    """A store's array whose reads take a fixed time per chunk row, and bring the same values everywhere."""

    latency: float = 0.0

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return CHUNK

    @property
    def stored(self) -> tuple[tuple[int, ...], int]:
        """Chunks of one scene."""
        return (1, CHUNK, CHUNK), 2

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Wait once for each row of chunks; chunks side by side come together."""
        _, rows, columns = key
        READING.wait(self.latency * (-(-rows.stop // CHUNK) - rows.start // CHUNK))
        value = 0.25 if self.name == "insar" else -10.0
        return np.full((rows.stop - rows.start, columns.stop - columns.start), value, np.float32)


@dataclass(frozen=True)
class SlowModel:
    """A model whose answer takes a fixed time per window."""

    model: FakePredictor
    latency: float

    @property
    def spec(self) -> ModelSpec:
        """The cheap model's."""
        return self.model.spec

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Wait, and answer one half everywhere."""
        COMPUTING.wait(self.latency * len(batch))
        return np.full((len(batch), WINDOW, WINDOW, 2), 0.5, np.float32)


def slow_cube(side: int, latency: float) -> xr.Dataset:
    """Return a cube whose reads wait."""
    ds = xr.Dataset(coords={schema.YEAR: [2020], **small_grid((side, side)).coords()})
    for name in FEATURES:
        one = schema.feature(name)
        source = SlowArray("nowhere", name, (STEPS, side, side), "none", latency)
        data = lazy(source, (1, CHUNK, CHUNK))
        ds[name] = ((one.time, schema.Y, schema.X), data, {"units": one.units})
        ds[one.index] = ((schema.YEAR, schema.STEP), np.arange(STEPS)[None])
    return ds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=3, help="blocks along y and x")
    arguments = parser.parse_args()
    side = arguments.blocks * BLOCK_TARGET
    print_head("reading / computing", "reading s", "computing s", "wall s", "wall / the larger (target <= 1.1)")
    for share in (0.5, 1.0, 2.0):
        # a block of 3072 px reads 7 rows of chunks for each of its scenes, and runs 289 windows
        per_window = 0.02
        latency = share * per_window * 289 / (7 * STEPS * len(FEATURES))
        READING.total = COMPUTING.total = 0.0
        ds, model = slow_cube(side, latency), SlowModel(FakePredictor(WINDOW, STEPS, FEATURES), per_window)
        begun = time.perf_counter()
        with dask.config.set(scheduler="threads", num_workers=2):
            ds.icemap.predict(model, memory_limit="1TB").compute()
        wall = time.perf_counter() - begun
        larger = max(READING.total, COMPUTING.total)
        sums = f"{READING.total:.1f}", f"{COMPUTING.total:.1f}", f"{wall:.1f}"
        print_row(f"{READING.total / COMPUTING.total:.2f}", *sums, f"{wall / larger:.2f}")


if __name__ == "__main__":
    main()
