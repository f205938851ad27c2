"""What covers ice, ground and sea: fields that are positive where a class can be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from icemap_xr.simulate import basins
from icemap_xr.simulate.glaciers import MARGIN, Setting
from icemap_xr.simulate.noise import Float64Array, fractal, value_noise
from icemap_xr.simulate.parameters import Landscape


def cover_fields(
    y: Float64Array, x: Float64Array, thickness: Float64Array, setting: Setting, seed: int, land: Landscape
) -> dict[str, Float64Array]:
    """Return the fields that decide the class of ice, of ground and of sea, each positive where its class can be.

    Debris lies on low ice, near its edges and along medial moraines, which follow the flow lines below confluences.
    """
    terrain, cell, snowline = setting.terrain, setting.cell, setting.snowline
    inner = tuple(slice(MARGIN, size - MARGIN) for size in terrain.shape)
    ice = thickness > 0
    away = distance_transform_edt(~ice) * cell if ice.any() else np.full(terrain.shape, 1e4)
    inside = distance_transform_edt(ice) * cell if not ice.all() else np.full(terrain.shape, 1e4)
    low = (snowline - terrain) / 250.0
    medial = basins.medial_moraines(ice, setting.net, setting.flux, cell)
    debris = 1.5 * low + 1.3 * fractal(y, x, 1500.0, seed + 503, octaves=3) - np.minimum(inside, 400.0) / 250.0
    debris += 1.8 * np.exp(-((medial / 60.0) ** 2))
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
        "melange": _melange(y, x, ice & (terrain <= 0), cell, seed),
    }


def _melange(y: Float64Array, x: Float64Array, afloat: NDArray[np.bool_], cell: float, seed: int) -> Float64Array:
    """Return where icebergs and brash ice gather: within some hundred metres of a calving front."""
    if not afloat.any():
        return np.full(afloat.shape, -1.0)
    distance = distance_transform_edt(~afloat) * cell
    reach = 500.0 + 500.0 * fractal(y, x, 700.0, seed + 919, octaves=2)
    return np.asarray(np.clip((reach - distance) / 100.0, -3.0, 3.0))


def _above_quantile(
    field: Float64Array, where: NDArray[np.bool_], inner: tuple[slice, ...], share: float
) -> Float64Array:
    """Shift a field so that the given share of the cells of `where` inside the region is positive."""
    here = field[inner][where[inner]]
    if share <= 0 or not here.size:
        return field - float(field.max()) - 1.0
    return field - float(np.quantile(here, max(0.0, 1 - share)))
