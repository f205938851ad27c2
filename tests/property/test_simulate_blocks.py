"""Any block of a simulated region equals the same part of the whole, bit by bit."""

from __future__ import annotations

from unittest import mock

import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr import simulate
from icemap_xr.simulate import simulated
from icemap_xr.simulate.noise import gaussian_kernel, smooth, value_noise, white
from icemap_xr.simulate.truth import fraction, outline

REGION = simulate.region(size_km=(1.3, 1.1), years=(2020, 2021), steps=2, seed=5, features=("grd", "rtc", "insar"))
TRUTH = REGION.truth().compute()
WHOLE = {name: [REGION.scene(name, k) for k in range(4)] for name in REGION.features}


def spans(size: int) -> st.SearchStrategy[slice]:
    ends = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    return ends.map(lambda pair: slice(min(pair), max(pair) + 1))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(REGION.features), st.integers(0, 3), spans(130), spans(110))
def test_block_equals_whole(feature: str, k: int, rows: slice, columns: slice) -> None:
    np.testing.assert_array_equal(REGION.scene(feature, k, rows, columns), WHOLE[feature][k][rows, columns])


@settings(max_examples=15, deadline=None)
@given(st.integers(20, 140), st.integers(20, 140))
def test_lazy_arrays_do_not_depend_on_the_blocks(rows: int, columns: int) -> None:
    with mock.patch.object(simulated, "BLOCK", (rows, columns)):
        truth, view = REGION.truth(), REGION.yearly()
    xr.testing.assert_identical(truth.compute(), TRUTH)
    for name in REGION.features:
        np.testing.assert_array_equal(view[name].values.reshape(4, 130, 110), WHOLE[name])


@settings(max_examples=50, deadline=None)
@given(st.integers(-600, 600), st.integers(-600, 600), st.integers(1, 300), st.integers(0, 10))
def test_white_noise_does_not_depend_on_the_block(top: int, left: int, size: int, key: int) -> None:
    rows, columns = slice(top, top + size), slice(left, left + 7)
    whole = white((key,), slice(top - 3, top + size + 5), slice(left - 2, left + 9))
    np.testing.assert_array_equal(white((key,), rows, columns), whole[3 : 3 + size, 2:9])


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 500), st.integers(0, 2**31), st.integers(-3000, 3000))
def test_value_noise_is_bounded_and_depends_on_position_only(wavelength: float, seed: int, start: int) -> None:
    axis = np.arange(start, start + 40) * 10.0
    whole = value_noise(axis, axis, wavelength, seed)
    assert np.abs(whole).max() <= 1
    np.testing.assert_array_equal(value_noise(axis[7:20], axis[3:9], wavelength, seed), whole[7:20, 3:9])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.floats(-1, 1), st.integers(1, 25), st.integers(1, 25))
def test_fraction_and_outline_have_the_same_area(seed: int, level: float, rows: int, columns: int) -> None:
    noise = np.random.default_rng(seed).normal(size=(rows + 1, columns + 1)) + level
    share = fraction(noise)
    assert share.min() >= 0
    assert share.max() <= 1
    shape = outline(noise, (10.0, 0.0, 0.0, 0.0, -10.0, 0.0))
    np.testing.assert_allclose(share.astype(float).sum() * 100, shape.area, rtol=1e-5, atol=1e-3)


def test_smoothing_keeps_the_mean() -> None:
    field = np.ones((20, 20), np.float32)
    kernel = gaussian_kernel(0.85)
    assert smooth(field, kernel).shape == (20 - kernel.size + 1,) * 2
    np.testing.assert_allclose(smooth(field, kernel), 1, rtol=1e-6)
