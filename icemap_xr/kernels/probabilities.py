"""One check of probabilities, shared by everything that reads their values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError

#: how far outside 0..1 a value may lie and still be taken for float32 rounding of a weighted mean
ROUNDING = 1e-5


def check_probabilities(values: NDArray[Any], what: str) -> tuple[float, float]:
    """Raise `InputError` if a value lies outside 0..1 by more than float32 rounding; NaN is allowed.

    Parameters
    ----------
    values
        Values of any shape (dimensionless).
    what
        What is being done, for the message.

    Returns
    -------
    low, high
        The smallest and the largest value; NaN where there is none.
    """
    if not values.size:
        return math.nan, math.nan
    # NaN passes and infinities do not; two reductions are several times cheaper than a mask
    low, high = float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise InputError(
            f"{what} got the value {low if low < -ROUNDING else high:g}: probabilities are 0..1 or NaN where nothing "
            "was observed; rescale the map, or mask its nodata value to NaN"
        )
    return low, high
