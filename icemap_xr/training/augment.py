"""Augmentation of training windows: small pure functions of arrays and a random generator.

A window is `(step, y, x, feature)` float32, scaled, 0 where nothing was observed; its labels are `(y, x, class)`.
Space is axes 1 and 2 of a window and 0 and 1 of labels; nothing here moves values between steps and pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from icemap_xr.errors import InputError

Float32Array: TypeAlias = NDArray[np.float32]
Pair: TypeAlias = tuple[Float32Array, Float32Array]


@dataclass(frozen=True)
class AugmentOptions:
    """Probabilities and sizes of all transforms; the defaults are the published ones.

    Parameters
    ----------
    jitter
        Probability that a step takes the scene after the usual one, and again the scene before it.
    flip
        Probability of each of the two flips.
    rotate
        Probability of a rotation by 90, 180 or 270 degrees.
    crop
        Probability of crop-and-scale.
    smallest_crop
        Smallest side of a crop as a share of the window.
    gamma, gamma_range
        Probability per feature of ``x ** g``, and how far g is from 1 at most.
    shift, shift_sigma
        Probability per feature of adding one number to all values, and its standard deviation, scaled.
    reverse
        Probability of reversing time (published, off).
    swap
        Probability of exchanging two neighbouring steps (published, off).
    occlude, largest_occlusion
        Probability of setting a rectangle of one step to 0, and its largest side as a share of the window (published,
        off).

    Raises
    ------
    InputError
        A value is not allowed.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    jitter: float = 0.125
    flip: float = 0.5
    rotate: float = 0.75
    crop: float = 0.25
    smallest_crop: float = 0.8
    gamma: float = 0.25
    gamma_range: float = 0.2
    shift: float = 0.25
    shift_sigma: float = 0.025
    reverse: float = 0.0
    swap: float = 0.0
    occlude: float = 0.0
    largest_occlusion: float = 0.25

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(f"augment {one.name} is {value!r}: give a number from 0 to 1")
        if self.jitter > 0.5:
            raise InputError(f"augment jitter is {self.jitter}: it is the probability of each side, at most 0.5")
        if self.smallest_crop == 0 or self.gamma_range == 1:
            raise InputError("augment smallest_crop must be above 0 and gamma_range below 1")

    @classmethod
    def off(cls) -> AugmentOptions:
        """Return options that leave windows as they are."""
        return cls(jitter=0, flip=0, rotate=0, crop=0, gamma=0, shift=0)


def jitter_index(
    index: NDArray[np.intp], length: int, probability: float, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Move each step to the scene before or after it, with `probability` each, clipped to the series.

    Parameters
    ----------
    index
        Positions of the steps in the series, `(step,)`; -1 (no scene) stays.
    length
        Scenes in the series.
    probability
        Probability of -1, and of +1.
    rng
        Random generator.
    """
    draw = rng.random(len(index))
    moved = np.clip(index + (draw >= 1 - probability) - (draw < probability), 0, length - 1)
    return np.asarray(np.where(index < 0, index, moved), np.intp)


def flip(window: Float32Array, labels: Float32Array, *, vertical: bool, horizontal: bool) -> Pair:
    """Mirror a window and its labels."""
    rows, columns = slice(None, None, -1 if vertical else 1), slice(None, None, -1 if horizontal else 1)
    return window[:, rows, columns], labels[rows, columns]


def rotate(window: Float32Array, labels: Float32Array, quarters: int) -> Pair:
    """Rotate a window and its labels by quarter turns."""
    return np.rot90(window, quarters, axes=(1, 2)), np.rot90(labels, quarters, axes=(0, 1))


def crop_and_scale(window: Float32Array, labels: Float32Array, top: float, left: float, share: float) -> Pair:
    """Cut out a part of a window and scale it to the window's size, bilinearly; labels too.

    Each step and feature is scaled on its own: values never move between steps.

    Parameters
    ----------
    window, labels
        Window and labels.
    top, left
        Corner of the part in pixels from the window's corner; fractions are allowed.
    share
        Side of the part as a share of the window's.
    """
    side = window.shape[1]
    rows, columns = (_resample_points(start, share * side, side) for start in (top, left))
    return _bilinear(window, 1, rows, columns), _bilinear(labels, 0, rows, columns)


def _resample_points(start: float, extent: float, side: int) -> NDArray[np.float64]:
    """Return where the centres of `side` equal parts of an extent lie, in pixel indices."""
    points = start + (np.arange(side) + 0.5) * extent / side - 0.5
    return np.clip(points, 0, side - 1)


def _bilinear(values: Float32Array, axis: int, rows: NDArray[np.float64], columns: NDArray[np.float64]) -> Float32Array:
    for number, points in ((axis, rows), (axis + 1, columns)):
        low = np.minimum(points.astype(np.intp), values.shape[number] - 1)
        high = np.minimum(low + 1, values.shape[number] - 1)
        shape = [1] * values.ndim
        shape[number] = -1
        weight = (points - low).astype(np.float32).reshape(shape)
        values = np.take(values, low, number) * (1 - weight) + np.take(values, high, number) * weight
    return values


def gamma(window: Float32Array, exponents: Float32Array) -> Float32Array:
    """Raise each feature to a power `(feature,)`; what has none (a negative scaled value) becomes 0."""
    with np.errstate(invalid="ignore"):
        powers: Float32Array = window**exponents
    return np.where(np.isfinite(powers), powers, np.float32(0))


def shift(window: Float32Array, amounts: Float32Array) -> Float32Array:
    """Add a number `(feature,)` to all observed values; 0 means unobserved and stays."""
    return np.where(window == 0, np.float32(0), window + amounts)


def reverse(window: Float32Array) -> Float32Array:
    """Reverse time."""
    return window[::-1]


def swap_steps(window: Float32Array, step: int) -> Float32Array:
    """Exchange a step and the next."""
    order = np.arange(window.shape[0])
    order[[step, step + 1]] = order[[step + 1, step]]
    return window[order]


def occlude(window: Float32Array, step: int, rows: slice, columns: slice) -> Float32Array:
    """Set a rectangle of one step to 0, as if nothing had been observed there."""
    out = window.copy()
    out[step, rows, columns] = 0
    return out


def augment(window: Float32Array, labels: Float32Array, options: AugmentOptions, rng: np.random.Generator) -> Pair:
    """Apply all transforms of a window in the published order, each with its probability.

    The time jitter is not among them: it chooses which scenes are read, see `jitter_index`.

    Parameters
    ----------
    window
        `(step, y, x, feature)` float32, square.
    labels
        `(y, x, class)` float32.
    options
        Probabilities and sizes.
    rng
        Random generator; the same state gives the same result.
    """
    window, labels = flip(window, labels, vertical=rng.random() < options.flip, horizontal=rng.random() < options.flip)
    if rng.random() < options.rotate:
        window, labels = rotate(window, labels, int(rng.integers(1, 4)))
    if rng.random() < options.crop:
        share = rng.uniform(options.smallest_crop, 1)
        top, left = rng.uniform(0, (1 - share) * window.shape[1], 2)
        window, labels = crop_and_scale(window, labels, top, left, share)
    window = _change_values(window, options, rng)
    window = _change_time(window, options, rng)
    return np.ascontiguousarray(window, np.float32), np.ascontiguousarray(labels, np.float32)


def _change_values(window: Float32Array, options: AugmentOptions, rng: np.random.Generator) -> Float32Array:
    count = window.shape[-1]
    powers = rng.uniform(1 - options.gamma_range, 1 + options.gamma_range, count)
    exponents = np.where(rng.random(count) < options.gamma, powers, 1.0)
    if np.any(exponents != 1):
        window = gamma(window, exponents.astype(np.float32))
    amounts = np.where(rng.random(count) < options.shift, rng.normal(0, options.shift_sigma, count), 0.0)
    return shift(window, amounts.astype(np.float32)) if np.any(amounts != 0) else window


def _change_time(window: Float32Array, options: AugmentOptions, rng: np.random.Generator) -> Float32Array:
    steps, side = window.shape[:2]
    if rng.random() < options.swap and steps > 1:
        window = swap_steps(window, int(rng.integers(steps - 1)))
    if rng.random() < options.occlude:
        sizes = np.maximum(1, rng.uniform(0, options.largest_occlusion * side, 2).astype(int))
        row, column = (int(rng.integers(side - size + 1)) for size in sizes)
        window = occlude(window, int(rng.integers(steps)), slice(row, row + sizes[0]), slice(column, column + sizes[1]))
    return reverse(window) if rng.random() < options.reverse else window
