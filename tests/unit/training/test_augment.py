"""Pixels and labels move together, and nothing moves between steps or features."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.errors import InputError
from icemap_xr.training import augment as aug
from icemap_xr.training.augment import AugmentOptions, augment

SEEDS = st.integers(0, 2**32 - 1)
SPATIAL = AugmentOptions(crop=1.0, gamma=0, shift=0)


def window_of(labels: np.ndarray, steps: int = 3, features: int = 2) -> np.ndarray:
    """A window that holds its own glacier share, scaled by a number that tells step and feature."""
    factors = 1 + np.arange(steps)[:, None, None, None] + 10 * np.arange(features)
    return (labels[None, ..., 1:] * factors).astype(np.float32)


def random_labels(seed: int, side: int = 16) -> np.ndarray:
    glacier = np.random.default_rng(seed).random((side, side)) < 0.5
    return np.stack([~glacier, glacier], axis=-1).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_pixels_and_labels_move_together_and_steps_stay_apart(seed: int) -> None:
    labels = random_labels(seed)
    window, moved = augment(window_of(labels), labels, SPATIAL, np.random.default_rng(seed))
    np.testing.assert_allclose(window, window_of(moved), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moved.sum(-1), 1, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_flips_and_rotations_keep_every_value(seed: int) -> None:
    labels = random_labels(seed)
    options = AugmentOptions(flip=1, rotate=1, crop=0, gamma=0, shift=0)
    window, moved = augment(window_of(labels), labels, options, np.random.default_rng(seed))
    assert moved.sum() == labels.sum()
    assert np.sort(window, axis=None).tolist() == np.sort(window_of(labels), axis=None).tolist()


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_a_window_depends_on_the_generator_alone(seed: int) -> None:
    labels = random_labels(seed)
    options = AugmentOptions(swap=0.5, occlude=0.5, reverse=0.5)
    first, second = (augment(window_of(labels), labels, options, np.random.default_rng(seed)) for _ in range(2))
    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


def test_off_changes_nothing() -> None:
    labels = random_labels(0)
    window, moved = augment(window_of(labels), labels, AugmentOptions.off(), np.random.default_rng(0))
    np.testing.assert_array_equal(window, window_of(labels))
    np.testing.assert_array_equal(moved, labels)


def test_crop_and_scale_of_a_ramp_is_the_ramp_of_the_part() -> None:
    side = 20
    labels = np.zeros((side, side, 2), np.float32)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    window = np.stack([rows, columns], axis=-1)[None]
    out, _ = aug.crop_and_scale(window, labels, top=2.0, left=1.0, share=0.8)
    # output pixel k covers the input from 2 + 0.8 k to 2 + 0.8 (k + 1); its centre index is 1.9 + 0.8 k
    np.testing.assert_allclose(out[0, :, 0, 0], 1.9 + 0.8 * np.arange(side), rtol=1e-5)
    np.testing.assert_allclose(out[0, 0, :, 1], 0.9 + 0.8 * np.arange(side), rtol=1e-5)


def test_crop_of_everything_is_the_window() -> None:
    labels = random_labels(1)
    window, moved = aug.crop_and_scale(window_of(labels), labels, 0.0, 0.0, 1.0)
    np.testing.assert_array_equal(window, window_of(labels))
    np.testing.assert_array_equal(moved, labels)


def test_gamma_and_shift_act_per_feature_and_keep_unobserved_pixels() -> None:
    window = np.array([0.0, 0.25, -0.5], np.float32).reshape(1, 1, 3, 1) * np.ones((1, 1, 3, 2), np.float32)
    powers = aug.gamma(window, np.array([0.5, 1.0], np.float32))
    np.testing.assert_allclose(powers[0, 0, :, 0], [0, 0.5, 0])
    np.testing.assert_allclose(powers[0, 0, :, 1], [0, 0.25, -0.5])
    shifted = aug.shift(window, np.array([0.1, 0.0], np.float32))
    np.testing.assert_allclose(shifted[0, 0, :, 0], [0, 0.35, -0.4])
    np.testing.assert_array_equal(shifted[..., 1], window[..., 1])


def test_swap_reverse_and_occlude() -> None:
    window = np.ones((3, 4, 4, 1), np.float32) * np.arange(1, 4, dtype=np.float32)[:, None, None, None]
    assert aug.swap_steps(window, 1)[:, 0, 0, 0].tolist() == [1, 3, 2]
    assert aug.reverse(window)[:, 0, 0, 0].tolist() == [3, 2, 1]
    hidden = aug.occlude(window, 1, slice(0, 2), slice(1, 3))
    assert (hidden == 0).sum() == 4
    assert (hidden[1, :2, 1:3] == 0).all()
    assert (window != 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, length=st.integers(1, 9))
def test_jitter_moves_by_one_at_most_inside_the_series(seed: int, length: int) -> None:
    index = np.random.default_rng(seed).integers(-1, length, 12).astype(np.intp)
    moved = aug.jitter_index(index, length, 0.5, np.random.default_rng(seed))
    assert (np.abs(moved - index) <= 1).all()
    assert ((moved >= 0) == (index >= 0)).all()
    assert moved.max() < length


def test_jitter_has_the_published_frequencies() -> None:
    index = np.full(40_000, 5, np.intp)
    moved = aug.jitter_index(index, 11, 0.125, np.random.default_rng(1))
    shares = [(moved == value).mean() for value in (4, 5, 6)]
    np.testing.assert_allclose(shares, [0.125, 0.75, 0.125], atol=0.006)


@pytest.mark.parametrize("values", [{"flip": 1.5}, {"jitter": 0.6}, {"smallest_crop": 0}, {"gamma": True}])
def test_bad_options_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(values))):
        AugmentOptions(**values)
