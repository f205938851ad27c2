from __future__ import annotations

import numpy as np
import pytest

from icemap_xr.training.losses import distance_penalty, focal_loss, smooth_labels


def test_focal_loss_equals_the_hand_computed_value() -> None:
    probability = np.array([[0.8, 0.2], [0.4, 0.6]], np.float32)
    labels = np.array([[1, 0], [1, 0]], np.float32)
    # (0.2^2 * -ln 0.8 + 0.6^2 * -ln 0.4) / 2 = (0.04 * 0.22314 + 0.36 * 0.91629) / 2
    assert float(focal_loss(labels, probability)) == pytest.approx((0.0089257 + 0.3298646) / 2, rel=1e-5)


def test_focal_loss_with_gamma_zero_is_cross_entropy_and_clips() -> None:
    labels = np.array([[0.0, 1.0]], np.float32)
    assert float(focal_loss(labels, np.array([[0.5, 0.5]], np.float32), gamma=0)) == pytest.approx(np.log(2), rel=1e-6)
    assert float(focal_loss(labels, np.array([[1.0, 0.0]], np.float32))) == pytest.approx(-np.log(1e-7), rel=1e-5)


def test_a_pixel_without_label_adds_nothing_and_counts_in_the_mean() -> None:
    probability = np.full((2, 2), 0.5, np.float32)
    one = float(focal_loss(np.array([[0, 1]], np.float32), probability[:1]))
    half = float(focal_loss(np.array([[0, 1], [0, 0]], np.float32), probability))
    assert half == pytest.approx(one / 2)


def test_smoothing_moves_a_share_to_all_classes_and_leaves_unknown_pixels() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 0]], np.float32)
    expected = [[0.95, 0.05], [0.05, 0.95], [0, 0]]
    np.testing.assert_allclose(smooth_labels(labels, 0.1), expected, rtol=1e-6)


def test_distance_penalty_falls_with_distance_from_the_boundary() -> None:
    labels = np.zeros((1, 6, 2), np.float32)
    labels[:, :3, 0] = 1
    labels[:, 3:, 1] = 1
    np.testing.assert_allclose(distance_penalty(labels)[0], [1.25, 1 + 1 / 3, 1.5, 1.5, 1 + 1 / 3, 1.25], rtol=1e-6)


def test_unknown_pixels_are_no_class_to_the_distance_penalty() -> None:
    labels = np.zeros((1, 7, 2), np.float32)
    labels[:, :2, 1] = 1
    labels[:, 5:, 0] = 1
    # two pixels of class 1, three unknown ones, two of class 0: 4 px between the nearest of both
    np.testing.assert_allclose(
        distance_penalty(labels)[0], [1 + 1 / 6, 1 + 1 / 5, 1, 1, 1, 1 + 1 / 5, 1 + 1 / 6], rtol=1e-6
    )
    # glacier beside unknown ground alone lies at no boundary
    labels[:, 5:] = 0
    np.testing.assert_array_equal(distance_penalty(labels), np.ones((1, 7)))


def test_distance_penalty_of_one_class_is_one() -> None:
    labels = np.zeros((3, 3, 2), np.float32)
    labels[..., 1] = 1
    np.testing.assert_array_equal(distance_penalty(labels), np.ones((3, 3)))
