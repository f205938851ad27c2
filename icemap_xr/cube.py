"""Build and open a cube: each feature's native series in Zarr, and the index of the scenes that make up a year."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pystac
import xarray as xr
import zarr
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from rasterio.enums import Resampling

from icemap_xr import schema, store
from icemap_xr.errors import InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.providers import PROVENANCE, Source, load_provider
from icemap_xr.reading import LOADERS, BlockRead, Loader
from icemap_xr.scenes import Scene, scenes_from_items
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub
from icemap_xr.yearindex import year_bounds, year_index


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

    Returns
    -------
    xarray.Dataset
        The cube, opened with `open_cube`.

    Raises
    ------
    OutputExistsError
        `path` holds something else.
    AssetMissingError, InputError
        The items do not make one series: see `scenes_from_items`.
    ReadError
        A raster could not be read; nothing is left under `path`, and the call may be repeated.
    """
    if loader not in LOADERS:
        raise InputError(f"loader={loader!r} is not allowed: choose {' or '.join(map(repr, LOADERS))}")
    if resampling not in Resampling.__members__:
        raise InputError(f"resampling={resampling!r} is not allowed: choose one of {', '.join(Resampling.__members__)}")
    if steps < 1 or chunk < 1:
        raise InputError(f"steps={steps}, chunk={chunk} are not allowed: give at least 1")
    asked: Mapping[str, Any] = items.extra_fields.get(PROVENANCE, {})
    begins = year_start or str(asked.get("year_start", "01-01"))
    series = _series(items, asked, features, polarisation, baseline_days)
    labels = _labels(asked.get("years") if years is None else years, series, begins)
    index = {"years": labels, "steps": steps, "year_start": begins, "tolerance_days": tolerance_days}
    reading = {"loader": loader, "resampling": resampling, "chunk": chunk}
    plan = {"grid": _grid_plan(grid), "index": index, "reading": reading, "scenes": _scenes_digest(series)}
    if store.check_writable(path, plan):
        return open_cube(path)
    attrs = _attrs(series, index, asked)
    ds = xr.Dataset(coords=grid.coords(), attrs=attrs)
    for name, scenes in series.items():
        ds = ds.merge(_native(name, scenes, grid, reading))
    store.write_groups({"": ds}, path, plan=plan, what="reading scenes")
    facts = _add_index(store.partial_path(path), series, index, attrs)
    store.finish(path, plan=plan, facts={"valid_pixels": facts, "search": dict(asked)})
    return open_cube(path)


def open_cube(path: StrPath, chunks: Any = "auto") -> xr.Dataset:
    """Open a finished cube, lazy and checked.

    Parameters
    ----------
    path
        Zarr store written by `build_cube`.
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
    manifest = store.read_manifest(path)
    ds = xr.open_zarr(path, chunks=None)
    folder = str(Path(path).resolve())
    for name in schema.FEATURES:
        if name in ds:
            var = ds[name]
            source = store.StoreArray(folder, name, var.shape, manifest["plan_sha256"])
            layout = _on_disk(folder, name) if chunks == "auto" else chunks
            ds[name] = (var.dims, store.lazy(source, layout), var.attrs)
    ds = ds.load() if not schema.is_native(ds) else ds
    schema.validate_cube(ds, f"{path}")
    return ds


def _on_disk(folder: str, name: str) -> tuple[int, ...]:
    array = zarr.open_group(folder, mode="r")[name]
    if not isinstance(array, zarr.Array):
        raise SchemaError(f"{folder}: {name!r} is a group, not an array: it is no cube")
    return tuple(array.shards or array.chunks)


def _series(
    items: pystac.ItemCollection,
    asked: Mapping[str, Any],
    features: Sequence[str] | None,
    polarisation: str | None,
    baseline_days: float | None,
) -> dict[str, tuple[Scene, ...]]:
    sources = tuple(Source(**one) for one in asked.get("sources", ())) or load_provider("local").sources
    for name in features or ():
        schema.feature(name)
    series = {}
    for name in features or schema.FEATURES:
        pair = schema.feature(name).pair
        scenes = scenes_from_items(
            list(items), sources, name, polarisation=polarisation, baseline_days=baseline_days if pair else None
        )
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


def _labels(years: Any, series: Mapping[str, Sequence[Scene]], year_start: str) -> list[int]:
    if years is not None:
        return sorted({int(year) for year in years})
    times = np.concatenate([[scene.time for scene in scenes] for scenes in series.values()])
    calendar = times.astype("M8[Y]").astype(int) + 1970
    candidates = range(int(calendar.min()) - 1, int(calendar.max()) + 1)
    bounds = {year: year_bounds(year, year_start) for year in candidates}
    return [year for year, (start, end) in bounds.items() if ((times >= start) & (times < end)).any()]


def _native(name: str, scenes: Sequence[Scene], grid: RegionGrid, reading: Mapping[str, Any]) -> xr.Dataset:
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
    text = np.dtypes.StringDType()
    per_scene: dict[str, Any] = {
        "platform": np.array([s.platform for s in scenes], text),
        "absolute_orbit": np.array([s.absolute_orbit for s in scenes], np.int32),
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
    data = _lazy_series(name, scenes, grid, reading)
    return xr.Dataset({name: ((one.time, schema.Y, schema.X), data, attrs)}, coords=coords)


def _lazy_series(name: str, scenes: Sequence[Scene], grid: RegionGrid, reading: Mapping[str, Any]) -> da.Array:
    """Return `(time, y, x)` int16 with one reading task per scene and chunk."""
    side = int(reading["chunk"])
    edges = [list(range(0, size, side)) for size in grid.shape]
    slices = [
        [slice(start, min(start + side, size)) for start in starts]
        for starts, size in zip(edges, grid.shape, strict=True)
    ]
    key = f"icemap-read-{name}-{_scenes_digest({name: scenes})[:16]}"
    graph: dict[Any, Any] = {
        (key, t, i, j): (BlockRead(scene, grid.piece(rows, columns), reading["loader"], reading["resampling"]),)
        for t, scene in enumerate(scenes)
        for i, rows in enumerate(slices[0])
        for j, columns in enumerate(slices[1])
    }
    sizes = (tuple(s.stop - s.start for s in slices[0]), tuple(s.stop - s.start for s in slices[1]))
    layers = HighLevelGraph.from_collections(key, graph, dependencies=())
    return da.Array(layers, key, ((1,) * len(scenes), *sizes), dtype=np.int16)


def _add_index(
    partial: Path, series: Mapping[str, Sequence[Scene]], index: Mapping[str, Any], attrs: Mapping[str, Any]
) -> dict[str, dict[str, int]]:
    """Count valid pixels per scene, index the years by the scenes that have any, and add both to the store."""
    facts: dict[str, dict[str, int]] = {}
    # the store takes the attributes of what is written last
    ds = xr.Dataset(coords={schema.YEAR: np.array(index["years"], np.int32)}, attrs=attrs)
    for name, scenes in series.items():
        one = schema.feature(name)
        valid = _count_valid(partial, name)
        if not valid.any():
            raise InputError(f"no {name} scene has a valid pixel on the grid: grid and scenes do not overlap")
        times = np.array([scene.time for scene in scenes])
        table = year_index(
            times,
            valid > 0,
            index["years"],
            steps=index["steps"],
            year_start=index["year_start"],
            tolerance_days=index["tolerance_days"],
        )
        ds[one.index] = ((schema.YEAR, schema.STEP), table, {"long_name": f"position in {one.time}; -1 = no scene"})
        ds[f"{name}_valid_pixels"] = (one.time, valid, {"long_name": "pixels with an observation", "units": "1"})
        facts[name] = {scene.item_ids: int(count) for scene, count in zip(scenes, valid, strict=True)}
    store.add_variables(ds, partial)
    return facts


def _count_valid(partial: Path, name: str) -> NDArray[np.int64]:
    codes = da.from_zarr(str(partial / name))
    counts: NDArray[np.int64] = (codes != schema.NODATA_CODE).sum(axis=(1, 2)).compute()
    return counts


def _grid_plan(grid: RegionGrid) -> dict[str, Any]:
    return {"crs": grid.crs, "transform": list(grid.geobox.transform)[:6], "shape": list(grid.shape)}


def _scenes_digest(series: Mapping[str, Sequence[Scene]]) -> str:
    """Return the sha256 of what is read; a signature in an address is no part of it, for the next run has another."""
    content = {
        name: [
            (s.item_ids, s.asset, s.values, s.time, [scrub(i["assets"][s.asset]["href"]) for i in s.items])
            for s in scenes
        ]
        for name, scenes in series.items()
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _attrs(series: Mapping[str, Sequence[Scene]], index: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    first = next(iter(series.values()))[0]
    return {
        "Conventions": "CF-1.11",
        "title": "Sentinel-1 time series on one grid",
        "source": f"{asked.get('provider', 'items')} {asked.get('url', '')}".strip(),
        "year_start": index["year_start"],
        "relative_orbit": first.relative_orbit,
        "orbit_state": first.orbit_state,
    }
