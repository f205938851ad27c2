"""A plan of many tiles under injected faults: what stays unresolved, and whether memory stays flat.

    python benchmarks/tiles.py                      10 000 windows over 100 tiles, two processes, one of them killed
    python benchmarks/tiles.py --tiles 10000        1 000 000 windows over 10 000 tiles
    python benchmarks/tiles.py --cluster            the same through one Dask scheduler, from a store to stores

Each tile has 100 windows, which a predictor without weights maps with the same kernel as real ones. An attempt at a
tile fails with probability 0.088, the rate that a comparable public project logs per attempt, and processes are killed
on the way (SIGKILL) and started again. Every finished tile records the memory of its process.

With `--cluster` the processes are clients of one scheduler with two worker processes; each tile is read from a cube in
a Zarr store in nine blocks and written to a store of its own, which is then deleted. What the scheduler holds, how
large it is and how late it answers is looked at all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _harness import MIB, print_head, print_row, write_cube
from distributed import LocalCluster

import icemap_xr as ix
from icemap_xr import blockjob
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.testing.tileplans import tile_plan
from icemap_xr.tilequeue import dead_tiles, run_tiles
from icemap_xr.tiles import Tile, TilePlan, read_plan
from icemap_xr.tilestatus import status

FAULTS = 0.088
WINDOW, SIDE = 16, 160
WINDOWS = (SIDE // WINDOW) ** 2
#: side of the blocks on a cluster: nine of them
BLOCK = 64
#: tasks that a scheduler may have at once
TASKS = 1000
MODEL = FakePredictor(window=WINDOW, steps=1, features=("rtc",))
#: seconds without a sign of life; killed processes are noticed after these
STALE = 10.0


def resident() -> int:
    """Return the memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_memory() -> Callable[[Tile], None]:
    """Map arrays of this process."""
    ds = yearly_dataset((SIDE, SIDE), steps=1, features=("rtc",)).load()

    def map_tile(tile: Tile) -> None:
        maps = predict(ds, MODEL, overlap=0.0).compute(scheduler="sync")
        assert np.isfinite(maps.probability.values).all()

    return map_tile


def on_cluster(folder: Path) -> Callable[[Tile], None]:
    """Map a cube in a store to stores, on the current cluster."""
    # tiles of a hundred windows of the published size have many blocks; these windows are small
    blockjob.BLOCK_TARGET = BLOCK
    maps_folder = folder / "maps"
    maps_folder.mkdir(exist_ok=True)

    def map_tile(tile: Tile) -> None:
        path = maps_folder / f"{tile.name}.zarr"
        maps = ix.open_cube(folder / "cube.zarr").icemap.predict(MODEL, overlap=0.0).icemap.to_zarr(path)
        assert np.isfinite(maps.probability.values).all()
        shutil.rmtree(path)

    return map_tile


def work_off(folder: str, address: str | None) -> None:
    """Be one of the processes."""
    plan, log = read_plan(folder), Path(folder) / f"{os.getpid()}.log"

    def note(word: str, tile: Tile) -> None:
        with log.open("a") as file:
            file.write(f"{word} {tile.index}\n")

    def work(map_tile: Callable[[Tile], None], tile: Tile) -> dict[str, Any]:
        note("begun", tile)
        if random.random() < FAULTS:
            raise OSError("injected fault")
        map_tile(tile)
        note("ended", tile)
        return {"windows": WINDOWS, "resident": resident()}

    if address is None:
        run_tiles(plan, partial(work, in_memory()), stale=STALE)
        return
    with ix.cluster(address):
        run_tiles(plan, partial(work, on_cluster(plan.folder)), stale=STALE)


@dataclass
class Watch:
    """What is seen of a scheduler while it works.

    Parameters
    ----------
    cluster
        Cluster whose scheduler is in this process.
    """

    cluster: LocalCluster
    tasks: list[int] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Look once: what the scheduler holds, its process's memory, and how long it takes to answer."""
        begun = time.perf_counter()
        self.cluster.sync(asyncio.sleep, 0)
        self.late.append(time.perf_counter() - begun)
        scheduler = self.cluster.scheduler
        self.tasks.append(len(scheduler.tasks))
        self.memory.append(resident())
        self.workers.append(max((int(one.metrics["memory"]) for one in scheduler.workers.values()), default=0))

    def report(self) -> None:
        """Print what was seen."""
        tenth = max(1, len(self.memory) // 10)
        for name, seen in (("scheduler's process", self.memory), ("largest worker", self.workers)):
            first, last = (np.mean(part) / MIB for part in (seen[tenth : 2 * tenth], seen[-tenth:]))
            print_row(
                f"{name}, second and last tenth", f"{first:.0f} and {last:.0f} MiB, at most {max(seen) / MIB:.0f}"
            )
        print_row("tasks at once on the scheduler", f"at most {max(self.tasks)}")
        print_row(
            "scheduler's answer", f"median {np.median(self.late) * 1e3:.1f} ms, latest {max(self.late) * 1e3:.0f} ms"
        )


@contextmanager
def scheduler(plan: TilePlan) -> Iterator[Watch]:
    """Start a scheduler and two workers, and write the cube."""
    write_cube(plan.folder / "cube.zarr", (SIDE, SIDE), steps=1, features=("rtc",))
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        yield Watch(cluster)


def simulate(plan: TilePlan, processes: int, kills: int, seed: int, watch: Watch | None = None) -> None:
    tiles = len(plan.tiles)
    rng, killed, begun = np.random.default_rng(seed), 0, time.perf_counter()
    start = [sys.executable, __file__, "--work", str(plan.folder)]
    start += [] if watch is None else ["--address", watch.cluster.scheduler_address]
    running = [subprocess.Popen(start) for _ in range(processes)]
    points = sorted(rng.uniform(0.05, 0.95, kills) * tiles)
    while any(one.poll() is None for one in running):
        time.sleep(1)
        if watch is not None:
            watch.look()
        ended = sum(1 for _ in os.scandir(plan.folder / "done")) if (plan.folder / "done").exists() else 0
        if killed < kills and ended >= points[killed]:
            victim = int(rng.integers(processes))
            running[victim].send_signal(signal.SIGKILL)
            running[victim].wait()
            running[victim] = subprocess.Popen(start)
            killed += 1
    seconds = time.perf_counter() - begun
    codes = [one.returncode for one in running]
    if any(codes):
        raise RuntimeError(f"processes ended with {codes}")
    report(plan.folder, seconds, killed, watch)


def report(folder: Path, seconds: float, killed: int, watch: Watch | None) -> None:
    plan = read_plan(folder)
    now = status(plan, stale=STALE)
    records = [json.loads(path.read_text()) for path in (folder / "done").glob("*.json")]
    records.sort(key=lambda one: one["when"])
    memory = np.array([one["result"]["resident"] for one in records]) / MIB
    tenth = max(1, len(memory) // 10)
    lines = Counter(line for path in folder.glob("*.log") for line in path.read_text().splitlines())
    attempts = sum(number for line, number in lines.items() if line.startswith("begun"))
    twice = sum(number - 1 for line, number in lines.items() if line.startswith("ended"))
    files = sum(len(names) for _, _, names in os.walk(folder))
    print_head("what", "value")
    print_row("tiles, windows", f"{now.tiles:,}, {now.tiles * WINDOWS:,}")
    print_row("attempts", f"{attempts:,} ({attempts / now.tiles - 1:.1%} more than tiles)")
    print_row("processes killed", killed)
    print_row("tiles done at a later try", now.retried)
    print_row("unresolved windows", f"{len(dead_tiles(plan)) * WINDOWS:,} ({now.dead / now.tiles:.3%}; limit 0.5 %)")
    # one killed between its work and its record is done again
    print_row("tiles whose work ended twice", f"{twice} (limit: the processes killed)")
    print_row("memory, first, last tenth", f"{memory[:tenth].mean():.0f} and {memory[-tenth:].mean():.0f} MiB")
    print_row("largest memory", f"{memory.max():.0f} MiB")
    print_row("files of the plan", f"{files:,}")
    if watch is not None:
        watch.report()
    print_row("time", f"{seconds:.0f} s, {now.tiles / seconds:.1f} tiles/s")
    if now.dead / now.tiles >= 0.005 or now.done + now.dead != now.tiles or twice > killed:
        sys.exit("more than 0.5 % are unresolved, or tiles are missing, or were done twice")
    # a plan of 100 tiles ends before each process has its memory
    if now.tiles >= 1000 and memory[-tenth:].mean() > 1.1 * memory[:tenth].mean():
        sys.exit("the memory of the processes grows")
    if watch is not None and max(watch.tasks) > TASKS:
        sys.exit(f"the scheduler had more than {TASKS} tasks at once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cluster", action="store_true", help="through one Dask scheduler, from a store to stores")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work_off(options.work, options.address)
        return
    with tempfile.TemporaryDirectory() as folder:
        plan = tile_plan(Path(folder) / "plan", options.tiles)
        with scheduler(plan) if options.cluster else nullcontext() as watch:
            simulate(plan, options.processes, options.kills, options.seed, watch)


if __name__ == "__main__":
    main()
