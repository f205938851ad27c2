"""Effects of regions and years: variances come out, the rest is not drawn twice, and few regions widen them."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from icemap_xr.kernels.effects import drawn_errors, means_of_rest, normal_scores, split_effects
from icemap_xr.kernels.errorfields import BlockField

SHAPE = (3, 10, 10)


def maps(rng: np.random.Generator, regions: int, region_sd: float, year_sd: float, rest_sd: float) -> list[Any]:
    """Mean errors of the years of each region, as a field of independent blocks would make them."""
    blocks = SHAPE[1] * SHAPE[2]
    own = rng.normal(0, rest_sd / np.sqrt(blocks), (regions, SHAPE[0]))
    return list(0.02 + rng.normal(0, region_sd, (regions, 1)) + rng.normal(0, year_sd, (regions, SHAPE[0])) + own)


def rest_of(rng: np.random.Generator, regions: int, rest_sd: float) -> list[Any]:
    ordered = np.sort(rng.normal(0, rest_sd, 2000))
    return [means_of_rest(np.ones(SHAPE), ordered, 0.0, 0.0)] * regions


def test_variances_of_regions_and_years_come_out_without_the_rest() -> None:
    rng = np.random.default_rng(0)
    for sizes in ((0.03, 0.02, 0.3), (0.0, 0.0, 0.3), (0.03, 0.0, 0.01)):
        found = split_effects(maps(rng, 400, *sizes), rest_of(rng, 400, sizes[2]))
        assert found.centre == pytest.approx(0.02, abs=0.006)
        assert found.region.std() == pytest.approx(sizes[0], abs=0.008)
        assert found.year.std() == pytest.approx(sizes[1], abs=0.008)


def test_few_regions_give_the_interval_of_student() -> None:
    rng = np.random.default_rng(1)
    nothing = [np.zeros((5, 1))] * 6
    spread = []
    for _ in range(200):
        by_year = [np.array([value]) for value in rng.normal(0, 1, 6)]
        found = split_effects(by_year, nothing)
        spread.append(np.quantile(found.region, 0.975) / np.std([one[0] for one in by_year], ddof=1))
    # a prediction interval: t of 5 degrees of freedom, widened for the mean
    assert np.median(spread) == pytest.approx(t.ppf(0.975, 5) * np.sqrt(1 + 1 / 6), rel=0.15)


def test_maps_without_differences_have_no_effects() -> None:
    found = split_effects([np.full(3, 0.1)] * 4, [np.zeros((5, 3))] * 4)
    assert found.centre == pytest.approx(0.1)
    np.testing.assert_allclose(found.region, 0, atol=1e-12)
    np.testing.assert_allclose(found.year, 0, atol=1e-12)


def test_scores_keep_ranks_and_gaps() -> None:
    one = np.array([[[3.0, np.nan], [1.0, 1.0]]])
    two = np.array([[[9.0, -5.0]]])
    scores = normal_scores([one, two])
    assert np.isnan(scores[0][0, 0, 1])
    assert scores[0][0, 1, 0] == scores[0][0, 1, 1]  # ties share their rank
    assert scores[1][0, 0, 1] < scores[0][0, 1, 0] < scores[0][0, 0, 0] < scores[1][0, 0, 0]
    assert scores[1][0, 0, 1] == pytest.approx(-scores[1][0, 0, 0])


def test_drawn_errors_last_as_long_as_they_should() -> None:
    rows, columns = (one.ravel() for one in np.indices((6, 6)))
    ordered = np.sort(np.random.default_rng(2).normal(0, 2, 4000))
    errors = drawn_errors(np.random.default_rng(3), BlockField(rows, columns, 0.0), ordered, 0.7, (400, 2))
    assert errors.shape == (400, 2, 36)
    assert errors.std() == pytest.approx(2, rel=0.03)
    assert np.corrcoef(errors[:, 0].ravel(), errors[:, 1].ravel())[0, 1] == pytest.approx(0.7, abs=0.03)


def test_means_weigh_blocks_and_leave_out_years_without_any() -> None:
    weights = np.zeros(SHAPE)
    weights[0, 0, 0] = 5.0
    weights[1] = 1.0
    ordered = np.linspace(-1, 1, 1001)
    means = means_of_rest(weights, ordered, 0.0, 0.0)
    assert means[:, 0].std() == pytest.approx(0.577, rel=0.2)  # one block: uniform errors
    assert means[:, 1].std() == pytest.approx(0.0577, rel=0.2)  # a hundred
    assert not means[:, 2].any()
    assert not means_of_rest(np.zeros(SHAPE), ordered, 0.0, 0.0).any()
