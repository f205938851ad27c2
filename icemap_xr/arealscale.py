"""How much ground a planar pixel covers: the areal scale of a map projection, smooth and cheap to the last pixel.

Below the stages: `area` and `bootstrap_area` use it for ``area_kind="true"``.
"""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid

AreaKind: TypeAlias = Literal["planar", "true"]

#: distance of the nodes between which the scale is interpolated: off by less than 1e-7 of an area in UTM
_NODE_M = 5000.0


def check_area_kind(kind: str) -> None:
    """Raise `InputError` unless the kind of area is one of the two."""
    if kind not in ("planar", "true"):
        raise InputError(
            f"area_kind {kind!r} is not allowed: give 'planar' (as published) or 'true' (on the ellipsoid)"
        )


class GroundWeights:
    """Ground area of each pixel as a multiple of its planar area, by bilinear interpolation between nodes.

    Parameters
    ----------
    grid
        Grid of the map. The nodes are anchored to the region's origin, so a crop has the weights of its region.

    Notes
    -----
    The weight is the inverse of the projection's areal scale (PROJ factors) on the ellipsoid of the CRS.
    """

    def __init__(self, grid: RegionGrid) -> None:
        self._step = max(1, round(_NODE_M / grid.resolution))
        self._origin = tuple(offset // self._step for offset in grid.offset)
        self._offset = grid.offset
        ends = [(o + n) // self._step + 2 for o, n in zip(grid.offset, grid.shape, strict=True)]
        rows, columns = (np.arange(a, b) * self._step for a, b in zip(self._origin, ends, strict=True))
        transform = grid.geobox.transform
        x = transform.c + (columns - grid.offset[1]) * transform.a
        y = transform.f + (rows - grid.offset[0]) * transform.e
        self._nodes = 1 / areal_scale(grid.crs, *np.meshgrid(x, y))

    def window(self, row: int, column: int, rows: int, columns: int) -> NDArray[np.float64]:
        """Return the weights `(rows, columns)` of pixels from `row`, `column` of the map on."""
        left, right = self._hats(0, row, rows), self._hats(1, column, columns)
        return np.asarray(left[0] @ self._nodes[left[1], right[1]] @ right[0].T)

    def total(self, rows: int, columns: int) -> float:
        """Return the sum of the weights of the map's first rows and columns, in planar pixels."""
        left, right = self._hats(0, 0, rows), self._hats(1, 0, columns)
        return float(left[0].sum(axis=0) @ self._nodes[left[1], right[1]] @ right[0].sum(axis=0))

    def _hats(self, axis: int, start: int, count: int) -> tuple[NDArray[np.float64], slice]:
        """Return the shares of the nodes in each pixel centre `(pixel, node)`, and which nodes these are."""
        centre = (self._offset[axis] + start + np.arange(count) + 0.5) / self._step - self._origin[axis]
        first, last = math.floor(centre[0]), math.floor(centre[-1]) + 1
        return np.maximum(0, 1 - np.abs(centre[:, None] - np.arange(first, last + 1))), slice(first, last + 1)


def areal_scale(crs: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return map area over ground area at points of a projected CRS."""
    projected = pyproj.CRS(crs)
    geographic = projected.geodetic_crs
    lon, lat = pyproj.Transformer.from_crs(projected, geographic, always_xy=True).transform(x, y)
    return np.asarray(pyproj.Proj(projected).get_factors(lon, lat, errcheck=True).areal_scale, np.float64)


#: longest piece of an edge that is taken for straight on the ground as on the map
_EDGE_M = 100.0


def ground_areas(polygons: NDArray[Any], crs: str) -> NDArray[np.float64]:
    """Return the areas of polygons of a projected CRS on its ellipsoid, m2."""
    projected = pyproj.CRS(crs)
    to_lonlat = pyproj.Transformer.from_crs(projected, projected.geodetic_crs, always_xy=True)
    ellipsoid = projected.get_geod() or pyproj.Geod(ellps="WGS84")
    # turned on the map, as longitudes that jump at the antimeridian would tell the turn of a ring wrongly
    cut = shapely.segmentize(shapely.orient_polygons(polygons), _EDGE_M)
    degrees = shapely.transform(cut, lambda xy: np.column_stack(to_lonlat.transform(xy[:, 0], xy[:, 1])))
    return np.array([abs(ellipsoid.geometry_area_perimeter(one)[0]) for one in degrees], np.float64)
