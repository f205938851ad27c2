"""A scene of known ground comes back: backscatter within 0.1 dB, places within a quarter of a pixel."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import ElevationError, GeolocationError, InputError
from icemap_xr.grd import Dem, GrdOptions, geocode, inspect, relief
from icemap_xr.testing.radar import (
    RadarScene,
    centres,
    map_of,
    wavy_backscatter,
    wavy_terrain,
    write_dem,
    write_measurement,
)


def errors(found: xr.DataArray, scene: RadarScene) -> np.ndarray:
    """Differences from the truth in dB."""
    x, y = np.meshgrid(found["x"].values, found["y"].values)
    return found.values - 10 * np.log10(scene.backscatter(x, y))


@pytest.mark.parametrize("chunk", [512, 100])
def test_terrain_corrected_backscatter_is_true(
    chunk: int, hilly: RadarScene, hilly_product: Path, hilly_dem: Path
) -> None:
    options = GrdOptions("terrain", dem=Dem(str(hilly_dem), "ellipsoid"))
    found = geocode(hilly_product, map_of(hilly, (220, 260)), options, chunk=chunk)
    assert found.chunks is not None
    off = errors(found.compute(), hilly)
    assert np.isfinite(off).all()
    assert np.sqrt((off**2).mean()) < 0.02
    assert np.abs(off).max() < 0.1


@pytest.mark.parametrize(
    "geometry", [{"latitude_argument": 103.0, "node": 180.0}, {"node": 195.7, "crs": "EPSG:32601"}]
)
def test_a_descending_pass_and_one_over_the_date_line_are_true_too(geometry: dict[str, Any], tmp_path: Path) -> None:
    scene = RadarScene(shape=(300, 400), terrain=wavy_terrain, backscatter=wavy_backscatter, **geometry)
    path = scene.write(tmp_path)
    dem = Dem(str(write_dem(tmp_path / "d.tif", scene, margin=4000.0)), "ellipsoid")
    found = geocode(path, map_of(scene, (120, 140)), GrdOptions("terrain", dem=dem), chunk=100).compute()
    assert np.abs(errors(found, scene)).max() < 0.1


@pytest.mark.parametrize("pixel", [20.0, 40.0])
def test_blocks_do_not_change_what_is_averaged(
    pixel: float, hilly: RadarScene, hilly_dem: Path, tmp_path: Path
) -> None:
    """Slopes change how many pixels of the image lie in one of the map; speckle tells if blocks differ in that."""
    path = replace(hilly, looks=4).write(tmp_path)
    grid = map_of(hilly, tuple(round(n * 10 / pixel) for n in (220, 260)), pixel)
    options = GrdOptions("terrain", dem=Dem(str(hilly_dem), "ellipsoid"))
    whole, parts = (geocode(path, grid, options, chunk=chunk).values for chunk in (512, 32))
    np.testing.assert_allclose(whole, parts, atol=0.02)
    # 4 looks of speckle have a standard deviation of 2.3 dB, averages of them less
    assert np.std(whole - 10 * np.log10(hilly.backscatter(*centres(grid)))) < 1.2


def test_a_block_that_reaches_far_beyond_the_swath_keeps_what_lies_in_it(tmp_path: Path) -> None:
    scene = RadarScene(shape=(300, 400), backscatter=wavy_backscatter)
    path, grid = scene.write(tmp_path), map_of(scene, (800, 800), 20.0)
    whole, parts = (geocode(path, grid, GrdOptions("ellipsoid"), chunk=chunk).values for chunk in (1024, 64))
    assert np.isfinite(whole).sum() * 400 == pytest.approx(300 * 10.2 * 400 * 10, rel=0.03)
    np.testing.assert_array_equal(np.isfinite(whole), np.isfinite(parts))


def test_a_fit_to_control_points_with_a_dem_is_as_good_here(
    hilly: RadarScene, hilly_product: Path, hilly_dem: Path
) -> None:
    options = GrdOptions("gcp", dem=Dem(str(hilly_dem), "ellipsoid"))
    assert np.abs(errors(geocode(hilly_product, map_of(hilly, (220, 260)), options).compute(), hilly)).max() < 0.1


def test_a_dem_above_the_geoid_is_not_taken_for_one_above_the_ellipsoid(
    hilly: RadarScene, hilly_product: Path, tmp_path: Path
) -> None:
    above = write_dem(tmp_path / "geoid.tif", hilly, margin=6000.0, lift=-35.0)
    grid = map_of(hilly, (220, 260))
    right = geocode(hilly_product, grid, GrdOptions("terrain", dem=Dem(str(above), "egm2008", geoid=35.0)))
    wrong = geocode(hilly_product, grid, GrdOptions("terrain", dem=Dem(str(above), "ellipsoid")))
    assert np.abs(errors(right.compute(), hilly)).max() < 0.1
    assert np.abs(errors(wrong.compute(), hilly)).max() > 0.5


def test_on_flat_ground_no_dem_is_needed(tmp_path: Path) -> None:
    scene = RadarScene(shape=(300, 400), backscatter=wavy_backscatter)
    path, grid = scene.write(tmp_path), map_of(scene, (150, 200))
    for options in (GrdOptions("ellipsoid"), GrdOptions("gcp"), GrdOptions("ellipsoid", height=0.0)):
        off = errors(geocode(path, grid, options).compute(), scene)
        assert np.abs(off).max() < 0.1
    # 300 m too high is 300 / tan(38) m towards the radar
    assert np.abs(errors(geocode(path, grid, GrdOptions("ellipsoid", height=300.0)).compute(), scene)).max() > 1


@pytest.mark.parametrize("form", ["range", "range and azimuth"])
def test_noise_of_both_forms_is_what_is_removed(form: str, tmp_path: Path) -> None:
    scene = RadarScene(shape=(300, 400), backscatter=lambda x, y: np.full(np.shape(x), 0.02), form=form)
    path, grid = scene.write(tmp_path), map_of(scene, (200, 300))
    found, raw = (
        10 ** (geocode(path, grid, GrdOptions("ellipsoid", noise=noise)).values / 10) for noise in (True, False)
    )
    lines, pixels = image_coordinates(scene, grid)
    noise = scene.noise(lines, np.round(pixels)) / scene.gain(lines, pixels) ** 2
    # away from the border of the two swaths, where the noise of both is mixed
    clear = np.abs(pixels - scene.swath_border) > 2
    np.testing.assert_allclose((raw - found)[clear], noise[clear], rtol=2e-3)
    np.testing.assert_allclose(found[clear], 0.02, rtol=0.02)


def test_power_below_zero_is_the_least_value_and_no_nodata(tmp_path: Path) -> None:
    scene = RadarScene(shape=(120, 160), backscatter=lambda x, y: np.full(np.shape(x), -1e-4))
    found = geocode(scene.write(tmp_path), map_of(scene, (60, 80)), GrdOptions("ellipsoid")).values
    assert (found == np.float32(schema.feature("grd").minimum)).all()


@pytest.mark.parametrize("form", ["range", "range and azimuth"])
def test_averages_over_coarse_pixels_are_of_power(form: str, tmp_path: Path) -> None:
    """Speckle averages out to the true power, also where single pixels fall below the noise."""
    scene = RadarScene(shape=(400, 600), backscatter=lambda x, y: np.full(np.shape(x), 1e-3), looks=4, form=form)
    found = geocode(scene.write(tmp_path), map_of(scene, (25, 35), 100.0), GrdOptions("ellipsoid")).values
    assert 10 * np.log10((10 ** (found / 10)).mean()) == pytest.approx(-30.0, abs=0.1)


@pytest.mark.parametrize("radiometry", ["sigma0", "gamma0", "beta0"])
def test_the_radiometry_is_the_one_asked_for(radiometry: str, tmp_path: Path) -> None:
    scene = RadarScene(shape=(120, 160))
    options = GrdOptions("ellipsoid", radiometry=radiometry, noise=False)  # type: ignore[arg-type]
    with_noise = replace(scene, backscatter=lambda x, y: np.full(np.shape(x), 0.1))
    found = geocode(with_noise.write(tmp_path), map_of(scene, (60, 80)), options)
    # the simulated gains are 0.9 and 0.8 times that of sigma0
    lines, pixels = np.array([60.0]), np.array([80.0])
    power = 0.1 + float((scene.noise(lines, pixels) / scene.gain(lines, pixels) ** 2)[0])
    gain = {"sigma0": 1.0, "gamma0": 0.9, "beta0": 0.8}[radiometry]
    assert float(found.mean()) == pytest.approx(10 * np.log10(power / gain**2), abs=0.02)
    assert found.attrs["radiometry"] == radiometry


@pytest.mark.parametrize("form", ["range", "range and azimuth"])
def test_beyond_the_swath_there_is_nodata_and_inside_everything_is_observed(form: str, tmp_path: Path) -> None:
    scene = RadarScene(shape=(300, 400), form=form, border=(40, 60, 30), looks=4)
    path, grid = scene.write(tmp_path), map_of(scene, (500, 600))
    found = geocode(path, grid, GrdOptions("ellipsoid")).values
    lines, pixels = image_coordinates(scene, grid)
    rim = 9 if form == "range" else 1
    inside = (lines > 40 + rim) & (lines < 298) & (pixels > 60 + rim) & (pixels < 370 - rim - 1)
    beyond = (lines < 39) | (lines > 300) | (pixels < 59) | (pixels > 370)
    assert np.isfinite(found[inside]).all()
    assert np.isnan(found[beyond]).all()
    kept = geocode(path, grid, GrdOptions("ellipsoid", border=False)).values
    assert np.isfinite(kept[(lines > 1) & (lines < 298) & (pixels > 1) & (pixels < 398)]).all()


def image_coordinates(scene: RadarScene, grid: object) -> tuple[np.ndarray, np.ndarray]:
    """Lines and pixels of a grid on flat ground: a cubic through the truth, good to a hundredth."""
    x, y = centres(grid)  # type: ignore[arg-type]
    xs, ys = (one[::7, ::7].ravel() for one in scene.truth[:2])

    def terms(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = (x - xs.mean()) / 1e4, (y - ys.mean()) / 1e4
        return np.stack([u**i * v**j for i in range(4) for j in range(4 - i)], -1)

    values = np.stack([one[::7, ::7].ravel() for one in scene.grid], 1)
    found = terms(x, y) @ np.linalg.lstsq(terms(xs, ys), values, rcond=None)[0]
    return found[..., 0], found[..., 1]


def test_a_grid_beside_the_scene_has_no_observation(hilly: RadarScene, hilly_product: Path) -> None:
    grid = map_of(hilly, (20, 30))
    away = type(grid)(grid.geobox.translate_pix(0, 3000))
    assert np.isnan(geocode(hilly_product, away, GrdOptions("ellipsoid")).values).all()


def test_the_dem_must_cover_the_grid(hilly: RadarScene, hilly_product: Path, tmp_path: Path) -> None:
    small = write_dem(tmp_path / "small.tif", hilly, margin=-2500.0)
    options = GrdOptions("terrain", dem=Dem(str(small), "ellipsoid"))
    with pytest.raises(ElevationError, match="does not cover"):
        geocode(hilly_product, map_of(hilly, (220, 260)), options).compute()


def test_without_control_points_a_fit_is_refused(tmp_path: Path) -> None:
    scene = RadarScene(shape=(60, 80))
    path = scene.write(tmp_path)
    write_measurement(path, scene.numbers, None, version="003.31")
    with pytest.raises(GeolocationError, match="has no ground control points"):
        geocode(path, map_of(scene, (20, 20)), GrdOptions("gcp"))
    with pytest.raises(GeolocationError, match="has no ground control points"):
        inspect(path)
    assert np.isfinite(geocode(path, map_of(scene, (20, 20)), GrdOptions("ellipsoid")).values).any()


def test_inspect_tells_how_well_the_geometry_is_known(hilly_product: Path, real_iw: Path) -> None:
    found = inspect(hilly_product)
    assert found["range_doppler"]["rms"] < 0.001
    assert found["gcp"]["rms"] < 0.01
    assert found["version"] == "03.31"
    real = inspect(real_iw)
    assert real["gcp"]["rms"] < 0.5
    assert "does not exist" in real["annotation"]


def steep(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A cone of 700 m, steeper than the look, in the middle of the scene of the tests."""
    return np.maximum(0.0, 700.0 - 1.6 * np.hypot(x - CONE[0], y - CONE[1]))


CONE = (0.0, 0.0)


def test_layover_shadow_and_incidence_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = RadarScene(shape=(300, 400))
    path, grid = scene.write(tmp_path), map_of(scene, (260, 300))
    x, y = centres(grid)
    monkeypatch.setattr(f"{__name__}.CONE", (float(x[130, 150]), float(y[130, 150])))
    dem = Dem(str(write_dem(tmp_path / "d.tif", replace(scene, terrain=steep), margin=6000.0, pixel=10.0)), "ellipsoid")
    options = GrdOptions("terrain", dem=dem)
    found = relief(path, grid, options).compute()
    flat = (np.hypot(x - CONE[0], y - CONE[1]) > 1000) & (found["layover_shadow"].values == 0)
    angle = found["local_incidence_angle"].values
    assert np.median(angle[flat]) == pytest.approx(38.0, abs=0.5)
    assert np.ptp(angle[flat]) < 2
    mask = found["layover_shadow"].values
    # the platform is where the cone faces it best
    toward = np.array(np.unravel_index(np.argmin(angle), angle.shape)) - (130, 150)
    step = toward / np.hypot(*toward)
    facing, behind = (tuple(np.round((130, 150) + far * step).astype(int)) for far in (20, -25))
    assert mask[facing] & 1
    # a slope of 58 degrees away from a look at 38 degrees cannot be seen
    assert mask[behind] & 2
    assert not mask[flat].any()
    dropped = geocode(path, grid, replace(options, layover_shadow="nodata")).values
    kept = geocode(path, grid, options).values
    assert (mask[np.isfinite(kept)] > 0).any()
    np.testing.assert_array_equal(np.isfinite(dropped), np.isfinite(kept) & (mask == 0))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: GrdOptions("terrain"), "needs dem="),
        (lambda: GrdOptions("affine"), "geocoding='affine' is not allowed"),  # type: ignore[arg-type]
        (lambda: GrdOptions("ellipsoid", radiometry="dn"), "radiometry='dn'"),  # type: ignore[arg-type]
        (lambda: GrdOptions("ellipsoid", dem=Dem("a.tif", "ellipsoid")), "takes no dem"),
        (lambda: GrdOptions("gcp", dem=Dem("a.tif", "ellipsoid"), height=3.0), "both dem and height"),
        (lambda: GrdOptions("gcp", layover_shadow="nodata"), "needs geocoding='terrain'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(make: Callable[[], GrdOptions], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make()


def test_options_say_what_was_done() -> None:
    options = GrdOptions("terrain", dem=Dem("https://host/d.tif?sig=secret", "egm2008"))
    assert options.attributes()["geocoding"] == "range-Doppler with an elevation model"
    assert "secret" not in str(options.to_dict())
