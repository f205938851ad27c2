"""Glaciers as an inventory: the columns of the Randolph Glacier Inventory 7, and change between years."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.arealscale import ground_areas
from icemap_xr.burning import rasterize
from icemap_xr.complexes import checked_dem
from icemap_xr.errors import InputError
from icemap_xr.grid import check_metres
from icemap_xr.types import FloatArray, StrPath

#: columns of the Randolph Glacier Inventory 7.0 (attribute table of the glacier product) and their pandas types
RGI7_COLUMNS: dict[str, str] = {
    "rgi_id": "string",
    "o1region": "string",
    "o2region": "string",
    "glims_id": "string",
    "anlys_id": "Int64",
    "subm_id": "Int64",
    "src_date": "string",
    "cenlon": "float64",
    "cenlat": "float64",
    "utm_zone": "Int64",
    "area_km2": "float64",
    "primeclass": "Int64",
    "conn_lvl": "Int64",
    "surge_type": "Int64",
    "term_type": "Int64",
    "glac_name": "string",
    "is_rgi6": "Int64",
    "termlon": "float64",
    "termlat": "float64",
    "zmin_m": "float64",
    "zmax_m": "float64",
    "zmed_m": "float64",
    "zmean_m": "float64",
    "slope_deg": "float64",
    "aspect_deg": "float64",
    "aspect_sec": "Int64",
    "dem_source": "string",
    "lmax_m": "Int64",
}
_TERRAIN = ("zmin_m", "zmax_m", "zmed_m", "zmean_m", "slope_deg", "aspect_deg")
# a statistic of less of a glacier would be one of another glacier
_LEAST_COVERED = 0.95


#: how far to go on the map to see where that leads on the ground, m
_STEP = 100.0
#: columns of outlines that are parts or bounds of `area_km2`
_AREAS = ("mapping_low_km2", "mapping_high_km2", "simplified_km2")


def utm_zone(lon: FloatArray, lat: FloatArray) -> NDArray[np.int64]:
    """Return UTM zones of positions in degrees, with the exceptions for south-west Norway and Svalbard."""
    zone = (np.floor((lon + 180) / 6).astype(np.int64) % 60) + 1
    zone[(lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 12)] = 32
    svalbard = (lat >= 72) & (lat <= 84) & (lon >= 0) & (lon < 42)
    # Svalbard has the zones 31, 33, 35 and 37 only, which meet at 9, 21 and 33 degrees east
    zone[svalbard] = 31 + 2 * np.digitize(lon[svalbard], [9, 21, 33])
    return zone


def rgi7_table(
    outlines: gpd.GeoDataFrame, dem: xr.DataArray | None = None, *, dem_source: str | None = None
) -> gpd.GeoDataFrame:
    """Return glaciers with all RGI 7 columns in their types; null where not known.

    Computed are `cenlon` and `cenlat` (degrees; as in the RGI those of a point on the glacier, not of its centroid,
    which can lie beside it), `utm_zone`, `area_km2` (as in the RGI the true area of the polygon on the ellipsoid, also
    in place of the planar one that `outlines` and `divide` give; for glaciers in degrees as given), and with a DEM
    `zmin_m`, `zmax_m`, `zmed_m`, `zmean_m`, `slope_deg` (mean, of the ground and not of the map), `aspect_deg` (mean
    direction of the downward slope, clockwise from true north) and `aspect_sec` (1 north, 2 north-east, ... 8
    north-west). Other columns of the RGI that the glaciers bring are kept, and so are those that the RGI does not have
    (`glacier_id`, `year`, ...), behind them; `mapping_low_km2`, `mapping_high_km2` and `simplified_km2` are scaled as
    `area_km2` is. `glacier_id` becomes `rgi_id` where it is one.

    Parameters
    ----------
    outlines
        Glaciers with a CRS; with a DEM one in metres.
    dem
        Elevations `(y, x)` in metres with a CRS, on any grid. Used at its own resolution. A glacier of which it covers
        less than 95 % gets no statistics.
    dem_source
        Name of the DEM for the column `dem_source`.

    Raises
    ------
    InputError
        The glaciers have no CRS, or one in degrees together with a DEM.
    GridError
        Areas in their CRS are not those on the ground.
    SchemaError
        The DEM has no `(y, x)` grid with a CRS.
    """
    if outlines.crs is None:
        raise InputError("the glaciers have no CRS: set one with set_crs()")
    metres = not outlines.crs.is_geographic
    if dem is not None and not metres:
        raise InputError(
            f"the glaciers are in {outlines.crs}: reproject to metres, with to_crs(), for statistics of a DEM"
        )
    known: dict[str, Any] = {name: outlines[name].array for name in RGI7_COLUMNS if name in outlines}
    if len(outlines):
        known["cenlon"], known["cenlat"] = _centres(outlines)
        known["utm_zone"] = utm_zone(known["cenlon"], known["cenlat"])
    if "rgi_id" not in known and "glacier_id" in outlines:
        known["rgi_id"] = [name if str(name).startswith("RGI") else None for name in outlines["glacier_id"]]
    if metres and len(outlines):
        west, south, east, north = outlines.total_bounds
        check_metres(str(outlines.crs), ((west + east) / 2, (south + north) / 2))
        known["area_km2"] = ground_areas(outlines.geometry.to_numpy(), str(outlines.crs)) / 1e6
    if dem is not None:
        known |= _terrain(outlines, dem)
        known["dem_source"] = [dem_source] * len(outlines)
    columns = {name: _column(known.get(name), kind, len(outlines)) for name, kind in RGI7_COLUMNS.items()}
    rest = [name for name in outlines if name not in columns and name != outlines.geometry.name]
    own: dict[str, Any] = {name: outlines[name].array for name in rest}  # arrays keep types with null
    if metres and "area_km2" in outlines:
        # by what the area changed and not by the scale: a table that went through here before has true areas
        given, true = outlines["area_km2"].to_numpy(np.float64, na_value=np.nan), columns["area_km2"].to_numpy()
        scale = np.divide(true, given, out=np.ones(len(true)), where=given > 0)
        own |= {name: outlines[name].array * scale for name in _AREAS if name in own}
    return gpd.GeoDataFrame(columns | own, geometry=outlines.geometry.to_numpy(), crs=outlines.crs)


def area_change(glaciers: gpd.GeoDataFrame, first: int | None = None, last: int | None = None) -> pd.DataFrame:
    """Return how the area of each glacier changed between two years; the sum is the change of the whole.

    Parameters
    ----------
    glaciers
        Glaciers with `glacier_id`, `year` and `area_km2`, as `divide` returns them.
    first, last
        The years; by default the earliest and the latest.

    Returns
    -------
    pandas.DataFrame
        By `glacier_id`: `first_km2`, `last_km2`, `change_km2`, `change_percent` (null for a new glacier) and `status`:
        ``"both"``, ``"gone"`` (no outline in the last year: area 0) or ``"new"``. A glacier is also "gone" where the
        last map has no observation; see `unobserved_km2` of the areas. Where an area of a glacier is null its change
        is null, too; then the change of the whole is not known (``sum(skipna=False)``).

    Raises
    ------
    InputError
        A column or a year is missing, or a row has no `glacier_id` or `year`.
    """
    missing = {"glacier_id", "year", "area_km2"} - set(glaciers.columns)
    if missing:
        raise InputError(f"the glaciers have no column {', '.join(sorted(missing))}: give what ix.divide() returns")
    for name in ("glacier_id", "year"):
        if glaciers[name].isna().any():
            raise InputError(
                f"{int(glaciers[name].isna().sum())} of {len(glaciers)} rows have no {name}: their area would be in no "
                "change; give them one, or leave them out yourself"
            )
    years = sorted(int(year) for year in set(glaciers["year"]))
    first, last = (years[0] if years else 0) if first is None else first, years[-1] if last is None and years else last
    for year in (first, last):
        if year not in years:
            raise InputError(f"year {year} has no glaciers: there are {', '.join(map(str, years)) or 'none'}")
    if first is not None and last is not None and first > last:
        raise InputError(f"first={first} is later than last={last}: a retreat would look like growth; swap them")
    rows = pd.DataFrame({name: glaciers[name].to_numpy() for name in ("glacier_id", "year")})
    rows["area"] = pd.to_numeric(glaciers["area_km2"]).to_numpy(np.float64, na_value=np.nan)
    rows["unknown"] = rows["area"].isna()
    found = rows.groupby(["glacier_id", "year"]).agg({"area": "sum", "unknown": "any"})
    # a sum over an area that is not known is not known, which is not the same as no ice
    area = found["area"].mask(found["unknown"]).unstack("year")
    there = found["unknown"].notna().unstack("year", fill_value=False)
    gone, new = ~there[last], ~there[first]
    out = pd.DataFrame({"first_km2": area[first].mask(new, 0.0), "last_km2": area[last].mask(gone, 0.0)})
    either = there[first] | there[last]
    out, gone, new = out[either], gone[either], new[either]
    out["change_km2"] = out["last_km2"] - out["first_km2"]
    percent = 100 * out["change_km2"] / out["first_km2"].where(~new)
    out["change_percent"] = percent.astype("Float64").mask(percent.isna())
    out["status"] = np.select([gone, new], ["gone", "new"], "both").astype(object)
    return out


def source_scenes(cube: xr.Dataset) -> xr.DataArray:
    """Return the items that each year of a cube was mapped from: `(year)` of text, separated by blanks.

    ``maps.assign_coords(source_scenes=source_scenes(cube))`` makes `outlines` carry them.

    Raises
    ------
    InputError
        The cube does not say which item a scene is.
    """
    by_year: list[list[str]] = [[] for _ in cube[schema.YEAR].values]
    for name, feature in schema.FEATURES.items():
        if name not in cube or feature.index not in cube:
            continue
        if f"{name}_item" not in cube:
            raise InputError(
                f"the cube has no {name}_item: it was not built from a catalogue, so its scenes are unknown"
            )
        items = cube[f"{name}_item"].values.astype(object)
        for found, steps in zip(by_year, cube[feature.index].values, strict=True):
            found += [str(item) for item in items[np.unique(steps[steps >= 0])]]
    values = np.array([" ".join(dict.fromkeys(found)) for found in by_year], object)
    return xr.DataArray(values, {schema.YEAR: cube[schema.YEAR].values}, (schema.YEAR,))


def write_table(table: gpd.GeoDataFrame, path: StrPath, *, layer: str | None = None) -> Path:
    """Write glaciers as GeoParquet 1.1 (`.parquet`) or GeoPackage (`.gpkg`); the file appears complete or not at all.

    The layer of a GeoPackage has the name of the file unless another is given.

    Raises
    ------
    InputError
        The name ends otherwise.
    """
    path = Path(path)
    temporary = path.with_name(f".partial-{path.name}")
    temporary.unlink(missing_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(temporary, index=False, schema_version="1.1.0", write_covering_bbox=True)
    elif path.suffix == ".gpkg":
        # the temporary name would be no layer name
        table.to_file(temporary, layer=layer or path.stem, engine="pyogrio", driver="GPKG")
    else:
        raise InputError(f"{path.name}: choose a name that ends in .parquet or .gpkg")
    os.replace(temporary, path)
    return path


def _centres(outlines: gpd.GeoDataFrame) -> tuple[FloatArray, FloatArray]:
    """Return longitude and latitude of a point on each glacier."""
    degrees = outlines.geometry.to_crs("EPSG:4326")
    points, bounds = degrees.representative_point(), degrees.bounds
    torn = (bounds["maxx"] - bounds["minx"] > 180).to_numpy()  # across the antimeridian, or around a pole
    if torn.any():
        points = points.where(~torn, outlines.geometry.representative_point().to_crs("EPSG:4326"))
    return points.x.to_numpy(), points.y.to_numpy()


def _column(values: Any, kind: str, rows: int) -> pd.Series[Any]:
    if values is None:
        values = np.full(rows, np.nan) if kind == "float64" else [None] * rows
    column: Any = pd.Series(values, dtype=object)
    return column.astype(kind)


def _terrain(outlines: gpd.GeoDataFrame, dem: xr.DataArray) -> dict[str, Any]:
    """Return the columns that come from a DEM."""
    ground, crs = checked_dem(dem), str(outlines.crs)
    if not len(outlines):
        return {}
    resolution = abs(ground.odc.output_geobox(crs).resolution.x)
    frames = _map_to_ground(outlines)
    rows = np.array(
        [
            _statistics(shape, ground, crs, resolution, frame)
            for shape, frame in zip(outlines.geometry, frames, strict=True)
        ]
    )
    known: dict[str, Any] = dict(zip(_TERRAIN, rows.T, strict=True))
    sector = np.round(known["aspect_deg"] / 45) % 8 + 1
    known["aspect_sec"] = [None if np.isnan(one) else int(one) for one in sector]
    return known


def _map_to_ground(outlines: gpd.GeoDataFrame) -> FloatArray:
    """Return where a metre east and a metre north on the map lead: `(row, (east, north) ground, (east, north) map)`."""
    points = outlines.geometry.representative_point()
    x, y = points.x.to_numpy(), points.y.to_numpy()
    degrees = pyproj.Transformer.from_crs(outlines.crs, outlines.crs.geodetic_crs, always_xy=True)
    ellipsoid = outlines.crs.get_geod() or pyproj.Geod(ellps="WGS84")
    here, out = degrees.transform(x, y), np.empty((len(x), 2, 2))
    for axis, there in enumerate([(x + _STEP, y), (x, y + _STEP)]):
        direction, _, length = ellipsoid.inv(*here, *degrees.transform(*there))
        out[:, 0, axis] = np.asarray(length) * np.sin(np.radians(direction)) / _STEP
        out[:, 1, axis] = np.asarray(length) * np.cos(np.radians(direction)) / _STEP
    return out


def _statistics(shape: Any, ground: xr.DataArray, crs: str, resolution: float, frame: FloatArray) -> list[float]:
    """Return `_TERRAIN` of one glacier; `frame` leads from map to ground."""
    west, south, east, north = shape.bounds
    margin = 2 * resolution
    bounds = (west - margin, south - margin, east + margin, north + margin)
    box = GeoBox.from_bbox(bounds, crs, resolution=resolution)
    height = np.asarray(ground.odc.reproject(box, resampling="bilinear", dst_nodata=np.nan).compute(), np.float64)
    inside = rasterize([shape], box.shape, transform=box.transform).astype(bool)
    if not inside.any():  # narrower than a pixel
        inside = rasterize([shape], box.shape, transform=box.transform, all_touched=True).astype(bool)
    down, right = (np.asarray(one, np.float64) for one in np.gradient(height, resolution))
    good = inside & np.isfinite(height) & np.isfinite(down) & np.isfinite(right)
    if good.sum() < _LEAST_COVERED * inside.sum():
        return [np.nan] * len(_TERRAIN)
    levels = height[good]
    # the rise per metre east and north on the map, as rows run south, then on the ground
    east, north = np.linalg.solve(frame.T, np.stack([right[good], -down[good]]))
    slope = np.hypot(east, north)
    steep = slope > 0
    east_part, north_part = (-(one[steep] / slope[steep]).sum() for one in (east, north))
    aspect = np.degrees(np.arctan2(east_part, north_part)) % 360 if steep.any() else np.nan
    mean_slope = float(np.degrees(np.arctan(slope)).mean())
    return [levels.min(), levels.max(), float(np.median(levels)), levels.mean(), mean_slope, aspect]
