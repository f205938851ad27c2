"""The building blocks compute what the published network computes."""

from __future__ import annotations

import numpy as np
import pytest

from icemap_xr.models import layers
from icemap_xr.models._backend import keras


def block(dropout: float = 0.0, rank: int = 3) -> layers.ResidualBlock:
    keras.utils.set_random_seed(0)
    return layers.ResidualBlock(4, rank, dropout)


def test_dropout_drops_whole_channels_in_training_and_nothing_in_inference() -> None:
    x = np.random.default_rng(0).random((2, 3, 8, 8, 2), dtype=np.float32)
    dropping = block(0.5)
    first, second = (np.asarray(dropping(x, training=True)) for _ in range(2))
    assert not np.allclose(first, second), "two training passes with dropout were the same"
    assert np.array_equal(dropping(x, training=False), dropping(x, training=False))
    branch = first - np.asarray(dropping.projection(x))
    dropped = (branch == 0).all(axis=(1, 2, 3))
    partly = (branch == 0).mean(axis=(1, 2, 3))
    assert dropped.any()
    assert not dropped.all()
    assert set(np.unique(partly)) <= {0.0, 1.0}, "dropout left a part of a channel"


def test_without_dropout_training_differs_from_inference_only_by_batch_statistics() -> None:
    x = np.random.default_rng(0).random((2, 8, 8, 2), dtype=np.float32)
    plain = block(rank=2)
    assert np.array_equal(plain(x, training=True), plain(x, training=True))


def test_weighted_pooling_averages_an_incomplete_last_group_over_what_it_has() -> None:
    pool = layers.TemporalWeightedPooling(2, 1)
    x = np.ones((1, 3, 4, 4, 2), np.float32)
    pool.build(x.shape)
    for variable in pool.weights:
        variable.assign(np.zeros(variable.shape, np.float32))
    out = np.asarray(pool(x))
    assert out.shape == (1, 2, 4, 4, 2)
    assert np.allclose(out, 0.5), "every weight is sigmoid(0) = 0.5, so is every mean"


def test_weighted_pooling_depends_on_the_whole_window() -> None:
    keras.utils.set_random_seed(0)
    pool = layers.TemporalWeightedPooling(3, 2)
    x = np.random.default_rng(0).random((1, 3, 8, 8, 4), dtype=np.float32)
    other = x.copy()
    other[:, :, -1, -1] += 5
    changed = np.abs(np.asarray(pool(x)) - np.asarray(pool(other)))
    assert changed[0, 0, 0, 0].max() > 1e-4


def test_weighted_pooling_needs_two_channels() -> None:
    with pytest.raises(ValueError, match="2 channels"):
        layers.TemporalWeightedPooling(2, 2).build((None, 4, 8, 8, 1))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (layers.ResidualBlock(4, 3, 0.1), (1, 3, 8, 8, 2)),
        (layers.ResidualBlock(4, 2), (1, 8, 8, 2)),
        (layers.TemporalWeightedPooling(2, 2), (1, 3, 8, 8, 4)),
        (layers.UpConv(4), (1, 4, 4, 2)),
    ],
)
def test_layers_say_their_output_shape_and_rebuild_from_their_config(layer: object, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    assert tuple(layer(x).shape) == layer.compute_output_shape(shape)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    again.set_weights(layer.get_weights())
    assert np.array_equal(again(x), layer(x))
