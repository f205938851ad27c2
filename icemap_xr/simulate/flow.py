"""Drainage and ice flux on a coarse grid: what makes simulated glaciers follow valleys downhill."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icemap_xr.simulate.noise import Float64Array

_NEIGHBOURS = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0))
#: drop per step across filled hollows, in metres, so that water finds its way out
_EPSILON = 1e-3


@dataclass(frozen=True)
class Drainage:
    """Steepest-descent drainage of a terrain.

    Parameters
    ----------
    receiver
        Flat index of the cell that each cell drains to; itself on the border. int64, `(cell,)`.
    order
        Flat indices from the highest to the lowest cell.
    """

    receiver: NDArray[np.int64]
    order: NDArray[np.int64]


def fill_hollows(elevation: Float64Array) -> Float64Array:
    """Fill every hollow to its outlet (priority flood, Barnes et al. 2014, Comput. Geosci. 62)."""
    height, width = elevation.shape
    filled = elevation.ravel().tolist()
    seen = np.zeros(elevation.shape, bool)
    seen[[0, -1], :] = seen[:, [0, -1]] = True
    heap = [(filled[i], i) for i in np.flatnonzero(seen.ravel()).tolist()]
    done = seen.ravel().tolist()
    heapq.heapify(heap)
    while heap:
        level, cell = heapq.heappop(heap)
        row, column = divmod(cell, width)
        for i, j in _NEIGHBOURS:
            if not (0 <= row + i < height and 0 <= column + j < width):
                continue
            other = cell + i * width + j
            if not done[other]:
                done[other] = True
                filled[other] = max(filled[other], level + _EPSILON)
                heapq.heappush(heap, (filled[other], other))
    return np.asarray(filled).reshape(elevation.shape)


def drainage(elevation: Float64Array) -> Drainage:
    """Return the steepest-descent drainage (D8, O'Callaghan and Mark 1984) of a terrain after filling its hollows."""
    filled = fill_hollows(elevation)
    height, width = filled.shape
    padded = np.pad(filled, 1, constant_values=np.inf)
    here = np.arange(filled.size).reshape(filled.shape)
    receiver, steepest = here.copy(), np.zeros(filled.shape)
    for i, j in _NEIGHBOURS:
        other = padded[1 + i : 1 + i + height, 1 + j : 1 + j + width]
        slope = (filled - other) / np.hypot(i, j)
        better = slope > steepest
        steepest = np.where(better, slope, steepest)
        receiver = np.where(better, here + i * width + j, receiver)
    return Drainage(receiver.ravel(), np.argsort(-filled.ravel(), kind="stable"))


def accumulate(net: Drainage, source: Float64Array) -> Float64Array:
    """Return the flux through each cell: what comes from above plus its own source, never below zero.

    With the yearly mass balance as source the flux ends where melt has used up the ice from above: the tongue's end.
    """
    flux = source.ravel().tolist()
    receiver = net.receiver.tolist()
    for cell in net.order.tolist():
        if flux[cell] < 0:
            flux[cell] = 0.0
        elif receiver[cell] != cell:
            flux[receiver[cell]] += flux[cell]
    return np.asarray(flux).reshape(source.shape)


def nearest_downstream(net: Drainage, channel: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return, for each cell, the first channel cell on its way down, or the cell where its way ends."""
    flat = channel.ravel()
    target = np.where(flat, np.arange(flat.size), net.receiver)
    while True:
        further = target[target]
        if np.array_equal(further, target):
            return target
        target = further


def downstream_path(net: Drainage, start: int, steps: int) -> list[int]:
    """Return the cells below `start` in order, `steps` at most."""
    path: list[int] = []
    cell = start
    for _ in range(steps):
        below = int(net.receiver[cell])
        if below == cell:
            break
        path.append(below)
        cell = below
    return path
