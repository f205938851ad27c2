"""Values of rasters in the units of the cube; what cannot be in the declared form is refused, never guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.scenes import Scene

#: values from which the form of the values can be judged
_ENOUGH = 1000
#: far below what any ground or noise has in dB; -inf is zero power
_LEAST_DB = -1000.0
#: far below what the removal of thermal noise leaves
_LEAST_POWER = -1.0


def to_units(raw: NDArray[Any], scene: Scene) -> NDArray[np.float32]:
    """Convert raw values to the feature's units: power and amplitude to dB, dB and coherence as they are.

    Zero or negative power (below the noise floor) becomes the feature's minimum, where the published scaling gives 0;
    it is an observation, not nodata, and never -inf.
    """
    values = np.asarray(raw, np.float32)
    one = schema.feature(scene.feature)
    if scene.values == "coherence":
        worst = values[np.isfinite(values)]
        if worst.size and (worst.min() < -1e-3 or worst.max() > 1 + 1e-3):
            raise InputError(
                f"item {scene.item_ids!r} has coherence {worst.min():g}..{worst.max():g}, allowed is 0..1: "
                "the asset is not coherence, or it is scaled"
            )
        return np.where(np.isfinite(values), np.clip(values, 0, 1), np.float32(np.nan))
    if scene.values == "amplitude":
        values = values * np.abs(values)
    if scene.values in ("power", "amplitude"):
        _check_power(values, scene)
        positive = np.where(values > 0, values, np.float32(1e-30))
        values = np.where(np.isfinite(values), 10 * np.log10(positive), np.float32(np.nan))
    else:
        values = np.where(np.isposinf(values), np.float32(np.nan), values)
        _check_db(values, scene)
    floored: NDArray[np.float32] = np.where(np.isnan(values), np.float32(np.nan), np.maximum(values, one.minimum))
    return floored.astype(np.float32)


def _check_db(values: NDArray[np.float32], scene: Scene) -> None:
    """Refuse linear power that is declared to be dB, and fill values that nobody declared."""
    known = values[np.isfinite(values)]
    if known.size and known.min() < _LEAST_DB:
        raise InputError(
            f"item {scene.item_ids!r} has values down to {known.min():g} dB: that is a fill value which the raster "
            "does not declare; name it as nodata in the provider profile"
        )
    # no ground is brighter than 0 dB nearly everywhere
    if known.size >= _ENOUGH and np.count_nonzero(known > 0) > 0.999 * known.size:
        raise InputError(
            f"item {scene.item_ids!r} has values of {known.min():g} to {known.max():g}, nearly all above 0, which is "
            "no backscatter in dB: the raster is in linear power; mend the provider profile"
        )


def _check_power(values: NDArray[np.float32], scene: Scene) -> None:
    """Refuse what cannot be linear power: no ground is brighter than 1, noise removal leaves few negative values."""
    known = values[np.isfinite(values)]
    if known.size >= _ENOUGH and np.count_nonzero(known > 1) > 0.999 * known.size:
        raise InputError(
            f"item {scene.item_ids!r} has a power of {known.min():g} to {known.max():g}, nearly all above 1: no ground "
            "is so bright; the raster holds digital numbers, scaled values or positive dB; mend the provider profile"
        )
    if known.size and (known.min() < _LEAST_POWER or np.count_nonzero(known < 0) > known.size / 2):
        raise InputError(
            f"item {scene.item_ids!r} has values down to {known.min():g}, which is no linear power: the raster is in "
            "dB, or has a fill value that it does not declare; mend the provider profile or the raster"
        )
