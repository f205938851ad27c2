"""Filters over years, pixel by pixel: median, majority, and a hidden Markov model of two states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def median_of_years(values: NDArray[np.floating[Any]], years: Sequence[int], window: int) -> NDArray[np.floating[Any]]:
    """Replace each value by the median of the years around it.

    Two years at the same distance before and after count only together, and only where both are observed. So the
    number of values is always odd, the median is one of them, and a series that only falls or only rises is
    returned unchanged, up to its first and last year.

    Parameters
    ----------
    values
        `(year, ...)`, floating, NaN where nothing was observed.
    years
        Calendar year of each map; a missing year counts as unobserved.
    window
        Years in the median, odd.

    Returns
    -------
    ndarray
        Same shape and dtype; NaN stays NaN.
    """
    at = {year: i for i, year in enumerate(years)}
    filtered = np.empty_like(values)
    for i, year in enumerate(years):
        stack = [values[i]]
        for distance in range(1, window // 2 + 1):
            before, after = at.get(year - distance), at.get(year + distance)
            if before is None or after is None:
                continue
            both = np.isfinite(values[before]) & np.isfinite(values[after])
            stack += [np.where(both, values[j], values.dtype.type(np.nan)) for j in (before, after)]
        ordered = np.sort(np.stack(stack), axis=0)  # NaN sorts last
        middle = (np.isfinite(ordered).sum(axis=0) - 1) // 2
        median = np.take_along_axis(ordered, np.maximum(middle, 0)[None], axis=0)[0]
        filtered[i] = np.where(np.isfinite(values[i]), median, values.dtype.type(np.nan))
    return filtered


def majority_of_years(
    values: NDArray[np.floating[Any]], years: Sequence[int], window: int, threshold: float = 0.5
) -> NDArray[np.floating[Any]]:
    """Replace values whose class is not that of most years around by the median of these years.

    Parameters
    ----------
    values, years, window
        As in `median_of_years`.
    threshold
        Value above which a year counts as ice.

    Returns
    -------
    ndarray
        Same shape and dtype: `values` where the class is that of the majority, elsewhere the median, whose class is the
        majority's.
    """
    median = median_of_years(values, years, window)
    return np.where((values > threshold) == (median > threshold), values, median)


#: evidence of one year is cut to these probabilities: one year alone, however sure, is then no match for its neighbours
SUREST = 0.95


def markov_of_years(values: NDArray[np.floating[Any]], years: Sequence[int], stay: float) -> NDArray[np.floating[Any]]:
    """Return the probability of ice given all years, in a hidden Markov model of two states.

    A pixel keeps its state from one year to the next with probability `stay`. The probability of a year is taken as
    evidence for ice at even odds, cut to 0.05..0.95; an unobserved year is no evidence, and a gap of d years lets the
    state change in each of them.

    Parameters
    ----------
    values
        `(year, ...)`, floating, 0..1, NaN where nothing was observed.
    years
        Calendar year of each map.
    stay
        Between 0.5 and 1, both excluded.

    Returns
    -------
    ndarray
        Same shape and dtype; NaN stays NaN.

    Notes
    -----
    Forward-backward algorithm (Rabiner 1989, Proc. IEEE 77, 257-286), in odds.
    """
    order = np.argsort(years, kind="stable")
    apart = np.diff(np.asarray(years)[order])
    kept = (1 + (2 * stay - 1) ** apart.astype(np.float64)) / 2
    seen = np.isfinite(values)
    likely = np.clip(np.where(seen, values, 0.5), 1 - SUREST, SUREST).astype(np.float64)[order]
    before, after = np.empty_like(likely), np.empty_like(likely)
    before[0] = after[-1] = 0.5
    # predicted from the years before, and from those after; each is a probability of ice
    for i, keep in enumerate(kept):
        before[i + 1] = _pass_on(before[i], likely[i], keep)
    for i, keep in reversed(list(enumerate(kept))):
        after[i] = _pass_on(after[i + 1], likely[i + 1], keep)
    ice = before * likely * after
    posterior = ice / (ice + (1 - before) * (1 - likely) * (1 - after))
    out = np.empty_like(values)
    out[order] = posterior
    out[~seen] = np.nan
    return out


def _pass_on(known: NDArray[np.float64], likely: NDArray[np.float64], keep: float) -> NDArray[np.float64]:
    """Join what is known of a year with its evidence, and go on to the next year."""
    ice = known * likely
    now = ice / (ice + (1 - known) * (1 - likely))
    return now * keep + (1 - now) * (1 - keep)
