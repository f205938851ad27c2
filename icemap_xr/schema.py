"""Names, dims, dtypes, units and nodata of the datasets that stages pass on.

Stages meet only here. Every `validate_*` is lazy: it looks at names, dims, dtypes and attributes, never at pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.errors import ModelMismatchWarning, SchemaError, did_you_mean, warn

Y, X, YEAR, STEP = "y", "x", "year", "step"
PROBABILITY = "probability"
CALIBRATED = "calibrated"
SPATIAL_REF = "spatial_ref"

#: attributes of `spatial_ref` that anchor windows and blocks to the region's grid
GRID_ORIGIN = "icemap_grid_origin"
GRID_SHAPE = "icemap_grid_shape"
GRID_RESOLUTION = "icemap_grid_resolution"

#: attribute of `<feature>_index`: sha256 of the times that it counts in
TIMES = "times_sha256"


@dataclass(frozen=True)
class Feature:
    """One feature of a cube and its encoding on disk.

    Parameters
    ----------
    name
        Variable name; its time axis is `<name>_time`, its year index `<name>_index`.
    long_name, units
        CF attributes.
    minimum, maximum
        Constants by which the published networks scale the feature. `minimum` is also the floor that stands for
        zero power: the scaled value is then 0, as where the published program fills.
    step
        Quantisation step on disk (int16), in `units`; the encoding error is at most half of it.
    pair
        Whether a layer belongs to two dates (coherence) rather than one.
    """

    name: str
    long_name: str
    units: str
    minimum: float
    maximum: float
    step: float
    pair: bool = False

    @property
    def time(self) -> str:
        """Name of the time dimension."""
        return f"{self.name}_time"

    @property
    def index(self) -> str:
        """Name of the year index variable."""
        return f"{self.name}_index"

    @property
    def encoding_error(self) -> float:
        """Largest difference between a value and what the cube stores for it, in `units`."""
        return self.step / 2


FEATURES: dict[str, Feature] = {
    f.name: f
    for f in (
        Feature("grd", "Sentinel-1 GRD backscatter", "dB", -146.01214599609375, 43.54314041137695, 0.005),
        Feature("rtc", "Sentinel-1 RTC backscatter", "dB", -121.29015350341797, 44.299530029296875, 0.005),
        Feature("insar", "Sentinel-1 interferometric coherence", "1", 0.0, 0.9979742169380188, 1 / 30000, pair=True),
    )
}

#: int16 code of "no observation"
NODATA_CODE = -32768


def feature(name: str) -> Feature:
    """Return the feature of that name, or raise `SchemaError` naming the nearest one."""
    try:
        return FEATURES[name]
    except KeyError:
        raise SchemaError(
            f"unknown feature {name!r}: allowed are {', '.join(FEATURES)}{did_you_mean(name, FEATURES)}"
        ) from None


def _require(ds: xr.Dataset, name: str, dims: tuple[str, ...], what: str) -> xr.DataArray:
    if name not in ds:
        have = ", ".join(map(str, ds.data_vars)) or "none"
        raise SchemaError(f"{what} needs the variable {name!r}; the dataset has: {have}{did_you_mean(name, ds)}")
    array = ds[name]
    if tuple(array.dims) != dims:
        raise SchemaError(f"{name!r} has dims {tuple(array.dims)}, {what} needs {dims}: transpose or rename them")
    return array


def validate_crs(ds: xr.Dataset, what: str) -> None:
    """Raise `SchemaError` unless the dataset has regular `y` and `x` and a CRS."""
    for axis in (Y, X):
        if axis not in ds.coords or ds[axis].ndim != 1:
            raise SchemaError(f"{what} needs the coordinate {axis!r} (1-D, pixel centres): assign it first")
    if ds.odc.crs is None:
        raise SchemaError(f"{what} needs a CRS: assign one with ds.odc.assign_crs('EPSG:32633')")


def validate_cube(ds: xr.Dataset, what: str = "the cube") -> tuple[str, ...]:
    """Check a native cube and return its feature names.

    A cube has, for each feature, `<feature> (<feature>_time, y, x)` and `<feature>_index (year, step)`.

    Raises
    ------
    SchemaError
        A variable, dim, unit or CRS is missing or wrong.
    """
    names = tuple(name for name in FEATURES if name in ds.data_vars)
    if not names:
        have = ", ".join(map(str, ds.data_vars)) or "none"
        raise SchemaError(f"{what} holds no feature ({', '.join(FEATURES)}); it has: {have}")
    validate_crs(ds, what)
    for name in names:
        one = FEATURES[name]
        array = _require(ds, name, (one.time, Y, X), what)
        _check_index(_require(ds, one.index, (YEAR, STEP), what), array[one.time], one)
        _check_values(array, one, what)
    return names


def times_digest(times: NDArray[np.datetime64]) -> str:
    """Return the sha256 of a time axis, to the second."""
    return hashlib.sha256(times.astype("datetime64[s]").astype("<i8").tobytes()).hexdigest()


def _check_index(index: xr.DataArray, times: xr.DataArray, one: Feature) -> None:
    """Raise `SchemaError` where the index counts in another time axis: it would name other scenes."""
    known = index.attrs.get(TIMES)
    positions = index.values
    outside = positions.size and not (positions.min() >= -1 and positions.max() < times.size)
    if outside or (known is not None and known != times_digest(times.values)):
        raise SchemaError(
            f"{one.index!r} counts scenes of another {one.time!r} than the dataset's {times.size}: scenes were dropped "
            "or sorted after the index was made; choose years with years=, or build the cube from fewer items"
        )


def validate_yearly(ds: xr.Dataset, features: tuple[str, ...], what: str = "predict") -> None:
    """Check a model view: each feature `(year, step, y, x)` in its own units, with a CRS."""
    validate_crs(ds, what)
    for name in features:
        array = _require(ds, name, (YEAR, STEP, Y, X), what)
        _check_values(array, FEATURES.get(name), what)


def _check_values(array: xr.DataArray, one: Feature | None, what: str) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        raise SchemaError(f"{array.name!r} has dtype {array.dtype}, {what} needs a float: decode or convert it first")
    if one is None:
        return
    units = array.attrs.get("units")
    if units is None:
        warn(f"{one.name} has no attrs['units'], {one.units!r} is taken for granted: set it", ModelMismatchWarning)
    elif units != one.units:
        raise SchemaError(
            f"{one.name!r} has units {units!r}, needed are {one.units!r}: convert the values "
            f"(dB = 10 log10 of power) and set attrs['units']"
        )


def is_native(ds: xr.Dataset) -> bool:
    """Whether the dataset is a native cube (feature by time) rather than a model view."""
    return any(name in ds and one.time in ds[name].dims for name, one in FEATURES.items())


def validate_maps(ds: xr.Dataset, what: str, name: str = PROBABILITY) -> xr.DataArray:
    """Check a yearly map `(year, y, x)` with a CRS and return it."""
    array = _require(ds, name, (YEAR, Y, X), what)
    validate_crs(ds, what)
    years = ds[YEAR].values
    if len(np.unique(years)) != len(years):
        raise SchemaError(f"{what} got duplicate years {years.tolist()}: keep one map per year")
    return array
