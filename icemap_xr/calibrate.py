"""Calibration: from model probability to P(glacier | probability), by a monotone piecewise linear curve.

Filter yearly maps over time first, then calibrate: a calibrator holds for the kind of map it was fitted on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.kernels.probabilities import check_probabilities
from icemap_xr.kernels.reliability import bin_sums
from icemap_xr.types import Calibrator, FloatArray, StrPath

KIND = "monotone-knots"
#: attribute that marks a calibrated map and says by what
CALIBRATOR_ATTR = "calibrator"


@dataclass(frozen=True)
class KnotCalibrator:
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

    Raises
    ------
    InputError
        The knots are no monotone curve inside 0..1.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    name: str = ""
    fitted_on: str = ""

    def __post_init__(self) -> None:
        """Turn knots into plain floats, and refuse a curve that is not monotone."""
        for axis in ("x", "y"):
            try:
                knots = tuple(float(value) for value in getattr(self, axis))
            except (TypeError, ValueError):
                raise InputError(f"{axis} of a calibrator is not a list of numbers: give its knots as floats") from None
            if not all(math.isfinite(value) and 0 <= value <= 1 for value in knots):
                raise InputError(f"{axis} of a calibrator has knots outside 0..1: give probabilities")
            object.__setattr__(self, axis, knots)
        if len(self.x) != len(self.y) or len(self.x) < 2:
            raise InputError(f"a calibrator has {len(self.x)} x and {len(self.y)} y: give the same number, at least 2")
        if not np.all(np.diff(self.x) > 0):
            raise InputError("x of a calibrator does not increase strictly: sort the knots and drop repeated ones")
        if not np.all(np.diff(self.y) >= 0):
            raise InputError("y of a calibrator falls somewhere: a calibration curve must be monotone")

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

    def to_json(self) -> dict[str, Any]:
        """Return the calibrator as plain JSON types."""
        return {
            "type": KIND,
            "name": self.name,
            "fitted_on": self.fitted_on,
            "x": list(self.x),
            "y": list(self.y),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> KnotCalibrator:
        """Build the calibrator that `to_json` described.

        Raises
        ------
        InputError
            `content` describes another kind of calibrator, or none.
        """
        if not isinstance(content, Mapping) or content.get("type") != KIND:
            kind = content.get("type") if isinstance(content, Mapping) else type(content).__name__
            raise InputError(f"calibrator type {kind!r} is not allowed: give the JSON of a {KIND!r} calibrator")
        missing = [key for key in ("x", "y") if not isinstance(content.get(key), list | tuple)]
        if missing:
            raise InputError(f"the calibrator lacks the list {missing[0]!r}: give x and y of its knots")
        name, fitted_on = str(content.get("name", "")), str(content.get("fitted_on", ""))
        return cls(tuple(content["x"]), tuple(content["y"]), name, fitted_on)


Pairs = Iterable[tuple[ArrayLike, ArrayLike]]


def _tiles(probability: Any, reference: Any) -> Iterator[tuple[ArrayLike, ArrayLike]]:
    """Yield `(probability, reference)` tile by tile; a Dask-backed map is read one chunk at a time."""
    if reference is None:
        for pair in probability:
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise InputError("a tile is no (probability, reference) pair: give an iterable of pairs, or two arrays")
            yield pair[0], pair[1]
        return
    if isinstance(probability, xr.DataArray) and isinstance(reference, xr.DataArray):
        try:
            xr.align(probability, reference, join="exact")
        except ValueError:
            raise InputError(
                "probability and reference have different coordinates: select the same years and grid"
            ) from None
        reference = reference.transpose(*probability.dims)
    p, y = (one.data if isinstance(one, xr.DataArray) else one for one in (probability, reference))
    if np.shape(p) != np.shape(y):
        raise InputError(f"probability has shape {np.shape(p)}, its reference {np.shape(y)}: give both on one grid")
    if not isinstance(p, da.Array):
        yield p, y
        return
    bounds = [np.concatenate([[0], np.cumsum(sizes)]).astype(int) for sizes in p.chunks]
    for index in np.ndindex(*p.numblocks):
        part = tuple(slice(edges[i], edges[i + 1]) for edges, i in zip(bounds, index, strict=True))
        yield np.asarray(p[part]), np.asarray(y[part])


def _histogram(probability: Any, reference: Any, bins: int) -> NDArray[np.float64]:
    if bins < 2:
        raise InputError(f"bins {bins} is not allowed: give at least 2")
    sums = np.zeros((3, bins))
    for p, y in _tiles(probability, reference):
        sums += bin_sums(p, y, bins)
    if not sums[0].any():
        raise InputError("no pixel has both a probability and a reference: give tiles where both are observed")
    return sums


def fit_calibrator(
    probability: ArrayLike | xr.DataArray | Pairs,
    reference: ArrayLike | xr.DataArray | None = None,
    *,
    method: str = "isotonic",
    bins: int = 10_000,
    name: str = "isotonic",
    fitted_on: str = "",
) -> KnotCalibrator:
    """Fit P(glacier | probability).

    Tiles are added to a fine histogram of probability and forgotten, so memory does not grow with their number; the
    curve is the weighted isotonic regression of the bins' mean reference on their mean probability.

    Parameters
    ----------
    probability
        Model probability 0..1 of any shape, NaN where nothing was observed; a Dask-backed array is read chunk by
        chunk. Or, without `reference`, an iterable of `(probability, reference)` tiles.
    reference
        True ice cover of each pixel, 0..1 (a class or a covered fraction), NaN where unknown.
    method
        ``"isotonic"``.
    bins
        Bins of the histogram. With the default of 10,000 the curve is that of the pixels themselves to 1e-4.
    name, fitted_on
        Name and provenance kept with the calibrator.

    Raises
    ------
    InputError
        A value outside 0..1, tiles of different shapes, no usable pixel, or a reference without both ice and no ice.

    Notes
    -----
    Judge the result with `reliability` on data that was not used here.
    """
    if method != "isotonic":
        raise InputError(f"method {method!r} is not allowed: give 'isotonic'")
    count, sum_p, sum_y = _histogram(probability, reference, bins)
    filled = count > 0
    count, x, y = count[filled], sum_p[filled] / count[filled], sum_y[filled] / count[filled]
    share = float(np.average(y, weights=count))
    if not 0 < share < 1:
        raise InputError(f"the reference is {share:.0%} ice: give tiles with both ice and ice-free ground")
    if len(x) < 2:
        raise InputError(f"every probability is near {x[0]:g}: a curve needs maps with different probabilities")
    # here, not above: importing scikit-learn takes longer than the rest of the package
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y, sample_weight=count)
    knots_x = np.clip(model.X_thresholds_, 0, 1)
    return KnotCalibrator(tuple(knots_x.tolist()), tuple(model.y_thresholds_.tolist()), name, fitted_on)


def reliability(
    probability: ArrayLike | xr.DataArray | Pairs,
    reference: ArrayLike | xr.DataArray | None = None,
    *,
    bins: int = 100,
    calibrator: Calibrator | None = None,
) -> xr.Dataset:
    """Return the reliability table of probabilities, and their expected calibration error.

    Parameters
    ----------
    probability, reference
        As in `fit_calibrator`, but of data that no calibrator was fitted on.
    bins
        Equal bins of probability over 0..1.
    calibrator
        Applied to the probabilities first; None judges them as they are.

    Returns
    -------
    xarray.Dataset
        `pixels`, `mean_probability` and `ice_fraction` `(bin)` float64, NaN in empty bins, and the scalar `ece`: the
        mean of their absolute difference over pixels (dimensionless).
    """
    tiles: Iterable[tuple[ArrayLike, ArrayLike]] = _tiles(probability, reference)
    if calibrator is not None:
        tiles = ((calibrator(np.asarray(p)), y) for p, y in tiles)
    count, sum_p, sum_y = _histogram(tiles, None, bins)
    per_pixel = np.where(count > 0, 1 / np.maximum(count, 1), np.nan)
    return xr.Dataset(
        {
            "pixels": ("bin", count),
            "mean_probability": ("bin", sum_p * per_pixel, {"units": "1"}),
            "ice_fraction": ("bin", sum_y * per_pixel, {"units": "1"}),
            "ece": ((), float(np.abs(sum_p - sum_y).sum() / count.sum()), {"long_name": "expected calibration error"}),
        },
        coords={"bin": ("bin", (np.arange(bins) + 0.5) / bins, {"long_name": "bin centre", "units": "1"})},
    )


def as_calibrator(calibrator: Calibrator | Mapping[str, Any] | StrPath) -> Calibrator:
    """Return a calibrator from itself, from its JSON content, or from the path of a JSON file."""
    if isinstance(calibrator, Mapping):
        return KnotCalibrator.from_json(calibrator)
    if isinstance(calibrator, str | PathLike):
        try:
            return KnotCalibrator.from_json(json.loads(Path(calibrator).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(
                f"calibrator {str(calibrator)!r} cannot be read ({error}): give the path of a calibrator's JSON file"
            ) from None
    if not isinstance(calibrator, Calibrator):
        raise InputError(f"{type(calibrator).__name__} is no calibrator: give a KnotCalibrator, its dict, or a path")
    return calibrator


def calibrate(
    ds: xr.Dataset, calibrator: Calibrator | Mapping[str, Any] | StrPath, *, name: str = schema.CALIBRATED
) -> xr.Dataset:
    """Add calibrated probabilities to a dataset of yearly maps.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and a CRS.
    calibrator
        A Calibrator, the path of its JSON file, or its JSON as a dict.
    name
        Name of the new variable.

    Returns
    -------
    xarray.Dataset
        `ds` with `calibrated (year, y, x)` float32, lazy where `probability` is; its attribute `calibrator` holds the
        calibrator's JSON. `probability` is kept as it was. NaN stays NaN.

    Raises
    ------
    InputError
        The calibrator cannot be used, or the maps are calibrated already. Values outside 0..1 raise it when they are
        computed.
    SchemaError
        `probability` or its CRS is missing.
    """
    curve = as_calibrator(calibrator)
    probability = schema.validate_maps(ds, "calibrate")
    if name in ds.variables:
        raise InputError(f"the dataset has {name!r} already: drop it first, or give another name for the new variable")
    if CALIBRATOR_ATTR in probability.attrs:
        raise InputError("the probability is calibrated already: calibrate the model's own probability, once")
    data = probability.data
    if probability.chunks is None:
        values = curve(np.asarray(data))
    else:
        values = data.map_blocks(curve, meta=np.empty((0, 0, 0), np.float32))
    attrs = {key: value for key, value in probability.attrs.items() if key == "grid_mapping"}
    attrs |= {
        "long_name": "calibrated probability of glacier",
        "units": "1",
        CALIBRATOR_ATTR: json.dumps(curve.to_json()),
    }
    calibrated = probability.copy(data=values)
    calibrated.attrs = attrs
    calibrated.encoding = {k: v for k, v in probability.encoding.items() if k == "grid_mapping"}
    return ds.assign({name: calibrated})
