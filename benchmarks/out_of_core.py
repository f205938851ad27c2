"""Out of core: a map from a Zarr cube against the same map of a scene that is in memory already.

    python benchmarks/out_of_core.py [--side 8192 --gflop 4]

The model does a fixed amount of matrix products per window (4 GFLOP by default, about a hundredth of the published
network), so that an 8k x 8k scene ends within minutes; with a real network reading weighs less. Three runs:

1. the scene in memory, in one piece: every window once, nothing read (the reference);
2. the scene in memory, in the blocks that predictions use: windows across a block's edge are run for each block;
3. from the Zarr cube, blocks read as they are needed, on two threads, as on a worker.

Run 3 against run 2 is what reading costs, run 2 against run 1 what blocks cost. Target: the windows of run 3 are at
most 1.13 times those of run 1. The time is reported beside it and has no target, as it hangs on how light the model is.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import xarray as xr
from _harness import print_head, print_row, write_cube
from numpy.typing import NDArray

from icemap_xr import blockjob
from icemap_xr.testing.fakes import FakePredictor
from icemap_xr.types import Batch, ModelSpec

FEATURES = ("grd", "insar")
_SIDE = 1024
_MATRIX = np.random.default_rng(0).random((_SIDE, _SIDE), np.float32)


@dataclass(frozen=True)
class MidCost:
    """A cheap model that also multiplies matrices for a given number of operations per window."""

    model: FakePredictor
    gflop: float

    @property
    def spec(self) -> ModelSpec:
        """The cheap model's."""
        return self.model.spec

    @property
    def flops_per_window(self) -> int:
        """Operations of one window."""
        return round(self.gflop * 1e9)

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Multiply, and answer as the cheap model does."""
        for _ in range(len(batch)):
            left = self.flops_per_window
            while left > 0:
                rows = min(_SIDE, max(1, round(left / (2 * _SIDE**2))))
                _MATRIX[:rows] @ _MATRIX
                left -= 2 * rows * _SIDE**2
        return self.model(batch)


def timed(ds: xr.Dataset, model: MidCost, **options: Any) -> tuple[NDArray[np.float32], float, int]:
    """Return a map, its seconds and the number of its windows."""
    windows = ds.icemap.predict(model, dry_run=True, **options).windows
    begun = time.perf_counter()
    values = ds.icemap.predict(model, **options).probability.values
    return values, time.perf_counter() - begun, windows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="pixels along y and x")
    parser.add_argument("--steps", type=int, default=5, help="scenes of the year")
    parser.add_argument("--window", type=int, default=384)
    parser.add_argument("--gflop", type=float, default=4.0, help="operations per window")
    arguments = parser.parse_args()
    model = MidCost(FakePredictor(arguments.window, arguments.steps, FEATURES), arguments.gflop)
    side = arguments.side
    print(f"{side} x {side} px, {arguments.steps} steps, window {arguments.window}, {arguments.gflop} GFLOP each\n")
    heads = ("windows", "times run 1 (target <= 1.13)", "seconds", "ms per window", "times run 1 (no target)")
    print_head("run", *heads)
    with tempfile.TemporaryDirectory() as name:
        cube = write_cube(Path(name) / "cube.zarr", (side, side), steps=arguments.steps, features=FEATURES)
        scene = cube.icemap.yearly().load()
        usual = blockjob.BLOCK_TARGET
        blockjob.BLOCK_TARGET = 2 * side
        whole, *first = timed(scene, model)
        blockjob.BLOCK_TARGET = usual
        row("1 in memory, one piece", first, first)
        blocks, *second = timed(scene, model)
        row("2 in memory, blocks", second, first)
        del scene
        with dask.config.set(scheduler="threads", num_workers=2):
            read, *third = timed(cube, model)
        row("3 from the Zarr cube", third, first)
    if not (np.array_equal(whole, blocks) and np.array_equal(whole, read)):
        raise SystemExit("the three maps are not the same")
    print("\nAll three maps are the same, bit for bit.")


def row(name: str, found: list[Any], first: list[Any]) -> None:
    """Print one run's seconds and windows, and as multiples of the first run's."""
    seconds, windows = found
    shares = f"{windows / first[1]:.3f}", f"{seconds / first[0]:.3f}"
    print_row(name, windows, shares[0], f"{seconds:.1f}", f"{1000 * seconds / windows:.1f}", shares[1])


if __name__ == "__main__":
    main()
