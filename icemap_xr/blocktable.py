"""Block table: sums of ice and of observed area per block and year, in one lazy pass.

Below the stages: `area` and `bootstrap_area` both start here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.arealscale import GroundWeights
from icemap_xr.errors import InputError, UncalibratedWarning, warn
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.blocks import BlockSums, block_sums
from icemap_xr.options import calendar_years, check_threshold

T = TypeVar("T")
_FACTS = ("calibrated", "calibrator", "calibrator_fitted_on", "temporal_filter")
BLOCK_Y, BLOCK_X, BLOCK = "block_y", "block_x", "block"


class Chunk(NamedTuple):
    """Where one chunk lies in its array: the first year, row and column, and its length along each."""

    start: tuple[int, int, int]
    shape: tuple[int, int, int]


def choose_map(ds: xr.Dataset, method: str, threshold: float, what: str) -> tuple[xr.DataArray, bool]:
    """Return the map to sum, and whether it is calibrated: `calibrated` where there is one, else `probability`.

    Parameters
    ----------
    ds
        Dataset with `probability` or `calibrated` `(year, y, x)` and a CRS.
    method
        ``"soft"`` or ``"hard"``; soft sums of uncalibrated probability warn.
    threshold
        Threshold of the hard method, in 0..1.
    what
        Name of the calling stage, for messages.

    Raises
    ------
    InputError
        `method` or `threshold` is not allowed.
    SchemaError
        The map or its CRS is missing.
    """
    if method not in ("soft", "hard"):
        raise InputError(f"method {method!r} is not allowed: give 'soft' (sum of probability) or 'hard' (threshold)")
    check_threshold(threshold)
    calibrated = schema.CALIBRATED in ds
    array = schema.validate_maps(ds, what, schema.CALIBRATED if calibrated else schema.PROBABILITY)
    calendar_years(array, what)
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{array.name!r} has dtype {array.dtype}, {what} needs a float: decode or convert it first")
    if method == "soft" and not calibrated:
        warn(
            f"{what} sums uncalibrated probabilities: the area is biased where the model is over- or "
            "under-confident; call .icemap.calibrate() first, or use method='hard'",
            UncalibratedWarning,
        )
    return array, calibrated


def facts_of(array: xr.DataArray, calibrated: bool) -> dict[str, Any]:
    """Return what a result has to say about the map it was summed from: calibration and temporal filter."""
    facts: dict[str, Any] = {"calibrated": calibrated}
    if "calibrator" in array.attrs:
        content = json.loads(array.attrs["calibrator"])
        facts |= {"calibrator": str(content.get("name", "")), "calibrator_fitted_on": str(content.get("fitted_on", ""))}
    if "temporal_filter" in array.attrs:
        facts["temporal_filter"] = array.attrs["temporal_filter"]
    return facts


def facts_kept(areas: xr.Dataset) -> dict[str, Any]:
    """Return what areas say of themselves that also holds for rates and changes made from them."""
    kept = {key: key for key in ("interval_kind", "area_kind", *_FACTS)}
    kept |= {"method": "area_method", "threshold": "area_threshold"}  # a trend has a method of its own
    return {name: areas.attrs[key] for key, name in kept.items() if key in areas.attrs}


def reduce_chunks(
    data: Any,
    chunk_task: Callable[[Chunk], Callable[..., T]],
    combine: Callable[[Sequence[T]], NDArray[np.float64]],
    shape: tuple[int, ...],
    name: str,
    *,
    beside: da.Array | None = None,
) -> Any:
    """Reduce a `(year, y, x)` array chunk by chunk to one small array.

    Parameters
    ----------
    data
        NumPy array (reduced at once, as a single chunk) or Dask array (one task per chunk and one that combines them;
        never rechunked).
    chunk_task
        Called with each `Chunk` while the graph is built; returns what is run on its values.
    combine
        Turns all partial results, in any order of chunks, into the result.
    shape
        Shape of the result, float64.
    name
        Prefix of the task names.
    beside
        Dask array `(y, x)` with the chunks of `data`, whose chunk each task gets as its second argument; only with a
        Dask array.

    Returns
    -------
    numpy.ndarray or dask.array.Array
        The same kind as `data`.
    """
    if not isinstance(data, da.Array):
        return combine([chunk_task(Chunk((0, 0, 0), data.shape))(np.asarray(data))])
    starts = [np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int).tolist() for sizes in data.chunks]
    tasks = {}
    for i in np.ndindex(*data.numblocks):
        sizes = tuple(int(data.chunks[axis][i[axis]]) for axis in range(3))
        if 0 not in sizes:
            year, row, column = (starts[axis][i[axis]] for axis in range(3))
            tasks[i] = chunk_task(Chunk((year, row, column), (sizes[0], sizes[1], sizes[2])))
    token = tokenize(data.name, list(tasks.items()), combine, shape, None if beside is None else beside.name)
    parts, whole = f"{name}-chunk-{token}", f"{name}-{token}"
    graph: dict[Any, Any] = {
        (parts, *i): (task, (data.name, *i), *(() if beside is None else ((beside.name, *i[1:]),)))
        for i, task in tasks.items()
    }
    graph[(whole, *(0 for _ in shape))] = (combine, list(graph))
    dependencies: list[Any] = (
        [data] if beside is None else [data, beside]
    )  # Dask's own array does not fit Dask's type of a collection
    layers = HighLevelGraph.from_collections(whole, graph, dependencies=dependencies)
    one_chunk = tuple((n,) for n in shape)
    return da.Array(layers, whole, chunks=one_chunk, dtype=np.float64)


def _sum_chunk(
    values: NDArray[Any],
    *,
    at: Chunk,
    offset: tuple[int, int],
    block: int,
    threshold: float | None,
    weights: GroundWeights | None,
) -> tuple[int, BlockSums]:
    ground = None if weights is None else weights.window(*at.start[1:], *at.shape[1:])
    return at.start[0], block_sums(values, offset, block, threshold, ground)


def _add_parts(
    parts: Sequence[tuple[int, BlockSums]], *, first: tuple[int, int], shape: tuple[int, int, int, int], scale: float
) -> NDArray[np.float64]:
    table = np.zeros(shape)
    for year, (begin, ice, observed) in parts:
        row, column = begin[0] - first[0], begin[1] - first[1]
        years, rows, columns = ice.shape
        at = np.s_[year : year + years, row : row + rows, column : column + columns]
        table[0][at] += ice
        table[1][at] += observed
    return table * scale


def block_table(
    probability: xr.DataArray,
    grid: RegionGrid,
    block_px: int,
    *,
    threshold: float | None = None,
    weights: GroundWeights | None = None,
) -> xr.Dataset:
    """Sum ice and observed area per block and year.

    Blocks are squares anchored to the origin of the region's grid, also for a crop of it; each pixel lies in exactly
    one block, and blocks at the region's far edges or at the edges of a crop are smaller. Only blocks that the array
    touches are in the table.

    Parameters
    ----------
    probability
        `(year, y, x)` floating, 0..1, NaN where nothing was observed.
    grid
        The array's grid.
    block_px
        Block side in pixels.
    threshold
        None to sum the probability (soft), else count pixels above it as ice (hard).
    weights
        Ground area of the pixels, for true areas; None for planar ones.

    Returns
    -------
    xarray.Dataset
        `ice_km2` and `observed_km2` `(year, block_y, block_x)` float64, km2; `block_y` and `block_x` are
        counted from the region's origin. Lazy for Dask input (one task per chunk and one more, whatever the
        chunks), eager otherwise; equal to 1e-12 for any chunking.

    Raises
    ------
    InputError
        `block_px` is below 1 or the grid is not the array's. Values outside 0..1 raise it when they are computed.
    """
    if block_px < 1:
        raise InputError(f"a block of {block_px} pixels is not allowed: give at least 1 pixel")
    if tuple(probability.shape[1:]) != grid.shape:
        raise InputError(f"the map has shape {probability.shape[1:]}, the grid {grid.shape}: give the map's own grid")
    (row, column), (rows, columns) = grid.offset, grid.shape
    first = (row // block_px, column // block_px)
    last = ((row + rows - 1) // block_px, (column + columns - 1) // block_px)
    shape = (2, probability.shape[0], last[0] - first[0] + 1, last[1] - first[1] + 1)

    def chunk_task(chunk: Chunk) -> Callable[[NDArray[Any]], tuple[int, BlockSums]]:
        offset = (row + chunk.start[1], column + chunk.start[2])
        return partial(_sum_chunk, at=chunk, offset=offset, block=block_px, threshold=threshold, weights=weights)

    combine = partial(_add_parts, first=first, shape=shape, scale=grid.pixel_area_km2)
    table = reduce_chunks(probability.data, chunk_task, combine, shape, "block-table")
    dims = (schema.YEAR, BLOCK_Y, BLOCK_X)
    return xr.Dataset(
        {
            "ice_km2": (dims, table[0], {"units": "km2", "long_name": "ice area in the block"}),
            "observed_km2": (dims, table[1], {"units": "km2", "long_name": "observed area in the block"}),
        },
        coords={
            schema.YEAR: probability[schema.YEAR].variable,
            BLOCK_Y: np.arange(first[0], last[0] + 1),
            BLOCK_X: np.arange(first[1], last[1] + 1),
        },
        attrs={"block_m": block_px * grid.resolution, "area_kind": "planar" if weights is None else "true"},
    )
