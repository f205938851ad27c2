"""Coarser copies of an archive's maps, made from what was written, one chunk at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS
from zarr.codecs import GzipCodec

from icemap_xr import schema, store
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.halving import halve

#: the group of the coarser copies; each is named by its factor
GROUP = "overviews"
#: no copy of a map that fits into this side
_SMALLEST = 512
_CONVENTION = {
    "name": "multiscales",
    "uuid": "d35379db-88df-4056-af3a-620245f8e347",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/multiscales/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/multiscales/blob/v1/README.md",
    "description": "Multiscale layout of zarr datasets",
}


def widely_readable(ds: xr.Dataset) -> xr.Dataset:
    """Mark all variables to be compressed so that every GDAL with Zarr v3 can read them; gzip has a checksum too.

    Builds of GDAL without zstd are common, and one unreadable coordinate costs the place on the map.
    """
    for name in ds.variables:
        ds[name].encoding["compressors"] = [GzipCodec(level=4)]
    return ds


def factors(shape: tuple[int, int]) -> list[int]:
    """Return the factors of the copies: 2, 4, ... until a map fits into 512 pixels."""
    out, factor = [], 2
    while max(shape) > _SMALLEST * factor // 2:
        out.append(factor)
        factor *= 2
    return out


def multiscales(shape: tuple[int, int]) -> dict[str, Any]:
    """Return attributes of an archive that say where its copies are and how they lie on the maps.

    After version 1 of the multiscales convention of Zarr (github.com/zarr-conventions/multiscales), on which GeoZarr
    builds. Paths count from the group with these attributes and cannot lead out of it, so that group holds maps and
    copies. The scale of a copy `(y, x)` is relative to the level it is derived from, the one before; their upper left
    corners are the same.

    Parameters
    ----------
    shape
        Rows and columns of the maps.
    """
    layout: list[dict[str, Any]] = [{"asset": "maps", "transform": _transform(1)}]
    for factor in factors(shape):
        before = layout[-1]["asset"]
        layout.append({"asset": f"{GROUP}/{factor}", "derived_from": before, "transform": _transform(2)})
    return {
        "zarr_conventions": [_CONVENTION],
        "multiscales": {"layout": layout, "resampling_method": "average"},
    }


def _transform(scale: float) -> dict[str, list[float]]:
    return {"scale": [float(scale)] * 2, "translation": [0.0, 0.0]}


def write_overviews(partial: Path, grid: RegionGrid, chunk: int) -> dict[str, Any]:
    """Write the coarser copies of `maps` into an unfinished store.

    Floats are averages of all observed pixels of the maps below them; classes follow from the averaged probability.
    Pixels beyond the map's far edges count as unobserved.

    Parameters
    ----------
    partial
        The unfinished store, its maps written.
    grid
        Grid of the maps.
    chunk
        Side of a chunk, as in the maps.
    """
    shutil.rmtree(partial / GROUP, ignore_errors=True)
    zarr.create_group(str(partial), path=GROUP, zarr_format=3)
    # gone when this returns; what a killed call leaves goes with the group
    counts = partial / GROUP / ".counts"
    before = partial / "maps"
    for factor in factors(grid.shape):
        folder = partial / GROUP / str(factor)
        _write_template(before, folder, partial, grid, factor, chunk)
        # classes follow from the probability of their own level, so they are last
        for name in sorted(_names(before), key=lambda name: _is_class(before, name)):
            if _is_class(before, name):
                _classify(folder, name)
            else:
                _halve(before, folder, name, (counts / str(factor // 2) / name, counts / str(factor) / name))
        shutil.rmtree(counts / str(factor // 2), ignore_errors=True)
        before = folder
    shutil.rmtree(counts, ignore_errors=True)
    return {}


def _is_class(group: Path, name: str) -> bool:
    return bool(np.issubdtype(zarr.open_array(str(group / name), mode="r").dtype, np.integer))


def _names(group: Path) -> list[str]:
    found = zarr.open_group(str(group), mode="r", use_consolidated=False)
    return sorted(name for name, array in found.arrays() if array.ndim == 3)


def _write_template(before: Path, folder: Path, partial: Path, grid: RegionGrid, factor: int, chunk: int) -> None:
    """Write coordinates and metadata of one level."""
    transform = grid.geobox.transform * Affine.scale(factor)
    shape = -(-grid.shape[0] // factor), -(-grid.shape[1] // factor)
    level = RegionGrid(GeoBox(shape, transform, grid.geobox.crs))
    source = zarr.open_group(str(before), mode="r", use_consolidated=False)
    years = np.asarray(source[schema.YEAR][:])  # type: ignore[index]
    ds = xr.Dataset(coords={schema.YEAR: years, **level.coords()})
    for name in _names(before):
        array = source[name]
        assert isinstance(array, zarr.Array)
        empty = da.zeros((len(years), *shape), chunks=(1, chunk, chunk), dtype=array.dtype)
        # the attributes that xarray writes for itself are not to be given to it
        attrs = {key: value for key, value in array.attrs.asdict().items() if key not in ("_FillValue", "coordinates")}
        attrs |= {"_CRS": {"wkt": CRS(grid.crs).to_wkt()}}
        ds[name] = xr.Variable((schema.YEAR, schema.Y, schema.X), empty, attrs, {"fill_value": array.fill_value})
    store.add_variables(widely_readable(ds), partial, folder.relative_to(partial).as_posix())


def _halve(before: Path, folder: Path, name: str, counts: tuple[Path, Path]) -> None:
    """Fill one array of averages chunk by chunk, and of how many observed pixels of the maps each is."""
    fine = zarr.open_array(str(before / name), mode="r")
    coarse = zarr.open_array(str(folder / name), mode="r+").with_config({"write_empty_chunks": True})
    known = zarr.open_array(str(counts[0]), mode="r") if counts[0].exists() else None
    new = zarr.create_array(str(counts[1]), shape=coarse.shape, chunks=coarse.chunks, dtype="uint32")
    for place in _chunks(coarse):
        year, rows, columns = place
        source = year, slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)
        weights = None if known is None else np.asarray(known[source])
        coarse[place], new[place] = halve(np.asarray(fine[source]), weights)


def _classify(folder: Path, name: str) -> None:
    """Fill one array of classes from the averaged probability of its level."""
    probability = zarr.open_array(str(folder / schema.PROBABILITY), mode="r")
    coarse = zarr.open_array(str(folder / name), mode="r+").with_config({"write_empty_chunks": True})
    for place in _chunks(coarse):
        values = np.asarray(probability[place])
        coarse[place] = np.where(np.isnan(values), coarse.fill_value, values > 0.5).astype(coarse.dtype)


def _chunks(array: Any) -> Iterator[tuple[int, slice, slice]]:
    years, height, width = array.shape
    side = array.chunks[1]
    for year, top, left in product(range(years), range(0, height, side), range(0, width, side)):
        yield year, slice(top, min(top + side, height)), slice(left, min(left + side, width))
