"""Shadow and layover that mountains cast on other ground, from the orbit's geometry."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import map_coordinates

from icemap_xr.simulate.noise import Float64Array
from icemap_xr.simulate.parameters import Sensor

#: depth from which ground counts as shadowed or laid over, m: less is below the detail of the coarse terrain
_LEAST = 1.0


def incidence(sensor: Sensor, down: Float64Array, right: Float64Array) -> Float64Array:
    """Return the incidence angle on flat ground, radians, where `down` and `right` are metres from the centre."""
    look = math.radians(sensor.look_azimuth)
    away = (right * math.sin(look) - down * math.cos(look)) / 1000.0
    degrees = np.clip(sensor.incidence + sensor.incidence_gradient * away, 15.0, 60.0)
    return np.asarray(np.radians(degrees), np.float64)


def exposure(height: Float64Array, cell: float, sensor: Sensor) -> tuple[Float64Array, Float64Array]:
    """Return how deep each cell lies in shadow, and how far in layover; m, positive where it does.

    Along each line of sight, ground is in shadow below the ray that touched earlier ground, and laid over where its
    slant range does not grow: the passive parts of Kropatsch and Strobl (1990, IEEE TGRS 28) together with the active.

    Parameters
    ----------
    height
        Terrain, m.
    cell
        Cell size, m.
    sensor
        Geometry.
    """
    look = math.radians(sensor.look_azimuth)
    down, right = -math.cos(look), math.sin(look)
    centre = [(n - 1) / 2 for n in height.shape]
    half = math.ceil(math.hypot(*height.shape) / 2)
    along = np.arange(-half, half + 1.0)
    p, q = np.meshgrid(along, along, indexing="ij")
    lines = map_coordinates(
        height, [centre[0] + p * down + q * right, centre[1] + p * right - q * down], order=1, mode="nearest"
    )
    angle = incidence(sensor, along * down * cell, along * right * cell)[:, None]
    ray = lines + np.cumsum(cell / np.tan(angle), axis=0)
    shadow = np.maximum.accumulate(ray, axis=0) - ray
    slant = np.cumsum(cell * np.sin(angle), axis=0) - lines * np.cos(angle)
    over = np.maximum(
        np.maximum.accumulate(slant, axis=0) - slant, slant - np.minimum.accumulate(slant[::-1], axis=0)[::-1]
    )
    rows, columns = np.indices(height.shape, dtype=np.float64)
    rows, columns = rows - centre[0], columns - centre[1]
    back = [rows * down + columns * right + half, rows * right - columns * down + half]
    fields = (map_coordinates(one, back, order=1, mode="nearest") - _LEAST for one in (shadow, over))
    first, second = fields
    return np.asarray(first, np.float64), np.asarray(second, np.float64)
