"""What stages share: checks of options, which are refused everywhere in the same words, and attributes of results."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError, SchemaError


def made_by() -> dict[str, str]:
    """Return the attributes of a result that say which conventions it follows and what made it."""
    return {"Conventions": "CF-1.11", "source": f"icemap-xr {version('icemap-xr')}"}


def check_level(level: Any) -> None:
    """Raise `InputError` unless `level` is a share between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, int | float | np.number) or not 0 < level < 1:
        raise InputError(f"level {level!r} is not allowed: give a share between 0 and 1, for example 0.95")


def check_threshold(threshold: Any) -> None:
    """Raise `InputError` unless `threshold` is a probability below 1."""
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not number or not 0 <= threshold < 1:
        raise InputError(f"threshold {threshold!r} is not allowed: give a probability 0 <= threshold < 1")


def check_count(n: Any, what: str = "draws") -> None:
    """Raise `InputError` unless `n` is a whole number of at least 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n {n!r} is not allowed: give a whole number of {what} >= 1")


def check_seed(seed: Any) -> None:
    """Raise `InputError` unless `seed` is a whole number of at least 0: without one, nothing can be repeated."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed {seed!r} is not allowed: give a whole number >= 0, so that the draws can be repeated")


def calendar_years(data: xr.Dataset | xr.DataArray, what: str) -> NDArray[Any]:
    """Return the year labels `(year,)` of maps or areas.

    Raises
    ------
    SchemaError
        There are none, or they are no numbers: dates would be taken for nanoseconds, and positions for years.
    """
    if schema.YEAR not in data.coords:
        raise SchemaError(f"{what} needs the coordinate 'year': assign calendar years, assign_coords(year=[2016, ...])")
    years: NDArray[Any] = data[schema.YEAR].values
    if not np.issubdtype(years.dtype, np.number):
        raise SchemaError(
            f"{what} needs years as numbers, not {years.dtype}: for example ds.assign_coords(year=ds.year.dt.year)"
        )
    return years
