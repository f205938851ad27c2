"""Do surging glaciers change faster? Rates of two groups of glaciers, compared without assuming a distribution."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from icemap_xr.errors import InputError
from icemap_xr.kernels.draws import BOUNDS
from icemap_xr.options import check_count, check_level, check_seed, made_by
from icemap_xr.regionsums import REGION

#: RGI 7 `surge_type`: 0 no evidence, 1 possible, 2 probable, 3 observed, 9 not assigned
_TYPES = (0, 1, 2, 3)
#: bootstrap draws of effects, at most
_EFFECT_DRAWS = 2000
#: differences that are written out to find their median, and steps of bisection where there are more
_PAIRS, _HALVINGS = 10_000, 45


def surging(surge_type: ArrayLike, *, least: int = 2) -> NDArray[np.float64]:
    """Return 1 for surging glaciers, 0 for others and NaN for those that RGI does not assign.

    Parameters
    ----------
    surge_type
        RGI 7: 0 no evidence, 1 possible, 2 probable, 3 observed, 9 not assigned.
    least
        Lowest type that counts as surging; types between 0 and this one are NaN, so that doubtful glaciers are in
        neither group.

    Raises
    ------
    InputError
        `least` is not 1, 2 or 3, or a type is unknown.
    """
    if least not in (1, 2, 3):
        raise InputError(f"least {least!r} is not allowed: give 1 (possible), 2 (probable) or 3 (observed)")
    types = pd.to_numeric(pd.Series(np.asarray(surge_type)), errors="coerce").to_numpy(np.float64)
    known = np.isin(types, _TYPES)
    odd = ~known & ~np.isnan(types) & (types != 9)
    if odd.any():
        raise InputError(f"surge_type {types[odd][0]:g} is not allowed: RGI 7 has 0, 1, 2, 3 and 9")
    return np.where(types >= least, 1.0, np.where(types == 0, 0.0, np.nan)) * np.where(known, 1.0, np.nan)


def join_surge_type(rates: xr.Dataset, table: pd.DataFrame, *, key: str = "rgi_id", least: int = 2) -> pd.DataFrame:
    """Join rates of glaciers to the types of an inventory.

    Parameters
    ----------
    rates
        Result of `glacier_rates`, whose `region` holds the glaciers' identifiers.
    table
        Inventory with the columns `key` and `surge_type`.
    key
        Column with the identifiers.
    least
        As in `surging`.

    Returns
    -------
    pandas.DataFrame
        One row a glacier of `rates`: `rate_km2_per_year`, `relative_rate`, `surge_type`, `surging`.

    Raises
    ------
    InputError
        A column is missing, an identifier is repeated, or a glacier of `rates` is not in the table.
    """
    for column in (key, "surge_type"):
        if column not in table:
            raise InputError(f"the table has no column {column!r}: it has {', '.join(map(str, table.columns))}")
    if table[key].duplicated().any():
        raise InputError(f"{key} {table[key][table[key].duplicated()].iloc[0]!r} is repeated: keep one row a glacier")
    frame = rates[["rate_km2_per_year", "relative_rate"]].to_dataframe()[["rate_km2_per_year", "relative_rate"]]
    types = table.set_index(key)["surge_type"].reindex(frame.index)
    if types.isna().any():
        missing = frame.index[types.isna()].tolist()
        raise InputError(f"{len(missing)} glaciers are not in the table, such as {missing[0]!r}: check {key!r}")
    frame.index.name = REGION
    return frame.assign(surge_type=types.to_numpy(), surging=surging(types.to_numpy(), least=least))


def compare_groups(
    values: ArrayLike,
    group: ArrayLike,
    *,
    alternative: Literal["two-sided", "less", "greater"] = "two-sided",
    n: int = 9999,
    seed: int = 42,
    level: float = 0.95,
) -> xr.Dataset:
    """Compare a value, such as the relative rate, of surging and other glaciers.

    Parameters
    ----------
    values
        One value a glacier; NaN is left out.
    group
        1 for the first group (surging), 0 for the second, NaN for neither.
    alternative
        What is asked of the first group: ``"less"`` (faster loss), ``"greater"`` or ``"two-sided"``.
    n
        Permutations, and bootstrap draws of the effects, of these at most 2000.
    seed
        Seed of both.
    level
        Level of the effects' intervals.

    Returns
    -------
    xarray.Dataset
        Dimensionless unless named: `mann_whitney_p`; `permutation_p`, of the difference of means; `cliffs_delta`, the
        chance that a glacier of the first group has the larger value less the chance that it has the smaller one;
        `median_difference`, the median of all pairwise differences (Hodges and Lehmann; unit of `values`);
        `mean_difference` (same unit); each with its `..._interval (bound)`, percentile bootstrap over glaciers;
        `glaciers`, `group_median` and `group_mean` `(group)`. Attribute `effect_draws` says how many draws.

    Raises
    ------
    InputError
        A wrong option, or a group of fewer than 3 glaciers.

    Notes
    -----
    Glaciers count as independent; where neighbours change alike, the p-values are too small.
    """
    if alternative not in ("two-sided", "less", "greater"):
        raise InputError(f"alternative {alternative!r} is not allowed: give 'two-sided', 'less' or 'greater'")
    check_count(n, "permutations")
    check_seed(seed)
    check_level(level)
    x, which = np.asarray(values, np.float64).ravel(), np.asarray(group, np.float64).ravel()
    if x.shape != which.shape:
        raise InputError(f"{x.size} values and {which.size} groups: give one of each for every glacier")
    if not np.isin(which[np.isfinite(which)], (0, 1)).all():
        raise InputError("group must be 1, 0 or NaN: give the result of surging()")
    first, second = (x[(which == one) & np.isfinite(x)] for one in (1, 0))
    if min(len(first), len(second)) < 3:
        raise InputError(f"the groups have {len(first)} and {len(second)} glaciers: at least 3 of each are needed")
    streams = [np.random.default_rng(one) for one in np.random.SeedSequence(seed).spawn(2)]
    rank = stats.mannwhitneyu(first, second, alternative=alternative)
    permuted = stats.permutation_test(
        (first, second),
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        vectorized=True,
        n_resamples=n,
        alternative=alternative,
        rng=streams[0],
        batch=max(1, 2_000_000 // x.size),
    )
    effects = _effects(first, second)
    effect_draws = min(n, _EFFECT_DRAWS)
    drawn = _resampled_effects(first, second, effect_draws, streams[1])
    low_high = [(1 - level) / 2, (1 + level) / 2]
    out: dict[str, Any] = {
        "mann_whitney_p": float(rank.pvalue),
        "permutation_p": float(permuted.pvalue),
        **effects,
        **{f"{name}_interval": ("bound", np.quantile(drawn[name], low_high)) for name in effects},
        "glaciers": ("group", [len(first), len(second)]),
        "group_median": ("group", [float(np.median(first)), float(np.median(second))]),
        "group_mean": ("group", [float(first.mean()), float(second.mean())]),
    }
    attrs = {"alternative": alternative, "level": level, "n": n, "effect_draws": effect_draws, "seed": seed}
    coords = {"bound": BOUNDS, "group": np.array(["surging", "other"], dtype=object)}
    return xr.Dataset(out, coords=coords, attrs=made_by() | attrs)


def _effects(first: NDArray[np.float64], second: NDArray[np.float64]) -> dict[str, float]:
    ordered = np.sort(second)
    lower, not_larger = (np.searchsorted(ordered, first, side=side).sum() for side in ("left", "right"))
    pairs = len(first) * len(second)
    return {
        "cliffs_delta": float((lower + not_larger) / pairs - 1),
        "median_difference": _median_difference(np.sort(first), ordered),
        "mean_difference": float(first.mean() - second.mean()),
    }


def _median_difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the median of all differences between two sorted groups; of many, the lower one of two middle ones.

    Many are not written out but counted below a bound, which is halved until it is as good as a float.
    """
    pairs = len(first) * len(second)
    if pairs <= _PAIRS:
        return float(np.median(first[:, None] - second))
    low, high = float(first[0] - second[-1]), float(first[-1] - second[0])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # differences of at most `middle`
        below = pairs - np.searchsorted(second, first - middle, side="left").sum()
        low, high = (low, middle) if 2 * below >= pairs else (middle, high)
    return high


def _resampled_effects(
    first: NDArray[np.float64], second: NDArray[np.float64], n: int, rng: np.random.Generator
) -> dict[str, list[float]]:
    """Return the effects of draws with replacement from both groups."""
    drawn: dict[str, list[float]] = {"cliffs_delta": [], "median_difference": [], "mean_difference": []}
    for _ in range(n):
        for name, value in _effects(rng.choice(first, len(first)), rng.choice(second, len(second))).items():
            drawn[name].append(value)
    return drawn
