"""One block of output: read strips, run windows in batches, blend. The same code for eager and lazy, CPU and GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from icemap_xr.kernels.windows import WindowGrid

#: reads scaled values `(step, y, x, feature)`, NaN where unobserved, of rows and columns counted in the region
Read: TypeAlias = Callable[[slice, slice], NDArray[np.float32]]
#: maps windows `(batch, step, y, x, feature)` to class probabilities `(batch, y, x, class)`
Infer: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

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
) -> NDArray[np.float32]:
    """Predict one block of a region.

    Every window that touches the block is run, strip by strip, so memory is one strip of windows and the block's own
    sums. The value of a pixel depends on the region's windows alone, not on the block.

    Parameters
    ----------
    read, infer
        Data source and model.
    grid
        The region's windows.
    rows, columns
        The block, in region pixels.
    classes
        Number of classes.
    batch_size
        Windows per call of the model.
    wanted
        Boolean `(rows, columns)`; pixels that are False become NaN, and windows without a wanted pixel are not run.

    Returns
    -------
    numpy.ndarray
        `(class, rows, columns)` float32; NaN where not wanted, or where some feature has no observation at all.
    """
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    total = np.zeros((classes, *shape), np.float32)
    weight_sum = np.zeros(shape, np.float32)
    keep = np.ones(shape, bool) if wanted is None else wanted.copy()
    batch: list[tuple[int, int, NDArray[np.float32]]] = []

    def flush() -> None:
        if not batch:
            return
        result = infer(np.stack([window for *_, window in batch]))
        for (row, column, _), probability in zip(batch, result, strict=True):
            _add(total, weight_sum, probability, grid, (row, column), (rows, columns))
        batch.clear()

    for row, strip, observed in _strips(read, grid, rows, columns):
        first = columns_start(grid, columns)
        inside = slice(max(row, rows.start), min(row + grid.window, rows.stop))
        keep[_local(inside, rows)] &= observed[_local(inside, row), _local(columns, first)]
        for column in grid.starts(columns.start, columns.stop, 1):
            across = slice(max(column, columns.start), min(column + grid.window, columns.stop))
            if keep[_local(inside, rows), _local(across, columns)].any():
                batch.append((row, column, strip[:, :, column - first : column - first + grid.window]))
            if len(batch) == batch_size:
                flush()
        flush()
    with np.errstate(invalid="ignore", divide="ignore"):
        total /= weight_sum
    total[:, ~keep] = np.nan
    return total


def columns_start(grid: WindowGrid, columns: slice) -> int:
    """Return the first column that any window of the block reads."""
    return grid.starts(columns.start, columns.stop, 1)[0]


def _strips(
    read: Read, grid: WindowGrid, rows: slice, columns: slice
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield each row of windows as `(start, values, observed)`; rows shared with the row above are not read again.

    Values are `(step, window, width, feature)`, zero where unobserved or outside the region.
    """
    starts = grid.starts(columns.start, columns.stop, 1)
    first, stop = starts[0], starts[-1] + grid.window
    inside = slice(first, min(stop, grid.region[1]))
    raw: NDArray[np.float32] | None = None
    previous = 0
    for row in grid.starts(rows.start, rows.stop, 0):
        kept = raw[:, row - previous :] if raw is not None and row - previous < grid.window else None
        begin = row + (kept.shape[1] if kept is not None else 0)
        end = min(row + grid.window, grid.region[0])
        parts = [kept] if kept is not None else []
        if begin < end:
            parts.append(read(slice(begin, end), inside))
        values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        raw, previous = values, row
        strip = np.zeros((values.shape[0], grid.window, stop - first, values.shape[3]), np.float32)
        observed = np.zeros(strip.shape[1:3], bool)
        area = (slice(0, values.shape[1]), slice(0, values.shape[2]))
        finite = np.isfinite(values)
        strip[:, *area] = np.where(finite & (values <= _SCALED_LIMIT), values, np.float32(0))
        observed[area] = finite.any(axis=0).all(axis=-1)
        yield row, strip, observed


def _add(
    total: NDArray[np.float32],
    weight_sum: NDArray[np.float32],
    probability: NDArray[np.float32],
    grid: WindowGrid,
    start: tuple[int, int],
    block: tuple[slice, slice],
) -> None:
    """Add one window's weighted probabilities to the part of the block it covers."""
    parts = [slice(max(s, b.start), min(s + grid.window, b.stop)) for s, b in zip(start, block, strict=True)]
    source = [_local(part, s) for part, s in zip(parts, start, strict=True)]
    target = [_local(part, b) for part, b in zip(parts, block, strict=True)]
    weights = grid.weights(*start)[source[0], source[1]]
    weighted = np.moveaxis(probability[source[0], source[1]], -1, 0) * weights
    total[:, target[0], target[1]] += weighted
    weight_sum[target[0], target[1]] += weights


def _local(part: slice, origin: slice | int) -> slice:
    """Count a slice from an origin instead of from the region's corner."""
    begin = origin.start if isinstance(origin, slice) else origin
    return slice(part.start - begin, part.stop - begin)
