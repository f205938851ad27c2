"""Temporal filter of yearly maps. Filter first, then calibrate."""

from __future__ import annotations

from functools import partial

import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.kernels.filters import median_of_years


def filter_years(ds: xr.Dataset, *, window: int = 3, method: str = "median") -> xr.Dataset:
    """Replace the probability of each year by the median of the years around it.

    What lasts fewer than ``(window + 1) / 2`` years (one wet-snow summer, for a window of 3) is removed. A pixel whose
    probability only falls, or only rises, is returned unchanged: lasting retreat or advance is neither delayed nor
    erased, whatever its size. A pixel that turns to ice and back within ``(window - 1) / 2`` years is taken for
    noise, also where it was real.

    Years at the same distance before and after count only together and only where both are observed. So the window
    shrinks towards the first and last year and towards gaps; the first and the last year are not filtered, and
    keep their noise. NaN stays NaN: nothing is filled.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)`, NaN where nothing was observed, and a CRS; `year` in calendar years.
    window
        Years, odd, at least 3.
    method
        ``"median"``.

    Returns
    -------
    xarray.Dataset
        `ds` with `probability` filtered, same dtype, lazy where it was lazy (a Dask array is rechunked over `year`
        only, so memory per task is years x chunk); attribute `temporal_filter`.

    Raises
    ------
    InputError
        A wrong option, years that are no whole numbers, or maps that are calibrated already.
    SchemaError
        `probability` or its CRS is missing, or a year is repeated.
    """
    if method != "median":
        raise InputError(f"method {method!r} is not allowed: give 'median'")
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 3 or window % 2 == 0:
        raise InputError(f"window {window!r} is not allowed: give an odd number of years >= 3")
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
    kernel = partial(median_of_years, years=ds[schema.YEAR].values.tolist(), window=int(window))
    data = probability.data
    if probability.chunks is None:
        filtered = kernel(np.asarray(data))
    else:
        filtered = data.rechunk({0: -1}).map_blocks(kernel, meta=np.empty((0, 0, 0), data.dtype))
    result = probability.copy(data=filtered)
    result.attrs = {**probability.attrs, "temporal_filter": f"median of {window} years"}
    return ds.assign({schema.PROBABILITY: result})
