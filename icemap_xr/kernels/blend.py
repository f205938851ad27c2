"""One block of output: read rows, run windows in batches, blend. The same code for eager and lazy, CPU and GPU.

Three things go on at once, each one step ahead of the next: rows are read (`_pieces`), windows are cut from them
(`_batches`), and the model runs and its answers are summed (`blend_block`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from icemap_xr.kernels.ahead import ahead
from icemap_xr.kernels.infer import Infer, Place
from icemap_xr.kernels.windows import WindowGrid

#: reads scaled values `(step, y, x, feature)`, NaN where unobserved, of rows and columns counted in the region
Read: TypeAlias = Callable[[slice, slice], NDArray[np.float32]]

#: rows read at once where the source has no chunks of its own
READ_ROWS = 512
#: the published program sets scaled values above this to zero
_SCALED_LIMIT = np.float32(100.0)


def blend_block(
    read: Read,
    infer: Infer,
    grid: WindowGrid,
    rows: slice,
    columns: slice,
    *,
    classes: int,
    batch_size: int,
    wanted: NDArray[np.bool_] | None = None,
    spread_of: int | None = None,
    cuts: Sequence[int] | None = None,
    lane: Lock | None = None,
) -> NDArray[np.float32]:
    """Predict one block of a region.

    Every window that touches the block is run, row after row of windows. The value of a pixel depends on the region's
    windows alone, not on the block. In memory are, besides the block's own sums, the rows of one row of windows, the
    rows read ahead, and two batches.

    Parameters
    ----------
    read, infer
        Data source and model.
    grid
        The region's windows.
    rows, columns
        The block, in region pixels.
    classes
        Number of classes that `infer` keeps.
    batch_size
        Windows per call of the model.
    wanted
        Boolean `(rows, columns)`; pixels that are False become NaN, and windows without a wanted pixel are not run.
        A block without any reads nothing.
    spread_of
        Class whose standard deviation over the passes is added as the last layer.
    cuts
        Rows of the region, ascending, at which reading is cut: the edges of the source's chunks, so that none is
        decoded twice. By default multiples of `READ_ROWS`.
    lane
        Held while computing, let go while waiting for data; see `ahead`.

    Returns
    -------
    numpy.ndarray
        `(class, rows, columns)` float32, or `(class + 1, rows, columns)` with the spread last; NaN where not wanted, or
        where some feature has no observation at all. With `edges="valid"` a window counts in proportion to the share
        of its pixels that are observed.
    """
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    out = np.full((classes + (spread_of is not None), *shape), np.nan, np.float32)
    keep = np.ones(shape, bool) if wanted is None else wanted.copy()
    box = _bounding_box(keep)
    if box is None:
        return out
    inner = slice(rows.start + box[0].start, rows.start + box[0].stop)
    across = slice(columns.start + box[1].start, columns.start + box[1].stop)
    left = keep[box]
    sums = _Sums(grid, (inner, across), classes, spread_of, infer.passes, out[:, *box], left)
    pieces = ahead(_pieces(read, grid, inner, across, cuts))
    with closing(ahead(_batches(pieces, grid, inner, across, left, batch_size), lane)) as batches:
        for batch in batches:
            sums.add(batch, list(infer(batch.windows, batch.places)))
    sums.finish()
    return out


@dataclass(frozen=True)
class _Piece:
    """Some rows as the model sees them: `(step, rows, width, feature)`, zero where unobserved."""

    start: int
    values: NDArray[np.float32]
    observed: NDArray[np.bool_]

    @property
    def stop(self) -> int:
        return self.start + len(self.observed)


@dataclass(frozen=True)
class _Batch:
    """Windows to run, where they lie, and by what they count besides their blending weights."""

    windows: NDArray[np.float32]
    places: list[Place]
    factors: list[np.float32]


def _bounding_box(keep: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    found = [np.flatnonzero(keep.any(axis=1 - axis)) for axis in (0, 1)]
    if found[0].size == 0:
        return None
    rows, columns = (slice(int(one[0]), int(one[-1]) + 1) for one in found)
    return rows, columns


def _pieces(read: Read, grid: WindowGrid, rows: slice, columns: slice, cuts: Sequence[int] | None) -> Generator[_Piece]:
    """Read all rows that windows of a block touch, from above to below, each once."""
    down, across = grid.reach(rows.start, rows.stop, 0), grid.reach(columns.start, columns.stop, 1)
    if cuts is None:
        cuts = range(0, down.stop, READ_ROWS)
    for begin, end in pairwise((down.start, *(cut for cut in cuts if down.start < cut < down.stop), down.stop)):
        yield _Piece(begin, *_cleaned(read(slice(begin, end), across)))


def _cleaned(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Zero what is not observed, in place and step by step to spare memory; return also which pixels are observed."""
    seen = np.zeros(values.shape[1:], bool)
    for step in values:
        finite = np.isfinite(step)
        seen |= finite
        finite &= step <= _SCALED_LIMIT
        step[~finite] = 0
    observed: NDArray[np.bool_] = np.asarray(seen.all(axis=-1))
    return values, observed


def _batches(
    pieces: Generator[_Piece],
    grid: WindowGrid,
    rows: slice,
    columns: slice,
    keep: NDArray[np.bool_],
    batch_size: int,
) -> Generator[_Batch]:
    """Cut the windows that give weight to a pixel to keep; pixels that are not observed are struck from `keep`."""
    starts = grid.starts(columns.start, columns.stop, 1)
    held: deque[_Piece] = deque()
    batch = None
    with closing(pieces):
        for row in grid.starts(rows.start, rows.stop, 0):
            while not held or held[-1].stop < min(row + grid.window, grid.region[0]):
                held.append(next(pieces))
                _strike(keep, held[-1], rows, columns, starts[0])
            while held[0].stop <= row:
                held.popleft()
            inside = _local(_common(grid.support(row, 0), rows), rows)
            for column in starts:
                if not keep[inside, _local(_common(grid.support(column, 1), columns), columns)].any():
                    continue
                if batch is None:
                    batch = _empty_batch(batch_size, grid.window, held[0])
                observed = _fill(batch.windows[len(batch.places)], held, row, column - starts[0])
                share = observed / grid.window**2 if grid.edges == "valid" else 1
                batch.places.append((row, column))
                batch.factors.append(np.float32(share))
                if len(batch.places) == batch_size:
                    yield batch
                    batch = None
    if batch is not None:
        yield _Batch(batch.windows[: len(batch.places)], batch.places, batch.factors)


def _empty_batch(size: int, window: int, like: _Piece) -> _Batch:
    steps, *_, features = like.values.shape
    return _Batch(np.zeros((size, steps, window, window, features), np.float32), [], [])


def _strike(keep: NDArray[np.bool_], piece: _Piece, rows: slice, columns: slice, first: int) -> None:
    part = _common(slice(piece.start, piece.stop), rows)
    if part.start < part.stop:
        keep[_local(part, rows)] &= piece.observed[_local(part, piece.start), _local(columns, first)]


def _fill(window: NDArray[np.float32], held: Iterable[_Piece], row: int, column: int) -> int:
    """Copy a window from the pieces it lies in; return how many of its pixels are observed."""
    side, count = window.shape[1], 0
    for piece in held:
        part = _common(slice(piece.start, piece.stop), slice(row, row + side))
        if part.start < part.stop:
            source = (_local(part, piece.start), slice(column, column + side))
            values = piece.values[:, *source]
            window[:, _local(part, row), : values.shape[2]] = values
            count += int(np.count_nonzero(piece.observed[source]))
    return count


class _Sums:
    """Weighted sums of a block, and what becomes of them: the passes' mean, and their spread for one class.

    Windows come row by row, so what lies above the one being added is finished: sums of one window's height are enough.
    Finished rows go to `out`, where `keep` says so.
    """

    def __init__(
        self,
        grid: WindowGrid,
        block: tuple[slice, slice],
        classes: int,
        spread_of: int | None,
        passes: int,
        out: NDArray[np.float32],
        keep: NDArray[np.bool_],
    ) -> None:
        strip = (grid.window, block[1].stop - block[1].start)
        self._grid, self._block, self._spread_of, self._out, self._keep = grid, block, spread_of, out, keep
        self._top = block[0].start
        self._total = np.zeros((classes, *strip), np.float32)
        self._weight = np.zeros(strip, np.float32)
        self._each = np.zeros((0 if spread_of is None else passes, *strip), np.float32)

    def add(self, batch: _Batch, answers: Sequence[NDArray[np.float32]]) -> None:
        """Add a batch's answers, `(batch, y, x, class)` for each pass."""
        for number, (place, factor) in enumerate(zip(batch.places, batch.factors, strict=True)):
            self._add(place, factor, [answer[number] for answer in answers])

    def finish(self) -> None:
        """Give all rows that are left."""
        self._finish_above(self._block[0].stop)

    def _add(self, place: Place, factor: np.float32, answers: Sequence[NDArray[np.float32]]) -> None:
        parts = [_common(self._grid.support(s, axis), self._block[axis]) for axis, s in enumerate(place)]
        self._finish_above(parts[0].start)
        source = (_local(parts[0], place[0]), _local(parts[1], place[1]))
        target = (_local(parts[0], self._top), _local(parts[1], self._block[1]))
        weights = self._grid.weights(*place)[source]
        if factor != 1:
            weights = weights * factor
        mean = answers[0][source] if len(answers) == 1 else _mean([answer[source] for answer in answers])
        self._total[:, *target] += np.moveaxis(mean, -1, 0) * weights
        self._weight[target] += weights
        for sums, answer in zip(self._each, answers, strict=False):
            sums[target] += answer[*source, self._spread_of] * weights

    def _finish_above(self, row: int) -> None:
        """Give the rows above a row, to which no later window adds, and move the sums up."""
        done = min(row - self._top, self._grid.window)
        if done <= 0:
            return
        rows = _local(slice(self._top, self._top + done), self._block[0])
        with np.errstate(invalid="ignore", divide="ignore"):
            layers = list(self._total[:, :done] / self._weight[:done])
            maps = list(self._each[:, :done] / self._weight[:done])
        if maps:
            mean = _mean(maps)
            layers.append(np.sqrt(_mean([(one - mean) ** 2 for one in maps], len(maps) - 1)))
        for layer, values in zip(self._out, layers, strict=True):
            np.copyto(layer[rows], values, where=self._keep[rows])
        for sums in (*self._total, self._weight, *self._each):
            sums[: self._grid.window - done] = sums[done:].copy()
            sums[self._grid.window - done :] = 0
        self._top = row


def _mean(arrays: Sequence[NDArray[np.float32]], divisor: int | None = None) -> NDArray[np.float32]:
    """Add arrays one by one (NumPy's own sums depend on the shape of a block) and divide by their number."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    return total / np.float32(divisor or len(arrays))


def _common(one: slice, other: slice) -> slice:
    begin = max(one.start, other.start)
    # never backwards: a window whose own part ends before the block would be taken for one that reaches to its end
    return slice(begin, max(begin, min(one.stop, other.stop)))


def _local(part: slice, origin: slice | int) -> slice:
    """Count a slice from an origin instead of from the region's corner."""
    begin = origin.start if isinstance(origin, slice) else origin
    return slice(part.start - begin, part.stop - begin)
