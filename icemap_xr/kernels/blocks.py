"""Sums over the blocks of a regular grid, of one chunk that may cut blocks anywhere."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icemap_xr.kernels.probabilities import check_probabilities


class BlockSums(NamedTuple):
    """Partial sums of the blocks that one chunk touches.

    Parameters
    ----------
    first
        Row and column of the first touched block in the block grid.
    ice
        Sum of probability, or count of ice pixels, `(n, block_y, block_x)` float64, in pixels.
    observed
        Count of finite pixels, same shape, float64.
    """

    first: tuple[int, int]
    ice: NDArray[np.float64]
    observed: NDArray[np.float64]


def block_starts(start: int, count: int, block: int) -> tuple[int, NDArray[np.intp]]:
    """Cut a run of pixels at the edges of the block grid.

    Parameters
    ----------
    start
        Where the run begins in the grid, in pixels.
    count
        Its length in pixels, at least 1.
    block
        Block side in pixels.

    Returns
    -------
    first, starts
        Index of the first block touched, and where each touched block begins inside the run.
    """
    first, last = start // block, (start + count - 1) // block
    starts = np.arange(first, last + 1, dtype=np.intp) * block - start
    starts[0] = 0
    return first, starts


def ice_pixels(values: NDArray[Any], threshold: float | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return how much ice each pixel counts for (0 where unobserved), and which pixels are observed.

    Parameters
    ----------
    values
        Probability 0..1, NaN where nothing was observed.
    threshold
        None to count the probability itself (soft), else count pixels above it as 1 (hard).
    """
    observed = np.isfinite(values)
    if threshold is None:
        return np.where(observed, values, values.dtype.type(0)), observed
    return values > threshold, observed


def block_sums(
    values: NDArray[np.floating[Any]], offset: tuple[int, int], block: int, threshold: float | None = None
) -> BlockSums:
    """Sum ice and observed pixels of one chunk over the blocks it touches.

    Parameters
    ----------
    values
        Probability `(n, y, x)`, 0..1, NaN where nothing was observed; floating.
    offset
        Row and column of the chunk's first pixel in the grid to which the blocks are anchored.
    block
        Block side in pixels.
    threshold
        None for the sum of probability, else the count of pixels above it.

    Returns
    -------
    BlockSums
        Float64 sums in pixels. Added over all chunks of an array, each pixel counts in exactly one block.

    Raises
    ------
    InputError
        A value lies outside 0..1.
    """
    first_y, rows = block_starts(offset[0], values.shape[1], block)
    first_x, columns = block_starts(offset[1], values.shape[2], block)
    ice = np.empty((len(values), len(rows), len(columns)))
    observed = np.empty_like(ice)
    # one map at a time: the temporary arrays then stay at the size of one map
    for i, one in enumerate(values):
        check_probabilities(one, "summing blocks")
        for out, pixels in zip((ice, observed), ice_pixels(one, threshold), strict=True):
            along_x = np.add.reduceat(pixels, columns, axis=1, dtype=np.float64)
            out[i] = np.add.reduceat(along_x, rows, axis=0)
    return BlockSums((first_y, first_x), ice, observed)
