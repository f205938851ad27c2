"""The part of training that needs TensorFlow: network, optimizer, one step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import ModelError
from icemap_xr.models import icemapper
from icemap_xr.models._backend import keras, tf
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.training.losses import focal_loss
from icemap_xr.training.state import EpochRow

if TYPE_CHECKING:
    from icemap_xr.training.fit import TrainOptions

#: branch of the seed that starts the weights, beside the epochs' branches
_WEIGHTS_KEY = 2**31


class Trainer:
    """A network with its optimizer.

    Parameters
    ----------
    architecture
        The network.
    options
        Options of the training; `seed` decides the first weights.

    Raises
    ------
    ModelError
        This TensorFlow cannot train in the precision asked for.
    """

    def __init__(self, architecture: Architecture, options: TrainOptions) -> None:
        self.options = options
        _check_precision(options)
        if tf.config.list_physical_devices("GPU"):
            # else sums on a GPU come out in any order
            tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(_number(options.seed, _WEIGHTS_KEY))
        self.model = icemapper.build(architecture, options.dropout, precision=options.precision)
        self.optimizer = keras.optimizers.Adam(options.learning_rate)
        self.optimizer.build(self.model.trainable_variables)
        side = architecture.window
        batch = tf.TensorSpec((None, architecture.steps, side, side, architecture.features), tf.float32)
        labels = tf.TensorSpec((None, side, side, architecture.classes), tf.float32)
        self._steps = {
            training: tf.function(partial(self._train, training), input_signature=[batch, labels], autograph=False)
            for training in (True, False)
        }
        self._training = True
        self._judge = tf.function(self._validate, input_signature=[batch, labels], autograph=False)

    def begin_epoch(self, epoch: int) -> None:
        """Set the random states of dropout, which depend on seed and epoch alone, and how normalisation works."""
        self._training = epoch < self.options.epochs - self.options.frozen_epochs
        for number, variable in enumerate(self._random_states()):
            words = np.random.SeedSequence(self.options.seed, spawn_key=(epoch, _WEIGHTS_KEY, number)).generate_state(2)
            variable.assign(words.astype(np.uint32).reshape(variable.shape))

    def step(
        self, batch: NDArray[np.float32], labels: NDArray[np.float32], learning_rate: float
    ) -> tuple[float, NDArray[np.float32]]:
        """Train on one batch; return the loss and the probabilities `(batch, y, x, class)` before it."""
        self.optimizer.learning_rate.assign(learning_rate)
        loss, probability = self._steps[self._training](batch, labels)
        return float(loss), probability.numpy()

    def judge(self, batch: NDArray[np.float32], labels: NDArray[np.float32]) -> tuple[float, NDArray[np.float32]]:
        """Return the loss and the probabilities of one batch, without training."""
        loss, probability = self._judge(batch, labels)
        return float(loss), probability.numpy()

    def tensors(self) -> Tensors:
        """Return the network's weights by path."""
        return icemapper.extract(self.model)

    def variables(self) -> list[NDArray[Any]]:
        """Return all that training changes, in a fixed order."""
        return [variable.numpy() for variable in self._all()]

    def restore(self, values: Sequence[NDArray[Any]]) -> None:
        """Set what `variables` returned."""
        for variable, value in zip(self._all(), values, strict=True):
            variable.assign(value)

    def tensorboard(self, folder: Path, row: EpochRow) -> None:
        """Add an epoch to the log for TensorBoard, which need not be installed (`tf.summary.scalar` needs it)."""
        metadata = tf.compat.v1.SummaryMetadata(data_class="DATA_CLASS_SCALAR")
        metadata.plugin_data.plugin_name = "scalars"
        writer = tf.summary.create_file_writer(str(folder))
        with writer.as_default():
            for name in ("loss", "iou", "val_loss", "val_iou", "learning_rate"):
                tf.summary.write(name, np.float32(getattr(row, name)), step=row.epoch, metadata=metadata)
        writer.close()

    def _train(self, training: bool, batch: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            probability = self.model(batch, training=training)
            loss = focal_loss(labels, probability, self.options.gamma)
        trainable = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, trainable), trainable, strict=True))
        return loss, probability

    def _validate(self, batch: Any, labels: Any) -> Any:
        probability = self.model(batch, training=False)
        return focal_loss(labels, probability, self.options.gamma), probability

    def _all(self) -> list[Any]:
        return [*self.model.weights, *self.optimizer.variables]

    def _random_states(self) -> list[Any]:
        weights = {id(variable) for variable in self.model.weights}
        return [variable for variable in self.model.variables if id(variable) not in weights]


def _check_precision(options: TrainOptions) -> None:
    # measured with TensorFlow 2.20: oneDNN's gradients of 3-D convolutions in bfloat16 are NaN at random
    on_cpu = not tf.config.list_physical_devices("GPU")
    if options.precision == "bfloat16" and on_cpu and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0":
        raise ModelError(
            "precision='bfloat16' gives NaN in training on this processor: use 'float32', a GPU, or set "
            "TF_ENABLE_ONEDNN_OPTS=0 before Python starts"
        )


def _number(seed: int, key: int) -> int:
    return int(np.random.SeedSequence(seed, spawn_key=(key,)).generate_state(1)[0])
