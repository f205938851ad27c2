"""Outlines of a binary raster from its corners, exactly and whatever the raster's blocks.

A pixel raster's outline is fixed by the lattice vertices at which it turns. Whether it turns at a vertex is seen from
the four pixels around it, so each block finds the corners inside it alone and the corners on seams follow from the
blocks' edge pixels. In one lattice row the corners, sorted, pair up to horizontal edges, in one column to vertical
edges; this links every corner to the next one of its ring. Nothing is stitched afterwards, so no seam can show.

Rings keep the glacier on their left (map orientation: exteriors counter-clockwise, holes clockwise). Vertices are
counted in pixels from the raster's upper left corner. Pixels are joined through their sides; a ring that meets itself
at a vertex is split there, which is what makes the polygons valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# the pixel around a vertex whose corner the outline follows
_NW, _NE, _SW, _SE = range(4)


def _tables() -> tuple[NDArray[np.int8], NDArray[np.int8]]:
    """Return the corners at a vertex for each pattern NW + 2 NE + 4 SW + 8 SE, as `2 * pixel + convex`; -1 is none."""
    first, second = np.full(16, -1, np.int8), np.full(16, -1, np.int8)
    for pixel in (_NW, _NE, _SW, _SE):
        first[1 << pixel] = 2 * pixel + 1
        first[15 - (1 << pixel)] = 2 * pixel
    first[0b1001], second[0b1001] = 2 * _NW + 1, 2 * _SE + 1
    first[0b0110], second[0b0110] = 2 * _NE + 1, 2 * _SW + 1
    return first, second


_FIRST, _SECOND = _tables()


def block_corners(mask: Bools, row: int, column: int, width: int) -> Ints:
    """Return the corners at the vertices inside a block, not those on its rim.

    Parameters
    ----------
    mask
        `(y, x)` bool, the block's glacier pixels.
    row, column
        Where the block starts in the raster.
    width
        Columns of the whole raster.

    Returns
    -------
    ndarray of int64
        One number per corner: `8 * vertex + 2 * pixel + convex`, with `vertex = row * (width + 1) + column`.
    """
    mask = np.ascontiguousarray(mask, bool)
    columns = mask.shape[1]
    across = mask[:, :-1] ^ mask[:, 1:]
    turns = across[:-1] ^ across[1:]
    turns |= across[:-1] & across[1:] & (mask[:-1, :-1] ^ mask[1:, :-1])
    if not turns.size:
        return np.empty(0, np.int64)
    rows, cols = np.divmod(np.flatnonzero(turns), columns - 1)
    flat, at = mask.ravel().view(np.uint8), rows * columns + cols
    pattern = flat[at] + 2 * flat[at + 1] + 4 * flat[at + columns] + 8 * flat[at + columns + 1]
    return _encode(pattern, (row + rows + 1) * (width + 1) + column + cols + 1)


def seam_corners(top: Bools, bottom: Bools, left: Bools, right: Bools, rows: Ints, columns: Ints) -> Ints:
    """Return the corners at the vertices on all seams between blocks and on the raster's rim.

    Parameters
    ----------
    top, bottom
        `(block row, x)` bool, first and last pixel row of each row of blocks.
    left, right
        `(block column, y)` bool, first and last pixel column of each column of blocks.
    rows, columns
        First row (column) of each block row (column), and the raster's height (width) at the end.

    Returns
    -------
    ndarray of int64
        Corners as from `block_corners`.
    """
    height, width = int(rows[-1]), int(columns[-1])
    rim = ((1, 0), (1, 1))
    above = np.pad(bottom, rim).view(np.uint8)
    below = np.pad(top, ((0, 1), (1, 1))).view(np.uint8)
    pattern = above[:, :-1] + 2 * above[:, 1:] + 4 * below[:, :-1] + 8 * below[:, 1:]
    along_rows = _encode(pattern.ravel(), (rows[:, None] * (width + 1) + np.arange(width + 1)).ravel())

    before = np.pad(right, ((1, 0), (0, 0))).view(np.uint8)
    after = np.pad(left, ((0, 1), (0, 0))).view(np.uint8)
    pattern = before[:, :-1] + 2 * after[:, :-1] + 4 * before[:, 1:] + 8 * after[:, 1:]
    inner = np.arange(1, height)
    pattern[:, np.isin(inner, rows)] = 0  # the vertices where seams cross were counted above
    along_columns = _encode(pattern.ravel(), (inner * (width + 1) + columns[:, None]).ravel())
    return np.concatenate([along_rows, along_columns])


def _encode(pattern: NDArray[np.uint8], vertex: Ints) -> Ints:
    first, second = _FIRST[pattern], _SECOND[pattern]
    one, two = first >= 0, second >= 0
    return np.concatenate([8 * vertex[one] + first[one], 8 * vertex[two] + second[two]])


@dataclass(frozen=True)
class Polygons:
    """Polygons of a raster as rings of lattice vertices.

    Parameters
    ----------
    rows, columns
        Vertices of all rings, one ring after the other, none closed explicitly.
    offsets
        Where each ring starts, and the number of vertices at the end.
    hole
        Whether each ring is a hole.
    polygon
        The polygon each ring belongs to; polygons are numbered by their first corner, row by row.
    pixels
        Area of each polygon in pixels.
    group
        Polygons with the same number belong together: each its own number with 4-connectivity, all that touch at a
        corner the same number with 8-connectivity.
    """

    rows: Ints
    columns: Ints
    offsets: Ints
    hole: Bools
    polygon: Ints
    pixels: Ints
    group: Ints


def trace(corners: Ints, shape: tuple[int, int], connectivity: int = 4) -> Polygons:
    """Link corners to rings and rings to polygons.

    Parameters
    ----------
    corners
        All corners of the raster, in any order.
    shape
        Rows and columns of the raster.
    connectivity
        4 or 8; 8 groups the polygons that touch at a corner.

    Returns
    -------
    Polygons
        The same for any division of the raster into blocks.
    """
    row, column, after, twins = linked(corners, shape)
    count = len(row)
    if len(twins):
        ring = cycles(after)
        same = twins[ring[twins] == ring[twins + 1]]
        after[same], after[same + 1] = after[same + 1], after[same].copy()
    ring = cycles(after)
    rings = int(ring.max()) + 1 if count else 0
    area = ring_areas(row, column, after, ring, rings)
    hole = area < 0
    polygon = _owners(row, column, after, ring, hole)
    pixels = np.zeros(int((~hole).sum()), np.int64)
    np.add.at(pixels, polygon, area)
    order, offsets = walk(after, ring, rings)
    group = np.arange(len(pixels))
    if connectivity == 8 and len(twins):
        group = _groups(polygon[ring[twins]], polygon[ring[twins + 1]], len(pixels))
    return Polygons(row[order], column[order], offsets, hole, polygon, pixels, group)


def linked(corners: Ints, shape: tuple[int, int]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return row, column and next corner of each corner, and the first of every two that share a vertex."""
    height, width = shape
    corners = np.sort(corners)
    vertex, pixel, convex = corners >> 3, (corners >> 1) & 3, corners & 1
    row, column = np.divmod(vertex, width + 1)
    return row, column, _link(row, column, pixel, convex, height), np.flatnonzero(vertex[1:] == vertex[:-1])


def ring_areas(row: Ints, column: Ints, after: Ints, ring: Ints, rings: int) -> Ints:
    """Return the area of each ring in pixels, below 0 for a hole."""
    # Green: the area is the sum of column * d(northing), and a ring's northing falls as its row grows
    area = np.zeros(rings, np.int64)
    np.add.at(area, ring, column * (row - row[after]))
    return area


def _link(row: Ints, column: Ints, pixel: Ints, convex: Ints, height: int) -> Ints:
    """Return the next corner of each corner; the corners come sorted by vertex, then pixel."""
    east, south = pixel & 1, pixel >> 1
    # of two corners at one vertex the one facing back along the line ends an edge before the other starts one
    swap = np.flatnonzero((row[1:] == row[:-1]) & (column[1:] == column[:-1]) & (east[1:] < east[:-1]))
    horizontal = np.arange(len(row))
    horizontal[swap], horizontal[swap + 1] = swap + 1, swap
    vertical = np.argsort((column * (height + 1) + row) * 2 + south)
    goes_vertical = ((pixel == _NW) | (pixel == _SE)) == (convex == 1)
    along, up = _partners(horizontal), _partners(vertical)
    return np.where(goes_vertical, up, along)


def _partners(order: Ints) -> Ints:
    partner = np.empty_like(order)
    partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    return partner


def _graph(after: Ints) -> csr_array:
    count = len(after)
    return csr_array((np.ones(count), after.astype(np.int32), np.arange(count + 1, dtype=np.int32)), (count, count))


def cycles(after: Ints) -> Ints:
    """Return the cycle of each member of a permutation; cycles are numbered by their first member."""
    if not len(after):
        return np.empty(0, np.int64)
    count, label = connected_components(_graph(after), connection="strong")
    first = np.full(count, len(after))
    np.minimum.at(first, label, np.arange(len(after)))
    rank = np.empty(count, np.int64)
    rank[np.argsort(first)] = np.arange(count)
    return np.asarray(rank[label])


def walk(after: Ints, ring: Ints, rings: int) -> tuple[Ints, Ints]:
    """Return the corners in the order of their rings, and where each ring starts."""
    offsets = np.concatenate([[0], np.cumsum(np.bincount(ring, minlength=rings))])
    if not rings:
        return np.empty(0, np.int64), offsets
    first = np.full(rings, len(after))
    np.minimum.at(first, ring, np.arange(len(after)))
    # opening each ring before its first corner and leading on to the next ring makes one path through all corners,
    # which a compiled graph search walks at once
    path = after.copy()
    last = np.flatnonzero(after == first[ring])
    path[last] = first[(ring[last] + 1) % rings]
    order = breadth_first_order(_graph(path), int(first[0]), return_predecessors=False)
    return order.astype(np.int64), offsets


def _left_sides(row: Ints, column: Ints, after: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Return corner, column, first and end row of the vertical edges with glacier on their east side."""
    down = np.flatnonzero(row[after] > row)
    return down, column[down], row[down], row[after[down]]


def _owners(row: Ints, column: Ints, after: Ints, ring: Ints, hole: Bools) -> Ints:
    """Return the polygon of each ring.

    The glacier pixel west of a hole's westernmost side belongs to the polygon around it, and so does the side that
    ends the pixel's run further west: it is the polygon's exterior, or a hole that reaches further west. Following
    these steps ends at the exterior.
    """
    owner = np.arange(len(hole))
    holes = np.flatnonzero(hole)
    if len(holes):
        up = np.flatnonzero(row[after] < row)
        up = up[hole[ring[up]]]
        west = up[np.lexsort((row[up], column[up], ring[up]))]
        west = west[np.unique(ring[west], return_index=True)[1]]
        owner[holes] = ring[_side_west_of(row[after[west]], column[west], row, column, after)]
        while hole[owner].any():
            owner = owner[owner]
    number = np.cumsum(~hole) - 1
    return number[owner]


def _side_west_of(at_row: Ints, at_column: Ints, row: Ints, column: Ints, after: Ints) -> Ints:
    """Return the corner that starts the nearest left side west of each place (pixel row, column)."""
    corner, side, top, end = _left_sides(row, column, after)
    wanted = np.unique(at_row)
    low, high = np.searchsorted(wanted, top), np.searchsorted(wanted, end)
    index, offset = _ranges(high - low)
    width = int(column.max()) + 1
    key = (low[index] + offset) * width + side[index]
    order = np.argsort(key)
    place = np.searchsorted(wanted, at_row) * width + at_column
    return corner[index[order[np.searchsorted(key[order], place) - 1]]]


def _ranges(lengths: Ints) -> tuple[Ints, Ints]:
    """Return which range, and the position in it, for ranges of the given lengths laid end to end."""
    index = np.repeat(np.arange(len(lengths)), lengths)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def _groups(one: Ints, other: Ints, count: int) -> Ints:
    touching = csr_array((np.ones(len(one)), (one, other)), (count, count))
    label = connected_components(touching, directed=False)[1]
    first = np.full(count, count)
    np.minimum.at(first, label, np.arange(count))
    return np.asarray(first[label])


def left_sides(polygons: Polygons) -> tuple[Ints, Ints, Ints]:
    """Return polygon, row and column of every pixel side with glacier on its east, sorted by row and column."""
    ring = np.repeat(np.arange(len(polygons.hole)), np.diff(polygons.offsets))
    after = np.arange(1, len(ring) + 1)
    after[polygons.offsets[1:] - 1] = polygons.offsets[:-1]
    corner, side, top, end = _left_sides(polygons.rows, polygons.columns, after)
    index, offset = _ranges(end - top)
    rows, columns = top[index] + offset, side[index]
    order = np.lexsort((columns, rows))
    return polygons.polygon[ring[corner[index[order]]]], rows[order], columns[order]


def geometries(polygons: Polygons, transform: Sequence[float], keep: Bools) -> NDArray[np.object_]:
    """Return the kept groups of polygons as shapely geometries, in the order of their first corner.

    Parameters
    ----------
    polygons
        From `trace`.
    transform
        Affine coefficients a, b, c, d, e, f from vertex (column, row) to map coordinates.
    keep
        Whether to return each polygon; the same for all of a group.

    Returns
    -------
    ndarray of object
        A Polygon for a group of one, a MultiPolygon for a larger one; all valid.
    """
    a, b, c, d, e, f = transform[:6]
    lengths = np.diff(polygons.offsets)
    wanted = keep[polygons.polygon]
    vertices = np.repeat(wanted, lengths)
    column, row = polygons.columns[vertices], polygons.rows[vertices]
    # the order of the terms is GDAL's, so that the last bit of a coordinate is too
    points = np.column_stack([c + column * a + row * b, f + column * d + row * e])
    ring = np.repeat(np.arange(int(wanted.sum())), lengths[wanted])
    rings = np.asarray(shapely.linearrings(points, indices=ring), object)
    # a stable sort by polygon, exteriors first: shapely takes the first ring of a polygon as its exterior
    owner = (np.cumsum(keep) - 1)[polygons.polygon[wanted]]
    order = np.lexsort((polygons.hole[wanted], owner))
    shells = np.asarray(shapely.polygons(rings[order], indices=owner[order]), object)
    return _grouped(shells, polygons.group[keep])


def _grouped(shells: NDArray[np.object_], group: Ints) -> NDArray[np.object_]:
    """Join the polygons of each group, in the order of the groups' numbers."""
    numbers, member, size = np.unique(group, return_inverse=True, return_counts=True)
    out = np.empty(len(numbers), object)
    several = size[member] > 1
    out[member[~several]] = shells[~several]
    if several.any():
        order = np.flatnonzero(several)[np.argsort(member[several], kind="stable")]
        renumber = np.cumsum(size > 1) - 1
        out[size > 1] = shapely.multipolygons(shells[order], indices=renumber[member[order]])
    return out
