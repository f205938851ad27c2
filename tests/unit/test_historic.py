"""Rates between inventories, and the published check values on the real attribute table of Svalbard."""

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely

from icemap_xr.errors import InputError
from icemap_xr.historic import (
    AREA_SIGMA,
    Inventory,
    acceleration,
    impute_years,
    recent_rate,
    resample_rate,
    select_glaciers,
    source_years,
)
from icemap_xr.kernels.compositions import composition, corrections, draw_counts


def test_published_check_values_of_svalbard(data: Path) -> None:
    table = pyogrio.read_dataframe(data / "svalbard" / "rgi7_svalbard_attributes.dbf", read_geometry=False)
    table = table.assign(year=source_years(table["src_date"]))
    aoi = gpd.read_file(data / "svalbard" / "aoi.shp")
    chosen = select_glaciers(table, aoi)
    found = composition(chosen["year"], chosen["area_km2"])
    assert len(chosen) == 761
    assert found.area == pytest.approx(32_570.49, abs=0.005)
    assert found.mean_year == pytest.approx(2006.312, abs=0.0005)
    assert found.effective_years == pytest.approx(2.4886, abs=0.00005)
    svalbard = select_glaciers(table[table["o2region"] == "07-01"])
    whole = composition(svalbard["year"], svalbard["area_km2"])
    assert len(svalbard) == 762
    assert whole.area == pytest.approx(33_216.91, abs=0.005)
    assert (round(whole.mean_year, 3), round(whole.effective_years, 4)) == (2006.325, 2.5559)
    rate = resample_rate(
        Inventory.of_glaciers(chosen["year"], chosen["area_km2"]),
        Inventory.of_year(2016, np.random.default_rng(0).normal(31_500, 40, 1000), mean=31_889.2797),
        n=20_000,
    )
    assert rate.attrs["first_mean_year"] == pytest.approx(2006.312, abs=0.0005)
    assert rate.rate_km2_per_year.item() == pytest.approx((31_889.28 - 32_570.49) / (2016 - 2006.312), rel=0.1)
    assert rate.interval[0] < rate.rate_km2_per_year < rate.interval[1]


def test_composition_joins_years() -> None:
    one = composition([2001, 2000, 2001], [1, 2, 1])
    np.testing.assert_array_equal(one.years, [2000, 2001])
    np.testing.assert_array_equal(one.shares, [0.5, 0.5])
    assert (one.area, one.mean_year, one.effective_years) == (4, 2000.5, 2)


@pytest.mark.parametrize("areas", [[1, 1, 1], [5, 3, 1], [1, 0.001, 0.001]])
def test_draws_have_the_effective_number_of_years_and_the_mean_year(areas: Any) -> None:
    one = composition([1990, 2000, 2004], areas)
    counts, mean = draw_counts(one, 30_000, np.random.default_rng(0))
    sizes = counts.sum(axis=1)
    assert set(sizes) <= {int(one.effective_years), int(one.effective_years) + 1}
    assert sizes.mean() == pytest.approx(one.effective_years, rel=1e-3)
    assert np.average(mean, weights=sizes) == pytest.approx(one.mean_year, abs=0.1)
    np.testing.assert_allclose(mean, (counts * one.years).sum(1) / sizes)


def test_corrections_equal_the_sum_written_plainly() -> None:
    one = composition([1990, 2000, 2004], [2, 1, 1])
    counts, mean = draw_counts(one, 200, np.random.default_rng(1))
    found = corrections(one, counts, mean, 0.01, np.random.default_rng(2))
    delta = np.random.default_rng(2).normal(0, 0.01, counts.shape)
    for i in range(200):
        plain = sum(d * w * (mean[i] - u) for d, w, u in zip(delta[i], counts[i], one.years, strict=True))
        assert found[i] == pytest.approx(plain / counts[i].sum(), abs=1e-15)
    assert not corrections(one, counts, mean, 0.0, np.random.default_rng(2)).any()


def published_draws(first: Any, second: Any, n: int) -> Any:
    """The published loop, one draw after the other."""
    rng = np.random.RandomState(42)

    def stage(sigma: float) -> Any:
        rates, relative, running = [], [], [0.0, 0.0]
        for _ in range(n):
            when, area = [], []
            for side, one in enumerate((first, second)):
                running[side] += one.effective_years
                k = int(running[side] + 1e-9)
                running[side] -= k
                years = rng.choice(one.years, k, p=one.shares)
                x = years.mean()
                y = one.area * rng.normal(1, AREA_SIGMA)
                unique, weight = np.unique(years, return_counts=True)
                delta = rng.normal(0, sigma, len(unique)) if sigma else np.zeros(len(unique))
                y *= 1 + np.sum(delta * weight * (x - unique)) / weight.sum()
                when.append(x)
                area.append(y)
            rates.append((area[1] - area[0]) / (when[1] - when[0]))
            relative.append(rates[-1] / area[0])
        return np.array(rates), np.mean(relative)

    _, mean = stage(0.0)
    return stage(abs(mean))[0]


def test_vectorised_rates_have_the_distribution_of_the_published_loop() -> None:
    old = composition([1936, 1960, 1971, 1977], [3000, 9000, 12_000, 10_000])
    new = composition([2000, 2003, 2008], [8000, 6000, 18_000])
    plain = published_draws(old, new, 6000)
    ours = resample_rate(Inventory(old), Inventory(new), n=60_000)
    assert ours.rate_km2_per_year.item() == pytest.approx(plain.mean(), abs=4 * plain.std() / np.sqrt(6000))
    assert ours.std_km2_per_year.item() == pytest.approx(plain.std(), rel=0.06)
    np.testing.assert_allclose(
        np.quantile(ours.draws, [0.05, 0.5, 0.95]), np.quantile(plain, [0.05, 0.5, 0.95]), atol=0.08 * plain.std()
    )
    assert ours.attrs["units"] == "km2 year-1"


def test_the_second_stage_widens_and_the_seed_repeats() -> None:
    old = Inventory.of_glaciers([1936, 1977], [10_000, 10_000], sigma=0.0)
    new = Inventory.of_glaciers([2000, 2010], [5000, 5000], sigma=0.0)
    first, again, other = (resample_rate(old, new, n=3000, seed=seed) for seed in (1, 1, 2))
    assert first.identical(again)
    assert not np.allclose(first.draws, other.draws)
    late = resample_rate(Inventory.of_glaciers([1977], [20_000], sigma=0), Inventory.of_year(2016, [10_000.0]), n=10)
    np.testing.assert_allclose(late.draws, -10_000 / 39)
    assert first.attrs["first_effective_years"] == 2


def test_acceleration_is_the_ratio_of_draws() -> None:
    recent = recent_rate(-227.62728, 74.57135)
    assert float(recent.draws.std()) == pytest.approx(74.57135 / 1.96, rel=0.02)
    historic = recent_rate(-68.0, 10.0, seed=1)
    out = acceleration(recent, historic)
    assert out.factor.item() == pytest.approx(227.6 / 68, rel=0.02)
    assert out.interval[0] > 1
    assert out.historic_sign.item() == 1
    unsure = acceleration(recent, recent_rate(-1.0, 20.0, seed=1), level=0.9)
    assert unsure.interval[0] < 0 < unsure.interval[1]
    assert unsure.historic_sign.item() < 0.6
    few = acceleration(recent, historic.isel(draw=slice(0, 500)))
    assert few.factor.item() == pytest.approx(out.factor.item(), rel=0.05)


def glaciers(n: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    lon, lat = rng.uniform(12, 25, n), rng.uniform(77, 80, n)
    year = np.where(lon < 18, 1966.0, 1971.0)  # mapped from west to east
    return pd.DataFrame({"lon": lon, "lat": lat, "who": np.where(lon < 18, "A", "B"), "year": year})


def test_missing_years_are_those_of_similar_glaciers() -> None:
    table = glaciers()
    gaps = table.assign(year=table["year"].where(np.arange(120) % 9 > 0), who=table["who"].where(table.index != 5))
    full, report = impute_years(gaps, "year", numeric=("lon", "lat"), categorical=("who",))
    assert report["filled"] == 14
    assert report["mean_absolute_error"] < 0.5
    assert report["neighbours"] in (1, 3, 5, 7, 9)
    np.testing.assert_array_equal(full["year"], table["year"])
    assert gaps["year"].isna().sum() == 14
    same, none = impute_years(table, "year", numeric=("lon",))
    assert none["filled"] == 0
    pd.testing.assert_frame_equal(same, table)


def test_hidden_years_of_the_real_inventory_are_found(data: Path) -> None:
    table = pyogrio.read_dataframe(data / "svalbard" / "rgi7_svalbard_attributes.dbf", read_geometry=False)
    table = table.assign(year=source_years(table["src_date"]))
    table = select_glaciers(table, gpd.read_file(data / "svalbard" / "aoi.shp")).reset_index(drop=True)
    numeric, categorical = ("area_km2", "cenlat", "cenlon"), ("utm_zone", "term_type")
    wrong, guessed = [], []
    for seed in range(4):
        hidden = np.random.default_rng(seed).choice(len(table), 24, replace=False)  # as many as the published one lacks
        gaps = table.assign(year=table["year"].where(~table.index.isin(hidden)))
        full, report = impute_years(gaps, "year", numeric=numeric, categorical=categorical)
        assert report["filled"] == 24
        assert report["mean_absolute_error"] < 1
        off = np.abs(full["year"] - table["year"])
        assert (off.drop(hidden) == 0).all()
        wrong.append(off[hidden].mean())
        guessed.append(np.abs(table["year"][hidden] - gaps["year"].mean()).mean())
        found = composition(full["year"], full["area_km2"])
        assert found.mean_year == pytest.approx(2006.312, abs=0.1)
    assert np.mean(wrong) < 0.5 * np.mean(guessed)


def test_rate_between_two_real_inventories(data: Path) -> None:
    table = pd.read_csv(data / "svalbard" / "derived_cryoclim_1990_vs_2000s_by_ident.csv")
    first, second = (Inventory.of_glaciers(table[f"year_{one}"], table[f"area_{one}_km2"]) for one in "ab")
    rate = resample_rate(first, second, n=20_000)
    apart = second.composition.mean_year - first.composition.mean_year
    crude = (table["area_b_km2"].sum() - table["area_a_km2"].sum()) / apart
    assert rate.rate_km2_per_year.item() == pytest.approx(crude, rel=0.05)
    # the inventories' own error of 0.76 % of the area each is most of the spread; the dates add theirs
    spread = AREA_SIGMA * np.hypot(first.composition.area, second.composition.area) / apart
    assert spread < rate.std_km2_per_year.item() < 1.4 * spread


def test_years_of_dates_as_text() -> None:
    dates = pd.Series(["2008-07-23T00:00:00", None, "19769999", "9999", "-9999999", ""])
    np.testing.assert_array_equal(source_years(dates), [2008, np.nan, 1976, np.nan, np.nan, np.nan])


def test_bad_input() -> None:
    one = Inventory.of_glaciers([1990, 2000], [1, 1])
    wrong: Any
    for wrong, match in (
        (([], []), "at least 1"),
        (([1990], [1, 2]), "as many"),
        (([1990, np.nan], [1, 1]), "impute_years"),
        (([1990, 1991], [1, 0]), "not positive"),
        ((["old", "new"], [1, 1]), "give numbers"),
        ((np.array(["1990", "1991"], "datetime64[ns]"), [1, 1]), "give numbers, years as 2016"),
    ):
        with pytest.raises(InputError, match=match):
            Inventory.of_glaciers(*wrong)
    with pytest.raises(InputError, match="overlap in time"):
        resample_rate(one, Inventory.of_glaciers([1995, 2005], [1, 1]), n=500)
    for n in (0, 2.5, True):
        with pytest.raises(InputError, match="whole number"):
            resample_rate(one, one, n=n)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="level"):
        resample_rate(one, one, level=95)
    for draws in ([], [np.nan], [-1.0]):
        with pytest.raises(InputError):
            Inventory.of_year(2016, draws)
    for year in (np.nan, "2016", np.datetime64("2016")):
        with pytest.raises(InputError, match="give a calendar year"):
            Inventory.of_year(year, [1.0])  # type: ignore[arg-type]
    for seed in (None, -1, "a"):
        for draw in (lambda s: resample_rate(one, one, seed=s), lambda s: recent_rate(-1, 1, seed=s)):
            with pytest.raises(InputError, match="seed"):
                draw(seed)
    with pytest.raises(InputError, match="n 0"):
        recent_rate(-1, 1, n=0)
    with pytest.raises(InputError, match="sigma"):
        Inventory.of_glaciers([1990], [1], sigma=2)
    with pytest.raises(InputError, match="no draws"):
        acceleration(recent_rate(-1, 1).rename(draws="d"), recent_rate(-1, 1))
    with pytest.raises(InputError, match="allowed"):
        recent_rate(np.nan, 1)
    table = glaciers().assign(area_km2=3.0)
    with pytest.raises(InputError, match="'cenlon'"):
        select_glaciers(table)
    far = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs="EPSG:4326")
    with pytest.raises(InputError, match="no glacier"):
        select_glaciers(table, far, lon="lon", lat="lat")
    with pytest.raises(InputError, match="no CRS"):
        select_glaciers(table, far.set_crs(None, allow_override=True), lon="lon", lat="lat")
    with pytest.raises(InputError, match="'depth'"):
        impute_years(table, "year", numeric=("depth",))
    with pytest.raises(InputError, match="'lon' has no number"):
        impute_years(table.assign(lon=np.nan), "year", numeric=("lon",))
    with pytest.raises(InputError, match="at least 15"):
        impute_years(table[:9], "year", numeric=("lon",))
