"""Rates of change between inventories whose glaciers were mapped in different years, by Monte Carlo.

An inventory is a composition: years and the share of the area mapped in each. Drawing about as many years as the
inventory effectively has, with their shares as probabilities, gives draws of its mean year.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icemap_xr.errors import InputError

#: draws times years held at once
_BATCH = 2**18


class Composition(NamedTuple):
    """Years of an inventory and the share of its area mapped in each, summing to 1; `area` is all of it, km2."""

    years: NDArray[np.float64]
    shares: NDArray[np.float64]
    area: float

    @property
    def mean_year(self) -> float:
        """Mean year, weighted by area."""
        return float(self.years @ self.shares)

    @property
    def effective_years(self) -> float:
        """Number of years of equal shares with the same spread: ``1 / sum(share ** 2)``."""
        return float(1 / np.sum(self.shares**2))


def composition(years: ArrayLike, areas: ArrayLike) -> Composition:
    """Join glaciers to the composition of an inventory.

    Parameters
    ----------
    years
        Calendar year of each glacier.
    areas
        Its area, km2.

    Raises
    ------
    InputError
        No glacier, another number of years and areas, an area that is not positive, a missing year, or no numbers.
    """
    when, size = _numbers(years, "years"), _numbers(areas, "areas")
    if not when.size or when.shape != size.shape:
        raise InputError(f"a composition got {when.size} years and {size.size} areas: give as many, at least 1")
    if not np.isfinite(when).all():
        raise InputError(f"{int((~np.isfinite(when)).sum())} years are missing: fill them with impute_years first")
    if not (np.isfinite(size) & (size > 0)).all():
        raise InputError("an area is missing or not positive: leave that glacier out")
    unique, at = np.unique(when, return_inverse=True)
    total = float(size.sum())
    return Composition(unique, np.bincount(at, size) / total, total)


def _numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    given = np.asarray(values)
    try:
        # dates would become nanoseconds
        if given.dtype.kind in "mM":
            raise TypeError
        return given.astype(np.float64).ravel()
    except (TypeError, ValueError):
        raise InputError(f"{what} of a composition are {given.dtype}: give numbers, years as 2016") from None


def draw_counts(one: Composition, n: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw how often each year is met, `(draw, year)`, and the mean year `(draw,)`.

    Each draw takes a whole number of years; a running fraction keeps their mean at `effective_years`.
    """
    k = one.effective_years
    # what the running fraction adds up to after each draw; rounding must not turn 3 years into 2
    reached = np.floor(np.arange(n + 1) * k + 1e-9)
    counts = rng.multinomial(np.diff(reached).astype(np.int64), one.shares)
    return counts, counts @ one.years / counts.sum(axis=1)


def corrections(
    one: Composition, counts: NDArray[np.int64], mean: NDArray[np.float64], sigma: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the relative correction of an area whose parts are of other years than the mean, `(draw,)`.

    Parameters
    ----------
    one, counts, mean
        As from `draw_counts`.
    sigma
        Standard deviation of the relative rate of a year, per year; 0 for no correction.
    rng
        Random numbers.

    Notes
    -----
    ``sum(delta_u w_u (mean - u)) / sum(w_u)`` over the drawn years u with their counts w and ``delta_u ~ N(0, sigma)``.
    """
    if sigma == 0:
        return np.zeros(len(counts))
    out = np.empty(len(counts))
    batch = max(1, _BATCH // len(one.years))
    for start in range(0, len(counts), batch):
        some = slice(start, start + batch)
        delta = rng.normal(0, sigma, counts[some].shape)
        out[some] = np.sum(delta * counts[some] * (mean[some, None] - one.years), axis=1) / counts[some].sum(axis=1)
    return out
