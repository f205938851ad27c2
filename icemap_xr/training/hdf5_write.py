"""Write tiles in the published HDF5 layout, see `icemap_xr.training.hdf5`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.training.hdf5 import OUTLINES, PIXEL_SIZE
from icemap_xr.training.tiles import Tile, feature_specs
from icemap_xr.types import FeatureSpec, StrPath

#: side of the published windows, to whose multiples tiles are padded
PUBLISHED_WINDOW = 384
#: side of a chunk: training windows begin anywhere, and with larger chunks most of what is unpacked is not used
_CHUNK = 128


def write_tiles(
    tiles: Sequence[Tile], path: StrPath, *, relative_orbit: int | None = None, multiple: int = PUBLISHED_WINDOW
) -> Path:
    """Write tiles to an HDF5 file in the published layout.

    One group per tile with ``<feature> (time, y, x, 1)`` float32 (NaN = nodata), ``outlines (y, x, class)`` and the
    attributes ``height``, ``width``, ``orig_height``, ``orig_width``, ``pad_height``, ``pad_width``,
    ``<feature>_base_time_idx (step,)`` and ``pixel_size`` (m). The layout does not say how scenes are scaled, so they
    are written as the published networks scale them, whatever the scaling of the tiles. Tiles are padded with NaN
    (labels: 0) to a multiple of the window.

    Parameters
    ----------
    tiles
        Such as `icemap_xr.training.cube_tiles.cube_tiles` makes.
    path
        New file; it appears whole.
    relative_orbit
        Relative orbit, for the published names ``<tile>_<year>_ro<orbit>``; left out of the names by default.
    multiple
        Side of which a padded tile is a multiple, in pixels; 1 for no padding.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OutputExistsError
        The file exists.
    InputError
        There are no tiles, two have one name, or a step of a tile has no scene.
    """
    target = Path(path)
    if target.exists():
        raise OutputExistsError(f"{target} exists already: choose a new name or delete it")
    if not tiles or multiple < 1:
        raise InputError(f"{len(tiles)} tiles with multiple={multiple} cannot be written: give at least 1 of each")
    suffix = "" if relative_orbit is None else f"_ro{relative_orbit}"
    names = [f"{tile.name}{suffix}" for tile in tiles]
    if len(set(names)) < len(names):
        raise InputError("two tiles have the same name: name them apart")
    temporary = target.with_name(f".{target.name}.partial")
    try:
        with h5py.File(temporary, "w") as file:
            for name, tile in zip(names, tiles, strict=True):
                _write(file.create_group(name), tile, multiple)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _write(group: h5py.Group, tile: Tile, multiple: int) -> None:
    rows, columns = tile.inside
    size = (rows.stop - rows.start, columns.stop - columns.start)
    padded = tuple(-(-side // multiple) * multiple for side in size)
    # half above and to the left, as in the published file
    before = tuple((whole - side) // 2 for whole, side in zip(padded, size, strict=True))
    place = tuple(slice(start, start + side) for start, side in zip(before, size, strict=True))
    group.attrs[PIXEL_SIZE] = float(tile.resolution)
    attributes = {"height": padded[0], "width": padded[1], "orig_height": size[0], "orig_width": size[1]}
    group.attrs.update(attributes | {"pad_height": before[0], "pad_width": before[1]})
    for feature in tile.features:
        index = np.asarray(tile.index[feature.name], np.int64)
        if (index < 0).any():
            raise InputError(
                f"tile {tile.name!r}: {int((index < 0).sum())} steps of {feature.name} have no scene: make the tiles "
                "with gaps='nearest', or leave the year out"
            )
        series = tile.series[feature.name]
        count = series.shape[0]
        data = group.create_dataset(
            feature.name,
            shape=(count, *padded, 1),
            dtype="float32",
            chunks=(1, min(_CHUNK, padded[0]), min(_CHUNK, padded[1]), 1),
            compression="gzip",
            compression_opts=1,
            fletcher32=True,
            fillvalue=np.nan,
        )
        for time in range(count):
            layer: NDArray[np.float32] = np.full((*padded, 1), np.nan, np.float32)
            layer[place[0], place[1], 0] = _published(series[(time, rows, columns)], feature)
            data[time] = layer
        group.attrs[f"{feature.name}_base_time_idx"] = index
    labels = np.zeros((*padded, tile.labels.shape[2]), np.float32)
    labels[place] = tile.labels[(rows, columns)]
    group.create_dataset(OUTLINES, data=labels, compression="gzip", compression_opts=1, fletcher32=True)


def _published(values: NDArray[np.floating[Any]], have: FeatureSpec) -> NDArray[np.float32]:
    """Return scaled values as the published networks scale them."""
    (want,) = feature_specs([have.name])
    if (have.minimum, have.maximum) == (want.minimum, want.maximum):
        return np.asarray(values, np.float32)
    raw = np.asarray(values, np.float64) * (have.maximum - have.minimum) + have.minimum
    return ((raw - want.minimum) / (want.maximum - want.minimum)).astype(np.float32)
