"""Statistics of simulated backscatter and coherence against closed forms and published ranges."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from icemap_xr import simulate
from icemap_xr.simulate import SimulatedRegion, Surface
from icemap_xr.simulate.noise import gaussian_kernel
from icemap_xr.simulate.scatter import _gamma
from icemap_xr.simulate.season import weather


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
