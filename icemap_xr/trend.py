"""Rates and changes of area, from draws that the years share."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.blocktable import facts_kept
from icemap_xr.drawcalls import check_one_call
from icemap_xr.errors import InputError, SchemaError, UnequalGroundWarning, warn
from icemap_xr.kernels.draws import BOUNDS, percentile_interval
from icemap_xr.options import calendar_years, check_level, made_by
from icemap_xr.schema import YEAR

#: share by which the observed area of years may differ without a warning
_SAME_GROUND = 0.001

#: draws handled at once by Theil-Sen, whose pairs of years take far more memory than the draws
BATCH = 4096


def _read_draws(areas: xr.Dataset, level: float, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return years `(year,)` and draws `(year, draw)`, in order of time."""
    check_level(level)
    if "draws" not in areas or set(areas["draws"].dims) != {YEAR, "draw"} or YEAR not in areas.coords:
        raise SchemaError(f"{what} needs draws (year, draw) with year labels: give the result of bootstrap_area")
    years = calendar_years(areas, what)
    if len(np.unique(years)) != len(years):
        raise InputError(f"{what} got duplicate years {years.tolist()}: keep one area per year")
    _compare_ground(areas, what)
    ordered = areas["draws"].transpose(YEAR, "draw").sortby(YEAR)
    return ordered[YEAR].values.astype(np.float64), ordered.values.astype(np.float64)


def _compare_ground(areas: xr.Dataset, what: str) -> None:
    """Warn where years did not see the same ground: what was not observed then looks like change."""
    if "observed_km2" not in areas or areas["observed_km2"].dims != (YEAR,):
        return
    seen = areas["observed_km2"].values
    seen = seen[seen > 0]
    if seen.size and seen.max() > seen.min() * (1 + _SAME_GROUND):
        warn(
            f"{what} compares years that observed {seen.min():.3f} to {seen.max():.3f} km2: ice that was not observed "
            "counts as change; keep the ground that every year saw, with probability.where(...), before summing",
            UnequalGroundWarning,
        )


def _linear(years: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares slope of each column of `values (year, n)`."""
    centred = years - years.mean()
    slopes: NDArray[np.float64] = centred @ values / np.sum(centred**2)
    return slopes


def _theil_sen(years: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the median slope over all pairs of years of each column of `values (year, n)`."""
    first, second = np.triu_indices(len(years), 1)
    apart = (years[second] - years[first])[:, None]
    slopes = np.empty(values.shape[1])
    for start in range(0, len(slopes), BATCH):
        some = values[:, start : start + BATCH]
        slopes[start : start + BATCH] = np.median((some[second] - some[first]) / apart, axis=0)
    return slopes


def _best(areas: xr.Dataset, draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas `(year,)` to report: `area_km2` where there is one, else the mean of the draws."""
    if "area_km2" in areas:
        return np.asarray(areas["area_km2"].sortby(YEAR).values, np.float64)
    # years without data, which have no draw at all, are left out later
    known = np.isfinite(draws)
    total = np.where(known, draws, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(len(draws), np.nan), where=known.any(axis=1))


def _as_dataset(
    name: str, value: float, draws: NDArray[np.float64], level: float, units: str, attrs: dict[str, Any]
) -> xr.Dataset:
    attrs = {"units": units, **attrs}
    return xr.Dataset(
        {
            name: ((), value, attrs),
            "interval": (("bound",), percentile_interval(draws, level), attrs),
            "draws": (("draw",), draws, attrs),
        },
        coords={"bound": BOUNDS, "draw": np.arange(len(draws))},
        attrs=made_by() | attrs,
    )


def trend(areas: xr.Dataset, *, method: Literal["linear", "theil-sen"] = "linear", level: float = 0.95) -> xr.Dataset:
    """Fit a rate of change of area to every draw.

    Parameters
    ----------
    areas
        Result of `bootstrap_area`: `draws (year, draw)` and, if present, `area_km2 (year)`, km2; `year` in calendar
        years. Years in which every draw is NaN are left out; a draw that is NaN in another year gives a NaN rate,
        which the interval leaves out.
    method
        ``"linear"``: least squares. ``"theil-sen"``: median slope over all pairs of years.
    level
        Share of the draws between the interval's bounds.

    Returns
    -------
    xarray.Dataset
        `rate_km2_per_year` (of `area_km2`, or of the mean of the draws where there is none), `interval (bound)` and
        `draws (draw)`, float64, km2 per year. What the interval means is what that of `areas` means (attribute
        `interval_kind`).

    Warns
    -----
    UnequalGroundWarning
        The years did not observe the same area.

    Raises
    ------
    InputError
        Fewer than two years with data, duplicate years, years that different calls drew, or a wrong option.
    SchemaError
        `draws` or its years are missing.
    """
    if method not in ("linear", "theil-sen"):
        raise InputError(f"method {method!r} is not allowed: give 'linear' or 'theil-sen'")
    years, draws = _read_draws(areas, level, "trend")
    used = np.isfinite(draws).any(axis=1)
    if used.sum() < 2:
        raise InputError(f"trend needs at least 2 years with data, got {int(used.sum())}: map more years")
    check_one_call(areas, years[used], "trend")
    slope = _linear if method == "linear" else _theil_sen
    value = slope(years[used], _best(areas, draws)[used, None])[0]
    attrs = {**facts_kept(areas), "method": method, "level": level, "years": years[used].astype(int).tolist()}
    return _as_dataset("rate_km2_per_year", value, slope(years[used], draws[used]), level, "km2 year-1", attrs)


def change(areas: xr.Dataset, *, first: int | None = None, last: int | None = None, level: float = 0.95) -> xr.Dataset:
    """Return the change of area between two years, draw by draw.

    Parameters
    ----------
    areas
        Result of `bootstrap_area`, as for `trend`.
    first, last
        Calendar years; the earliest and the latest by default.
    level
        Share of the draws between the interval's bounds.

    Returns
    -------
    xarray.Dataset
        `change_km2`, `interval (bound)` and `draws (draw)`, float64, km2: `last` minus `first`. NaN where one of the
        years has no data.

    Raises
    ------
    InputError
        A year is not there, both are the same, different calls drew them, or a wrong option.
    SchemaError
        `draws` or its years are missing.
    """
    years, draws = _read_draws(areas, level, "change")
    first, last = (years[0] if first is None else first), (years[-1] if last is None else last)
    for year in (first, last):
        if year not in years:
            raise InputError(f"year {year} is not there: give one of {', '.join(f'{y:g}' for y in years)}")
    if first == last:
        raise InputError(f"change needs two years, got {first:g} twice: give an earlier and a later one")
    check_one_call(areas, np.array([first, last]), "change")
    a, b = np.flatnonzero(years == first)[0], np.flatnonzero(years == last)[0]
    best = _best(areas, draws)
    attrs = {**facts_kept(areas), "first": int(first), "last": int(last), "level": level}
    return _as_dataset("change_km2", best[b] - best[a], draws[b] - draws[a], level, "km2", attrs)
