"""What is added to a cube when its scenes are read: valid counts, holes, and the index of the scenes of each year."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import compute
from numpy.typing import NDArray

from icemap_xr import schema, store
from icemap_xr.errors import InputError
from icemap_xr.scenes import Scene
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub
from icemap_xr.yearindex import year_index

#: records of the blocks that could not be read, inside the store
HOLES = "icemap/holes"


def add_index(
    partial: Path, series: Mapping[str, Sequence[Scene]], index: Mapping[str, Any], attrs: Mapping[str, Any]
) -> dict[str, Any]:
    """Count valid pixels and holes per scene, index the years by the whole scenes, and add all that to the store."""
    counts: dict[str, dict[str, int]] = {}
    floors: dict[str, list[int]] = {}
    missing = _holes(partial)
    # the store takes the attributes of what is written last
    ds = xr.Dataset(coords={schema.YEAR: np.array(index["years"], np.int32)}, attrs=attrs)
    for name, scenes in series.items():
        one = schema.feature(name)
        valid, floor = _count(partial, name)
        mine = [hole for hole in missing if hole["feature"] == name]
        if not valid.any() and not mine:
            raise InputError(f"no {name} scene has a valid pixel on the grid: grid and scenes do not overlap")
        lost = np.array([sum(hole["position"] == t for hole in mine) for t in range(len(scenes))], np.int32)
        causes = [next((hole["cause"] for hole in mine if hole["position"] == t), "") for t in range(len(scenes))]
        table = year_index(
            np.array([scene.time for scene in scenes]),
            (valid > 0) & (lost == 0),
            index["years"],
            steps=index["steps"],
            year_start=index["year_start"],
            tolerance_days=index["tolerance_days"],
        )
        times = {schema.TIMES: schema.times_digest(np.array([scene.time for scene in scenes]))}
        note = {"long_name": f"position in {one.time}; -1 = no scene"}
        ds[one.index] = ((schema.YEAR, schema.STEP), table, note | times)
        ds[f"{name}_valid_pixels"] = (one.time, valid, {"long_name": "pixels with an observation", "units": "1"})
        ds[f"{name}_missing_blocks"] = (one.time, lost, {"long_name": "blocks that could not be read", "units": "1"})
        ds[f"{name}_missing_cause"] = (one.time, np.array(causes, np.dtypes.StringDType()))
        counts[name] = {scene.item_ids: int(count) for scene, count in zip(scenes, valid, strict=True)}
        floors[name] = [int(count) for count in floor]
    store.add_variables(ds, partial)
    digests = {name: [scene_digest(scene) for scene in scenes] for name, scenes in series.items()}
    return {"valid_pixels": counts, "floor_pixels": floors, "missing": missing, "scenes_sha256": digests}


def scene_digest(scene: Scene) -> str:
    """Return the sha256 of what a scene is read from; a signature in an address is no part of it."""
    hrefs = [scrub(item["assets"][scene.asset]["href"]) for item in scene.items]
    # what an item tells of nodata decides what is read, too
    assets = [item["assets"][scene.asset] for item in scene.items]
    told = [[band.get("nodata") for band in one.get("raster:bands") or one.get("bands") or ()] for one in assets]
    content = (scene.item_ids, scene.asset, scene.values, scene.time, hrefs, scene.band, scene.nodata, told)
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()


def scenes_digest(series: Mapping[str, Sequence[Scene]]) -> str:
    """Return the sha256 of what is read; a signature in an address is no part of it, for the next run has another."""
    content = {name: [scene_digest(scene) for scene in scenes] for name, scenes in series.items()}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def known_blocks(path: StrPath, plan: Mapping[str, Any]) -> dict[str, tuple[str, int]]:
    """Return where another cube holds whole scenes: array and position, by the scene's digest.

    Parameters
    ----------
    path
        A finished cube.
    plan
        Plan of the new cube, whose grid and resampling must be those of the other one.

    Raises
    ------
    InputError
        The other cube has another grid or was read in another way.
    """
    manifest = store.read_manifest(path)
    for key in ("grid", "reading"):
        old, new = dict(manifest["plan"][key]), dict(plan[key])
        # the size of chunks does not change a pixel
        old.pop("chunk", None), new.pop("chunk", None)
        if json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
            raise InputError(f"{path} cannot be reused: its {key} is {old}, this cube's is {new}")
    lost = {(hole["feature"], hole["position"]) for hole in manifest.get("missing", ())}
    return {
        digest: (str(Path(path).resolve() / name), position)
        for name, digests in manifest.get("scenes_sha256", {}).items()
        for position, digest in enumerate(digests)
        if (name, position) not in lost
    }


def _holes(partial: Path) -> list[dict[str, Any]]:
    """Return the records of all blocks that could not be read, with their place in the series and on the grid."""
    found = []
    for path in sorted((partial / HOLES).glob("*.json")):
        name, *place = path.stem.split("-")
        position, row, column = map(int, place)
        content = json.loads(path.read_text())
        found.append(content | {"feature": name, "position": position, "block": [row, column]})
    return sorted(found, key=lambda hole: (hole["feature"], hole["position"], hole["block"]))


def _count(partial: Path, name: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many pixels of each scene were observed, and how many of them lie at the feature's floor.

    At the floor is what has no power (or coherence) at all, and what is below the least value of the published scaling:
    calm water, and the ground outside an image whose fill value of 0 nobody declared.
    """
    one = schema.feature(name)
    codes = da.from_zarr(str(partial / name))
    lowest = np.int16(np.rint(np.float64(np.float32(one.minimum)) / one.step))
    counts = [(codes != schema.NODATA_CODE).sum(axis=(1, 2)), (codes == lowest).sum(axis=(1, 2))]
    valid, floor = compute(*counts)
    return np.asarray(valid), np.asarray(floor)
