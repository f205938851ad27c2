"""Kill clients, schedulers and workers while a map is written, and say what it cost.

    python benchmarks/chaos.py [POINTS]

Clients and schedulers are killed with SIGKILL at 20 (or POINTS) random points, each time followed by a run to the end;
as many workers die as `distributed.chaos.KillWorker` kills them, in every mode. It prints the table of docs/resume.md,
and ends with exit code 1 if a chunk differs from an undisturbed run's, or if more was redone than was in flight.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import get_args

from icemap_xr.testing import chaos

BLOCKS = 12
SEED = 7


def main(points: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cube = chaos.make_cube(folder, BLOCKS)
        with chaos.scheduler_with_workers() as (address, _):
            clustered = chaos.kill_clients(cube, folder, points, SEED, BLOCKS, address)
        verdicts = [
            chaos.kill_clients(cube, folder, points, SEED, BLOCKS),
            clustered,
            chaos.kill_schedulers(cube, folder, points, SEED, BLOCKS),
            *(chaos.kill_workers(cube, folder, mode, "3 s", BLOCKS, points) for mode in get_args(chaos.Mode)),
        ]
    print("| killed | kills | blocks redone | in flight at most | chunks as undisturbed |")
    print("|---|---|---|---|---|")
    for one in verdicts:
        print(f"| {one.what} | {one.kills} | {one.redone} | {one.allowed} | {'yes' if one.identical else 'NO'} |")
    return 0 if all(one.good for one in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
