"""Regions as users give them: a box, a geometry, a GeoDataFrame or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from pyproj import CRS, Geod
from shapely.geometry.base import BaseGeometry

from icemap_xr.errors import InputError
from icemap_xr.types import StrPath

#: an edge that is straight in one CRS is curved in another: edges are cut into parts of this share of the extent
_EDGE_PARTS = 1000
#: maps of glaciers are within a few percent of the ground's area, a polar map of half the globe is within this factor
_DISTORTED = 4.0
_GEOD = Geod(ellps="WGS84")


def as_frame(region: Any) -> gpd.GeoDataFrame:
    """Return a region as a GeoDataFrame with a CRS.

    Parameters
    ----------
    region
        A GeoDataFrame or GeoSeries with a CRS, a vector file, a shapely geometry in lon/lat, or a box
        (west, south, east, north) in lon/lat.

    Raises
    ------
    InputError
        The region is empty, has no CRS, or is of another kind.
    """
    if isinstance(region, str | Path):
        if not Path(region).exists():
            raise InputError(f"region file {str(region)!r} does not exist: give a vector file or a lon/lat box")
        region = _read(region)
    if isinstance(region, gpd.GeoSeries):
        region = gpd.GeoDataFrame(geometry=region)
    if isinstance(region, gpd.GeoDataFrame):
        frame = region
    elif isinstance(region, BaseGeometry):
        if not region.is_empty and not _is_lonlat(region.bounds):
            raise InputError(
                f"the geometry's bounds {region.bounds} are no degrees: give it in lon/lat, or in a "
                "GeoSeries with its CRS"
            )
        frame = gpd.GeoDataFrame(geometry=[region], crs="EPSG:4326")
    elif isinstance(region, list | tuple) and len(region) == 4:
        frame = gpd.GeoDataFrame(geometry=[_box(region)], crs="EPSG:4326")
    else:
        raise InputError(
            f"region {type(region).__name__} cannot be used: give (west, south, east, north), a geometry, "
            "a GeoDataFrame or a vector file"
        )
    if frame.crs is None:
        raise InputError("the region has no CRS: set one with set_crs()")
    if frame.empty or frame.geometry.is_empty.all():
        raise InputError("the region is empty: it holds no geometry")
    return frame


def union_in_crs(region: Any, to: str) -> BaseGeometry:
    """Return the union of a region's geometries in a CRS; edges stay where they are on the ground.

    Raises
    ------
    InputError
        As `as_frame`, or the CRS cannot show the region.
    """
    frame, crs = as_frame(region), CRS.from_user_input(to)
    west, south, east, north = frame.total_bounds
    extent = max(east - west, north - south)
    if frame.crs != crs and extent > 0:
        frame = frame.set_geometry(frame.segmentize(extent / _EDGE_PARTS))
    # a box all around the globe touches itself along a meridian
    geometry: BaseGeometry = shapely.make_valid(frame.to_crs(crs).union_all())
    if not _is_true(geometry, frame, crs):
        bounds = tuple(round(float(one), 3) for one in (west, south, east, north))
        raise InputError(f"the region with bounds {bounds} reaches beyond what {crs.name} can show: give a smaller one")
    return geometry


def _is_true(projected: BaseGeometry, frame: gpd.GeoDataFrame, crs: CRS) -> bool:
    """Return whether a projected region has about its area on the ground: far off, projections fold or tear."""
    if not np.isfinite(projected.bounds).all():
        return False
    if crs.is_geographic or frame.crs == crs or not projected.area:
        return True
    ground = shapely.orient_polygons(frame.to_crs("EPSG:4326").union_all())
    area = abs(_GEOD.geometry_area_perimeter(ground)[0])
    metres = crs.axis_info[0].unit_conversion_factor
    return area / _DISTORTED < projected.area * metres**2 < area * _DISTORTED


def lonlat_bounds(region: Any) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a region."""
    west, south, east, north = union_in_crs(region, "EPSG:4326").bounds
    return west, south, east, north


def _read(path: StrPath) -> gpd.GeoDataFrame:
    try:
        # few builds of GDAL read GeoParquet, which is what this package writes
        return gpd.read_parquet(path) if Path(path).suffix == ".parquet" else gpd.read_file(path)
    except (OSError, RuntimeError, ValueError) as error:  # pyogrio's own errors are RuntimeErrors, Arrow's ValueErrors
        cause = " ".join(str(error).split())
        raise InputError(f"region file {str(path)!r} cannot be read ({cause}): give a vector file") from None


def _box(bounds: Any) -> BaseGeometry:
    try:
        west, south, east, north = (float(value) for value in bounds)
    except (TypeError, ValueError):
        raise InputError(f"box {bounds!r} is not four numbers: give west, south, east, north") from None
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(
            f"box {tuple(bounds)} is not allowed: give west, south, east, north in degrees with west < east, "
            "south < north"
        )
    return shapely.box(west, south, east, north)


def _is_lonlat(bounds: tuple[float, ...]) -> bool:
    west, south, east, north = bounds
    # up to 360 degrees: some count eastwards across the antimeridian
    return -180 <= west <= east <= 360 and -90 <= south <= north <= 90
