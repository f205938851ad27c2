"""Semivariance of a gridded field over distance, and the distance over which it is correlated."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.optimize import curve_fit


class Exponential(NamedTuple):
    """``nugget + sill (1 - exp(-distance / length))``; length in the unit of the distances, 0 for no correlation."""

    nugget: float
    sill: float
    length: float


def semivariance(field: NDArray[np.float64], most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return half the mean squared difference of pixels by their distance, over all pairs.

    Parameters
    ----------
    field
        `(y, x)`, NaN where unknown.
    most
        Largest distance, in pixels.

    Returns
    -------
    semivariance, pairs
        `(most + 1,)` float64 for distances rounded to 0, 1, ... pixels; NaN where there is no pair.

    Notes
    -----
    Sums over pairs are correlations, taken by Fourier transform (Marcotte 1996, Computers & Geosciences 22, 1175-1186):
    ``sum m m' (z - z')^2 = corr(m z^2, m) + corr(m, m z^2) - 2 corr(m z, m z)``.
    """
    known = np.isfinite(field)
    # taking off the mean changes no difference and keeps the squares small
    z = np.where(known, field - (field[known].mean() if known.any() else 0.0), 0.0)
    shape = tuple(scipy.fft.next_fast_len(n + min(n, most + 1), real=True) for n in field.shape)
    m_hat, z_hat, zz_hat = (scipy.fft.rfft2(one, shape) for one in (known.astype(float), z, z**2))
    pairs = np.rint(scipy.fft.irfft2(m_hat * m_hat.conj(), shape))
    squares = scipy.fft.irfft2(2 * (zz_hat * m_hat.conj()).real - 2 * (z_hat * z_hat.conj()).real, shape)
    apart = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
    distance = np.rint(np.hypot(*np.meshgrid(*apart, indexing="ij"))).astype(np.intp)
    near = distance <= most
    # each pair is there twice, once in each direction
    count = np.bincount(distance[near], pairs[near], minlength=most + 1) / 2
    total = np.bincount(distance[near], np.maximum(squares[near], 0), minlength=most + 1) / 2
    gamma = np.full(most + 1, np.nan)
    np.divide(total, 2 * count, out=gamma, where=count > 0)
    return gamma, count


def fit_exponential(lag: NDArray[np.float64], gamma: NDArray[np.float64], pairs: NDArray[np.float64]) -> Exponential:
    """Fit an exponential variogram, each distance weighted by its pairs.

    Parameters
    ----------
    lag
        Distances > 0, increasing.
    gamma
        Semivariance at each.
    pairs
        Pairs at each.

    Returns
    -------
    Exponential
        With length 0 where the semivariance does not grow with distance.
    """
    level = float(np.average(gamma, weights=pairs))
    if not level > 0 or len(lag) < 3:
        return Exponential(level, 0.0, 0.0)

    def model(h: NDArray[np.float64], nugget: float, sill: float, length: float) -> Any:
        return nugget + sill * (1 - np.exp(-h / length))

    start = (0.0, level, float(lag[-1]) / 4)
    bounds = ([0.0, 0.0, float(lag[0]) / 10], [2 * gamma.max(), 20 * gamma.max(), 10 * float(lag[-1])])
    scale = 1 / np.sqrt(pairs)
    found, _ = curve_fit(model, lag, gamma, start, sigma=scale / scale.min(), bounds=bounds, max_nfev=5000)
    nugget, sill, length = (float(one) for one in found)
    # a rise within the first distance is one that cannot be told from noise
    seen = sill > 0.05 * (nugget + sill) and length > 0.15 * float(lag[0])
    return Exponential(nugget, sill, length if seen else 0.0)
