"""Calibration curves: monotone knots, and the published regression of confidence. Both are plain JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError
from icemap_xr.kernels.probabilities import check_probabilities
from icemap_xr.kernels.ridge import Segments, Table, calibrate_confidence, ridge_knots, segments, tabulate
from icemap_xr.types import Calibrator, FloatArray, StrPath

_TEXTS = ("name", "fitted_on", "map_kind", "fit_digest")
KIND = "monotone-knots"
RIDGE_KIND = "confidence-kernel-ridge"


@dataclass(frozen=True)
class _Knots:
    """What both curves are made of."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    name: str = ""
    fitted_on: str = ""
    map_kind: str = ""
    fit_digest: str = ""

    def __post_init__(self) -> None:
        """Turn knots into plain floats, and refuse what is no curve."""
        for axis in ("x", "y"):
            try:
                knots = tuple(float(value) for value in getattr(self, axis))
            except (TypeError, ValueError):
                raise InputError(f"{axis} of a calibrator is not a list of numbers: give its knots as floats") from None
            object.__setattr__(self, axis, knots)
            if not all(map(self._allowed(axis), knots)):
                raise InputError(f"{axis} of a calibrator has knots outside 0..1: give probabilities")
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise InputError(f"a calibrator has {len(self.x)} x and {len(self.y)} y: give the same number, at least 2")
        if not np.all(np.diff(self.x) > 0):
            raise InputError("x of a calibrator does not increase strictly: sort the knots and drop repeated ones")

    @staticmethod
    def _allowed(axis: str) -> Any:
        return lambda value: math.isfinite(value) and 0 <= value <= 1

    @classmethod
    def _kind(cls) -> str:
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the calibrator as plain JSON types."""
        texts = {key: getattr(self, key) for key in _TEXTS}
        return {"type": self._kind(), **texts, "x": list(self.x), "y": list(self.y)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Build the calibrator that `to_json` described.

        Raises
        ------
        InputError
            `content` describes another kind of calibrator, or none.
        """
        if not isinstance(content, Mapping) or content.get("type") != cls._kind():
            kind = content.get("type") if isinstance(content, Mapping) else type(content).__name__
            raise InputError(f"calibrator type {kind!r} is not allowed: give the JSON of a {cls._kind()!r} calibrator")
        missing = [key for key in ("x", "y") if not isinstance(content.get(key), list | tuple)]
        if missing:
            raise InputError(f"the calibrator lacks the list {missing[0]!r}: give x and y of its knots")
        texts = {key: str(content.get(key, "")) for key in _TEXTS}
        return cls(tuple(content["x"]), tuple(content["y"]), **texts)


@dataclass(frozen=True)
class KnotCalibrator(_Knots):
    """A monotone, piecewise linear calibration curve.

    Parameters
    ----------
    x
        Model probability of the knots, 0..1, strictly increasing, at least two.
    y
        P(glacier | x) of the knots, 0..1, never decreasing. Outside the knots the curve is constant.
    name
        Name for attributes and lineage.
    fitted_on
        Provenance: maps, reference and method of the fit.
    map_kind
        What was done to the maps of the fit, as in the attribute `temporal_filter` of a filtered map, or ``"single
        years"``; empty if not known. Maps of another kind are calibrated with a warning.
    fit_digest
        What data the curve was fitted to, by a digest; `icemap_xr.calibrate.reliability` of the same data warns.

    Raises
    ------
    InputError
        The knots are no monotone curve inside 0..1.
    """

    def __post_init__(self) -> None:
        """Refuse a curve that falls somewhere."""
        super().__post_init__()
        if not np.all(np.diff(self.y) >= 0):
            raise InputError("y of a calibrator falls somewhere: a calibration curve must be monotone")

    @classmethod
    def _kind(cls) -> str:
        return KIND

    def __call__(self, probability: FloatArray, /) -> NDArray[np.float32]:
        """Calibrate probabilities of any shape.

        Returns
        -------
        ndarray
            float32 of the same shape; NaN stays NaN.

        Raises
        ------
        InputError
            A value lies outside 0..1 by more than float32 rounding.
        """
        values = np.asarray(probability)
        check_probabilities(values, "calibrating")
        return np.asarray(np.interp(values, self.x, self.y), np.float32)


@dataclass(frozen=True)
class KernelRidgeCalibrator(_Knots):
    """The published calibration: accuracy regressed on Shannon confidence by a Laplacian kernel ridge.

    A pixel of calibrated confidence c gets c where its probability is at least 0.5, else 1 - c; 0 where the probability
    is at most 1e-8. The curve is that of scikit-learn's regression to rounding. It need not be monotone: the published
    anchor at (0, 0) turns the order of probabilities near 0.5 around. For numbers of one's own, a `KnotCalibrator` is
    the better choice.

    Parameters
    ----------
    x
        Confidence of the support points, 0..1, strictly increasing, at least two.
    y
        The regression at the support points, finite, before it is cut to 0..1.
    name, fitted_on, map_kind, fit_digest
        As of a `KnotCalibrator`.

    Raises
    ------
    InputError
        The knots are no such curve.
    """

    @staticmethod
    def _allowed(axis: str) -> Any:
        return math.isfinite if axis == "y" else _Knots._allowed(axis)

    @classmethod
    def _kind(cls) -> str:
        return RIDGE_KIND

    @classmethod
    def from_support(
        cls,
        x_fit: FloatArray,
        dual: FloatArray,
        name: str = "",
        fitted_on: str = "",
        map_kind: str = "",
        fit_digest: str = "",
    ) -> Self:
        """Build the calibrator from the arrays `X_fit_` and `dual_coef_` of a regression."""
        x, y = ridge_knots(x_fit, dual)
        return cls(tuple(x.tolist()), tuple(y.tolist()), name, fitted_on, map_kind, fit_digest)

    @cached_property
    def _segments(self) -> Segments:
        return segments(self.x, self.y)

    @cached_property
    def _table(self) -> Table:
        return tabulate(self._segments)

    def __call__(self, probability: FloatArray, /) -> NDArray[np.float32]:
        """Calibrate probabilities of any shape; see `icemap_xr.kernels.ridge.calibrate_confidence`."""
        return calibrate_confidence(probability, self._segments, self._table)


def calibrator_from_json(content: Mapping[str, Any]) -> KnotCalibrator | KernelRidgeCalibrator:
    """Build the calibrator of any kind that a `to_json` described.

    Raises
    ------
    InputError
        `content` describes no calibrator.
    """
    if isinstance(content, Mapping) and content.get("type") == RIDGE_KIND:
        return KernelRidgeCalibrator.from_json(content)
    return KnotCalibrator.from_json(content)


def as_calibrator(calibrator: Calibrator | Mapping[str, Any] | StrPath) -> Calibrator:
    """Return a calibrator from itself, from its JSON content, or from the path of a JSON file."""
    if isinstance(calibrator, Mapping):
        return calibrator_from_json(calibrator)
    if isinstance(calibrator, str | PathLike):
        try:
            return calibrator_from_json(json.loads(Path(calibrator).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(
                f"calibrator {str(calibrator)!r} cannot be read ({error}): give the path of a calibrator's JSON file"
            ) from None
    if not isinstance(calibrator, Calibrator):
        raise InputError(f"{type(calibrator).__name__} is no calibrator: give a KnotCalibrator, its dict, or a path")
    return calibrator
