"""Maps at twice the pixel side that stay means of the pixels of the first map, however often they are halved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def halve(
    values: NDArray[np.floating[Any]], counts: NDArray[np.integer[Any]] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    """Return means over two by two pixels, and of how many observed pixels of the first map each is.

    Parameters
    ----------
    values
        Means `(y, x)`, NaN where nothing was observed. Pixels beyond the far edges count as unobserved.
    counts
        Of how many observed pixels each value is the mean, `(y, x)`; 1 by default.

    Returns
    -------
    means, counts
        `(y, x)` float32, NaN where nothing was observed, and uint32. A mean of means alone would weigh a single
        observed pixel as much as four.
    """
    four = _by_four(values.astype(np.float64), np.nan)
    known = ~np.isnan(four)
    weights = np.where(known, 1 if counts is None else _by_four(counts.astype(np.float64), 0), 0)
    count = weights.sum(axis=(1, 3))
    total = (np.where(known, four, 0) * weights).sum(axis=(1, 3))
    means = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means.astype(np.float32), count.astype(np.uint32)


def _by_four(values: NDArray[np.float64], fill: float) -> NDArray[np.float64]:
    rows, columns = values.shape
    padded = np.pad(values, ((0, rows % 2), (0, columns % 2)), constant_values=fill)
    return padded.reshape(-(-rows // 2), 2, -(-columns // 2), 2)
