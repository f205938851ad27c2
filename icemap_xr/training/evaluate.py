"""How good a model is on labelled tiles: scores, reliability, block errors. Memory does not grow with the tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError, ModelMismatchError, OutputExistsError
from icemap_xr.kernels.blend import blend_block
from icemap_xr.kernels.blocks import block_sums
from icemap_xr.kernels.reliability import bin_sums
from icemap_xr.kernels.windows import WindowGrid
from icemap_xr.training.tiles import Tile
from icemap_xr.types import Calibrator, Predictor, StrPath

Float32Array = NDArray[np.float32]


@dataclass(frozen=True)
class Scores:
    """Counts of pixels by truth and map, and what follows from them; a ratio without a denominator is None."""

    tp: int = 0
    tn: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Scores) -> Scores:
        return Scores(self.tp + other.tp, self.tn + other.tn, self.fp + other.fp, self.fn + other.fn)

    @property
    def accuracy(self) -> float | None:
        """Share of pixels mapped right."""
        return _ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Share of mapped glacier that is glacier."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Share of glacier that was mapped."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float | None:
        """Intersection over union of mapped and true glacier."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    def to_json(self) -> dict[str, Any]:
        """Return counts and ratios."""
        ratios = ("accuracy", "precision", "recall", "f1", "iou")
        return {**vars(self), **{name: getattr(self, name) for name in ratios}}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True)
class Reliability:
    """Pixels, mean probability and mean true share in equal bins of probability; None in empty bins.

    `ece` is the expected calibration error: the mean over pixels of their absolute difference.
    """

    pixels: tuple[int, ...]
    mean_probability: tuple[float | None, ...]
    ice_fraction: tuple[float | None, ...]
    ece: float

    @classmethod
    def of(cls, sums: NDArray[np.float64]) -> Reliability:
        """Make the table from the sums of `icemap_xr.kernels.reliability.bin_sums`."""
        count, probability, ice = sums
        mean = [p / n if n else None for n, p in zip(count.tolist(), probability.tolist(), strict=True)]
        share = [y / n if n else None for n, y in zip(count.tolist(), ice.tolist(), strict=True)]
        ece = float(np.abs(probability - ice).sum() / max(count.sum(), 1))
        return cls(tuple(int(n) for n in count), tuple(mean), tuple(share), ece)

    def to_json(self) -> dict[str, Any]:
        """Return the table as plain lists."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Parameters
    ----------
    model, digest
        Name and sha256 of the model.
    overlap
        Overlap of its windows.
    tiles
        Scores by tile.
    overall
        Scores of all pixels together.
    reliability
        Of the model's own probability.
    calibrated
        Of the calibrated probability; None without a calibrator.
    block_px
        Block side in pixels; None where no blocks were asked for.
    block_errors
        By tile, prediction minus reference of each whole block as a fraction of its area, calibrated where there is a
        calibrator.
    """

    model: str
    digest: str
    overlap: float
    tiles: dict[str, Scores]
    overall: Scores
    reliability: Reliability
    calibrated: Reliability | None
    block_px: int | None
    block_errors: dict[str, tuple[float, ...]]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {
            "model": self.model,
            "digest": self.digest,
            "overlap": self.overlap,
            "overall": self.overall.to_json(),
            "tiles": {name: scores.to_json() for name, scores in self.tiles.items()},
            "reliability": self.reliability.to_json(),
            "calibrated": None if self.calibrated is None else self.calibrated.to_json(),
            "block_px": self.block_px,
            "block_errors": {name: list(errors) for name, errors in self.block_errors.items()},
        }


def evaluate(
    predictor: Predictor,
    tiles: Iterable[Tile],
    *,
    overlap: float = 0.5,
    bins: int = 100,
    block_px: int | None = None,
    calibrator: Calibrator | None = None,
    batch_size: int | None = None,
    probabilities: StrPath | None = None,
    on_tile: Callable[[str, Scores], None] | None = None,
) -> Evaluation:
    """Map every tile as `icemap_xr.predict` maps a region, and compare with its labels.

    Parameters
    ----------
    predictor
        The model.
    tiles
        Labelled tiles, held one at a time if they come from a generator or a file.
    overlap
        Share of a window that overlaps with the next, 0 to below 1.
    bins
        Bins of the reliability table.
    block_px
        Side in pixels of the blocks whose errors are taken; blocks cut by the tile's edge or with an unknown or
        unobserved pixel are left out.
    calibrator
        Judged beside the model's own probability, and used for block errors.
    batch_size
        Windows per call of the model; by default about the pixels of one window of 384.
    probabilities
        HDF5 file for the probabilities, in the published layout: one group per tile with `probs (y, x, class)`.
    on_tile
        Called with name and scores of each tile.

    Raises
    ------
    InputError
        There is no tile, two have the same name, or a tile does not fit the model or has no known pixel.
    OutputExistsError
        The file for the probabilities exists.
    """
    tally = _Tally(predictor, bins, block_px, calibrator)
    with ExitStack() as stack:
        file = None if probabilities is None else stack.enter_context(_new_file(probabilities))
        for tile in tiles:
            if tile.name in tally.scores:
                raise InputError(f"two tiles are named {tile.name!r}: give each its own name")
            found, labels = predict_tile(predictor, tile, overlap=overlap, batch_size=batch_size)
            if file is not None:
                file.create_dataset(f"{tile.name}/probs", data=np.moveaxis(found, 0, -1))
            tally.add(tile.name, found, labels)
            if on_tile is not None:
                on_tile(tile.name, tally.scores[tile.name])
    return tally.result(overlap)


class _Tally:
    """Sums over the tiles seen so far."""

    def __init__(self, predictor: Predictor, bins: int, block_px: int | None, calibrator: Calibrator | None) -> None:
        self.spec, self.block_px, self.calibrator = predictor.spec, block_px, calibrator
        self.scores: dict[str, Scores] = {}
        self.errors: dict[str, tuple[float, ...]] = {}
        self.raw, self.calibrated = np.zeros((3, bins)), np.zeros((3, bins))

    def add(self, name: str, found: Float32Array, labels: Float32Array) -> None:
        """Add a tile."""
        glacier, bins = self.spec.glacier_index, self.raw.shape[1]
        self.scores[name] = score(found, labels, glacier, name)
        probability, reference = glacier_pair(found, labels, glacier)
        self.raw += bin_sums(probability, reference, bins)
        if self.calibrator is not None:
            probability = self.calibrator(probability)
            self.calibrated += bin_sums(probability, reference, bins)
        if self.block_px is not None:
            self.errors[name] = block_errors(probability, reference, self.block_px)

    def result(self, overlap: float) -> Evaluation:
        """Return what all tiles together say."""
        if not self.scores:
            raise InputError("there is no tile to evaluate on: give at least one")
        return Evaluation(
            self.spec.name,
            self.spec.digest,
            overlap,
            self.scores,
            sum(self.scores.values(), Scores()),
            Reliability.of(self.raw),
            None if self.calibrator is None else Reliability.of(self.calibrated),
            self.block_px,
            self.errors,
        )


def predict_tile(
    predictor: Predictor, tile: Tile, *, overlap: float = 0.5, batch_size: int | None = None
) -> tuple[Float32Array, Float32Array]:
    """Map one tile with the windows, weights and edges of `icemap_xr.predict`.

    Parameters
    ----------
    predictor
        The model.
    tile
        The tile; it is taken as a region of its own.
    overlap, batch_size
        As in `evaluate`.

    Returns
    -------
    probability, labels
        `(class, y, x)` float32, NaN where nothing was observed, and `(y, x, class)` float32, both without padding.

    Raises
    ------
    InputError
        An option is out of range, or the tile does not fit the model.
    """
    spec = predictor.spec
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap} is not allowed: give a share from 0 up to, not including, 1")
    if len(spec.inputs) != 1:
        raise ModelMismatchError(f"{spec.name!r} has {len(spec.inputs)} inputs: tiles serve models with one")
    names = spec.inputs[0].feature_names
    tile.check(spec.features, spec.steps, len(spec.classes))
    stride = max(1, round(spec.window * (1 - overlap)))
    rows, columns = (slice(0, size) for size in tile.shape)
    probability = blend_block(
        partial(tile.scenes, names),
        predictor,
        WindowGrid(spec.window, stride, tile.shape),
        rows,
        columns,
        classes=len(spec.classes),
        batch_size=batch_size or max(1, (384 // spec.window) ** 2),
    )
    return probability[:, *tile.inside], tile.shares(*tile.inside)


def glacier_pair(probability: Float32Array, labels: Float32Array, glacier: int) -> tuple[Float32Array, Float32Array]:
    """Return probability and true share of glacier, `(y, x)`; NaN where one is unknown."""
    known = (labels.sum(axis=-1) > 0) & np.isfinite(probability[glacier])
    nothing = np.float32(np.nan)
    return np.where(known, probability[glacier], nothing), np.where(known, labels[..., glacier], nothing)


def score(probability: Float32Array, labels: Float32Array, glacier: int, name: str = "the tile") -> Scores:
    """Count pixels by the likeliest class against the class with the largest share.

    Parameters
    ----------
    probability
        `(class, y, x)`; NaN is not counted.
    labels
        `(y, x, class)`; pixels without any share are not counted.
    glacier
        Number of the glacier class.
    name
        Name for the message.

    Raises
    ------
    InputError
        No pixel is both labelled and observed.
    """
    known = (labels.sum(axis=-1) > 0) & np.isfinite(probability).all(axis=0)
    if not known.any():
        raise InputError(f"{name!r} has no pixel that is both labelled and observed: leave it out")
    true = labels.argmax(axis=-1)[known] == glacier
    found = probability.argmax(axis=0)[known] == glacier
    counts = (true & found, ~true & ~found, ~true & found, true & ~found)
    return Scores(*(int(np.count_nonzero(one)) for one in counts))


def block_errors(probability: Float32Array, reference: Float32Array, block_px: int) -> tuple[float, ...]:
    """Return prediction minus reference of each whole block, as a fraction of the block's area.

    Parameters
    ----------
    probability, reference
        Probability and true share of glacier `(y, x)`, NaN in the same places.
    block_px
        Block side in pixels; blocks begin at the upper left corner.
    """
    if block_px < 1:
        raise InputError(f"a block of {block_px} pixels is not allowed: give at least 1 pixel")
    sums = block_sums(np.stack([probability, reference]), (0, 0), block_px)
    whole = sums.observed[0] == block_px**2
    differences = (sums.ice[0] - sums.ice[1])[whole] / block_px**2
    return tuple(float(one) for one in differences)


def _new_file(path: StrPath) -> h5py.File:
    if Path(path).exists():
        raise OutputExistsError(f"{path} exists already: give another file or remove it")
    return h5py.File(path, "x")
