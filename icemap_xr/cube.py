"""Build and open a cube: each feature's native series in Zarr, and the index of the scenes that make up a year."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pystac
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling

from icemap_xr import objectstore, schema, store
from icemap_xr.cube_index import HOLES, add_index, known_blocks, scene_digest
from icemap_xr.errors import InputError, ReadError
from icemap_xr.footprints import Area, footprint
from icemap_xr.grd.cubes import add_shifts, as_read, described, near
from icemap_xr.grd.options import GrdOptions
from icemap_xr.grid import RegionGrid
from icemap_xr.providers import PROVENANCE, Provider, Source, known_providers, load_provider
from icemap_xr.reading import LOADERS, BlockCopy, BlockRead, Loader, Reading, reading_threads
from icemap_xr.scenes import Scene, one_orbit, scenes_from_items
from icemap_xr.types import StrPath
from icemap_xr.urls import is_remote
from icemap_xr.web import Patience
from icemap_xr.yearindex import year_bounds

OnError = Literal["raise", "hole"]


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
        Polarisation to read; by default the best that every item offers.
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
        The items do not make one series of one orbit: see `scenes_from_items`.
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
    provider, remote = _provider(asked, profile), "://" in str(asked.get("url", ""))
    series = as_read(_series(items, asked, features, polarisation, baseline_days, grd is not None), grd)
    labels = _labels(asked.get("years") if years is None else years, series, begins)
    index = {"years": labels, "steps": steps, "year_start": begins, "tolerance_days": tolerance_days}
    reading: dict[str, Any] = {"loader": loader, "resampling": resampling, "chunk": chunk}
    reading |= {"grd": grd.to_dict()} if grd else {}
    plan = {"grid": _grid_plan(grid), "index": index, "reading": reading, "scenes": _scenes_digest(series)}
    if store.check_writable(path, plan):
        return _opened(path, on_error)
    _check_overlap(series, grid)
    attrs = _attrs(series, index, asked) | _grid_attrs(grid)
    limits = provider.quotas.limits(provider.name)
    how = Reading(loader, resampling, provider.access, not remote, patience or Patience(), near(grd, grid), limits)
    jobs = _Jobs(
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
        ds = ds.merge(_native(name, scenes, grid, jobs))
    threads = reading_threads(itertools.chain(*series.values()), provider.quotas.connections)
    with dask.config.set(threads):
        store.write(
            {"": ds},
            path,
            plan=plan,
            call="ix.build_cube(items, grid, path)",
            what="reading scenes",
            facts={"search": dict(asked)},
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


def _series(
    items: pystac.ItemCollection,
    asked: Mapping[str, Any],
    features: Sequence[str] | None,
    polarisation: str | None,
    baseline_days: float | None,
    radar_geometry: bool = False,
) -> dict[str, tuple[Scene, ...]]:
    sources = tuple(Source(**one) for one in asked.get("sources", ())) or load_provider("local").sources
    for name in features or ():
        schema.feature(name)
    series = {}
    wanted: dict[str, Any] = {"polarisation": polarisation, "radar_geometry": radar_geometry}
    for name in features or schema.FEATURES:
        days = baseline_days if schema.feature(name).pair else None
        scenes = scenes_from_items(list(items), sources, name, baseline_days=days, **wanted)
        if scenes:
            series[name] = scenes
        elif features:
            raise InputError(f"no item holds {name}: leave it out, or search for its collection")
    if not series:
        found = sorted({str(item.collection_id) for item in items})
        raise InputError(
            f"no item holds a feature; their collections are {', '.join(found) or 'none'}, known are "
            f"{', '.join(sorted(source.collection for source in sources))}"
        )
    return series


def _provider(asked: Mapping[str, Any], profile: str | None) -> Provider:
    """Return the profile for reading: never one that only the items tell of, for it says where credentials go."""
    if profile is not None:
        return load_provider(profile)
    return known_providers().get(str(asked.get("provider")), load_provider("local"))


def _check_overlap(series: Mapping[str, Sequence[Scene]], grid: RegionGrid) -> None:
    """Notice a grid elsewhere before anything is read; footprints that cannot be used do not count against it."""
    area = Area.of(grid.geobox.extent.to_crs("EPSG:4326", grid.resolution * max(grid.shape) / 20).geom)
    for name, scenes in series.items():
        items = [pystac.Item.from_dict(content) for scene in scenes for content in scene.items]
        try:
            apart = not any(area.touches(footprint(item)) for item in items)
        except InputError:
            continue
        if apart:
            raise InputError(
                f"no {name} scene lies on the grid: grid and scenes do not overlap; the grid is at "
                f"{', '.join(f'{value:.3f}' for value in area.lonlat.bounds)} (lon/lat), item {items[0].id!r} at "
                f"{', '.join(f'{value:.3f}' for value in footprint(items[0]).bounds)}"
            )


def _labels(years: Any, series: Mapping[str, Sequence[Scene]], year_start: str) -> list[int]:
    if years is not None:
        return sorted({int(year) for year in years})
    times = np.concatenate([[scene.time for scene in scenes] for scenes in series.values()])
    calendar = times.astype("M8[Y]").astype(int) + 1970
    candidates = range(int(calendar.min()) - 1, int(calendar.max()) + 1)
    bounds = {year: year_bounds(year, year_start) for year in candidates}
    return [year for year, (start, end) in bounds.items() if ((times >= start) & (times < end)).any()]


@dataclass(frozen=True)
class _Jobs:
    """How blocks come about: read, or copied from another cube where `known` has their scene.

    `radar` is what the cube says of features whose scenes are in radar geometry.
    """

    reading: Reading
    chunk: int
    holes: Path | None = None
    known: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    radar: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def block(self, scene: Scene, place: tuple[int, int, int], piece: GeoBox, where: tuple[slice, slice]) -> Any:
        """Return the task of one block at `place` (position in the series, row and column of chunks)."""
        found = self.known.get(scene_digest(scene)) if self.known else None
        if found:
            return BlockCopy(*found, *where)
        name = "-".join([scene.feature, *map(str, place)])
        return BlockRead(scene, piece, self.reading, str(self.holes / f"{name}.json") if self.holes else None)


def _native(name: str, scenes: Sequence[Scene], grid: RegionGrid, jobs: _Jobs) -> xr.Dataset:
    """Return the lazy int16 series of a feature with its time axis."""
    one = schema.feature(name)
    attrs = {
        "long_name": one.long_name,
        "units": one.units,
        "polarisation": scenes[0].polarisation,
        "grid_mapping": schema.SPATIAL_REF,
        "scale_factor": one.step,
        "add_offset": 0.0,
        "_FillValue": schema.NODATA_CODE,
        "encoding_error": one.encoding_error,
    }
    if scenes[0].radiometry:
        attrs["radiometry"] = scenes[0].radiometry
    attrs |= jobs.radar.get(name, {})
    text = np.dtypes.StringDType()
    per_scene: dict[str, Any] = {
        "platform": np.array([s.platform for s in scenes], text),
        "absolute_orbit": np.array([s.absolute_orbit for s in scenes], np.int32),
        "slice": np.array([s.slices for s in scenes], text),
        "item": np.array([s.item_ids for s in scenes], text),
    }
    if one.pair:
        per_scene |= {
            "reference_time": np.array([s.reference_time for s in scenes]),
            "secondary_time": np.array([s.secondary_time for s in scenes]),
            "baseline_days": np.array([s.baseline_days for s in scenes], np.float32),
        }
    coords = {f"{name}_{key}": (one.time, values) for key, values in per_scene.items()}
    coords[one.time] = (one.time, np.array([s.time for s in scenes]))
    data = _lazy_series(name, scenes, grid, jobs)
    return xr.Dataset({name: ((one.time, schema.Y, schema.X), data, attrs)}, coords=coords)


def _lazy_series(name: str, scenes: Sequence[Scene], grid: RegionGrid, jobs: _Jobs) -> da.Array:
    """Return `(time, y, x)` int16 with one reading task per scene and chunk."""
    side = jobs.chunk
    slices = [[slice(start, min(start + side, size)) for start in range(0, size, side)] for size in grid.shape]
    key = f"icemap-read-{name}-{_scenes_digest({name: scenes})[:16]}"
    graph: dict[Any, Any] = {
        (key, t, i, j): (jobs.block(scene, (t, i, j), grid.piece(rows, columns), (rows, columns)),)
        for t, scene in enumerate(scenes)
        for i, rows in enumerate(slices[0])
        for j, columns in enumerate(slices[1])
    }
    sizes = (tuple(s.stop - s.start for s in slices[0]), tuple(s.stop - s.start for s in slices[1]))
    layers = HighLevelGraph.from_collections(key, graph, dependencies=())
    return da.Array(layers, key, ((1,) * len(scenes), *sizes), dtype=np.int16)


def _grid_plan(grid: RegionGrid) -> dict[str, Any]:
    return {"crs": grid.crs, "transform": list(grid.geobox.transform)[:6], "shape": list(grid.shape)}


def _scenes_digest(series: Mapping[str, Sequence[Scene]]) -> str:
    """Return the sha256 of what is read; a signature in an address is no part of it, for the next run has another."""
    content = {name: [scene_digest(scene) for scene in scenes] for name, scenes in series.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _grid_attrs(grid: RegionGrid) -> dict[str, Any]:
    """Return the grid in the terms of the Zarr conventions ``proj`` and ``spatial``, beside CF's `spatial_ref`."""
    return {
        "proj:code": grid.crs,
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
