"""Glacier outlines from probability maps of any size, without seams."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any
from uuid import uuid4

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.cftables import OUTLINE_OPTIONS
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.holes import fill_enclosed, fill_holes, gaps
from icemap_xr.kernels.polygons import block_corners, geometries, seam_corners, trace
from icemap_xr.kernels.probabilities import check_probabilities
from icemap_xr.kernels.runs import Runs, block_runs, polygon_means
from icemap_xr.outlineareas import outline_intervals
from icemap_xr.types import FloatArray

#: chunk side in pixels by which a raster that is not chunked is worked through
_BLOCK = 2048
_SCENES = "source_scenes"


@dataclass(frozen=True)
class OutlineOptions:
    """Options of `outlines`, checked; see there.

    Raises
    ------
    InputError
        A value is not allowed.
    """

    threshold: float = 0.5
    connectivity: int = 4
    min_area_km2: float = 0.0
    variable: str = schema.PROBABILITY
    max_hole_km2: float = 0.0
    simplify_m: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold {self.threshold} is not allowed: give a probability, 0 <= threshold < 1")
        if self.connectivity not in (4, 8):
            raise InputError(
                f"connectivity {self.connectivity!r} is not allowed: give 4 (sides) or 8 (sides and corners)"
            )
        for name, unit in (("min_area_km2", "an area >= 0 in km2"), ("max_hole_km2", "an area >= 0 in km2")):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} is not allowed: give {unit}")
        _check_tolerance(self.simplify_m)


def _check_tolerance(tolerance: float) -> None:
    if not 0 <= tolerance < math.inf:
        raise InputError(f"simplify_m {tolerance} is not allowed: give a length >= 0 in metres")


def outlines(
    ds: xr.Dataset,
    *,
    threshold: float = 0.5,
    connectivity: int = 4,
    min_area_km2: float = 0.0,
    variable: str | None = None,
    max_hole_km2: float = 0.0,
    simplify_m: float = 0.0,
    edge_errors: Mapping[str, Any] | None = None,
) -> gpd.GeoDataFrame:
    """Polygonise yearly glacier maps exactly along their pixels.

    The polygons are those of the whole raster however it is chunked. Each chunk is read once and on its own; memory is
    that of the chunks in work and of the outlines.

    Parameters
    ----------
    ds
        Dataset with the variable `(year, y, x)`, 0..1, NaN where unobserved, on a north-up grid of square pixels in a
        projected CRS. NumPy, or Dask with any chunks.
    threshold
        A pixel is glacier where the value is greater than this. NaN is never glacier.
    connectivity
        4 joins pixels that share a side: each polygon is a Polygon. 8 also joins those that share only a corner: such a
        glacier is a MultiPolygon of its side-connected parts, because a Polygon pinched at a corner would be invalid.
    min_area_km2
        Outlines of a smaller area, in km2, are left out; one of exactly this area stays.
    variable
        Variable to outline; "probability" by default, also where "calibrated" is present.
    max_hole_km2
        Holes of at most this area, in km2, are filled, before `min_area_km2` is applied; outlines inside them become
        part of the one around. Their pixels count in `area_km2` and not in `mean_probability`. A hole in which any
        pixel was not observed stays one, as ground without an observation is never glacier. With 8 for `connectivity` a
        hole is also what a glacier encloses through corners alone; glaciers in it that touch its rim at a corner are
        part of the one around already, and do not count in its area.
    simplify_m
        Smooth the pixel steps away, to about this length in metres; see `simplify`. Two pixels are a good choice.
    edge_errors
        Errors of the ice edge on regions that the model has never seen, from
        `icemap_xr.glacierareas.held_out_edge_errors` with ``method="hard"`` and this threshold: adds mapping intervals.

    Returns
    -------
    geopandas.GeoDataFrame
        In the CRS of `ds`, one row per glacier, by year, then by the first pixel row by row: `year` (int64), `area_km2`
        (float64, planar), `mean_probability` (float64, of the variable) and `geometry` (valid; exteriors
        counter-clockwise, holes kept; no collinear vertices). No glacier gives no rows. With `edge_errors` also
        `mapping_low_km2` and `mapping_high_km2`: the 95 % mapping interval of the true area, from the pixels, also
        where they are smoothed (`icemap_xr.outlineareas`). With `simplify_m` also `simplified_km2`; where `ds` has a
        coordinate `source_scenes (year)`, such as `icemap_xr.inventory.source_scenes` makes it, also that. Its
        `attrs["outline_options"]` are the options, which an archive keeps.

    Raises
    ------
    InputError
        An option is not allowed, a value lies outside 0..1, or the edge errors cannot be used.
    SchemaError
        The variable, its dims or the CRS are missing or wrong.
    GridError
        The grid is rotated, geographic, or its pixels are not square.
    """
    name = variable or schema.PROBABILITY
    options = OutlineOptions(threshold, connectivity, min_area_km2, name, max_hole_km2, simplify_m)
    array = schema.validate_maps(ds, "outlines", options.variable)
    grid = RegionGrid.from_dataset(ds[[options.variable]])
    if not array.chunks:
        # a token of its own keeps Dask from hashing the whole raster
        array = array.chunk({schema.YEAR: 1, schema.Y: _BLOCK, schema.X: _BLOCK}, token=uuid4().hex)
    most = math.floor(options.max_hole_km2 / grid.pixel_area_km2 + 1e-6)
    by_year = _blocks(array.data, options.threshold, most)
    parts = [_outline_year(blocks, grid, options, most) for blocks in by_year]
    counts = [len(part.geometry) for part in parts]
    columns = {
        "year": np.repeat(ds[schema.YEAR].values.astype(np.int64), counts),
        "area_km2": np.concatenate([np.empty(0), *(part.area_km2 for part in parts)]),
        "mean_probability": np.concatenate([np.empty(0), *(part.mean for part in parts)]),
    }
    geometry = np.concatenate([np.empty(0, object), *(part.geometry for part in parts)])
    if edge_errors is not None:
        bounds = outline_intervals(geometry, columns["area_km2"], columns["year"], edge_errors, options.threshold)
        columns["mapping_low_km2"], columns["mapping_high_km2"] = bounds.T
    if _SCENES in ds.coords and ds[_SCENES].dims == (schema.YEAR,):
        columns[_SCENES] = np.repeat(ds[_SCENES].values.astype(object), counts)
    frame = gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(geometry, crs=grid.crs))
    out = simplify(frame, simplify_m) if simplify_m else frame
    out.attrs[OUTLINE_OPTIONS] = asdict(options)
    return out


def simplify(outlines: gpd.GeoDataFrame, tolerance: float) -> gpd.GeoDataFrame:
    """Simplify outlines or glaciers so that borders they share stay shared: no gap and no overlap appears.

    Visvalingam and Whyatt's algorithm on the edges of the coverage of each year (GEOS, `shapely.coverage_simplify`).

    Parameters
    ----------
    outlines
        Polygons that do not overlap in a year (column `year`, if there are several), in a CRS in metres.
    tolerance
        Corners go whose triangle with their neighbours is smaller than the square of this length, m.

    Returns
    -------
    geopandas.GeoDataFrame
        The same rows with `area_km2` of the new geometries and `simplified_km2`: by how much that differs from the area
        before.

    Raises
    ------
    InputError
        The tolerance is negative, or polygons overlap.
    """
    _check_tolerance(tolerance)
    shape = outlines.geometry.to_numpy().copy()
    years = outlines[schema.YEAR].to_numpy() if schema.YEAR in outlines else np.zeros(len(shape))
    before = shapely.area(shape) / 1e6
    for year in np.unique(years):
        rows = np.flatnonzero(years == year)
        if not shapely.coverage_is_valid(shape[rows]):
            raise InputError(
                f"outlines of {year} overlap or their borders do not meet: simplify each of them by itself"
            )
        shape[rows] = shapely.coverage_simplify(shape[rows], tolerance)
    area = shapely.area(shape) / 1e6
    frame: gpd.GeoDataFrame = outlines.set_geometry(gpd.GeoSeries(shape, index=outlines.index, crs=outlines.crs))
    frame["area_km2"], frame["simplified_km2"] = area, area - before
    return frame[[name for name in frame if name != frame.geometry.name] + [frame.geometry.name]]


@dataclass(frozen=True)
class _Block:
    """What the outlines need to know of one chunk in one year: corners, runs, small gaps and the rim of pixels."""

    corners: NDArray[np.int64]
    runs: Runs
    gaps: NDArray[np.int64]
    top: NDArray[np.bool_]
    bottom: NDArray[np.bool_]
    left: NDArray[np.bool_]
    right: NDArray[np.bool_]


def _read_block(values: NDArray[Any], row: int, column: int, width: int, threshold: float, most: int) -> list[_Block]:
    """Return what is needed of a chunk `(year, y, x)`, for each of its years."""
    out = []
    for layer in np.asarray(values):
        check_probabilities(layer, "outlines")
        mask = layer > threshold
        runs = block_runs(mask, layer, row, column, width)
        corners = block_corners(mask, row, column, width)
        unseen = gaps(layer, row, column, width, most)
        # copies, so that the chunk itself can be freed
        rim = mask[0].copy(), mask[-1].copy(), mask[:, 0].copy(), mask[:, -1].copy()
        out.append(_Block(corners, runs, unseen, *rim))
    return out


@dataclass(frozen=True)
class _YearBlocks:
    """All chunks of one year, row by row, and where they start."""

    blocks: Sequence[_Block]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _blocks(data: Any, threshold: float, most: int) -> list[_YearBlocks]:
    """Compute the corners and rims of all chunks, and sort them by year."""
    bounds = [np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64) for sizes in data.chunks]
    _, rows, columns = bounds
    width = int(columns[-1])
    read = delayed(_read_block, pure=False)
    chunks = data.to_delayed()
    places = list(product(range(len(rows) - 1), range(len(columns) - 1)))
    # one call for all years: what years share upstream (a filter over time) is then computed once
    tasks = [
        [read(chunks[year][i, j], int(rows[i]), int(columns[j]), width, threshold, most) for i, j in places]
        for year in range(chunks.shape[0])
    ]
    (done,) = compute(tasks)
    return [
        _YearBlocks([block[year] for block in several], rows, columns)
        for several, years in zip(done, data.chunks[0], strict=True)
        for year in range(years)
    ]


@dataclass(frozen=True)
class _YearOutlines:
    area_km2: FloatArray
    mean: FloatArray
    geometry: NDArray[np.object_]


def _outline_year(year: _YearBlocks, grid: RegionGrid, options: OutlineOptions, most: int) -> _YearOutlines:
    shape = grid.shape
    corners = np.concatenate([_seams(year), *(block.corners for block in year.blocks)])
    polygons = trace(corners, shape, options.connectivity)
    runs = Runs(
        np.concatenate([block.runs.start for block in year.blocks]),
        np.concatenate([block.runs.length for block in year.blocks]),
        np.concatenate([block.runs.total for block in year.blocks]),
    )
    means, kept, filled = polygon_means(runs, polygons, shape[1]), np.ones(len(polygons.pixels), bool), polygons
    if most:
        unseen = np.concatenate([block.gaps for block in year.blocks])
        if options.connectivity == 8:
            filled, kept = fill_enclosed(corners, polygons, shape, most, unseen)
        else:
            filled, kept = fill_holes(polygons, most, unseen, shape[1])
    mapped = polygons.pixels[kept]
    first, member = np.unique(polygons.group[kept], return_inverse=True)
    mean = np.bincount(member, means[kept] * mapped, len(first)) / np.bincount(member, mapped, len(first))
    _, member = np.unique(filled.group, return_inverse=True)
    area_km2 = np.bincount(member, filled.pixels, len(first)) * grid.pixel_area_km2
    # in pixels, as 11 * 0.0009 is less than 0.0099
    keep = area_km2 / grid.pixel_area_km2 >= options.min_area_km2 / grid.pixel_area_km2 - 1e-6
    geometry = geometries(filled, tuple(grid.geobox.transform), keep[member])
    return _YearOutlines(area_km2[keep], mean[keep], geometry)


def _seams(year: _YearBlocks) -> NDArray[np.int64]:
    """Return the corners at the vertices between chunks."""
    across = len(year.columns) - 1
    lines = [year.blocks[i : i + across] for i in range(0, len(year.blocks), across)]
    top = np.stack([np.concatenate([block.top for block in line]) for line in lines])
    bottom = np.stack([np.concatenate([block.bottom for block in line]) for line in lines])
    left = np.stack([np.concatenate([line[j].left for line in lines]) for j in range(across)])
    right = np.stack([np.concatenate([line[j].right for line in lines]) for j in range(across)])
    return seam_corners(top, bottom, left, right, year.rows, year.columns)
