"""What dividing glaciers needs of its inputs: repaired polygons, a DEM with its voids marked, what touches what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from odc.geo.geobox import GeoBox
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from icemap_xr.errors import GridError, InputError, SchemaError

#: columns by which inventories name their glaciers, the first found is taken
ID_COLUMNS = ("glacier_id", "rgi_id", "RGIId", "glims_id", "GLIMSId")
#: the GLIMS id of a position
_NEW_ID = re.compile(r"G\d{6}E\d{5}[NS]")


def checked_outlines(outlines: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return year and repaired geometry of the outlines that are not empty."""
    if outlines.crs is None:
        raise GridError("the outlines have no CRS: set one with set_crs()")
    if outlines.crs.is_geographic:
        raise GridError(
            f"the outlines are in {outlines.crs}: reproject to metres, outlines.to_crs(outlines.estimate_utm_crs())"
        )
    years = outlines["year"].to_numpy() if "year" in outlines else np.zeros(len(outlines), np.int64)
    shape = shapely.make_valid(shapely.force_2d(outlines.geometry.to_numpy()))
    frame = gpd.GeoDataFrame({"year": years}, geometry=[polygons_of(one) for one in shape], crs=outlines.crs)
    frame = frame[~frame.geometry.is_empty].reset_index(drop=True)
    frame.attrs["has_year"] = "year" in outlines
    return frame


def polygons_of(geometry: Any) -> Any:
    """Return the polygons of a geometry, without lines and points."""
    parts = shapely.get_parts(shapely.get_parts(geometry))
    parts = parts[shapely.get_type_id(parts) == shapely.GeometryType.POLYGON]
    return parts[0] if len(parts) == 1 else shapely.MultiPolygon(list(parts))


#: heights on Earth, with room for geoid and errors, m
_LOWEST, _HIGHEST = -1000.0, 9500.0


def checked_dem(dem: xr.DataArray) -> xr.DataArray:
    """Return the DEM as float with NaN in its voids."""
    dem = dem.squeeze(drop=True)
    if dem.ndim != 2 or dem.odc.crs is None or not isinstance(dem.odc.geobox, GeoBox):
        raise SchemaError(
            f"the DEM has dims {dem.dims}: give (y, x) on a regular grid with a CRS, dem.odc.assign_crs()"
        )
    nodata = dem.odc.nodata
    kind = np.result_type(dem.dtype, np.float32)
    ground = dem.astype(kind)
    if nodata is not None and not np.isnan(nodata):
        ground = ground.where(dem != nodata)
    least, most = (float(one.compute()) for one in (ground.min(), ground.max())) if ground.size else (0.0, 0.0)
    if least < _LOWEST or most > _HIGHEST:
        raise InputError(
            f"the DEM holds heights from {least:g} to {most:g} m, the Earth's are {_LOWEST:g} to {_HIGHEST:g}: declare "
            "its nodata value, dem.odc.nodata or dem.where(), and apply its scale"
        )
    ground.attrs = {}
    return ground.drop_encoding()


def no_inventory(crs: Any) -> gpd.GeoDataFrame:
    """Return an inventory without glaciers."""
    return gpd.GeoDataFrame({"glacier_id": np.empty(0, object)}, geometry=gpd.GeoSeries([], crs=crs))


def checked_inventory(earlier: gpd.GeoDataFrame, id_column: str | None, crs: Any) -> gpd.GeoDataFrame:
    """Return ids and repaired geometry of an inventory in a CRS."""
    if earlier.crs is None:
        raise InputError("the earlier inventory has no CRS: set one with set_crs()")
    column = id_column or next((name for name in ID_COLUMNS if name in earlier), None)
    if column is None or column not in earlier:
        raise InputError(
            f"the earlier inventory has no column {column or ' or '.join(ID_COLUMNS)}: "
            "name the column of its ids by id_column="
        )
    if earlier[column].isna().any():
        raise InputError(f"the earlier inventory has rows without {column}: every glacier needs an id")
    shape = shapely.make_valid(shapely.force_2d(earlier.to_crs(crs).geometry.to_numpy()))
    ids = earlier[column].astype(str).to_numpy(object)
    frame = gpd.GeoDataFrame({"glacier_id": ids}, geometry=[polygons_of(one) for one in shape], crs=crs)
    # several rows of one glacier, such as its years, are one glacier
    return frame[~frame.geometry.is_empty].dissolve("glacier_id", sort=False).reset_index()


def taken_ids(earlier: gpd.GeoDataFrame) -> set[str]:
    """Return all ids of the form that new glaciers get, whichever column of an inventory they stand in."""
    taken: set[str] = set()
    for name in earlier.columns[earlier.columns != earlier.geometry.name]:
        if not pd.api.types.is_numeric_dtype(earlier[name]):
            taken |= {one for one in earlier[name] if isinstance(one, str) and _NEW_ID.fullmatch(one)}
    return taken


def complexes(
    frame: gpd.GeoDataFrame, inventory: gpd.GeoDataFrame, reach: float
) -> Iterator[tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]]:
    """Yield outlines that touch, directly or through others or an earlier glacier, with those earlier glaciers."""
    shape = np.concatenate([frame.geometry, inventory.geometry])
    one, other = shapely.STRtree(shape).query(shape, predicate="dwithin", distance=reach)
    graph = coo_array((np.ones(len(one)), (one, other)), (len(shape), len(shape)))
    group = connected_components(graph, directed=False)[1]
    ice, old = group[: len(frame)], group[len(frame) :]
    for number in np.unique(ice):
        yield frame[ice == number].reset_index(drop=True), inventory[old == number].reset_index(drop=True)
