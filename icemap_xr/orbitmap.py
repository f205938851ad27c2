"""Maps of several relative orbits become one, by a map of orbits that is the same in every year.

Two orbits see a slope from different sides, so a pixel whose orbit changes from year to year changes for no reason on
the ground. Each pixel therefore belongs to one orbit in all years, also in a year in which that orbit did not see it.
Years that are added later must have the map of the first run: which orbit saw a pixel in most years may change with
each year.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.burning import rasterize
from icemap_xr.errors import GridError, InputError
from icemap_xr.grid import RegionGrid

ORBIT = "relative_orbit"
_CHUNK = 1024


def join_orbits(maps: Mapping[int, xr.Dataset], owners: gpd.GeoDataFrame | xr.Dataset | None = None) -> xr.Dataset:
    """Join the maps of one region that were made of cubes of different relative orbits.

    Without `owners` a pixel belongs to the orbit that observed it in most years; of equal ones, to the first of `maps`.

    Parameters
    ----------
    maps
        By relative orbit, in order of preference: what `predict` returned, `probability (year, y, x)` and whatever else
        has these dims, on one grid and of the same years.
    owners
        Polygons with a CRS and a column `relative_orbit`: a pixel with its centre in one belongs to that orbit. Or maps
        that were joined before, on the same grid: a pixel keeps the orbit it had. The rule above is for the rest.

    Returns
    -------
    xarray.Dataset
        The joined variables, and `relative_orbit (y, x)` int16, the orbit of each pixel in all years; 0 = none observed
        it. Lazy where the maps are.

    Raises
    ------
    InputError
        Fewer than two orbits, other years, or an owner that is none of the orbits.
    GridError
        The grids differ.
    """
    if len(maps) < 2:
        raise InputError(f"{len(maps)} orbits cannot be joined: give at least two")
    first = next(iter(maps.values()))
    grid = RegionGrid.from_dataset(first[[schema.PROBABILITY]])
    for track, ds in maps.items():
        schema.validate_maps(ds, "join_orbits")
        if RegionGrid.from_dataset(ds[[schema.PROBABILITY]]).geobox != grid.geobox:
            raise GridError(f"the map of orbit {track} lies on another grid: build all cubes on one")
        if ds[schema.YEAR].values.tolist() != first[schema.YEAR].values.tolist():
            raise InputError(f"the map of orbit {track} is of other years: map the same years of all orbits")
    owner = _owner(maps, owners, grid)
    names = [name for name in first.data_vars if all(name in ds for ds in maps.values())]
    joined = {}
    for name in names:
        out = first[name].where(owner == next(iter(maps)))
        for track, ds in list(maps.items())[1:]:
            out = xr.where(owner == track, ds[name], out)
        joined[name] = out.transpose(*first[name].dims).assign_attrs(first[name].attrs)
    attrs = {"long_name": "relative orbit of a pixel in all years; 0 = none observed it", "units": "1"}
    joined[ORBIT] = owner.astype(np.int16).assign_attrs(attrs)
    return xr.Dataset(joined, attrs=first.attrs | {"relative_orbits": list(maps)})


def _owner(maps: Mapping[int, xr.Dataset], owners: gpd.GeoDataFrame | None, grid: RegionGrid) -> xr.DataArray:
    """Return the orbit of each pixel, `(y, x)`."""
    seen = [ds[schema.PROBABILITY].notnull().sum(schema.YEAR).astype(np.int16) for ds in maps.values()]
    most = seen[0]
    owner = xr.where(most > 0, np.int16(next(iter(maps))), np.int16(0))
    for track, count in list(zip(maps, seen, strict=True))[1:]:
        owner = xr.where(count > most, np.int16(track), owner)
        most = xr.where(count > most, count, most)
    if owners is not None:
        keep = _kept if isinstance(owners, xr.Dataset) else _burnt
        fixed = keep(owners, list(maps), grid)
        owner = xr.where(fixed > 0, fixed, owner)
    return owner


def _kept(owners: xr.Dataset, tracks: list[int], grid: RegionGrid) -> xr.DataArray:
    """Return the orbit that maps joined before gave to a pixel, 0 where none had observed it."""
    if ORBIT not in owners or "relative_orbits" not in owners.attrs:
        raise InputError(f"the maps have no {ORBIT!r}: give the joined maps of a run over several orbits")
    foreign = sorted({int(track) for track in owners.attrs["relative_orbits"]} - set(tracks))
    if foreign:
        raise InputError(f"the map of orbits names {foreign}: the orbits of this run are {tracks}")
    if RegionGrid.from_dataset(owners[[ORBIT]]).geobox != grid.geobox:
        raise GridError("the map of orbits lies on another grid: give that of a run on the same grid")
    return owners[ORBIT].drop_vars([name for name in owners[ORBIT].coords if name not in (schema.Y, schema.X)])


def _burnt(owners: gpd.GeoDataFrame, tracks: list[int], grid: RegionGrid) -> xr.DataArray:
    """Return the orbit that polygons give to a pixel, 0 where there is none, block by block."""
    if ORBIT not in owners or owners.crs is None:
        raise InputError(f"the map of orbits needs a CRS and the column {ORBIT!r}: name the orbit of each polygon")
    numbers = [int(value) for value in owners[ORBIT]]
    foreign = sorted(set(numbers) - set(tracks))
    if foreign:
        raise InputError(f"the map of orbits names {foreign}: the orbits of this run are {tracks}")
    # the last one burnt wins: turned around, that is the first of the file
    shapes = list(zip(owners.to_crs(grid.crs).geometry, numbers, strict=True))[::-1]
    geobox = grid.geobox

    def burn(block_info: Any = None) -> Any:
        rows, columns = (slice(*place) for place in block_info[None]["array-location"])
        piece = geobox[rows, columns]
        return rasterize(shapes, piece.shape, fill=0, transform=piece.transform, dtype="int16")

    sides = tuple(da.core.normalize_chunks((_CHUNK, _CHUNK), grid.shape))
    lazy = da.map_blocks(burn, chunks=sides, dtype=np.int16, meta=np.empty((0, 0), np.int16))
    coords = {name: coord for name, coord in grid.coords().items() if name in (schema.Y, schema.X)}
    return xr.DataArray(lazy, dims=(schema.Y, schema.X), coords=coords)
