"""Sums per probability bin: what calibration is fitted on and judged by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icemap_xr.errors import InputError
from icemap_xr.kernels.probabilities import check_probabilities


def bin_sums(probability: ArrayLike, reference: ArrayLike, bins: int) -> NDArray[np.float64]:
    """Sum a tile over equal bins of probability.

    Parameters
    ----------
    probability
        Model probability 0..1 of any shape; a NaN pixel is left out.
    reference
        True ice cover 0..1 (a class or a fraction) of the same shape; a NaN pixel is left out.
    bins
        Number of bins ``[l, r)`` over 0..1; the last one includes 1.

    Returns
    -------
    ndarray
        `(3, bins)` float64: pixels, sum of probability, sum of reference.

    Raises
    ------
    InputError
        The shapes differ, or a value lies outside 0..1.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(reference, np.float64)
    if p.shape != y.shape:
        raise InputError(f"probability has shape {p.shape}, its reference {y.shape}: give both on the same grid")
    check_probabilities(p, "probability")
    check_probabilities(y, "reference")
    both = np.isfinite(p) & np.isfinite(y)
    p, y = p[both], y[both]
    bin_of = np.clip((p * bins).astype(np.intp), 0, bins - 1)
    return np.stack([np.bincount(bin_of, weights, minlength=bins) for weights in (np.ones_like(p), p, y)])
