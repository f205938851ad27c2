"""Build and open a cube: each feature's native series in Zarr, and the index of the scenes that make up a year."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dask
import pystac
import xarray as xr
from rasterio.enums import Resampling

from icemap_xr import objectstore, schema, store
from icemap_xr.cube_blocks import Jobs, native_series
from icemap_xr.cube_index import HOLES, add_index, known_blocks, scenes_digest
from icemap_xr.cube_series import check_overlap, check_years, cube_series, reading_profile, year_labels
from icemap_xr.errors import InputError, ReadError
from icemap_xr.grd.cubes import add_shifts, as_read, described, near
from icemap_xr.grd.options import GrdOptions
from icemap_xr.grid import RegionGrid
from icemap_xr.providers import PROVENANCE
from icemap_xr.reading import LOADERS, Loader, Reading, reading_threads
from icemap_xr.scenes import Scene, one_orbit
from icemap_xr.types import StrPath
from icemap_xr.urls import is_remote
from icemap_xr.web import Patience

OnError = Literal["raise", "hole"]

#: a reader heeds attributes of a Zarr convention only where it is named (github.com/zarr-conventions)
_PROJ = {
    "name": "proj:",
    "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
    "schema_url": "https://raw.githubusercontent.com/zarr-experimental/geo-proj/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-experimental/geo-proj/blob/v1/README.md",
    "description": "Coordinate reference system information for geospatial data",
}
_SPATIAL = {
    "name": "spatial",
    "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    "schema_url": "https://raw.githubusercontent.com/zarr-conventions/spatial/refs/tags/v1/schema.json",
    "spec_url": "https://github.com/zarr-conventions/spatial/blob/v1/README.md",
    "description": "Spatial coordinate information",
}


def build_cube(
    items: pystac.ItemCollection,
    grid: RegionGrid,
    path: StrPath,
    *,
    features: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
    steps: int = 15,
    year_start: str | None = None,
    tolerance_days: float | None = None,
    polarisation: str | None = None,
    baseline_days: float | None = None,
    loader: Loader = "odc",
    resampling: str = "bilinear",
    chunk: int = 512,
    on_error: OnError = "raise",
    reuse: StrPath | None = None,
    profile: str | None = None,
    patience: Patience | None = None,
    grd: GrdOptions | None = None,
) -> xr.Dataset:
    """Read scenes onto a grid and write them as a cube; resumable.

    Of an acquisition that was processed again the newest item counts; the manifest names what was dropped.

    Tasks run on the current Dask cluster, or on this process's threads. The cube is written beside `path` and gets its
    name when it is whole; the same call made again after an interruption reads only what is missing, and returns at
    once if nothing is.

    Parameters
    ----------
    items
        What `search` returned, or any items whose collections the `local` profile knows.
    grid
        Grid of the cube.
    path
        Zarr store to write.
    features
        Features to read; all that the items hold by default.
    years
        Years of the index; those of the search by default.
    steps
        Scenes per year that a model wants.
    year_start
        Month and day on which a year begins, such as ``"10-01"``; that of the search, else ``"01-01"``, by default.
    tolerance_days
        Largest distance of a scene from its step's middle; None takes any of the year.
    polarisation
        Polarisation to read; by default the best that every item offers. Rasters of which nothing tells the
        polarisation are taken for this one where it is given, and are of unknown polarisation otherwise.
    baseline_days
        Temporal baseline of coherence pairs to keep; pairs of several baselines are refused without it.
    loader
        ``"odc"`` or ``"stackstac"``.
    resampling
        GDAL resampling of rasters that lie on another grid.
    chunk
        Side of the cube's chunks in pixels; each is read by one task and written by it alone.
    on_error
        What becomes of a block whose raster cannot be read after all tries: ``"raise"`` makes it an error, ``"hole"``
        leaves it empty and records it (`cube_info`, the manifest, and `<feature>_missing_blocks`). A scene with a hole
        is no step of a year.
    reuse
        A finished cube on the same grid: scenes that it holds whole are copied from it, not read again. So a year is
        added, or holes are filled, at the cost of what is new.
    profile
        Provider profile (name or `.yaml` file) that says which addresses may be opened and with which credentials; that
        of the search by default, if it came with icemap-xr.
    patience
        Tries and deadline of each block; `Patience()` by default.
    grd
        How scenes in radar geometry are calibrated, cleaned and geocoded (`icemap_xr.grd.GrdOptions`); without it they
        are refused. Their shifts against each other are added to the cube, and warn over half a pixel.

    Returns
    -------
    xarray.Dataset
        The cube, opened with `open_cube`.

    Raises
    ------
    OutputExistsError
        `path` holds something else.
    AssetMissingError, InputError
        The items do not make one series of one orbit (see `scenes_from_items`), or a year was searched in part.
    IncompleteReadError
        With ``on_error="raise"``: rasters could not be read in several tries (it is a `ReadError`, and lists the blocks
        in `failures`); all other blocks are written, nothing is left under `path`, and the call repeated reads only
        what is missing.
    StoreBusyError
        Another process is writing this cube.
    """
    if loader not in LOADERS:
        raise InputError(f"loader={loader!r} is not allowed: choose {' or '.join(map(repr, LOADERS))}")
    if resampling not in Resampling.__members__:
        raise InputError(f"resampling={resampling!r} is not allowed: choose one of {', '.join(Resampling.__members__)}")
    if on_error not in ("raise", "hole"):
        raise InputError(f"on_error={on_error!r} is not allowed: choose 'raise' or 'hole'")
    if steps < 1 or chunk < 1:
        raise InputError(f"steps={steps}, chunk={chunk} are not allowed: give at least 1")
    asked: Mapping[str, Any] = items.extra_fields.get(PROVENANCE, {})
    begins = year_start or str(asked.get("year_start", "01-01"))
    provider, remote = reading_profile(asked, profile), "://" in str(asked.get("url", ""))
    found, dropped = cube_series(list(items), asked, features, polarisation, baseline_days, grd is not None)
    series = as_read(found, grd)
    labels = year_labels(asked.get("years") if years is None else years, series, begins)
    check_years(asked, labels, begins)
    index = {"years": labels, "steps": steps, "year_start": begins, "tolerance_days": tolerance_days}
    reading: dict[str, Any] = {"loader": loader, "resampling": resampling, "chunk": chunk}
    reading |= {"grd": grd.to_dict()} if grd else {}
    plan = {"grid": _grid_plan(grid), "index": index, "reading": reading, "scenes": scenes_digest(series)}
    if store.check_writable(path, plan):
        return _opened(path, on_error)
    check_overlap(series, grid)
    attrs = _attrs(series, index, asked) | _grid_attrs(grid)
    limits = provider.quotas.limits(provider.name)
    how = Reading(loader, resampling, provider.access, not remote, patience or Patience(), near(grd, grid), limits)
    jobs = Jobs(
        how,
        chunk,
        store.partial_path(path) / HOLES if on_error == "hole" else None,
        known_blocks(reuse, plan) if reuse is not None else {},
        described(series, how),
    )

    def finish(partial: Path) -> dict[str, Any]:
        add_shifts(partial, series, grd)
        return add_index(partial, series, index, attrs)

    ds = xr.Dataset(coords=grid.coords(), attrs=attrs)
    for name, scenes in series.items():
        ds = ds.merge(native_series(name, scenes, grid, jobs))
    threads = reading_threads(itertools.chain(*series.values()), provider.quotas.connections)
    with dask.config.set(threads):
        store.write(
            {"": ds},
            path,
            plan=plan,
            call="ix.build_cube(items, grid, path)",
            what="reading scenes",
            facts={"search": dict(asked), "dropped": dropped},
            last=finish,
        )
    return _opened(path, on_error)


def _opened(path: StrPath, on_error: OnError) -> xr.Dataset:
    missing = store.read_manifest(path).get("missing", [])
    if missing and on_error == "raise":
        raise ReadError(
            f"{path} was finished with {len(missing)} holes, the first is item {missing[0]['item']!r} "
            f"({missing[0]['cause']}): accept them with on_error='hole', or delete it and build it again"
        )
    return open_cube(path)


def open_cube(path: StrPath, chunks: Any = "auto") -> xr.Dataset:
    """Open a finished cube, lazy and checked.

    Parameters
    ----------
    path
        Zarr store written by `build_cube`, or the ``s3://`` address where one was published.
    chunks
        Dask chunks of the features: ``"auto"`` for those on disk, or anything Dask takes for `(time, y, x)`.

    Returns
    -------
    xarray.Dataset
        `<feature> (<feature>_time, y, x)` float32 and `<feature>_index (year, step)` int32.

    Raises
    ------
    InputError
        There is no such store.
    IncompleteStoreError
        It is not finished, or damaged.
    SchemaError
        It is no cube.
    """
    if is_remote(path):
        folder, manifest = path, objectstore.read_manifest(path)
        ds = xr.open_zarr(objectstore.zarr_store(path), chunks=None)
    else:
        folder, manifest = str(Path(path).resolve()), store.read_manifest(path)
        ds = xr.open_zarr(path, chunks=None)
    for name in schema.FEATURES:
        if name in ds:
            var = ds[name]
            source = store.StoreArray(folder, name, var.shape, manifest["files_sha256"])
            layout = source.blocks if chunks == "auto" else chunks
            ds[name] = (var.dims, store.lazy(source, layout), var.attrs)
    ds = ds.load() if not schema.is_native(ds) else ds
    schema.validate_cube(ds, f"{path}")
    return ds


def _grid_plan(grid: RegionGrid) -> dict[str, Any]:
    return {"crs": grid.crs, "transform": list(grid.geobox.transform)[:6], "shape": list(grid.shape)}


def _grid_attrs(grid: RegionGrid) -> dict[str, Any]:
    """Return the grid in the terms of the Zarr conventions ``proj`` and ``spatial``, beside CF's `spatial_ref`."""
    crs = grid.geobox.crs
    assert crs is not None
    # a CRS without an authority has no code
    place = {"proj:code": f"EPSG:{crs.epsg}"} if crs.epsg else {"proj:wkt2": crs.to_wkt()}
    return {
        "zarr_conventions": [_PROJ, _SPATIAL],
        **place,
        "spatial:dimensions": [schema.Y, schema.X],
        "spatial:shape": list(grid.shape),
        "spatial:transform": list(grid.geobox.transform)[:6],
        "spatial:bbox": list(grid.geobox.boundingbox.bbox),
        "spatial:registration": "pixel",
    }


def _attrs(series: Mapping[str, Sequence[Scene]], index: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    orbit, state = one_orbit(series)
    return {
        "Conventions": "CF-1.11",
        "title": "Sentinel-1 time series on one grid",
        "source": f"{asked.get('provider', 'items')} {asked.get('url', '')}".strip(),
        "year_start": index["year_start"],
        "relative_orbit": orbit,
        "orbit_state": state,
    }
