"""Prediction of a part: areas of interest, masks, cropped and changed cubes."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely
import xarray as xr
from numpy.typing import NDArray
from pyproj import Transformer

from icemap_xr import blockjob, schema
from icemap_xr.cube import build_cube
from icemap_xr.errors import (
    CroppedCubeWarning,
    InputError,
    OutputExistsError,
)
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels import blend
from icemap_xr.storearray import StoreArray
from icemap_xr.testing.fakes import CountingPredictor, FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.published import MODEL, STORED, probability, published
from icemap_xr.testing.rasters import rtc_item, write_raster

SHAPE = (37, 45)

# --- part of a map


def test_an_area_of_interest_keeps_values_and_runs_no_other_window() -> None:
    ds = yearly_dataset(SHAPE)
    full, counter = probability(ds), CountingPredictor(MODEL)
    corner = shapely.box(500_000 + 300, 8_700_000 - 200, 500_000 + 350, 8_700_000 - 100)
    lonlat = RegionGrid.from_dataset(ds).geobox.crs.proj
    import geopandas as gpd

    frame = gpd.GeoDataFrame(geometry=[corner], crs=lonlat)
    inside = np.zeros(SHAPE, bool)
    inside[10:20, 30:35] = True
    out = probability(ds, counter, aoi=frame)[0]
    np.testing.assert_array_equal(out, np.where(inside, full[0], np.nan))
    rows = [s for s in range(0, 37, 4) if s < 20 and s + 8 > 10]
    columns = [s for s in range(0, 45, 4) if s < 35 and s + 8 > 30]
    assert sum(counter.batches) == len(rows) * len(columns)
    mask = xr.DataArray(np.arange(37)[:, None] + np.zeros(45) < 15, dims=("y", "x"))
    both = probability(ds, aoi=frame, mask=mask)[0]
    np.testing.assert_array_equal(both, np.where(inside & mask.values, full[0], np.nan))


@pytest.mark.parametrize(
    "aoi", [(16.0, 78.0, 17.0, 79.0), (-60.0, 10.0, -59.0, 11.0), (0, 0, 0, 0), (400, 80, 401, 81)]
)
def test_an_area_elsewhere_is_refused(aoi: Any) -> None:
    counter = CountingPredictor(MODEL)
    with pytest.raises(InputError, match=r"aoi|region|box"):
        probability(yearly_dataset(SHAPE), counter, aoi=aoi)
    assert counter.batches == []


def test_a_wide_box_keeps_exactly_the_pixels_between_its_parallels_and_meridians() -> None:
    # 1 km pixels: a parallel across the box bends by 5 of them
    ds = yearly_dataset((120, 400), resolution=1000.0)
    west, south, east, north = 12.0, 78.0, 24.0, 78.8
    x, y = np.meshgrid(ds.x, ds.y)
    lon, lat = Transformer.from_crs(ds.odc.crs, "EPSG:4326", always_xy=True).transform(x, y)
    inside = (lon > west) & (lon < east) & (lat > south) & (lat < north)
    found = np.isfinite(probability(ds, aoi=(west, south, east, north))[0])
    assert 3000 < inside.sum() < inside.size / 2
    np.testing.assert_array_equal(found, inside)


def test_area_of_interest_from_the_store(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 16)
    bounds = shapely.Point(500_200, 8_699_800).buffer(90)
    import geopandas as gpd

    aoi = gpd.GeoSeries([bounds], crs="EPSG:32633")
    out, full = probability(cube, STORED, aoi=aoi), probability(cube, STORED)
    y, x = np.meshgrid(cube.y.values, cube.x.values, indexing="ij")
    inside = shapely.contains_xy(bounds, x, y)
    assert 200 < inside.sum() < 300
    np.testing.assert_array_equal(out[0], np.where(inside, full[0], np.nan))


def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise AssertionError("something was read")

    monkeypatch.setattr(StoreArray, "__getitem__", fail)


def test_a_block_without_a_wanted_pixel_reads_nothing(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 16)
    mask = xr.DataArray(np.zeros(SHAPE, bool), dims=("y", "x"))
    yearly = cube.icemap.yearly()
    unreadable(monkeypatch)
    for form in (cube, yearly):
        assert np.isnan(probability(form, STORED, mask=mask)).all()
    assert np.isnan(probability(cube, STORED, mask=mask.chunk(y=7))).all()
    with pytest.raises(AssertionError, match="something was read"):
        probability(cube, STORED)


def test_no_chunk_row_is_read_twice_in_a_block(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend, "READ_ROWS", 16)
    monkeypatch.setattr(blockjob, "READ_ROWS", 16)
    expected = probability(cube, STORED)
    read: list[tuple[str, int, int, int]] = []
    original = StoreArray.__getitem__

    def reading(self: StoreArray, key: tuple[int, slice, slice]) -> Any:
        read.append((self.name, key[0], key[1].start, key[1].stop))
        return original(self, key)

    monkeypatch.setattr(StoreArray, "__getitem__", reading)
    np.testing.assert_array_equal(probability(cube, STORED), expected)
    rows = [(0, 16), (16, 32), (32, 37)]
    assert sorted(read) == sorted(
        (name, scene, *part) for name in ("rtc", "insar") for scene in range(3) for part in rows
    )


def test_exactly_the_windows_with_a_pixel_to_keep_are_run(cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    mask = rng.random(SHAPE) < 0.02
    observed = cube.rtc.notnull().any("rtc_time") & cube.insar.notnull().any("insar_time")
    kept = mask & observed.values
    starts = [(row, column) for row in range(0, 37, 4) for column in range(0, 45, 4)]
    expected = sum(bool(kept[row : row + 8, column : column + 8].any()) for row, column in starts)
    assert 20 < expected < 100
    for form in (cube, cube.icemap.yearly(), cube.icemap.yearly().load()):
        counter = CountingPredictor(STORED)
        probability(form, counter, mask=xr.DataArray(mask, dims=("y", "x")), batch_size=7)
        assert sum(counter.batches) == expected


def test_windows_without_any_observation_are_not_run_and_change_nothing_elsewhere() -> None:
    ds = yearly_dataset(SHAPE)
    for name in ("grd", "insar"):
        ds[name].values[:, :, 10:30, 8:40] = np.nan
    counter = CountingPredictor(MODEL)
    out = probability(ds, counter)[0]
    inside = [(row, column) for row in range(12, 21, 4) for column in range(8, 31, 4)]
    assert inside[-1] == (20, 28)
    assert sum(counter.batches) == 10 * 12 - 3 * 7
    assert np.isnan(out[10:30, 8:40]).all()
    clean = np.ones(SHAPE, bool)
    clean[10:30, 8:40] = False
    np.testing.assert_allclose(out[clean], published(ds, MODEL)[clean], atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "match"),
    [
        (xr.DataArray(np.ones((3, 4), bool), dims=("y", "x")), r"mask.*\(37, 45\).*own grid"),
        (xr.DataArray(np.ones((45, 37), bool), dims=("x", "y")), "mask"),
        (xr.DataArray(np.ones(SHAPE, int), dims=("y", "x")), "int64.*boolean"),
    ],
)
def test_masks_that_do_not_fit_are_refused(mask: xr.DataArray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        probability(yearly_dataset(SHAPE), mask=mask)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("shift", [5.0, -10.0, 1000.0])
def test_a_mask_that_lies_elsewhere_is_refused(axis: str, shift: float) -> None:
    ds = yearly_dataset(SHAPE)
    mask = (ds.grd[0, 0] < 0).drop_vars("year")
    probability(ds, mask=mask)
    with pytest.raises(InputError, match=f"another grid along {axis}"):
        probability(ds, mask=mask.assign_coords({axis: mask[axis] + shift}))


# --- cropped cubes


@pytest.mark.parametrize("origin", [(8, 12), (5, 7), (0, 3)])
def test_a_cropped_cube_warns_and_keeps_the_regions_windows(cube: xr.Dataset, origin: tuple[int, int]) -> None:
    full = probability(cube, STORED)
    part = cube.isel(y=slice(origin[0], 33), x=slice(origin[1], 41))
    with pytest.warns(CroppedCubeWarning, match="aoi="):
        out = probability(part, STORED)
    window = STORED.window
    # where no window reaches the cut, nothing has changed
    first = tuple(0 if o == 0 else o + window for o in origin)
    inner = np.s_[:, first[0] : 33 - window, first[1] : 41 - window]
    local = np.s_[:, first[0] - origin[0] : 33 - window - origin[0], first[1] - origin[1] : 41 - window - origin[1]]
    assert out[local].size > 50
    np.testing.assert_array_equal(out[local], full[inner])


def test_without_a_recorded_origin_a_dataset_starts_at_its_own_corner() -> None:
    ds = yearly_dataset(SHAPE)
    part = ds.isel(y=slice(5, 30), x=slice(6, 40))
    for name in (schema.GRID_ORIGIN, schema.GRID_SHAPE):
        del part.spatial_ref.attrs[name]
    np.testing.assert_allclose(probability(part)[0], published(part, MODEL), atol=1e-6)


def test_the_whole_cube_does_not_warn(cube: xr.Dataset) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", CroppedCubeWarning)
        cube.icemap.predict(STORED)


# --- changed cubes


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + np.float32(1),
        lambda a: a.copy(data=a.data[::-1]),
        lambda a: a.copy(data=a.values * 0.5),
        lambda a: a.where(a > -13),
        lambda a: a.roll(x=3),
        lambda a: a.isel(rtc_time=[2, 0, 1]).assign_coords(rtc_time=a.rtc_time),
    ],
)
def test_a_cube_changed_after_opening_is_not_read_from_its_store(cube: xr.Dataset, change: Any) -> None:
    before = probability(cube, STORED)
    changed = cube.assign(rtc=change(cube.rtc))
    loaded = changed.load().icemap.yearly()
    expected = probability(loaded, STORED)
    changed = cube.assign(rtc=change(cube.rtc))
    np.testing.assert_array_equal(probability(changed, STORED), expected)
    assert not np.array_equal(expected, before, equal_nan=True)


def test_a_changed_index_is_obeyed(cube: xr.Dataset) -> None:
    turned = cube.assign(rtc_index=cube.rtc_index[:, ::-1].copy(data=[[2, 2, 2]]))
    expected = probability(turned.icemap.yearly().load(), STORED)
    np.testing.assert_array_equal(probability(turned, STORED), expected)
    assert not np.array_equal(expected, probability(cube, STORED))


def test_a_cube_built_again_from_other_values_is_another_input(tmp_path: Path) -> None:
    def build(seed: int) -> xr.Dataset:
        shutil.rmtree(tmp_path / "cube.zarr", ignore_errors=True)
        values = np.random.default_rng(seed).lognormal(-3, 1, SHAPE)
        item = rtc_item(write_raster(tmp_path / "scene.tif", values), "2020-06-01")
        return build_cube(pystac.ItemCollection([item]), small_grid(SHAPE), tmp_path / "cube.zarr", steps=1)

    def save(ds: xr.Dataset) -> NDArray[np.float32]:
        maps = ds.icemap.predict(FakePredictor(8, 1, ("rtc",))).icemap.to_zarr(tmp_path / "maps.zarr")
        values: NDArray[np.float32] = maps.probability.values
        return values

    first = save(build(0))
    np.testing.assert_array_equal(save(build(0)), first)
    with pytest.raises(OutputExistsError, match="other inputs"):
        save(build(1))
