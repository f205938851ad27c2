"""The year index: which scenes of a native series make up the steps of a year, and the model view made from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError, SchemaError

Gaps = Literal["error", "nearest", "nodata"]
GAPS: tuple[Gaps, ...] = ("error", "nearest", "nodata")


def year_bounds(year: int, year_start: str = "01-01") -> tuple[np.datetime64, np.datetime64]:
    """Return the first moment of a year and of the next one; a year is named after the one it starts in."""
    try:
        return np.datetime64(f"{year:04d}-{year_start}", "ns"), np.datetime64(f"{year + 1:04d}-{year_start}", "ns")
    except ValueError:
        raise InputError(f"year_start {year_start!r} is no day of every year: give month-day such as '10-01'") from None


def year_targets(year: int, steps: int, year_start: str = "01-01") -> NDArray[np.datetime64]:
    """Return the middle moments of `steps` equal parts of a year."""
    start, end = year_bounds(year, year_start)
    part = (end - start).astype("int64") / steps
    return start + ((np.arange(steps) + 0.5) * part).astype("timedelta64[ns]")


def year_index(
    times: NDArray[np.datetime64],
    usable: NDArray[np.bool_],
    years: Sequence[int],
    *,
    steps: int = 15,
    year_start: str = "01-01",
    tolerance_days: float | None = None,
) -> NDArray[np.int32]:
    """Choose the scenes of each year.

    A year is cut into `steps` equal parts. Scenes are assigned to the middles of the parts so that the summed time
    difference is least, each scene at most once and in order of time. With exactly `steps` scenes each is taken once;
    with fewer, the parts that none is left for get -1. With a tolerance as many parts as can be get a scene that is
    near enough, and among these choices the least sum counts.

    Parameters
    ----------
    times
        Scene times, ascending.
    usable
        Scenes that may be taken (those with any valid pixel).
    years
        Years to index.
    steps
        Scenes per year.
    year_start
        Month and day on which a year begins.
    tolerance_days
        A scene further than this from its part's middle is not taken; None takes any of the year.

    Returns
    -------
    numpy.ndarray
        `(year, step)` int32 positions in `times`; -1 = none.
    """
    from scipy.optimize import linear_sum_assignment  # slow to import, and needed only here

    out = np.full((len(years), steps), -1, np.int32)
    for row, year in enumerate(years):
        start, end = year_bounds(year, year_start)
        candidates = np.flatnonzero(usable & (times >= start) & (times < end))
        if candidates.size == 0:
            continue
        targets = year_targets(year, steps, year_start)
        days = np.abs((times[candidates, None] - targets[None, :]) / np.timedelta64(1, "D"))
        near = np.ones(days.shape, bool) if tolerance_days is None else days <= tolerance_days
        # a scene that is too far costs more than any sum of near ones, so none of those gives way to it
        scenes, parts = linear_sum_assignment(np.where(near, days, days.max() * (steps + 1)))
        taken = near[scenes, parts]
        # the least sum does not fix the order among ties; time does
        out[row, np.sort(parts[taken])] = candidates[scenes[taken]]
    return out


def fill_gaps(index: NDArray[np.int32], gaps: Gaps, *, feature: str, years: Sequence[int]) -> NDArray[np.int32]:
    """Apply the gap rule to an index `(year, step)`.

    Parameters
    ----------
    index
        Year index; -1 = no scene.
    gaps
        ``"error"`` refuses a year with a gap, ``"nearest"`` repeats the scene of the nearest filled step (the earlier
        one on a tie), ``"nodata"`` leaves the step unobserved.
    feature, years
        Names for the message.

    Raises
    ------
    SchemaError
        A year has a gap and `gaps` is ``"error"``, or a year has no scene at all.
    """
    if gaps not in GAPS:
        raise InputError(f"gaps={gaps!r} is not allowed: choose one of {', '.join(GAPS)}")
    out = index.copy()
    for row, year in enumerate(years):
        filled = np.flatnonzero(index[row] >= 0)
        if filled.size == index.shape[1]:
            continue
        if filled.size == 0:
            raise SchemaError(f"{year} has no {feature} scene: leave the year out with years=")
        if gaps == "error":
            raise SchemaError(
                f"{year} has {filled.size} of {index.shape[1]} {feature} scenes: leave the year out, or choose "
                "gaps='nearest' (repeat the nearest scene) or gaps='nodata'"
            )
        if gaps == "nearest":
            distance = np.abs(np.arange(index.shape[1])[:, None] - filled[None, :])
            out[row] = index[row, filled[distance.argmin(axis=1)]]
    return out


def yearly(
    cube: xr.Dataset,
    *,
    features: Sequence[str] | None = None,
    years: Sequence[int] | None = None,
    gaps: Gaps = "error",
) -> xr.Dataset:
    """Return the model view of a native cube, `(year, step, y, x)` float32, lazy.

    Parameters
    ----------
    cube
        Native cube, `<feature> (<feature>_time, y, x)` with `<feature>_index (year, step)`.
    features
        Features to keep; all by default.
    years
        Years to keep; all by default.
    gaps
        What to do with a step that has no scene, see `fill_gaps`.

    Raises
    ------
    SchemaError
        The dataset is no cube, lacks a feature or year, or has gaps and `gaps` is ``"error"``.
    """
    have = schema.validate_cube(cube, "yearly")
    wanted = tuple(features or have)
    missing = [name for name in wanted if name not in have]
    if missing:
        raise SchemaError(f"the cube has no {', '.join(missing)}: it has {', '.join(have)}")
    cube = select_years(cube, years)
    labels = [int(year) for year in cube[schema.YEAR].values]
    out = {}
    for name in wanted:
        one = schema.feature(name)
        index = fill_gaps(cube[one.index].values, gaps, feature=name, years=labels)
        positions = xr.DataArray(np.maximum(index, 0), dims=(schema.YEAR, schema.STEP))
        view = cube[name].drop_vars([c for c in cube[name].coords if one.time in cube[name][c].dims])
        view = view.isel({one.time: positions})
        if (index < 0).any():
            view = view.where(xr.DataArray(index >= 0, dims=(schema.YEAR, schema.STEP)))
        out[name] = view.assign_attrs(cube[name].attrs)
    ds = xr.Dataset(out, attrs=cube.attrs)
    return ds.assign_coords({schema.YEAR: labels})


def select_years(cube: xr.Dataset, years: Sequence[int] | None) -> xr.Dataset:
    """Return the dataset with the given years only, in their order.

    Parameters
    ----------
    cube
        Dataset with a coordinate `year`.
    years
        Labels, in a list or array; None for all.

    Raises
    ------
    InputError
        `years` is no list of years, or an empty one.
    SchemaError
        The dataset has no year, or one twice, or lacks one that is asked for; or one is asked for twice.
    """
    have = cube[schema.YEAR].values.tolist()
    if not have:
        raise SchemaError("the dataset has no year: keep at least one")
    wanted = have if years is None else _labels(years, have[0])
    for what, labels in (("the dataset has", have), ("asked for are", wanted)):
        if len(set(labels)) != len(labels):
            raise SchemaError(f"{what} the years {labels}, some twice: keep one of each")
    if years is None:
        return cube
    absent = [year for year in wanted if year not in have]
    if absent:
        raise SchemaError(f"years {absent} are not in the dataset: it has {have}")
    return cube.sel({schema.YEAR: wanted})


def _labels(years: Sequence[int], example: int) -> list[int]:
    """Return years as a plain list, whatever held them: a list, a range, an array or a coordinate."""
    try:
        found = np.asarray([] if isinstance(years, str) else list(years))
    except (TypeError, ValueError):  # one number; lists of lists
        found = np.array([])
    if found.ndim != 1 or not found.size:
        shown = " ".join(repr(years).split())
        raise InputError(f"years={shown} is not allowed: give a list of one year or more, such as [{example}]")
    labels: list[int] = found.tolist()
    return labels
