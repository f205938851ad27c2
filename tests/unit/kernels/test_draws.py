"""Intervals and correlated errors against plain computations and SciPy."""

from typing import Any

import numpy as np
import pytest
import scipy.stats

from icemap_xr.kernels.draws import ErrorModel, bca_interval, corrected_areas, left_out, resampled_areas
from icemap_xr.kernels.errorfields import BlockField, as_errors


@pytest.mark.parametrize("ratio", [True, False])
def test_left_out_is_the_estimate_of_all_other_blocks(ratio: bool) -> None:
    rng = np.random.default_rng(0)
    observed = rng.uniform(0.5, 1, (9, 2))
    ice = observed * rng.random((9, 2))
    found = left_out(ice, observed, ratio=ratio)
    for b in range(9):
        rest = np.arange(9) != b
        share = ice[rest].sum(0) / observed[rest].sum(0) * observed.sum(0) if ratio else ice[rest].sum(0) * 9 / 8
        np.testing.assert_allclose(found[:, b], share)


def test_bca_equals_scipy() -> None:
    ice = np.random.default_rng(3).gamma(0.6, 1, (60, 1))
    ones = np.ones_like(ice)
    draws = resampled_areas(ice, ones, 20_000, 1, ratio=False)
    ours = bca_interval(draws, ice.sum(axis=0), left_out(ice, ones, ratio=False), 0.95)[0]
    other = scipy.stats.bootstrap(
        (ice[:, 0],), np.sum, method="BCa", n_resamples=20_000, vectorized=True, rng=np.random.default_rng(2)
    ).confidence_interval
    np.testing.assert_allclose(ours, other, rtol=0.01)
    plain = np.quantile(draws[0], [0.025, 0.975])
    assert ours[0] > plain[0]  # a skewed sum: BCa moves both bounds up
    assert ours[1] > plain[1]
    # symmetric around the estimate and without skew, it is the percentile interval
    even = np.linspace(-1, 1, 2001)[None]
    np.testing.assert_allclose(bca_interval(even, np.zeros(1), np.array([[-1.0, 1.0]]), 0.9), [[-0.9, 0.9]], atol=1e-9)


def test_bca_of_draws_that_are_missing_or_all_the_same() -> None:
    draws = np.array([[np.nan] * 4, [2.0] * 4])
    out = bca_interval(draws, np.array([np.nan, 2.0]), np.full((2, 3), 2.0), 0.95)
    assert np.isnan(out[0]).all()
    np.testing.assert_allclose(out[1], 2)


@pytest.mark.parametrize("length", [0.0, 1.0, 4.0])
def test_fields_have_the_correlation_they_say(length: float) -> None:
    rows, columns = (one.ravel() for one in np.indices((12, 20)))
    field = BlockField(rows + 5, columns - 3, length)
    draws = field.draw(np.random.default_rng(0), 6001)
    assert draws.shape == (6001, 240)
    np.testing.assert_allclose(draws.std(axis=0), 1, atol=0.06)
    first = draws.reshape(-1, 12, 20)
    for step in (1, 3, 6):
        found = np.mean(first[:, :, :-step] * first[:, :, step:])
        assert found == pytest.approx(np.exp(-step / length) if length else 0, abs=0.04)


def test_errors_keep_their_spread() -> None:
    errors = np.sort(np.random.default_rng(0).gamma(1, 0.1, 500))
    drawn = as_errors(np.random.default_rng(1).standard_normal(40_000), errors)
    np.testing.assert_allclose(np.quantile(drawn, [0.1, 0.5, 0.9]), np.quantile(errors, [0.1, 0.5, 0.9]), rtol=0.05)
    assert as_errors(np.array([9.0, -9.0]), errors).tolist() == [errors[-1], errors[0]]


def areas(model: ErrorModel, side: int = 15, years: int = 2) -> Any:
    rows, columns = (one.ravel() for one in np.indices((side, side)))
    observed = np.ones((side * side, years))
    return corrected_areas(observed / 2, observed, model, 400, 7, (rows, columns))


def test_correlated_errors_widen_totals_and_persistent_ones_cancel_in_changes() -> None:
    errors, zero = np.random.default_rng(0).normal(0, 0.1, 1000), np.zeros(1)
    alone = areas(ErrorModel(errors, zero, zero))
    near = areas(ErrorModel(errors, zero, zero, range_blocks=3.0))
    assert alone[0].std() == pytest.approx(0.1 * 15, rel=0.1)
    # the variance of a sum is the sum of all correlations
    rows, columns = (one.ravel() for one in np.indices((15, 15)))
    apart = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    assert near[0].std() == pytest.approx(0.1 * np.sqrt(np.exp(-apart / 3).sum()), rel=0.15)
    lasting = areas(ErrorModel(errors, zero, zero, range_blocks=3.0, year_correlation=0.9))
    assert lasting[0].std() == pytest.approx(near[0].std(), rel=0.15)
    assert np.std(lasting[1] - lasting[0]) == pytest.approx(np.sqrt(0.1) * np.std(near[1] - near[0]), rel=0.2)


def test_region_effects_are_shared_by_years_and_year_effects_are_not() -> None:
    zero, effect = np.zeros(1), np.array([-0.1, 0.1])
    region = areas(ErrorModel(zero, zero, effect))
    np.testing.assert_allclose(region[0], region[1])
    assert set(np.round(region[0], 6)) == {90.0, 135.0}
    year = areas(ErrorModel(zero, effect, zero))
    assert abs(np.corrcoef(year)[0, 1]) < 0.2
