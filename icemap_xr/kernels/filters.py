"""Median over years, pixel by pixel."""

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
