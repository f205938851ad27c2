"""Holes in glaciers: small ones are filled, unless something in them was not observed."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.ndimage import label

from icemap_xr.kernels.enclosing import Borders, corners_of, trace_borders
from icemap_xr.kernels.polygons import Bools, Ints, Polygons, trace


def gaps(values: NDArray[Any], row: int, column: int, width: int, most: int) -> Ints:
    """Return one pixel of each piece of a block that was not observed, as `row * width + column` of the whole raster.

    Pieces of more than `most` pixels are left out, as no hole that can be filled holds them: so what is returned does
    not grow with the unobserved ground. A piece is connected through sides.

    Parameters
    ----------
    values
        `(y, x)`, NaN where nothing was observed.
    row, column
        Where the block starts in the raster.
    width
        Columns of the whole raster.
    most
        Largest hole that is filled, in pixels.
    """
    unseen = np.isnan(values)
    if not most or not unseen.any():
        return np.empty(0, np.int64)
    piece, _ = label(unseen)
    number, first, pixels = np.unique(piece, return_index=True, return_counts=True)
    rows, columns = np.divmod(first[(number > 0) & (pixels <= most)], values.shape[1])
    return np.asarray((row + rows) * width + column + columns, np.int64)


def fill_holes(polygons: Polygons, most: int, unseen: Ints, width: int) -> tuple[Polygons, Bools]:
    """Fill the holes of at most some pixels; what lies in a filled hole becomes part of the polygon around it.

    A hole with ground that was not observed is left as it is: nobody knows whether that is ice.

    Parameters
    ----------
    polygons
        From `trace`.
    most
        Largest hole that is filled, in pixels, with whatever polygons lie in it.
    unseen
        From `gaps`, of all blocks.
    width
        Columns of the raster.

    Returns
    -------
    tuple of Polygons and ndarray of bool
        The polygons that are left, with the filled pixels in `pixels`, and which of the given ones they are.
    """
    ring = np.repeat(np.arange(len(polygons.hole)), np.diff(polygons.offsets))
    after = np.arange(1, len(ring) + 1)
    after[polygons.offsets[1:] - 1] = polygons.offsets[:-1]
    size = np.zeros(len(polygons.hole), np.int64)
    np.add.at(size, ring, polygons.columns * (polygons.rows - polygons.rows[after]))
    filled = polygons.hole & (-size <= most)
    holes = _rings(polygons, filled, ring)
    if len(unseen) and len(holes):
        known = np.ones(len(holes), bool)
        known[_held(holes, *np.divmod(unseen, width))[0]] = False
        filled[np.flatnonzero(filled)[~known]] = False
        holes = holes[known]
    if not filled.any():
        return polygons, np.ones(len(polygons.pixels), bool)
    # the first corner of an exterior is the upper left one of its first pixel
    outer = polygons.offsets[:-1][~polygons.hole]
    lost = np.zeros(len(polygons.pixels), bool)
    within = _held(holes, polygons.rows[outer], polygons.columns[outer])[1]
    lost[polygons.polygon[~polygons.hole][within]] = True
    pixels = polygons.pixels.copy()
    np.add.at(pixels, polygons.polygon[filled], -size[filled])
    keep = ~filled & ~lost[polygons.polygon]
    lengths = np.diff(polygons.offsets)[keep]
    left = Polygons(
        polygons.rows[keep[ring]],
        polygons.columns[keep[ring]],
        np.concatenate([[0], np.cumsum(lengths)]),
        polygons.hole[keep],
        (np.cumsum(~lost) - 1)[polygons.polygon[keep]],
        pixels[~lost],
        polygons.group[~lost],
    )
    return left, ~lost


def fill_enclosed(
    corners: Ints, polygons: Polygons, shape: tuple[int, int], most: int, unseen: Ints
) -> tuple[Polygons, Bools]:
    """Fill the holes of glaciers that are joined through corners, also holes that only several polygons enclose.

    A hole is ground connected through sides. It counts with the glaciers in it that do not touch its border; they are
    filled up with it, become part of the glacier around, and are lost. A hole with ground that was not observed is
    left as it is.

    Parameters
    ----------
    corners
        All corners of the raster.
    polygons
        What `trace` makes of them with 8-connectivity.
    shape
        Rows and columns of the raster.
    most
        Largest hole that is filled, in pixels.
    unseen
        From `gaps`, of all blocks.

    Returns
    -------
    tuple of Polygons and ndarray of bool
        The polygons of the filled raster, and which of the given ones were not lost. The groups of both are the same
        glaciers in the same order.
    """
    borders = trace_borders(corners, shape)
    filled = (borders.area < 0) & (-borders.area <= most)
    ring = np.repeat(np.arange(len(filled)), np.diff(borders.offsets))
    # where a border meets itself at a vertex the polygon is invalid, but what lies inside is still well defined
    holes = _rings(borders, filled, ring)
    if len(unseen) and len(holes):
        known = np.ones(len(holes), bool)
        known[_held(holes, *np.divmod(unseen, shape[1]))[0]] = False
        filled[np.flatnonzero(filled)[~known]] = False
        holes = holes[known]
    kept = np.ones(len(polygons.pixels), bool)
    if not filled.any():
        return polygons, kept
    start = borders.offsets[:-1]
    gone = np.zeros(len(filled), bool)
    gone[_held(holes, borders.rows[start], borders.columns[start])[1]] = True
    outer = polygons.offsets[:-1][~polygons.hole]
    owner = polygons.polygon[~polygons.hole]
    kept[owner[_held(holes, polygons.rows[outer], polygons.columns[outer])[1]]] = False
    return trace(corners_of(borders, ~gone, shape[1]), shape, 8), kept


def _held(holes: NDArray[np.object_], rows: Ints, columns: Ints) -> NDArray[np.intp]:
    """Return which holes hold the centres of which pixels, as two rows of numbers."""
    centres = np.asarray(shapely.points(columns + 0.5, rows + 0.5), object)
    return np.asarray(shapely.STRtree(centres).query(holes, predicate="contains"))


def _rings(polygons: Polygons | Borders, wanted: Bools, ring: Ints) -> NDArray[np.object_]:
    """Return some rings as geometries in columns and rows; `ring` is that of each vertex."""
    taken = wanted[ring]
    if not taken.any():
        return np.empty(0, object)
    points = np.column_stack([polygons.columns[taken], polygons.rows[taken]]).astype(float)
    rings = shapely.linearrings(points, indices=(np.cumsum(wanted) - 1)[ring[taken]])
    return np.asarray(shapely.polygons(rings), object)
