"""What catalogues bring that no cube should take silently: each is a typed error, or follows a stated rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import yaml

import icemap_xr as ix
from icemap_xr.cube_report import cube_info
from icemap_xr.errors import EmptySearchError, InputError, SchemaError
from icemap_xr.providers import PROVENANCE, load_provider, parse_provider
from icemap_xr.schema import FEATURES
from icemap_xr.stac_items import items_from_files, write_catalog
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SHAPE = (40, 50)
GRID = small_grid(SHAPE)
POWER = np.random.default_rng(0).lognormal(-3, 1, SHAPE).astype(np.float32)


def of_days(folder: Path, *days: str, **options: Any) -> pystac.ItemCollection:
    paths = [write_raster(folder / f"{day}.tif", POWER) for day in days]
    items = [
        rtc_item(path, day, orbit=100 + n, **options) for n, (path, day) in enumerate(zip(paths, days, strict=True))
    ]
    return pystac.ItemCollection(items)


def declared(items: pystac.ItemCollection, **changes: Any) -> pystac.ItemCollection:
    """The items as a search with a profile of one's own would return them."""
    sources = [one | changes for one in load_provider("local").to_dict()["sources"] if one["feature"] == "rtc"]
    return pystac.ItemCollection(items.items, extra_fields={PROVENANCE: {"sources": sources}})


def test_ascending_and_descending_are_two_cubes(tmp_path: Path) -> None:
    items = of_days(tmp_path, "2020-01-05", "2020-01-17").items
    items.append(rtc_item(tmp_path / "2020-01-05.tif", "2020-02-01", orbit=500, state="ascending", name="up"))
    with pytest.raises(InputError, match=r"directions ascending, descending: choose one with search\(orbit_state=\)"):
        ix.build_cube(pystac.ItemCollection(items), GRID, tmp_path / "cube.zarr")


def test_features_of_two_orbits_are_two_cubes(tmp_path: Path) -> None:
    items = of_days(tmp_path, "2020-01-05").items
    items.append(
        pair_item(write_raster(tmp_path / "p.tif", np.full(SHAPE, 0.5)), "2020-01-05", "2020-01-17", track=174)
    )
    with pytest.raises(InputError, match=r"several relative orbits \(rtc 14, insar 174\)"):
        ix.build_cube(pystac.ItemCollection(items), GRID, tmp_path / "cube.zarr")


def test_fewer_scenes_than_steps_and_years_without_any_are_gaps_that_must_be_decided(tmp_path: Path) -> None:
    cube = ix.build_cube(
        of_days(tmp_path, "2020-01-05", "2020-07-05", "2022-03-05"),
        GRID,
        tmp_path / "c.zarr",
        years=[2020, 2021, 2022],
        steps=5,
    )
    assert [(row >= 0).sum() for row in cube.rtc_index.values] == [2, 0, 1]
    assert [one["filled"] for one in cube_info(tmp_path / "c.zarr")["features"]["rtc"]["years"]] == [2, 0, 1]
    with pytest.raises(SchemaError, match="2020 has 2 of 5 rtc scenes"):
        cube.icemap.yearly()
    with pytest.raises(SchemaError, match="2021 has no rtc scene: leave the year out"):
        cube.icemap.yearly(gaps="nearest")
    filled = cube.icemap.yearly(gaps="nearest", years=[2020, 2022]).rtc
    assert np.isfinite(filled.values).all()
    empty = cube.icemap.yearly(gaps="nodata", years=[2020, 2022]).rtc
    assert np.isnan(empty.values).any(axis=(2, 3)).sum() == 3 + 4


def test_border_zeros_are_the_floor_unless_the_profile_says_that_they_are_nodata(tmp_path: Path) -> None:
    """Before 2018 the borders of GRD are zeros; over calm sea a zero is an observation. The profile says which."""
    bordered = POWER.copy()
    bordered[:, :10] = 0
    path = write_raster(tmp_path / "old.tif", bordered, nodata=None)
    items = pystac.ItemCollection([rtc_item(path, "2017-05-01", orbit=100)])
    # the raster says nothing about nodata, and neither does the item
    del items[0].assets["HH"].extra_fields["raster:bands"]
    kept = ix.build_cube(declared(items), GRID, tmp_path / "kept.zarr", steps=1)
    assert np.allclose(kept.rtc[0, :, :10], FEATURES["rtc"].minimum, atol=0.003)
    cut = ix.build_cube(declared(items, nodata=0.0), GRID, tmp_path / "cut.zarr", steps=1)
    assert np.isnan(cut.rtc[0, :, :10]).all()
    np.testing.assert_allclose(cut.rtc[0, :, 10:], 10 * np.log10(POWER[:, 10:]), atol=0.003)


def test_a_nodata_value_that_only_the_item_tells_is_heeded(tmp_path: Path) -> None:
    filled = POWER.copy()
    filled[:5] = 0
    item = rtc_item(write_raster(tmp_path / "a.tif", filled, nodata=None), "2020-05-01", orbit=100)
    item.assets["HH"].extra_fields["raster:bands"] = [{"nodata": 0, "data_type": "float32"}]
    cube = ix.build_cube(pystac.ItemCollection([item]), GRID, tmp_path / "cube.zarr", steps=1)
    assert np.isnan(cube.rtc[0, :5]).all()
    assert np.isfinite(cube.rtc[0, 5:]).all()


@pytest.mark.parametrize(
    ("values", "raw", "match"),
    [
        ("power", 10 * np.log10(POWER), "which is no linear power"),
        ("amplitude", 10 * np.log10(POWER), "which is no linear power"),
        ("dB", POWER, "linear power; mend the provider profile"),
    ],
)
def test_values_that_cannot_be_what_the_profile_says(tmp_path: Path, values: str, raw: Any, match: str) -> None:
    items = pystac.ItemCollection([rtc_item(write_raster(tmp_path / "a.tif", raw), "2020-05-01", orbit=100)])
    with pytest.raises(InputError, match=match):
        ix.build_cube(declared(items, values=values), GRID, tmp_path / "cube.zarr", steps=1)
    assert not (tmp_path / "cube.zarr").exists()


def test_a_catalogue_of_other_collections_has_nothing(tmp_path: Path) -> None:
    items = of_days(tmp_path, "2020-01-05", collection="sentinel-2-l2a")
    catalog = write_catalog(items, tmp_path / "catalog", title="other")
    with pytest.raises(EmptySearchError, match="has no scene of"):
        ix.search(catalog, (-180, -90, 180, 90), 2020)
    with pytest.raises(InputError, match="their collections are sentinel-2-l2a"):
        ix.build_cube(items, GRID, tmp_path / "cube.zarr")


def test_bands_of_a_profile_are_checked(tmp_path: Path) -> None:
    content = yaml.safe_load(yaml.safe_dump(load_provider("local").to_dict()))
    content["sources"][0]["bands"] = {"VV": 0}
    with pytest.raises(InputError, match="give a band from 1"):
        parse_provider(content, "mine.yaml")


def test_the_footprint_of_a_raster_over_180_degrees_is_in_two_parts(tmp_path: Path) -> None:
    far = ix.RegionGrid.from_bbox((605_000, 7_815_000, 620_000, 7_825_000), "EPSG:32660", 100, bbox_crs="EPSG:32660")
    write_raster(tmp_path / "x_20200101-20200113_VV_cc.tif", np.full(far.shape, 0.5), grid=far)
    (item,) = items_from_files(tmp_path)
    assert item.geometry is not None
    assert item.geometry["type"] == "MultiPolygon"
    west, south, east, north = item.bbox or ()
    assert 179 < west <= 180
    assert -180 <= east < -179
    assert 70 < south < north < 71
