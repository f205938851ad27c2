"""The real OPERA RTC-S1 series of one burst through search and cube, from every kind of source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
import requests
import xarray as xr

import icemap_xr as ix
from icemap_xr import schema
from icemap_xr.errors import CatalogUnavailableError, EmptySearchError
from icemap_xr.stac_items import write_catalog

#: lon/lat box around the burst
OPERA_REGION = (-119.89, 34.92, -119.85, 34.96)
OPERA_YEARS = (2021, 2022, 2023, 2025)


def source_db(folder: Path, time: np.datetime64, platform: str, polarisation: str = "VV") -> np.ndarray:
    """Read the one source raster of a date and convert it plainly."""
    stamp = np.datetime_as_string(time, "s").replace("-", "").replace(":", "")
    (path,) = folder.glob(f"*_{stamp}Z_*_S1{platform[-1].upper()}_30_v1.0_{polarisation}.tif")
    with rasterio.open(path) as dataset:
        power = dataset.read(1).astype(np.float64)
    floor = schema.FEATURES["rtc"].minimum
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.isnan(power), np.nan, np.maximum(10 * np.log10(np.maximum(power, 0)), floor))


def assert_cube_is_source(cube: xr.Dataset, folder: Path, polarisation: str = "VV") -> None:
    bound = schema.FEATURES["rtc"].encoding_error + 2e-5  # and float32 of values near 100
    values = cube["rtc"].values
    for scene, time, platform in zip(values, cube["rtc_time"].values, cube["rtc_platform"].values, strict=True):
        expected = source_db(folder, time, str(platform), polarisation)
        np.testing.assert_array_equal(np.isnan(scene), np.isnan(expected))
        assert np.nanmax(np.abs(scene - expected)) <= bound


def test_cube_equals_the_source_pixels_at_the_right_dates(
    opera: Path, opera_grid: ix.RegionGrid, opera_api: str, tmp_path: Path
) -> None:
    items = ix.search(opera_api, OPERA_REGION, OPERA_YEARS)
    assert len(items) == 21
    assert all(item.assets["VV"].href.startswith("http://127.0.0.1") for item in items)
    cube = ix.build_cube(items, opera_grid, tmp_path / "cube.zarr", chunk=64)
    assert cube["rtc"].shape == (21, 100, 100)
    assert np.all(np.diff(cube["rtc_time"].values) > np.timedelta64(0))
    assert cube["rtc"].attrs["polarisation"] == "VV"
    assert_cube_is_source(cube, opera)


def test_both_platforms_of_the_winter_of_2021_stay_apart(
    opera: Path, opera_grid: ix.RegionGrid, tmp_path: Path
) -> None:
    cube = ix.build_cube(ix.search(opera, OPERA_REGION, 2021), opera_grid, tmp_path / "cube.zarr")
    platforms = cube["rtc_platform"].values.tolist()
    assert platforms == ["sentinel-1a", "sentinel-1b"] * 3
    only_b = ix.search(opera, OPERA_REGION, 2021, platforms=["sentinel-1b"])
    assert {item.properties["platform"] for item in only_b} == {"sentinel-1b"}


def test_stackstac_gives_the_same_pixels(opera_grid: ix.RegionGrid, opera_api: str, tmp_path: Path) -> None:
    items = ix.search(opera_api, OPERA_REGION, OPERA_YEARS)
    one = ix.build_cube(items, opera_grid, tmp_path / "odc.zarr", loader="odc")
    other = ix.build_cube(items, opera_grid, tmp_path / "stackstac.zarr", loader="stackstac")
    np.testing.assert_array_equal(one["rtc"].values, other["rtc"].values)


def test_year_index_of_six_and_of_more_dates(opera: Path, opera_grid: ix.RegionGrid, tmp_path: Path) -> None:
    items = ix.search(opera, OPERA_REGION, OPERA_YEARS)
    cube = ix.build_cube(items, opera_grid, tmp_path / "fifteen.zarr", steps=15)
    years = cube["rtc_time"].values.astype("M8[Y]").astype(int) + 1970
    for year, row in zip(cube["year"].values, cube["rtc_index"].values, strict=True):
        # fewer than 15 dates a year here: each is used once, in order, and the other steps say so
        np.testing.assert_array_equal(row[row >= 0], np.flatnonzero(years == year))
    six = ix.build_cube(items, opera_grid, tmp_path / "six.zarr", steps=6, years=[2021])
    assert six["rtc_index"].values.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert six.icemap.yearly()["rtc"].shape == (1, 6, 100, 100)


def test_a_year_with_more_dates_than_steps_takes_each_at_most_once(
    opera: Path, opera_grid: ix.RegionGrid, tmp_path: Path
) -> None:
    items = ix.search(opera, OPERA_REGION, [2022, 2023], year_start="10-05")
    cube = ix.build_cube(items, opera_grid, tmp_path / "cube.zarr", steps=6)
    times, starts = cube["rtc_time"].values, np.array(["2022-10-05", "2023-10-05", "2024-10-05"], "M8[ns]")
    assert cube.attrs["year_start"] == "10-05"
    for row, (start, end) in zip(cube["rtc_index"].values, pairwise(starts), strict=True):
        inside = np.flatnonzero((times >= start) & (times < end))
        assert len(inside) == 7
        assert np.all(np.diff(row) > 0)
        assert set(row) <= set(inside)


def test_a_year_of_fifteen_dates_is_taken_whole(opera: Path, opera_grid: ix.RegionGrid, tmp_path: Path) -> None:
    # no calendar year of the series has fifteen: take the real rasters as scenes of other days
    items = ix.search(opera, OPERA_REGION, OPERA_YEARS)
    for number, item in enumerate(items):
        item.datetime = datetime(2021, 1, 5, 2, tzinfo=UTC) + timedelta(days=12 * number)
        del item.properties["sat:absolute_orbit"]
    fifteen = pystac.ItemCollection(list(items)[:15], extra_fields=items.extra_fields)
    cube = ix.build_cube(fifteen, opera_grid, tmp_path / "cube.zarr", years=[2021])
    assert cube["rtc_index"].values.tolist() == [list(range(15))]


def test_zero_power_over_the_sea_is_an_observation(data: Path, tmp_path: Path) -> None:
    folder = data / "sentinel1_rtc" / "T137-292318-IW1"
    bounds = (165660.0, 3776190.0, 168660.0, 3779190.0)
    grid = ix.RegionGrid.from_bbox(bounds, "EPSG:32611", 30, bbox_crs="EPSG:32611")
    items = ix.search(folder, (-120.7, 34.0, -120.5, 34.2), OPERA_YEARS)
    cube = ix.build_cube(items, grid, tmp_path / "cube.zarr", polarisation="VH")
    assert_cube_is_source(cube, folder, "VH")
    values = cube["rtc"].values
    floor = schema.FEATURES["rtc"].minimum
    assert np.isfinite(values).all()
    assert np.isclose(values, floor, atol=0.0025).sum() == 19  # the zeros of the eight dates that have any


def test_static_catalogue_and_folder_give_the_items_of_the_api(opera: Path, opera_api: str, tmp_path: Path) -> None:
    path = write_catalog(ix.items_from_files(opera), tmp_path / "catalogue", title="burst")
    found = [ix.search(source, OPERA_REGION, OPERA_YEARS) for source in (opera, path, opera_api)]
    ids = [[item.id for item in items] for items in found]
    assert ids[0] == ids[1] == ids[2]


def test_filters_run_on_the_client_where_the_server_has_none(opera_api: str) -> None:
    conformance = requests.get(opera_api, timeout=10).json()["conformsTo"]
    assert not any("query" in one or "filter" in one for one in conformance)
    assert len(ix.search(opera_api, OPERA_REGION, 2021, orbit_state="ascending", relative_orbit=137)) == 6
    with pytest.raises(EmptySearchError, match="check region, years and filters"):
        ix.search(opera_api, OPERA_REGION, 2021, orbit_state="descending")


def test_assets_are_read_by_range(opera_api: str) -> None:
    href = ix.search(opera_api, OPERA_REGION, 2021)[0].assets["VV"].href
    answer = requests.get(href, headers={"Range": "bytes=0-3"}, timeout=10)
    assert answer.status_code == 206
    assert answer.content in (b"II*\0", b"MM\0*")


def test_silent_server_is_a_typed_error() -> None:
    with pytest.raises(CatalogUnavailableError, match="does not answer"):
        ix.search("http://127.0.0.1:9/stac", OPERA_REGION, 2021, timeout=2)
