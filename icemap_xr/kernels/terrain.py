"""A DEM made fit for flow routing: smoothed along its features, and without depressions.

Depressions and marker watersheds come from one thing, the minimum spanning tree of the pixels in which an edge is as
high as the higher of its two ends: the path in it from a pixel to its root never climbs higher than it must. Its
highest point is the filled elevation (as a priority flood finds it), and the root itself is the pixel's watershed
(Cousty et al. 2009, IEEE PAMI 31, "Watershed cuts").
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

#: half of the eight neighbours; the other half are their mirrors
_HALF = ((0, 1), (1, -1), (1, 0), (1, 1))
NEIGHBOURS = (*_HALF, *((-row, -column) for row, column in _HALF))
# what feature-preserving smoothing does where nothing else is said: angle in degrees, rounds, metres
_ANGLE, _ROUNDS, _MOST = 15.0, 3, 0.5


def shifted(values: Floats, step: tuple[int, int], fill: float) -> Floats:
    """Return the neighbour of every pixel in one direction; `fill` beyond the rim."""
    out = np.full_like(values, fill)
    (to_row, from_row), (to_column, from_column) = (_overlap(one) for one in step)
    out[to_row, to_column] = values[from_row, from_column]
    return out


def _overlap(step: int) -> tuple[slice, slice]:
    """Return where the neighbours are written, and where they are read."""
    if step == 0:
        return slice(None), slice(None)
    return (slice(None, -step), slice(step, None)) if step > 0 else (slice(-step, None), slice(None, step))


def pairs(domain: Bools, steps: tuple[tuple[int, int], ...] = _HALF) -> tuple[Ints, Ints]:
    """Return the flat indices of all neighbouring pixels of a domain, each pair once."""
    number = np.arange(domain.size).reshape(domain.shape)
    one, other = [], []
    for step in steps:
        (to_row, from_row), (to_column, from_column) = (_overlap(part) for part in step)
        both = domain[to_row, to_column] & domain[from_row, from_column]
        one.append(number[to_row, to_column][both])
        other.append(number[from_row, from_column][both])
    return np.concatenate(one), np.concatenate(other)


def smooth(dem: Floats, cell: float, size: int) -> Floats:
    """Smooth a DEM without rounding off its ridges and breaks of slope.

    Lindsay, Francioni and Cockburn 2019 (Remote Sensing 11, 1926): the normals are averaged over a kernel with weights
    `(cos(angle) - cos(15 degrees))**2`, then every elevation moves, three times, to the mean of the planes of its
    neighbours; one that would move by more than 0.5 m stays.

    Parameters
    ----------
    dem
        `(y, x)` float64, metres, without NaN.
    cell
        Side of a pixel, metres.
    size
        Side of the kernel, pixels, odd; 1 changes nothing.
    """
    if size <= 1:
        return dem
    least = np.cos(np.radians(_ANGLE))
    padded = np.pad(dem, 1, mode="edge")
    east = _sobel(padded, axis=1) / (8 * cell)
    south = _sobel(padded, axis=0) / (8 * cell)
    length = np.sqrt(east**2 + south**2 + 1)
    normal = np.stack([-east / length, -south / length, 1 / length])
    half = size // 2
    sides = [(row, column) for row in range(-half, half + 1) for column in range(-half, half + 1)]
    mean = np.zeros_like(normal)
    for step in sides:
        near = np.stack([shifted(part, step, 0.0) for part in normal])  # a normal of zeros has no weight
        mean += _weight(normal, near, least) * near
    mean /= np.sqrt((mean**2).sum(axis=0))
    return _follow(dem, mean, cell, least)


def _sobel(padded: Floats, axis: int) -> Floats:
    """Return eight times the difference between neighbours along an axis, weighted 1 2 1 across it."""
    if axis == 0:
        return _sobel(padded.T, axis=1).T
    across = padded[:, 2:] - padded[:, :-2]
    return across[:-2] + 2 * across[1:-1] + across[2:]


def _weight(one: Floats, other: Floats, least: float) -> Floats:
    cosine = (one * other).sum(axis=0)
    return np.where(cosine > least, (cosine - least) ** 2, 0.0)


def _follow(dem: Floats, normal: Floats, cell: float, least: float) -> Floats:
    """Move the elevations to the planes of their neighbours."""
    near = [np.stack([shifted(part, step, 0.0) for part in normal]) for step in NEIGHBOURS]
    weights = [_weight(normal, one, least) for one in near]
    total = np.maximum(sum(weights, np.zeros_like(dem)), 1e-12)
    out = dem
    for _ in range(_ROUNDS):
        moved = np.zeros_like(dem)
        for (row, column), one, weight in zip(NEIGHBOURS, near, weights, strict=True):
            rise = (one[0] * column + one[1] * row) * cell / np.where(one[2] > 0, one[2], 1.0)
            moved += weight * (shifted(out, (row, column), 0.0) + rise)
        moved /= total
        out = np.where((np.abs(moved - dem) <= _MOST) & (total > 1e-12), moved, out)
    return out


def flood_tree(height: Floats, domain: Bools, roots: Bools) -> Ints:
    """Return each pixel's parent on its lowest path to a root.

    Parameters
    ----------
    height
        `(y, x)` float64; finite in the domain.
    domain
        Pixels that may be flooded, through sides and corners.
    roots
        Where floods begin.

    Returns
    -------
    ndarray of int64
        Flat index of each pixel's parent; a root is its own, and so is a pixel that no flood reaches. Between equally
        low paths the one near the roots is taken.
    """
    count = height.size
    flat, far = height.ravel(), distance_transform_edt(~(roots & domain)).ravel()
    one, other = pairs(domain)
    order = np.lexsort((np.maximum(far[one], far[other]), np.maximum(flat[one], flat[other])))
    start = np.flatnonzero(roots & domain)
    # the weights are ranks, as a weight of 0 would be no edge; the common root is below all
    weight = np.concatenate([np.arange(2.0, len(one) + 2), np.ones(len(start))])
    ends = (np.concatenate([one[order], np.full(len(start), count)]), np.concatenate([other[order], start]))
    tree = minimum_spanning_tree(coo_array((weight, ends), (count + 1, count + 1)).tocsr())
    _, parent = breadth_first_order(tree, count, directed=False)
    parent = parent[:count].astype(np.int64)
    alone = (parent < 0) | (parent == count)
    parent[alone] = np.flatnonzero(alone)
    return parent


def fill(dem: Floats, domain: Bools, outlets: Bools) -> Floats:
    """Raise every depression to the level at which it spills over on its way to an outlet."""
    level, ancestor = dem.ravel().copy(), flood_tree(dem, domain, outlets)
    while True:
        np.maximum(level, level[ancestor], out=level)
        further = ancestor[ancestor]
        if np.array_equal(further, ancestor):
            return level.reshape(dem.shape)
        ancestor = further


def breach(dem: Floats, domain: Bools, outlets: Bools) -> Floats:
    """Cut a channel from the bottom of every depression to lower ground, along the lowest path to an outlet."""
    parent = flood_tree(dem, domain, outlets).tolist()
    higher = np.where(domain, dem, np.inf)
    lowest = np.minimum.reduce([shifted(higher, step, np.inf) for step in NEIGHBOURS])
    bottoms = np.flatnonzero(domain & ~outlets & ~(lowest < dem))
    level = dem.ravel().tolist()
    for bottom in bottoms[np.argsort(-dem.ravel()[bottoms], kind="stable")].tolist():
        depth, place = level[bottom], bottom
        while parent[place] != place:
            place = parent[place]
            if level[place] < depth:
                break
            level[place] = depth
    return np.asarray(level).reshape(dem.shape)


def watershed(height: Floats, markers: NDArray[np.int32], domain: Bools) -> NDArray[np.int32]:
    """Flood `height` upwards from markers; return the marker that reaches each pixel first, 0 where none does.

    Parameters
    ----------
    height
        `(y, x)` float64; finite in the domain.
    markers
        `(y, x)` int32, numbers from 1; 0 is none.
    domain
        Pixels that may be flooded, through sides and corners.
    """
    root = flood_tree(height, domain, markers > 0)
    while not np.array_equal(further := root[root], root):
        root = further
    return np.where(domain, markers.ravel()[root].reshape(markers.shape), 0).astype(np.int32)
