"""Later years are added to an archive: readers see the old one until the new one is whole."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import xarray as xr
import zarr

from icemap_xr import schema, store
from icemap_xr.archive import (
    LAYERS,
    attributes,
    content_hash,
    open_archive,
    pixel_identity,
    read_glaciers,
    read_outlines,
    write_sidecars,
    write_store,
)
from icemap_xr.cftables import OUTLINE_OPTIONS, encode_polygons, plain
from icemap_xr.drawcalls import with_draw_calls
from icemap_xr.errors import GridError, InputError, OutputExistsError
from icemap_xr.grid import RegionGrid
from icemap_xr.lineage import scrub
from icemap_xr.tableyears import check_years, in_order
from icemap_xr.types import Calibrator, StrPath

#: attributes in which the areas of one archive must agree
_KIND_OF_AREAS = {
    "interval_kind",
    "interval_method",
    "level",
    "method",
    "threshold",
    "estimator",
    "area_kind",
    "calibrated",
    "calibrator",
    "temporal_filter",
}
_EXCHANGE, _HERE = 2, -100  # RENAME_EXCHANGE and AT_FDCWD of Linux


@dataclass(frozen=True)
class Recorded:
    """The calibration an archive recorded, as `archive` wants it again."""

    content: Mapping[str, Any]

    def __call__(self, probability: Any, /) -> Any:
        """Refuse: the record is for keeping, not for use."""
        raise NotImplementedError("load the calibrator with ds.icemap.calibrate(record) instead")

    def to_json(self) -> dict[str, Any]:
        """Return the record."""
        return dict(self.content)


def append(
    path: StrPath,
    ds: xr.Dataset,
    *,
    areas: xr.Dataset | None = None,
    outlines: gpd.GeoDataFrame | None = None,
    glaciers: gpd.GeoDataFrame | None = None,
    blocks: xr.Dataset | None = None,
    calibrator: Calibrator | None = None,
    lineage: Mapping[str, Any] | None = None,
) -> Path:
    """Add later years to an archive.

    A whole new store is written beside the old one and takes its place at once; until then readers see the old one. Old
    years keep their chunks' positions, so maps that are open at that moment go on reading the same numbers. Killed
    wherever, the same call made again resumes, and does nothing where it was done already; a call with other data drops
    what a killed one left.

    Parameters
    ----------
    path
        The archive.
    ds
        Maps of later years on the archive's grid, with `calibrated` if the archive has it.
    areas, outlines, glaciers, blocks
        Of the new years and no others; needed exactly where the archive has them. Areas without a dim `year`, such as
        a trend, must be the same in both: else they would hold for neither. New draws are not paired with the old ones,
        whatever their seed: the coordinate `draw_call (year)` says so, and `change` and `trend` refuse to compare them.
    calibrator
        What made `calibrated`; must be the archive's.
    lineage
        Where the new years come from; kept as an entry of `appended`.

    Raises
    ------
    InputError
        A year is there already or earlier than the archive's last, a table is missing or of other years than the maps,
        or the calibrators or the options of the outlines differ.
    GridError
        The grids differ.
    StoreBusyError
        Another process is writing the archive.
    """
    path = Path(path)
    with store.exclusive(path):
        _settle(path)
        tree = open_archive(path)
        old = tree["maps"].to_dataset()
        given = {"areas": areas, "outlines": outlines, "glaciers": glaciers, "blocks": blocks}
        entry = scrub({**(lineage or {}), "years": ds[schema.YEAR].values, "sha256": _digest(ds, given, lineage)})
        record = attributes(tree, "lineage")
        done = record.get("appended", [])
        if not (done and done[-1]["sha256"] == entry["sha256"]):
            _check_append(path, tree, old, ds, calibrator)
            check_years([int(year) for year in ds[schema.YEAR].values], {**given})
            ds, areas, blocks = in_order(ds), areas and in_order(areas), blocks and in_order(blocks)
            following = _beside(path, "next")
            write = partial(
                write_store,
                _concatenated(old, ds),
                following,
                areas=_joined_areas(areas_of(tree), areas),
                outlines=_joined(read_outlines(tree), outlines, tree, "outlines"),
                glaciers=_joined(read_glaciers(tree), glaciers, tree, "glaciers"),
                blocks=_joined_blocks(tree, blocks),
                calibration=attributes(tree, "calibration"),
                record={**record, "appended": [*done, entry]},
                region=tree.attrs["region"],
                appended=True,
            )
            try:
                write()
            except OutputExistsError:  # the draft of a killed call with other data, which nobody else can want
                for draft in (following, store.partial_path(following)):
                    shutil.rmtree(draft, ignore_errors=True)
                write()
            _take_place(following, path)
        write_sidecars(path)
    return path


def append_archive(path: StrPath, new: StrPath) -> Path:
    """Add the years of another archive of the same grid, with its tables and its lineage; see `append`."""
    tree = open_archive(new)
    maps = tree["maps"].to_dataset()
    calibration = attributes(tree, "calibration")
    return append(
        path,
        maps[[name for name in LAYERS if name in maps]],
        areas=areas_of(tree),
        outlines=read_outlines(tree) if tree["outlines"].attrs["columns"] else None,
        glaciers=read_glaciers(tree) if tree["glaciers"].attrs["columns"] else None,
        blocks=_blocks_of(tree),
        calibrator=Recorded(calibration) if calibration else None,
        lineage=attributes(tree, "lineage"),
    )


def areas_of(tree: xr.DataTree) -> xr.Dataset | None:
    """Return areas and draws of an opened archive as they were given to it; None if there are none."""
    nodes = [tree[node].to_dataset().load() for node in ("areas", "draws")]
    found = xr.merge(nodes, compat="no_conflicts", join="outer", combine_attrs="override")
    return found if found.data_vars else None


def _blocks_of(tree: xr.DataTree) -> xr.Dataset | None:
    found = tree["blocks"].to_dataset().load()
    return found if found.data_vars else None


def _digest(ds: xr.Dataset, tables: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> str:
    """Return what identifies a call, so that the same one made again is known."""
    grid = RegionGrid.from_dataset(schema.validate_maps(ds, "append"))
    made: dict[str, Any] = {name: pixel_identity(ds[name]) for name in LAYERS if name in ds}
    for name, table in tables.items():
        if isinstance(table, gpd.GeoDataFrame):
            made[name] = content_hash(encode_polygons(table, grid, name))
        elif table is not None:
            made[name] = content_hash(plain(table))
    return store.plan_hash({**made, "years": ds[schema.YEAR].values.tolist(), "lineage": scrub(lineage or {})})


def _check_append(
    path: Path, tree: xr.DataTree, old: xr.Dataset, ds: xr.Dataset, calibrator: Calibrator | None
) -> None:
    if RegionGrid.from_dataset(old).geobox != RegionGrid.from_dataset(ds[[schema.PROBABILITY]]).geobox:
        raise GridError(f"the new maps lie on another grid than {path}: map them on the archive's grid")
    last, years = int(old[schema.YEAR].values.max()), [int(year) for year in ds[schema.YEAR].values]
    if not years or min(years) <= last:
        raise InputError(f"years {years} are not later than {last}, the last of {path}: write a new archive instead")
    if (schema.CALIBRATED in old) != (schema.CALIBRATED in ds):
        raise InputError(f"of {path} and the new maps only one is calibrated: calibrate both or none")
    given = scrub(calibrator.to_json()) if calibrator is not None else {}
    if given != attributes(tree, "calibration"):
        raise InputError(f"the calibrator is not that of {path}: apply and give the same one")


def _concatenated(old: xr.Dataset, new: xr.Dataset) -> xr.Dataset:
    names = [name for name in LAYERS if name in old]
    both = xr.concat(
        [old[names].drop_attrs(), new[names].reset_coords(drop=True).drop_attrs()],
        schema.YEAR,
        join="override",
        coords="minimal",
        compat="override",
        combine_attrs="drop",
    )
    return both.assign_coords({schema.SPATIAL_REF: old[schema.SPATIAL_REF]})


def _needed(has: bool, given: bool, what: str) -> None:
    if has != given:
        raise InputError(
            f"the archive {'has' if has else 'has no'} {what}, so the new years need {'theirs' if has else 'none'}"
        )


def _joined(
    old: gpd.GeoDataFrame, new: gpd.GeoDataFrame | None, tree: xr.DataTree, what: str
) -> gpd.GeoDataFrame | None:
    _needed(what in tree.children and bool(tree[what].attrs["columns"]), new is not None, what)
    if new is None:
        return None
    if set(new.columns) != set(old.columns):
        raise InputError(f"the new {what} have the columns {list(new.columns)}, the archive's {list(old.columns)}")
    options = [one.attrs.get(OUTLINE_OPTIONS, {}) for one in (old, new)]
    for name in sorted({*options[0]} & {*options[1]}):
        if options[0][name] != options[1][name]:
            raise InputError(
                f"the archive's {what} were drawn with {name} {options[0][name]!r}, the new ones with "
                f"{options[1][name]!r}, so their areas cannot be compared: draw them with the same options"
            )
    parts = [one for one in (old, new[list(old.columns)]) if len(one)]
    both = pd.concat(parts, ignore_index=True) if parts else new
    # options that one of the two does not tell are not those of both
    both.attrs[OUTLINE_OPTIONS] = options[0] if options[0] == options[1] else {}
    return both


def _joined_areas(old: xr.Dataset | None, new: xr.Dataset | None) -> xr.Dataset | None:
    _needed(old is not None, new is not None, "areas")
    if old is None or new is None:
        return None
    for dim, size in old.sizes.items():
        if dim != schema.YEAR and new.sizes.get(dim) != size:
            raise InputError(f"the new areas have {new.sizes.get(dim)} {dim}s, the archive's {size}: draw as many")
    for name in sorted({*old.attrs, *new.attrs} & _KIND_OF_AREAS):
        if old.attrs.get(name) != new.attrs.get(name):
            raise InputError(
                f"the archive's areas have {name} {old.attrs.get(name)!r}, the new ones {new.attrs.get(name)!r}: one "
                "table would mix two kinds; make them with the same options"
            )
    old, new = with_draw_calls(old), with_draw_calls(new)
    kinds = {str(name): schema.YEAR in var.dims for one in (old, new) for name, var in one.data_vars.items()}
    for name in kinds:
        if name not in old or name not in new:
            raise InputError(
                f"{name!r} is only in the {'archive' if name in old else 'new'} areas: make both tables alike"
            )
    fixed = [name for name, by_year in kinds.items() if not by_year]
    for name in fixed:
        if not old[name].variable.equals(new[name].variable):
            raise InputError(
                f"{name!r} of the areas has no year, and is another in the archive than in the new areas, so neither "
                "holds for all years together: archive the maps of all years anew, with areas of them all"
            )
    by_year = [name for name in kinds if name not in fixed]
    if not by_year:
        return old
    joined = xr.concat([old[by_year], new[by_year]], schema.YEAR, coords="minimal", compat="override", join="override")
    return joined.assign(old[fixed].data_vars)


def _joined_blocks(tree: xr.DataTree, new: xr.Dataset | None) -> xr.Dataset | None:
    old = _blocks_of(tree)
    _needed(old is not None, new is not None, "a block table")
    if old is None or new is None:
        return None
    try:
        return xr.concat([old, new.compute()], schema.YEAR, join="exact", combine_attrs="override")
    except ValueError as error:
        raise InputError(f"the new block table has other blocks or columns than the archive's ({error})") from None


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f".{path.stem}.{what}{path.suffix}")


def _settle(path: Path) -> None:
    """Bring in order what a call left behind that was killed while stores changed places."""
    old, following = _beside(path, "old"), _beside(path, "next")
    if not path.exists() and old.exists():
        old.rename(path)
    if not path.exists():
        return
    shutil.rmtree(old, ignore_errors=True)
    if following.exists() and _last_year(following) < _last_year(path):  # it has changed places already
        following.rename(old)
        shutil.rmtree(old)


def _last_year(path: Path) -> int:
    years: Any = zarr.open_array(str(path / "maps" / schema.YEAR), mode="r")[:]
    return int(years.max())


def _take_place(new: Path, path: Path) -> None:
    """Let a new store take the place of another at once, and delete that one."""
    old = _beside(path, "old")
    try:
        failed = ctypes.CDLL(None).renameat2(_HERE, os.fsencode(new), _HERE, os.fsencode(path), _EXCHANGE)
    except (AttributeError, OSError):  # another system
        failed = 1
    if failed:
        path.rename(old)
        new.rename(path)
    else:
        new.rename(old)
    shutil.rmtree(old)
