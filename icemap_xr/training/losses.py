"""Losses of a map against labels, and what is done to labels before they meet a loss.

Labels are the share of each class in a pixel, `(..., class)`, one-hot or soft. A pixel whose shares are all 0 is
unknown: every loss here is linear in the labels, so it counts nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

#: probabilities are kept this far from 0 and 1, as in the published program
EPSILON = 1e-7


def focal_loss(labels: Any, probability: Any, gamma: float = 2.0) -> Any:
    """Return the focal loss, ``mean over pixels of sum over classes of -(1 - p)^gamma y ln p``.

    Parameters
    ----------
    labels
        Share of each class `(..., class)`, a float32 tensor or array.
    probability
        Class probabilities of the same shape.
    gamma
        How much pixels that are right already count less; 0 is cross-entropy.

    Returns
    -------
    tensor
        Scalar, float32. Unknown pixels add nothing and do count in the mean.

    References
    ----------
    Lin et al. (2017), Focal loss for dense object detection, ICCV.
    """
    from icemap_xr.models._backend import keras

    p = keras.ops.clip(probability, EPSILON, 1 - EPSILON)
    pixel = keras.ops.sum(-((1 - p) ** gamma) * labels * keras.ops.log(p), axis=-1)
    return keras.ops.mean(pixel)


def smooth_labels(labels: NDArray[np.float32], amount: float) -> NDArray[np.float32]:
    """Move a share of every label to all classes alike: ``y (1 - amount) + amount / classes``.

    Parameters
    ----------
    labels
        Share of each class `(..., class)` float32; unknown pixels (all 0) stay unknown.
    amount
        0 (nothing) to below 1; published 0.1.
    """
    known = labels.sum(axis=-1, keepdims=True)
    return np.asarray(labels * np.float32(1 - amount) + np.float32(amount / labels.shape[-1]) * known, np.float32)


def distance_penalty(labels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how much more each pixel counts near a class boundary: ``1 + 1 / (1 + d)``.

    Multiplied to the labels it makes the focal loss the distance-penalty focal loss.

    Parameters
    ----------
    labels
        Share of each class `(y, x, class)`; pixels whose shares are all 0 are of no class.

    Returns
    -------
    ndarray
        `(y, x)` float32; `d` is the distance in pixels to the nearest known pixel of another class, 1 just beside the
        boundary, and infinite where the window holds one class only, and where a pixel is unknown.
    """
    known = labels.sum(axis=-1) > 0
    nearest = np.where(known, labels.argmax(axis=-1), -1)
    distance = np.full(nearest.shape, np.inf)
    present = np.unique(nearest[known])
    if len(present) > 1:
        for number in present:
            inside = nearest == number
            other = known & ~inside
            distance[inside] = distance_transform_edt(~other)[inside]
    return np.asarray(1 + 1 / (1 + distance), np.float32)
