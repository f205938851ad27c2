"""The landscape: terrain with a coast, glaciers that follow its valleys, and how they change.

The layout is worked out once for the whole region on a coarse grid (every `STEP` pixels), because drainage knows no
blocks. Blocks of pixels are then evaluated from it by cubic splines and value noise, point by point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter, label, map_coordinates, spline_filter

from icemap_xr.simulate import flow
from icemap_xr.simulate.noise import Float64Array, fractal, stream, value_noise
from icemap_xr.simulate.parameters import Landscape

#: pixels per coarse cell, and coarse cells added around the region
STEP, MARGIN = 4, 16
#: thickness that stands for "far from any ice", m
_FAR = -80.0


@dataclass(frozen=True)
class Layout:
    """Coarse fields of one region, as cubic spline coefficients; node (0, 0) lies `MARGIN` cells outside the corner.

    Parameters
    ----------
    resolution
        Pixel size, m.
    seed
        The region's seed.
    elevation
        Terrain, m above sea.
    ice
        Per year, ice thickness above the valley floor, m: positive on glaciers. `(year, y, x)`.
    firn, debris, snow, moraine, outwash
        Fields that are positive where the class can be.
    lake
        Per year, positive inside the lake that forms. `(year, y, x)`.
    """

    resolution: float
    seed: int
    elevation: Float64Array
    ice: Float64Array
    firn: Float64Array
    debris: Float64Array
    snow: Float64Array
    moraine: Float64Array
    outwash: Float64Array
    lake: Float64Array

    def sample(self, field: Float64Array, rows: Float64Array, columns: Float64Array) -> Float64Array:
        """Return a coarse field at the crossings of pixel rows and columns (0 is the grid's upper left corner)."""
        grid = np.meshgrid(rows / STEP + MARGIN, columns / STEP + MARGIN, indexing="ij")
        return np.asarray(map_coordinates(field, grid, order=3, mode="nearest", prefilter=False), np.float64)


def layout(shape: tuple[int, int], resolution: float, years: int, seed: int, land: Landscape) -> Layout:
    """Work out the landscape of a region.

    Parameters
    ----------
    shape
        Rows and columns of the region.
    resolution
        Pixel size, m.
    years
        How many consecutive states of the glaciers to make.
    seed
        Region seed.
    land
        What the landscape looks like.
    """
    cell = STEP * resolution
    y, x = (np.arange(-MARGIN, math.ceil(n / STEP) + MARGIN + 1, dtype=np.float64) * cell for n in shape)
    terrain = _carve(_terrain(y, x, shape, resolution, seed, land), cell)
    net = flow.drainage(terrain)
    thickness, tongue = _ice(terrain, net, cell)
    inner = tuple(slice(MARGIN, size - MARGIN) for size in terrain.shape)
    thickness = _reach_cover(thickness, terrain, inner, land.ice_cover)
    on_ice = terrain[inner][thickness[inner] > 0]
    snowline = float(np.quantile(on_ice, 0.6)) if on_ice.size else float(np.quantile(terrain, 0.8))
    ice, lake = _years(thickness, terrain, net, tongue, years, cell, snowline, seed, land)
    fields = _cover_fields(y, x, thickness, terrain, snowline, cell, inner, seed, land)
    return Layout(
        resolution=resolution,
        seed=seed,
        elevation=spline_filter(terrain, order=3),
        ice=np.stack([spline_filter(one, order=3) for one in ice]),
        lake=np.stack([spline_filter(one, order=3) for one in lake]),
        **{name: spline_filter(one, order=3) for name, one in fields.items()},
    )


def _terrain(
    y: Float64Array, x: Float64Array, shape: tuple[int, int], resolution: float, seed: int, land: Landscape
) -> Float64Array:
    """Return mountains that rise from a coast, cut by valleys, with one high plateau for an ice cap; m above sea.

    Valleys are the zero lines of fractal noise: its absolute value ("turbulence", Perlin 1985, SIGGRAPH).
    """
    size = resolution * max(shape)
    random = stream(seed, 1)
    angle = random.uniform(0, 2 * np.pi)
    centre_y, centre_x = shape[0] * resolution / 2, shape[1] * resolution / 2
    inland = ((y - centre_y)[:, None] * np.sin(angle) + (x - centre_x) * np.cos(angle)) / size
    inland = inland + 0.18 * fractal(y, x, 0.5 * size, seed + 101, octaves=4)
    envelope = 1 / (1 + np.exp(-(inland + 0.22) / 0.13))
    valleys = np.abs(fractal(y, x, 2600.0, seed + 211, octaves=4, gain=0.42)) ** 0.8
    hills = fractal(y, x, 5000.0, seed + 307, octaves=6, gain=0.5)
    terrain = land.relief * (envelope * (0.35 + 1.0 * valleys + 0.20 * hills) + 0.55 * (envelope - 0.32))
    if land.ice_cover >= 1:
        terrain = terrain - terrain.min() + 50.0
    distance = random.uniform(0.18, 0.3) * size
    cap_y, cap_x = centre_y + distance * np.sin(angle), centre_x + distance * np.cos(angle)
    radius = 0.20 * size * (1 + 0.35 * fractal(y, x, 0.4 * size, seed + 401, octaves=3))
    away = np.hypot((y - cap_y)[:, None], x - cap_x) / radius
    weight = np.exp(-(away**4))
    dome = float(np.quantile(terrain, 0.85)) + 90 - 0.12 * land.relief * away**2
    return np.asarray(gaussian_filter(terrain * (1 - weight) + dome * weight, 1.0))


def _carve(terrain: Float64Array, cell: float) -> Float64Array:
    """Deepen the valleys where much water gathers, so that they join: a simple form of stream incision."""
    for _ in range(4):
        area = flow.accumulate(flow.drainage(terrain), np.full(terrain.shape, cell**2))
        depth = np.where(terrain > 0, 22.0 * np.log10(1 + area / 1e5), 0.0)
        terrain = gaussian_filter(terrain - depth, 1.2)
    return terrain


def _ice(terrain: Float64Array, net: flow.Drainage, cell: float) -> tuple[Float64Array, Float64Array]:
    """Return the ice thickness above ground (m, negative off the ice) and the ice flux (m3 per year).

    The flux is the mass balance summed downstream; thickness on the valley floor grows with flux to the power 0.3,
    by judgement; a cell is covered as far as its height above the floor it drains to (HAND, Nobre et al. 2011,
    J. Hydrol. 404) is less than that. Above the snow line all gentle ground is covered.
    """
    land = terrain > 0
    line = float(np.quantile(terrain[land], 0.55)) if land.any() else 0.0
    balance = np.clip(0.006 * (terrain - line), -4.0, 1.2)
    balance[~land] = -1e3
    flux = flow.accumulate(net, balance * cell**2)
    channel = flux > 1.2e5
    floor = flow.nearest_downstream(net, channel)
    depth = np.where(channel, 1.35 * flux**0.3, 0.0)
    surface = np.where(channel, terrain + depth, -np.inf).ravel()[floor].reshape(terrain.shape)
    filled = np.maximum(surface - terrain, _FAR)
    gy, gx = np.gradient(terrain, cell)
    slope = np.degrees(np.arctan(np.hypot(gy, gx)))
    gentle = np.minimum(0.35 * (terrain - line), 4.0 * (33.0 - slope))
    return np.asarray(gaussian_filter(np.maximum(filled, gentle), 1.6)), flux


def _reach_cover(
    thickness: Float64Array, terrain: Float64Array, inner: tuple[slice, ...], cover: float
) -> Float64Array:
    """Shift the thickness so that the wanted share of the land inside the region is ice; 0 none, 1 everything."""
    if cover <= 0:
        return np.full_like(thickness, _FAR)
    if cover >= 1:
        return np.full_like(thickness, -_FAR)
    here, land = thickness[inner], terrain[inner] > 0
    if not land.any():
        return np.full_like(thickness, _FAR)
    return thickness - float(np.quantile(here[land], 1 - cover))


def _years(
    thickness: Float64Array,
    terrain: Float64Array,
    net: flow.Drainage,
    flux: Float64Array,
    years: int,
    cell: float,
    snowline: float,
    seed: int,
    land: Landscape,
) -> tuple[list[Float64Array], list[Float64Array]]:
    """Return thickness and lake of each year: tongues thin, one glacier surges, one loses its front to a lake."""
    low = np.clip((snowline - terrain) / 300.0, 0.0, 1.0)
    none = np.full_like(thickness, -1.0)
    partly = 0 < land.ice_cover < 1
    ends = _tongue_ends(thickness, terrain, flux, cell, seed) if partly else []
    surge = _surge(terrain, net, ends[0], cell) if land.surge and ends else None
    ice, lake = [], []
    for year in range(years):
        now = thickness - land.thinning * year * low if partly else thickness
        if surge is not None and year >= 1:
            now = np.maximum(now, surge)
        water = _lake(terrain, ends[-1], year, cell) if land.lake and len(ends) > 1 else none
        ice.append(np.minimum(now, -20.0 * water) if year and water is not none else now)
        lake.append(water)
    return ice, lake


def _tongue_ends(
    thickness: Float64Array, terrain: Float64Array, flux: Float64Array, cell: float, seed: int
) -> list[tuple[int, int]]:
    """Return the lowest cells of the larger glaciers (over 0.2 km2) inside the region, on land, in random order."""
    inside = np.zeros(terrain.shape, bool)
    inside[MARGIN + 3 : -MARGIN - 3, MARGIN + 3 : -MARGIN - 3] = True
    ice = thickness > 5
    bodies, _ = label(ice)
    large = np.bincount(bodies.ravel()) * cell**2 > 2e5
    large[0] = False
    valley = large[bodies] & inside & (flux > 0) & (terrain > 30)
    # a tongue's end is a local low of the ice-covered valley floors within about 400 m
    ends: list[tuple[int, int]] = []
    for flat in np.argsort(np.where(valley, terrain, np.inf).ravel(), kind="stable")[: int(valley.sum())]:
        row, column = divmod(int(flat), terrain.shape[1])
        if all(math.hypot(row - r, column - c) > 14 for r, c in ends):
            ends.append((row, column))
        if len(ends) == 4:
            break
    return [ends[i] for i in stream(seed, 2).permutation(len(ends))]


def _surge(terrain: Float64Array, net: flow.Drainage, end: tuple[int, int], cell: float) -> Float64Array:
    """Return the thickness of an advance of about 700 m down the valley from a tongue's end."""
    start = end[0] * terrain.shape[1] + end[1]
    path = [start, *flow.downstream_path(net, start, max(3, round(700.0 / cell)))]
    rows, columns = np.divmod(np.array(path), terrain.shape[1])
    on_land = terrain[rows, columns] > 0
    rows, columns = rows[on_land], columns[on_land]
    if not rows.size:
        return np.full_like(terrain, _FAR)
    away = np.ones(terrain.shape, bool)
    away[rows, columns] = False
    distance, (near_row, near_column) = distance_transform_edt(away, return_indices=True)
    height = terrain - terrain[near_row, near_column]
    lobe = 45.0 - np.maximum(height, 0) - 45.0 * (distance * cell / 260.0) ** 2
    return np.asarray(gaussian_filter(np.maximum(lobe, _FAR), 1.0))


def _lake(terrain: Float64Array, end: tuple[int, int], year: int, cell: float) -> Float64Array:
    """Return a lake at a tongue's end that does not exist in the first year and then grows; positive inside."""
    rows, columns = np.ogrid[: terrain.shape[0], : terrain.shape[1]]
    distance = np.hypot(rows - end[0], columns - end[1]) * cell
    radius = 150.0 + 50.0 * year if year else -1.0
    lake = np.minimum((radius - distance) / 100.0, (60.0 - (terrain - terrain[end])) / 30.0)
    return np.clip(lake, -1.0, 2.0) if year else np.full(terrain.shape, -1.0)


def _cover_fields(
    y: Float64Array,
    x: Float64Array,
    thickness: Float64Array,
    terrain: Float64Array,
    snowline: float,
    cell: float,
    inner: tuple[slice, ...],
    seed: int,
    land: Landscape,
) -> dict[str, Float64Array]:
    """Return the fields that decide the class of ice and of ground, each positive where its class can be."""
    ice = thickness > 0
    away = distance_transform_edt(~ice) * cell if ice.any() else np.full(terrain.shape, 1e4)
    inside = distance_transform_edt(ice) * cell if not ice.all() else np.full(terrain.shape, 1e4)
    low = (snowline - terrain) / 250.0
    debris = 1.5 * low + 1.3 * fractal(y, x, 1500.0, seed + 503, octaves=3) - np.minimum(inside, 400.0) / 250.0
    debris = _above_quantile(debris, ice, inner, land.debris_cover)
    patches = fractal(y, x, 320.0, seed + 601, octaves=2) + 0.35 * np.clip((terrain - 0.35 * snowline) / 300.0, -3, 1)
    patches = _above_quantile(patches, ~ice & (terrain > 20) & (away > 90), inner, land.snow_patch_cover)
    gy, gx = np.gradient(terrain, cell)
    slope = np.degrees(np.arctan(np.hypot(gy, gx)))
    moraine = np.minimum(70.0 + 130.0 * value_noise(y, x, 500.0, seed + 701) - away, snowline - 50.0 - terrain)
    flat = np.minimum((9.0 - slope) / 4.0, (0.5 * snowline - terrain) / 100.0)
    return {
        "firn": (terrain - snowline) / 80.0 + value_noise(y, x, 600.0, seed + 809),
        "debris": debris,
        "snow": np.minimum(patches, (away - 90.0) / 60.0),
        "moraine": moraine / 50.0,
        "outwash": flat + 0.8 * value_noise(y, x, 400.0, seed + 907),
    }


def _above_quantile(
    field: Float64Array, where: np.typing.NDArray[np.bool_], inner: tuple[slice, ...], share: float
) -> Float64Array:
    """Shift a field so that the given share of the cells of `where` inside the region is positive."""
    here = field[inner][where[inner]]
    if share <= 0 or not here.size:
        return field - float(field.max()) - 1.0
    return field - float(np.quantile(here, max(0.0, 1 - share)))
