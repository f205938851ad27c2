"""Sums of maps over polygons, each pixel by its covered fraction, and over bands of elevation.

Below the stages: `area` and `glacier_area` both start here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import shapely
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.arealscale import GroundWeights, ground_areas
from icemap_xr.blocktable import Chunk, reduce_chunks
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.blocks import label_sums
from icemap_xr.kernels.coverage import Piece, Rings, coverage_sums

REGION = "region"
#: edges of polygons in another CRS are cut into parts of this share of their extent
_EDGE_PARTS = 1000
#: heights of ground and sea floor, m, and numbers inside that stand for nodata
_HEIGHTS, _NO_HEIGHTS = (-12_000.0, 9_000.0), (-9999.0, -9998.0)
Part = tuple[int, tuple[int, ...], NDArray[np.float64]]


def read_regions(by: gpd.GeoDataFrame, grid: RegionGrid) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels and polygons; the polygons in pixels from the map's upper left corner, rows downwards.

    Raises
    ------
    InputError
        `by` is empty, has no CRS, invalid or no polygons, repeated names, or lies wholly off the map.
    """
    labels, shapes = checked_polygons(by, grid, "by", "name")
    rows, columns = grid.shape
    polygons = to_pixels(shapes, grid)
    if not shapely.intersects(polygons, shapely.box(0, 0, columns, rows)).any():
        raise InputError(f"no polygon of by touches the map ({extent_in_words(grid)}): check its CRS")
    return labels, polygons


def checked_polygons(
    by: gpd.GeoDataFrame, grid: RegionGrid, what: str, column: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return labels (a column, or the index) and valid polygons in the map's CRS."""
    if not isinstance(by, gpd.GeoDataFrame):
        raise InputError(f"{what} is a {type(by).__name__}: give a GeoDataFrame of polygons")
    if not len(by):
        raise InputError(f"{what} has no rows: give at least one polygon")
    # a frame without a geometry column raises AttributeError on every spatial attribute
    if getattr(by, "crs", None) is None:
        raise InputError(f"{what} has no geometry or no CRS: set them with .set_geometry(...).set_crs('EPSG:...')")
    labels = by[column] if column in by.columns else by.index.to_series()
    if labels.isna().any() or labels.duplicated().any():
        first = labels[labels.isna() | labels.duplicated()].iloc[0]
        raise InputError(f"region '{first}' is missing or repeated: give each polygon its own name, or drop the column")
    shapes = shapely.force_2d(_in_crs(by.geometry, grid.crs).to_numpy())
    kinds = shapely.get_type_id(shapes)  # 3 polygon, 6 multi-polygon, -1 missing
    bad = ~np.isin(kinds, (3, 6)) | shapely.is_empty(shapes)
    if bad.any():
        kind = getattr(shapes[bad][0], "geom_type", None)
        raise InputError(f"region '{labels.iloc[int(bad.argmax())]}' is no polygon ({kind}): drop or repair it")
    bad = ~shapely.is_valid(shapes)
    if bad.any():
        reason = shapely.is_valid_reason(shapes[bad][0])
        raise InputError(
            f"region '{labels.iloc[int(bad.argmax())]}' is invalid in {pyproj.CRS(grid.crs).name} ({reason}): "
            "repair it (make_valid)"
        )
    return np.asarray(labels), shapes


def _in_crs(shapes: gpd.GeoSeries, crs: str) -> gpd.GeoSeries:
    """Project polygons, whose edges stay where they are: straight in their own CRS, they are curved in another."""
    west, south, east, north = shapes.total_bounds
    extent = max(east - west, north - south)
    if shapes.crs != pyproj.CRS(crs) and np.isfinite(extent) and extent > 0:
        shapes = shapes.segmentize(extent / _EDGE_PARTS)
    return shapes.to_crs(crs)


def extent_in_words(grid: RegionGrid) -> str:
    """Return where a map lies, for messages."""
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    return f"x {left:.0f} to {right:.0f}, y {bottom:.0f} to {top:.0f} in {pyproj.CRS(grid.crs).name}"


def to_pixels(shapes: NDArray[Any], grid: RegionGrid) -> NDArray[Any]:
    """Return shapes in pixels from the map's upper left corner, rows downwards."""
    transform = grid.geobox.transform
    origin = np.array([transform.c, transform.f])
    moved: NDArray[Any] = shapely.transform(shapes, lambda xy: (xy - origin) / (transform.a, transform.e))
    return moved


def true_areas(polygons: NDArray[Any], grid: RegionGrid) -> NDArray[np.float64]:
    """Return the area of polygons (in pixels of the grid) on the ellipsoid, in planar pixels."""
    transform = grid.geobox.transform
    scale, origin = (transform.a, transform.e), (transform.c, transform.f)
    on_map = shapely.transform(polygons, lambda xy: xy * scale + origin)
    return ground_areas(on_map, grid.crs) / grid.resolution**2


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


def cut_to_blocks(
    polygons: NDArray[Any], grid: RegionGrid, block_px: int
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Cut polygons at the edges of blocks that are anchored to the region's origin.

    Parameters
    ----------
    polygons
        In pixels from the map's upper left corner.
    grid
        The map's grid; what lies off the map is left out.
    block_px
        Block side in pixels.

    Returns
    -------
    areas, owner, places
        Of each piece its area in pixels, the polygon it is from, and row and column of its block, `(piece, 2)`. The
        pieces themselves are not kept: there may be millions.
    """
    (top, left), (rows, columns) = grid.offset, grid.shape
    strips = [(0, a, columns, b) for a, b in pairwise(_edges(top, rows, block_px))]
    stripes = [(a, 0, b, rows) for a, b in pairwise(_edges(left, columns, block_px))]
    trees = [shapely.STRtree(np.asarray(shapely.box(*np.array(one, float).T), object)) for one in (strips, stripes)]
    areas, owner, places = [np.empty(0)], [np.empty(0, np.intp)], [np.empty((0, 2), np.intp)]
    for number, polygon in enumerate(polygons):
        # rows first: the strips are then cheap to cut again
        across, _, row = _cut(np.array([polygon], object), trees[0])
        pieces, strip, column = _cut(across, trees[1])
        areas.append(shapely.area(pieces))
        owner.append(np.full(len(pieces), number, np.intp))
        places.append(np.column_stack([row[strip] + top // block_px, column + left // block_px]))
    return np.concatenate(areas), np.concatenate(owner), np.concatenate(places)


def _cut(shapes: NDArray[Any], tree: shapely.STRtree) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Return the pieces of shapes inside the windows of a tree, and of which shape and window each is."""
    of, at = tree.query(shapes, predicate="intersects")
    found = shapely.intersection(shapes[of], tree.geometries[at])
    kept = shapely.area(found) > 0
    return found[kept], of[kept], at[kept]


def _edges(start: int, count: int, block_px: int) -> list[int]:
    """Return where blocks begin and end inside a run of pixels."""
    inner = range(-(start % block_px) + block_px, count, block_px)
    return [0, *inner, count]


def _window(weights: GroundWeights | None, at: tuple[int, int, int, int]) -> NDArray[np.float64] | None:
    return None if weights is None else weights.window(*at)


def _sum_chunk(
    values: NDArray[Any],
    *,
    at: Chunk,
    pieces: Sequence[Piece],
    threshold: float | None,
    weights: GroundWeights | None,
) -> Part:
    ground = _window(weights, (*at.start[1:], *at.shape[1:])) if pieces else None
    return at.start[0], tuple(piece.region for piece in pieces), coverage_sums(values, pieces, threshold, ground)


def _add_parts(parts: Sequence[Part], *, shape: tuple[int, int, int]) -> NDArray[np.float64]:
    table = np.zeros(shape)
    for year, regions, sums in parts:
        table[:, year : year + sums.shape[1], list(regions)] += sums
    return table


def region_sums(
    array: xr.DataArray, polygons: NDArray[Any], threshold: float | None, weights: GroundWeights | None = None
) -> Any:
    """Return `(2, year, region)`, lazy where the array is: ice and observed pixels in each polygon.

    Parameters
    ----------
    array
        Probability `(year, y, x)`, 0..1, NaN where nothing was observed.
    polygons
        In pixels from the array's upper left corner.
    threshold
        None for the sum of probability, else the count of pixels above it.
    weights
        Ground area of the pixels; None for planar.
    """
    pieces_in = cache(partial(_pieces, shapely.STRtree(polygons)))  # clipped once for all years

    def chunk_task(chunk: Chunk) -> Callable[[NDArray[Any]], Part]:
        pieces = pieces_in(*chunk.start[1:], *chunk.shape[1:])
        return partial(_sum_chunk, at=chunk, pieces=pieces, threshold=threshold, weights=weights)

    shape = (2, array.shape[0], len(polygons))
    return reduce_chunks(array.data, chunk_task, partial(_add_parts, shape=shape), shape, "region-sums")


def _sum_labels(
    values: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    *,
    at: Chunk,
    count: int,
    threshold: float | None,
    weights: GroundWeights | None,
) -> tuple[int, NDArray[np.float64]]:
    ground = _window(weights, (*at.start[1:], *at.shape[1:]))
    return at.start[0], label_sums(values, labels, count, threshold, ground)


def _add_labels(
    parts: Sequence[tuple[int, NDArray[np.float64]]], *, shape: tuple[int, int, int]
) -> NDArray[np.float64]:
    table = np.zeros(shape)
    for year, sums in parts:
        table[:, year : year + sums.shape[1]] += sums
    return table


def sums_by_label(
    array: xr.DataArray,
    labels: Any,
    count: int,
    threshold: float | None = None,
    weights: GroundWeights | None = None,
) -> Any:
    """Return `(2, year, label)`, lazy where the array is: ice and observed pixels of each label.

    Parameters
    ----------
    array
        Probability `(year, y, x)`, 0..1, NaN where nothing was observed.
    labels
        Integer labels `(y, x)` from 0, NumPy or Dask; pixels of label `count` belong to none and come last.
    count
        Number of labels.
    threshold, weights
        As in `region_sums`.
    """
    shape = (2, array.shape[0], count + 1)
    if not isinstance(array.data, da.Array):
        years, rows, columns = array.shape
        whole = Chunk((0, 0, 0), (years, rows, columns))
        part = _sum_labels(array.data, np.asarray(labels), at=whole, count=count, threshold=threshold, weights=weights)
        return _add_labels([part], shape=shape)
    beside = da.asarray(labels).rechunk(array.data.chunks[1:])

    def chunk_task(chunk: Chunk) -> Callable[..., tuple[int, NDArray[np.float64]]]:
        return partial(_sum_labels, at=chunk, count=count, threshold=threshold, weights=weights)

    combine = partial(_add_labels, shape=shape)
    return reduce_chunks(array.data, chunk_task, combine, shape, "label-sums", beside=beside)


def band_labels(dem: xr.DataArray, like: xr.DataArray, band_m: float) -> tuple[Any, NDArray[np.float64], bool]:
    """Return the elevation band of each pixel, the lower edges of the bands, and whether some elevation is unknown.

    Pixels of unknown elevation have the label after the last band.

    Parameters
    ----------
    dem
        Elevation `(y, x)` in metres on the map's own grid, NaN where unknown. It is read once for its range.
    like
        The map.
    band_m
        Height of a band in metres; bands begin at multiples of it.

    Raises
    ------
    InputError
        The elevation is not on the map's grid, has no known pixel or heights that no place has (nodata that was not
        masked), or the height of a band is not allowed.
    """
    if not isinstance(dem, xr.DataArray) or set(dem.dims) != {schema.Y, schema.X}:
        raise InputError("by='elevation' needs dem=, a DataArray (y, x) of elevation in metres on the map's grid")
    if isinstance(band_m, bool) or not 0 < band_m < np.inf:
        raise InputError(f"band_m {band_m!r} is not allowed: give the height of a band in metres, for example 50")
    dem = dem.transpose(schema.Y, schema.X)
    if not same_grid(dem, like):
        raise InputError("the elevation is on another grid than the map: reproject it first, dem.odc.reproject(...)")
    heights: Any = dem.data
    finite = da.isfinite(heights) if isinstance(heights, da.Array) else np.isfinite(heights)
    known = dem.where(finite)
    found = xr.Dataset({"low": known.min(), "high": known.max(), "gap": known.isnull().any()}).compute()
    low, high, gap = float(found["low"]), float(found["high"]), bool(found["gap"])
    if not np.isfinite(low):
        raise InputError("the elevation is unknown everywhere: give a dem that covers the map")
    if low < _HEIGHTS[0] or high > _HEIGHTS[1] or low in _NO_HEIGHTS:
        raise InputError(
            f"the elevation goes from {low:g} to {high:g} m: mask its nodata value to NaN, dem.where(dem != {low:g})"
        )
    first, last = int(np.floor(low / band_m)), int(np.floor(high / band_m))
    count = last - first + 1
    kernel: Any = partial(_bands, first=first, count=count, band_m=float(band_m))
    edges = np.asarray((first + np.arange(count)) * float(band_m), np.float64)
    if isinstance(heights, da.Array):
        labels: Any = heights
        return labels.map_blocks(kernel, dtype=np.int32, meta=np.empty((0, 0), np.int32)), edges, gap
    return kernel(np.asarray(heights)), edges, gap


def same_grid(array: xr.DataArray, like: xr.DataArray) -> bool:
    """Whether an array `(y, x)` has the pixels of a map `(year, y, x)`, to a hundredth of a pixel."""
    if array.shape != like.shape[1:]:
        return False
    return all(
        axis in array.coords and np.allclose(array[axis], like[axis], rtol=0, atol=0.01 * abs(_step(like[axis])))
        for axis in (schema.Y, schema.X)
    )


def _bands(heights: NDArray[Any], *, first: int, count: int, band_m: float) -> NDArray[np.int32]:
    known = np.isfinite(heights)
    band = np.floor(np.where(known, heights, 0).astype(np.float64) / band_m) - first
    return np.where(known, band, count).astype(np.int32)


def _step(axis: xr.DataArray) -> float:
    return float(axis[1] - axis[0]) if axis.size > 1 else 1.0
