"""Glacier outlines from probability maps of any size, without seams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import uuid4

import geopandas as gpd
import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.polygons import block_corners, geometries, seam_corners, trace
from icemap_xr.kernels.runs import Runs, block_runs, polygon_means
from icemap_xr.types import FloatArray

#: chunk side in pixels by which a raster that is not chunked is worked through
_BLOCK = 2048


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

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold {self.threshold} is not allowed: give a probability, 0 <= threshold < 1")
        if self.connectivity not in (4, 8):
            raise InputError(
                f"connectivity {self.connectivity!r} is not allowed: give 4 (sides) or 8 (sides and corners)"
            )
        if not 0 <= self.min_area_km2 < math.inf:
            raise InputError(f"min_area_km2 {self.min_area_km2} is not allowed: give an area >= 0 in km2")


def outlines(
    ds: xr.Dataset,
    *,
    threshold: float = 0.5,
    connectivity: int = 4,
    min_area_km2: float = 0.0,
    variable: str | None = None,
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
        Outlines of a smaller area, in km2, are left out.
    variable
        Variable to outline; "probability" by default, also where "calibrated" is present.

    Returns
    -------
    geopandas.GeoDataFrame
        In the CRS of `ds`, one row per glacier, by year, then by the first pixel row by row: `year` (int64), `area_km2`
        (float64, planar), `mean_probability` (float64, of the variable) and `geometry` (valid; exteriors
        counter-clockwise, holes kept; no collinear vertices). No glacier gives no rows.

    Raises
    ------
    InputError
        An option is not allowed.
    SchemaError
        The variable, its dims or the CRS are missing or wrong.
    GridError
        The grid is rotated, geographic, or its pixels are not square.
    """
    options = OutlineOptions(threshold, connectivity, min_area_km2, variable or schema.PROBABILITY)
    array = schema.validate_maps(ds, "outlines", options.variable)
    grid = RegionGrid.from_dataset(ds[[options.variable]])
    if not array.chunks:
        # a token of its own keeps Dask from hashing the whole raster
        array = array.chunk({schema.YEAR: 1, schema.Y: _BLOCK, schema.X: _BLOCK}, token=uuid4().hex)
    by_year = _blocks(array.data, options.threshold)
    parts = [_outline_year(blocks, grid, options) for blocks in by_year]
    counts = [len(part.geometry) for part in parts]
    columns = {
        "year": np.repeat(ds[schema.YEAR].values.astype(np.int64), counts),
        "area_km2": np.concatenate([np.empty(0), *(part.area_km2 for part in parts)]),
        "mean_probability": np.concatenate([np.empty(0), *(part.mean for part in parts)]),
    }
    geometry = np.concatenate([np.empty(0, object), *(part.geometry for part in parts)])
    return gpd.GeoDataFrame(columns, geometry=gpd.GeoSeries(geometry, crs=grid.crs))


@dataclass(frozen=True)
class _Block:
    """What the outlines need to know of one chunk in one year: its corners, its runs and its rim of pixels."""

    corners: NDArray[np.int64]
    runs: Runs
    top: NDArray[np.bool_]
    bottom: NDArray[np.bool_]
    left: NDArray[np.bool_]
    right: NDArray[np.bool_]


def _read_block(values: NDArray[Any], row: int, column: int, width: int, threshold: float) -> list[_Block]:
    """Return what is needed of a chunk `(year, y, x)`, for each of its years."""
    out = []
    for layer in np.asarray(values):
        mask = layer > threshold
        runs = block_runs(mask, layer, row, column, width)
        corners = block_corners(mask, row, column, width)
        # copies, so that the chunk itself can be freed
        out.append(_Block(corners, runs, mask[0].copy(), mask[-1].copy(), mask[:, 0].copy(), mask[:, -1].copy()))
    return out


@dataclass(frozen=True)
class _YearBlocks:
    """All chunks of one year, row by row, and where they start."""

    blocks: Sequence[_Block]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def _blocks(data: Any, threshold: float) -> list[_YearBlocks]:
    """Compute the corners and rims of all chunks, and sort them by year."""
    bounds = [np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64) for sizes in data.chunks]
    _, rows, columns = bounds
    width = int(columns[-1])
    read = delayed(_read_block, pure=False)
    chunks = data.to_delayed()
    places = list(product(range(len(rows) - 1), range(len(columns) - 1)))
    # one call for all years: what years share upstream (a filter over time) is then computed once
    tasks = [
        [read(chunks[year][i, j], int(rows[i]), int(columns[j]), width, threshold) for i, j in places]
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


def _outline_year(year: _YearBlocks, grid: RegionGrid, options: OutlineOptions) -> _YearOutlines:
    shape = grid.shape
    corners = np.concatenate([_seams(year), *(block.corners for block in year.blocks)])
    polygons = trace(corners, shape, options.connectivity)
    runs = Runs(
        np.concatenate([block.runs.start for block in year.blocks]),
        np.concatenate([block.runs.length for block in year.blocks]),
        np.concatenate([block.runs.total for block in year.blocks]),
    )
    means = polygon_means(runs, polygons, shape[1])
    first, member = np.unique(polygons.group, return_inverse=True)
    pixels = np.bincount(member, polygons.pixels, len(first))
    mean = np.bincount(member, means * polygons.pixels, len(first)) / pixels
    area_km2 = pixels * grid.pixel_area_km2
    keep = area_km2 >= options.min_area_km2
    geometry = geometries(polygons, tuple(grid.geobox.transform), keep[member])
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
