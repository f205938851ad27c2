"""Archives over space and time: neighbouring regions are joined, a part is taken out; `append` adds a year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import dask.array as da
import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import CRS

from icemap_xr import schema
from icemap_xr.appending import Recorded, append
from icemap_xr.archive import LAYERS, archive, open_archive, read_glaciers, read_outlines
from icemap_xr.burning import rasterize
from icemap_xr.cftables import OUTLINE_OPTIONS
from icemap_xr.complexes import polygons_of
from icemap_xr.errors import GridError, InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines as draw
from icemap_xr.types import StrPath
from icemap_xr.vectors import union_in_crs

__all__ = ["Overlap", "Recorded", "append", "crs_name", "merge", "subset"]

Overlap = Literal["first", "mean"]


def merge(
    paths: Sequence[StrPath],
    output: StrPath,
    *,
    region: str,
    overlap: Overlap = "first",
    owners: gpd.GeoDataFrame | None = None,
    outline_options: Mapping[str, Any] | None = None,
) -> Path:
    """Join the archives of neighbouring regions to one.

    Outlines are drawn anew, so none ends at a former border, with the options of the archives' own. Areas, draws,
    blocks and glaciers of the single regions are not joined: compute them from the joined maps. Ground and years that
    no region has are unobserved.

    Parameters
    ----------
    paths
        Archives on one lattice: same CRS and pixel size, offsets in whole pixels.
    output
        The new archive.
    region
        Its name.
    overlap
        Where several regions observed a pixel: ``"first"`` takes the first of `paths`, ``"mean"`` averages.
    owners
        A fixed map instead: polygons with a column `region`. A pixel with its centre in one is taken from that region
        in every year, also where that has no observation; `overlap` is for the rest, and between archives of the same
        region. Where owners overlap, the first has the ground.
    outline_options
        Options of `icemap_xr.outlines.outlines`; needed where the archives have outlines of different options, or of
        such as they do not tell.

    Raises
    ------
    InputError
        Fewer than two archives, different calibrations or options of outlines, or an owner that is none of the regions.
    GridError
        The lattices differ.
    """
    if len(paths) < 2:
        raise InputError(f"{len(paths)} archives cannot be merged: give at least two")
    if overlap not in ("first", "mean"):
        raise InputError(f"overlap {overlap!r} is not allowed: give 'first' or 'mean'")
    trees = [open_archive(path) for path in paths]
    maps = [tree["maps"].to_dataset() for tree in trees]
    calibrations = [dict(tree["calibration"].attrs) for tree in trees]
    if any(one != calibrations[0] for one in calibrations):
        raise InputError("the archives have different calibrations: calibrate their maps alike before merging")
    options = _outline_options(trees) if outline_options is None else dict(outline_options)
    grid, places = _common_grid(maps)
    regions = [str(tree.attrs["region"]) for tree in trees]
    owner = _owner_numbers(owners, regions, grid)
    years = np.unique(np.concatenate([one[schema.YEAR].values for one in maps]))
    names = [name for name in LAYERS if all(name in one for one in maps)]

    def spread(name: str) -> list[da.Array]:
        return [_spread(one[name], place, grid.shape, years) for one, place in zip(maps, places, strict=True)]

    layers = {
        name: ((schema.YEAR, schema.Y, schema.X), _joined_layer(spread(name), overlap, regions, owner))
        for name in names
    }
    ds = xr.Dataset(layers, coords={schema.YEAR: years, **grid.coords()})
    parts = [
        {**tree["lineage"].attrs, "region": tree.attrs["region"], "years": one[schema.YEAR].values.tolist()}
        for tree, one in zip(trees, maps, strict=True)
    ]
    lineage = {"merged": parts}
    calibrator = Recorded(calibrations[0]) if calibrations[0] and schema.CALIBRATED in names else None
    shapes = draw(ds, **options)
    more = {"overlap": "owners" if owners is not None else overlap}
    return archive(ds, output, outlines=shapes, calibrator=calibrator, lineage=lineage | more, region=region)


def _outline_options(trees: Sequence[xr.DataTree]) -> dict[str, Any]:
    """Return the options that the outlines of all archives were drawn with; none where no archive has outlines."""
    found = [dict(tree["outlines"].attrs.get(OUTLINE_OPTIONS) or {}) for tree in trees if _has_outlines(tree)]
    if any(not one or one != found[0] for one in found):
        told = "; ".join(", ".join(f"{name} {value}" for name, value in one.items()) or "not told" for one in found)
        raise InputError(
            f"the archives' outlines were drawn with different or unknown options ({told}): say which to draw the "
            "merged ones with, merge(..., outline_options={'threshold': 0.5, ...})"
        )
    return found[0] if found else {}


def _has_outlines(tree: xr.DataTree) -> bool:
    return "outlines" in tree.children and bool(tree["outlines"].attrs.get("columns"))


def subset(
    tree: xr.DataTree,
    *,
    bbox: Any = None,
    years: Sequence[int] | None = None,
    glacier: str | None = None,
) -> tuple[xr.Dataset, gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Return maps, outlines and glaciers of a part of an opened archive.

    Parameters
    ----------
    tree
        From `open_archive`.
    bbox
        West, south, east, north in degrees, or what else `predict(aoi=)` takes; maps are cut to its extent in whole
        pixels, outlines and glaciers that touch it stay whole.
    years
        Years; all by default.
    glacier
        A `glacier_id`: maps are cut to it in all years, with other ground unobserved, and outlines to its polygon of
        all years together. `area_km2` of a cut outline is planar and that of the part; what holds for the whole is NaN:
        `mean_probability`, the mapping interval and `simplified_km2`.

    Raises
    ------
    InputError
        There is nothing of the kind in the archive.
    """
    maps, shapes, glaciers = tree["maps"].to_dataset(), read_outlines(tree), read_glaciers(tree)
    if years is not None:
        have = [int(year) for year in maps[schema.YEAR].values]
        for year in years:
            if year not in have:
                raise InputError(f"the archive has no year {year}: it has {', '.join(map(str, have))}")
        maps = maps.sel({schema.YEAR: list(years)})
        shapes, glaciers = (one[one["year"].isin(list(years))] if "year" in one else one for one in (shapes, glaciers))
    if glacier is not None:
        known = glaciers["glacier_id"].astype(str) if "glacier_id" in glaciers else pd.Series([], dtype=object)
        if glacier not in set(known):
            raise InputError(f"the archive has no glacier {glacier!r}: it has {len(set(known))}, see `read_glaciers`")
        ground = glaciers[known == glacier].union_all()
        glaciers, shapes = glaciers[known == glacier], _clipped(shapes, ground)
        maps = _cut(maps, ground)
        box = maps.odc.geobox
        inside = rasterize([ground], box.shape, transform=box.transform).astype(bool)
        within = xr.DataArray(inside, dims=(schema.Y, schema.X))
        maps = maps.assign(
            {
                name: var.where(within, 255 if name == "glacier_class" else np.nan)
                for name, var in maps.data_vars.items()
            }
        )
    if bbox is not None:
        ground = union_in_crs(bbox, str(maps.odc.crs))
        maps = _cut(maps, ground)
        shapes, glaciers = (one[one.intersects(ground)] for one in (shapes, glaciers))
    return maps, shapes.reset_index(drop=True), glaciers.reset_index(drop=True)


#: columns of outlines that hold for the whole polygon and not for a part of it
_OF_WHOLE = ("mean_probability", "mapping_low_km2", "mapping_high_km2", "simplified_km2")


def _clipped(shapes: gpd.GeoDataFrame, ground: Any) -> gpd.GeoDataFrame:
    """Return what of the outlines lies on some ground; lines and points where they only touch it are nothing."""
    near = shapes[shapes.intersects(ground)]
    parts = near.geometry.intersection(ground)
    parts = gpd.GeoSeries([polygons_of(one) for one in parts], index=near.index, crs=shapes.crs)
    near = near.set_geometry(parts.rename(near.geometry.name))[~parts.is_empty.to_numpy()]
    whole = near.geometry.geom_equals(shapes.geometry[near.index])
    if "area_km2" in near:
        near["area_km2"] = near["area_km2"].where(whole, near.geometry.area / 1e6)
    for name in _OF_WHOLE:
        if name in near:
            near[name] = near[name].where(whole)
    return near


def _cut(maps: xr.Dataset, ground: Any) -> xr.Dataset:
    box = maps.odc.geobox
    west, south, east, north = ground.bounds
    (left, top), (right, bottom) = ~box.transform @ (west, north), ~box.transform @ (east, south)
    rows = slice(max(int(np.floor(top + 1e-6)), 0), min(int(np.ceil(bottom - 1e-6)), box.shape[0]))
    columns = slice(max(int(np.floor(left + 1e-6)), 0), min(int(np.ceil(right - 1e-6)), box.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        raise InputError("the box lies beside the archive: see its extent with `icemap archive info`")
    return maps.isel({schema.Y: rows, schema.X: columns})


def crs_name(crs: str) -> str:
    """Return a CRS as its code, or by its name where it has none."""
    projected = CRS(crs)
    code = projected.to_authority()
    return ":".join(code) if code else str(projected.name)


def _common_grid(maps: Sequence[xr.Dataset]) -> tuple[RegionGrid, list[tuple[int, int]]]:
    """Return the grid that holds all maps, and the row and column at which each begins."""
    boxes = [RegionGrid.from_dataset(one).geobox for one in maps]
    first = boxes[0]
    west, south = (
        min(one) for one in zip(*((box.boundingbox.left, box.boundingbox.bottom) for box in boxes), strict=True)
    )
    east, north = (
        max(one) for one in zip(*((box.boundingbox.right, box.boundingbox.top) for box in boxes), strict=True)
    )
    side = first.transform.a
    places = []
    for box in boxes:
        row, column = (north - box.boundingbox.top) / side, (box.boundingbox.left - west) / side
        if box.crs != first.crs or not np.isclose(box.transform.a, side, rtol=1e-9):
            raise GridError(
                f"the archives are in {crs_name(str(first.crs))} and {crs_name(str(box.crs))}, "
                f"with pixels of {side:g} and {box.transform.a:g} m: map them on one lattice"
            )
        if max(abs(row - round(row)), abs(column - round(column))) > 0.01:
            raise GridError("the archives are shifted by parts of a pixel: map them on one lattice")
        places.append((round(row), round(column)))
    shape = round((north - south) / side), round((east - west) / side)
    transform = Affine(side, 0, west, 0, -side, north)
    return RegionGrid(GeoBox(shape, transform, first.crs)), places


def _owner_numbers(owners: gpd.GeoDataFrame | None, regions: Sequence[str], grid: RegionGrid) -> da.Array | None:
    """Return the first position of the region that owns each pixel, -1 for none."""
    if owners is None:
        return None
    if owners.crs is None:
        raise InputError("owners have no CRS: set one with set_crs()")
    if "region" not in owners:
        raise InputError("owners have no column 'region': name the region that each polygon belongs to")
    for name in owners["region"]:
        if name not in regions:
            raise InputError(f"owner {name!r} is none of the regions {', '.join(regions)}")
    shapes = owners.to_crs(grid.crs).geometry
    # burnt in this order, the first of several that overlap has the ground
    numbers = [(shape, regions.index(name)) for shape, name in zip(shapes, owners["region"], strict=True)][::-1]
    kind = {"fill": -1, "transform": grid.geobox.transform, "dtype": "int16"}
    return da.from_array(rasterize(numbers, grid.shape, **kind), chunks=1024)


def _spread(layer: xr.DataArray, place: tuple[int, int], shape: tuple[int, int], years: Any) -> da.Array:
    """Return a layer `(year, y, x)` of one archive on the common grid, NaN around it and in years that it lacks."""
    data, (row, column) = layer.reindex({schema.YEAR: years}).data, place
    after = shape[0] - row - data.shape[1], shape[1] - column - data.shape[2]
    padded = da.pad(data, ((0, 0), (row, after[0]), (column, after[1])), constant_values=np.nan)
    return padded.rechunk((1, 1024, 1024))


def _joined_layer(
    spread: Sequence[da.Array], overlap: Overlap, regions: Sequence[str], owner: da.Array | None
) -> da.Array:
    """Return one layer `(year, y, x)` of all archives, the ground that a region owns from those of that name."""
    out = _combined(spread, overlap)
    if owner is not None:
        for number, region in enumerate(regions):
            if regions.index(region) == number:
                own = [one for one, name in zip(spread, regions, strict=True) if name == region]
                out = da.where(owner[None] == number, _combined(own, overlap), out)
    return out.astype(np.float32)


def _combined(spread: Sequence[da.Array], overlap: Overlap) -> da.Array:
    """Return layers joined by the rule for where they overlap."""
    if overlap == "mean":
        known = sum((~da.isnan(one) for one in spread[1:]), (~da.isnan(spread[0])).astype(np.float32))
        total = sum((da.nan_to_num(one) for one in spread[1:]), da.nan_to_num(spread[0]))
        return da.where(known > 0, total / da.maximum(known, 1), np.nan)
    out = spread[-1]
    for one in spread[-2::-1]:
        out = da.where(da.isnan(one), out, one)
    return out
