"""Which pixels water flows to, and how much comes together: D8, D-infinity and multiple flow directions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array, eye_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra
from scipy.sparse.linalg import spsolve_triangular

from icemap_xr.kernels.terrain import NEIGHBOURS, Bools, Floats, Ints, pairs, shifted

Routing = Literal["dinf", "d8", "mfd"]

# the eight triangles around a pixel: a side neighbour and a corner neighbour each (Tarboton 1997, table 1)
_FACETS = tuple((side, (row, column)) for row in (-1, 1) for column in (-1, 1) for side in ((row, 0), (0, column)))


class Flow:
    """Flow over a DEM.

    Every pixel with a lower neighbour passes its water on as `routing` says. On flats water takes the shortest way to
    a pixel with a lower neighbour. Pits keep it.

    Parameters
    ----------
    dem
        `(y, x)` float64; finite in the domain.
    domain
        Pixels with flow; nothing leaves it.
    routing
        ``"d8"``: to the neighbour down the steepest slope. ``"dinf"``: to the two neighbours beside the steepest
        direction (Tarboton 1997, Water Resour. Res. 33). ``"mfd"``: to all lower neighbours in proportion to slope.
    """

    def __init__(self, dem: Floats, domain: Bools, routing: Routing = "dinf") -> None:
        self.shape = dem.shape
        height = np.where(domain, dem, np.inf)
        steepest, slope = _d8(height)
        weights = {"d8": _single, "dinf": _dinf, "mfd": _mfd}[routing](height, steepest, slope)
        lower = (slope > 0) & domain
        steps, across = _flats(height, domain, lower)
        giver, taker, share = _entries(weights, lower, self.shape)
        giver, taker = np.concatenate([giver, across[0]]), np.concatenate([taker, across[1]])
        share = np.concatenate([share, np.ones(len(across[0]))])
        size = dem.size
        self._down = coo_array((share, (giver, taker)), (size, size)).tocsr()
        self._up = self._down.T.tocsr()
        self._order = np.lexsort((-steps, -height.ravel()))
        self._domain = domain.ravel()

    def accumulation(self) -> Floats:
        """Return the pixels that drain through each pixel, itself included; `(y, x)` float64."""
        up = self._up[self._order][:, self._order]
        system = (eye_array(up.shape[0], format="csr") - up).tocsr()
        out = np.empty(len(self._order))
        source = self._domain[self._order].astype(np.float64)
        out[self._order] = spsolve_triangular(system, source, lower=True, unit_diagonal=True)
        return out.reshape(self.shape)

    def catchment(self, pixel: int) -> Ints:
        """Return the flat indices of all pixels of which any water comes to a pixel, itself included."""
        found = breadth_first_order(self._up, pixel, directed=True, return_predecessors=False)
        return np.asarray(found, np.int64)


def _d8(height: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return the direction of the steepest slope to a neighbour, and that slope in metres per pixel."""
    slopes = np.stack([_slope(height, step) for step in NEIGHBOURS])
    best = slopes.argmax(axis=0).astype(np.int8)
    return best, slopes.max(axis=0)


def _slope(height: Floats, step: tuple[int, int]) -> Floats:
    near = shifted(height, step, np.inf)
    with np.errstate(invalid="ignore"):  # outside the domain both are infinite
        drop = (height - near) / np.hypot(*step)
    return np.where(np.isnan(drop), -np.inf, drop)


def _single(height: Floats, steepest: NDArray[np.int8], slope: Floats) -> dict[tuple[int, int], Floats]:
    return {step: (steepest == number).astype(float) for number, step in enumerate(NEIGHBOURS)}


def _mfd(height: Floats, steepest: NDArray[np.int8], slope: Floats) -> dict[tuple[int, int], Floats]:
    inside = np.isfinite(height)
    weights = {step: np.where(inside, np.maximum(_slope(height, step), 0), 0) for step in NEIGHBOURS}
    total = np.maximum(sum(weights.values(), np.zeros_like(height)), 1e-300)
    return {step: weight / total for step, weight in weights.items()}


def _dinf(height: Floats, steepest: NDArray[np.int8], slope: Floats) -> dict[tuple[int, int], Floats]:
    most = np.full(height.shape, -np.inf)
    angle = np.zeros(height.shape)
    facet = np.full(height.shape, -1, np.int8)
    for number, (side, corner) in enumerate(_FACETS):
        e1, e2 = shifted(height, side, np.inf), shifted(height, corner, np.inf)
        with np.errstate(invalid="ignore"):
            s1, s2, diagonal = height - e1, e1 - e2, (height - e2) / np.sqrt(2)
            turn = np.arctan2(s2, s1)
            steep = np.where(turn < 0, s1, np.where(turn > np.pi / 4, diagonal, np.hypot(s1, s2)))
        better = np.isfinite(s1) & np.isfinite(s2) & (steep > most)
        most[better], facet[better] = steep[better], number
        angle[better] = np.clip(turn[better], 0, np.pi / 4)
    weights = {step: np.zeros(height.shape) for step in NEIGHBOURS}
    good = most > 0
    for number, (side, corner) in enumerate(_FACETS):
        here = good & (facet == number)
        part = angle[here] / (np.pi / 4)
        weights[side][here] += 1 - part
        weights[corner][here] += part
    for step, single in _single(height, steepest, slope).items():
        weights[step][~good] = single[~good]  # along the rim, where a triangle reaches outside
    return weights


def _entries(weights: dict[tuple[int, int], Floats], lower: Bools, shape: tuple[int, ...]) -> tuple[Ints, Ints, Floats]:
    givers, takers, shares = [], [], []
    for (row, column), weight in weights.items():
        giver = np.flatnonzero(lower & (weight > 0))
        givers.append(giver)
        takers.append(giver + row * shape[1] + column)
        shares.append(weight.ravel()[giver])
    return np.concatenate(givers), np.concatenate(takers), np.concatenate(shares)


def _flats(height: Floats, domain: Bools, lower: Bools) -> tuple[Ints, tuple[Ints, Ints]]:
    """Return each pixel's steps across its flat to a pixel with a lower neighbour, and the flow across flats."""
    flat, size = height.ravel(), height.size
    one, other = pairs(domain)
    level = flat[one] == flat[other]
    one, other = one[level], other[level]
    starts = np.flatnonzero(lower.ravel())
    steps = np.zeros(size, np.int64)
    if not len(one) or not len(starts):
        return steps, (np.empty(0, np.int64), np.empty(0, np.int64))
    # all starts hang on one node more, so that a single search finds the nearest
    ends = np.concatenate([one, other, np.full(len(starts), size)]), np.concatenate([other, one, starts])
    graph = csr_array((np.ones(len(ends[0])), ends), (size + 1, size + 1))
    distance, before = dijkstra(graph, indices=size, return_predecessors=True, unweighted=True)
    reached = np.isfinite(distance[:size]) & ~lower.ravel()
    steps[reached] = distance[:size][reached].astype(np.int64)
    giver = np.flatnonzero(reached)
    return steps, (giver, before[giver].astype(np.int64))
