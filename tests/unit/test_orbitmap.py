"""Maps of several orbits: a pixel keeps its orbit in all years, whatever its orbit saw in one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from shapely.geometry import box

from icemap_xr import store
from icemap_xr.errors import GridError, InputError
from icemap_xr.orbitmap import join_orbits
from icemap_xr.run_maps import _owners
from icemap_xr.testing.fakes import small_grid

GRID = small_grid((6, 10))
OTHER = small_grid((7, 10))
YEARS = [2020, 2021, 2022]


def maps(value: float, seen: slice, *, lazy: bool = False, grid: Any = GRID, years: Any = YEARS) -> xr.Dataset:
    """Probability `value + year / 100` on some columns, NaN on the others."""
    data = np.full((len(years), *grid.shape), np.nan, np.float32)
    data[:, :, seen] = value + np.arange(len(years), dtype=np.float32)[:, None, None] / 100
    ds = xr.Dataset({"probability": (("year", "y", "x"), data)}, coords={"year": years, **grid.coords()})
    ds["probability_std"] = ds.probability / 10
    return ds.chunk(year=1, y=4, x=3) if lazy else ds


@pytest.mark.parametrize("lazy", [False, True])
def test_a_pixel_belongs_to_the_orbit_that_saw_it_in_most_years(lazy: bool) -> None:
    east, west = maps(0.2, slice(0, 7), lazy=lazy), maps(0.6, slice(4, 10), lazy=lazy)
    # in 2021 the first orbit did not see the overlap's first column; in two years it did not see the second
    east["probability"] = east.probability.where(~((east.year == 2021) & (east.x == GRID.coords()["x"][4])))
    east["probability"] = east.probability.where(~((east.year >= 2021) & (east.x == GRID.coords()["x"][5])))
    joined = join_orbits({14: east, 174: west})
    assert joined.relative_orbit.values[0].tolist() == [14] * 4 + [174, 174, 14] + [174] * 3
    first = joined.probability.values[:, 0]
    np.testing.assert_allclose(first[0], [0.2] * 4 + [0.6, 0.6, 0.2] + [0.6] * 3, rtol=1e-6)
    np.testing.assert_allclose(first[1], first[0] + 0.01, rtol=1e-5)
    np.testing.assert_allclose(joined.probability_std, joined.probability / 10, rtol=1e-5)
    assert joined.probability.dtype == np.float32


def test_a_year_that_its_orbit_missed_stays_unobserved() -> None:
    """Taking the other orbit in that year alone would make a change that is none."""
    both = maps(0.2, slice(0, 10)), maps(0.6, slice(0, 10))
    gap = both[0].assign(probability=both[0].probability.where(both[0].year != 2021))
    square = gpd.GeoDataFrame({"relative_orbit": [14]}, geometry=[box(*GRID.geobox.boundingbox.bbox)], crs=GRID.crs)
    joined = join_orbits({14: gap, 174: both[1]}, square)
    assert (joined.relative_orbit == 14).all()
    assert np.isnan(joined.probability.sel(year=2021)).all()
    np.testing.assert_allclose(joined.probability.sel(year=2022), 0.22, rtol=1e-6)
    assert (join_orbits({14: gap, 174: both[1]}).relative_orbit == 174).all()


def test_equal_orbits_go_to_the_first_and_unseen_ground_to_none() -> None:
    one, other = maps(0.2, slice(0, 8)), maps(0.6, slice(2, 8))
    assert join_orbits({14: one, 174: other}).relative_orbit.values[0].tolist() == [14] * 8 + [0, 0]
    assert join_orbits({174: other, 14: one}).relative_orbit.values[0].tolist() == [14] * 2 + [174] * 6 + [0, 0]
    assert np.isnan(join_orbits({14: one, 174: other}).probability[:, :, 8:]).all()


def test_polygons_share_out_the_ground_in_any_crs() -> None:
    left, bottom, _, top = GRID.geobox.boundingbox.bbox
    parts = [box(left, bottom, left + 31, top), box(left, bottom, left + 61, top)]
    owners = gpd.GeoDataFrame({"relative_orbit": [174, 14]}, geometry=[p.segmentize(5) for p in parts], crs=GRID.crs)
    joined = join_orbits({14: maps(0.2, slice(0, 10)), 174: maps(0.6, slice(0, 10))}, owners.to_crs("EPSG:4326"))
    # the first polygon of the file wins, and the rest follows the rule
    assert joined.relative_orbit.values[0].tolist() == [174] * 3 + [14] * 7


def test_what_cannot_be_joined() -> None:
    one = maps(0.2, slice(0, 7))
    with pytest.raises(InputError, match="1 orbits cannot be joined"):
        join_orbits({14: one})
    with pytest.raises(InputError, match="orbit 174 is of other years"):
        join_orbits({14: one, 174: maps(0.6, slice(4, 10), years=[2020, 2021])})
    with pytest.raises(GridError, match="orbit 174 lies on another grid"):
        join_orbits({14: one, 174: maps(0.6, slice(4, 10), grid=small_grid((6, 11)))})
    square = box(*GRID.geobox.boundingbox.bbox)
    foreign = gpd.GeoDataFrame({"relative_orbit": [88]}, geometry=[square], crs=GRID.crs)
    with pytest.raises(InputError, match=r"names \[88\]"):
        join_orbits({14: one, 174: one}, foreign)
    with pytest.raises(InputError, match="column 'relative_orbit'"):
        join_orbits({14: one, 174: one}, gpd.GeoDataFrame(geometry=[square], crs=GRID.crs))


def test_years_that_are_added_keep_the_orbits_of_the_first_run() -> None:
    """Each new year may change which orbit saw a pixel in most years; a pixel must not change sides for that."""
    first = join_orbits({14: maps(0.2, slice(0, 6)), 174: maps(0.6, slice(4, 9))})
    assert first.relative_orbit.values[0].tolist() == [14] * 6 + [174] * 3 + [0]
    later = {14: maps(0.3, slice(0, 4), years=[2023]), 174: maps(0.7, slice(0, 10), years=[2023])}
    alone = join_orbits(later).relative_orbit.values[0].tolist()
    assert alone == [14] * 4 + [174] * 6
    joined = join_orbits(later, first)
    assert joined.relative_orbit.values[0].tolist() == [14] * 6 + [174] * 4
    assert np.isnan(joined.probability.values[0, 0, 4:6]).all()
    with pytest.raises(InputError, match=r"the map of orbits names \[174\]"):
        join_orbits({14: later[14], 88: later[174]}, first)
    with pytest.raises(GridError, match="another grid"):
        join_orbits(
            later, join_orbits({14: maps(0.2, slice(0, 6), grid=OTHER), 174: maps(0.6, slice(4, 9), grid=OTHER)})
        )
    with pytest.raises(InputError, match="no 'relative_orbit'"):
        join_orbits(later, first.drop_vars("relative_orbit"))


def test_the_maps_of_an_earlier_run_are_read_from_their_store(tmp_path: Path) -> None:
    first = join_orbits({14: maps(0.2, slice(0, 6), lazy=True), 174: maps(0.6, slice(4, 9), lazy=True)})
    store.save(first, tmp_path / "probability.zarr")
    later = {14: maps(0.3, slice(0, 4), years=[2023]), 174: maps(0.7, slice(0, 10), years=[2023])}
    joined = join_orbits(later, _owners(str(tmp_path / "probability.zarr")))
    assert joined.relative_orbit.values[0].tolist() == [14] * 6 + [174] * 4
    squares = gpd.GeoDataFrame({"relative_orbit": [14]}, geometry=[box(*GRID.geobox.boundingbox.bbox)], crs=GRID.crs)
    squares.to_file(tmp_path / "orbits.gpkg")
    assert (join_orbits(later, _owners(str(tmp_path / "orbits.gpkg"))).relative_orbit == 14).all()
