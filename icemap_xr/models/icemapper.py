"""The ICEmapper networks: a 3-D residual encoder over a year of scenes, a 2-D decoder, one map.

Source: Maslov et al., ICEmapper (time-weighted pooling is its second version, max pooling its first). This module
names and orders the weights without Keras; only `build` and `assign` import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import ModelError, WeightsError

if TYPE_CHECKING:
    import keras

Pooling: TypeAlias = Literal["tweightedpool", "maxpool"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
Tensors: TypeAlias = dict[str, NDArray[np.float32]]

FAMILY = "ICEmapper"
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

#: what the published networks were trained with; a weight file does not say
PUBLISHED_STEPS, PUBLISHED_WINDOW, PUBLISHED_FILTERS = 15, 384, 32
PUBLISHED_CLASSES, GLACIER_CLASS = ("not_glacier", "glacier"), "glacier"

#: halvings of the window in the encoder; a window is a multiple of 2 ** LEVELS
LEVELS = 3
#: top groups of a published weight file, in order
ENCODER, DECODER = "Conv3DResUNetEncoder", "ResUNetDecoder"


@dataclass(frozen=True)
class Architecture:
    """What decides the layers and the shapes of an ICEmapper network.

    Parameters
    ----------
    pooling
        ``"tweightedpool"`` (learnt weights of the steps) or ``"maxpool"``.
    steps
        Scenes per year.
    features
        Features per scene (the last axis of the input).
    classes
        Classes of the output.
    filters
        Channels of the first level; they double with each of the four levels.
    window
        Window side in pixels, a multiple of 8; None leaves it open.

    Raises
    ------
    ModelError
        A value is not allowed.
    """

    pooling: Pooling = "tweightedpool"
    steps: int = PUBLISHED_STEPS
    features: int = 2
    classes: int = len(PUBLISHED_CLASSES)
    filters: int = PUBLISHED_FILTERS
    window: int | None = PUBLISHED_WINDOW

    def __post_init__(self) -> None:
        if self.pooling not in POOLINGS:
            raise ModelError(f"pooling is {self.pooling!r}: allowed are {', '.join(POOLINGS)}")
        for name, least in (("steps", 1), ("features", 1), ("classes", 2), ("filters", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ModelError(f"{name} is {value!r}: give a whole number of {least} or more")
        multiple = 2**LEVELS
        if self.window is not None and (type(self.window) is not int or self.window < 1 or self.window % multiple):
            raise ModelError(f"window is {self.window!r} px: give a multiple of {multiple}")

    @property
    def level_filters(self) -> tuple[int, ...]:
        """Channels of the encoder's levels, from fine to coarse."""
        return tuple(self.filters * 2**level for level in range(LEVELS + 1))

    @property
    def dropped_filters(self) -> tuple[int, ...]:
        """Channels that dropout may drop, by residual block: the encoder's from fine to coarse, the decoder's back."""
        return (*self.level_filters, *reversed(self.level_filters[:LEVELS]))

    @property
    def parameters(self) -> int:
        """Number of weights, moving statistics included."""
        return sum(prod(shape) for weights in layout(self).values() for _, shape in weights)


Weights: TypeAlias = list[tuple[str, tuple[int, ...]]]


def layout(architecture: Architecture) -> dict[str, Weights]:
    """Return path and shape of every weight, in the order of a published weight file.

    Parameters
    ----------
    architecture
        The network.

    Returns
    -------
    dict
        For each of the file's two groups, in order, ``(path, shape)`` of its weights: everything trained first, then
        the moving statistics. Paths are those of the network that `build` makes.
    """
    return {ENCODER: _encoder_layout(architecture), DECODER: _decoder_layout(architecture)}


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its path."""
    return {path: shape for weights in layout(architecture).values() for path, shape in weights}


def _encoder_layout(architecture: Architecture) -> Weights:
    widths = architecture.level_filters
    weighted = architecture.pooling == "tweightedpool"
    trained: Weights = []
    before = architecture.features
    for level, width in enumerate(widths):
        trained += _block(f"encoder_{level}", 3, before, width)
        if weighted and level < LEVELS:
            trained += _pool(f"down_{level}", width)
        before = width
    if weighted:
        trained += [one for level, width in enumerate(widths) for one in _pool(f"skip_{level}", width)]
    statistics = [one for level, width in enumerate(widths) for one in _block_statistics(f"encoder_{level}", width)]
    return trained + statistics


def _decoder_layout(architecture: Architecture) -> Weights:
    widths = architecture.level_filters
    trained: Weights = []
    statistics: Weights = []
    for level in reversed(range(LEVELS)):
        width = widths[level]
        trained += [
            (f"up_{level}/conv/kernel", (2, 2, 2 * width, width)),
            (f"up_{level}/norm/gamma", (width,)),
            (f"up_{level}/norm/beta", (width,)),
            *_block(f"decoder_{level}", 2, 2 * width, width),
        ]
        statistics += [*_statistics(f"up_{level}/norm", width), *_block_statistics(f"decoder_{level}", width)]
    classes = architecture.classes
    return [*trained, ("head/kernel", (widths[0], classes)), ("head/bias", (classes,)), *statistics]


def _block(name: str, rank: int, before: int, width: int) -> Weights:
    inner = before
    weights: Weights = []
    for part in (1, 2):
        weights += [
            (f"{name}/conv_{part}/kernel", (3,) * rank + (inner, width)),
            (f"{name}/conv_{part}/bias", (width,)),
            (f"{name}/norm_{part}/gamma", (width,)),
            (f"{name}/norm_{part}/beta", (width,)),
        ]
        inner = width
    return [*weights, (f"{name}/projection/kernel", (before, width))]


def _pool(name: str, width: int) -> Weights:
    half = width // 2
    return [
        (f"{name}/squeeze/kernel", (3, 1, 1, width, half)),
        (f"{name}/squeeze/bias", (half,)),
        (f"{name}/excite/kernel", (3, 1, 1, half, width)),
        (f"{name}/excite/bias", (width,)),
    ]


def _block_statistics(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for part in (1, 2):
        yield from _statistics(f"{name}/norm_{part}", width)


def _statistics(name: str, width: int) -> Weights:
    return [(f"{name}/moving_mean", (width,)), (f"{name}/moving_variance", (width,))]


def check_tensors(tensors: Mapping[str, NDArray[Any]], architecture: Architecture, source: str) -> None:
    """Raise `WeightsError` unless the tensors are exactly those of the architecture, finite, with variances >= 0.

    Parameters
    ----------
    tensors
        Arrays by weight path, as in `layout`.
    architecture
        The network they are for.
    source
        Where they come from, for the message.
    """
    expected = shapes(architecture)
    for path in [*expected, *tensors]:
        if path not in tensors or path not in expected:
            state = "missing" if path in expected else "not part of the network"
            raise WeightsError(f"{source}: weight {path!r} is {state}; take the file from its source again")
        values = tensors[path]
        if values.shape != expected[path]:
            raise WeightsError(f"{source}: weight {path!r} has shape {values.shape}, needed is {expected[path]}")
        if not np.isfinite(values).all():
            raise WeightsError(f"{source}: weight {path!r} holds NaN or infinity; take the file from its source again")
        if path.endswith("moving_variance") and (values < 0).any():
            raise WeightsError(f"{source}: weight {path!r} is a variance below 0; take the file from its source again")


def build(
    architecture: Architecture, dropout: float = 0.0, *, precision: Precision = "float32", sampling: bool = False
) -> keras.Model:
    """Build the network with fresh random weights.

    Parameters
    ----------
    architecture
        The network.
    dropout
        Share of channels dropped in training, at the end of each block's branch. Never in inference.
    precision
        ``"float32"``, or ``"bfloat16"``: computing in half precision with float32 weights. The
        probabilities are float32 in any case.
    sampling
        Give the network a second input, ``(batch, channel)``: factors for the channels that dropout may drop, in the
        order of `Architecture.dropped_filters`. Ones change nothing. The weights are the same.

    Returns
    -------
    keras.Model
        ``(batch, step, y, x, feature)`` scaled features to ``(batch, y, x, class)`` probabilities, float32.

    Raises
    ------
    ModelError
        `dropout` or `precision` is not allowed.
    """
    if not 0 <= dropout < 1:
        raise ModelError(f"dropout is {dropout!r}: give a share from 0 to below 1")
    if precision not in PRECISIONS:
        raise ModelError(f"precision is {precision!r}: allowed are {', '.join(PRECISIONS)}")
    from icemap_xr.models._backend import keras

    policy = keras.DTypePolicy("float32" if precision == "float32" else f"mixed_{precision}")
    side = architecture.window
    inputs = keras.Input((architecture.steps, side, side, architecture.features), name="inputs", dtype="float32")
    channels = architecture.dropped_filters
    factors = keras.Input((sum(channels),), name="factors", dtype="float32") if sampling else None
    ends = [sum(channels[:number]) for number in range(len(channels) + 1)]
    parts: list[Any] = [None if factors is None else factors[:, a:b] for a, b in pairwise(ends)]
    skips = _encode(inputs, architecture, dropout, policy, parts[: LEVELS + 1])
    x = _decode(skips, architecture, dropout, policy, parts[LEVELS + 1 :])
    head = keras.layers.Dense(architecture.classes, activation="softmax", dtype="float32", name="head")
    return keras.Model([inputs, factors] if sampling else inputs, head(x), name=f"{FAMILY}_{architecture.pooling}")


def _encode(inputs: Any, architecture: Architecture, dropout: float, policy: Any, factors: list[Any]) -> list[Any]:
    """Return one map ``(batch, y, x, channel)`` per level, from fine to coarse."""
    from icemap_xr.models import layers

    x, steps = inputs, architecture.steps
    skips = []
    for level, width in enumerate(architecture.level_filters):
        x = layers.ResidualBlock(width, 3, dropout, dtype=policy, name=f"encoder_{level}")(x, factors=factors[level])
        skips.append(_pooled(x, architecture.pooling, steps, 1, policy, f"skip_{level}")[:, 0])
        if level < LEVELS:
            x = _pooled(x, architecture.pooling, min(2, steps), 2, policy, f"down_{level}")
            steps = -(-steps // 2)
    return skips


def _pooled(x: Any, pooling: Pooling, steps: int, size: int, policy: Any, name: str) -> Any:
    from icemap_xr.models import layers
    from icemap_xr.models._backend import keras

    if pooling == "tweightedpool":
        return layers.TemporalWeightedPooling(steps, size, dtype=policy, name=name)(x)
    return keras.layers.MaxPooling3D((steps, size, size), padding="same", dtype=policy, name=name)(x)


def _decode(skips: list[Any], architecture: Architecture, dropout: float, policy: Any, factors: list[Any]) -> Any:
    """Return the finest map ``(batch, y, x, filters)``."""
    from icemap_xr.models import layers
    from icemap_xr.models._backend import keras

    x = skips[LEVELS]
    for level, factor in zip(reversed(range(LEVELS)), factors, strict=True):
        width = architecture.level_filters[level]
        x = layers.UpConv(width, dtype=policy, name=f"up_{level}")(x)
        x = keras.layers.Concatenate(dtype=policy, name=f"join_{level}")([x, skips[level]])
        x = layers.ResidualBlock(width, 2, dropout, dtype=policy, name=f"decoder_{level}")(x, factors=factor)
    return x


def assign(model: keras.Model, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Set every weight of a network from arrays by path; `check_tensors` comes first."""
    for variable in model.weights:
        variable.assign(tensors[variable.path])


def extract(model: keras.Model) -> Tensors:
    """Return every weight of a network as float32 arrays by path."""
    return {variable.path: np.asarray(variable.numpy(), np.float32) for variable in model.weights}
