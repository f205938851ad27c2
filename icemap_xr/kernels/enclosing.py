"""Borders of glaciers whose pixels are joined through corners, and the raster that is left when some are filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from icemap_xr.kernels.polygons import Bools, Ints, cycles, linked, ring_areas, walk


@dataclass(frozen=True)
class Borders:
    """Borders of glaciers whose pixels are joined through corners, too: what is around one, and each of its holes.

    Unlike the rings of `Polygons` they may meet themselves at a vertex.

    Parameters
    ----------
    rows, columns
        Vertices of all borders, one after the other, none closed explicitly; each starts at its first vertex, row by
        row: the upper left corner of its first pixel, of glacier or of the hole.
    offsets
        Where each border starts, and the number of vertices at the end.
    area
        Pixels inside of each, without glaciers that touch the border at a corner; below 0 for a hole.
    """

    rows: Ints
    columns: Ints
    offsets: Ints
    area: Ints


def trace_borders(corners: Ints, shape: tuple[int, int]) -> Borders:
    """Link corners to the borders of glaciers that are joined through corners; arguments as of `trace`."""
    row, column, after, twins = linked(corners, shape)
    after[twins], after[twins + 1] = after[twins + 1], after[twins].copy()
    ring = cycles(after)
    rings = int(ring.max()) + 1 if len(row) else 0
    order, offsets = walk(after, ring, rings)
    return Borders(row[order], column[order], offsets, ring_areas(row, column, after, ring, rings))


def corners_of(borders: Borders, keep: Bools, width: int) -> Ints:
    """Return the corners of the raster that has the kept borders only, for `trace`."""
    taken = np.repeat(keep, np.diff(borders.offsets))
    rows, columns = borders.rows[taken], borders.columns[taken]
    ends = np.cumsum(np.diff(borders.offsets)[keep])
    starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    before, after = np.arange(len(rows)) - 1, np.arange(len(rows)) + 1
    before[starts], after[ends - 1] = ends - 1, starts
    # one neighbour lies in the vertex's row, one in its column: the pixel between them is that of the corner
    east = (columns[before] > columns) | (columns[after] > columns)
    south = (rows[before] > rows) | (rows[after] > rows)
    right, down = columns - columns[before], rows - rows[before]
    turn = right * (rows[after] - rows) - down * (columns[after] - columns)  # below 0 is to the left
    vertex, pixel, convex = rows * (width + 1) + columns, 2 * south + east, turn < 0
    # two borders at one vertex turn around its two pixels of ground there; its corners are those of the glacier's
    _, at, count = np.unique(vertex, return_inverse=True, return_counts=True)
    both = count[at] == 2
    return np.asarray(8 * vertex + 2 * np.where(both, pixel ^ 1, pixel) + (convex | both), np.int64)
