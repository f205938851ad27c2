"""Confidence of a two-class probability, from its Shannon entropy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: probabilities are cut to [CLIP, 1 - CLIP], as in the published program, so that the entropy stays finite
CLIP = 1e-6


def shannon_confidence(probability: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return one minus the binary Shannon entropy, in bits.

    0 at probability 0.5 (no idea) and nearly 1 at probability 0 or 1 (sure, in either direction).

    Parameters
    ----------
    probability
        Probability of one class, 0..1, of any shape; integers are taken as float64.

    Returns
    -------
    ndarray
        Confidence 0..1 (dimensionless) of the same shape; float32 for float32 and smaller, else float64. NaN stays
        NaN.

    Notes
    -----
    ICEmapper (published calibration): ``1 - H2(p)`` with `p` cut to ``[1e-6, 1 - 1e-6]``.
    """
    p = np.asarray(probability)
    # below float32, 1 - 1e-6 would round to 1 and the entropy to NaN
    dtype = np.result_type(p.dtype, np.float32)
    p = np.clip(p.astype(dtype), dtype.type(CLIP), dtype.type(1 - CLIP))
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    return np.asarray(np.clip(1 - entropy, 0, 1), dtype)
