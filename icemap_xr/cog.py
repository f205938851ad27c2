"""Write a lazy map as a Cloud-Optimized GeoTIFF, block by block; the final name appears when the file is whole."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from affine import Affine
from dask.base import compute
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.shutil import copy
from rasterio.windows import Window

from icemap_xr.errors import GridError, InputError, OutputExistsError, StoreError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.halving import halve
from icemap_xr.progress import progress
from icemap_xr.types import StrPath

logger = logging.getLogger("icemap_xr")

#: side of the tiles, in the file and in what is written before it
_TILE = 512
_GDAL_ERRORS = (RasterioError, CPLE_BaseError)


def write_cog(
    bands: xr.DataArray | Sequence[xr.DataArray],
    grid: RegionGrid,
    path: StrPath,
    *,
    descriptions: Sequence[str],
    nodata: float = float("nan"),
    tags: Mapping[str, object] | None = None,
    classes: Mapping[str, str] | None = None,
    what: str = "writing GeoTIFF",
) -> Path:
    """Write bands as a float32 Cloud-Optimized GeoTIFF in bounded memory.

    The Dask blocks of the bands are computed one after the other, in order, all bands of a block together, and written
    to a plain GeoTIFF in a hidden folder beside `path`, and so are its overviews, whose pixels are means of the
    observed pixels below them. GDAL makes the final file (DEFLATE) of it, which then gets its name. About two and a
    half times the uncompressed size is needed on that disk for a while.

    Parameters
    ----------
    bands
        One array `(band, y, x)` or `(y, x)`, or a list of arrays `(y, x)`, on `grid`; lazy or not.
    grid
        The grid.
    path
        New file.
    descriptions
        Name of each band.
    nodata
        Value that NaN is written as, and that the file declares.
    tags
        Metadata of the file; values are written as text.
    classes
        For each band that holds a class, by its description: the description of the probability that it follows from.
        In overviews it is 1 where the mean probability is greater than 0.5, else 0, and never a mean of classes.
    what
        Label of the progress bar.

    Returns
    -------
    Path
        `path`.

    Raises
    ------
    OutputExistsError
        `path` exists.
    GridError
        An array has another shape than the grid.
    InputError
        The number of descriptions is not that of the bands.
    StoreError
        The file could not be written.
    """
    path = Path(path)
    check_new(path)
    layers = _layers(bands)
    _check(layers, grid, descriptions)
    with _hidden_folder(path) as folder:
        plain, final = folder / "plain.tif", folder / "cog.tif"
        try:
            _write_plain(layers, grid, plain, descriptions, nodata, dict(tags or {}), what)
            _write_overviews(plain, descriptions, classes or {})
            _convert(plain, final)
        except _GDAL_ERRORS as error:
            fault = " ".join(str(error).split()) or type(error).__name__
            raise StoreError(f"{path} could not be written ({fault}): check the space on its disk") from None
        check_new(path)
        os.replace(final, path)
    return path


def check_new(path: Path) -> None:
    """Raise `OutputExistsError` if a path exists."""
    if path.exists():
        raise OutputExistsError(f"{path} exists already: choose a new name or delete it")


def _layers(bands: xr.DataArray | Sequence[xr.DataArray]) -> list[xr.DataArray]:
    if not isinstance(bands, xr.DataArray):
        return list(bands)
    if bands.ndim == 2:
        return [bands]
    if bands.ndim != 3:
        raise InputError(
            f"the array has dims {bands.dims}: give (band, y, x) or (y, x), for example with .isel(year=0)"
        )
    return [bands[index] for index in range(bands.shape[0])]


def _check(layers: Sequence[xr.DataArray], grid: RegionGrid, descriptions: Sequence[str]) -> None:
    if not layers or len(descriptions) != len(layers):
        raise InputError(f"{len(layers)} bands have {len(descriptions)} descriptions: give at least one, and as many")
    for layer in layers:
        if layer.shape != grid.shape:
            raise GridError(f"a band has dims {dict(layer.sizes)}, the grid has {grid.shape} rows and columns")


@contextmanager
def _hidden_folder(path: Path) -> Iterator[Path]:
    """Make a folder on the disk of `path`, gone afterwards whatever happens."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror}): choose a folder that is writable") from None
    with folder as name:
        yield Path(name)


def _write_plain(
    layers: Sequence[xr.DataArray],
    grid: RegionGrid,
    path: Path,
    descriptions: Sequence[str],
    nodata: float,
    tags: Mapping[str, object],
    what: str,
) -> None:
    """Write the blocks to a tiled, uncompressed GeoTIFF."""
    profile = {
        "driver": "GTiff",
        "height": grid.shape[0],
        "width": grid.shape[1],
        "count": len(layers),
        "dtype": "float32",
        "crs": grid.crs,
        "transform": grid.geobox.transform,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": _TILE,
        "blockysize": _TILE,
        "bigtiff": "IF_SAFER",
    }
    blocks = _blocks(layers)
    with rasterio.open(path, "w", **profile) as out, progress(what, len(blocks)) as advance:
        out.update_tags(**{key: str(value) for key, value in tags.items()})
        for band, description in enumerate(descriptions, start=1):
            out.set_band_description(band, description)
        for rows, columns in blocks:
            values = _compute(layers, rows, columns)
            out.write(np.where(np.isnan(values), np.float32(nodata), values), window=Window.from_slices(rows, columns))
            advance(1)


def _blocks(layers: Sequence[xr.DataArray]) -> list[tuple[slice, slice]]:
    """Return the blocks of the first lazy band; one block if none is lazy."""
    chunks = next((layer.chunks for layer in layers if layer.chunks), None)
    if chunks is None:
        chunks = tuple((size,) for size in layers[0].shape)
    rows, columns = ([slice(*edges) for edges in pairwise(np.cumsum([0, *sizes]).tolist())] for sizes in chunks)
    return list(product(rows, columns))


def _compute(layers: Sequence[xr.DataArray], rows: slice, columns: slice) -> NDArray[np.float32]:
    """Compute a block of all bands together: what they share is computed once."""
    values = compute(*(layer.data[rows, columns] for layer in layers))
    return np.stack(values).astype(np.float32, copy=False)


def _write_overviews(plain: Path, descriptions: Sequence[str], classes: Mapping[str, str]) -> None:
    """Write coarser copies beside a plain GeoTIFF where GDAL looks for overviews, down to the size of a tile."""
    follows = {descriptions.index(band): descriptions.index(source) for band, source in classes.items()}
    before, counts = plain, None
    while True:
        with rasterio.open(before) as fine:
            if max(fine.shape) <= _TILE:
                return
            shape = [-(-size // 2) for size in fine.shape]
            half, number = before.with_name(f"{before.name}.ovr"), before.with_name(f"{before.name}.counts")
            size = {"height": shape[0], "width": shape[1], "transform": fine.transform * Affine.scale(2)}
            tiled = {**fine.profile, **size, "bigtiff": "IF_SAFER"}
            with (
                rasterio.open(half, "w", **tiled) as out,
                rasterio.open(number, "w", **{**tiled, "dtype": "uint32", "nodata": None}) as out_counts,
                nullcontext() if counts is None else rasterio.open(counts) as known,
            ):
                for _, window in out.block_windows(1):
                    source = Window(*(2 * np.array(window.flatten()))).intersection(
                        Window(0, 0, fine.width, fine.height)
                    )
                    values, weights = _halved(fine, known, source)
                    for band, probability in follows.items():
                        mean = values[probability]
                        values[band] = np.where(np.isnan(mean), np.nan, mean > 0.5)
                    out.write(np.where(np.isnan(values), np.float32(fine.nodata), values), window=window)
                    out_counts.write(weights, window=window)
        if counts is not None:
            counts.unlink()
        before, counts = half, number


def _halved(fine: Any, known: Any, window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return one window of all bands at twice the pixel side `(band, y, x)`, and of how many pixels each mean is."""
    values = fine.read(window=window)
    values = np.where(values == np.float32(fine.nodata), np.nan, values)
    weights = [None] * len(values) if known is None else known.read(window=window)
    means, counts = zip(*(halve(one, weight) for one, weight in zip(values, weights, strict=True)), strict=True)
    return np.stack(means), np.stack(counts)


def _convert(plain: Path, final: Path) -> None:
    logger.info("making the Cloud-Optimized GeoTIFF")
    options = {
        "compress": "DEFLATE",
        "predictor": "FLOATING_POINT",
        "blocksize": _TILE,
        "overviews": "FORCE_USE_EXISTING",
        "bigtiff": "IF_SAFER",
        "num_threads": "ALL_CPUS",
    }
    copy(plain, final, driver="COG", **options)
