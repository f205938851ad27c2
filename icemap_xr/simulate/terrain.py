"""The landscape: terrain with a coast, glaciers that follow its valleys, and how they change.

The layout is worked out once for the whole region on a coarse grid (every `STEP` pixels), because drainage knows no
blocks. Blocks of pixels are then evaluated from it by cubic splines and value noise, point by point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter

from icemap_xr.simulate import basins, flow, glaciers
from icemap_xr.simulate.cover import cover_fields
from icemap_xr.simulate.exposure import exposure
from icemap_xr.simulate.glaciers import MARGIN
from icemap_xr.simulate.noise import Float32Array, Float64Array, fractal, stream
from icemap_xr.simulate.parameters import Landscape, Sensor

#: pixels per coarse cell
STEP = 4


@dataclass(frozen=True)
class Layout:
    """Coarse fields of one region, as cubic spline coefficients; node (0, 0) lies `MARGIN` cells outside the corner.

    Parameters
    ----------
    resolution
        Pixel size, m.
    seed
        The region's seed.
    centre
        Rows and columns from the grid's upper left corner to its centre.
    bed
        Ground, m above sea; sea floor below zero.
    elevation
        What the radar sees, m above sea: ground, and the surface of ice that stands in the sea.
    ice
        Per year, ice thickness above the valley floor, m: positive on glaciers.
    firn, debris, snow, moraine, outwash, melange
        Fields that are positive where the class can be.
    lake
        Per year, positive inside the lake that forms.
    shadow, layover
        Positive where mountains hide other ground.
    glacier
        Number of the glacier at each node; no spline.
    """

    resolution: float
    seed: int
    centre: tuple[float, float]
    bed: Float32Array
    elevation: Float32Array
    ice: tuple[Float32Array, ...]
    firn: Float32Array
    debris: Float32Array
    snow: Float32Array
    moraine: Float32Array
    outwash: Float32Array
    melange: Float32Array
    lake: tuple[Float32Array, ...]
    shadow: Float32Array
    layover: Float32Array
    glacier: NDArray[np.int32]

    def sample(self, field: Float32Array, rows: Float64Array, columns: Float64Array) -> Float64Array:
        """Return a coarse field at the crossings of pixel rows and columns (0 is the grid's upper left corner)."""
        grid = np.meshgrid(rows / STEP + MARGIN, columns / STEP + MARGIN, indexing="ij")
        return np.asarray(map_coordinates(field, grid, order=3, mode="nearest", prefilter=False), np.float64)

    def glacier_at(self, rows: Float64Array, columns: Float64Array) -> NDArray[np.int32]:
        """Return the glacier at the crossings of rows and columns: of the four nodes around, the one with most weight.

        Weights are bilinear and those of one glacier are summed, so divides are not stepped like the nodes.
        """
        (i, u), (j, v) = (np.divmod(axis / STEP + MARGIN, 1.0) for axis in (rows, columns))
        top, left = i.astype(np.intp), j.astype(np.intp)
        corners = [self.glacier[np.ix_(top + a, left + b)] for a in (0, 1) for b in (0, 1)]
        weights = [np.outer(u if a else 1 - u, v if b else 1 - v) for a in (0, 1) for b in (0, 1)]
        votes = np.stack([sum(w * (c == one) for w, c in zip(weights, corners, strict=True)) for one in corners])
        return np.asarray(np.choose(votes.argmax(0), corners), np.int32)


def layout(shape: tuple[int, int], resolution: float, years: int, seed: int, land: Landscape, sensor: Sensor) -> Layout:
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
    sensor
        From where it is seen.
    """
    cell = STEP * resolution
    y, x = (np.arange(-MARGIN, math.ceil(n / STEP) + MARGIN + 1, dtype=np.float64) * cell for n in shape)
    terrain = _carve(_terrain(y, x, shape, resolution, seed, land), cell)
    net = flow.drainage(terrain)
    thickness, flux = glaciers.first_ice(terrain, net, cell, land)
    inner = tuple(slice(MARGIN, size - MARGIN) for size in terrain.shape)
    on_ice = terrain[inner][thickness[inner] > 0]
    snowline = float(np.quantile(on_ice, 0.6)) if on_ice.size else float(np.quantile(terrain, 0.8))
    setting = glaciers.Setting(terrain, net, flux, cell, snowline)
    ice, lake = glaciers.states(thickness, setting, years, seed, land)
    surface = np.where((terrain <= 0) & (thickness > 0), 10.0 + 0.3 * thickness, terrain)
    shadow, layover = exposure(np.maximum(surface, 0.0), cell, sensor)
    fields = cover_fields(y, x, thickness, setting, seed, land)
    fields |= {"bed": terrain, "elevation": surface, "shadow": shadow, "layover": layover}
    return Layout(
        resolution=resolution,
        seed=seed,
        centre=(shape[0] / 2, shape[1] / 2),
        ice=tuple(_coefficients(one) for one in ice),
        lake=tuple(_coefficients(one) for one in lake),
        glacier=basins.glacier_ids(np.any([one > 0 for one in ice], axis=0), net, cell),
        **{name: _coefficients(one) for name, one in fields.items()},
    )


def _coefficients(field: Float64Array) -> Float32Array:
    return np.asarray(spline_filter(field, order=3), np.float32)


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
