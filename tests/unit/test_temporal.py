"""Temporal median of yearly maps: what it keeps, what it removes."""

from itertools import product
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.errors import InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.filters import majority_of_years, markov_of_years, median_of_years
from icemap_xr.temporal import filter_effect, filter_years

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_090, 8_600_070), "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(values: Any, years: Any = None) -> xr.Dataset:
    years = 2016 + np.arange(len(values)) if years is None else years
    coords = {**GRID.coords(), "year": years}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def series(*values: float) -> xr.Dataset:
    return maps(np.broadcast_to(np.asarray(values, np.float32)[:, None, None], (len(values), *GRID.shape)).copy())


def filtered(*values: float, window: int = 3) -> list[float]:
    return [float(v) for v in filter_years(series(*values), window=window).probability[:, 0, 0]]


def brute_force(p: Any, years: list[int], window: int) -> Any:
    out = np.full_like(p, np.nan)
    for i, row, column in np.ndindex(*p.shape):
        found = [p[i, row, column]]
        for distance in range(1, window // 2 + 1):
            pair = [p[years.index(y), row, column] for y in (years[i] - distance, years[i] + distance) if y in years]
            if len(pair) == 2 and np.isfinite(pair).all():
                found += pair
        if np.isfinite(found[0]):
            out[i, row, column] = np.median(found)
    return out


@pytest.mark.parametrize("window", [3, 5, 7])
@pytest.mark.parametrize(
    "years", [[2016, 2017, 2018, 2019, 2020], [2016, 2018, 2019, 2020, 2021], [2020, 2016, 2018, 2017, 2019]]
)
@pytest.mark.parametrize("chunks", [None, (1, 3, 4), (5, 7, 1)])
def test_equals_the_median_pixel_by_pixel(window: int, years: list[int], chunks: Any) -> None:
    rng = np.random.default_rng(2)
    p = rng.random((5, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.2] = np.nan
    ds = maps(p if chunks is None else from_array(p, chunks=chunks), years)
    out = filter_years(ds, window=window)
    assert (out.probability.chunks is None) == (chunks is None)
    assert out.probability.dtype == np.float32
    np.testing.assert_array_equal(out.probability, brute_force(p, years, window))


def test_removes_one_odd_year_and_keeps_ends() -> None:
    assert filtered(1, 1, 0, 1, 1) == [1, 1, 1, 1, 1]
    assert filtered(0, 1, 1, 1, 0) == [0, 1, 1, 1, 0]
    assert filtered(1, 1, 0, 0, 1, 1) == [1, 1, 0, 0, 1, 1]
    assert filtered(1, 1, 1, 0, 0, 1, 1, 1, window=5) == [1] * 8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), st.sampled_from([3, 5, 7, 99]), st.booleans())
def test_lasting_change_is_returned_unchanged(values: list[float], window: int, advance: bool) -> None:
    lasting = sorted(values, reverse=not advance)
    assert filtered(*lasting, window=window) == [float(np.float32(v)) for v in lasting]


def test_keeps_other_variables_and_says_what_it_did() -> None:
    ds = series(1, 0, 1).assign(count=("year", [1, 2, 3]))
    out = filter_years(ds)
    xr.testing.assert_identical(out["count"], ds["count"])
    assert out.probability.attrs["temporal_filter"] == "median of 3 years"
    assert "temporal_filter" not in ds.probability.attrs


def test_space_is_not_rechunked() -> None:
    ds = maps(from_array(np.zeros((4, *GRID.shape), np.float32), chunks=(1, (3, 4), (1, 8))))
    assert filter_years(ds).probability.chunks == ((4,), (3, 4), (1, 8))


def test_bad_input() -> None:
    ds = series(1, 0, 1)
    window: Any
    for window in (0, 1, 2, 4, -3, 3.0, True):
        with pytest.raises(InputError, match="odd number"):
            filter_years(ds, window=window)
    stay: Any
    for stay in (0.5, 1, 1.2, -1, True):
        with pytest.raises(InputError, match="stay"):
            filter_years(ds, method="hmm", stay=stay)
    with pytest.raises(InputError, match="median, majority, hmm"):
        filter_years(ds, method="mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="filtered already"):
        filter_years(filter_years(ds))
    method: Any
    for method in ("median", "majority", "hmm"):
        with pytest.raises(InputError, match=r"0\.\.1"):
            filter_years(ds * 100, method=method)
    with pytest.raises(InputError, match="different years"):
        filter_effect(ds, ds.isel(year=[0, 1]))
    with pytest.raises(InputError, match="filter first"):
        filter_years(ds.assign(calibrated=ds.probability))
    with pytest.raises(InputError, match="calendar years"):
        filter_years(ds.assign_coords(year=[2016.5, 2017.5, 2018.5]))
    with pytest.raises(InputError, match="float"):
        filter_years(ds.assign(probability=ds.probability.astype(np.uint8)))
    with pytest.raises(SchemaError, match="duplicate"):
        filter_years(ds.assign_coords(year=[2016, 2016, 2017]))


def exact_markov(p: list[float], years: list[int], stay: float) -> list[float]:
    """Return P(ice | all years) by adding up every possible history."""
    total, ice = 0.0, np.zeros(len(p))
    for history in product((0, 1), repeat=len(p)):
        weight = 0.5
        for i, state in enumerate(history):
            evidence = 0.5 if np.isnan(p[i]) else min(max(p[i], 0.05), 0.95)
            weight *= evidence if state else 1 - evidence
            if i:
                same = (1 + (2 * stay - 1) ** (years[i] - years[i - 1])) / 2
                weight *= same if state == history[i - 1] else 1 - same
        total += weight
        ice += weight * np.array(history)
    return list(ice / total)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.just(np.nan)), min_size=1, max_size=7), st.floats(0.55, 0.98), st.data())
def test_markov_filter_equals_the_sum_over_all_histories(p: list[float], stay: float, data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.integers(1, 3), min_size=len(p), max_size=len(p)))
    years = [2016 + sum(gaps[:i]) for i in range(len(p))]
    order = data.draw(st.permutations(range(len(p))))
    values = np.array(p)[order][:, None]
    out = markov_of_years(values, [years[i] for i in order], stay)[:, 0]
    expected = np.array(exact_markov(p, years, stay))[order]
    expected[np.isnan(values[:, 0])] = np.nan
    np.testing.assert_allclose(out, expected, rtol=1e-9)


def classes(*values: float, method: Any) -> list[int]:
    out = filter_years(series(*values), method=method).probability[:, 0, 0]
    return [int(v > 0.5) for v in out]


@pytest.mark.parametrize("method", ["median", "majority", "hmm"])
def test_single_odd_years_go_and_sure_lasting_change_stays_on_time(method: Any) -> None:
    sure, not_sure = 0.97, 0.03
    assert classes(sure, sure, not_sure, sure, sure, method=method) == [1] * 5
    assert classes(not_sure, not_sure, sure, not_sure, method=method) == [0] * 4
    for change_in in range(1, 6):  # also one that is seen in the last year alone
        retreat = [sure] * change_in + [not_sure] * (6 - change_in)
        assert classes(*retreat, method=method) == [1] * change_in + [0] * (6 - change_in)
        assert classes(*reversed(retreat), method=method) == [0] * (6 - change_in) + [1] * change_in
    # two years there and back, the shortest surge that is kept
    assert classes(not_sure, not_sure, sure, sure, not_sure, not_sure, method=method) == [0, 0, 1, 1, 0, 0]


def test_a_slow_markov_filter_holds_back_the_last_year_and_says_so() -> None:
    lost = series(0.999, 0.999, 0.999, 0.999, 0.001)  # surely, in the last year
    for stay, ice in ((0.9, False), (0.94, False), (0.97, True)):
        out = filter_years(lost, method="hmm", stay=stay).probability
        assert ((out[4] > 0.5) == ice).all()
        assert ("sure or not" in out.attrs["temporal_filter_effect"]) == ice


def test_a_moving_front_is_never_erased_by_more_than_its_last_step() -> None:
    """A front that retreats two columns a year, then surges forward: unsure where it has just been."""
    years, width = 9, 40
    front = np.array([30, 28, 26, 24, 22, 20, 34, 34, 34])
    column = np.arange(width)
    truth = column[None, :] < front[:, None]
    rng = np.random.default_rng(0)
    p = np.where(truth, 0.9, 0.1) + rng.normal(0, 0.03, truth.shape)
    p[2] = 0.9  # one wet-snow year: everything looks like ice
    values = np.repeat(p[:, None], 3, axis=1).clip(0, 1)
    calendar = list(range(2016, 2016 + years))
    for kernel in (median_of_years, majority_of_years):
        found = kernel(values, calendar, 3) > 0.5
        assert (np.abs(found[:, 0].sum(axis=1) - front) <= 2).all()
    found = markov_of_years(values, calendar, 0.9) > 0.5
    assert (np.abs(found[:, 0].sum(axis=1) - front) <= 2).all()
    assert np.abs((values > 0.5)[2, 0].sum() - front[2]) == 14


def test_majority_keeps_probabilities_whose_class_is_that_of_most_years() -> None:
    rng = np.random.default_rng(3)
    p = rng.random((6, 5, 4))
    p[rng.random(p.shape) < 0.2] = np.nan
    years = [2016, 2017, 2018, 2019, 2020, 2021]
    median, majority = median_of_years(p, years, 5), majority_of_years(p, years, 5)
    seen = np.isfinite(p)
    np.testing.assert_array_equal(np.isnan(majority), ~seen)
    np.testing.assert_array_equal(majority[seen] > 0.5, median[seen] > 0.5)
    same = seen & ((p > 0.5) == (median > 0.5))
    np.testing.assert_array_equal(majority[same], p[same])


@pytest.mark.parametrize("chunks", [(1, 3, 4), (5, 7, 1)])
@pytest.mark.parametrize("method", ["majority", "hmm"])
def test_other_filters_are_lazy_and_do_not_depend_on_chunks(method: Any, chunks: Any) -> None:
    rng = np.random.default_rng(2)
    p = rng.random((5, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.2] = np.nan
    lazy = filter_years(maps(from_array(p, chunks=chunks)), method=method)
    assert lazy.probability.chunks is not None
    assert lazy.probability.dtype == np.float32
    np.testing.assert_array_equal(lazy.probability, filter_years(maps(p), method=method).probability)
    np.testing.assert_array_equal(np.isnan(lazy.probability), np.isnan(p))


def test_the_effect_is_said_and_measured() -> None:
    ds = maps(from_array(series(1, 1, 0, 1, 1).probability.values, chunks=(1, 3, 4)))
    out = filter_years(ds, method="hmm")
    assert "single years" in out.probability.attrs["temporal_filter_effect"]
    effect = filter_effect(ds, out)
    assert effect.added_km2.chunks is not None
    np.testing.assert_allclose(effect.added_km2, [0, 0, 63e-4, 0, 0])
    np.testing.assert_allclose(effect.removed_km2, 0)
    assert effect.attrs["temporal_filter"] == "hidden Markov model, stay 0.9"
    xr.testing.assert_allclose(filter_effect(out, ds).removed_km2, effect.added_km2.rename("removed_km2"))
