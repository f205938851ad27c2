"""What an evaluation says: scores by tile and pooled, reliability, block errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
    skipped
        Tiles that were left out because nothing in them was both labelled and observed.
    edges
        What became of windows at the tiles' edges, see `icemap_xr.training.evaluate.evaluate`.
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
    skipped: tuple[str, ...] = ()
    edges: str = "published"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON types."""
        return {
            "model": self.model,
            "digest": self.digest,
            "overlap": self.overlap,
            "edges": self.edges,
            "overall": self.overall.to_json(),
            "tiles": {name: scores.to_json() for name, scores in self.tiles.items()},
            "reliability": self.reliability.to_json(),
            "calibrated": None if self.calibrated is None else self.calibrated.to_json(),
            "block_px": self.block_px,
            "block_errors": {name: list(errors) for name, errors in self.block_errors.items()},
            "skipped": list(self.skipped),
        }
