"""Small tables and polygons as groups of a Zarr store: CF geometries, and plain types that the format has."""

from __future__ import annotations

from typing import Any

import cf_xarray.geometry
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.lineage import scrub


def encode_polygons(frame: gpd.GeoDataFrame | None, grid: RegionGrid, what: str) -> xr.Dataset:
    """Encode polygons as CF geometries; none at all give an empty group, as CF cannot encode an empty set.

    Nullable integers are stored as floats with NaN and nullable text with "", and come back as they were.
    """
    if frame is None:
        return xr.Dataset(attrs={"columns": {}, "count": 0})
    table = frame.drop(columns=frame.geometry.name)
    attrs = {"columns": {str(name): str(kind) for name, kind in table.dtypes.items()}, "count": len(frame)}
    if not len(frame):
        return xr.Dataset(attrs=attrs)
    bad = frame.geometry.isna() | frame.geometry.is_empty
    if bad.any():
        raise SchemaError(f"{what} have {int(bad.sum())} rows without a geometry: drop them before archiving")
    columns = {str(name): ("outline", _plain_column(table[name])) for name in table}
    geometry = ("outline", frame.geometry.to_numpy())
    encoded = cf_xarray.geometry.encode_geometries(xr.Dataset(columns, coords={"geometry": geometry}))
    encoded["geometry_container"].attrs["grid_mapping"] = schema.SPATIAL_REF
    return plain(encoded.assign_attrs(attrs).assign_coords({schema.SPATIAL_REF: grid.coords()[schema.SPATIAL_REF]}))


def decode_polygons(ds: xr.Dataset, crs: str) -> gpd.GeoDataFrame:
    """Return the polygons of a group as they were encoded."""
    names = ds.attrs["columns"]
    if not ds.data_vars:
        empty = {name: pd.Series([], dtype=kind) for name, kind in names.items()}
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs))
    geometry = cf_xarray.geometry.decode_geometries(ds)["geometry"].values
    columns = {name: _typed_column(ds[name].values, kind) for name, kind in names.items()}
    return gpd.GeoDataFrame(columns, geometry=geometry, crs=crs)


def plain(ds: xr.Dataset) -> xr.Dataset:
    """Return a small dataset in memory, in types that the Zarr v3 specification has, with plain attributes."""
    out = ds.compute().drop_encoding()
    for name, var in out.variables.items():
        if var.dtype.kind in "UT":  # fixed-length text has no Zarr v3 data type
            out[name] = (var.dims, var.values.astype(object), var.attrs)
        out[name].attrs = {str(key): scrub(value) for key, value in out[name].attrs.items()}
    out.attrs = scrub(out.attrs)
    return out


def _plain_column(column: Any) -> Any:
    if isinstance(column.dtype, pd.StringDtype):
        return column.astype(object).where(column.notna(), "").to_numpy(object)
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype):
        return column.astype("Float64").to_numpy(np.float64, na_value=np.nan)
    if column.dtype == object:
        return np.array(["" if one is None else str(one) for one in column], object)
    return column.to_numpy()


def _typed_column(values: Any, kind: str) -> Any:
    if kind.startswith(("string", "str")):
        text = pd.Series(values.astype(object), dtype=kind)
        return text.where(text != "")
    if kind[:1].isupper():
        numbers: Any = pd.Series(values, dtype="Float64").where(~np.isnan(values.astype(float)))
        return numbers.astype(kind)
    return values.astype(kind)
