"""Building blocks of the ICEmapper networks, as Keras layers.

Source: Maslov et al., ICEmapper; the functions and the layout of the weights are those of the published networks.
All layers work on channels-last tensors of any spatial size and in mixed precision.
"""

from __future__ import annotations

from typing import Any

from icemap_xr.models._backend import keras

#: negative slope of the activations in the published networks
LEAKY_SLOPE = 0.3

_register = keras.saving.register_keras_serializable(package="icemap_xr")


@_register
class ResidualBlock(keras.layers.Layer):  # type: ignore[misc]
    """Two convolutions beside a linear projection of the channels; the output is their sum.

    Maps ``(batch, [step,] y, x, channel)`` to ``(batch, [step,] y, x, filters)``. No activation follows the sum.

    Parameters
    ----------
    filters
        Output channels.
    rank
        3 for ``(step, y, x)``, 2 for ``(y, x)``.
    dropout
        Share of whole channels of the convolved branch dropped in training; never in inference, unless the call gets
        factors ``(batch, filters)`` for them: 0 drops a channel.
    """

    def __init__(self, filters: int, rank: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.rank, self.rate = filters, rank, dropout
        policy = self.dtype_policy
        conv = keras.layers.Conv3D if rank == 3 else keras.layers.Conv2D
        drop = keras.layers.SpatialDropout3D if rank == 3 else keras.layers.SpatialDropout2D
        self.conv_1 = conv(filters, 3, padding="same", dtype=policy, name="conv_1")
        self.norm_1 = keras.layers.BatchNormalization(dtype=policy, name="norm_1")
        self.conv_2 = conv(filters, 3, padding="same", dtype=policy, name="conv_2")
        self.norm_2 = keras.layers.BatchNormalization(dtype=policy, name="norm_2")
        self.drop = drop(dropout, dtype=policy, name="drop") if dropout else None
        self.projection = keras.layers.Dense(filters, use_bias=False, dtype=policy, name="projection")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for an input of that shape."""
        inner = (*input_shape[:-1], self.filters)
        self.conv_1.build(input_shape)
        self.norm_1.build(inner)
        self.conv_2.build(inner)
        self.norm_2.build(inner)
        self.projection.build(input_shape)

    def call(self, inputs: Any, factors: Any = None, training: bool | None = None) -> Any:
        """Apply the block."""
        x = keras.ops.leaky_relu(self.norm_1(self.conv_1(inputs), training=training), LEAKY_SLOPE)
        x = keras.ops.leaky_relu(self.norm_2(self.conv_2(x), training=training), LEAKY_SLOPE)
        if self.drop is not None:
            x = self.drop(x, training=training)
        if factors is not None:
            shape = (-1, *(1,) * (len(inputs.shape) - 2), self.filters)
            x = x * keras.ops.reshape(keras.ops.cast(factors, x.dtype), shape)
        return self.projection(inputs) + x

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: the input's, with `filters` channels."""
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments to build the layer again."""
        return {**super().get_config(), "filters": self.filters, "rank": self.rank, "dropout": self.rate}


@_register
class TemporalWeightedPooling(keras.layers.Layer):  # type: ignore[misc]
    """Pool over space by the maximum and over time by a learnt weighted mean.

    ``(batch, step, y, x, channel)``: every step and channel gets one weight in 0..1 from the means over the whole
    window, by two convolutions along time; the weighted steps are averaged. The output therefore depends on all
    pixels of the window.

    Parameters
    ----------
    steps
        Steps pooled into one. A last, incomplete group is averaged over the steps it has.
    size
        Pixels pooled into one, in both directions.
    """

    def __init__(self, steps: int, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps, self.size = steps, size
        policy = self.dtype_policy
        self.spatial = keras.layers.MaxPooling3D((1, size, size), padding="same", dtype=policy, name="spatial")
        self.temporal = keras.layers.AveragePooling3D((steps, 1, 1), padding="same", dtype=policy, name="temporal")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for an input of that shape."""
        channels = input_shape[-1]
        if channels is None or channels < 2:
            raise ValueError(f"time-weighted pooling needs 2 channels or more, got {channels}")
        policy = self.dtype_policy
        conv = keras.layers.Conv3D
        self.squeeze = conv(channels // 2, (3, 1, 1), padding="same", activation="swish", dtype=policy, name="squeeze")
        self.excite = conv(channels, (3, 1, 1), padding="same", activation="sigmoid", dtype=policy, name="excite")
        self.squeeze.build((input_shape[0], input_shape[1], 1, 1, channels))
        self.excite.build((input_shape[0], input_shape[1], 1, 1, channels // 2))

    def call(self, inputs: Any) -> Any:
        """Apply the pooling."""
        pooled = self.spatial(inputs) if self.size > 1 else inputs
        # a mean over a whole window loses its digits in half precision
        means = keras.ops.mean(keras.ops.cast(pooled, "float32"), axis=(2, 3), keepdims=True)
        weights = self.excite(self.squeeze(keras.ops.cast(means, self.compute_dtype)))
        return self.temporal(pooled * weights)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: steps and pixels divided, rounded up."""
        batch, step, y, x, channel = input_shape
        return (batch, _up(step, self.steps), _up(y, self.size), _up(x, self.size), channel)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments to build the layer again."""
        return {**super().get_config(), "steps": self.steps, "size": self.size}


@_register
class UpConv(keras.layers.Layer):  # type: ignore[misc]
    """Double the pixels by repetition, then a 2 x 2 convolution and a normalisation, without activation.

    Maps ``(batch, y, x, channel)`` to ``(batch, 2 y, 2 x, filters)``.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters = filters
        policy = self.dtype_policy
        self.repeat = keras.layers.UpSampling2D(2, interpolation="nearest", dtype=policy, name="repeat")
        self.conv = keras.layers.Conv2D(filters, 2, padding="same", use_bias=False, dtype=policy, name="conv")
        self.norm = keras.layers.BatchNormalization(dtype=policy, name="norm")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights for an input of that shape."""
        self.conv.build(input_shape)
        self.norm.build((*input_shape[:-1], self.filters))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Apply the layer."""
        return self.norm(self.conv(self.repeat(inputs)), training=training)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the output shape: twice the pixels, with `filters` channels."""
        batch, y, x, _ = input_shape
        return (batch, None if y is None else 2 * y, None if x is None else 2 * x, self.filters)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments to build the layer again."""
        return {**super().get_config(), "filters": self.filters}


def _up(length: int | None, divisor: int) -> int | None:
    return None if length is None else -(-length // divisor)
