"""Calibration: from model probability to P(glacier | probability), by a monotone piecewise linear curve.

Filter yearly maps over time first, then calibrate: a calibrator holds for the kind of map it was fitted on. The
published method (`method="kernel-ridge"`) is there to repeat published numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, overload

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr import schema
from icemap_xr.calibrators import KernelRidgeCalibrator, KnotCalibrator, as_calibrator, calibrator_from_json
from icemap_xr.errors import CalibrationMismatchWarning, InputError, InSampleWarning, warn
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.kernels.curves import METHODS, Histogram
from icemap_xr.kernels.probabilities import check_probabilities
from icemap_xr.kernels.reliability import bin_sums
from icemap_xr.types import Calibrator, StrPath

__all__ = [
    "KernelRidgeCalibrator",
    "KnotCalibrator",
    "as_calibrator",
    "calibrate",
    "calibrator_from_json",
    "fit_calibrator",
    "reliability",
]

#: attribute that marks a calibrated map and says by what
CALIBRATOR_ATTR = "calibrator"
#: attribute of a map that was filtered over years, and what stands for its absence
FILTER_ATTR, SINGLE_YEARS = "temporal_filter", "single years"
_RIDGE = "kernel-ridge"

Pairs = Iterable[tuple[ArrayLike, ArrayLike]]


def tiles_of(probability: Any, reference: Any) -> Iterator[tuple[ArrayLike, ArrayLike]]:
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
        if set(reference.dims) != set(probability.dims):
            raise InputError(
                f"probability has dims {tuple(probability.dims)}, its reference {tuple(reference.dims)}: give both for "
                "the same years, reference.expand_dims(year=...)"
            )
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


class _Digest:
    """Knows data by how many pixels of each probability they have, with ice and without, whatever their order."""

    def __init__(self) -> None:
        self._counts = np.zeros((2, 256), np.int64)

    def watch(self, tiles: Iterable[tuple[ArrayLike, ArrayLike]]) -> Iterator[tuple[ArrayLike, ArrayLike]]:
        """Yield tiles as they are, and note what they hold."""
        for p, y in tiles:
            yield p, y  # first: what takes the tile checks it
            values, ice = np.asarray(p, np.float64), np.asarray(y, np.float64)
            known = np.isfinite(values) & np.isfinite(ice)
            bin_of = np.clip(values[known] * 256, 0, 255).astype(np.intp)
            for row, these in zip(self._counts, (ice[known] > 0.5, ice[known] <= 0.5), strict=True):
                row += np.bincount(bin_of[these], minlength=256)

    def text(self) -> str:
        """Return the digest."""
        return hashlib.sha256(self._counts.astype("<i8").tobytes()).hexdigest()[:16]


def _histogram(tiles: Iterable[tuple[ArrayLike, ArrayLike]], bins: int) -> NDArray[np.float64]:
    if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 2:
        raise InputError(f"bins {bins!r} is not allowed: give a whole number of at least 2")
    sums = np.zeros((3, bins))
    for p, y in tiles:
        sums += bin_sums(p, y, bins)
    if not sums[0].any():
        raise InputError("no pixel has both a probability and a reference: give tiles where both are observed")
    return sums


@overload
def fit_calibrator(
    probability: ArrayLike | xr.DataArray | Pairs,
    reference: ArrayLike | xr.DataArray | None = None,
    *,
    method: Literal["kernel-ridge"],
    bins: int | None = None,
    name: str | None = None,
    fitted_on: str = "",
    map_kind: str | None = None,
) -> KernelRidgeCalibrator: ...


@overload
def fit_calibrator(
    probability: ArrayLike | xr.DataArray | Pairs,
    reference: ArrayLike | xr.DataArray | None = None,
    *,
    method: Literal["isotonic", "beta", "temperature"] = "isotonic",
    bins: int | None = None,
    name: str | None = None,
    fitted_on: str = "",
    map_kind: str | None = None,
) -> KnotCalibrator: ...


def fit_calibrator(
    probability: ArrayLike | xr.DataArray | Pairs,
    reference: ArrayLike | xr.DataArray | None = None,
    *,
    method: str = "isotonic",
    bins: int | None = None,
    name: str | None = None,
    fitted_on: str = "",
    map_kind: str | None = None,
) -> KnotCalibrator | KernelRidgeCalibrator:
    """Fit P(glacier | probability).

    Tiles are added to a fine histogram and forgotten, so memory does not grow with their number.

    Parameters
    ----------
    probability
        Model probability 0..1 of any shape, NaN where nothing was observed; a Dask-backed array is read chunk by
        chunk. Or, without `reference`, an iterable of `(probability, reference)` tiles.
    reference
        True ice cover of each pixel, 0..1 (a class or a covered fraction), NaN where unknown.
    method
        ``"isotonic"``: weighted isotonic regression, any monotone shape. ``"beta"``: three parameters, smooth.
        ``"temperature"``: one parameter, cannot correct a bias. ``"kernel-ridge"``: the published regression of
        accuracy on confidence, which is not monotone (see Notes).
    bins
        Bins of the histogram: of probability, 10,000 by default, with which the curve is that of the pixels
        themselves to 1e-4; for ``"kernel-ridge"`` of confidence, 100 by default, as published.
    name, fitted_on
        Name (by default the method) and provenance kept with the calibrator.
    map_kind
        What was done to the maps; see `KnotCalibrator`. By default what a DataArray says of itself, and of plain arrays
        that it is not known.

    Raises
    ------
    InputError
        A value outside 0..1, tiles of different shapes, no usable pixel, or a reference without both ice and no ice.

    Notes
    -----
    Judge the result with `reliability` on data that was not used here.

    The published method: mean confidence and accuracy of 100 bins, an anchor at (0, 0) and one at (1, 1), then
    scikit-learn's ``KernelRidge(kernel="laplacian", alpha=1e-2 * (1 - w))`` with ``w = (n / max n) ** 0.1``.
    Scikit-learn takes an array of penalties as one for each target, and there is one target: only the first is used,
    which is the anchor's, 0. So the published curve runs through every bin exactly.
    """
    if method != _RIDGE and method not in METHODS:
        raise InputError(f"method {method!r} is not allowed: give one of {', '.join([*METHODS, _RIDGE])}")
    if map_kind is None:
        map_kind = kind_of(probability) if isinstance(probability, xr.DataArray) else ""
    labels = (method if name is None else name, fitted_on, map_kind)
    seen = _Digest()
    tiles = seen.watch(tiles_of(probability, reference))
    if method == _RIDGE:
        return _fit_ridge(tiles, 100 if bins is None else bins, labels, seen)
    sums = _histogram(tiles, 10_000 if bins is None else bins)
    filled = sums[0] > 0
    count, x, y = sums[0, filled], sums[1, filled] / sums[0, filled], sums[2, filled] / sums[0, filled]
    share = float(np.average(y, weights=count))
    if not 0 < share < 1:
        raise InputError(f"the reference is {share:.0%} ice: give tiles with both ice and ice-free ground")
    if len(x) < 2:
        raise InputError(f"every probability is near {x[0]:g}: a curve needs maps with different probabilities")
    knots_x, knots_y = METHODS[method](Histogram(count, x, y))
    return KnotCalibrator(tuple(knots_x.tolist()), tuple(knots_y.tolist()), *labels, seen.text())


def _fit_ridge(
    tiles: Iterable[tuple[ArrayLike, ArrayLike]], bins: int, labels: tuple[str, str, str], seen: _Digest
) -> KernelRidgeCalibrator:
    """Fit the published regression: accuracy over confidence."""
    count, x, y = _histogram(map(_confidence_and_truth, tiles), bins)
    filled = count > 0
    count = count[filled]
    x = np.concatenate([[0.0], x[filled] / count, [1.0]])
    y = np.concatenate([[0.0], y[filled] / count, [1.0]])
    penalty = 1e-2 * (1 - np.concatenate([[1.0], (count / count.max()) ** 0.1, [1.0]]))
    # here, not above: importing scikit-learn takes longer than the rest of the package
    from sklearn.kernel_ridge import KernelRidge

    model = KernelRidge(kernel="laplacian", alpha=penalty).fit(x[:, None], y)
    return KernelRidgeCalibrator.from_support(model.X_fit_, model.dual_coef_, *labels, seen.text())


def _confidence_and_truth(tile: tuple[ArrayLike, ArrayLike]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the confidence of each pixel, and 1 where its class is right."""
    p, y = np.asarray(tile[0], np.float64), np.asarray(tile[1], np.float64)
    check_probabilities(p, "fitting")
    check_probabilities(y, "the reference")
    if p.shape != y.shape:
        raise InputError(f"probability has shape {p.shape}, its reference {y.shape}: give both on the same grid")
    known = np.isfinite(p) & np.isfinite(y)
    return np.where(known, shannon_confidence(p), np.nan), np.where(known, (p >= 0.5) == (y >= 0.5), np.nan)


def kind_of(array: xr.DataArray) -> str:
    """Return what was done to a map: the filter's name, or that it shows single years."""
    return str(array.attrs.get(FILTER_ATTR, SINGLE_YEARS))


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

    Warns
    -----
    InSampleWarning
        The calibrator was fitted to all these data and no others. Data of which it was fitted to a part are not
        recognised.

    Returns
    -------
    xarray.Dataset
        `pixels`, `mean_probability` and `ice_fraction` `(bin)` float64, NaN in empty bins, and the scalar `ece`: the
        mean of their absolute difference over pixels (dimensionless).
    """
    seen = _Digest()
    tiles = seen.watch(tiles_of(probability, reference))
    if calibrator is not None:
        tiles = ((calibrator(np.asarray(p)), y) for p, y in tiles)
    count, sum_p, sum_y = _histogram(tiles, bins)
    if getattr(calibrator, "fit_digest", "") == seen.text():
        warn(
            "the calibrator was fitted to these very data, and is judged too well by them: give data that were not "
            "used for the fit",
            InSampleWarning,
        )
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

    Warns
    -----
    CalibrationMismatchWarning
        The calibrator was fitted on single years and the maps are filtered over time, or the other way round.

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
    _compare_kinds(curve, probability)
    data = probability.data
    if probability.chunks is None:
        values = curve(np.asarray(data))
    else:
        values = data.map_blocks(curve, meta=np.empty((0, 0, 0), np.float32))
    kept = ("grid_mapping", FILTER_ATTR, f"{FILTER_ATTR}_effect")
    attrs = {key: value for key, value in probability.attrs.items() if key in kept}
    attrs |= {
        "long_name": "calibrated probability of glacier",
        "units": "1",
        CALIBRATOR_ATTR: json.dumps(curve.to_json()),
    }
    calibrated = probability.copy(data=values)
    calibrated.attrs = attrs
    calibrated.encoding = {k: v for k, v in probability.encoding.items() if k == "grid_mapping"}
    return ds.assign({name: calibrated})


def _compare_kinds(curve: Calibrator, probability: xr.DataArray) -> None:
    """Warn where the maps are not of the kind that the calibrator was fitted on."""
    fitted, given = str(getattr(curve, "map_kind", "")), kind_of(probability)
    if fitted and fitted != given:
        warn(
            f"the calibrator was fitted on maps of the kind {fitted!r} and the maps are {given!r}: its probabilities "
            "do not hold for them; filter the maps as those of the fit were, or fit it again",
            CalibrationMismatchWarning,
        )
