"""Numbers that cannot be what they are said to be, found where they pass by: a map of them would look right."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError, ModelMismatchError
from icemap_xr.types import ModelSpec

#: what values of a unit can be at all, far beyond what a radar measures; resampling may pass 0 and 1 a little
_POSSIBLE = {"dB": (-200.0, 100.0), "1": (-0.5, 1.5)}
#: the published program takes larger values for fill and sets them to zero
_FILL = 1e4
#: so many values of backscatter, none below 0 dB, are no decibels
_ENOUGH = 4096
#: how far rounding may carry a probability beyond 0 and 1
_ROUNDING = 1e-3


def check_values(name: str, values: NDArray[Any]) -> None:
    """Raise `InputError` where values of a feature cannot be in its units: undeclared nodata, power, scaled integers.

    Parameters
    ----------
    name
        Feature; others than those of a cube are not judged.
    values
        Values of one scene; NaN and infinity stand for no observation.
    """
    one = schema.FEATURES.get(name)
    if one is None or not values.size:
        return
    low, high = _POSSIBLE[one.units]
    # both leave out NaN; infinity is rare, and leaving it out takes a copy
    least, most = float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))
    if np.isinf(least) or np.isinf(most):
        check_values(name, values[np.isfinite(values)])
        return
    wrong = least if least < low else most
    if least < low or high < most < _FILL:
        raise InputError(
            f"{name} holds {wrong:g}, which is no value in {one.units!r} ({low:g} to {high:g}): unobserved pixels must "
            "be NaN, backscatter decibels (10 log10 of power), coherence 0 to 1"
        )
    if one.units == "dB" and least >= 0 and np.isfinite(values).sum() >= _ENOUGH:
        raise InputError(
            f"{name} has no value below 0 dB in {values.shape} pixels of a scene (the least is {least:g}): it looks "
            "like linear power; convert it with 10 log10"
        )


def checked_answer(answer: Any, windows: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32]:
    """Return a model's answer to windows `(batch, step, y, x, feature)` if it is one probability per class and pixel.

    Raises
    ------
    ModelMismatchError
        Its shape is another, or it holds NaN or numbers outside 0..1.
    """
    wanted = (windows.shape[0], *windows.shape[2:4], len(spec.classes))
    found: NDArray[np.float32] = np.asarray(answer)
    if found.shape != wanted:
        raise ModelMismatchError(
            f"model {spec.name!r} answers with shape {found.shape}, needed is {wanted}, (window, y, x, class): mend it"
        )
    # a comparison with NaN is false
    if not (found.min() >= -_ROUNDING and found.max() <= 1 + _ROUNDING):
        raise ModelMismatchError(
            f"model {spec.name!r} answers with {float(found.min()):g} to {float(found.max()):g}, probabilities are 0 "
            "to 1: end it with a softmax, and check its weights and the scaling of its features"
        )
    return found
