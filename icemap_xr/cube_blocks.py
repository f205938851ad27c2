"""The lazy series of a cube: one task for each scene and chunk, which reads it or copies it from another cube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.highlevelgraph import HighLevelGraph
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.cube_index import scene_digest, scenes_digest
from icemap_xr.grid import RegionGrid
from icemap_xr.reading import BlockCopy, BlockRead, Reading
from icemap_xr.scenes import Scene


@dataclass(frozen=True)
class Jobs:
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


def native_series(name: str, scenes: Sequence[Scene], grid: RegionGrid, jobs: Jobs) -> xr.Dataset:
    """Return the lazy int16 series of a feature with its time axis."""
    one = schema.feature(name)
    attrs = {
        "long_name": one.long_name,
        "units": one.units,
        "grid_mapping": schema.SPATIAL_REF,
        "scale_factor": one.step,
        "add_offset": 0.0,
        "_FillValue": schema.NODATA_CODE,
        "encoding_error": one.encoding_error,
    }
    # what is not known is not there, and then no model can differ from it
    known = {"polarisation": scenes[0].polarisation, "radiometry": scenes[0].radiometry}
    attrs |= {key: value for key, value in known.items() if value}
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
    data = lazy_series(name, scenes, grid, jobs)
    return xr.Dataset({name: ((one.time, schema.Y, schema.X), data, attrs)}, coords=coords)


def lazy_series(name: str, scenes: Sequence[Scene], grid: RegionGrid, jobs: Jobs) -> da.Array:
    """Return `(time, y, x)` int16 with one reading task per scene and chunk."""
    side = jobs.chunk
    slices = [[slice(start, min(start + side, size)) for start in range(0, size, side)] for size in grid.shape]
    key = f"icemap-read-{name}-{scenes_digest({name: scenes})[:16]}"
    graph: dict[Any, Any] = {
        (key, t, i, j): (jobs.block(scene, (t, i, j), grid.piece(rows, columns), (rows, columns)),)
        for t, scene in enumerate(scenes)
        for i, rows in enumerate(slices[0])
        for j, columns in enumerate(slices[1])
    }
    sizes = (tuple(s.stop - s.start for s in slices[0]), tuple(s.stop - s.start for s in slices[1]))
    layers = HighLevelGraph.from_collections(key, graph, dependencies=())
    return da.Array(layers, key, ((1,) * len(scenes), *sizes), dtype=np.int16)
