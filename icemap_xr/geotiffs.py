"""A model view straight from GeoTIFF files: one raster per feature and step, read lazily, on any grids.

Only headers are read when the dataset is made; how a block is read is in `icemap_xr.rasterfile`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePath
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.rasterfile import Placement, RasterFile, grid_of, place, read_header, read_layer
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub

logger = logging.getLogger("icemap_xr")

_DATE = re.compile(r"(?<!\d)(?:19|20)\d{6}(?!\d)")


@dataclass(frozen=True)
class GeotiffSeries:
    """One feature's rasters as a picklable array-like `(year, step, y, x)` that reads what is asked for.

    It carries paths, never pixels, and opens a file for each read, because GDAL's datasets are not thread-safe.

    Parameters
    ----------
    feature
        The feature.
    layers
        One raster per step.
    geobox
        The grid.
    """

    feature: schema.Feature
    layers: tuple[Placement, ...]
    geobox: GeoBox

    dtype = np.dtype("float32")
    ndim = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """One year, steps, rows, columns."""
        return (1, len(self.layers), int(self.geobox.shape[0]), int(self.geobox.shape[1]))

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[np.float32]:
        """Read integers and slices, as float32 in the feature's units; nodata is NaN."""
        picked = [_picked(size, one) for size, one in zip(self.shape, key, strict=True)]
        years, steps, rows, columns = picked
        out = np.empty(tuple(len(axis) for axis in picked), np.float32)
        if out.size:
            area = tuple(slice(min(axis), max(axis) + 1) for axis in (rows, columns))
            for position, step in enumerate(steps):
                block = read_layer(self.layers[step], self.geobox, area[0], area[1], self.feature)
                # every year in `years` is the only one there is
                out[: len(years), position] = block[:: rows.step, :: columns.step]
        whole: NDArray[np.float32] = out[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]
        return whole

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """Return a deterministic identity."""
        box = (str(self.geobox.crs), tuple(self.geobox.transform), tuple(self.geobox.shape))
        return ("icemap_xr.GeotiffSeries", repr(self.feature), tuple(repr(layer) for layer in self.layers), box)


def cube_from_geotiffs(
    files: Mapping[str, Sequence[StrPath]],
    *,
    reference: StrPath | None = None,
    year: int | None = None,
    chunk: int = 512,
    declared: Mapping[str, schema.Feature] | None = None,
) -> xr.Dataset:
    """Return the model view `(year, step, y, x)` of one year's GeoTIFFs, lazy.

    Band 1 of each file is read, with its declared scale and offset. Nodata, which becomes NaN before anything is
    resampled, is: NaN and infinities; the file's own nodata value, mask or alpha band; values of 1000 and more, and
    for dB of -1000 and less, which stand for undeclared fill; negative coherence. A fill value inside the possible
    range (an undeclared 0) cannot be told from data.

    Parameters
    ----------
    files
        For each feature its rasters in order of time, one per step: backscatter in dB, coherence in 0..1.
    reference
        Raster whose grid is used; by default the first raster of the first feature. Rasters on other grids are
        resampled to it with bilinear interpolation.
    year
        Label of the year. By default the calendar year in which all names that hold a date (the first YYYYMMDD in the
        name counts) agree; where they name no year or several, the label is 0, and the log says so.
    chunk
        Side of the Dask chunks in pixels.
    declared
        Features beside those every cube can have, by name, in dB or in 0..1 (units ``"1"``).

    Returns
    -------
    xarray.Dataset
        One float32 variable per feature, with `<feature>_file (step)`, the names of the files.

    Raises
    ------
    InputError
        No files, different numbers of files, files without georeference, or that do not overlap the grid.
    SchemaError
        A feature is not known.
    GridError
        The grid of the reference is geographic, rotated, or its pixels are not square.
    ReadError
        A file does not exist or is no raster.
    """
    if chunk < 1:
        raise InputError(f"chunk={chunk} is not allowed: give at least 1 pixel")
    known = {**(declared or {}), **schema.FEATURES}
    check_lists(files, known)
    counts = {name: len(paths) for name, paths in files.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise InputError(f"the numbers of files differ ({told}): give one raster of each feature for every step")
    headers = {name: [read_header(path) for path in paths] for name, paths in files.items()}
    first = next(iter(headers.values()))[0]
    grid = grid_of(first if reference is None else read_header(reference))
    label, source = _year_label(headers, year)
    coords: dict[str, Any] = {
        schema.YEAR: (schema.YEAR, [label], {"long_name": "year", "comment": source}),
        **grid.coords(),
    }
    ds = xr.Dataset(coords=coords, attrs={"Conventions": "CF-1.11", "source": "GeoTIFF files"})
    for name, rasters in headers.items():
        one = known[name]
        _tell_order(name, rasters)
        series = GeotiffSeries(one, tuple(place(raster, grid) for raster in rasters), grid.geobox)
        attrs = {"long_name": one.long_name, "units": one.units, "grid_mapping": schema.SPATIAL_REF}
        ds[name] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), _lazy(series, chunk), attrs)
        names = np.array([_name(raster) for raster in rasters], np.dtypes.StringDType())
        ds = ds.assign_coords({f"{name}_file": (schema.STEP, names)})
    return ds


def check_lists(files: Mapping[str, Sequence[StrPath]], known: Mapping[str, schema.Feature] = schema.FEATURES) -> None:
    """Raise `InputError` unless each feature has a list of files, `SchemaError` for an unknown feature."""
    if not files:
        raise InputError(f"no files were given: name a feature ({', '.join(schema.FEATURES)}) and its rasters")
    for name, paths in files.items():
        if name not in known:
            schema.feature(name)
        if isinstance(paths, str | os.PathLike):
            raise InputError(f"{name} is the single path {os.fspath(paths)!r}: give a list of rasters, one per step")
        if not len(paths):
            raise InputError(f"{name} has no files: give one raster per step, or leave the feature out")


def _name(raster: RasterFile) -> str:
    return PurePath(scrub(raster.path)).name


def _dates(rasters: Iterable[RasterFile]) -> list[date | None]:
    """Return the first date in each file name."""
    found: list[date | None] = []
    for raster in rasters:
        days = []
        for match in _DATE.finditer(_name(raster)):
            try:
                days.append(datetime.strptime(match.group(), "%Y%m%d").date())
            except ValueError:
                continue
        found.append(days[0] if days else None)
    return found


def _year_label(headers: Mapping[str, Sequence[RasterFile]], year: int | None) -> tuple[int, str]:
    """Return the label of the year and, in words, where it comes from."""
    if year is not None:
        return int(year), "as given"
    years = sorted({day.year for rasters in headers.values() for day in _dates(rasters) if day is not None})
    if len(years) == 1:
        return years[0], "from the dates in the file names"
    told = f"the dates in the file names are of {years[0]} to {years[-1]}" if years else "no file name holds a date"
    logger.info("the year is labelled 0: %s; give year= to label it", told)
    return 0, f"0 stands for unknown: {told}"


def _tell_order(name: str, rasters: Sequence[RasterFile]) -> None:
    days = [day for day in _dates(rasters) if day is not None]
    if len(days) == len(rasters) and days != sorted(days):
        logger.warning("the %s files are not in the order of the dates in their names: steps must ascend in time", name)


def _lazy(series: GeotiffSeries, chunk: int) -> da.Array:
    name = f"icemap-geotiffs-{series.feature.name}-{tokenize(series, chunk)}"
    meta = np.empty((0,) * series.ndim, np.float32)
    return da.from_array(series, chunks=(1, 1, chunk, chunk), name=name, asarray=False, fancy=False, meta=meta)


def _picked(size: int, key: int | slice) -> range:
    whole = range(size)
    if isinstance(key, slice):
        return whole[key]
    return range(whole[key], whole[key] + 1)
