"""Rates and changes from paired draws."""

from typing import Any

import numpy as np
import pytest
import xarray as xr

from icemap_xr.drawcalls import draw_call
from icemap_xr.errors import InputError, SchemaError, UnequalGroundWarning
from icemap_xr.trend import change, trend


def areas(draws: Any, years: Any, best: bool = True) -> xr.Dataset:
    ds = xr.Dataset({"draws": (("year", "draw"), draws)}, coords={"year": years}, attrs={"interval_kind": "sampling"})
    return ds.assign(area_km2=("year", np.mean(draws, axis=1))) if best else ds


def noisy(n: int = 5000) -> tuple[Any, Any]:
    years = np.array([2016, 2017, 2019, 2020, 2024])
    rng = np.random.default_rng(0)
    return 1000 - 12.5 * (years - 2016)[:, None] + rng.normal(0, 20, (5, n)), years


def test_linear_equals_polyfit() -> None:
    draws, years = noisy(50)
    out = trend(areas(draws, years))
    np.testing.assert_allclose(out.draws, np.polyfit(years - 2020.0, draws, 1)[0], rtol=1e-9)
    assert out.rate_km2_per_year.item() == pytest.approx(np.polyfit(years - 2020.0, draws.mean(axis=1), 1)[0])
    np.testing.assert_allclose(out.interval, np.percentile(out.draws, [2.5, 97.5]))
    assert out.rate_km2_per_year.attrs["units"] == "km2 year-1"
    assert out.attrs["interval_kind"] == "sampling"
    assert out.attrs["years"] == years.tolist()


def test_theil_sen_equals_the_median_over_pairs_in_every_batch() -> None:
    draws, years = noisy()
    out = trend(areas(draws, years, best=False), method="theil-sen")
    for k in (0, 4095, 4096, 4999):
        slopes = [(draws[j, k] - draws[i, k]) / (years[j] - years[i]) for i in range(5) for j in range(i + 1, 5)]
        assert out.draws[k] == pytest.approx(np.median(slopes))
    assert out.interval[0] < -12.5 < out.interval[1]


def test_theil_sen_resists_one_wrong_year() -> None:
    years = np.arange(2016, 2025)
    draws = np.repeat(1000.0 - 10 * (years - 2016)[:, None], 3, axis=1)
    draws[4] += 500
    assert trend(areas(draws, years), method="theil-sen").rate_km2_per_year.item() == pytest.approx(-10)


def test_paired_errors_cancel() -> None:
    years = np.array([2016, 2018])
    shared = np.random.default_rng(1).normal(0, 50, 200)
    ds = areas(np.stack([900 + shared, 880 + shared]), years)
    np.testing.assert_allclose(trend(ds).interval, [-10, -10])
    np.testing.assert_allclose(change(ds).interval, [-20, -20])
    assert change(ds).change_km2.item() == pytest.approx(-20)
    assert change(ds, first=2018, last=2016).change_km2.item() == pytest.approx(20)


def test_order_of_years_does_not_matter() -> None:
    draws, years = noisy(20)
    ds = areas(draws, years)
    for stage in (trend, change):
        xr.testing.assert_allclose(stage(ds.isel(year=[3, 0, 4, 2, 1])), stage(ds))


def test_years_and_draws_without_data_are_left_out() -> None:
    draws, years = noisy(20)
    gap = draws.copy()
    gap[2] = np.nan
    kept = [0, 1, 3, 4]
    xr.testing.assert_allclose(trend(areas(gap, years)), trend(areas(draws[kept], years[kept])))
    draws[0, 7] = np.nan
    out = trend(areas(draws, years, best=False))
    assert np.isnan(out.draws[7])
    assert np.isfinite(out.interval).all()


def test_bad_input() -> None:
    draws, years = noisy(5)
    ds = areas(draws, years)
    with pytest.raises(InputError, match="at least 2 years"):
        trend(ds.isel(year=[0]))
    with pytest.raises(InputError, match="at least 2 years"):
        trend(areas(np.full((3, 4), np.nan), [2016, 2017, 2018]))
    with pytest.raises(InputError, match="method"):
        trend(ds, method="ols")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        trend(ds, level=1)
    with pytest.raises(InputError, match="duplicate"):
        trend(ds.assign_coords(year=[2016] * 5))
    with pytest.raises(SchemaError, match="bootstrap_area"):
        trend(ds.drop_vars("draws"))
    with pytest.raises(SchemaError, match="numbers"):
        trend(ds.assign_coords(year=ds.year.astype(str)))
    with pytest.raises(InputError, match="2018 is not there"):
        change(ds, last=2018)
    with pytest.raises(InputError, match="twice"):
        change(ds, first=2016, last=2016)


def test_years_that_saw_other_ground_are_compared_with_a_warning() -> None:
    areas = xr.Dataset(
        {"draws": (("year", "draw"), [[2.0, 2.1], [1.0, 1.1]]), "observed_km2": ("year", [4.0, 2.0])},
        coords={"year": [2020, 2021]},
    )
    with pytest.warns(UnequalGroundWarning, match=r"observed 2\.000 to 4\.000 km2"):
        trend(areas)
    with pytest.warns(UnequalGroundWarning):
        change(areas)


def test_a_missing_draw_does_not_hide_the_rate() -> None:
    draws = [[1.0, 2.0, np.nan], [2.0, 3.0, 4.0]]
    found = trend(xr.Dataset({"draws": (("year", "draw"), draws)}, coords={"year": [2000, 2001]}))
    assert float(found.rate_km2_per_year) == pytest.approx(3.0 - 1.5)
    np.testing.assert_array_equal(found.draws, [1, 1, np.nan])


def test_rates_say_what_the_areas_said() -> None:
    facts = {"interval_kind": "mapping", "calibrator": "beta", "temporal_filter": "median of 3 years", "method": "hard"}
    ds = areas(*noisy(3)).assign_attrs(facts)
    for found in (trend(ds), change(ds)):
        assert {found.attrs[key] for key in ("interval_kind", "calibrator", "temporal_filter", "area_method")} == set(
            facts.values()
        )
    assert trend(ds).attrs["method"] == "linear"


def test_draws_of_different_calls_are_not_compared() -> None:
    draws, years = noisy(50)
    calls = [draw_call(42, years[:3])[1], draw_call(42, years[3:])[1]]
    ds = areas(draws, years).assign_coords(draw_call=("year", np.concatenate(calls)))
    for compare in (trend, change):
        with pytest.raises(InputError, match=r"those of 2016.* were drawn apart"):
            compare(ds)
    assert change(ds, last=2019).identical(change(areas(draws, years), last=2019))
    np.testing.assert_array_equal(trend(ds.isel(year=[0, 1, 2])).draws, trend(areas(draws[:3], years[:3])).draws)
    # a call with other years of the same seed is another one, also of the same first year
    assert draw_call(42, years[:3])[1][0] != draw_call(42, years[:2])[1][0]
    assert draw_call(42, years)[1][0] != draw_call(43, years)[1][0]
