"""The maps of a run: search, cube and prediction of one relative orbit, or of each of several, which are joined."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import xarray as xr

from icemap_xr import schema, store
from icemap_xr.catalog import search
from icemap_xr.config import OrbitsSection, RunConfig
from icemap_xr.cube import build_cube
from icemap_xr.errors import EmptySearchError
from icemap_xr.folders import write_text
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import source_scenes
from icemap_xr.lineage import scrub
from icemap_xr.orbitmap import join_orbits
from icemap_xr.predict import predict
from icemap_xr.types import Predictor
from icemap_xr.vectors import as_frame

logger = logging.getLogger("icemap_xr")

#: whether the addresses in `items.json` had credentials, which are left out there
_SCRUBBED = "icemap:scrubbed"


def map_region(
    config: RunConfig, grid: RegionGrid, model: Predictor, folder: Path, mask: xr.DataArray | None
) -> tuple[pystac.ItemCollection, xr.Dataset, xr.Dataset]:
    """Return the items, a cube and the maps of a run; resumable.

    With several relative orbits each has a folder of its own with items, cube and map; the maps are joined
    (`icemap_xr.orbitmap`), the items are those of all, and the cube is that of the first orbit.

    Parameters
    ----------
    config
        The run.
    grid
        Its grid.
    model
        Network.
    folder
        Where it writes.
    mask
        What is mapped, `(y, x)` bool; None for all.
    """
    tracks = config.orbits.relative
    if not tracks:
        return _one_orbit(config, grid, model, folder, mask)
    parts = {}
    for track in tracks:
        part = folder / f"orbit-{track:03d}"
        part.mkdir(exist_ok=True)
        only = replace(config, orbits=OrbitsSection(), search=replace(config.search, relative_orbit=track))
        logger.info("relative orbit %d of %s", track, ", ".join(map(str, tracks)))
        parts[track] = _one_orbit(only, grid, model, part, mask)
    owners = None if config.orbits.map is None else _owners(config.orbits.map)
    joined = join_orbits({track: maps.drop_vars("source_scenes") for track, (_, _, maps) in parts.items()}, owners)
    maps = store.save(joined, folder / "probability.zarr", what="joining orbits")
    scenes = [maps["source_scenes"] for _, _, maps in parts.values()]
    texts = [" ".join(filter(None, map(str, names))) for names in zip(*(one.values for one in scenes), strict=True)]
    first = parts[tracks[0]]
    items = [item for found, _, _ in parts.values() for item in found]
    return (
        pystac.ItemCollection(items, extra_fields=first[0].extra_fields),
        first[1],
        maps.assign_coords(source_scenes=(schema.YEAR, np.array(texts, object))),
    )


def _owners(path: str) -> Any:
    """Return the map of orbits: polygons, or the joined maps of an earlier run."""
    if not (Path(path) / store.MANIFEST).exists():
        return as_frame(path)
    store.read_manifest(path)
    return xr.open_zarr(path, chunks={})


def _one_orbit(
    config: RunConfig, grid: RegionGrid, model: Predictor, folder: Path, mask: xr.DataArray | None
) -> tuple[pystac.ItemCollection, xr.Dataset, xr.Dataset]:
    items = _items(config, folder / "items.json")
    cube = build_cube(
        items,
        grid,
        folder / "cube.zarr",
        features=[feature.name for feature in model.spec.features],
        years=config.years,
        year_start=config.year_start,
        profile=None if config.search.profile == "local" else config.search.profile,
        grd=config.grd.options(),
        **asdict(config.cube),
    )
    options = asdict(config.predict) | {"aoi": None, "mask": mask}
    maps = store.save(predict(cube, model, **options), folder / "probability.zarr", what="predicting")
    return items, cube, maps.assign_coords(source_scenes=source_scenes(cube))


def _items(config: RunConfig, path: Path) -> pystac.ItemCollection:
    """Search once; a resumed run goes on with the scenes it began with.

    The record holds no credentials. Where an address had some, a resumed run searches again and keeps the same scenes.
    """
    recorded = pystac.ItemCollection.from_file(str(path)) if path.exists() else None
    if recorded is not None and not recorded.extra_fields.get(_SCRUBBED, False):
        return recorded
    found = search(
        config.search.provider,
        config.region,
        config.years,
        features=config.search.features,
        orbit_state=config.search.orbit_state,
        relative_orbit=config.search.relative_orbit,
        platforms=config.search.platforms,
        year_start=config.year_start,
        profile=config.search.profile,
    )
    if recorded is not None:
        return _same_items(found, recorded)
    for item in found:
        item.clear_links()
    content = found.to_dict()
    clean = scrub(content)
    write_text(path, json.dumps(clean | {_SCRUBBED: clean != content}, indent=1))
    logger.info("found %d items", len(found))
    return found


def _same_items(found: pystac.ItemCollection, recorded: pystac.ItemCollection) -> pystac.ItemCollection:
    """Return the found items that the run began with."""
    by_id = {item.id: item for item in found}
    lost = [item.id for item in recorded if item.id not in by_id]
    if lost:
        raise EmptySearchError(
            f"{len(lost)} scenes of the interrupted run are no longer found, the first is {lost[0]!r}: "
            "start again in a new folder"
        )
    return pystac.ItemCollection([by_id[item.id] for item in recorded], extra_fields=recorded.extra_fields)
