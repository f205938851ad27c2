"""Surging against other glaciers: SciPy's tests, effects of known size, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyogrio
import pytest
import scipy.stats
import xarray as xr

from icemap_xr.errors import InputError
from icemap_xr.surges import compare_groups, join_surge_type, surging


def groups(shift: float, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(shift, 1, 40), rng.normal(0, 1, 120)])
    return values, np.repeat([1, 0], [40, 120])


def test_types_of_rgi() -> None:
    types = ["0", "1", "2", "3", "9", None]
    np.testing.assert_array_equal(surging(types), [0, np.nan, 1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(surging(types, least=1), [0, 1, 1, 1, np.nan, np.nan])
    np.testing.assert_array_equal(surging([0, 3], least=3), [0, 1])
    with pytest.raises(InputError, match="surge_type 5"):
        surging([0, 5])
    with pytest.raises(InputError, match="least 0"):
        surging([0], least=0)


def test_a_real_difference_is_found_with_its_size() -> None:
    values, group = groups(-1.2)
    out = compare_groups(values, group, alternative="less", n=999)
    plain = scipy.stats.mannwhitneyu(values[group == 1], values[group == 0], alternative="less")
    assert out.mann_whitney_p.item() == pytest.approx(plain.pvalue)
    assert out.mann_whitney_p < 1e-4
    assert out.permutation_p <= 0.002
    for name in ("cliffs_delta", "median_difference", "mean_difference"):
        low, high = out[f"{name}_interval"].values
        assert low < out[name] < high < 0
    assert out.median_difference_interval[0] < -1.2 < out.median_difference_interval[1]
    apart = values[group == 1][:, None] - values[group == 0]
    assert out.cliffs_delta.item() == pytest.approx((apart > 0).mean() - (apart < 0).mean())
    assert out.cliffs_delta.item() == pytest.approx(2 * plain.statistic / (40 * 120) - 1)
    assert out["glaciers"].values.tolist() == [40, 120]
    assert compare_groups(values, group, alternative="greater", n=199).mann_whitney_p > 0.99


def test_p_values_are_even_where_nothing_differs() -> None:
    p = [float(compare_groups(*groups(0.0, seed), n=99).permutation_p) for seed in range(30)]
    assert 0.25 < np.mean(p) < 0.75
    assert np.mean(np.array(p) < 0.1) < 0.35


def test_seed_repeats_and_missing_values_are_left_out() -> None:
    values, group = groups(-0.5)
    out = compare_groups(values, group, n=199)
    assert out.identical(compare_groups(values, group, n=199))
    more = np.append(values, [np.nan, 99.0])
    assert out.identical(compare_groups(more, np.append(group, [1, np.nan]), n=199))


def test_join_to_the_real_inventory(data: Path) -> None:
    table = pyogrio.read_dataframe(data / "svalbard" / "rgi7_svalbard_attributes.dbf", read_geometry=False)
    some = table.iloc[::5]
    rng = np.random.default_rng(0)
    known = surging(some["surge_type"]) == 1
    relative = rng.normal(-0.01, 0.004, len(some)) - 0.01 * known
    rates = xr.Dataset(
        {"rate_km2_per_year": ("region", relative * some["area_km2"]), "relative_rate": ("region", relative)},
        coords={"region": some["rgi_id"].to_numpy(object)},
    )
    joined = join_surge_type(rates, table.sample(frac=1, random_state=1))
    assert joined.index.tolist() == some["rgi_id"].tolist()
    np.testing.assert_array_equal(joined["surge_type"].astype(int), some["surge_type"].astype(int))
    out = compare_groups(joined["relative_rate"], joined["surging"], alternative="less", n=199)
    assert out.mann_whitney_p < 0.01
    assert out.median_difference.item() == pytest.approx(-0.01, abs=0.003)
    with pytest.raises(InputError, match="not in the table"):
        join_surge_type(rates, table.iloc[:3])
    with pytest.raises(InputError, match="repeated"):
        join_surge_type(rates, pd.concat([table, table]))
    with pytest.raises(InputError, match="'surge_type'"):
        join_surge_type(rates, table[["rgi_id"]])


def test_bad_input() -> None:
    values, group = groups(0)
    wrong: Any
    for wrong, match in (
        ({"alternative": "fewer"}, "alternative"),
        ({"n": 0}, "n 0"),
        ({"level": 1}, "level"),
        ({"seed": None}, "seed None"),
    ):
        with pytest.raises(InputError, match=match):
            compare_groups(values, group, **wrong)
    with pytest.raises(InputError, match="at least 3"):
        compare_groups(values[38:], group[38:])
    with pytest.raises(InputError, match="1, 0 or NaN"):
        compare_groups(values, group + 1)
    with pytest.raises(InputError, match="one of each"):
        compare_groups(values, group[1:])


@pytest.mark.parametrize(("first", "second", "decimals"), [(130, 240, 9), (131, 241, 9), (150, 300, 0)])
def test_effects_of_many_glaciers_equal_those_of_all_pairs(first: int, second: int, decimals: int) -> None:
    """Also with ties; an even number of pairs has two middle ones, of which the lower is taken."""
    rng = np.random.default_rng(first)
    a, b = (rng.normal(0.3, 2, first).round(decimals), rng.normal(0, 1, second).round(decimals))
    found = compare_groups(np.concatenate([a, b]), np.repeat([1, 0], [first, second]), n=20)
    pairs = np.sort((a[:, None] - b).ravel())
    middle = pairs[(pairs.size - 1) // 2]
    assert float(found.median_difference) == pytest.approx(middle, abs=1e-9)
    assert float(found.cliffs_delta) == pytest.approx(np.mean(np.sign(pairs)), abs=1e-12)
    assert found.attrs["effect_draws"] == 20
