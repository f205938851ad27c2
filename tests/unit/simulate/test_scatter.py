"""Statistics of simulated backscatter and coherence against closed forms and published ranges."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from icemap_xr import simulate
from icemap_xr.simulate import Landscape, Sensor, SimulatedRegion, Surface
from icemap_xr.simulate.exposure import exposure, incidence
from icemap_xr.simulate.noise import box_kernel, gaussian_kernel
from icemap_xr.simulate.scatter import _gamma
from icemap_xr.simulate.season import GEOLOCATION_LIMIT, geolocation, weather


@pytest.fixture(scope="module")
def coastal() -> SimulatedRegion:
    return simulate.region(size_km=4.0, seed=3, years=(2020,), features=("grd", "rtc", "insar"))


def test_gamma_variates_have_the_right_moments() -> None:
    normal = np.random.default_rng(0).standard_normal(400_000).astype(np.float32)
    drawn = _gamma(normal, 4.4).astype(float)
    assert drawn.mean() == pytest.approx(4.4, rel=0.01)
    assert drawn.var() == pytest.approx(4.4, rel=0.03)


def test_coherence_of_the_sea_is_the_bias_of_the_estimator(coastal: SimulatedRegion) -> None:
    sea = coastal.truth()["surface"].values[0] == Surface.SEA
    assert sea.mean() > 0.02
    looks = coastal.sensor.coherence_looks
    # Touzi et al. 1999: the mean sample coherence of L looks where there is none
    bias = math.gamma(looks) * math.gamma(1.5) / math.gamma(looks + 0.5)
    for k in (0, 7):
        assert coastal.scene("insar", k)[sea].mean() == pytest.approx(bias, abs=0.012)


def test_slopes_towards_the_radar_are_brighter_until_terrain_is_flattened(coastal: SimulatedRegion) -> None:
    truth = coastal.truth()
    down, right = np.gradient(truth["dem"].values, coastal.grid.resolution)
    look = math.radians(coastal.sensor.look_azimuth)
    toward = right * math.sin(look) - down * math.cos(look)
    rock = truth["surface"].values[0] == Surface.ROCK
    facing, away = rock & (toward > 0.15) & (toward < 0.6), rock & (toward < -0.15) & (toward > -0.6)
    contrast = {}
    for name in ("grd", "rtc"):
        mean = coastal.year_series(name, 2020).mean(0)
        contrast[name] = float(mean[facing].mean() - mean[away].mean())
    assert contrast["grd"] > 3
    assert 0 < contrast["rtc"] < 0.6 * contrast["grd"]


def test_speckle_is_correlated_over_the_resolution() -> None:
    kernel = gaussian_kernel(20 / 10 / 2.355)
    expected = float((kernel[1:] * kernel[:-1]).sum() / (kernel**2).sum())
    made = simulate.region(size_km=2.0, years=(2020,), steps=2, features=("rtc",))
    # the scenes of two dates share the scene below, so their ratio leaves the speckle
    ratio = (made.scene("rtc", 0) - made.scene("rtc", 1)).astype(float)
    ratio -= ratio.mean()
    found = (ratio[:, 1:] * ratio[:, :-1]).mean() / ratio.var()
    assert found == pytest.approx(expected, abs=0.08)


def test_effects_of_a_year_and_a_platform_are_common_to_its_scenes() -> None:
    days = [datetime(2020, 2, 1, tzinfo=UTC), datetime(2020, 3, 1, tzinfo=UTC), datetime(2021, 2, 1, tzinfo=UTC)]
    drawn = np.array([[weather(t, "sentinel-1a", seed, k).offset for k, t in enumerate(days)] for seed in range(300)])
    within, between = (drawn[:, 0] - drawn[:, 1]).std(), (drawn[:, 0] - drawn[:, 2]).std()
    assert between > 2 * within > 0
    shift = weather(days[0], "sentinel-1b", 1, 0).offset - weather(days[0], "sentinel-1a", 1, 0).offset
    assert shift == pytest.approx(0.35)


@pytest.mark.parametrize("shift", [-0.6, -0.1, 0.0, 0.4, 0.9])
@pytest.mark.parametrize("window", [1, 5])
def test_kernels_move_a_field_by_the_shift(shift: float, window: int) -> None:
    box, bell = box_kernel(window, shift), gaussian_kernel(1.5, shift)
    for kernel, tolerance in ((box, 1e-12), (bell, 0.03)):
        offsets = np.arange(kernel.size) - kernel.size // 2
        assert kernel.sum() == pytest.approx(1.0)
        # a weight at offset o brings the value from there, so the field moves by -o
        assert -(kernel * offsets).sum() == pytest.approx(shift, abs=tolerance)


def test_platforms_lie_apart_by_less_than_a_pixel() -> None:
    drawn = np.array([geolocation(name, seed) for seed in range(50) for name in ("sentinel-1a", "sentinel-1b")])
    assert np.abs(drawn).max() <= GEOLOCATION_LIMIT
    assert drawn.std() > 1
    assert geolocation("sentinel-1a", 3) == geolocation("sentinel-1a", 3) != geolocation("sentinel-1b", 3)


def test_speckle_repeats_where_coherence_lasts(coastal: SimulatedRegion) -> None:
    surface = coastal.truth()["surface"].values[0]
    series = coastal.year_series("rtc", 2020)
    winter, summer = series[[1, 3]].astype(float), series[[7, 9]].astype(float)

    def repeats(pair: np.ndarray, kind: Surface) -> float:
        both = (surface[:, 6:] == kind) & (surface[:, :-6] == kind)
        detail = pair[:, :, 6:] - pair[:, :, :-6]
        return float(np.corrcoef(detail[:, both])[0, 1])

    assert repeats(winter, Surface.ROCK) > 0.2 > repeats(winter, Surface.FIRN)
    assert repeats(winter, Surface.ROCK) > repeats(summer, Surface.ROCK) > repeats(summer, Surface.BARE_ICE)


def test_coherence_fades_with_the_baseline_to_what_lasts() -> None:
    means = {}
    for days in (12, 48, 360):
        made = simulate.region(
            size_km=3.0, seed=3, years=(2020,), steps=1, features=("insar",), baseline_days=days, shift=0
        )
        surface, one = made.truth()["surface"].values[0], made.scene("insar", 0)
        means[days] = [float(one[surface == kind].mean()) for kind in (Surface.ROCK, Surface.BARE_ICE)]
    assert means[12][0] > means[48][0] > means[360][0] > means[360][1] + 0.1
    # on ice nothing but the bias of the estimator is left
    assert means[360][1] == pytest.approx(0.23, abs=0.02)


def test_incidence_grows_across_the_swath_along_the_look() -> None:
    sensor = Sensor(look_azimuth=90.0)
    angle = np.degrees(incidence(sensor, np.zeros(3), np.array([-50_000.0, 0.0, 50_000.0])))
    np.testing.assert_allclose(angle, [39 - 3.4, 39, 39 + 3.4])


def test_a_ridge_casts_shadow_and_layover_of_the_right_length() -> None:
    cell, height, angle = 10.0, 300.0, 45.0
    ground = np.zeros((41, 201))
    ground[:, 100:103] = height
    sensor = Sensor(incidence=angle, incidence_gradient=0.0, look_azimuth=90.0)
    shadow, layover = (field[20] > 0 for field in exposure(ground, cell, sensor))
    # h tan(incidence) behind the ridge, h / tan(incidence) before its foot
    assert shadow[103:].sum() * cell == pytest.approx(height * math.tan(math.radians(angle)), abs=2 * cell)
    assert not shadow[:100].any()
    assert layover[:100].sum() * cell == pytest.approx(height / math.tan(math.radians(angle)), abs=2 * cell)
    assert not layover[104:].any()


def test_cross_polarised_channel_is_weaker_and_has_speckle_of_its_own() -> None:
    gentle = {"landscape": Landscape(relief=150.0), "sensor": Sensor(noise_floor=-60.0)}
    made = simulate.region(
        size_km=2.0, seed=3, years=(2020,), steps=2, features=("rtc", "insar"), polarisations=("VV", "VH"), **gentle
    )
    co, cross = made.scene("rtc", 0), made.scene("rtc", 0, polarisation="VH")
    rock = made.truth()["surface"].values[0] == Surface.ROCK
    assert co[rock].mean() - cross[rock].mean() == pytest.approx(7.7, abs=0.7)
    detail = [(one[:, 6:] - one[:, :-6]).ravel() for one in (co, cross)]
    assert np.corrcoef(detail)[0, 1] < 0.4
    np.testing.assert_array_equal(made.scene("rtc", 0, polarisation="VV"), co)
    assert made.acquisitions("insar")[0].polarisations == ("VV",)


def test_noise_along_the_border_is_an_option_of_ground_range_scenes() -> None:
    made, plain = (
        simulate.region(
            size_km=2.0, seed=3, years=(2020,), steps=2, features=("grd", "rtc"), sensor=Sensor(border_noise=width)
        )
        for width in (300.0, 0.0)
    )
    noisy, clean = made.scene("grd", 0), plain.scene("grd", 0)
    changed = noisy != clean
    assert 0.02 < changed.mean() < 0.4
    assert noisy[changed].mean() < -30
    assert changed[:, -1].any()
    assert not changed[:, 0].any()
    np.testing.assert_array_equal(made.scene("rtc", 0), plain.scene("rtc", 0))


@pytest.mark.parametrize("resolution", [5.0, 40.0])
def test_other_pixel_sizes(resolution: float) -> None:
    made = simulate.region(size_km=1.2, resolution=resolution, years=(2020,), steps=1)
    for name in made.features:
        whole = made.scene(name, 0)
        assert whole.shape == made.grid.shape
        np.testing.assert_array_equal(made.scene(name, 0, slice(3, 17), slice(5, 20)), whole[3:17, 5:20])


def test_melange_lies_before_calving_fronts_only() -> None:
    land = Landscape(surge=False, lake=False)
    made = simulate.region(size_km=6.0, seed=3, years=(2020, 2024), landscape=land, steps=1)
    truth, plan = made.truth(), made._plan
    axis = np.arange(600) + 0.5
    sea = plan.sample(plan.bed, axis, axis) <= 0
    afloat = [float((share.values * sea).sum()) for share in truth["glacier_fraction"]]
    assert afloat[0] > afloat[1] > 0
    melange = truth["surface"].values[0] == Surface.MELANGE
    assert 0 < melange.sum() < sea.sum()
    assert sea[melange].all()
    dry = simulate.region(size_km=6.0, seed=3, years=(2020,), landscape=Landscape(tidewater=False), steps=1)
    assert not (dry.truth()["surface"] == Surface.MELANGE).any()
