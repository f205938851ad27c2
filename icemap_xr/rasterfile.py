"""Rasters on any grid, read one block at a time: every kind of nodata becomes NaN before anything is resampled.

GDAL's datasets are not thread-safe, so a file is opened for each read.
"""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.exceptions import CRSError
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as project
from rasterio.windows import Window
from rasterio.windows import transform as window_transform

from icemap_xr.errors import GridError, InputError, ReadError
from icemap_xr.grid import RegionGrid
from icemap_xr.schema import Feature
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub

#: what lies beyond is undeclared fill, such as -9999, -999, -500 or 3.4e38; the published data reach from -146 dB to
#: 43.5 dB
_LOWEST_DB, _HIGHEST_DB = -200.0, 200.0
#: no coherence, in whatever scale, is this large
_FILL_FROM = 1000.0
#: coherence this far outside 0..1 is rounding
_COHERENCE_SLACK = 1e-3
#: error of the approximate projection in source pixels: so small that blocks fit together (GDAL's own choice is 0.125)
_TOLERANCE = 1e-5
#: grids whose pixels agree to this share of a pixel are one lattice
_SAME_PIXEL = 1e-3
#: points on each side of a block whose places in a file are looked up
_EDGE_POINTS = 33

_GDAL_ERRORS = (RasterioError, RasterioCRSError, CPLE_BaseError)


@dataclass(frozen=True)
class RasterFile:
    """Place and identity of a raster, as its header tells them.

    Parameters
    ----------
    path
        Absolute path, or a URL or `/vsi...` name as it was given.
    crs
        CRS as WKT.
    transform
        The six numbers of the affine transform.
    shape
        Rows and columns.
    stamp
        Size and time of change: a file that was written anew is another one.
    """

    path: str
    crs: str
    transform: tuple[float, ...]
    shape: tuple[int, int]
    stamp: tuple[int, int]


@dataclass(frozen=True)
class Placement:
    """How a raster lies on the grid.

    Parameters
    ----------
    file
        The raster.
    shift
        Row and column of the grid's corner in the raster where both have the same pixels, else None.
    scale
        Grid pixels per raster pixel along the raster's columns and rows, at most 1.
    """

    file: RasterFile
    shift: tuple[int, int] | None
    scale: tuple[float, float]


def read_header(path: StrPath) -> RasterFile:
    """Read the header of a geocoded raster.

    Raises
    ------
    ReadError
        The file does not exist or is no raster.
    InputError
        It is not geocoded, or complex.
    """
    name = os.fspath(path)
    if "://" not in name and not name.startswith("/vsi"):
        name = os.path.abspath(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(name) as src:
                crs, transform, shape, dtype = src.crs, src.transform, (src.height, src.width), src.dtypes[0]
                indirect = "only ground control points" if src.gcps[0] else "only RPCs" if src.rpcs else ""
    except _GDAL_ERRORS as error:
        fault = _first_line(error)
    else:
        if crs is None or transform.is_identity:
            lacks = indirect or ("no CRS" if crs is None else "no geotransform")
            raise InputError(f"{scrub(name)} has {lacks}: geocode it first (to a projected CRS, band 1 as float)")
        if "complex" in dtype:
            raise InputError(f"{scrub(name)} is complex ({dtype}): give backscatter in dB or coherence as float")
        return RasterFile(name, crs.to_wkt(), tuple(transform)[:6], shape, _stamp(name))
    raise ReadError(f"{scrub(name)} cannot be read as a raster ({fault}): check that it exists and is a GeoTIFF")


def clean(values: NDArray[Any], one: Feature, path: str) -> NDArray[np.float32]:
    """Turn undeclared nodata into NaN.

    Parameters
    ----------
    values
        Values in the feature's units.
    one
        The feature.
    path
        Name of the file, for the message.

    Raises
    ------
    InputError
        Coherence above 1.
    """
    low, high = (_LOWEST_DB, _HIGHEST_DB) if one.units == "dB" else (-_COHERENCE_SLACK, _FILL_FROM)
    valid = (values > low) & (values < high)
    out: NDArray[np.float32] = np.where(valid, values, np.float32(np.nan)).astype(np.float32)
    if one.units != "dB":
        top = np.max(out, where=valid, initial=0.0)
        if top > 1 + _COHERENCE_SLACK:
            raise InputError(f"{scrub(path)} has {one.name} up to {top:g}, allowed is 0..1: scale it to coherence")
        np.clip(out, 0, 1, out=out)
    return out


def grid_of(raster: RasterFile) -> RegionGrid:
    """Return a raster's own grid, or raise `GridError` where it cannot carry a map."""
    try:
        crs = rasterio.crs.CRS.from_wkt(raster.crs).to_string()
        return RegionGrid(GeoBox(raster.shape, Affine(*raster.transform), crs))
    except (GridError, CRSError, RasterioCRSError) as error:
        raise GridError(f"{scrub(raster.path)} cannot be the reference grid: {_first_line(error)}") from None


def _stamp(name: str) -> tuple[int, int]:
    """Return size and time of change; zeros for what is no plain file."""
    if not os.path.isfile(name):
        return (0, 0)
    status = os.stat(name)
    return (status.st_size, status.st_mtime_ns)


def place(raster: RasterFile, grid: RegionGrid) -> Placement:
    """Find how a raster lies on the grid; refuse one that does not overlap it."""
    try:
        footprint = _footprint(raster, grid.geobox, 0)
        scale = _scale(raster, grid.geobox)
    except _GDAL_ERRORS as error:
        raise InputError(
            f"{scrub(raster.path)} cannot be projected to {grid.crs} ({_first_line(error)}): reproject it first"
        ) from None
    if footprint is None:
        raise InputError(f"{scrub(raster.path)} does not overlap the grid: leave it out or choose another reference")
    return Placement(raster, _shift(raster, grid), scale)


def _shift(raster: RasterFile, grid: RegionGrid) -> tuple[int, int] | None:
    """Return where the grid's corner lies in the raster if both have the same pixels."""
    if rasterio.crs.CRS.from_wkt(raster.crs) != rasterio.crs.CRS.from_user_input(grid.crs):
        return None
    own, target = Affine(*raster.transform), grid.geobox.transform
    # over the whole grid, differences of pixel size add up
    drift = max(grid.shape) * max(abs(p - q) for p, q in zip(own[:2] + own[3:5], target[:2] + target[3:5], strict=True))
    column, row = (target.c - own.c) / target.a, (target.f - own.f) / target.e
    shift = (round(row), round(column))
    misfit = max(drift / grid.resolution, abs(row - shift[0]), abs(column - shift[1]))
    return shift if misfit < _SAME_PIXEL else None


def _pixels(raster: RasterFile, geobox: GeoBox, columns: Any, rows: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the raster's columns and rows at fractional columns and rows of a grid; not finite where undefined."""
    own, target = ~Affine(*raster.transform), geobox.transform
    xs = target.a * columns + target.b * rows + target.c
    ys = target.d * columns + target.e * rows + target.f
    there = [np.asarray(part) for part in project(str(geobox.crs), raster.crs, xs.tolist(), ys.tolist())]
    return own.a * there[0] + own.b * there[1] + own.c, own.d * there[0] + own.e * there[1] + own.f


def _scale(raster: RasterFile, geobox: GeoBox) -> tuple[float, float]:
    """Return grid pixels per raster pixel at the grid's centre, for GDAL's antialiasing.

    GDAL works it out for each piece it warps, which would show at the edges of blocks. As there, what is within 5 % of
    a whole ratio is that ratio.
    """
    row, column = (size / 2 for size in geobox.shape)
    columns, rows = _pixels(raster, geobox, np.array([column, column + 1, column]), np.array([row, row, row + 1]))
    scales = []
    for places in (columns, rows):
        ratio = max(1.0, float(np.abs(places[1] - places[0]) + np.abs(places[2] - places[0])))
        ratio = round(ratio) if abs(ratio - round(ratio)) < 0.05 else ratio
        scales.append(1.0 / ratio if math.isfinite(ratio) else 1.0)
    return scales[0], scales[1]


def _footprint(raster: RasterFile, geobox: GeoBox, margin: int) -> tuple[slice, slice] | None:
    """Return the rows and columns of a raster that a block of the grid lies on, or None."""
    along = np.linspace(0, 1, _EDGE_POINTS)
    ends = np.zeros(_EDGE_POINTS)
    across, down = np.concatenate([along, along, ends, ends + 1]), np.concatenate([ends, ends + 1, along, along])
    columns, rows = _pixels(raster, geobox, across * geobox.shape[1], down * geobox.shape[0])
    defined = np.isfinite(columns) & np.isfinite(rows)
    if not defined.any():
        return None
    parts = []
    for places, size in zip((rows[defined], columns[defined]), raster.shape, strict=True):
        begin = max(0, math.floor(places.min()) - margin)
        end = min(size, math.ceil(places.max()) + margin)
        if begin >= end:
            return None
        parts.append(slice(begin, end))
    return parts[0], parts[1]


def read_layer(placement: Placement, geobox: GeoBox, rows: slice, columns: slice, one: Feature) -> NDArray[np.float32]:
    """Read the block of a grid from a raster; a fault is an error, never nodata."""
    path = placement.file.path
    try:
        if placement.shift is not None:
            return _read_shifted(placement, rows, columns, one)
        return _read_warped(placement, geobox[rows, columns], one)
    except _GDAL_ERRORS as error:
        fault = _first_line(error)
    # raised out here, because GDAL's own error in its context could not travel from a worker
    raise ReadError(f"{scrub(path)} could not be read ({fault}): check that it is whole and has not changed")


def _read_shifted(placement: Placement, rows: slice, columns: slice, one: Feature) -> NDArray[np.float32]:
    """Read pixel by pixel."""
    assert placement.shift is not None
    out = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
    source: list[slice] = []
    target: list[slice] = []
    for part, shift, size in zip((rows, columns), placement.shift, placement.file.shape, strict=True):
        begin, end = max(part.start + shift, 0), min(part.stop + shift, size)
        if begin >= end:
            return out
        source.append(slice(begin, end))
        target.append(slice(begin - shift - part.start, end - shift - part.start))
    out[target[0], target[1]] = _read_clean(placement.file.path, Window.from_slices(*source), one)
    return out


def _read_warped(placement: Placement, block: GeoBox, one: Feature) -> NDArray[np.float32]:
    """Read what a block lies on, clean it, and resample it with bilinear interpolation."""
    raster, scale = placement.file, placement.scale
    footprint = _footprint(raster, block, margin=math.ceil(1 / min(scale)) + 3)
    if footprint is None:
        return np.full(block.shape, np.nan, np.float32)
    window = Window.from_slices(*footprint)
    values = _read_clean(raster.path, window, one)
    profile = {
        "driver": "GTiff",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": "float32",
        "crs": raster.crs,
        "transform": window_transform(window, Affine(*raster.transform)),
        "nodata": np.nan,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as copy:
            copy.write(values, 1)
        with (
            memory.open() as copy,
            WarpedVRT(
                copy,
                crs=str(block.crs),
                transform=block.transform,
                height=block.shape[0],
                width=block.shape[1],
                resampling=Resampling.bilinear,
                nodata=np.nan,
                tolerance=_TOLERANCE,
                XSCALE=scale[0],
                YSCALE=scale[1],
            ) as warped,
        ):
            out: NDArray[np.float32] = warped.read(1)
    return out


def _read_clean(path: str, window: Window, one: Feature) -> NDArray[np.float32]:
    """Read band 1 in the feature's units, nodata as NaN."""
    with rasterio.open(path) as src:
        raw = src.read(1, window=window, masked=True)
        scale, offset = src.scales[0], src.offsets[0]
    # fill may be too large for float32; it becomes an infinity, and so nodata
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.where(np.ma.getmaskarray(raw), np.float32(np.nan), raw.data.astype(np.float32))
        if (scale, offset) != (1.0, 0.0):
            values = values * np.float32(scale) + np.float32(offset)
        return clean(values, one, path)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return scrub(text[0]) if text else type(error).__name__
