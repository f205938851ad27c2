"""Which call drew each year: years of one call share their draws, those of two calls do not, whatever their seed."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr.errors import InputError
from icemap_xr.schema import YEAR

#: coordinate `(year,)` int64 of areas with draws: the same number for the years that one call drew
DRAW_CALL = "draw_call"


def draw_call(seed: int, years: ArrayLike) -> tuple[str, NDArray[np.int64]]:
    """Return the coordinate `draw_call (year)` of what one call drew with a seed for these years, as a variable."""
    labels = [str(year) for year in np.asarray(years).tolist()]
    # 52 bits, which every reader of numbers keeps
    number = int(hashlib.sha256(f"{int(seed)} {labels}".encode()).hexdigest()[:13], 16)
    return YEAR, np.full(len(labels), number, np.int64)


def with_draw_calls(areas: xr.Dataset) -> xr.Dataset:
    """Return areas that say which call drew them; those that did not say count as one call of their own."""
    drawn = any("draw" in var.dims and YEAR in var.dims for var in areas.data_vars.values())
    if DRAW_CALL in areas.coords or not drawn:
        return areas
    return areas.assign_coords({DRAW_CALL: draw_call(int(areas.attrs.get("seed", 0)), areas[YEAR].values)})


def check_one_call(areas: xr.Dataset, years: NDArray[Any], what: str) -> None:
    """Refuse to compare the draws of years that several calls drew.

    Draw `k` of one call has other errors than draw `k` of another, also the lasting ones, which cancel in a change only
    if they are the same: the interval would have any width but the right one.

    Raises
    ------
    InputError
        Several calls drew them.
    """
    if DRAW_CALL not in areas.coords or areas[DRAW_CALL].dims != (YEAR,):
        return
    calls: dict[int, list[str]] = {}
    for year, call in zip(areas[YEAR].values, areas[DRAW_CALL].values, strict=True):
        if year in years:
            calls.setdefault(int(call), []).append(f"{year:g}")
    if len(calls) > 1:
        parts = " and ".join(", ".join(one) for one in calls.values())
        raise InputError(
            f"{what} cannot compare draws of different calls: those of {parts} were drawn apart, so their errors are "
            "not paired; compute the areas of all these years in one call, from the maps of all of them"
        )
