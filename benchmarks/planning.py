"""Planning at scale: 100,000 output blocks from a store to a scheduler, before the first one runs.

    python benchmarks/planning.py [--across 100 --years 10]

The cube of 100 x 100 blocks and 10 years is laid out as one on disk and was never written: planning reads no pixel.
Measured in one process, which holds client and scheduler both: `predict`, the optimised graph, sending it to the
scheduler of a LocalCluster without workers, so that nothing starts to run, and for comparison `dry_run`. Targets: less
than 30 s of processor time and 1 GB in all, and at most 1.1 tasks per block. Writing a map sends its blocks in batches
of 1000, so a scheduler never holds this many; the figures are for a map that is persisted whole.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dask
import xarray as xr
from _harness import MIB, cube_frame, peak_rss, print_head, print_row, series_attrs

from icemap_xr import schema
from icemap_xr.blockjob import BLOCK_TARGET
from icemap_xr.storearray import StoreArray, lazy
from icemap_xr.testing.fakes import FakePredictor

FEATURES = ("grd", "insar")
CHUNK = 512


@contextmanager
def stage(name: str, tasks: dict[str, Any]) -> Iterator[None]:
    """Print a row: seconds of wall clock and processor, and the process's peak memory afterwards."""
    wall, processor = time.perf_counter(), time.process_time()
    yield
    seconds = time.process_time() - processor
    tasks["seconds"] = tasks.get("seconds", 0.0) + seconds
    wall = time.perf_counter() - wall
    print_row(name, f"{wall:.1f}", f"{seconds:.1f}", f"{peak_rss() / MIB:.0f}", tasks.pop("count", ""))


@dataclass(frozen=True)
class Unwritten(StoreArray):
    """A store's array as `open_cube` makes it, of which only the layout is known: planning reads no pixel."""

    @property
    def chunk_rows(self) -> int:
        """Rows of a chunk."""
        return CHUNK

    @property
    def stored(self) -> tuple[tuple[int, ...], int]:
        """Chunks of one scene."""
        return (1, CHUNK, CHUNK), 2


def open_unwritten(across: int, years: int) -> xr.Dataset:
    """Return a cube as `open_cube` does, of a store too large to write."""
    side = across * BLOCK_TARGET
    ds = cube_frame((side, side), steps=15, features=FEATURES, years=range(2000, 2000 + years))
    for name in FEATURES:
        source = Unwritten("nowhere", name, (15 * years, side, side), "none")
        dims = (schema.feature(name).time, schema.Y, schema.X)
        ds[name] = (dims, lazy(source, (1, CHUNK, CHUNK)), series_attrs(name))
    return ds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--across", type=int, default=100, help="blocks along y and x")
    parser.add_argument("--years", type=int, default=10)
    arguments = parser.parse_args()
    model, found = FakePredictor(384, 15, FEATURES), {"seconds": 0.0}
    cube = open_unwritten(arguments.across, arguments.years)
    print_head("stage", "wall s", "processor s", "peak MiB", "tasks")
    with stage("predict", found):
        maps = cube.icemap.predict(model).probability.data
    with stage("optimised graph", found):
        (optimised,) = dask.optimize(maps)
        count = found["count"] = len(dict(optimised.__dask_graph__()))
    del optimised
    with stage("sent to the scheduler", found):
        send(maps, found)
    seconds, peak = found["seconds"], peak_rss() / MIB
    with stage("dry_run", found):
        plan = cube.icemap.predict(model, dry_run=True)
    blocks = maps.npartitions
    print(
        f"\n{blocks:,} blocks, {count / blocks:.3f} tasks per block, {seconds:.1f} s of processor time, "
        f"peak {peak:.0f} MiB; {plan.windows:,} windows"
    )


def send(maps: Any, found: dict[str, Any]) -> None:
    """Send a graph to a scheduler in this process, and wait until it holds every task."""
    from distributed import Client, LocalCluster

    options = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        futures = client.persist(maps)
        while len(cluster.scheduler.tasks) < maps.npartitions:
            time.sleep(0.05)
        found["count"] = len(cluster.scheduler.tasks)
        del futures


if __name__ == "__main__":
    main()
