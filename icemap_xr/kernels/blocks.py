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
    values: NDArray[np.floating[Any]],
    offset: tuple[int, int],
    block: int,
    threshold: float | None = None,
    ground: NDArray[np.float64] | None = None,
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
    ground
        Area of each pixel `(y, x)` as a multiple of its planar area; None for 1.

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
    ends = np.append(rows[1:], values.shape[1])
    along_y = np.empty((2, len(rows), values.shape[2]))
    # one map and one row of blocks at a time: the temporary arrays then stay small
    for i, one in enumerate(values):
        for j, (start, end) in enumerate(zip(rows, ends, strict=True)):
            along_y[:, j] = _column_sums(one[start:end], threshold, None if ground is None else ground[start:end])
        ice[i], observed[i] = np.add.reduceat(along_y, columns, axis=2)
    return BlockSums((first_y, first_x), ice, observed)


def _column_sums(
    values: NDArray[np.floating[Any]], threshold: float | None, ground: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ice and observed pixels of each column of `(y, x)`."""
    check_probabilities(values, "summing blocks")
    counted: NDArray[Any]
    if np.isnan(values.min()):  # NaN spreads
        counted, seen = ice_pixels(values, threshold)
        if ground is None:
            return counted.sum(axis=0, dtype=np.float64), seen.sum(axis=0, dtype=np.float64)
        return (counted * ground).sum(axis=0), (seen * ground).sum(axis=0)
    counted = values if threshold is None else values > threshold
    if ground is None:
        return counted.sum(axis=0, dtype=np.float64), np.full(values.shape[1], float(len(values)))
    return (counted * ground).sum(axis=0), ground.sum(axis=0)


def label_sums(
    values: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    count: int,
    threshold: float | None = None,
    ground: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sum ice and observed pixels of one chunk over labels.

    Parameters
    ----------
    values
        Probability `(n, y, x)`, 0..1, NaN where nothing was observed; floating.
    labels
        Label of each pixel `(y, x)`, from 0 to `count`; the last one is of pixels that belong to none.
    count
        Number of labels.
    threshold, ground
        As in `block_sums`.

    Returns
    -------
    ndarray
        `(2, n, count + 1)` float64 in pixels: ice, observed.

    Raises
    ------
    InputError
        A value lies outside 0..1.
    """
    sums = np.empty((2, len(values), count + 1))
    of = labels.ravel()
    for i, one in enumerate(values):
        check_probabilities(one, "summing areas")
        for out, counted in zip(sums, ice_pixels(one, threshold), strict=True):
            pixels = counted if ground is None else counted * ground
            out[i] = np.bincount(of, pixels.ravel(), minlength=count + 1)
    return sums
