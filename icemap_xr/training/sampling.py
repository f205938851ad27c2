"""Windows of tiles, as batches: at random for training, side by side for validation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError
from icemap_xr.training.augment import AugmentOptions, augment, jitter_index
from icemap_xr.training.tiles import Tile, observed_or_zero

T = TypeVar("T")

#: validation windows are the same in every epoch: so many bytes of them stay in memory
CACHE_BYTES = 2 * 2**30

Float32Array: TypeAlias = NDArray[np.float32]
Batch: TypeAlias = tuple[Float32Array, Float32Array]
"""Windows `(batch, step, y, x, feature)` and their labels `(batch, y, x, class)`."""


def count_windows(tiles: Sequence[Tile], window: int) -> int:
    """Return how many whole windows fit side by side: the sum of ``(rows // window) (columns // window)``."""
    return sum((tile.shape[0] // window) * (tile.shape[1] // window) for tile in tiles)


@dataclass(frozen=True)
class TrainSampler:
    """Random windows: a tile, then a place, each with the same probability.

    Sample i of epoch e depends on `seed`, e and i alone, so it is the same in any number of threads and after a
    resumed training.

    Parameters
    ----------
    tiles
        Tiles.
    features
        Features in the order of the last axis.
    window
        Window side in pixels.
    augment
        Transforms.
    overhang
        Share of a window by which it may reach past a tile's far edges, 0 to below 1. The part beyond is 0 and without
        label, as at the far edges of a map; published 0.
    seed
        Seed.
    """

    tiles: Sequence[Tile]
    features: tuple[str, ...]
    window: int
    augment: AugmentOptions
    overhang: float
    seed: int

    def __post_init__(self) -> None:
        for tile in self.tiles:
            if min(tile.shape) < self.window:
                raise InputError(f"tile {tile.name!r} is {tile.shape} px, smaller than the window of {self.window} px")

    def sample(self, epoch: int, number: int) -> Batch:
        """Return one window and its labels, without the batch axis."""
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch, number)))
        tile = self.tiles[int(rng.integers(len(self.tiles)))]
        over = int(self.overhang * self.window)
        spans = []
        for size in tile.shape:
            start = int(rng.integers(size - self.window + over + 1))
            spans.append(slice(start, min(start + self.window, size)))
        index = {
            name: jitter_index(tile.index[name], tile.series[name].shape[0], self.augment.jitter, rng)
            for name in self.features
        }
        values, shares = _read(tile, self.features, spans[0], spans[1], index)
        missing = [(0, self.window - (span.stop - span.start)) for span in spans]
        window = np.pad(values, [(0, 0), *missing, (0, 0)])
        return augment(window, np.pad(shares, [*missing, (0, 0)]), self.augment, rng)

    def batch(self, epoch: int, number: int, size: int) -> Batch:
        """Return a batch of an epoch."""
        samples = [self.sample(epoch, number * size + k) for k in range(size)]
        windows, labels = zip(*samples, strict=True)
        return np.stack(windows), np.stack(labels)


@dataclass(frozen=True)
class ValidationWindows:
    """All whole windows of tiles, side by side from the upper left corner; always the same.

    Parameters
    ----------
    tiles, features, window
        As in `TrainSampler`.
    """

    tiles: Sequence[Tile]
    features: tuple[str, ...]
    window: int

    def places(self) -> list[tuple[int, int, int]]:
        """Return tile number, first row and first column of every window."""
        side = self.window
        return [
            (k, row, column)
            for k, tile in enumerate(self.tiles)
            for row in range(0, tile.shape[0] - side + 1, side)
            for column in range(0, tile.shape[1] - side + 1, side)
        ]

    def batch(self, places: Sequence[tuple[int, int, int]]) -> Batch:
        """Return the windows at these places."""
        read = []
        for number, row, column in places:
            tile, spans = self.tiles[number], (slice(row, row + self.window), slice(column, column + self.window))
            read.append(_read(tile, self.features, *spans, tile.index))
        windows, labels = zip(*read, strict=True)
        return np.stack(windows), np.stack(labels)


class ValidationBatches:
    """Validation windows in batches, kept in memory as far as a limit reaches; the others are read in every pass.

    Parameters
    ----------
    windows
        The windows.
    size
        Windows per batch.
    limit
        Bytes that may be kept.
    """

    def __init__(self, windows: ValidationWindows, size: int, limit: int = CACHE_BYTES) -> None:
        self.windows = windows
        places = windows.places()
        self.parts = [places[k : k + size] for k in range(0, len(places), size)]
        self.kept: dict[int, Batch] = {}
        first = windows.tiles[0]
        depth = sum(len(first.index[name]) for name in windows.features) + first.classes
        bytes_each = size * windows.window**2 * depth * np.dtype(np.float32).itemsize
        self.capacity = limit // bytes_each

    def read(self, number: int) -> Batch:
        """Return a batch, from memory if it is kept."""
        found = self.kept.get(number)
        if found is None:
            found = self.windows.batch(self.parts[number])
            if number < self.capacity:
                self.kept[number] = found
        return found

    def tasks(self) -> list[Callable[[], Batch]]:
        """Return what reads the batches of one pass, in order."""
        return [partial(self.read, number) for number in range(len(self.parts))]


def _read(
    tile: Tile, features: tuple[str, ...], rows: slice, columns: slice, index: Mapping[str, NDArray[np.intp]]
) -> Batch:
    """Return values and labels of a block; where some feature was never observed, the labels count as unknown."""
    values = tile.scenes(features, rows, columns, index)
    observed: NDArray[np.bool_] = np.all(np.any(np.isfinite(values), axis=0), axis=-1)
    return observed_or_zero(values), tile.shares(rows, columns) * observed[..., None]


def ahead(tasks: Sequence[Callable[[], T]], workers: int) -> Iterator[T]:
    """Yield the results of tasks in order while threads work on the next ones.

    Parameters
    ----------
    tasks
        What to run.
    workers
        Threads; twice as many results are held ready at most.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="icemap-windows") as pool:
        try:
            for task in tasks:
                waiting.append(pool.submit(task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()
