"""Training of a network: reproducible, resumable after a kill, with the best weights kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from icemap_xr.errors import InputError, ModelError
from icemap_xr.models.icemapper import Architecture, Precision
from icemap_xr.progress import Advance
from icemap_xr.progress import progress as show_progress
from icemap_xr.training import state
from icemap_xr.training.augment import AugmentOptions
from icemap_xr.training.losses import distance_penalty, smooth_labels
from icemap_xr.training.sampling import TrainSampler, ValidationBatches, ValidationWindows, ahead, count_windows
from icemap_xr.training.schedule import learning_rate
from icemap_xr.training.state import EpochRow, Progress
from icemap_xr.training.tiles import Tile
from icemap_xr.types import FeatureSpec, StrPath

if TYPE_CHECKING:
    from icemap_xr.training.trainer import Trainer

log = logging.getLogger(__name__)

Loss = Literal["focal", "distance_focal"]
Keep = Literal["val_iou", "val_loss"]

#: options that do not change the result
NOT_DECIDING = ("workers", "tensorboard")


@dataclass(frozen=True)
class TrainOptions:
    """Options of a training; the defaults are the published ones where the program states them.

    Parameters
    ----------
    features
        Features in the order of the network's last axis.
    epochs
        Epochs, at most the last of `restarts`.
    batch_size
        Windows per batch.
    batches_per_epoch
        Batches per epoch; None for as many whole windows as the tiles hold, divided by `batch_size`.
    learning_rate
        Highest learning rate of Adam.
    restarts
        Epochs at which a cosine stage ends, see `icemap_xr.training.schedule`.
    loss
        ``"focal"`` or ``"distance_focal"`` (pixels near class boundaries count up to 1.5 times).
    gamma
        Of the focal loss.
    label_smoothing
        Share of a label that is moved to all classes, in training only.
    dropout
        Share of channels dropped in training. The published program declares 0.05 and, by a defect, drops none.
    frozen_epochs
        Last epochs in which normalisation uses its running statistics, as in inference, and dropout is off. Small
        batches, whose own statistics say little, then train for what inference does.
    augment
        Transforms of training windows.
    overhang
        See `TrainSampler`.
    keep
        Which weights are kept as the best: ``"val_iou"``, those with the highest mean IoU of validation windows, as
        published; or ``"val_loss"``, those with the lowest loss on them, which is steadier with few windows.
    glacier
        Number of the class whose IoU is watched.
    precision
        ``"float32"``, or ``"bfloat16"`` (mixed precision, for GPUs).
    seed
        Seed of weights, windows, transforms and dropout.
    workers
        Threads that prepare windows; the result does not depend on it.
    tensorboard
        Also write the log for TensorBoard.

    Raises
    ------
    InputError
        A value is not allowed.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    features: tuple[str, ...] = ("grd", "insar")
    epochs: int = 150
    batch_size: int = 8
    batches_per_epoch: int | None = None
    learning_rate: float = 5e-4
    restarts: tuple[int, ...] = (10, 30, 70, 150)
    loss: Loss = "focal"
    gamma: float = 2.0
    label_smoothing: float = 0.1
    dropout: float = 0.05
    frozen_epochs: int = 0
    augment: AugmentOptions = field(default_factory=AugmentOptions)
    overhang: float = 0.0
    keep: Keep = "val_iou"
    glacier: int = 1
    precision: Precision = "float32"
    seed: int = 0
    workers: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name, least in (
            ("epochs", 1),
            ("batch_size", 1),
            ("workers", 1),
            ("seed", 0),
            ("glacier", 0),
            ("frozen_epochs", 0),
        ):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)!r}: give a whole number of {least} or more")
        if self.batches_per_epoch is not None and self.batches_per_epoch < 1:
            raise InputError(f"batches_per_epoch is {self.batches_per_epoch!r}: give 1 or more, or None")
        for name in ("label_smoothing", "dropout", "overhang"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)!r}: give a number from 0 to below 1")
        if not self.learning_rate > 0 or not self.gamma >= 0:
            raise InputError(f"learning_rate {self.learning_rate!r} must be > 0 and gamma {self.gamma!r} >= 0")
        stages = (0, *self.restarts)
        if len(stages) < 2 or any(a >= b for a, b in pairwise(stages)):
            raise InputError(f"restarts are {self.restarts!r}: give increasing epochs from 1 on")
        if self.epochs > self.restarts[-1]:
            raise InputError(f"epochs is {self.epochs}, the last of restarts {self.restarts[-1]}: end it at the epochs")
        for name, allowed in (("loss", get_args(Loss)), ("keep", get_args(Keep))):
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}: allowed are {', '.join(allowed)}")


@dataclass(frozen=True)
class FitResult:
    """What a training reached.

    Parameters
    ----------
    folder
        Folder with `best.safetensors`, `log.csv` and the state.
    rows
        The log, one row per epoch.
    best
        Row of the epoch whose weights were kept.
    seconds
        Wall time of all epochs, s.
    """

    folder: Path
    rows: tuple[EpochRow, ...]
    best: EpochRow
    seconds: float

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Read the best weights, by weight path."""
        return state.load_best(self.folder)


def fit(
    architecture: Architecture,
    train_tiles: Sequence[Tile],
    validation_tiles: Sequence[Tile],
    options: TrainOptions,
    folder: StrPath,
    *,
    on_epoch: Callable[[EpochRow], None] | None = None,
) -> FitResult:
    """Train a network, or go on where a training in the same folder was interrupted.

    After each epoch weights, optimizer and random states are saved; a training that was killed and called again with
    the same arguments gives the same log and weights as one that was not: bit for bit on the same processor and number
    of cores. On GPUs TensorFlow is told to use deterministic operations; that no bit differs there has not been shown.

    Parameters
    ----------
    architecture
        The network, with a window.
    train_tiles, validation_tiles
        Labelled tiles; different ground.
    options
        Options.
    folder
        Folder of the run: new, empty, or of the same run.
    on_epoch
        Called with the row of each epoch when its state has been saved.

    Returns
    -------
    FitResult

    Raises
    ------
    InputError
        Tiles, network and options do not fit together, or the folder holds something else.
    WeightsError
        The saved state is damaged.
    ModelError
        The loss is no longer finite, or this TensorFlow cannot train in the precision asked for.
    """
    path = Path(folder)
    _check(architecture, train_tiles, validation_tiles, options)
    assert architecture.window is not None  # _check
    sampler = TrainSampler(
        train_tiles, options.features, architecture.window, options.augment, options.overhang, options.seed
    )
    windows = ValidationWindows(validation_tiles, options.features, architecture.window)

    from icemap_xr.training.trainer import Trainer

    trainer = Trainer(architecture, options)
    names = [[tile.name for tile in tiles] for tiles in (train_tiles, validation_tiles)]
    state.claim(path, {"architecture": asdict(architecture), "options": _options(options), "tiles": names})
    saved = state.load_state(path, [one.shape for one in trainer.variables()])
    done = Progress() if saved is None else saved[1]
    if saved is not None:
        trainer.restore(saved[0])
        log.info("%s: going on after epoch %d", path, len(done.rows))
    batches = ValidationBatches(windows, options.batch_size)
    done = _run(trainer, sampler, batches, options, done, path, on_epoch)
    return FitResult(path, done.rows, best_row(done.rows, options.keep), sum(row.seconds for row in done.rows))


def _run(
    trainer: Trainer,
    sampler: TrainSampler,
    judged: ValidationBatches,
    options: TrainOptions,
    done: Progress,
    path: Path,
    on_epoch: Callable[[EpochRow], None] | None,
) -> Progress:
    """Train the epochs that are left, and save after each."""
    whole = count_windows(sampler.tiles, sampler.window) // options.batch_size
    batches = options.batches_per_epoch or max(1, whole)
    with show_progress("training", (options.epochs - len(done.rows)) * batches) as advance:
        for epoch in range(len(done.rows), options.epochs):
            on_batch = _telling(advance, options, epoch, done)
            row = _epoch(trainer, sampler, judged, options, epoch, batches, on_batch)
            done = Progress((*done.rows, row))
            if best_row(done.rows, options.keep) is row:
                state.save_best(path, trainer.tensors())
            state.save_state(path, trainer.variables(), done)
            if options.tensorboard:
                trainer.tensorboard(path / "tensorboard", row)
            log.info("epoch %d: loss %.4f, val IoU %.4f", row.epoch, row.loss, row.val_iou)
            if on_epoch is not None:
                on_epoch(row)
    return done


def _telling(
    advance: Advance, options: TrainOptions, epoch: int, done: Progress
) -> Callable[[NDArray[np.float64]], None]:
    """Return what moves the progress bar on by a batch: it shows epoch, IoU so far, and the last validation's."""
    last = f", validation {done.rows[-1].val_iou:.3f}" if done.rows else ""

    def on_batch(ious: NDArray[np.float64]) -> None:
        so_far = f"{ious.mean():.3f}" if ious.size else "-"
        advance(1, f"epoch {epoch + 1} of {options.epochs}, IoU {so_far}{last}")

    return on_batch


def best_row(rows: Sequence[EpochRow], keep: Keep) -> EpochRow:
    """Return the best epoch, the first of equal ones."""
    return max(rows, key=lambda row: row.val_iou) if keep == "val_iou" else min(rows, key=lambda row: row.val_loss)


def _options(options: TrainOptions) -> dict[str, Any]:
    """Return what changes the result."""
    return {key: value for key, value in asdict(options).items() if key not in NOT_DECIDING}


def _check(
    architecture: Architecture, train: Sequence[Tile], validation: Sequence[Tile], options: TrainOptions
) -> None:
    if architecture.window is None:
        raise InputError("the network has no window: give its side in pixels, a multiple of 8")
    if len(options.features) != architecture.features:
        raise InputError(
            f"features are {', '.join(options.features)}, the network takes {architecture.features}: make them agree"
        )
    if options.glacier >= architecture.classes:
        raise InputError(f"glacier is class {options.glacier}, the network has classes 0 to {architecture.classes - 1}")
    for what, tiles in (("training", train), ("validation", validation)):
        if not tiles:
            raise InputError(f"there is no {what} tile: give at least one")
        for tile in tiles:
            tile.check(_specs(train[0], options.features), architecture.steps, architecture.classes)
            tile.check_known(options.features)
    if count_windows(validation, architecture.window) == 0:
        raise InputError(f"no validation tile holds a whole window of {architecture.window} px: give larger tiles")


def _specs(tile: Tile, names: Sequence[str]) -> tuple[FeatureSpec, ...]:
    """Return the features of a tile by name; all tiles must be scaled as the first."""
    have = {feature.name: feature for feature in tile.features}
    for name in names:
        if name not in have:
            raise InputError(f"tile {tile.name!r} has no {name}: it has {', '.join(have)}")
    return tuple(have[name] for name in names)


def _epoch(
    trainer: Trainer,
    sampler: TrainSampler,
    judged: ValidationBatches,
    options: TrainOptions,
    epoch: int,
    batches: int,
    on_batch: Callable[[NDArray[np.float64]], None],
) -> EpochRow:
    """Train one epoch and validate; `on_batch` is given the IoUs of the epoch's windows so far."""
    begun = time.monotonic()
    trainer.begin_epoch(epoch)
    losses, ious = [], []
    rate = options.learning_rate
    tasks = [partial(_prepare, sampler, options, epoch, number) for number in range(batches)]
    for number, (batch, targets, labels) in enumerate(ahead(tasks, options.workers)):
        rate = learning_rate(epoch * batches + number, batches, options.learning_rate, options.restarts)
        loss, probability = trainer.step(batch, targets, rate)
        if not np.isfinite(loss):
            raise ModelError(
                f"the loss is {loss} in epoch {epoch + 1}, batch {number + 1}: give a learning_rate below "
                f"{options.learning_rate:g}, or precision='float32' (now {options.precision!r})"
            )
        losses.append(loss)
        ious.append(window_iou(labels, probability, options.glacier))
        on_batch(np.concatenate(ious))
    val_loss, val_iou = _validate(trainer, judged, options)
    known = np.concatenate(ious)
    if not known.size:
        raise InputError("no training window has a pixel that is both labelled and observed: give other tiles")
    return EpochRow(
        epoch + 1,
        float(np.mean(losses)),
        float(np.mean(known)),
        val_loss,
        val_iou,
        rate,
        time.monotonic() - begun,
    )


def _prepare(
    sampler: TrainSampler, options: TrainOptions, epoch: int, number: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return windows, what the loss sees, and the labels themselves."""
    batch, labels = sampler.batch(epoch, number, options.batch_size)
    targets = smooth_labels(labels, options.label_smoothing)
    if options.loss == "distance_focal":
        targets = targets * np.stack([distance_penalty(one) for one in labels])[..., None]
    return batch, targets, labels


def _validate(trainer: Trainer, judged: ValidationBatches, options: TrainOptions) -> tuple[float, float]:
    losses, ious = [], []
    for batch, labels in ahead(judged.tasks(), options.workers):
        loss, probability = trainer.judge(batch, labels)
        losses.append(loss * len(batch))
        ious.append(window_iou(labels, probability, options.glacier))
    found = np.concatenate(ious)
    if not found.size:
        raise InputError("no validation window has a pixel that is both labelled and observed: give other tiles")
    return float(np.sum(losses) / sum(map(len, judged.parts))), float(np.mean(found))


def window_iou(
    labels: NDArray[np.float32], probability: NDArray[np.float32], glacier: int, epsilon: float = 1e-7
) -> NDArray[np.float64]:
    """Return ``(tp + eps) / (tp + fp + fn + eps)`` of each window with a known pixel; unknown ones do not count."""
    known = labels.sum(axis=-1) > 0
    some = known.any(axis=(1, 2))
    labels, probability, known = labels[some], probability[some], known[some]
    true = (labels.argmax(axis=-1) == glacier) & known
    found = (probability.argmax(axis=-1) == glacier) & known
    both, either = (np.sum(one, axis=(1, 2), dtype=np.float64) for one in (true & found, true | found))
    return np.asarray((both + epsilon) / (either + epsilon), np.float64)
