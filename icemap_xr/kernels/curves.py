"""Monotone calibration curves, fitted to a histogram of probability: isotonic, beta, temperature."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

#: knots of the parametric curves, evenly spaced in log-odds: linear interpolation between them is off by less than 1e-4
_LOGITS = np.linspace(-14.0, 14.0, 561)
#: probabilities are cut to this distance from 0 and 1 where their log-odds are taken
_CUT = 1e-6

Knots = tuple[NDArray[np.float64], NDArray[np.float64]]


class Histogram(NamedTuple):
    """Filled bins of probability.

    Parameters
    ----------
    pixels
        How many pixels the bin has.
    x
        Mean probability of its pixels.
    y
        Mean reference of its pixels, 0..1.
    """

    pixels: NDArray[np.float64]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def isotonic_knots(bins: Histogram) -> Knots:
    """Return the knots of the weighted isotonic regression of `y` on `x`."""
    # here, not above: importing scikit-learn takes longer than the rest of the package
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(bins.x, bins.y, sample_weight=bins.pixels)
    return np.clip(model.X_thresholds_, 0, 1), model.y_thresholds_


def beta_knots(bins: Histogram) -> Knots:
    """Return knots of the beta calibration ``logit q = a ln p - b ln(1 - p) + c`` with a, b >= 0.

    Notes
    -----
    Kull, Silva Filho and Flach (2017), AISTATS 54, 623-631; by maximum likelihood.
    """

    def features(p: NDArray[np.float64]) -> NDArray[np.float64]:
        cut = np.clip(p, _CUT, 1 - _CUT)
        return np.stack([np.log(cut), -np.log1p(-cut), np.ones_like(cut)])

    found = _most_likely(features(bins.x), bins, np.array([1.0, 1.0, 0.0]), [(0, None), (0, None), (None, None)])
    return _sampled(lambda p: expit(found @ features(p)))


def temperature_knots(bins: Histogram) -> Knots:
    """Return knots of the temperature scaling ``logit q = logit(p) / T`` with T > 0.

    Notes
    -----
    Guo, Pleiss, Sun and Weinberger (2017), ICML 70, 1321-1330; for two classes, by maximum likelihood.
    """

    def features(p: NDArray[np.float64]) -> NDArray[np.float64]:
        cut = np.clip(p, _CUT, 1 - _CUT)
        return (np.log(cut) - np.log1p(-cut))[None]

    found = _most_likely(features(bins.x), bins, np.array([1.0]), [(1e-3, None)])
    return _sampled(lambda p: expit(found @ features(p)))


def _most_likely(
    features: NDArray[np.float64], bins: Histogram, start: NDArray[np.float64], bounds: list[tuple[Any, Any]]
) -> NDArray[np.float64]:
    """Return the coefficients of logistic regression on `features (k, bin)`; the loss is convex."""
    weights = bins.pixels / bins.pixels.sum()

    def loss(coefficients: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = coefficients @ features
        cost = -(bins.y * log_expit(z) + (1 - bins.y) * log_expit(-z))
        return float(weights @ cost), features @ (weights * (expit(z) - bins.y))

    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    return np.asarray(found.x, np.float64)


def _sampled(curve: Any) -> Knots:
    x = np.concatenate([[0.0], expit(_LOGITS), [1.0]])
    y = np.maximum.accumulate(np.clip(curve(x), 0, 1))
    return x, y


METHODS = {"isotonic": isotonic_knots, "beta": beta_knots, "temperature": temperature_knots}
