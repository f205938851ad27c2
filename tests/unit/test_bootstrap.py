"""Intervals by resampling blocks: the published draws, pairing, coverage of the mapping interval, bad input."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.blocktable import block_table
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.errors import GridError, InputError, UncalibratedWarning
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels import draws as draws_kernel
from icemap_xr.kernels.draws import ErrorModel, corrected_areas, percentile_interval

#: Dask carries no types for it
from_array: Any = da.from_array


def grid(rows: int, columns: int) -> RegionGrid:
    extent = (500_000, 8_600_000, 500_000 + 10 * columns, 8_600_000 + 10 * rows)
    return RegionGrid.from_bbox(extent, "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(values: Any, name: str = "calibrated") -> xr.Dataset:
    coords = {**grid(*values.shape[1:]).coords(), "year": 2016 + np.arange(len(values))}
    return xr.Dataset({name: (("year", "y", "x"), values)}, coords=coords)


def values(years: int = 2, shape: tuple[int, int] = (40, 50)) -> Any:
    p = np.random.default_rng(0).random((years, *shape), dtype=np.float32)
    p *= np.linspace(0, 1, shape[1], dtype=np.float32)
    p[:, :12, :13] = np.nan
    return p


def blocks(ds: xr.Dataset, side: int = 8) -> tuple[Any, Any]:
    table = block_table(ds.calibrated, RegionGrid.from_dataset(ds), side)
    ice, observed = (table[name].values.reshape(ds.sizes["year"], -1) for name in ("ice_km2", "observed_km2"))
    used = observed.any(axis=0)
    return ice[:, used], observed[:, used]


def test_sum_reproduces_the_published_draws() -> None:
    ds = maps(values())
    out = bootstrap_area(ds, block=80, n=50, seed=42, estimator="sum")
    ice, _ = blocks(ds)
    count = ice.shape[1]
    assert out.attrs["n_blocks"] == count
    # the published lines, year by year: equal to the last bit
    for areas, draws in zip(ice, out.draws.values, strict=True):
        expected = []
        for k in range(50):
            rng = np.random.default_rng(42 * (k + 1))
            expected.append(np.sum(rng.choice(areas, size=len(areas), replace=True)))
        np.testing.assert_array_equal(draws, expected)
    same = np.random.default_rng(42).integers(0, count, count)
    np.testing.assert_array_equal(np.random.default_rng(42).choice(count, count, replace=True), same)


def test_ratio_resamples_ice_and_domain_together() -> None:
    ds = maps(values())
    out = bootstrap_area(ds, block="80 m", n=40, seed=3)
    ice, observed = blocks(ds)
    count = ice.shape[1]
    for k in range(40):
        drawn = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(k,))).choice(count, count)
        expected = ice[:, drawn].sum(axis=1) / observed[:, drawn].sum(axis=1) * observed.sum(axis=1)
        np.testing.assert_allclose(out.draws[:, k], expected, rtol=1e-12)
    np.testing.assert_allclose(out.area_km2, ice.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(out.interval[0], np.percentile(out.draws[0], [2.5, 97.5]))
    assert out.interval.bound.values.tolist() == ["low", "high"]
    assert out.draws.dims == ("year", "draw")
    assert out.draws.attrs["units"] == "km2"
    assert out.attrs["interval_kind"] == "sampling"
    assert out.attrs["block_m"] == 80


def test_draws_depend_on_seed_and_number_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ds = maps(values())
    few, many = (bootstrap_area(ds, block=80, n=n, seed=1).draws for n in (10, 500))
    np.testing.assert_allclose(few, many[:, :10], rtol=1e-12)
    assert len(np.unique(np.round(many[0], 12))) == 500
    assert not np.allclose(few, bootstrap_area(ds, block=80, n=10, seed=2).draws)
    monkeypatch.setattr(draws_kernel, "BATCH_CELLS", 100)  # three draws at a time
    np.testing.assert_allclose(bootstrap_area(ds, block=80, n=500, seed=1).draws, many, rtol=1e-12)


@pytest.mark.parametrize("estimator", ["ratio", "sum"])
def test_years_share_their_draws(estimator: Any) -> None:
    p = values(1)
    out = bootstrap_area(maps(np.concatenate([p, p * np.float32(0.5)])), block=80, n=100, estimator=estimator)
    np.testing.assert_allclose(out.draws[1], out.draws[0] / 2, rtol=1e-9)


@pytest.mark.parametrize("chunks", [(1, 8, 8), (2, 13, 7), (1, 40, 1)])
def test_chunks_change_nothing(chunks: Any) -> None:
    p = values()
    lazy = bootstrap_area(maps(from_array(p, chunks=chunks)), block=80, n=20)
    xr.testing.assert_allclose(lazy, bootstrap_area(maps(p), block=80, n=20), rtol=1e-10)


def domain(before: int) -> xr.Dataset:
    """Return a round, nearly full ice cap (NaN around it), `before` pixels further from the grid's origin."""
    y, x = np.indices((200, 200))
    radius = np.hypot(y - 100, x - 100)
    p = np.where(radius < 90, np.clip(1.1 - (radius / 90) ** 8, 0, 1), np.nan).astype(np.float32)
    return maps(np.pad(p, ((before, 40), (before, 40)), constant_values=np.nan)[None])


def test_ratio_width_survives_a_shifted_anchor_and_added_sea() -> None:
    width = {}
    for estimator in ("ratio", "sum"):
        for before in (0, 7, 13, 80):
            out = bootstrap_area(domain(before), block=200, n=2000, estimator=estimator)
            width[estimator, before] = float(out.interval[0, 1] - out.interval[0, 0])
    base = width["ratio", 0]
    for before in (7, 13, 80):
        assert abs(width["ratio", before] / base - 1) < 0.3
    assert width["sum", 0] > 2 * base


def test_a_year_without_data_is_nan_and_the_others_stay() -> None:
    p = values(3)
    p[1] = np.nan
    out = bootstrap_area(maps(p), block=80, n=30)
    assert np.isnan(out.draws[1]).all()
    assert np.isnan(out.interval[1]).all()
    assert np.isnan(out.area_km2[1])
    assert np.isfinite(out.draws[[0, 2]]).all()
    assert np.isnan(bootstrap_area(maps(p), block=80, n=30, estimator="sum").draws[1]).all()


def test_uncalibrated_warns() -> None:
    with pytest.warns(UncalibratedWarning, match="bootstrap_area") as caught:
        out = bootstrap_area(maps(values(), "probability"), block=80, n=5)
    assert [one.filename for one in caught if one.category is UncalibratedWarning] == [__file__]
    assert out.attrs["calibrated"] is False
    hard = bootstrap_area(maps(values(), "probability"), block=80, n=5, method="hard", threshold=0.6)
    assert hard.area_km2[0] == pytest.approx((values()[0] > 0.6).sum() * 1e-4)


def test_mapping_takes_off_block_errors_and_year_effects() -> None:
    ds = maps(values(3))
    bias = bootstrap_area(ds, block=80, n=4, kind="mapping", block_errors=[0.1])
    np.testing.assert_allclose(bias.draws, (bias.area_km2 - 0.1 * bias.observed_km2).values[:, None].repeat(4, 1))
    assert bias.attrs["interval_kind"] == "mapping"
    assert "estimator" not in bias.attrs
    errors = {"errors": [0.0], "year_effect": [-0.05, 0.05], "block": "80 m"}
    effect = bootstrap_area(ds, block=80, n=400, kind="mapping", block_errors=errors)
    moved = (effect.draws - effect.area_km2) / effect.observed_km2
    np.testing.assert_allclose(np.abs(moved), 0.05)
    assert abs(float((moved[0] * moved[1]).mean())) < 0.05**2 / 3  # years have effects of their own


def test_mapping_errors_persist_only_where_rows_say_so() -> None:
    ds = maps(np.repeat(values(1), 2, axis=0))
    errors = np.random.default_rng(0).normal(0, 0.1, 300).clip(-1, 1)
    persistent = bootstrap_area(ds, block=80, n=300, kind="mapping", block_errors=np.stack([errors, errors], 1)).draws
    np.testing.assert_allclose(persistent[0], persistent[1])
    independent = bootstrap_area(ds, block=80, n=300, kind="mapping", block_errors=errors).draws
    assert abs(np.corrcoef(independent)[0, 1]) < 0.2
    assert float(independent[0].std()) == pytest.approx(float(persistent[0].std()), rel=0.2)


def test_mapping_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(11)
    observed = rng.uniform(0.2, 1, (60, 1))
    held = 0
    for replicate in range(200):
        errors, effects = rng.normal(0.02, 0.1, 200), rng.normal(0, 0.03, 40)
        truth = 40.0
        ice = np.full((60, 1), truth / 60) + rng.normal(0.02, 0.1, (60, 1)) * observed + rng.normal(0, 0.03) * observed
        model = ErrorModel(errors, effects, np.zeros(1))
        low, high = percentile_interval(corrected_areas(ice, observed, model, 300, replicate), 0.95)[0]
        held += low <= truth <= high
    assert 0.90 <= held / 200 <= 0.98


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n": 0}, "n 0"),
        ({"n": 2.5}, "whole number of draws"),
        ({"seed": -1}, "seed -1"),
        ({"seed": None}, "seed None"),
        ({"seed": 0, "estimator": "sum"}, "same draw"),
        ({"level": 95}, "level 95"),
        ({"kind": "map"}, "kind 'map'"),
        ({"estimator": "mean"}, "estimator 'mean'"),
        ({"method": "mean"}, "method 'mean'"),
        ({"kind": "mapping"}, "held-out"),
        ({"block_errors": [0.1]}, "not used"),
        ({"block": "1km"}, "smaller blocks"),
        ({"block": 500}, "at least 2"),
        ({"kind": "mapping", "block_errors": []}, "non-empty"),
        ({"kind": "mapping", "block_errors": [np.nan]}, "without NaN"),
        ({"kind": "mapping", "block_errors": ["a"]}, "numbers"),
        ({"kind": "mapping", "block_errors": [[0.1] * 3]}, "2 years"),
        ({"kind": "mapping", "block_errors": {"year_effect": [0]}}, "lacks 'errors'"),
        ({"kind": "mapping", "block_errors": {"error": [0]}}, "did you mean 'errors'"),
        ({"kind": "mapping", "block_errors": {"errors": [0], "year_effect": [[0]]}}, "one dimension"),
        ({"kind": "mapping", "block_errors": {"errors": [0], "block": "3.2km"}}, "that block size"),
    ],
)
def test_wrong_options(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        bootstrap_area(maps(values()), **{"block": 80, "n": 5, **options})


def test_maps_that_cannot_be_resampled() -> None:
    with pytest.raises(InputError, match="no observed pixel"):
        bootstrap_area(maps(np.full((1, 40, 50), np.nan, np.float32)), block=80)
    with pytest.raises(GridError, match="multiple of the pixel size"):
        bootstrap_area(maps(values()), block=85)
    with pytest.raises(InputError, match="duplicate years"):
        bootstrap_area(maps(values()).assign_coords(year=[2016, 2016]), block=80)
    for wrong in (-0.2, 1.2, np.inf):
        p = values()
        p[1, 3, 4] = wrong
        with pytest.raises(InputError, match=r"0\.\.1"):
            bootstrap_area(maps(p), block=80)


@pytest.mark.parametrize("estimator", ["ratio", "sum"])
def test_bca_interval_of_a_skewed_map(estimator: Any) -> None:
    p = values(3)
    p[1] = np.nan
    plain, bca = (
        bootstrap_area(maps(p), block=80, n=400, estimator=estimator, interval=one) for one in ("percentile", "bca")
    )
    xr.testing.assert_equal(plain.draws, bca.draws)
    assert np.isnan(bca.interval[1]).all()
    for year in (0, 2):
        assert bca.interval[year, 0] < bca.area_km2[year] < bca.interval[year, 1]
        assert not np.allclose(bca.interval[year], plain.interval[year])
        assert abs(float(bca.interval[year].mean() - plain.interval[year].mean())) < float(
            plain.interval[year, 1] - plain.interval[year, 0]
        )
    assert bca.attrs["interval_method"] == "bca"
    for options in ({"interval": "normal"}, {"interval": "bca", "kind": "mapping", "block_errors": [0.1]}):
        with pytest.raises(InputError, match="interval"):
            bootstrap_area(maps(p), block=80, n=4, **options)  # type: ignore[arg-type]


def test_true_areas_are_named_and_scaled() -> None:
    ds = maps(values())
    true, planar = (bootstrap_area(ds, block=80, n=20, area_kind=one) for one in ("true", "planar"))
    np.testing.assert_allclose(true.draws / planar.draws, 1 / 0.9992, rtol=1e-5)
    assert (true.attrs["area_kind"], planar.attrs["area_kind"]) == ("true", "planar")
    with pytest.raises(InputError, match="area_kind"):
        bootstrap_area(ds, block=80, n=20, area_kind="ground")  # type: ignore[arg-type]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 10), st.integers(1, 10), st.sampled_from(["ratio", "sum"]), st.integers(1, 99))
def test_paired_draws_of_proportional_years_for_any_chunks(rows: int, columns: int, estimator: Any, seed: int) -> None:
    p = values(1, (20, 30))
    p[:, :2, :3] = np.nan
    both = np.concatenate([p, p * np.float32(0.25)])
    lazy = maps(from_array(both, chunks=(1, rows, columns)))
    out = bootstrap_area(lazy, block=50, n=15, seed=seed, estimator=estimator)
    xr.testing.assert_allclose(
        out, bootstrap_area(maps(both), block=50, n=15, seed=seed, estimator=estimator), rtol=1e-9
    )
    np.testing.assert_allclose(out.draws[1], out.draws[0] / 4, rtol=1e-9)
    assert out.draws.attrs["units"] == out.area_km2.attrs["units"] == "km2"
