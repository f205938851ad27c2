"""Ice area per year, of a whole map or per polygon, with what was not observed beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.blocktable import Chunk, block_table, choose_map, reduce_chunks
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.coverage import Piece, Rings, coverage_sums

REGION = "region"
Part = tuple[int, tuple[int, ...], NDArray[np.float64]]


def area(
    ds: xr.Dataset, *, by: gpd.GeoDataFrame | None = None, method: str = "soft", threshold: float = 0.5
) -> xr.Dataset:
    """Sum yearly maps to ice area.

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)`, NaN where nothing was
        observed, and a CRS in metres.
    by
        Polygons, in any CRS, to sum separately; overlapping ones are independent. Each pixel counts by the fraction
        a polygon covers, exact to rounding (relative error below 1e-9); edges are straight in the map's CRS between
        the polygon's vertices.
    method
        ``"soft"``: sum of probability. ``"hard"``: pixels with probability > `threshold`.
    threshold
        Probability, for ``"hard"``.

    Returns
    -------
    xarray.Dataset
        `area_km2`, `observed_km2` and `unobserved_km2` `(year[, region])` float64, planar km2, lazy where the map is.
        `region` holds the column `name` of `by`, or its index. `area_km2` is the ice in the observed part only, and
        NaN where nothing was observed: a year without data, a polygon off the map. Unobserved is the map's extent, or
        the polygon's whole area, less what was observed.

    Warns
    -----
    UncalibratedWarning
        ``"soft"`` without `calibrated`.

    Raises
    ------
    InputError
        A wrong option; `by` is empty, has no CRS, invalid or no polygons, repeated names, or lies wholly off the map.
    SchemaError
        The map or its CRS is missing.
    """
    array, calibrated = choose_map(ds, method, threshold, "area")
    grid = RegionGrid.from_dataset(ds)
    cut = threshold if method == "hard" else None
    attrs: dict[str, Any] = {"area_kind": "planar", "method": method, "calibrated": calibrated}
    if cut is not None:
        attrs["threshold"] = cut
    coords: dict[str, Any] = {schema.YEAR: array[schema.YEAR].variable}
    if by is None:
        dims: tuple[str, ...] = (schema.YEAR,)
        # one block per map: the table is then as small as it can be
        table = block_table(array, grid, max(grid.region_shape), threshold=cut).sum(("block_y", "block_x"))
        ice, observed = table["ice_km2"].data, table["observed_km2"].data
        extent: Any = np.prod(grid.shape) * grid.pixel_area_km2
    else:
        dims = (schema.YEAR, REGION)
        labels, polygons = _read_regions(by, grid)
        sums = _region_sums(array, polygons, cut) * grid.pixel_area_km2
        ice, observed = sums[0], sums[1]
        extent = shapely.area(polygons) * grid.pixel_area_km2
        coords[REGION] = (REGION, labels)
    unobserved = extent - observed
    # a sum over pixels and a polygon's own area differ by rounding, which is no unobserved ground
    unobserved = unobserved * (unobserved > 1e-9 * extent)
    seen = xr.DataArray(observed, dims=dims) > 0
    variables = {
        "area_km2": xr.DataArray(ice, dims=dims).where(seen),
        "observed_km2": xr.DataArray(observed, dims=dims),
        "unobserved_km2": xr.DataArray(unobserved, dims=dims),
    }
    named = {name: one.assign_attrs({"units": "km2", **attrs}) for name, one in variables.items()}
    return xr.Dataset(named, coords=coords, attrs=attrs)


def _read_regions(by: gpd.GeoDataFrame, grid: RegionGrid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels and polygons; the polygons in pixels from the map's upper left corner, rows downwards."""
    if not isinstance(by, gpd.GeoDataFrame):
        raise InputError(f"by is a {type(by).__name__}: give a GeoDataFrame of polygons")
    if not len(by):
        raise InputError("by has no rows: give at least one polygon")
    # a frame without a geometry column raises AttributeError on every spatial attribute
    if getattr(by, "crs", None) is None:
        raise InputError("by has no geometry or no CRS: set them with by.set_geometry(...).set_crs('EPSG:...')")
    labels = by["name"] if "name" in by.columns else by.index.to_series()
    if labels.isna().any() or labels.duplicated().any():
        first = labels[labels.isna() | labels.duplicated()].iloc[0]
        raise InputError(f"region '{first}' is missing or repeated: give each polygon its own name, or drop the column")
    shapes = shapely.force_2d(by.geometry.to_crs(grid.crs).to_numpy())
    kinds = shapely.get_type_id(shapes)  # 3 polygon, 6 multi-polygon, -1 missing
    bad = ~np.isin(kinds, (3, 6)) | shapely.is_empty(shapes)
    if bad.any():
        kind = getattr(shapes[bad][0], "geom_type", None)
        raise InputError(f"region '{labels.iloc[int(bad.argmax())]}' is no polygon ({kind}): drop or repair it")
    bad = ~shapely.is_valid(shapes)
    if bad.any():
        reason = shapely.is_valid_reason(shapes[bad][0])
        raise InputError(
            f"region '{labels.iloc[int(bad.argmax())]}' is invalid in {grid.crs} ({reason}): repair it (make_valid)"
        )
    transform = grid.geobox.transform
    origin = np.array([transform.c, transform.f])
    polygons = shapely.transform(shapes, lambda xy: (xy - origin) / (transform.a, transform.e))
    rows, columns = grid.shape
    if not shapely.intersects(polygons, shapely.box(0, 0, columns, rows)).any():
        raise InputError(f"no polygon of by touches the map ({grid.geobox.extent.boundingbox}): check its CRS")
    return np.asarray(labels), polygons


def _rings(shape: Any) -> Rings:
    """Return the oriented rings of a polygon or of the polygons in a collection."""
    parts = [part for part in shapely.get_parts(shape, return_index=False) if part.geom_type == "Polygon"]
    # clockwise in a frame whose rows count downwards is counter-clockwise on the map
    oriented = shapely.orient_polygons(np.asarray(parts, object), exterior_cw=True)
    return tuple(shapely.get_coordinates(ring) for ring in shapely.get_rings(oriented))


def _pieces(tree: shapely.STRtree, row: int, column: int, rows: int, columns: int) -> list[Piece]:
    """Clip the regions to one chunk."""
    window = shapely.box(column, row, column + columns, row + rows)
    found = np.sort(tree.query(window, predicate="intersects"))
    pieces = []
    for region, clipped in zip(found, shapely.intersection(tree.geometries[found], window), strict=True):
        if shapely.area(clipped) > 0:
            rings = tuple(ring - (column, row) for ring in _rings(clipped))
            pieces.append(Piece(int(region), rings))
    return pieces


def _sum_chunk(values: NDArray[Any], *, year: int, pieces: Sequence[Piece], threshold: float | None) -> Part:
    return year, tuple(piece.region for piece in pieces), coverage_sums(values, pieces, threshold)


def _add_parts(parts: Sequence[Part], *, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    table = np.zeros(shape)
    for year, regions, sums in parts:
        table[:, year : year + sums.shape[1], list(regions)] += sums
    return table


def _region_sums(array: xr.DataArray, polygons: NDArray[Any], threshold: float | None) -> Any:
    """Return `(2, year, region)`: ice and observed pixels."""
    pieces_in = cache(partial(_pieces, shapely.STRtree(polygons)))  # clipped once for all years

    def chunk_task(chunk: Chunk) -> Callable[[NDArray[Any]], Part]:
        pieces = pieces_in(*chunk.start[1:], *chunk.shape[1:])
        return partial(_sum_chunk, year=chunk.start[0], pieces=pieces, threshold=threshold)

    shape = (2, array.shape[0], len(polygons))
    return reduce_chunks(array.data, chunk_task, partial(_add_parts, shape=shape), shape, "region-sums")
