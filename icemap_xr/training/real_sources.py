"""Sources of tiles that show real ground: files in the published HDF5 layout, and a cube with outlines."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ConfigDict

from icemap_xr import store
from icemap_xr.cube import open_cube
from icemap_xr.errors import InputError, did_you_mean
from icemap_xr.grid import RegionGrid
from icemap_xr.models.digests import sha256
from icemap_xr.training.cube_tiles import cube_tiles, described, read_outlines, read_table
from icemap_xr.training.hdf5 import open_tiles, pixel_size, place_of, tile_names, year_of
from icemap_xr.training.sources import PURPOSES, Purpose, Tiles
from icemap_xr.training.tiles import Tile
from icemap_xr.types import FeatureSpec
from icemap_xr.yearindex import Gaps

#: names that a table of a split may give the purposes
_SUBSETS: dict[str, Purpose] = {"val": "validation", **{one: one for one in PURPOSES}}
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Hdf5Section:
    """Tiles in the published HDF5 layout.

    Parameters
    ----------
    hdf5
        A file, or a file for each purpose. Paths are relative to the recipe's folder.
    train, validation, calibration, test
        Names of tiles with ``*`` and ``?`` for each purpose; with a file for each purpose, or with `split`, all by
        default. Without tiles for calibration those of validation serve it too, as in the published program.
    split
        A table (CSV, GeoPackage, shapefile, ...) with columns `codename` (the first part of a tile's name) and
        `subset` (train, val or validation, calibration, test).

    Raises
    ------
    InputError
        Keys or combinations that are not allowed.
    """

    __pydantic_config__ = _STRICT

    hdf5: str | dict[str, str]
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    calibration: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    split: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.hdf5, dict):
            for name in self.hdf5:
                if name not in PURPOSES:
                    known = ", ".join(PURPOSES)
                    raise InputError(f"hdf5 has {name!r}: allowed are {known}{did_you_mean(name, PURPOSES)}")
        elif self.split is None:
            for name in ("train", "validation", "test"):
                if not getattr(self, name):
                    raise InputError(f"{name} names no tile: give patterns of tile names, a file each, or split=")

    @contextmanager
    def open(self, features: Sequence[FeatureSpec], steps: int, base: Path) -> Iterator[Tiles]:
        """Yield the tiles; scenes and labels are read window by window.

        Raises
        ------
        InputError
            A purpose has no tile, or a place serves two purposes.
        ReadError, SchemaError
            A file cannot be read or does not have the layout.
        """
        chosen = self._chosen(base)
        names = [feature.name for feature in features]
        with ExitStack() as stack:
            tiles = {
                purpose: stack.enter_context(open_tiles(path, names, names=wanted))
                for purpose, (path, wanted) in chosen.items()
            }
            files = sorted({path for path, _ in chosen.values()})
            yield Tiles(
                f"tiles of {', '.join(path.name for path in files)}",
                True,
                pixel_size([tile for found in tiles.values() for tile in found]),
                {purpose: len(found) for purpose, found in tiles.items()},
                lambda purpose: iter(tiles[purpose]),
                year_unit,
                {
                    "files": {path.name: path.stat().st_size for path in files},
                    "tiles": {purpose: wanted for purpose, (_, wanted) in chosen.items()},
                },
            )

    def _chosen(self, base: Path) -> dict[Purpose, tuple[Path, list[str]]]:
        """Return file and tiles of each purpose."""
        subsets = None if self.split is None else _read_split(base / self.split)
        chosen: dict[Purpose, tuple[Path, list[str]]] = {}
        for purpose in PURPOSES:
            file = self.hdf5 if isinstance(self.hdf5, str) else self.hdf5.get(purpose)
            if file is None:
                continue
            patterns = getattr(self, purpose) or self._all(purpose, subsets)
            if not patterns:
                continue
            path = base / file
            wanted = [one for one in tile_names(path) if any(fnmatch.fnmatchcase(one, p) for p in patterns)]
            if subsets is not None:
                wanted = [one for one in wanted if subsets.get(place_of(one)) == purpose]
            chosen[purpose] = path, wanted
        # as published: the tiles that choose the weights also calibrate, where there are no others
        if "calibration" not in chosen and "validation" in chosen:
            chosen["calibration"] = chosen["validation"]
        for purpose in PURPOSES:
            if purpose not in chosen or not chosen[purpose][1]:
                raise InputError(f"{purpose} has no tile in the HDF5 files: check file, patterns and split")
        _check_places({purpose: {place_of(one) for one in wanted} for purpose, (_, wanted) in chosen.items()})
        return chosen

    def _all(self, purpose: Purpose, subsets: Mapping[str, Purpose] | None) -> tuple[str, ...]:
        """Return the patterns of a purpose that gives none."""
        if subsets is not None:
            return ("*",) if purpose in subsets.values() else ()
        return ("*",) if isinstance(self.hdf5, dict) else ()


def _check_places(places: Mapping[Purpose, set[str]]) -> None:
    """Raise `InputError` where one place serves two purposes, in whatever years."""
    for one, other in combinations(PURPOSES, 2):
        if {one, other} == {"validation", "calibration"} and places[one] == places[other]:
            continue
        both = sorted(places[one] & places[other])
        if both:
            raise InputError(
                f"place {both[0]!r} serves {one} and {other}: use each place for one purpose, in all years"
            )


def _read_split(path: Path) -> dict[str, Purpose]:
    """Return the purpose of each place."""
    table = read_table(path)
    for column in ("codename", "subset"):
        if column not in table:
            raise InputError(f"{path} has no column {column!r}: it has {', '.join(map(str, table))}")
    subsets: dict[str, Purpose] = {}
    for place, subset in zip(table["codename"].astype(str), table["subset"], strict=True):
        if pd.isna(subset):
            continue
        if subset not in _SUBSETS:
            raise InputError(f"{path}: subset of {place!r} is {subset!r}: allowed are {', '.join(_SUBSETS)}")
        subsets[place] = _SUBSETS[subset]
    return subsets


@dataclass(frozen=True)
class CubeSection:
    """Squares of a cube, labelled by outlines; all years of a square serve one purpose.

    Squares are shared out so that each purpose gets little and much ice alike. Squares of one cube are neighbours:
    for figures that hold elsewhere, judge the model with `icemap evaluate` on another region.

    Parameters
    ----------
    cube
        Cube (Zarr). Paths are relative to the recipe's folder.
    outlines
        Glacier polygons (GeoParquet, GeoPackage, ...), see `icemap_xr.training.cube_tiles.cube_tiles`.
    tile_px
        Side of a square in pixels, at least a training window.
    years
        Years; all of the cube by default.
    shares
        Share of the squares for each purpose; they add up to 1.
    seed
        Seed of who gets which of equally icy squares.
    gaps
        What to do with a step without a scene.

    Raises
    ------
    InputError
        The shares are not allowed.
    """

    __pydantic_config__ = _STRICT

    cube: str
    outlines: str
    tile_px: int
    years: tuple[int, ...] | None = None
    shares: dict[str, float] = field(
        default_factory=lambda: {"train": 0.6, "validation": 0.15, "calibration": 0.1, "test": 0.15}
    )
    seed: int = 0
    gaps: Gaps = "error"

    def __post_init__(self) -> None:
        if set(self.shares) != set(PURPOSES) or not all(share > 0 for share in self.shares.values()):
            raise InputError(f"shares are {self.shares}: give one above 0 for each of {', '.join(PURPOSES)}")
        if not np.isclose(sum(self.shares.values()), 1):
            raise InputError(f"shares add up to {sum(self.shares.values()):g}: make it 1")

    @contextmanager
    def open(self, features: Sequence[FeatureSpec], steps: int, base: Path) -> Iterator[Tiles]:
        """Yield the tiles; scenes are read from the store window by window.

        Raises
        ------
        InputError, SchemaError
            Cube, outlines and options do not fit together, or there are too few squares.
        """
        path, shapes = base / self.cube, base / self.outlines
        cube = open_cube(path)
        features = described(cube, features)
        made = cube_tiles(
            cube,
            read_outlines(shapes),
            features,
            years=self.years,
            side=self.tile_px,
            name=path.stem,
            gaps=self.gaps,
        )
        purposes = self._shared_out(made)
        tiles: dict[Purpose, list[Tile]] = {
            one: [t for t in made if purposes[square(t.name)] == one] for one in PURPOSES
        }
        yield Tiles(
            f"squares of the cube {path.name} with the outlines {shapes.name}",
            True,
            RegionGrid.from_dataset(cube).resolution,
            {purpose: len(found) for purpose, found in tiles.items()},
            lambda purpose: iter(tiles[purpose]),
            year_unit,
            {"cube": store.read_manifest(path)["files_sha256"], "outlines": sha256(shapes.read_bytes())},
            features=features,
        )

    def _shared_out(self, tiles: Sequence[Tile]) -> dict[str, Purpose]:
        """Return the purpose of each square: in order of ice, each goes to the purpose that lacks most."""
        ice: dict[str, list[float]] = {}
        for tile in tiles:
            whole = slice(0, tile.shape[0]), slice(0, tile.shape[1])
            ice.setdefault(square(tile.name), []).append(float(tile.shares(*whole)[..., 1].mean()))
        names = np.array(sorted(ice))
        np.random.default_rng(self.seed).shuffle(names)
        given = dict.fromkeys(PURPOSES, 0)
        found: dict[str, Purpose] = {}
        for number, name in enumerate(sorted(names.tolist(), key=lambda one: float(np.mean(ice[one]))), start=1):
            purpose = max(PURPOSES, key=lambda one: self.shares[one] * number - given[one])
            given[purpose] += 1
            found[name] = purpose
        empty = [purpose for purpose in PURPOSES if not given[purpose]]
        if empty:
            raise InputError(
                f"the cube gives {len(found)} squares of {self.tile_px} px, too few for {', '.join(empty)}: "
                "give a smaller tile_px or larger shares"
            )
        return found


def square(name: str) -> str:
    """Return the place of a cube's tile, by the tile's name."""
    return name.rsplit("_", 1)[0]


def year_unit(name: str) -> str:
    """Return the year in a tile's name, ``<place>_<year>`` or ``..._ro<orbit>``; the name itself where it has none."""
    return year_of(name) or name
