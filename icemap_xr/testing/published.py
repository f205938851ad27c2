"""The published program's way to map, written plainly, to compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.testing.fakes import FakePredictor

#: a model for datasets in memory, and one for the features of a cube on disk
MODEL = FakePredictor(8, 3)
STORED = FakePredictor(8, 3, ("rtc", "insar"))


def published(ds: xr.Dataset, model: FakePredictor) -> NDArray[np.float64]:
    """Map the first year as upstream's apply.py does, with half-overlapping windows."""
    scaled = []
    for one in model.spec.features:
        raw = ds[one.name].values[0].astype(np.float64)
        values = (raw - one.minimum) / (one.maximum - one.minimum)
        values[~np.isfinite(values)] = 0
        values[values > 100] = 0
        scaled.append(values)
    stack = np.stack(scaled, axis=-1)
    window, stride = model.window, model.window // 2
    height, width = stack.shape[1:3]
    axis = np.linspace(-1, 1, window)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    weights = np.exp(-(distance**2) / (2 * 0.5**2)) / (np.sqrt(2 / np.pi) * 0.5)
    padded = np.zeros((stack.shape[0], height + window, width + window, stack.shape[3]))
    padded[:, :height, :width] = stack
    total, weight_sum = (np.zeros((height + window, width + window)) for _ in range(2))
    for row in range(0, height, stride):
        for column in range(0, width, stride):
            part = np.s_[row : row + window, column : column + window]
            out = model(padded[:, *part][None].astype(np.float32))[0, :, :, 1]
            total[part] += weights * out
            weight_sum[part] += weights
    result: NDArray[np.float64] = (total / np.where(weight_sum > 0, weight_sum, 1))[:height, :width]
    return result


def probability(ds: xr.Dataset, model: Any = MODEL, **options: Any) -> NDArray[np.float32]:
    """Return the computed glacier probability `(year, y, x)` of a dataset with options of `predict`."""
    values: NDArray[np.float32] = ds.icemap.predict(model, **options).probability.values
    return values
