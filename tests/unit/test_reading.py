"""Reading rasters: units, nodata, overlaps, and faults that are never nodata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from icemap_xr import loopback
from icemap_xr.errors import InputError, ReadError
from icemap_xr.providers import load_provider
from icemap_xr.reading import LOADERS, BlockRead, read_block, to_units
from icemap_xr.scenes import Scene, scenes_from_items
from icemap_xr.schema import FEATURES
from icemap_xr.store import decode
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SHAPE = (12, 15)
GRID = small_grid(SHAPE)
FLOOR = FEATURES["rtc"].minimum
POWER = np.random.default_rng(0).lognormal(-3, 1, SHAPE).astype(np.float32)


def scene(*paths: Path) -> Scene:
    items = [rtc_item(path, f"2020-05-01T06:00:{i:02d}", orbit=100) for i, path in enumerate(paths)]
    (found,) = scenes_from_items(items, load_provider("local").sources, "rtc")
    return found


def pair(path: Path) -> Scene:
    items = [pair_item(path, "2020-05-01", "2020-05-13")]
    (found,) = scenes_from_items(items, load_provider("local").sources, "insar")
    return found


def in_db(power: Any) -> NDArray[np.float64]:
    return 10 * np.log10(np.asarray(power, np.float64))


@pytest.mark.parametrize("loader", LOADERS)
def test_power_becomes_db_and_what_is_not_there_nan(tmp_path: Path, loader: Any) -> None:
    power = POWER.copy()
    power[0, :6] = [0, -0.01, np.nan, np.inf, 1e-20, 1e-45]
    found = read_block(scene(write_raster(tmp_path / "a.tif", power)), GRID.geobox, loader, "nearest")
    assert found.dtype == np.float32
    assert found[0, 0] == found[0, 1] == found[0, 4] == found[0, 5] == np.float32(FLOOR)
    assert np.isnan(found[0, 2:4]).all()
    assert np.isnan(found).sum() == 2
    np.testing.assert_allclose(found[1:], in_db(power[1:]), atol=1e-4)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("nodata", [0.0, -9999.0])
def test_declared_nodata_is_nan(tmp_path: Path, loader: Any, nodata: float) -> None:
    power = POWER.copy()
    power[3:5, 4:6] = nodata
    found = read_block(scene(write_raster(tmp_path / "a.tif", power, nodata=nodata)), GRID.geobox, loader)
    assert np.isnan(found[3:5, 4:6]).all()
    assert np.isnan(found).sum() == 4


def test_what_lies_beyond_the_raster_is_nan(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", POWER[:5, :7])
    found = read_block(scene(path), GRID.geobox)
    assert np.isfinite(found[:5, :7]).all()
    assert np.isfinite(found).sum() == 35
    east = GRID.geobox.translate_pix(100, 0)
    assert np.isnan(read_block(scene(path), east)).all()


@pytest.mark.parametrize("loader", LOADERS)
def test_of_slices_the_first_valid_pixel_counts(tmp_path: Path, loader: Any) -> None:
    first, second = POWER.copy(), POWER * 10
    first[4:, :] = np.nan
    second[:, 9:] = np.nan
    one = scene(write_raster(tmp_path / "a.tif", first), write_raster(tmp_path / "b.tif", second))
    found = read_block(one, GRID.geobox, loader)
    np.testing.assert_allclose(found[:4], in_db(first[:4]), atol=1e-4)
    np.testing.assert_allclose(found[4:, :9], in_db(second[4:, :9]), atol=1e-4)
    assert np.isnan(found[4:, 9:]).all()


def test_blocks_are_parts_of_the_whole(tmp_path: Path) -> None:
    one = scene(write_raster(tmp_path / "a.tif", POWER))
    whole = read_block(one, GRID.geobox)
    rows, columns = slice(3, 8), slice(5, 15)
    np.testing.assert_array_equal(read_block(one, GRID.piece(rows, columns)), whole[rows, columns])


def test_codes_are_within_the_stated_error(tmp_path: Path) -> None:
    power = POWER.copy()
    power[0, :3] = [0, -1, np.nan]
    feature = FEATURES["rtc"]
    codes = BlockRead(scene(write_raster(tmp_path / "a.tif", power)), GRID.geobox)()
    assert codes.dtype == np.int16
    assert codes.shape == (1, *SHAPE)
    found = decode(codes[0], {"scale_factor": feature.step, "_FillValue": -32768})
    assert np.isnan(found[0, 2])
    np.testing.assert_allclose(found[0, :2], FLOOR, atol=feature.encoding_error + 1e-4)
    np.testing.assert_allclose(found[1:], in_db(power[1:]), atol=feature.encoding_error + 1e-4)


def test_coherence_is_kept_and_refused_outside_its_range(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    values[0, :4] = [np.nan, 0, 1, 1.0000001]
    found = read_block(pair(write_raster(tmp_path / "a.tif", values)), GRID.geobox)
    np.testing.assert_allclose(found, np.clip(values, 0, 1), atol=1e-7)
    assert np.isnan(found[0, 0])
    for bad in (1.5, -0.2, 200.0):
        values[5, 5] = bad
        with pytest.raises(InputError, match=f"{bad:g}.*0..1"):
            read_block(pair(write_raster(tmp_path / "a.tif", values)), GRID.geobox)


def test_db_stays_and_minus_infinity_is_the_floor(tmp_path: Path) -> None:
    one = Scene(**(scene(write_raster(tmp_path / "a.tif", POWER)).__dict__ | {"values": "dB"}))
    found = to_units(np.array([-20, 5, -np.inf, -500, np.inf, np.nan], np.float32), one)
    np.testing.assert_array_equal(found, np.array([-20, 5, FLOOR, FLOOR, np.nan, np.nan], np.float32))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "cut"])
def test_a_raster_that_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, loader: Any, damage: str) -> None:
    rng = np.random.default_rng(2)
    path = write_raster(tmp_path / "a.tif", rng.random((60, 60)))
    grid = small_grid((60, 60))
    one = scene(path)
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "text": b"nonsense", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(ReadError, match=r"item 'a', asset 'HH' at .*a\.tif.*run again to resume") as caught:
        read_block(one, grid.geobox, loader)
    assert "\n" not in str(caught.value)


def test_rasters_come_over_http_and_messages_hold_no_credentials(tmp_path: Path) -> None:
    one = scene(write_raster(tmp_path / "a.tif", POWER))
    with loopback.serve_files(tmp_path) as address:
        one.items[0]["assets"]["HH"]["href"] = f"{address}/a.tif"
        np.testing.assert_allclose(read_block(one, GRID.geobox), in_db(POWER), atol=1e-4)
        secret = address.replace("://", "://user:hunter2@")
        one.items[0]["assets"]["HH"]["href"] = f"{secret}/none.tif?token=hunter2"
        with pytest.raises(ReadError, match=r"none.tif") as caught:
            read_block(one, GRID.geobox)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("values", [[-12.0, -8.0, -15.0], [0.1, 0.2, -9999.0]])
def test_what_cannot_be_linear_power_is_refused(tmp_path: Path, values: list[float]) -> None:
    one = scene(write_raster(tmp_path / "a.tif", POWER))
    with pytest.raises(InputError, match="no linear power"):
        to_units(np.array([values], np.float32), one)


def test_digital_numbers_are_no_power(tmp_path: Path) -> None:
    one = scene(write_raster(tmp_path / "a.tif", POWER))
    numbers = np.random.default_rng(4).integers(20, 900, (40, 40)).astype(np.float32)
    with pytest.raises(InputError, match=r"'a' has a power of .*nearly all above 1.*digital numbers"):
        to_units(numbers, one)


def test_linear_power_that_is_declared_to_be_db_is_refused(tmp_path: Path) -> None:
    one = Scene(**(scene(write_raster(tmp_path / "a.tif", POWER)).__dict__ | {"values": "dB"}))
    linear = np.random.default_rng(3).lognormal(-3, 1, (40, 40)).astype(np.float32)
    with pytest.raises(InputError, match="linear power; mend the provider profile"):
        to_units(linear, one)
    np.testing.assert_allclose(to_units(in_db(linear).astype(np.float32), one), in_db(linear), atol=1e-4)


@pytest.mark.parametrize("loader", LOADERS)
def test_nodata_of_zero_and_of_nan_are_the_same(tmp_path: Path, loader: Any) -> None:
    holes = np.zeros(SHAPE, bool)
    holes[2:5, 3:9] = True
    zero = write_raster(tmp_path / "zero.tif", np.where(holes, 0, POWER), nodata=0.0)
    nan = write_raster(tmp_path / "nan.tif", np.where(holes, np.nan, POWER))
    found = [read_block(scene(path), GRID.geobox, loader) for path in (zero, nan)]
    np.testing.assert_array_equal(found[0], found[1])
    assert np.isnan(found[0]).sum() == holes.sum()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["mask", "alpha"])
def test_what_only_a_mask_hides_is_not_read_as_data(tmp_path: Path, loader: Any, kind: str) -> None:
    hidden = np.zeros(SHAPE, bool)
    hidden[:, :5] = True
    path = write_raster(tmp_path / "a.tif", np.where(hidden, 0, POWER), nodata=None)
    if kind == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as out:
            out.write_mask(~hidden)
    else:
        with rasterio.open(path) as src:
            profile = src.profile | {"count": 2}
        with rasterio.open(path, "w", **profile) as out:
            out.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
            out.write(np.stack([np.where(hidden, 0, POWER), np.where(hidden, 0, 255)]).astype(np.float32))
    one = scene(path)
    one.items[0]["assets"]["HH"].pop("raster:bands")
    with pytest.raises(InputError, match=r"'a' at .*has a mask and no nodata value"):
        read_block(one, GRID.geobox, loader)
    named = Scene(**(one.__dict__ | {"nodata": 0.0}))
    # stackstac heeds no nodata but the raster's own
    assert np.isnan(read_block(named, GRID.geobox))[hidden].all()


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("who", ["header", "item", "asset"])
def test_scaled_values_are_not_taken_for_the_real_ones(tmp_path: Path, loader: Any, who: str) -> None:
    path = write_raster(tmp_path / "a.tif", in_db(POWER) * 10)
    one = Scene(**(scene(path).__dict__ | {"values": "dB"}))
    asset = one.items[0]["assets"]["HH"]
    if who == "header":
        with rasterio.open(path, "r+") as out:
            out.scales = [0.1]
    elif who == "item":
        asset["raster:bands"][0]["scale"] = 0.1
    else:
        asset["raster:scale"] = 0.1
    with pytest.raises(InputError, match=r"'a' at .*scaled values .scale 0.1, offset 0.*gdal_translate -unscale"):
        read_block(one, GRID.geobox, loader)


def test_a_fill_value_of_db_that_nobody_declares_is_no_observation(tmp_path: Path) -> None:
    one = Scene(**(scene(write_raster(tmp_path / "a.tif", POWER)).__dict__ | {"values": "dB"}))
    with pytest.raises(InputError, match="'a' has values down to -9999 dB: that is a fill value"):
        to_units(np.array([-12, -9999, -8], np.float32), one)


def test_stackstac_does_not_pass_over_a_nodata_value_that_only_the_item_tells(tmp_path: Path) -> None:
    one = scene(write_raster(tmp_path / "a.tif", POWER, nodata=None))
    one.items[0]["assets"]["HH"]["raster:bands"] = [{"nodata": 0}]
    with pytest.raises(InputError, match="loader='stackstac' reads neither"):
        read_block(one, GRID.geobox, "stackstac")
