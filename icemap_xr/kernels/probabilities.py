"""One check of probabilities, shared by everything that reads their values."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from icemap_xr.errors import InputError

#: how far outside 0..1 a value may lie and still be taken for float32 rounding of a weighted mean
ROUNDING = 1e-5


def check_probabilities(values: NDArray[Any], what: str) -> None:
    """Raise `InputError` if a value lies outside 0..1 by more than float32 rounding; NaN is allowed.

    Parameters
    ----------
    values
        Values of any shape (dimensionless).
    what
        What is being done, for the message.
    """
    # comparisons with NaN are false, so NaN passes and infinities do not
    wrong = (values < -ROUNDING) | (values > 1 + ROUNDING)
    if wrong.any():
        raise InputError(
            f"{what} got the value {float(values[wrong][0]):g}: probabilities are 0..1 or NaN where nothing was "
            "observed; rescale the map, or mask its nodata value to NaN"
        )
