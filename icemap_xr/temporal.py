"""Temporal filter of yearly maps. Filter first, then calibrate."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.blocktable import block_table
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.filters import SUREST, majority_of_years, markov_of_years, median_of_years
from icemap_xr.kernels.probabilities import check_probabilities

METHODS = ("median", "majority", "hmm")


def filter_years(
    ds: xr.Dataset,
    *,
    window: int = 3,
    method: Literal["median", "majority", "hmm"] = "median",
    stay: float = 0.9,
) -> xr.Dataset:
    """Filter the probability of each year by the years around it.

    ``"median"`` and ``"majority"``: what lasts fewer than ``(window + 1) / 2`` years (one wet-snow summer, for a window
    of 3) is removed. A pixel whose probability only falls, or only rises, is returned unchanged: lasting retreat or
    advance is neither delayed nor erased, whatever its size. A pixel that turns to ice and back within
    ``(window - 1) / 2`` years is taken for noise, also where it was real. Years at the same distance before and after
    count only together and only where both are observed. So the window shrinks towards the first and last year and
    towards gaps; the first and the last year are not filtered, and keep their noise.

    ``"hmm"``: the probability of ice given all years, if a pixel keeps its state with probability `stay` a year. One
    year's evidence is cut to 0.05..0.95, so with the default `stay` a sure single year between two sure years of the
    other state is removed, and a sure change that lasts two years, or that begins in the last year, is kept. An unsure
    year (0.1..0.9 by default) at either end takes the state of its neighbours: there, a change that is not seen
    clearly is delayed by one year. With `stay` of 0.95 and more, even a sure change in the first or last year is held
    back until a second year shows it, and a state of two years between others may be removed, however large it is.

    NaN stays NaN: nothing is filled.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)`, NaN where nothing was observed, and a CRS; `year` in calendar years.
    window
        Years, odd, at least 3; for ``"median"`` and ``"majority"``.
    method
        ``"median"`` of the probabilities. ``"majority"``: probabilities keep their value where their class (above 0.5)
        is that of most years in the window, and are replaced by the median elsewhere; the classes are those of the
        median. ``"hmm"``: hidden Markov model of two states.
    stay
        Probability that a pixel keeps its state from one year to the next, between 0.5 and 1; for ``"hmm"``.

    Returns
    -------
    xarray.Dataset
        `ds` with `probability` filtered, same dtype, lazy where it was lazy (a Dask array is rechunked over `year`
        only, so memory per task is years x chunk); attributes `temporal_filter` and `temporal_filter_effect`, which
        says in words what is removed and what stays. `filter_effect` measures it.

    Raises
    ------
    InputError
        A wrong option, years that are no whole numbers, or maps that are filtered or calibrated already.
    SchemaError
        `probability` or its CRS is missing, or a year is repeated.
    """
    _check_options(window, method, stay)
    probability = schema.validate_maps(ds, "filter_years")
    if schema.CALIBRATED in ds or "calibrator" in probability.attrs:
        raise InputError(
            "the maps are calibrated already: filter first, then calibrate (drop 'calibrated' to redo both)"
        )
    if not np.issubdtype(ds[schema.YEAR].dtype, np.integer):
        raise InputError(
            f"years of dtype {ds[schema.YEAR].dtype} are not allowed: give calendar years as whole numbers"
        )
    if not np.issubdtype(probability.dtype, np.floating):
        raise InputError(f"'probability' has dtype {probability.dtype}: decode or convert it to a float first")
    name, effect = _in_words(window, method, stay)
    if "temporal_filter" in probability.attrs:
        raise InputError(
            f"the maps are filtered already ({probability.attrs['temporal_filter']}): filter the model's own maps, once"
        )
    years = ds[schema.YEAR].values.tolist()
    kernel = partial(_filtered, years=years, window=int(window), method=method, stay=float(stay))
    data = probability.data
    if probability.chunks is None:
        filtered = kernel(np.asarray(data))
    else:
        filtered = data.rechunk({0: -1}).map_blocks(kernel, meta=np.empty((0, 0, 0), data.dtype))
    result = probability.copy(data=filtered)
    result.attrs = {**probability.attrs, "temporal_filter": name, "temporal_filter_effect": effect}
    return ds.assign({schema.PROBABILITY: result})


def _check_options(window: int, method: str, stay: float) -> None:
    if method not in METHODS:
        raise InputError(f"method {method!r} is not allowed: give one of {', '.join(METHODS)}")
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 3 or window % 2 == 0:
        raise InputError(f"window {window!r} is not allowed: give an odd number of years >= 3")
    if isinstance(stay, bool) or not 0.5 < stay < 1:
        raise InputError(f"stay {stay!r} is not allowed: give a probability between 0.5 and 1, for example 0.9")


def _in_words(window: int, method: str, stay: float) -> tuple[str, str]:
    """Return the filter's name, and what it removes."""
    if method == "hmm":
        kept = "sure changes that last two years or begin in the last year stay; unsure first and last years"
        if stay >= SUREST:
            kept = "so may be states of two years; first and last years, sure or not,"
        return f"hidden Markov model, stay {stay:g}", (
            f"single years of the other state are removed; {kept} take the state of their neighbours"
        )
    return f"{method} of {window} years", (
        f"states of fewer than {(window + 1) // 2} years are removed; lasting change stays; the first and the last "
        "year are not filtered"
    )


def _filtered(values: Any, *, years: list[int], window: int, method: str, stay: float) -> Any:
    check_probabilities(values, "filtering")
    if method == "hmm":
        return markov_of_years(values, years, stay)
    return (median_of_years if method == "median" else majority_of_years)(values, years, window)


def filter_effect(before: xr.Dataset, after: xr.Dataset, *, threshold: float = 0.5) -> xr.Dataset:
    """Measure what a filter did to the classes of each year.

    Parameters
    ----------
    before, after
        Maps before and after `filter_years`, with `probability (year, y, x)`.
    threshold
        Probability above which a pixel is ice.

    Returns
    -------
    xarray.Dataset
        `removed_km2` and `added_km2` `(year)` float64, planar km2, lazy where the maps are: ice that the filter took
        away, and ice that it put there. Attribute `temporal_filter`.

    Raises
    ------
    InputError
        The two are maps of other years or grids.
    """
    first, second = (schema.validate_maps(one, "filter_effect") for one in (before, after))
    try:
        xr.align(first, second, join="exact")
    except ValueError:
        raise InputError(
            "the maps have different years or grids: give a map and what filter_years made of it"
        ) from None
    grid = RegionGrid.from_dataset(before)
    changed = {"removed_km2": (first > threshold) & ~(second > threshold), "added_km2": (second > threshold)}
    changed["added_km2"] &= ~(first > threshold)
    side = max(grid.region_shape)
    tables = {
        name: block_table(one.astype(np.float32), grid, side)["ice_km2"].sum(("block_y", "block_x"))
        for name, one in changed.items()
    }
    kept = {"temporal_filter": str(second.attrs.get("temporal_filter", "")), "threshold": threshold}
    return xr.Dataset({name: one.assign_attrs(units="km2") for name, one in tables.items()}, attrs=kept)
