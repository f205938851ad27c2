"""Exact fraction of each pixel that a polygon covers, and sums weighted with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from icemap_xr.kernels.blocks import ice_pixels
from icemap_xr.kernels.probabilities import check_probabilities

Rings = tuple[NDArray[np.float64], ...]


class Piece(NamedTuple):
    """The part of one region that lies in one chunk.

    Parameters
    ----------
    region
        Position of the region in the result.
    rings
        Closed rings, each `(vertex, 2)` float64 of column and row in pixels from the chunk's upper left corner;
        shells run counter-clockwise on the map (rows count downwards), holes clockwise; none leaves the chunk.
    """

    region: int
    rings: Rings


def _cut_at_pixel_sides(edges: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cut edges `(edge, end, xy)` wherever they cross a pixel side; return begins and ends `(segment, xy)`."""
    begin, step = edges[:, 0], edges[:, 1] - edges[:, 0]
    ids, at = [np.repeat(np.arange(len(edges)), 2)], [np.tile([0.0, 1.0], len(edges))]
    for axis in (0, 1):
        low, high = edges[:, :, axis].min(axis=1), edges[:, :, axis].max(axis=1)
        crossings = np.maximum(np.ceil(high) - np.floor(low) - 1, 0).astype(np.intp)
        edge = np.repeat(np.arange(len(edges)), crossings)
        nth = np.arange(len(edge)) - np.repeat(np.cumsum(crossings) - crossings, crossings)
        side = np.floor(low)[edge] + 1 + nth
        ids.append(edge)
        at.append((side - begin[edge, axis]) / step[edge, axis])
    edge, t = np.concatenate(ids), np.concatenate(at)
    order = np.lexsort((t, edge))
    edge, t = edge[order], t[order]
    points = begin[edge] + t[:, None] * step[edge]
    inside = edge[1:] == edge[:-1]
    return points[:-1][inside], points[1:][inside]


def pixel_coverage(rings: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return the fraction of each pixel covered by a polygon.

    The signed area between each edge and the right-hand side of its pixel row is added up (the coverage accumulation
    of font rasterisers), so the fraction is exact to float64 rounding (about 1e-12) and no pixel is sampled.

    Parameters
    ----------
    rings
        As in `Piece`.
    shape
        Rows and columns of the result.

    Returns
    -------
    ndarray
        Fraction 0..1, `(y, x)` float64.
    """
    height, width = shape
    edges = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
    begin, end = _cut_at_pixel_sides(edges)
    middle = (begin + end) / 2
    column = np.clip(np.floor(middle[:, 0]).astype(np.intp), 0, width - 1)
    row = np.clip(np.floor(middle[:, 1]).astype(np.intp), 0, height - 1)
    drop, into = end[:, 1] - begin[:, 1], middle[:, 0] - column
    # one spare column takes what falls to the right of the last pixel
    cell = row * (width + 1) + column
    size = height * (width + 1)
    gain = np.bincount(cell, drop * (1 - into), minlength=size) + np.bincount(cell + 1, drop * into, minlength=size)
    covered = np.cumsum(gain.reshape(height, width + 1), axis=1)[:, :width]
    return np.clip(covered, 0, 1)


def coverage_sums(
    values: NDArray[np.floating[Any]],
    pieces: Sequence[Piece],
    threshold: float | None = None,
    ground: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Sum ice and observed pixels of one chunk over the pieces of regions in it, each pixel by its covered fraction.

    Parameters
    ----------
    values
        Probability `(n, y, x)`, 0..1, NaN where nothing was observed; floating.
    pieces
        The regions' parts inside this chunk; they may overlap and are summed independently.
    threshold
        None for the sum of probability, else the count of pixels above it.
    ground
        Area of each pixel `(y, x)` as a multiple of its planar area; None for 1.

    Returns
    -------
    ndarray
        `(2, n, piece)` float64 in pixels: ice, observed.

    Raises
    ------
    InputError
        A value lies outside 0..1.
    """
    sums = np.zeros((2, len(values), len(pieces)))
    for j, piece in enumerate(pieces):
        corners = np.concatenate(piece.rings)
        x0, y0 = np.maximum(np.floor(corners.min(axis=0)), 0).astype(int)
        x1, y1 = np.ceil(corners.max(axis=0)).astype(int)
        window = values[:, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]
        weight = pixel_coverage([ring - (x0, y0) for ring in piece.rings], (window.shape[1], window.shape[2]))
        if ground is not None:
            weight = weight * ground[y0 : y0 + window.shape[1], x0 : x0 + window.shape[2]]
        for i, one in enumerate(window):
            check_probabilities(one, "summing regions")
            ice, observed = ice_pixels(one, threshold)
            sums[0, i, j] = np.sum(weight * ice)
            sums[1, i, j] = np.sum(weight * observed)
    return sums
