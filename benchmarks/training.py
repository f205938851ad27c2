"""Does the input pipeline keep the device busy? Windows per second that it delivers, against what a step consumes.

    python benchmarks/training.py            # the demonstration's network and the full-size one
    python benchmarks/training.py --quick    # few windows, the demonstration's network only

A ratio above 1 means that the device never waits. The pipeline and the step are timed in the same run, one after the
other, on the same machine; in training they share its cores, so on a machine without a GPU a ratio near 1 is not
enough. So with the published transforms steps are also timed while the pipeline feeds them: "trains" is what training
gets, and the last column its share of what steps on one batch that stays in memory get.

Tiles come from HDF5 without compression, from HDF5 as `write_tiles` writes it (gzip and checksums; random values, which
compress worst), and from memory.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table

from icemap_xr.models.icemapper import Architecture
from icemap_xr.training.augment import AugmentOptions
from icemap_xr.training.fit import TrainOptions
from icemap_xr.training.hdf5 import open_tiles
from icemap_xr.training.hdf5_write import write_tiles
from icemap_xr.training.losses import smooth_labels
from icemap_xr.training.sampling import Batch, TrainSampler, ahead
from icemap_xr.training.tiles import Tile

if TYPE_CHECKING:
    from icemap_xr.training.trainer import Trainer

FEATURES = ("grd", "insar")
STEPS, SERIES = 15, 20
TRANSFORMS = {
    "none": AugmentOptions.off(),
    "published": AugmentOptions(),
    "every one": AugmentOptions(flip=1, rotate=1, crop=1, gamma=1, shift=1, reverse=1, swap=1, occlude=1, jitter=0.5),
}


@dataclass(frozen=True)
class Case:
    """A network and its batches."""

    name: str
    filters: int
    window: int
    batch: int
    tile: int


DEMO = Case("demonstration, 8 filters, 80 px", 8, 80, 10, 384)
FULL = Case("published, 32 filters, 384 px", 32, 384, 1, 768)


def write(path: Path, side: int, count: int) -> None:
    """Write tiles in the published layout, uncompressed, in chunks of one scene of 128 x 128 pixels."""
    sizes = {"height": side, "width": side, "orig_height": side, "orig_width": side, "pad_height": 0, "pad_width": 0}
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(count):
            group = file.create_group(f"BENCH-0-{number}_2020_ro1")
            for name in FEATURES:
                values = rng.random((SERIES, side, side, 1), dtype=np.float32)
                group.create_dataset(name, data=values, chunks=(1, min(128, side), min(128, side), 1))
                group.attrs[f"{name}_base_time_idx"] = np.arange(STEPS) + 2
            glacier = np.indices((side, side)).sum(0) > side
            group["outlines"] = np.stack([~glacier, glacier], -1).astype(np.uint8)
            group.attrs.update(sizes)


def in_memory(tile: Tile) -> Tile:
    """Return the tile with its scenes and labels in memory, scenes in float16 as those of simulated regions."""
    rows, columns = (slice(0, size) for size in tile.shape)
    series = {
        name: np.stack([tile.series[name][k, rows, columns] for k in range(SERIES)]).astype(np.float16)
        for name in FEATURES
    }
    return Tile(tile.name, tile.features, series, tile.index, tile.shares(rows, columns), tile.inside)


@contextmanager
def sources(case: Case) -> Iterator[dict[str, list[Tile]]]:
    """Yield the same tiles from files and in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiles.hdf5"
        write(path, case.tile, 2)
        with open_tiles(path, FEATURES) as tiles:
            loaded = [in_memory(tile) for tile in tiles]
            own = write_tiles(tiles, path.with_name("own.hdf5"))
            with open_tiles(own, FEATURES) as compressed:
                yield {"HDF5, plain": tiles, "HDF5, write_tiles": compressed, "memory": loaded}


def prepared(sampler: TrainSampler, number: int, size: int) -> Batch:
    """Return what training prepares: a batch and its smoothed labels."""
    windows, labels = sampler.batch(0, number, size)
    return windows, smooth_labels(labels, 0.1)


def delivered(tiles: list[Tile], case: Case, augment: AugmentOptions, batches: int, workers: int) -> float:
    """Return windows per second that threads prepare."""
    sampler = TrainSampler(tiles, FEATURES, case.window, augment, 0.0, 0)
    prepared(sampler, 10**6, case.batch)
    begun = time.perf_counter()
    for _ in ahead([partial(prepared, sampler, k, case.batch) for k in range(batches)], workers):
        pass
    return batches * case.batch / (time.perf_counter() - begun)


def ready(case: Case) -> Trainer:
    """Return a network that is ready to train."""
    from icemap_xr.training.trainer import Trainer

    network = Architecture(steps=STEPS, features=len(FEATURES), filters=case.filters, window=case.window)
    trainer = Trainer(network, TrainOptions(features=FEATURES, batch_size=case.batch))
    trainer.begin_epoch(0)
    return trainer


def trains(trainer: Trainer, tiles: list[Tile], case: Case, augment: AugmentOptions, steps: int, workers: int) -> float:
    """Return windows per second of training steps that threads feed, as training does."""
    sampler = TrainSampler(tiles, FEATURES, case.window, augment, 0.0, 0)
    # what threads hold ready when the clock starts is not theirs to claim: as many batches go first
    first = 2 * workers + 1
    batches = ahead([partial(prepared, sampler, k, case.batch) for k in range(first + steps)], workers)
    for _ in range(first):
        trainer.step(*next(batches), 1e-4)
    begun = time.perf_counter()
    for batch in batches:
        trainer.step(*batch, 1e-4)
    return steps * case.batch / (time.perf_counter() - begun)


def consumed(trainer: Trainer, case: Case, batches: int) -> float:
    """Return windows per second that training steps take of one batch that stays in memory."""
    rng = np.random.default_rng(0)
    batch = rng.random((case.batch, STEPS, case.window, case.window, len(FEATURES)), dtype=np.float32)
    labels = np.zeros((case.batch, case.window, case.window, 2), np.float32)
    labels[..., 0] = 1
    trainer.step(batch, labels, 1e-4)  # compiles
    begun = time.perf_counter()
    for _ in range(batches):
        trainer.step(batch, labels, 1e-4)
    return batches * case.batch / (time.perf_counter() - begun)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int, default=2, help="threads that prepare windows")
    arguments = parser.parse_args()
    batches, steps = (6, 3) if arguments.quick else (20, 10)
    load = os.getloadavg()[0]
    title = f"windows per second, {arguments.workers} threads, {os.cpu_count()} cores, load {load:.1f} at the start"
    columns = ("network", "tiles from", "transforms", "delivered", "a step takes", "ratio", "trains", "of steps")
    table = Table(*columns, title=title)
    for case in (DEMO,) if arguments.quick else (DEMO, FULL):
        count, trainer = steps if case is DEMO else 2, ready(case)
        need = consumed(trainer, case, count)
        with sources(case) as found:
            for source, tiles in found.items():
                for name, augment in TRANSFORMS.items():
                    rate = delivered(tiles, case, augment, batches, arguments.workers)
                    row = (f"{rate:.1f}", f"{need:.2f}", f"{rate / need:.1f}")
                    fed = ("-", "-")
                    if name == "published":
                        found_rate = trains(trainer, tiles, case, augment, count, arguments.workers)
                        # before and after, for the machine may have become slower
                        alone = (need + consumed(trainer, case, count)) / 2
                        fed = (f"{found_rate:.2f}", f"{found_rate / alone:.0%}")
                    table.add_row(case.name, source, name, *row, *fed)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
