"""Ice on the coarse terrain: where it lies, where it ends, and how it changes from year to year."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from icemap_xr.simulate import flow
from icemap_xr.simulate.noise import Float64Array, stream
from icemap_xr.simulate.parameters import Landscape

#: coarse cells added around the region
MARGIN = 16
#: thickness that stands for "far from any ice", m
FAR = -80.0
#: ice lost per year from a glacier that ends in water, m: it ends a few hundred metres off the coast
_CALVING = 4.0
#: height of a calving front above the water, m
_CLIFF = 8.0
#: how far a surge carries a glacier's front, m
_ADVANCE = 700.0


@dataclass(frozen=True)
class Setting:
    """What the ice of all years has in common.

    Parameters
    ----------
    terrain
        Ground, m above sea, sea floor below zero.
    net
        Its drainage.
    flux
        Ice flux, m3 per year.
    cell
        Cell size, m.
    snowline
        Height above which snow survives the summer, m.
    """

    terrain: Float64Array
    net: flow.Drainage
    flux: Float64Array
    cell: float
    snowline: float


def first_ice(
    terrain: Float64Array, net: flow.Drainage, cell: float, land: Landscape
) -> tuple[Float64Array, Float64Array]:
    """Return the ice thickness above ground in the first year (m, negative off the ice) and the flux (m3 per year).

    The flux is the mass balance summed downstream; thickness on the valley floor grows with flux to the power 0.3,
    by judgement; a cell is covered as far as its height above the floor it drains to (HAND, Nobre et al. 2011,
    J. Hydrol. 404) is less than that. Above the snow line all gentle ground is covered. In the sea, ice loses mass by
    calving and ends where its surface would stand less than a cliff above the water.
    """
    dry = terrain > 0
    line = float(np.quantile(terrain[dry], 0.55)) if dry.any() else 0.0
    balance = np.clip(0.006 * (terrain - line), -4.0, 1.2)
    balance[~dry] = -_CALVING if land.tidewater else -1e3
    flux = flow.accumulate(net, balance * cell**2)
    channel = flux > 1.2e5
    floor = flow.nearest_downstream(net, channel)
    depth = np.where(channel, 1.35 * flux**0.3, 0.0)
    surface = np.where(channel, terrain + depth, -np.inf).ravel()[floor].reshape(terrain.shape)
    filled = np.maximum(np.where(dry, surface - terrain, np.minimum(surface - _CLIFF, 90.0)), FAR)
    gy, gx = np.gradient(terrain, cell)
    slope = np.degrees(np.arctan(np.hypot(gy, gx)))
    gentle = np.minimum(0.35 * (terrain - line), 4.0 * (33.0 - slope))
    thickness = np.asarray(gaussian_filter(np.maximum(filled, gentle), 1.6))
    inner = tuple(slice(MARGIN, size - MARGIN) for size in terrain.shape)
    return _reach_cover(thickness, dry, inner, land.ice_cover), flux


def _reach_cover(
    thickness: Float64Array, dry: np.typing.NDArray[np.bool_], inner: tuple[slice, ...], cover: float
) -> Float64Array:
    """Shift the thickness so that the wanted share of the land inside the region is ice; 0 none, 1 everything."""
    if cover <= 0:
        return np.full_like(thickness, FAR)
    if cover >= 1:
        return np.full_like(thickness, -FAR)
    here = thickness[inner][dry[inner]]
    if not here.size:
        return np.full_like(thickness, FAR)
    shift = -float(np.quantile(here, 1 - cover))
    return thickness + np.where(dry, shift, min(shift, 0.0))


def states(
    thickness: Float64Array, setting: Setting, years: int, seed: int, land: Landscape
) -> tuple[list[Float64Array], list[Float64Array]]:
    """Return thickness and lake of each year: tongues thin, one glacier surges, one loses its front to a lake."""
    terrain = setting.terrain
    low = np.clip((setting.snowline - terrain) / 300.0, 0.0, 1.0)
    none = np.full_like(thickness, -1.0)
    partly = 0 < land.ice_cover < 1
    ends = _tongue_ends(thickness, setting, seed) if partly else []
    surge = _surge(setting, ends[0]) if land.surge and ends else None
    # the surging tongue keeps its front unless it is the only one and shall not surge
    drowned = ends[-1] if land.lake and ends and (len(ends) > 1 or not land.surge) else None
    ice, lake = [], []
    for year in range(years):
        now = thickness - land.thinning * year * low if partly else thickness
        if surge is not None and year >= 1:
            now = np.maximum(now, surge)
        water = _lake(setting, drowned, year) if drowned and year else none
        # only around the lake: elsewhere nothing may change because of it
        ice.append(np.where(water > -1.0, np.minimum(now, -20.0 * water), now) if drowned and year else now)
        lake.append(water)
    return ice, lake


def _tongue_ends(thickness: Float64Array, setting: Setting, seed: int) -> list[tuple[int, int]]:
    """Return the ends of up to four glaciers inside the region, on land, in random order.

    An end is the last ice of a flow line, before ice-free land inside the region for most of an advance's length. The
    glaciers with most ice upstream are taken, no two ends within about 600 m of each other. Small regions have no
    room for a whole advance: there shorter ways count too.
    """
    terrain, cell, receiver = setting.terrain, setting.cell, setting.net.receiver.ravel()
    inside = np.zeros(terrain.shape, bool)
    inside[MARGIN + 3 : -MARGIN - 3, MARGIN + 3 : -MARGIN - 3] = True
    ice = (thickness > 0).ravel()
    free = inside.ravel() & ~ice & (terrain.ravel() > 0)
    last = np.flatnonzero(ice & ~ice[receiver] & inside.ravel())
    upstream = flow.accumulate(setting.net, np.where(thickness > 0, cell**2, 0.0)).ravel()
    ends: list[tuple[int, int]] = []
    for length in (_ADVANCE * 2 / 3, _ADVANCE / 4):
        for end in last[np.argsort(-upstream[last], kind="stable")].tolist():
            row, column = divmod(end, terrain.shape[1])
            way = flow.downstream_path(setting.net, end, max(2, round(length / cell)))
            clear = len(way) > 0 and free[np.array(way)].mean() >= 0.9
            if clear and all(math.hypot(row - r, column - c) > 14 for r, c in ends):
                ends.append((row, column))
            if len(ends) == 4:
                break
        if len(ends) > 1:
            break
    return [ends[i] for i in stream(seed, 2).permutation(len(ends))]


def _surge(setting: Setting, end: tuple[int, int]) -> Float64Array:
    """Return the thickness of an advance of about 700 m down the valley from a tongue's end."""
    terrain, cell = setting.terrain, setting.cell
    start = end[0] * terrain.shape[1] + end[1]
    path = [start, *flow.downstream_path(setting.net, start, max(3, round(_ADVANCE / cell)))]
    rows, columns = np.divmod(np.array(path), terrain.shape[1])
    on_land = terrain[rows, columns] > 0
    rows, columns = rows[on_land], columns[on_land]
    if not rows.size:
        return np.full_like(terrain, FAR)
    away = np.ones(terrain.shape, bool)
    away[rows, columns] = False
    distance, (near_row, near_column) = distance_transform_edt(away, return_indices=True)
    height = terrain - terrain[near_row, near_column]
    lobe = 45.0 - np.maximum(height, 0) - 45.0 * (distance * cell / 260.0) ** 2
    return np.asarray(gaussian_filter(np.maximum(lobe, FAR), 1.0))


def _lake(setting: Setting, end: tuple[int, int], year: int) -> Float64Array:
    """Return a lake at a tongue's end that does not exist in the first year and then grows; positive inside."""
    terrain = setting.terrain
    rows, columns = np.ogrid[: terrain.shape[0], : terrain.shape[1]]
    distance = np.hypot(rows - end[0], columns - end[1]) * setting.cell
    lake = np.minimum((150.0 + 50.0 * year - distance) / 100.0, (60.0 - (terrain - terrain[end])) / 30.0)
    return np.asarray(np.clip(lake, -1.0, 2.0))
