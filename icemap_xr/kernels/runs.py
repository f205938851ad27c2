"""Sums of a raster over polygons, from sums over runs of glacier pixels in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr.kernels.polygons import Bools, Ints, Polygons, left_sides

#: values are summed as whole multiples of this, so that a sum does not depend on the order of its terms
UNIT = 2.0**-32


@dataclass(frozen=True)
class Runs:
    """Runs of glacier pixels, each within one row.

    Parameters
    ----------
    start
        First pixel of each run, as `row * width + column` of the whole raster.
    length
        Pixels in each run.
    total
        Sum of the values in each run, in multiples of `UNIT`.
    """

    start: Ints
    length: Ints
    total: Ints


def block_runs(mask: Bools, values: NDArray[Any], row: int, column: int, width: int) -> Runs:
    """Return the runs of glacier pixels in a block.

    Parameters
    ----------
    mask
        `(y, x)` bool.
    values
        `(y, x)`, values 0..1 to be summed; finite where the mask is set.
    row, column
        Where the block starts in the raster.
    width
        Columns of the whole raster.
    """
    starts, ends = mask.copy(), mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    ends[:, :-1] &= ~mask[:, 1:]
    first = np.flatnonzero(starts)
    length = np.flatnonzero(ends) - first + 1
    rows, columns = np.divmod(first, mask.shape[1])
    units = np.rint(values[mask].astype(np.float64) / UNIT).astype(np.int64)
    total = np.add.reduceat(units, np.cumsum(length) - length) if len(first) else np.empty(0, np.int64)
    return Runs((row + rows) * width + column + columns, length, total)


def polygon_means(runs: Runs, polygons: Polygons, width: int) -> NDArray[np.float64]:
    """Return the mean value over each polygon.

    Parameters
    ----------
    runs
        Runs of all blocks, in any order; a seam may cut a run into pieces.
    polygons
        The outlines of the same pixels.
    width
        Columns of the raster.
    """
    order = np.argsort(runs.start)
    start, end, total = runs.start[order], (runs.start + runs.length)[order], runs.total[order]
    begins = np.ones(len(start), bool)
    begins[1:] = (start[1:] != end[:-1]) | (start[1:] % width == 0)
    whole = np.add.reduceat(total, np.flatnonzero(begins)) if len(total) else total
    owner, _, _ = left_sides(polygons)
    sums = np.zeros(len(polygons.pixels), np.int64)
    np.add.at(sums, owner, whole)
    return sums * UNIT / polygons.pixels
