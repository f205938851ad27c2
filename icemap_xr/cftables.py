"""Small tables and polygons as groups of a Zarr store: CF geometries, and plain types that the format has."""

from __future__ import annotations

from typing import Any

import cf_xarray.geometry
import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.lineage import scrub

#: what the geometries themselves are stored in
_RESERVED = (
    *("geometry", "geometry_container", "node_count", "part_node_count", "interior_ring", "x", "y", "crd_x", "crd_y"),
    *("node", "part", "outline", schema.SPATIAL_REF),
)
#: nullable types of pandas; those of Arrow are named otherwise
_NULLABLE = (
    *(f"{sign}Int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)),
    *("Float32", "Float64", "boolean"),
)
#: whole numbers up to here are exact as a float
_EXACT = 2**53


#: attribute of outlines and of their group: the options that drew them, so that outlines of others are not joined
OUTLINE_OPTIONS = "outline_options"


def encode_polygons(frame: gpd.GeoDataFrame | None, grid: RegionGrid, what: str) -> xr.Dataset:
    """Encode polygons as CF geometries; none at all give an empty group, as CF cannot encode an empty set.

    Columns may hold numbers, truth values, dates without a time zone, and text. Nullable integers and truth values are
    stored as floats with NaN and nullable text with "", and come back as they were; so "" of text is null.

    Raises
    ------
    SchemaError
        A row has no geometry, none of polygons or an invalid one, or a column has a name that the geometries need or a
        type that cannot be stored.
    """
    if frame is None:
        return xr.Dataset(attrs={"columns": {}, "count": 0})
    table = frame.drop(columns=frame.geometry.name)
    _check_columns(table, what)
    attrs = {"columns": {str(name): str(kind) for name, kind in table.dtypes.items()}, "count": len(frame)}
    attrs[OUTLINE_OPTIONS] = frame.attrs.get(OUTLINE_OPTIONS) or {}
    if not len(frame):
        return xr.Dataset(attrs=scrub(attrs))
    bad = frame.geometry.isna() | frame.geometry.is_empty
    if bad.any():
        raise SchemaError(f"{what} have {int(bad.sum())} rows without a geometry: drop them before archiving")
    _check_shapes(frame, what)
    columns = {str(name): ("outline", _plain_column(table[name])) for name in table}
    geometry = ("outline", frame.geometry.to_numpy())
    encoded = cf_xarray.geometry.encode_geometries(xr.Dataset(columns, coords={"geometry": geometry}))
    encoded["geometry_container"].attrs["grid_mapping"] = schema.SPATIAL_REF
    _describe_areas(encoded, frame)
    return plain(encoded.assign_attrs(attrs).assign_coords({schema.SPATIAL_REF: grid.coords()[schema.SPATIAL_REF]}))


def _describe_areas(encoded: xr.Dataset, frame: gpd.GeoDataFrame) -> None:
    """Give areas their unit, and say which kind they are: tables beside an archive have true ones in any case."""
    for name in map(str, frame.columns):
        if name.endswith("_km2"):
            encoded[name].attrs["units"] = "km2"
    if "area_km2" in frame and pd.api.types.is_numeric_dtype(frame["area_km2"]):
        given = frame["area_km2"].to_numpy(np.float64, na_value=np.nan)
        planar = np.allclose(given, frame.geometry.area / 1e6, rtol=1e-6, atol=0)
        encoded["area_km2"].attrs["area_kind"] = "planar" if planar else "as given, not planar"


def decode_polygons(ds: xr.Dataset, crs: str) -> gpd.GeoDataFrame:
    """Return the polygons of a group as they were encoded."""
    names = ds.attrs["columns"]
    if not ds.data_vars:
        empty = {name: pd.Series([], dtype=kind) for name, kind in names.items()}
        return _with_options(gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs)), ds)
    geometry = cf_xarray.geometry.decode_geometries(ds)["geometry"].values
    columns = {name: _typed_column(ds[name].values, kind) for name, kind in names.items()}
    return _with_options(gpd.GeoDataFrame(columns, geometry=geometry, crs=crs), ds)


def _with_options(frame: gpd.GeoDataFrame, ds: xr.Dataset) -> gpd.GeoDataFrame:
    """Say with which options outlines were drawn, where the group of them says so."""
    if ds.attrs.get(OUTLINE_OPTIONS):
        frame.attrs[OUTLINE_OPTIONS] = dict(ds.attrs[OUTLINE_OPTIONS])
    return frame


def plain(ds: xr.Dataset) -> xr.Dataset:
    """Return a small dataset in memory, in types that the Zarr v3 specification has, with plain attributes."""
    out = ds.compute().drop_encoding()
    for name, var in out.variables.items():
        if var.dtype.kind in "UT":  # fixed-length text has no Zarr v3 data type
            out[name] = (var.dims, var.values.astype(object), var.attrs)
        out[name].attrs = {str(key): scrub(value) for key, value in out[name].attrs.items()}
    out.attrs = scrub(out.attrs)
    return out


def _check_columns(table: pd.DataFrame, what: str) -> None:
    """Refuse columns that would collide with the geometries, or not come back as they were."""
    names = [str(name) for name in table.columns]
    for name in names:
        if name in _RESERVED or names.count(name) > 1:
            cause = "the geometries are stored under it" if name in _RESERVED else "several columns have it"
            raise SchemaError(f"{what} have a column {name!r}, and {cause}: rename it with {what}.rename(columns=...)")
    for name, (_, column) in zip(names, table.items(), strict=True):
        kind: Any = column.dtype
        # categories have the kind of objects too
        if isinstance(kind, pd.StringDtype) or (isinstance(kind, np.dtype) and kind.kind == "O" and _is_text(column)):
            continue
        if str(kind) in _NULLABLE:
            if str(kind).endswith("Int64") and (column.abs() > _EXACT).any():
                raise SchemaError(f"column {name!r} of {what} has numbers over 2**53: convert it with astype('int64')")
            continue
        if isinstance(kind, np.dtype) and kind.kind in "biufM" and kind.itemsize <= 8:
            continue
        raise SchemaError(
            f"column {name!r} of {what} has the type {kind}, which cannot be stored: convert it with astype() to "
            "numbers, truth values, dates without a time zone, or text (str)"
        )


def _check_shapes(frame: gpd.GeoDataFrame, what: str) -> None:
    """Refuse what is no polygon, which CF geometries would mix or lose, and polygons that have no certain area."""
    kinds = frame.geom_type
    wrong = kinds[~kinds.isin(["Polygon", "MultiPolygon"])]
    if len(wrong):
        raise SchemaError(
            f"{what} have {len(wrong)} rows that are no polygons ({', '.join(sorted(set(wrong)))}): keep Polygon and "
            f"MultiPolygon alone, for example {what}[{what}.geom_type.isin(['Polygon', 'MultiPolygon'])]"
        )
    invalid = frame.geometry[~frame.geometry.is_valid]
    if len(invalid):
        why = shapely.is_valid_reason(invalid.iloc[0])
        raise SchemaError(
            f"{what} have {len(invalid)} invalid polygons, the first in row {invalid.index[0]} ({why}): mend them with "
            f"{what}.make_valid() and look at what becomes of them"
        )


def _is_text(column: Any) -> bool:
    return all(
        isinstance(one, str) or one is None or one is pd.NA or (isinstance(one, float) and one != one) for one in column
    )


def _plain_column(column: Any) -> Any:
    if isinstance(column.dtype, pd.StringDtype):
        return column.astype(object).where(column.notna(), "").to_numpy(object)
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        return column.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    if column.dtype == object:
        return np.array([one if isinstance(one, str) else "" for one in column], object)
    return column.to_numpy()


def _typed_column(values: Any, kind: str) -> Any:
    if kind.startswith(("string", "str")):
        text = pd.Series(values.astype(object), dtype=kind)
        return text.where(text != "")
    if kind == "object":
        return np.array([one or None for one in values], object)
    if kind in _NULLABLE:
        numbers: Any = pd.Series(values, dtype="Float64").where(~np.isnan(values.astype(float)))
        return numbers.astype(kind)
    return values.astype(kind)
