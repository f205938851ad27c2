"""How far ice is correlated in space, and the block size that follows from it."""

from __future__ import annotations

import math

import geopandas as gpd
import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.blocktable import block_table, choose_map, facts_of
from icemap_xr.domain import within_domain
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.semivariance import fit_exponential, semivariance
from icemap_xr.options import made_by

#: cells along the longer side of the map, at most: finer ones cost memory and say no more about blocks
_MOST_CELLS = 512
#: share of a cell that must be observed
_MOSTLY = 0.5
#: blocks along the shorter side of the map that a suggested block leaves, at least
_FEWEST = 4


def variogram(
    ds: xr.Dataset,
    *,
    year: int | None = None,
    method: str = "soft",
    threshold: float = 0.5,
    max_lag: float | None = None,
    domain: xr.DataArray | gpd.GeoDataFrame | None = None,
) -> xr.Dataset:
    """Measure how unlike the ice cover of two places is, by their distance, and suggest a block size.

    Blocks of a bootstrap count as independent, so they should be about as large as ice cover is correlated. The map is
    summed to at most 512 x 512 cells, chunk by chunk, and every pair of cells up to `max_lag` counts.

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)` and a CRS in metres.
    year
        Which year; the last by default.
    method, threshold
        As in `area`.
    max_lag
        Largest distance in metres; half of the map's shorter side by default.
    domain
        As in `bootstrap_area`.

    Returns
    -------
    xarray.Dataset
        `semivariance (lag)` and `pairs (lag)` float64, with `lag` in metres; `model (lag)`, the exponential variogram
        ``nugget + sill (1 - exp(-lag / range_m))`` fitted to it. Attributes `nugget`, `sill`, `range_m`, `cell_m`,
        `suggested_block_m`: three times the range, where the correlation has fallen to 5 %, in whole pixels; but at
        most a quarter of the map's shorter side, which `suggestion` then says.

    Raises
    ------
    InputError
        A wrong option, a map without observed pixels or too small.
    SchemaError
        The map or its CRS is missing.
    """
    if method not in ("soft", "hard"):
        raise InputError(f"method {method!r} is not allowed: give 'soft' or 'hard'")
    # no area is reported, so there is nothing to warn about where the map is not calibrated
    array, calibrated = choose_map(ds, "hard", threshold, "variogram")
    years = [int(one) for one in array[schema.YEAR].values]
    chosen = max(years) if year is None else year
    if chosen not in years:
        raise InputError(f"year {chosen} is not in the dataset: it has {', '.join(map(str, sorted(years)))}")
    grid = RegionGrid.from_dataset(ds)
    array = array.isel({schema.YEAR: [years.index(chosen)]})
    if domain is not None:
        array = within_domain(array, grid, domain)
    cell = math.ceil(max(grid.shape) / _MOST_CELLS)
    cell_m, shorter = cell * grid.resolution, min(grid.shape) * grid.resolution
    most = int((shorter / 2 if max_lag is None else max_lag) / cell_m)
    if most < 4:
        raise InputError(f"distances up to {most * cell_m:g} m are {most} cells: give a larger map or max_lag")
    table = block_table(array, grid, cell, threshold=threshold if method == "hard" else None).compute()
    observed, ice = table["observed_km2"].values[0], table["ice_km2"].values[0]
    share = np.full(observed.shape, np.nan)
    np.divide(ice, observed, out=share, where=observed >= _MOSTLY * cell_m**2 / 1e6)
    if np.isfinite(share).sum() < 10:
        raise InputError("fewer than 10 cells of the map are observed: give a map with data in this year")
    gamma, pairs = semivariance(share, most)
    used = np.flatnonzero(pairs[1:] > 0) + 1
    lag = np.asarray(used * cell_m, np.float64)
    fit = fit_exponential(lag, gamma[used], pairs[used])
    block, suggestion = _suggest(fit.length, grid.resolution, shorter)
    model = fit.nugget + (fit.sill * (1 - np.exp(-lag / fit.length)) if fit.length else np.zeros(len(lag)))
    attrs = {
        "year": chosen,
        "method": method,
        **facts_of(array, calibrated),
        "cell_m": cell_m,
        "nugget": fit.nugget,
        "sill": fit.sill,
        "range_m": fit.length,
        "suggested_block_m": block,
        "suggestion": suggestion,
    }
    name = {"long_name": "semivariance of ice cover", "units": "1"}
    return xr.Dataset(
        {
            "semivariance": ("lag", gamma[used], name),
            "model": ("lag", model, name),
            "pairs": ("lag", pairs[used], {"long_name": "pairs of cells"}),
        },
        coords={"lag": ("lag", lag, {"long_name": "distance", "units": "m"})},
        attrs=made_by() | attrs,
    )


def _suggest(range_m: float, resolution: float, shorter: float) -> tuple[float, str]:
    """Return a block side in metres and in a few words where it comes from."""
    wanted = max(1, math.ceil(3 * range_m / resolution)) * resolution
    most = max(1, math.floor(shorter / _FEWEST / resolution)) * resolution
    if not range_m:
        return min(resolution, most), "ice cover is not correlated: any block will do"
    if wanted > most:
        far = f"over {3 * range_m:.0f} m" if 3 * range_m < shorter else "farther than this map reaches"
        return most, (
            f"ice cover is correlated {far}, too far for this map: blocks are a quarter of its shorter side, and the "
            "interval is too narrow"
        )
    return wanted, "three times the range: the correlation has fallen to 5 %"
