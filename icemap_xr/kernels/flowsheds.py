"""Glaciers in a glacier complex: flowsheds of the points at which ice would leave it, joined where they share a tongue.

Kienholz, Hock and Arendt 2013 (J. Glaciol. 59, 925-937). The complex is surrounded by a gutter, a ring of pixels sunk
into the DEM; where flow gathers on it are the pour points, and what drains to one is a flowshed. Flowsheds whose ice
lies close to the pour point of another belong to one glacier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, find_objects, label, maximum_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from icemap_xr.kernels.flow import Flow
from icemap_xr.kernels.terrain import Bools, Floats, Ints, pairs

Labels = NDArray[np.int32]
_EIGHT = np.ones((3, 3), bool)
_FOUR_STEPS = ((0, 1), (1, 0))


@dataclass(frozen=True)
class PourPoints:
    """Pour points from the smallest to the largest.

    Parameters
    ----------
    pixel
        Flat index of each.
    pixels
        Flow accumulation in each, pixels.
    """

    pixel: Ints
    pixels: Floats


def gutter(ice: Bools, distance: int, width: int) -> Bools:
    """Return the ring of `width` pixels around what lies within `distance` steps (through sides) of the ice."""
    inner = binary_dilation(ice, iterations=distance) if distance else ice
    return np.asarray(binary_dilation(inner, iterations=width) & ~inner)


def pour_points(
    accumulation: Floats, ring: Bools, width: int, least: float, percentile: float, key: Floats
) -> PourPoints:
    """Return where flow gathers on the gutter.

    Parameters
    ----------
    accumulation
        `(y, x)`, pixels.
    ring
        The gutter.
    width
        Its width in pixels; a point is a maximum within `4 * width + 1` pixels.
    least
        Points with no more accumulation than this are left out.
    percentile
        Of the others, sorted by `key`, this share is left out from the small end.
    key
        `(y, x)`, what the points are sorted by.
    """
    along = np.where(ring, accumulation, 0)
    peaks = np.flatnonzero(ring & (along == maximum_filter(along, 4 * width + 1)) & (along > least))
    peaks = peaks[np.lexsort((peaks, key.ravel()[peaks]))]
    peaks = peaks[int(percentile * len(peaks)) :]
    return PourPoints(peaks, accumulation.ravel()[peaks])


def flowsheds(flow: Flow, points: PourPoints) -> tuple[Labels, list[int]]:
    """Return the flowsheds, numbered from 1, and the position in `points` of each number.

    From the largest point on: one inside a flowshed is passed over, one above whose own lie earlier points takes over
    their flowsheds.
    """
    labels, kept = np.zeros(int(np.prod(flow.shape)), np.int32), []
    for place in range(len(points.pixel) - 1, -1, -1):
        pixel = int(points.pixel[place])
        if labels[pixel]:
            continue
        kept.append(place)
        above = flow.catchment(pixel)
        earlier = points.pixel[kept[:-1]]
        inside = np.isin(earlier, above)
        if inside.any():
            labels[np.isin(labels, labels[earlier[inside]])] = len(kept)
        labels[above[labels[above] == 0]] = len(kept)
    return labels.reshape(flow.shape), kept


def join_tongues(labels: Labels, ice: Bools, points: Ints, radii: Floats) -> Labels:
    """Join the flowsheds that reach into the disc around one pour point.

    Of disc and ice only the piece nearest to the pour point counts. Joining is transitive.

    Parameters
    ----------
    labels
        `(y, x)` flowsheds clipped to the ice.
    ice
        The complex.
    points
        Flat index of each pour point.
    radii
        Radius of each disc, pixels.
    """
    number = int(labels.max()) + 1
    one, other = [], []
    for pixel, radius in zip(points, radii, strict=True):
        row, column = divmod(int(pixel), labels.shape[1])
        reach = int(np.ceil(radius)) + 1
        rows = slice(max(row - reach, 0), row + reach + 1)
        columns = slice(max(column - reach, 0), column + reach + 1)
        y, x = np.ogrid[rows.start : min(rows.stop, ice.shape[0]), columns.start : min(columns.stop, ice.shape[1])]
        distance = np.hypot(y - row, x - column)
        pieces, count = label(ice[rows, columns] & (distance <= radius), _EIGHT)
        if not count:
            continue
        nearest = pieces.ravel()[np.where(pieces.ravel() > 0, distance.ravel(), np.inf).argmin()]
        members = np.unique(labels[rows, columns][pieces == nearest])
        members = members[members > 0]
        one.extend(members[:-1].tolist())
        other.extend(members[1:].tolist())
    graph = coo_array((np.ones(len(one)), (one, other)), (number, number))
    group = connected_components(graph, directed=False)[1]
    _, first = np.unique(group, return_index=True)
    return np.where(labels > 0, first[group[labels]], 0).astype(np.int32)


def complete(labels: Labels, ice: Bools) -> tuple[Labels, int]:
    """Give unlabelled ice to the nearest of the flowsheds that touch it; ice that none touches gets new numbers.

    Returns
    -------
    tuple of ndarray and int
        The labels, and how many numbers are new.
    """
    out, new = labels.copy(), 0
    open_, _ = label(ice & (labels == 0), _EIGHT)
    for number, window in enumerate(find_objects(open_), start=1):
        around = tuple(slice(max(one.start - 1, 0), one.stop + 1) for one in window)
        piece, known = open_[around] == number, np.where(ice[around], labels[around], 0)
        touching = np.unique(known[binary_dilation(piece, _EIGHT)])
        touching = touching[touching > 0]
        if not len(touching):
            new += 1
            out[around][piece] = labels.max() + new
            continue
        nearest = distance_transform_edt(~np.isin(known, touching), return_distances=False, return_indices=True)
        out[around][piece] = known[tuple(nearest)][piece]
    return out, new


def absorb_slivers(
    labels: Labels,
    cell: float,
    small: float,
    narrow: float,
    compactness: float,
    keep: Sequence[int] = (),
    fixed: Bools | None = None,
) -> Labels:
    """Give pieces that are too small, or small and narrow, to the neighbour with the longest common border.

    A piece is what is connected through sides. It is a sliver if its area is below `small`, or below `narrow` while
    `2 sqrt(pi area) / perimeter` is below `compactness`. Slivers that touch are joined first; those without a
    neighbour stay.

    Parameters
    ----------
    labels
        `(y, x)` int32, 0 is none.
    cell
        Side of a pixel, metres.
    small, narrow
        Areas, m2.
    compactness
        Below this, 0..1, a piece is narrow; a disc has 1.
    keep
        Numbers of which the largest piece is never a sliver.
    fixed
        `(y, x)` bool: a piece with any of these pixels is never a sliver.
    """
    domain = labels > 0
    if not domain.any():
        return labels
    flat = labels.ravel()
    one, other = pairs(domain, _FOUR_STEPS)
    same = flat[one] == flat[other]
    inside = coo_array((np.ones(int(same.sum())), (one[same], other[same])), (flat.size, flat.size))
    piece = connected_components(inside, directed=False)[1]
    used, piece = np.unique(np.where(domain.ravel(), piece, -1), return_inverse=True)
    piece = piece - (used[0] < 0)  # -1 off the ice
    count = int(piece.max()) + 1
    on = piece[domain.ravel()]
    pixels = np.bincount(on, minlength=count)
    inner = np.bincount(piece[one[same]], minlength=count)
    area, edge = pixels * cell**2, (4 * pixels - 2 * inner) * cell
    sliver = (area < small) | ((area < narrow) & (2 * np.sqrt(np.pi * area) / edge < compactness))
    owner = np.zeros(count, np.int32)
    owner[on] = flat[domain.ravel()]
    order = np.lexsort((np.arange(count), -pixels, owner))
    largest = order[np.unique(owner[order], return_index=True)[1]]
    sliver[largest[np.isin(owner[largest], np.asarray(keep, np.int64))]] = False
    if fixed is not None:
        sliver[piece[domain.ravel() & fixed.ravel()]] = False
    a, b = piece[one[~same]], piece[other[~same]]
    owner = _adopted(owner, pixels, sliver, np.concatenate([a, b]), np.concatenate([b, a]))
    return np.where(domain, owner[piece].reshape(labels.shape), 0).astype(np.int32)


def _adopted(owner: Labels, pixels: Ints, sliver: Bools, one: Ints, other: Ints) -> Labels:
    """Return the number of each piece after the slivers found their neighbours; borders are given both ways."""
    count = len(owner)
    joined = sliver[one] & sliver[other]
    group = connected_components(coo_array((np.ones(int(joined.sum())), (one[joined], other[joined])), (count, count)))[
        1
    ]
    border = sliver[one] & ~sliver[other]
    length = coo_array((np.ones(int(border.sum())), (group[one[border]], other[border])), (count, count)).tocsr()
    length.sum_duplicates()
    out = owner.copy()
    for number in np.unique(group[sliver]):
        members = np.flatnonzero(sliver & (group == number))
        row = slice(length.indptr[number], length.indptr[number + 1])
        neighbours, borders = length.indices[row], length.data[row]
        if len(neighbours):
            longest = neighbours[borders == borders.max()].min()
            out[members] = owner[longest]
        else:
            out[members] = owner[members[pixels[members].argmax()]]
    return out
