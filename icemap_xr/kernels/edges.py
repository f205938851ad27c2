"""Length of the ice edge of a map, pixel by pixel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter

#: edge length of a pixel that differs from all four neighbours, in pixel sides. Half of each side belongs to the
#: neighbour, and pixel sides are 4 / pi longer than a smooth edge of any direction (Cauchy and Crofton)
FULL_EDGE = 4 * 0.5 * math.pi / 4


def edge_share(values: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.float32]:
    """Return the share of its four neighbours from which each pixel differs in class.

    Parameters
    ----------
    values
        Probability `(n, y, x)`, NaN where nothing was observed.
    threshold
        Value above which a pixel is ice.

    Returns
    -------
    ndarray
        0..1, float32, same shape; NaN where nothing was observed. Neighbours that are not observed, or beyond the
        array, do not count.
    """
    seen = np.isfinite(values)
    ice = values > threshold
    sides = np.zeros(values.shape, np.float32)
    for axis in (1, 2):
        near, far = [slice(None)] * 3, [slice(None)] * 3
        near[axis], far[axis] = slice(None, -1), slice(1, None)
        a, b = tuple(near), tuple(far)
        differ = (ice[a] != ice[b]) & seen[a] & seen[b]
        sides[a] += differ
        sides[b] += differ
    return np.where(seen, sides / 4, np.float32(np.nan))


def away_from_edge(values: NDArray[np.floating[Any]], threshold: float, distance: int) -> NDArray[np.float32]:
    """Return 1 where no pixel within a square of `distance` pixels to each side has an ice edge, else 0.

    Parameters
    ----------
    values, threshold
        As in `edge_share`.
    distance
        In pixels.

    Returns
    -------
    ndarray
        Float32, same shape; NaN where nothing was observed.
    """
    share = edge_share(values, threshold)
    near = maximum_filter(share > 0, size=(1, 2 * distance + 1, 2 * distance + 1), mode="constant")
    return np.where(np.isnan(share), np.float32(np.nan), ~near).astype(np.float32)
