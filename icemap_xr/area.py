"""Ice area per year, of a whole map, per polygon or per elevation band, with what was not observed beside it."""

from __future__ import annotations

from typing import Any, Literal

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr

from icemap_xr import schema
from icemap_xr.arealscale import AreaKind, GroundWeights, check_area_kind
from icemap_xr.blocktable import block_table, choose_map, facts_of
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.options import made_by
from icemap_xr.regionsums import REGION, band_labels, read_regions, region_sums, sums_by_label, true_areas

ELEVATION = "elevation"
_LONG_NAMES = {
    "area_km2": "area of ice",
    "observed_km2": "observed area",
    "unobserved_km2": "area without an observation",
}
#: a difference of two areas below this share of them is rounding, not unobserved ground
_ROUNDING = {"planar": 1e-9, "true": 1e-6}


def area(
    ds: xr.Dataset,
    *,
    by: gpd.GeoDataFrame | Literal["elevation"] | None = None,
    method: str = "soft",
    threshold: float = 0.5,
    area_kind: AreaKind = "planar",
    dem: xr.DataArray | None = None,
    band_m: float = 50.0,
) -> xr.Dataset:
    """Sum yearly maps to ice area.

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)`, NaN where nothing was
        observed, and a CRS in metres.
    by
        Polygons, in any CRS, to sum separately; overlapping ones are independent. Each pixel counts by the fraction
        a polygon covers, exact to rounding (relative error below 1e-9); edges are straight in
        the polygons' own CRS between vertices. Or ``"elevation"``, for bands of `dem`.
    method
        ``"soft"``: sum of probability. ``"hard"``: pixels with probability > `threshold`.
    threshold
        Probability, for ``"hard"``.
    area_kind
        ``"planar"``: pixels have the area they have on the map, as published. ``"true"``: the area on the ellipsoid,
        by the areal scale of the projection (accurate to 1e-6).
    dem
        For ``by="elevation"``: elevation `(y, x)` in metres on the map's grid, NaN where unknown; lazy or not. It is
        read once more for its range.
    band_m
        Height of an elevation band in metres. Bands begin at multiples of it.

    Returns
    -------
    xarray.Dataset
        `area_km2`, `observed_km2` and `unobserved_km2` `(year[, region | elevation])` float64, km2, lazy where the map
        is; `area_kind` is among their attributes. `region` holds the column `name` of `by`, or its index; `elevation`
        the lower edge of each band in metres, then NaN for ground of unknown elevation where there is any. `area_km2`
        is the ice in the observed part only, and NaN where nothing was observed: a year without data, a polygon off
        the map. Unobserved is the map's (band's) extent, or the polygon's whole area, less what was observed.

    Warns
    -----
    UncalibratedWarning
        ``"soft"`` without `calibrated`.

    Raises
    ------
    InputError
        A wrong option; `by` is empty, has no CRS, invalid or no polygons, repeated names, or lies wholly off the map;
        `dem` is missing or on another grid.
    SchemaError
        The map or its CRS is missing.
    """
    check_area_kind(area_kind)
    array, calibrated = choose_map(ds, method, threshold, "area")
    grid = RegionGrid.from_dataset(ds)
    cut = threshold if method == "hard" else None
    weights = GroundWeights(grid) if area_kind == "true" else None
    attrs: dict[str, Any] = {"area_kind": area_kind, "method": method, **facts_of(array, calibrated)}
    if cut is not None:
        attrs["threshold"] = cut
    coords: dict[str, Any] = {schema.YEAR: array[schema.YEAR].variable}
    dims: tuple[str, ...] = (schema.YEAR,)
    if isinstance(by, str):
        if by != ELEVATION:
            raise InputError(f"by {by!r} is not allowed: give polygons or 'elevation'")
        sums, extent, coords[ELEVATION] = _by_elevation(array, dem, band_m, cut, weights)
        dims = (schema.YEAR, ELEVATION)
    elif by is None:
        # one block per map: the table is then as small as it can be
        side = max(grid.region_shape)
        table = block_table(array, grid, side, threshold=cut, weights=weights).sum(("block_y", "block_x"))
        sums = [table[name].data / grid.pixel_area_km2 for name in ("ice_km2", "observed_km2")]
        extent = np.prod(grid.shape) if weights is None else weights.total(*grid.shape)
    else:
        dims = (schema.YEAR, REGION)
        labels, polygons = read_regions(by, grid)
        sums = region_sums(array, polygons, cut, weights)
        extent = shapely.area(polygons) if weights is None else true_areas(polygons, grid)
        coords[REGION] = (REGION, labels)
    unobserved = extent - sums[1]
    unobserved = unobserved * (unobserved > _ROUNDING[area_kind] * extent)
    seen = xr.DataArray(sums[1], dims=dims) > 0
    variables = {
        "area_km2": xr.DataArray(sums[0], dims=dims).where(seen),
        "observed_km2": xr.DataArray(sums[1], dims=dims),
        "unobserved_km2": xr.DataArray(unobserved, dims=dims),
    }
    named = {
        name: (one * grid.pixel_area_km2).assign_attrs({"units": "km2", "long_name": _LONG_NAMES[name], **attrs})
        for name, one in variables.items()
    }
    return xr.Dataset(named, coords=coords, attrs=made_by() | attrs)


def _by_elevation(
    array: xr.DataArray, dem: xr.DataArray | None, band_m: float, cut: float | None, weights: GroundWeights | None
) -> tuple[Any, Any, Any]:
    """Return sums `(2, year, band)` and extent `(band,)` in pixels, and the coordinate of the bands."""
    if dem is None:
        raise InputError("by='elevation' needs dem=, a DataArray (y, x) of elevation in metres on the map's grid")
    labels, edges, unknown = band_labels(dem, array, band_m)
    sums = sums_by_label(array, labels, len(edges), cut, weights)
    # the ground of each band: the same sum over a map of ones, which is never in memory as a whole
    ones = xr.zeros_like(array[:1]) + 1
    extent = sums_by_label(ones, labels, len(edges), None, weights)[1, 0]
    low = np.append(edges, np.nan)
    kept = slice(None) if unknown else slice(0, len(edges))
    attrs = {"units": "m", "long_name": "lower edge of the elevation band", "band_m": float(band_m)}
    return sums[:, :, kept], extent[kept], (ELEVATION, low[kept], attrs)
