"""Single glaciers: how ice divides and flow lines follow from the drainage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label

from icemap_xr.simulate import flow
from icemap_xr.simulate.noise import Float64Array

#: the least area of a glacier of its own inside a larger body of ice, km2, and the least distance of two outlets, m
_LEAST_KM2, _APART = 0.15, 300.0
#: flux of a glacier that carries a medial moraine below a confluence, m3 per year, and share of the smaller tributary
_MORAINE_FLUX, _TRIBUTARY = 4e5, 0.2


def glacier_ids(ice: NDArray[np.bool_], net: flow.Drainage, cell: float) -> NDArray[np.int32]:
    """Return the number of the glacier that each cell belongs to, from 1; also off the ice that of the nearest.

    A glacier is what drains to one outlet of a body of ice, as where glacier complexes are divided by their watersheds
    (Kienholz et al. 2013, J. Glaciol. 59). Outlets close together are one, and what drains to an outlet with little ice
    above it joins the nearest glacier of the same body.
    """
    if not ice.any():
        return np.zeros(ice.shape, np.int32)
    flat = ice.ravel()
    here = np.arange(flat.size)
    ends = ~flat | ~flat[net.receiver] | (net.receiver == here)
    outlet = np.where(ends, here, net.receiver)
    while not np.array_equal(further := outlet[outlet], outlet):
        outlet = further
    size = np.bincount(outlet[flat], minlength=flat.size) * cell**2 / 1e6
    number = np.zeros(flat.size, np.int32)
    kept: list[tuple[int, int]] = []
    for exit_ in np.argsort(-size, kind="stable"):
        if size[exit_] < _LEAST_KM2:
            break
        place = divmod(int(exit_), ice.shape[1])
        near = [i for i, other in enumerate(kept) if math.dist(place, other) * cell < _APART]
        if not near:
            kept.append(place)
        number[exit_] = near[0] + 1 if near else len(kept)
    ids = np.where(flat, number[outlet], 0).astype(np.int32).reshape(ice.shape)
    return _fill(ids, ice, len(kept))


def _fill(ids: NDArray[np.int32], ice: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Give every cell a glacier: the nearest of its body, a new one for a body without any; then the nearest at all."""
    bodies, _ = label(ice, np.ones((3, 3)))
    for body, window in enumerate(find_objects(bodies), start=1):
        inside, known = bodies[window] == body, ids[window]
        open_ = inside & (known == 0)
        if not open_.any():
            continue
        if (inside & (known > 0)).any():
            known[open_] = _nearest(np.where(inside, known, 0))[open_]
        else:
            count += 1
            known[open_] = count
    return _nearest(ids)


def _nearest(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    places: Any = distance_transform_edt(ids == 0, return_distances=False, return_indices=True)
    return np.asarray(ids[tuple(places)], np.int32)


def medial_moraines(ice: NDArray[np.bool_], net: flow.Drainage, flux: Float64Array, cell: float) -> Float64Array:
    """Return the distance from the flow lines that begin where two large glaciers join, m."""
    flat, covered = flux.ravel(), ice.ravel()
    large = np.flatnonzero((flat > 0) & covered)
    below = net.receiver[large]
    joins = large[(flat[below] > _MORAINE_FLUX) & (flat[large] > _TRIBUTARY * flat[below]) & (below != large)]
    count = np.bincount(net.receiver[joins], minlength=flat.size)
    marked = np.zeros(flat.size, bool)
    for start in np.flatnonzero((count > 1) & covered):
        place = int(start)
        while covered[place] and not marked[place]:
            marked[place] = True
            place = int(net.receiver[place])
            if place == net.receiver[place]:
                break
    if not marked.any():
        return np.full(ice.shape, 1e4)
    return np.asarray(distance_transform_edt(~marked.reshape(ice.shape)) * cell, np.float64)
