"""Smooth functions of place and height on a block, from their values at a few nodes.

A point's place in a radar image is smooth in the map coordinates and nearly linear in the height, so the equations are
solved at nodes some pixels apart and at three heights; between them the rows and columns are interpolated linearly and
the heights by a parabola.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: pixels between nodes
_STEP = 16
#: least difference between the heights, metres, so that the parabola is well defined
_LEAST_RANGE = 20.0


def positions(size: int) -> Floats:
    """Return where the nodes of a side lie, as fractional pixel indices; its first and last pixel are among them."""
    return np.linspace(0.0, size - 1.0, max(2, -(-(size - 1) // _STEP) + 1)) if size > 1 else np.zeros(1)


def levels(height: Floats) -> Floats:
    """Return three heights that enclose those of a block; NaN are passed over, and zeros given where all are NaN."""
    known = height[np.isfinite(height)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    middle = 0.5 * (low + high)
    half = max(0.5 * (high - low), 0.5 * _LEAST_RANGE)
    return np.array([middle - half, middle, middle + half])


def spread(
    function: Callable[[Floats, Floats, float], tuple[Floats, ...]], shape: tuple[int, int], height: Floats
) -> list[Floats]:
    """Evaluate functions on all pixels of a block.

    Parameters
    ----------
    function
        Given rows and columns of nodes `(node, node)` as fractional pixel indices and one height, returns its values
        `(node, node)`.
    shape
        Rows and columns of the block.
    height
        Height of each pixel, metres; NaN gives NaN.

    Returns
    -------
    list of numpy.ndarray
        `(y, x)` float64 for each value.
    """
    rows, columns = np.meshgrid(positions(shape[0]), positions(shape[1]), indexing="ij")
    at = levels(height)
    found = [function(rows, columns, float(level)) for level in at]
    down, across = _neighbours(shape[0]), _neighbours(shape[1])
    u = (height - at[1]) / (at[2] - at[1])
    out = []
    for low, middle, high in zip(*found, strict=True):
        # value = middle + slope * u + bend * u**2, with u = -1, 0, 1 at the three heights
        slope = _between(down, 0.5 * (high - low), across)
        bend = _between(down, 0.5 * (high + low) - middle, across)
        out.append((bend * u + slope) * u + _between(down, middle, across))
    return out


def _between(down: _Neighbours, nodes: Floats, across: _Neighbours) -> Floats:
    """Interpolate along rows, then along columns.

    Sums of two neighbours and no products of matrices: those would start threads in each of the threads that call this.
    """
    rows = down.low[1][:, None] * nodes[down.low[0]] + down.high[1][:, None] * nodes[down.high[0]]
    return np.asarray(across.low[1] * rows[:, across.low[0]] + across.high[1] * rows[:, across.high[0]])


class _Neighbours(NamedTuple):
    """Node before and after each pixel of a side, with its weight."""

    low: tuple[NDArray[np.intp], Floats]
    high: tuple[NDArray[np.intp], Floats]


def _neighbours(size: int) -> _Neighbours:
    nodes, pixels = positions(size), np.arange(size)
    left = np.clip(np.searchsorted(nodes, pixels, side="right") - 1, 0, max(nodes.size - 2, 0))
    right = np.minimum(left + 1, nodes.size - 1)
    share = (pixels - nodes[left]) / np.maximum(nodes[right] - nodes[left], 1.0)
    # a node without weight is not read: 0 times NaN is NaN
    left, right = np.where(share == 1, right, left), np.where(share == 0, left, right)
    return _Neighbours((left, 1 - share), (right, share))
