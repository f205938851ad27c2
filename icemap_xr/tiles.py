"""Many regions, cut into tiles: a table of what is to be mapped, which any number of processes work off.

Tiles of one CRS lie on one grid, whose lines are multiples of a whole number of windows' strides, and each is mapped
with the ground around it that a window can see. So the windows over a tile are those of its whole region, and the maps
of neighbouring tiles fit without a seam. Results count for the tile alone, never for the ground around it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
from pyproj import CRS
from shapely import STRtree, box
from shapely.geometry.base import BaseGeometry

from icemap_xr.config import RunConfig, parse_config
from icemap_xr.errors import InputError, OutputExistsError, PlanError
from icemap_xr.folders import file_sha256, write_text
from icemap_xr.lineage import scrub
from icemap_xr.types import StrPath
from icemap_xr.vectors import as_frame, union_in_crs

PLAN, TABLE, MAP = "plan.json", "tiles.csv", "tiles.geojson"
_REGIONS = "regions"
#: of the files of a plan; another one cannot be read
FORMAT = 2
#: columns of a layer of regions that may hold the region's name
_NAMES = ("region", "name", "o1region", "full_name", "id")


@dataclass(frozen=True)
class Tile:
    """A piece of a region.

    Parameters
    ----------
    index
        Place in the plan, from 0.
    name
        Unique within the plan; also of its folder and archive.
    region
        Region it belongs to.
    crs
        CRS of the bounds.
    west, south, east, north
        What the tile stands for, in metres.
    """

    index: int
    name: str
    region: str
    crs: str
    west: float
    south: float
    east: float
    north: float

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north in the tile's CRS."""
        return self.west, self.south, self.east, self.north

    @property
    def km2(self) -> float:
        """Planar area."""
        return (self.east - self.west) * (self.north - self.south) / 1e6


@dataclass(frozen=True)
class TilePlan:
    """A plan of tiles in its folder.

    Parameters
    ----------
    folder
        Folder with the table, the records of what was done, and the results.
    config
        What is run for each tile; `name`, `region` and `grid.bounds` are those of a tile when it is run.
    tiles
        All tiles.
    halo_m
        Metres of ground around each tile that are read with it.
    inputs
        sha256 of what the configuration does not hold: `weights`, `aoi`, and the ground of each region of a layer.
    """

    folder: Path
    config: RunConfig
    tiles: tuple[Tile, ...]
    halo_m: float
    inputs: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def km2(self) -> float:
        """Planar area of all tiles."""
        return sum(tile.km2 for tile in self.tiles)

    def results(self, tile: Tile) -> Path:
        """Return the folder of a tile's results."""
        return self.folder / "results" / tile.name

    def outline(self, tile: Tile) -> Path | None:
        """Return the file with the ground of a tile's region; None where a plan has no layer of regions."""
        digest = self.inputs.get(f"{_REGIONS}/{tile.region}")
        if digest is None:
            return None
        path = self.folder / _REGIONS / f"{tile.region}.gpkg"
        if not path.exists() or file_sha256(path) != digest:
            raise PlanError(f"{path} is missing or was changed since the plan was made: make a new plan")
        return path

    def select(
        self, *, index: int | None = None, part: str | None = None, shard: str | None = None
    ) -> tuple[Tile, ...]:
        """Return some of the tiles.

        Parameters
        ----------
        index
            One tile.
        part
            A slice such as ``"100:200"``.
        shard
            Every n-th tile from the k-th (from 1), such as ``"2/8"``.

        Raises
        ------
        InputError
            Several are given, or one cannot be used.
        """
        if sum(one is not None for one in (index, part, shard)) > 1:
            raise InputError("index, slice and shard exclude each other: give one of them, or none for all tiles")
        if index is not None:
            if not 0 <= index < len(self.tiles):
                raise InputError(f"tile {index} is not in the plan: give 0 to {len(self.tiles) - 1}")
            return (self.tiles[index],)
        if part is not None:
            first, _, last = part.partition(":")
            if ":" not in part or not all(one == "" or one.isdigit() for one in (first, last)):
                raise InputError(f"slice {part!r} is not allowed: give FIRST:LAST, such as 100:200 (200 not included)")
            found = self.tiles[int(first or 0) : int(last) if last else None]
            if not found:
                raise InputError(f"slice {part!r} holds no tile: the plan has the tiles 0 to {len(self.tiles) - 1}")
            return found
        if shard is not None:
            number, _, count = shard.partition("/")
            if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
                raise InputError(f"shard {shard!r} is not allowed: give NUMBER/COUNT, such as 2/8")
            return self.tiles[int(number) - 1 :: int(count)]
        return self.tiles


def make_plan(
    config: RunConfig,
    folder: StrPath,
    *,
    regions: Any = None,
    tile_km: float,
    window: int,
    name: str | None = None,
    inputs: Mapping[str, str] | None = None,
) -> TilePlan:
    """Cut regions into tiles, and write the plan.

    Tiles of a layer of regions count on the ground of their region alone, so that regions which share a tile's ground
    do not count it twice.

    Parameters
    ----------
    config
        What to run for each tile.
    folder
        New or empty folder.
    regions
        Layer of regions: a vector file or GeoDataFrame, with a column of names, and, where regions have grids of their
        own, a column `crs`. By default the region of the configuration alone.
    tile_km
        Side of a tile in km; rounded up to whole strides of windows.
    window
        Side of the model's windows in pixels.
    name
        Column with the regions' names; by default the first of region, name, o1region, full_name, id.
    inputs
        sha256 of what the configuration names and does not hold.

    Returns
    -------
    TilePlan
        The plan, read back.

    Raises
    ------
    InputError
        The regions cannot be used, the tile is no size, or the configuration holds credentials.
    OutputExistsError
        The folder is not empty.
    """
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not empty: choose a new folder for the plan")
    if not 0 < tile_km < 10_000:
        raise InputError(f"tile size {tile_km} km is not allowed: give km > 0")
    config = _normal(config)
    content = config.to_dict()
    if scrub(content) != content:
        raise InputError(
            "the configuration holds credentials, and a plan would store them: name environment variables in a "
            "provider profile instead"
        )
    stride = max(1, round(window * (1 - config.predict.overlap)))
    step = stride * config.grid.resolution
    side = math.ceil(tile_km * 1000 / step) * step
    # what a window that covers the tile's edge can see, rounded up to strides so that windows stay in their places
    halo = math.ceil(window / stride) * step
    tiles: list[Tile] = []
    shapes: list[tuple[str, gpd.GeoDataFrame]] = []
    for region, crs, shape in _regions(config, regions, name):
        # regions apart from each other, too: the second one's ground would replace the first one's
        # nor may a file system that takes capitals for small letters mix them up
        if region.casefold() in {known.casefold() for known, _ in shapes}:
            raise InputError(
                f"several regions would have tiles named {region!r}: of names, letters, digits, _ and - are kept, 60 "
                "at most, and capitals do not count; give the regions names that differ in these"
            )
        if regions is not None:
            shapes.append((region, gpd.GeoDataFrame(geometry=[shape], crs=crs)))
        tiles += _cut(region, crs, shape, side, len(tiles))
    if not tiles:
        raise InputError("the regions hold no tile: give polygons with an area")
    plan = TilePlan(target, config, tuple(tiles), halo)
    target.mkdir(parents=True, exist_ok=True)
    digests = dict(inputs or {})
    for region, frame in shapes:
        (target / _REGIONS).mkdir(exist_ok=True)
        path = target / _REGIONS / f"{region}.gpkg"
        frame.to_file(path, driver="GPKG", layer="region")
        digests[f"{_REGIONS}/{region}"] = file_sha256(path)
    table = _table(plan.tiles)
    write_text(target / TABLE, table)
    write_text(target / MAP, _frame(plan.tiles).to_json())
    head = {
        "format": FORMAT,
        "icemap_xr": version("icemap-xr"),
        "config": content,
        "digest": config.digest,
        "halo_m": halo,
        "tiles": len(tiles),
        "inputs": digests,
        "table_sha256": hashlib.sha256(table.encode()).hexdigest(),
    }
    # last: a plan without it was not finished
    write_text(target / PLAN, json.dumps(head, indent=1))
    return read_plan(target)


def read_plan(folder: StrPath, config: RunConfig | None = None) -> TilePlan:
    """Read a plan, and refuse one that is not what it claims to be.

    Parameters
    ----------
    folder
        Folder of the plan.
    config
        The configuration that the plan shall have been made with; by default its own is taken.

    Raises
    ------
    PlanError
        There is none, it was made by another version or with other options, or its table was changed.
    """
    path = Path(folder)
    try:
        head = json.loads((path / PLAN).read_text())
        table = (path / TABLE).read_text()
        made_by, digest = str(head["icemap_xr"]), str(head["digest"])
    except FileNotFoundError:
        raise PlanError(f"{folder} holds no plan: make one with icemap tiles plan") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PlanError(f"the plan in {folder} cannot be read ({type(error).__name__}): make a new one") from None
    here = version("icemap-xr")
    if head.get("format") != FORMAT or made_by != here:
        raise PlanError(
            f"the plan in {folder} was made by icemap-xr {made_by}, this is {here}: tiles of two versions do not "
            "belong together; run it with that version, or make a new plan"
        )
    if hashlib.sha256(table.encode()).hexdigest() != head.get("table_sha256"):
        raise PlanError(f"{path / TABLE} was changed since the plan was made: make a new plan")
    own = parse_config(head["config"], str(path / PLAN))
    if own.digest != digest:
        raise PlanError(f"{path / PLAN} was changed since the plan was made: make a new plan")
    config = None if config is None else _normal(config)
    if config is not None and config.digest != digest:
        raise PlanError(
            f"the plan in {folder} was made with other options than this configuration ({_difference(own, config)}): "
            "use that configuration, or make a new plan in another folder"
        )
    # how it is run may change between runs, what comes out may not
    return TilePlan(
        path, own if config is None else config, _tiles(path / TABLE), float(head["halo_m"]), head["inputs"]
    )


def _normal(config: RunConfig) -> RunConfig:
    """Return a configuration as it is read from a file, where 15 and 15.0 are the same."""
    return parse_config(config.to_dict(), "the configuration")


def _difference(one: RunConfig, other: RunConfig) -> str:
    first, second = one.to_dict(), other.to_dict()
    return ", ".join(key for key in first if key != "cluster" and first[key] != second.get(key)) or "order of keys"


def _regions(config: RunConfig, regions: Any, name: str | None) -> Iterator[tuple[str, str, BaseGeometry]]:
    """Yield name, CRS and shape of each region, in the order of their names."""
    default = config.grid.crs
    if regions is None:
        if config.grid.bounds is not None:
            yield _plain(config.name), default, box(*config.grid.bounds)
            return
        yield _plain(config.name), default, union_in_crs(config.region, default)
        return
    frame = as_frame(regions)
    column = name or next((one for one in _NAMES if one in frame), None)
    if column is None or column not in frame:
        raise InputError(
            f"the layer of regions has no column {name or ' or '.join(_NAMES)}: it has "
            f"{', '.join(map(str, frame.columns))}; name the one that holds their names"
        )
    for region, part in frame.groupby(frame[column].astype(str), sort=True):
        found = sorted(set(part["crs"].astype(str))) if "crs" in part else [default]
        if len(found) > 1:
            raise InputError(f"region {region!r} has several CRS ({', '.join(found)}): give one")
        yield _plain(str(region)), found[0], union_in_crs(part, found[0])


def _plain(name: str) -> str:
    """Return a name that a folder and an archive can have."""
    text = "".join(char if char.isalnum() or char in "_-" else "-" for char in name).strip("-") or "region"
    return text[:60]


def _cut(region: str, crs: str, shape: BaseGeometry, side: float, first: int) -> list[Tile]:
    """Return the tiles that share ground with a region."""
    if CRS.from_user_input(crs).is_geographic:
        raise InputError(f"region {region!r}: {crs} is geographic: use a projected CRS in metres, for example UTM")
    west, south, east, north = shape.bounds
    columns = np.arange(math.floor(west / side), math.ceil(east / side))
    rows = np.arange(math.floor(south / side), math.ceil(north / side))
    if columns.size * rows.size > 10_000_000:
        raise InputError(f"region {region!r} spans {columns.size * rows.size:,} tiles: give a larger tile size")
    where = [(int(row), int(column)) for row in rows[::-1] for column in columns]
    boxes = [box(column * side, row * side, (column + 1) * side, (row + 1) * side) for row, column in where]
    hits = np.sort(STRtree(boxes).query(shape, predicate="intersects"))
    kept = [(where[hit], boxes[hit]) for hit in hits if not boxes[hit].touches(shape)]
    return [
        Tile(first + number, f"{region}_r{_signed(row)}_c{_signed(column)}", region, crs, *one.bounds)
        for number, ((row, column), one) in enumerate(kept)
    ]


def _signed(number: int) -> str:
    return f"m{-number}" if number < 0 else str(number)


def _table(tiles: tuple[Tile, ...]) -> str:
    return pd.DataFrame([asdict(tile) for tile in tiles]).to_csv(index=False)


def _tiles(path: Path) -> tuple[Tile, ...]:
    frame = pd.read_csv(path, dtype={"name": str, "region": str, "crs": str}, keep_default_na=False)
    names = [one.name for one in fields(Tile)]
    columns = [frame[name].tolist() for name in names]
    return tuple(Tile(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True))


def _frame(tiles: tuple[Tile, ...]) -> gpd.GeoDataFrame:
    """Return the tiles as polygons in lon/lat."""
    parts = []
    for crs in sorted({tile.crs for tile in tiles}):
        own = [tile for tile in tiles if tile.crs == crs]
        content = pd.DataFrame({"index": [one.index for one in own], "name": [one.name for one in own]})
        content["region"] = [one.region for one in own]
        shapes = [box(*one.bounds) for one in own]
        parts.append(gpd.GeoDataFrame(content, geometry=shapes, crs=crs).to_crs("EPSG:4326"))
    joined = gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), crs="EPSG:4326")
    return joined.sort_values("index", ignore_index=True)
