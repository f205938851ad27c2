"""Regions as users give them: a box, a geometry, a GeoDataFrame or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import shapely
from shapely.geometry.base import BaseGeometry

from icemap_xr.errors import InputError
from icemap_xr.types import StrPath


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


def union_in_crs(region: Any, crs: str) -> BaseGeometry:
    """Return the union of a region's geometries in a CRS."""
    geometry: BaseGeometry = as_frame(region).to_crs(crs).union_all()
    return geometry


def lonlat_bounds(region: Any) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a region."""
    west, south, east, north = union_in_crs(region, "EPSG:4326").bounds
    return west, south, east, north


def _read(path: StrPath) -> gpd.GeoDataFrame:
    try:
        return gpd.read_file(path)
    except (OSError, RuntimeError) as error:  # pyogrio's own errors are RuntimeErrors
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
