"""Tiles from a cube and glacier outlines; scenes stay on disk and are read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rasterio.features import rasterize

from icemap_xr import schema, store
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.training.tiles import Tile
from icemap_xr.types import FeatureSpec
from icemap_xr.yearindex import Gaps, fill_gaps, select_years

#: column of the outlines that says to which year a polygon belongs
YEAR = "year"


def cube_tiles(
    cube: xr.Dataset,
    outlines: gpd.GeoDataFrame,
    features: Sequence[FeatureSpec],
    *,
    years: Sequence[int] | None = None,
    side: int | None = None,
    name: str = "cube",
    gaps: Gaps = "error",
) -> list[Tile]:
    """Cut a cube into labelled tiles.

    Parameters
    ----------
    cube
        A native cube (its whole series then serves the time jitter) or a model view `(year, step, y, x)`, with a CRS.
    outlines
        Glacier polygons in any CRS. With a column `year` each year has the polygons of that year; without, all years
        have all polygons. A pixel is glacier if its centre lies in one; all of the cube counts as known.
    features
        Features and how they are scaled.
    years
        Years; all by default.
    side
        Side of a tile in pixels, counted from the cube's upper left corner; what is left at the far edges is not
        used. None for one tile of everything.
    name
        Tiles are named ``<name>-<row>-<column>_<year>``.
    gaps
        What to do with a step that has no scene, see `icemap_xr.yearindex.fill_gaps`.

    Raises
    ------
    InputError
        The outlines cannot be used, lack a year, or `side` does not fit.
    SchemaError
        The cube lacks a feature, a year or a CRS, or has gaps.
    """
    names = tuple(feature.name for feature in features)
    native = _check(cube, names)
    cube = select_years(cube, years)
    grid = RegionGrid.from_dataset(cube)
    labels = [int(year) for year in cube[schema.YEAR].values]
    indices = {one: _index(cube, one, labels, gaps, native) for one in names}
    tiles = []
    for position, year in enumerate(labels):
        ice = _rasterized(outlines, year, grid)
        stacks = {one: _stack(cube, one, position, native) for one in names}
        for row, column, rows, columns in _squares(grid.shape, side):
            shape = rows.stop - rows.start, columns.stop - columns.start
            series = {
                spec.name: _Scaled(stacks[spec.name], spec, (rows.start, columns.start), shape) for spec in features
            }
            index = {one: indices[one][position] for one in names}
            share = _OneHot(ice[rows, columns])
            inside = slice(0, shape[0]), slice(0, shape[1])
            tiles.append(Tile(f"{name}-{row}-{column}_{year}", tuple(features), series, index, share, inside))
    return tiles


def _check(cube: xr.Dataset, names: tuple[str, ...]) -> bool:
    """Return whether the cube is native rather than a model view, if it has the features."""
    if not schema.is_native(cube):
        schema.validate_yearly(cube, names, "cutting tiles")
        return False
    absent = [one for one in names if one not in schema.validate_cube(cube, "cutting tiles")]
    if absent:
        raise InputError(f"the cube has no {', '.join(absent)}: it has {', '.join(map(str, cube.data_vars))}")
    return True


@dataclass(frozen=True, eq=False)
class _Scaled:
    """Scaled scenes of a tile, read from the cube when asked for."""

    stack: Any
    spec: FeatureSpec
    offset: tuple[int, int]
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (int(self.stack.shape[0]), *self.size)

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        step, *block = key
        there = [slice(part.start + o, part.stop + o) for part, o in zip(block, self.offset, strict=True)]
        return self.spec.scale(np.asarray(self.stack[(step, *there)]))


@dataclass(frozen=True, eq=False)
class _OneHot:
    """Labels of not-glacier and glacier from one byte per pixel."""

    ice: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.ice.shape, 2)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        ice = self.ice[key]
        return np.stack([1 - ice, ice], axis=-1).astype(np.float32)


def _squares(shape: tuple[int, int], side: int | None) -> list[tuple[int, int, slice, slice]]:
    """Return row and column number, rows and columns of each tile."""
    if side is None:
        return [(0, 0, slice(0, shape[0]), slice(0, shape[1]))]
    if not 1 <= side <= min(shape):
        raise InputError(f"a tile of {side} px does not fit a cube of {shape} px: give 1 to {min(shape)}, or None")
    return [
        (i, j, slice(i * side, (i + 1) * side), slice(j * side, (j + 1) * side))
        for i in range(shape[0] // side)
        for j in range(shape[1] // side)
    ]


def _stack(cube: xr.Dataset, name: str, position: int, native: bool) -> Any:
    """Return scenes `(time, y, x)`: the store's own array where nothing was done to the cube since it was opened."""
    if not native:
        return cube[name].isel({schema.YEAR: position}).data
    data = cube[name].data
    source = store.untouched(data)
    return data if source is None else source


def _index(cube: xr.Dataset, name: str, years: Sequence[int], gaps: Gaps, native: bool) -> NDArray[np.intp]:
    """Return positions `(year, step)`."""
    if not native:
        return np.tile(np.arange(cube.sizes[schema.STEP], dtype=np.intp), (len(years), 1))
    table = fill_gaps(cube[schema.feature(name).index].values, gaps, feature=name, years=years)
    return table.astype(np.intp)


def _rasterized(outlines: gpd.GeoDataFrame, year: int, grid: RegionGrid) -> NDArray[np.uint8]:
    """Return 1 where a pixel's centre is glacier, `(y, x)` uint8."""
    if not isinstance(outlines, gpd.GeoDataFrame) or getattr(outlines, "crs", None) is None:
        raise InputError(
            "outlines are no GeoDataFrame with a CRS: read them with geopandas, and set_crs if it has none"
        )
    chosen = outlines
    if YEAR in outlines.columns:
        chosen = outlines[outlines[YEAR] == year]
        if chosen.empty:
            have = ", ".join(map(str, sorted(set(outlines[YEAR]))))
            raise InputError(f"outlines have no polygon of {year}, they have {have}: leave the year out with years=")
    shapes = [one for one in chosen.geometry.to_crs(grid.crs) if one is not None and not one.is_empty]
    if not shapes:
        return np.zeros(grid.shape, np.uint8)
    ice: NDArray[np.uint8] = rasterize(shapes, grid.shape, transform=grid.geobox.transform, dtype="uint8")
    return ice
