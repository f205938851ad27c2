"""A plan of many tiles under injected faults: what stays unresolved, and whether memory stays flat.

    python benchmarks/tiles.py                      10 000 windows over 100 tiles, two processes, one of them killed
    python benchmarks/tiles.py --tiles 10000        1 000 000 windows over 10 000 tiles

Each tile has 100 windows, which a predictor without weights maps with the same kernel as real ones. An attempt at a
tile fails with probability 0.088, the rate that a comparable public project logs per attempt, and processes are killed
on the way (SIGKILL) and started again. Every finished tile records the memory of its process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _harness import MIB, print_head, print_row

from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.testing.tileplans import tile_plan
from icemap_xr.tilequeue import dead_tiles, run_tiles, status
from icemap_xr.tiles import Tile, read_plan

FAULTS = 0.088
WINDOW, SIDE = 16, 160
WINDOWS = (SIDE // WINDOW) ** 2
#: seconds without a sign of life; killed processes are noticed after these
STALE = 10.0


def resident() -> int:
    """Return the memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def work_off(folder: str) -> None:
    """Be one of the processes."""
    ds = yearly_dataset((SIDE, SIDE), steps=1, features=("rtc",)).load()
    model = FakePredictor(window=WINDOW, steps=1, features=("rtc",))
    log = Path(folder) / f"{os.getpid()}.log"

    def work(tile: Tile) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"{tile.index}\n")
        if random.random() < FAULTS:
            raise OSError("injected fault")
        maps = predict(ds, model, overlap=0.0).compute(scheduler="sync")
        assert np.isfinite(maps.probability.values).all()
        return {"windows": WINDOWS, "resident": resident()}

    run_tiles(read_plan(folder), work, stale=STALE)


def simulate(folder: Path, tiles: int, processes: int, kills: int, seed: int) -> None:
    plan = tile_plan(folder / "plan", tiles)
    rng, killed, begun = np.random.default_rng(seed), 0, time.perf_counter()
    start = [sys.executable, __file__, "--work", str(plan.folder)]
    running = [subprocess.Popen(start) for _ in range(processes)]
    points = sorted(rng.uniform(0.05, 0.95, kills) * tiles)
    while any(one.poll() is None for one in running):
        time.sleep(1)
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
    report(plan.folder, seconds, killed)


def report(folder: Path, seconds: float, killed: int) -> None:
    plan = read_plan(folder)
    now = status(plan, stale=STALE)
    records = [json.loads(path.read_text()) for path in (folder / "done").glob("*.json")]
    records.sort(key=lambda one: one["when"])
    memory = np.array([one["result"]["resident"] for one in records]) / MIB
    tenth = max(1, len(memory) // 10)
    attempts = sum(len(path.read_text().splitlines()) for path in folder.glob("*.log"))
    files = sum(len(names) for _, _, names in os.walk(folder))
    print_head("what", "value")
    print_row("tiles, windows", f"{now.tiles:,}, {now.tiles * WINDOWS:,}")
    print_row("attempts", f"{attempts:,} ({attempts / now.tiles - 1:.1%} more than tiles)")
    print_row("processes killed", killed)
    print_row("tiles done at a later try", now.retried)
    print_row("unresolved windows", f"{len(dead_tiles(plan)) * WINDOWS:,} ({now.dead / now.tiles:.3%}; limit 0.5 %)")
    print_row("done twice", f"{now.done + now.dead - now.tiles}")
    print_row("memory, first, last tenth", f"{memory[:tenth].mean():.0f} and {memory[-tenth:].mean():.0f} MiB")
    print_row("largest memory", f"{memory.max():.0f} MiB")
    print_row("files of the plan", f"{files:,}")
    print_row("time", f"{seconds:.0f} s, {now.tiles / seconds:.1f} tiles/s")
    if now.dead / now.tiles >= 0.005 or now.done + now.dead != now.tiles:
        sys.exit("more than 0.5 % are unresolved, or tiles are missing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kills", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work_off(options.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        simulate(Path(folder), options.tiles, options.processes, options.kills, options.seed)


if __name__ == "__main__":
    main()
