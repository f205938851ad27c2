"""A block of the map in an image: the line and pixel of each of its pixels, and what relief does there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr.grd.dem import Dem, lonlat, map_places, to_degrees
from icemap_xr.grd.geometry import Geometry, RangeDoppler, earth_centred
from icemap_xr.kernels import nodes, relief

Floats = NDArray[np.float64]

#: metres around a block in which relief is looked at: 1800 m of it in steep looks, more in flat ones
REACH = 2500.0
#: side of the cells on which layover and shadow are found, metres
CELL = 20.0
#: metres over which directions on the map are found
_STEP = 50.0


def block_heights(geobox: GeoBox, geometry: Geometry, dem: Dem | None, height: float | None) -> Floats:
    """Return the height above WGS 84 of each pixel of a block, metres."""
    if dem is not None:
        return dem.read(geobox)
    if height is not None:
        return np.full(geobox.shape, float(height))

    def surface(rows: Floats, columns: Floats, level: float) -> tuple[Floats, ...]:
        return (geometry.surface(*lonlat(geobox, rows, columns)),)

    return nodes.spread(surface, _shape(geobox), np.zeros(geobox.shape))[0]


def place(geobox: GeoBox, geometry: Geometry, heights: Floats) -> tuple[Floats, Floats]:
    """Return line and pixel `(y, x)` of each pixel of a block; NaN where it cannot be seen or its height is unknown."""

    def locate(rows: Floats, columns: Floats, level: float) -> tuple[Floats, ...]:
        lon, lat = lonlat(geobox, rows, columns)
        return geometry.locate(lon, lat, np.full(lon.shape, level))

    lines, pixels = nodes.spread(locate, _shape(geobox), heights)
    return lines, pixels


@dataclass(frozen=True)
class Relief:
    """What relief does in a block.

    Parameters
    ----------
    incidence
        `(y, x)` degrees between the ground's normal and the direction to the platform.
    mask
        `(y, x)` uint8: 1 in layover, 2 in shadow, 3 in both, 0 elsewhere.
    """

    incidence: Floats
    mask: NDArray[np.uint8]


def block_relief(geobox: GeoBox, geometry: RangeDoppler, dem: Dem) -> Relief:
    """Return local incidence angle, layover and shadow, with the relief up to `REACH` metres around the block.

    They are looked for on cells of at least `CELL` metres, which hold what a global elevation model knows.
    """
    near = geobox.pad(1)
    heights = dem.read(near)
    _, _, east, north, up, scale = _all_views(near, geometry, heights)
    ground = abs(geobox.transform.a) / float(scale[scale.shape[0] // 2, scale.shape[1] // 2])
    slopes = relief.incidence(heights, (ground, ground), (east, north, up))
    return Relief(slopes[1:-1, 1:-1], _mask(geobox, geometry, dem))


def _mask(geobox: GeoBox, geometry: RangeDoppler, dem: Dem) -> NDArray[np.uint8]:
    pixel = abs(geobox.transform.a)
    size = max(1, int(CELL / pixel))
    margin = -(-int(np.ceil(REACH / pixel)) // size)
    rows, columns = (-(-n // size) + 2 * margin for n in _shape(geobox))
    corner = geobox.transform @ Affine.translation(-margin * size, -margin * size) @ Affine.scale(size)
    wide = GeoBox((rows, columns), corner, geobox.crs)
    distance, angle, east, north, _, _ = _all_views(wide, geometry, dem.read(wide))
    middle = (rows // 2, columns // 2)
    # the direction in which range grows is that away from the platform
    away = (float(north[middle]), -float(east[middle]))
    found = relief.layover_shadow(distance, angle, away)[margin:-margin, margin:-margin]
    return found.repeat(size, axis=0).repeat(size, axis=1)[: geobox.shape[0], : geobox.shape[1]]


def _all_views(geobox: GeoBox, geometry: RangeDoppler, heights: Floats) -> list[Floats]:
    return nodes.spread(lambda r, c, h: _views(geobox, geometry, r, c, h), _shape(geobox), heights)


def _views(
    geobox: GeoBox, geometry: RangeDoppler, rows: Floats, columns: Floats, level: float
) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Return distance, angle at the platform, the direction to it (east and north of the map, up) and the map scale."""
    x, y = map_places(geobox, rows, columns)
    degrees = to_degrees(str(geobox.crs))
    height = np.full(x.shape, level)
    lon, lat = (np.asarray(one) for one in degrees.transform(x, y))
    here = earth_centred(lon, lat, height)
    axes = [earth_centred(*_degrees(degrees, x + dx, y + dy), height) - here for dx, dy in ((_STEP, 0), (0, _STEP))]
    axes.append(earth_centred(lon, lat, height + _STEP) - here)
    lengths = [np.linalg.norm(axis, axis=-1) for axis in axes]
    _, _, distance, sight = geometry.sight(lon, lat, height)
    parts = [(sight * axis).sum(-1) / length for axis, length in zip(axes, lengths, strict=True)]
    platform = here + sight * distance[..., None]
    cosine = (sight * platform).sum(-1) / np.linalg.norm(platform, axis=-1)
    return distance, np.arccos(np.clip(cosine, -1, 1)), parts[0], parts[1], parts[2], _STEP / lengths[0]


def _degrees(transformer: pyproj.Transformer, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    lon, lat = transformer.transform(x, y)
    return np.asarray(lon), np.asarray(lat)


def _shape(geobox: GeoBox) -> tuple[int, int]:
    return int(geobox.shape[0]), int(geobox.shape[1])
