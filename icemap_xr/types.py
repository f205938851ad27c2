"""Type aliases, and the two Protocols at which models and calibrators plug in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

StrPath: TypeAlias = str | PathLike[str]
FloatArray: TypeAlias = NDArray[np.floating[Any]]
Batch: TypeAlias = FloatArray | Mapping[str, FloatArray]
"""One batch of scaled windows: `(batch, step, y, x, feature)` float32, or one such array per named input."""

Method: TypeAlias = Literal["soft", "hard"]


@dataclass(frozen=True)
class FeatureSpec:
    """One feature of a model input, and how raw values become network values.

    The network sees ``(value - minimum) / (maximum - minimum)``, not clipped.

    Parameters
    ----------
    name
        Variable of the cube, for example ``"grd"``.
    minimum, maximum
        Scaling constants in `units`.
    units
        ``"dB"`` or ``"1"``.
    polarisation, radiometry
        What the feature was in training; None where it is not known.
    """

    name: str
    minimum: float
    maximum: float
    units: str
    polarisation: str | None = None
    radiometry: str | None = None

    def scale(self, values: FloatArray) -> FloatArray:
        """Scale raw values to network values, in float32; NaN stays NaN."""
        low, high = np.float32(self.minimum), np.float32(self.maximum)
        return (np.asarray(values, np.float32) - low) / (high - low)


@dataclass(frozen=True)
class InputSpec:
    """One named input of a model: its features, in the order of the last axis."""

    name: str
    features: tuple[FeatureSpec, ...]

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True)
class ModelSpec:
    """What a model declares about itself; all that `predict` knows of it.

    Parameters
    ----------
    name
        Name for attributes and lineage.
    inputs
        Named inputs, each with its features in order.
    steps
        Scenes per year.
    window
        Window side in pixels.
    classes
        Class names in the order of the last output axis.
    glacier_class
        Which of `classes` is the glacier.
    digest
        sha256 of the weights, hex, and of whatever else its answers depend on: it tells the model from all others.
    note
        One line on where the weights come from and what they are good for.
    """

    name: str
    inputs: tuple[InputSpec, ...]
    steps: int
    window: int
    classes: tuple[str, ...]
    glacier_class: str
    digest: str
    note: str = ""

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Features of all inputs, in order."""
        return tuple(feature for one in self.inputs for feature in one.features)

    @property
    def glacier_index(self) -> int:
        """Position of the glacier class on the output's last axis."""
        return self.classes.index(self.glacier_class)


@runtime_checkable
class Predictor(Protocol):
    """A model, ready to be called on one batch of scaled windows.

    It must pickle to a small recipe (never to its weights), be safe to call from several threads, and give the same
    answer for the same input.

    A map is known by its model's class and `spec`, and of a dataclass by its compared fields, whatever else the model
    holds: with an equal `spec` an unfinished
    map is resumed and a finished one kept. So `spec.digest` must change with everything that changes an answer:
    weights, settings, preparation. A model that defines ``__dask_tokenize__`` is known by what that returns instead.
    """

    @property
    def spec(self) -> ModelSpec:
        """What the model declares about itself."""
        ...

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Map `(batch, step, y, x, feature)` to class probabilities `(batch, y, x, class)`."""
        ...


@runtime_checkable
class SamplingPredictor(Predictor, Protocol):
    """A model that can also drop random channels, for passes whose spread says how much the map depends on them."""

    def sample(self, batch: Batch, seeds: NDArray[np.uint64], rate: float, /) -> NDArray[np.float32]:
        """Map a batch as a call does, with a share `rate` of the channels dropped.

        Which channels are dropped in a window depends on its seed (`(batch,)` uint64) alone, not on the batch.
        """
        ...


@runtime_checkable
class Calibrator(Protocol):
    """A monotone map from model probability to P(glacier | probability)."""

    def __call__(self, probability: FloatArray, /) -> NDArray[np.float32]:
        """Calibrate an array of probabilities; NaN stays NaN."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the calibrator as plain JSON types."""
        ...
