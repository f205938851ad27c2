"""From map coordinates and height to image coordinates, fitted to ground control points.

A cubic in the map coordinates with height terms (a point that is higher lies nearer to the radar) takes the smooth
part; a thin plate through what is left makes the points themselves exact. Without the height terms a fit cannot be
good on land: two control points at one place and different heights lie hundreds of metres apart in the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

Floats = NDArray[np.float64]

#: degree in the map coordinates of what goes without height, and of what goes with it
_DEGREES = (3, 2)
#: kilometres
_HEIGHT_SCALE = 1000.0
LEAST_POINTS = 30
_FOLDS = 5


@dataclass(frozen=True)
class GcpFit:
    """A fit; call `at`.

    Parameters
    ----------
    scale
        Metres of map that are 1 in the polynomials.
    coefficients
        `(terms, 2)` for line and pixel.
    rest
        Thin plate of what the polynomials leave.
    heights
        Thin plate of the heights of the control points.
    """

    scale: float
    coefficients: Floats
    rest: RBFInterpolator
    heights: RBFInterpolator

    def at(self, x: Floats, y: Floats, height: Floats) -> Floats:
        """Return `(..., 2)` line and pixel at map coordinates in metres and heights in metres."""
        plane = np.stack([np.ravel(x), np.ravel(y)], 1) / self.scale
        out = _terms(plane, np.ravel(height)) @ self.coefficients + self.rest(plane)
        return np.reshape(out, (*np.shape(x), 2))

    def height(self, x: Floats, y: Floats) -> Floats:
        """Return heights between those of the control points, metres."""
        plane = np.stack([np.ravel(x), np.ravel(y)], 1) / self.scale
        return np.reshape(self.heights(plane), np.shape(x))


def fit(x: Floats, y: Floats, height: Floats, image: Floats) -> GcpFit:
    """Fit control points.

    Parameters
    ----------
    x, y
        Map coordinates around 0, metres.
    height
        Heights, metres.
    image
        `(n, 2)` line and pixel.
    """
    scale = float(max(np.abs(x).max(), np.abs(y).max()))
    plane = np.stack([x, y], 1) / scale
    terms = _terms(plane, height)
    coefficients = np.asarray(np.linalg.lstsq(terms, image, rcond=None)[0], np.float64)
    rest = RBFInterpolator(plane, image - terms @ coefficients, kernel="thin_plate_spline", degree=1)
    return GcpFit(scale, coefficients, rest, RBFInterpolator(plane, height, kernel="thin_plate_spline", degree=1))


def held_back(
    x: Floats, y: Floats, height: Floats, image: Floats, assumed: float | None = None
) -> tuple[Floats, Floats]:
    """Return line and pixel errors `(n, 2)` at points that were not fitted.

    Each point is held back once, in one of five rounds.

    Returns
    -------
    own
        With the point's own height: what the fit is worth.
    surface
        With the `assumed` height, or that between its neighbours: what is left of it where the ground's height is not
        known.
    """
    own, surface = np.empty_like(image), np.empty_like(image)
    for out, kept in _rounds(len(x)):
        found = fit(x[kept], y[kept], height[kept], image[kept])
        own[out] = found.at(x[out], y[out], height[out]) - image[out]
        there = found.height(x[out], y[out]) if assumed is None else np.full(int(out.sum()), assumed)
        surface[out] = found.at(x[out], y[out], there) - image[out]
    return own, surface


def heights_between(x: Floats, y: Floats, height: Floats) -> Floats:
    """Return the height that the other points tell at each point, held back as in `held_back`."""
    plane = np.stack([x, y], 1) / float(max(np.abs(x).max(), np.abs(y).max()))
    found = np.empty_like(height)
    for out, kept in _rounds(len(x)):
        found[out] = RBFInterpolator(plane[kept], height[kept], kernel="thin_plate_spline", degree=1)(plane[out])
    return found


def _rounds(count: int) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    fold = np.random.default_rng(0).permutation(count) % _FOLDS
    for k in range(_FOLDS):
        yield fold == k, fold != k


def rms(errors: Floats) -> float:
    """Return the root of the mean square distance of `(n, 2)` errors."""
    return float(np.sqrt((errors**2).sum(-1).mean()))


def _terms(plane: Floats, height: Floats) -> Floats:
    u, v, up = plane[:, 0], plane[:, 1], height / _HEIGHT_SCALE
    columns = [
        u**i * v**j * up**power
        for power, degree in enumerate(_DEGREES)
        for i in range(degree + 1)
        for j in range(degree + 1 - i)
    ]
    return np.stack(columns, 1)
