"""Tiles from a cube and glacier outlines; scenes stay on disk and are read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from shapely import STRtree, box
from shapely.geometry.base import BaseGeometry

from icemap_xr import schema, store
from icemap_xr.burning import rasterize
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.training.tiles import Tile
from icemap_xr.types import FeatureSpec, StrPath
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
    drawn = _drawn(outlines, labels, grid)
    indices = {one: _index(cube, one, labels, gaps, native) for one in names}
    tiles = []
    for position, year in enumerate(labels):
        stacks = {one: _stack(cube, one, position, native) for one in names}
        for row, column, rows, columns in _squares(grid.shape, side):
            shape = rows.stop - rows.start, columns.stop - columns.start
            series = {
                spec.name: _Scaled(stacks[spec.name], spec, (rows.start, columns.start), shape) for spec in features
            }
            index = {one: indices[one][position] for one in names}
            share = drawn[year].labels(grid, rows, columns)
            inside = slice(0, shape[0]), slice(0, shape[1])
            label = f"{name}-{row}-{column}_{year}"
            tiles.append(Tile(label, tuple(features), series, index, share, inside, grid.resolution))
    return tiles


def described(cube: xr.Dataset, features: Sequence[FeatureSpec]) -> tuple[FeatureSpec, ...]:
    """Return features with the polarisation and radiometry that a cube says they have; None where it does not."""
    found = []
    for one in features:
        attrs = cube[one.name].attrs if one.name in cube else {}
        polarisation, radiometry = (attrs.get(key) or None for key in ("polarisation", "radiometry"))
        found.append(replace(one, polarisation=polarisation, radiometry=radiometry))
    return tuple(found)


def read_outlines(path: StrPath) -> gpd.GeoDataFrame:
    """Read glacier polygons from GeoParquet or any vector file.

    Raises
    ------
    InputError
        The file cannot be read, holds no polygon, or has no CRS.
    """
    frame = read_table(path)
    if not isinstance(frame, gpd.GeoDataFrame) or frame.crs is None:
        raise InputError(f"{path} holds no geometries with a CRS: give GeoParquet or GeoPackage with a CRS")
    if not frame.geometry.geom_type.isin(("Polygon", "MultiPolygon")).any():
        raise InputError(f"{path} holds no polygon: give glacier outlines")
    return frame


def read_table(path: StrPath) -> pd.DataFrame:
    """Read a CSV file, GeoParquet, or any vector file.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".csv":
            return pd.read_csv(path)
        return gpd.read_parquet(path) if path.suffix.lower() == ".parquet" else gpd.read_file(path)
    except (OSError, ValueError, RuntimeError, KeyError) as error:  # pyogrio's own errors are RuntimeErrors
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())[:200]}): check the path") from None


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
    """Labels of not-glacier and glacier, drawn from polygons when asked for: no raster is kept."""

    shapes: Sequence[BaseGeometry]
    transform: Affine
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.size, 2)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.float32]:
        (top, bottom, _), (left, right, _) = (part.indices(n) for part, n in zip(key, self.size, strict=True))
        shape = bottom - top, right - left
        ice = np.zeros(shape, np.uint8)
        if self.shapes:
            there = self.transform * Affine.translation(left, top)
            ice = rasterize(self.shapes, shape, transform=there, dtype="uint8")
        return np.stack([1 - ice, ice], axis=-1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """Polygons of a year in the CRS of the grid, found by place."""

    tree: STRtree

    def labels(self, grid: RegionGrid, rows: slice, columns: slice) -> _OneHot:
        """Return the labels of a tile: a pixel is glacier if its centre lies in a polygon."""
        part = grid.geobox[rows, columns]
        near = np.sort(self.tree.query(box(*part.boundingbox.bbox)))
        shapes = [self.tree.geometries[number] for number in near]
        return _OneHot(shapes, part.transform, (rows.stop - rows.start, columns.stop - columns.start))


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


def _drawn(outlines: gpd.GeoDataFrame, years: Sequence[int], grid: RegionGrid) -> dict[int, _Drawn]:
    """Return the polygons of each year, projected once."""
    if not isinstance(outlines, gpd.GeoDataFrame) or getattr(outlines, "crs", None) is None:
        raise InputError(
            "outlines are no GeoDataFrame with a CRS: read them with geopandas, and set_crs if it has none"
        )
    shapes = outlines.geometry.to_crs(grid.crs)
    usable = ~(shapes.isna() | shapes.is_empty)
    if YEAR not in outlines.columns:
        return dict.fromkeys(years, _Drawn(STRtree(shapes[usable].to_numpy())))
    found = {}
    for year in years:
        chosen = outlines[YEAR] == year
        if not chosen.any():
            have = ", ".join(map(str, sorted(set(outlines[YEAR]))))
            raise InputError(f"outlines have no polygon of {year}, they have {have}: leave the year out with years=")
        found[year] = _Drawn(STRtree(shapes[usable & chosen].to_numpy()))
    return found
