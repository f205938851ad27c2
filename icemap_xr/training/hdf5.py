"""Tiles in the published HDF5 layout: one group per tile with scaled scenes and one-hot outlines, read block by block.

Layout of a group, named for example ``SVAL-10-38_2020_ro14``:

* ``<feature> (time, y, x, 1)``: scenes scaled as for the published networks, the whole native series;
* ``outlines (y, x, class)``: one-hot labels;
* attributes ``height``, ``width`` (padded size), ``orig_height``, ``orig_width``, ``pad_height``, ``pad_width``
  (padding above and to the left), and ``<feature>_base_time_idx (step,)``: positions of the year's scenes in the
  series;
* beyond the published layout, which means 10 m: the attribute ``pixel_size`` in m.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError, ReadError, SchemaError
from icemap_xr.training.tiles import RESOLUTION, Tile, feature_specs
from icemap_xr.types import StrPath

OUTLINES = "outlines"
#: attribute with the pixel size in m; the published files have none
PIXEL_SIZE = "pixel_size"
#: names of published tiles and of those of cubes: ``<place>_<year>`` and perhaps ``_ro<relative orbit>``
_NAME = re.compile(r"(?P<place>.+)_(?P<year>\d{4})(_ro\d+)?")
_SIZES = ("height", "width", "orig_height", "orig_width", "pad_height", "pad_width")


@contextmanager
def open_tiles(path: StrPath, features: Sequence[str], *, names: Sequence[str] | None = None) -> Iterator[list[Tile]]:
    """Open a file of tiles; scenes and labels are read when windows ask for them, as long as the file is open.

    Parameters
    ----------
    path
        HDF5 file.
    features
        Features to read; each tile must have them all.
    names
        Tiles to open, by name of their group; all by default.

    Yields
    ------
    list of Tile
        In the order of `names`, or by name.

    Raises
    ------
    ReadError
        The file is not HDF5, is truncated, or a block cannot be read.
    SchemaError
        A group does not have the layout, or holds a link or dataset that points outside the file.
    """
    with _opened(path) as file:
        chosen = sorted(file) if names is None else list(names)
        if not chosen:
            raise SchemaError(f"{path} holds no tile: give a file with one group per tile")
        yield [_tile(file, name, features, Path(path).name) for name in chosen]


def tile_names(path: StrPath) -> list[str]:
    """Return the names of all tiles of a file, sorted.

    Raises
    ------
    ReadError
        The file is not HDF5, or is truncated.
    """
    with _opened(path) as file:
        return sorted(file)


def place_of(name: str) -> str:
    """Return the place in a tile's name: ``SVAL-10-38`` of ``SVAL-10-38_2020_ro14``; a name without a year is one."""
    match = _NAME.fullmatch(name)
    return match["place"] if match else name


def year_of(name: str) -> str | None:
    """Return the year in a tile's name: ``2020`` of ``SVAL-10-38_2020_ro14``; None where it holds none."""
    match = _NAME.fullmatch(name)
    return match["year"] if match else None


def pixel_size(tiles: Sequence[Tile]) -> float:
    """Return the pixel size of tiles, m.

    Raises
    ------
    InputError
        They do not have the same.
    """
    first = tiles[0]
    for tile in tiles:
        if not np.isclose(tile.resolution, first.resolution, rtol=1e-6, atol=0):
            raise InputError(
                f"tile {tile.name!r} has pixels of {tile.resolution:g} m, {first.name!r} of {first.resolution:g} m: "
                "use tiles of one pixel size"
            )
    return first.resolution


def _opened(path: StrPath) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ReadError(f"{path} cannot be opened as HDF5 ({_line(error)}): check the path, or copy it again") from None


@dataclass(frozen=True, eq=False)
class _Scenes:
    """Scenes `(time, y, x)` of a dataset `(time, y, x, 1)`."""

    data: h5py.Dataset
    shape: tuple[int, ...]

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        return _read(self.data, (*key, 0))


@dataclass(frozen=True, eq=False)
class _Labels:
    """One-hot labels, checked as they are read."""

    data: h5py.Dataset
    shape: tuple[int, ...]

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        values = _read(self.data, key)
        if not (np.isin(values, (0, 1)).all() and (values.sum(axis=-1) <= 1).all()):
            raise SchemaError(f"{self.data.name}: labels are not one-hot: give 1 for a pixel's class, else 0")
        return values


def _read(data: h5py.Dataset, key: tuple[Any, ...]) -> NDArray[np.float32]:
    try:
        return np.asarray(data[key], np.float32)
    except OSError as error:
        raise ReadError(f"{data.name} cannot be read ({_line(error)}): copy {data.file.filename} again") from None


def _tile(file: h5py.File, name: str, features: Sequence[str], source: str) -> Tile:
    where = f"{source}: tile {name!r}"
    if "/" in name or name not in file:
        raise SchemaError(f"{where} is not in the file: it has {len(file)} tiles, such as {next(iter(file), 'none')!r}")
    group = _own(file, name, h5py.Group, where)
    labels = _own(group, OUTLINES, h5py.Dataset, where)
    if labels.ndim != 3 or labels.shape[2] < 2:
        raise SchemaError(f"{where}: {OUTLINES} has shape {labels.shape}, needed is (y, x, 2 or more classes)")
    sizes = {key: _whole(group, key, where) for key in _SIZES}
    shape = sizes["height"], sizes["width"]
    if labels.shape[:2] != shape:
        raise SchemaError(f"{where}: {OUTLINES} has shape {labels.shape}, height and width are {shape}: repair them")
    series, index = {}, {}
    for feature in features:
        data = _own(group, feature, h5py.Dataset, where)
        if data.ndim != 4 or data.shape[1:] != (*shape, 1):
            raise SchemaError(f"{where}: {feature} has shape {data.shape}, needed is (time, {shape[0]}, {shape[1]}, 1)")
        series[feature] = _Scenes(data, data.shape[:3])
        index[feature] = _index(group, f"{feature}_base_time_idx", where)
    top, left = sizes["pad_height"], sizes["pad_width"]
    inside = slice(top, top + sizes["orig_height"]), slice(left, left + sizes["orig_width"])
    try:
        found = _Labels(labels, labels.shape)
        return Tile(name, feature_specs(features), series, index, found, inside, _resolution(group, where))
    except InputError as error:
        raise SchemaError(f"{source}: {error}") from None


def _own(group: h5py.Group, name: str, kind: type[Any], where: str) -> Any:
    """Return a member that lies in the file itself; links elsewhere could read any file of the user."""
    link = group.get(name, getlink=True)
    if link is None:
        raise SchemaError(f"{where} has no {name}: it has {', '.join(group) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        raise SchemaError(f"{where}: {name} is a link to elsewhere: copy the data into the file")
    found = group[name]
    if not isinstance(found, kind):
        raise SchemaError(f"{where}: {name} is a {type(found).__name__.lower()}, needed is a {kind.__name__.lower()}")
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            raise SchemaError(f"{where}: {name} takes its data from other files: copy the data into the file")
        if found.dtype.kind not in "fiub":
            raise SchemaError(f"{where}: {name} has dtype {found.dtype}, needed are numbers")
    return found


def _whole(group: h5py.Group, name: str, where: str) -> int:
    values = _attribute(group, name, where)
    if values.size != 1 or not float(values.ravel()[0]).is_integer() or values.ravel()[0] < 0:
        raise SchemaError(f"{where}: attribute {name} is {values.tolist()}, needed is a whole number of 0 or more")
    return int(values.ravel()[0])


def _resolution(group: h5py.Group, where: str) -> float:
    if PIXEL_SIZE not in group.attrs:
        return RESOLUTION
    values = _attribute(group, PIXEL_SIZE, where)
    if values.size != 1:
        raise SchemaError(f"{where}: attribute {PIXEL_SIZE} is {values.tolist()}, needed is one number in m")
    return float(values.ravel()[0])


def _index(group: h5py.Group, name: str, where: str) -> NDArray[np.intp]:
    values = _attribute(group, name, where)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or (values < 0).any():
        raise SchemaError(f"{where}: attribute {name} must be a list of positions in the series, 0 or more")
    return values.astype(np.intp)


def _attribute(group: h5py.Group, name: str, where: str) -> NDArray[Any]:
    if name not in group.attrs:
        raise SchemaError(f"{where} has no attribute {name}: it has {', '.join(group.attrs) or 'none'}")
    values = np.asarray(group.attrs[name])
    if values.dtype.kind not in "fiu":
        raise SchemaError(f"{where}: attribute {name} has dtype {values.dtype}, needed are numbers")
    return values


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
