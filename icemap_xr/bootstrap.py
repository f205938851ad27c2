"""Intervals of ice area by resampling blocks: how unevenly ice is spread, or how wrong the map is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr import schema
from icemap_xr.blocktable import block_table, choose_map
from icemap_xr.errors import InputError, did_you_mean
from icemap_xr.grid import RegionGrid, parse_metres
from icemap_xr.kernels.draws import BOUNDS, corrected_areas, percentile_interval, resampled_areas

BlockErrors: TypeAlias = ArrayLike | Mapping[str, Any]


def bootstrap_area(
    ds: xr.Dataset,
    *,
    block: str | float = "3.2km",
    n: int = 10_000,
    seed: int = 42,
    kind: Literal["sampling", "mapping"] = "sampling",
    estimator: Literal["ratio", "sum"] = "ratio",
    method: str = "soft",
    threshold: float = 0.5,
    level: float = 0.95,
    block_errors: BlockErrors | None = None,
) -> xr.Dataset:
    """Draw ice areas from blocks of yearly maps.

    ``kind="sampling"`` resamples the blocks themselves, as published. Its interval says how unevenly ice is spread
    over the region, not how wrong the map is: the region is fully mapped, the width falls with the number of blocks,
    and there is no promise that the interval holds the true area.

    ``kind="mapping"`` says how wrong the map is: errors of blocks that the model was never trained on are drawn for
    each block and taken off, together with an error shared by all blocks of a year. The draws are of the true area,
    so a bias of the model moves them away from `area_km2`. Blocks are taken as independent; errors correlated over
    more than a block make the interval too narrow. Draws are not cut at 0.

    The map is read once, chunk by chunk; what is returned is in memory (`n` x years x 8 bytes).

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)`, NaN where nothing was
        observed, and a CRS in metres.
    block
        Block side in metres or as text (``"3.2km"``), a whole number of pixels; blocks are anchored to the region's
        grid. Blocks without an observed pixel in any year are left out.
    n
        Draws.
    seed
        Seed, >= 0. With ``"sum"``, draw k (from 0) takes ``default_rng(seed * (k + 1)).choice(N, N, replace=True)`` of
        the N blocks in rows from the upper left; published is 42. Otherwise draw k uses child k of
        ``SeedSequence(seed)``.
    kind
        ``"sampling"`` or ``"mapping"``.
    estimator
        For sampling. ``"ratio"``: ice / observed area of the drawn blocks, times the whole observed area, so that a
        block cut by the edge of the domain counts by its size and a shifted anchor hardly matters. The domain is
        what is observed: set open sea to NaN, for sea mapped as probability 0 widens the interval.
        ``"sum"``: sum of the drawn ice, as published.
    method, threshold
        As in `area`.
    level
        Share of the draws between the interval's bounds.
    block_errors
        For mapping: prediction minus reference as a fraction of a block's observed area, from held-out blocks of the
        same size. An array `(error,)`, drawn anew for each year, or `(error, year)`, rows drawn whole so that what
        persists between years cancels in changes; or a mapping with `errors` and, if known, `year_effect` `(effect,)`
        and `block` (side, checked).

    Returns
    -------
    xarray.Dataset
        `draws (year, draw)`, `interval (year, bound)` with bounds ``"low"`` and ``"high"``, `area_km2 (year)` and
        `observed_km2 (year)`, float64, planar km2. Every year takes the same blocks in the same draw, so differences
        of `draws` are draws of change. A year without data is NaN; so is a ratio draw that met none of a year's
        observed blocks, and it is left out of the interval.

    Warns
    -----
    UncalibratedWarning
        ``"soft"`` without `calibrated`.

    Raises
    ------
    InputError
        A wrong option, a block larger than the region, too few blocks, or no observed pixel at all.
    GridError
        `block` is no whole number of pixels.
    SchemaError
        The map or its CRS is missing.

    Notes
    -----
    ICEmapper's published bootstrap is ``kind="sampling", estimator="sum", seed=42, n=10_000, block="3.2km"``.
    """
    _check_options(n, seed, kind, estimator, level, block_errors)
    array, calibrated = choose_map(ds, method, threshold, "bootstrap_area")
    grid = RegionGrid.from_dataset(ds)
    ice, observed = _observed_blocks(array, grid, block, threshold if method == "hard" else None)
    if kind == "sampling":
        if len(ice) < 2:
            raise InputError(
                f"block {block!r} leaves 1 observed block: resampling needs at least 2, give smaller blocks"
            )
        draws = resampled_areas(ice, observed, n, seed, ratio=estimator == "ratio")
    else:
        errors, year_effect = _read_errors(block_errors, len(array[schema.YEAR]), block)
        draws = corrected_areas(ice, observed, errors, year_effect, n, seed)
    attrs: dict[str, Any] = {
        "interval_kind": kind,
        "level": level,
        "block_m": parse_metres(block),
        "n_blocks": len(ice),
        "seed": seed,
        "area_kind": "planar",
        "method": method,
        "calibrated": calibrated,
    }
    if kind == "sampling":
        attrs["estimator"] = estimator
    if method == "hard":
        attrs["threshold"] = threshold
    return _as_dataset(ice, observed, draws, level, array[schema.YEAR], attrs)


def _check_options(n: int, seed: int, kind: str, estimator: str, level: float, block_errors: object) -> None:
    if kind not in ("sampling", "mapping"):
        raise InputError(f"kind {kind!r} is not allowed: give 'sampling' or 'mapping'")
    if estimator not in ("ratio", "sum"):
        raise InputError(f"estimator {estimator!r} is not allowed: give 'ratio' or 'sum'")
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n {n!r} is not allowed: give a whole number of draws >= 1")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed {seed!r} is not allowed: give a whole number >= 0, so that the draws can be repeated")
    if kind == "sampling" and estimator == "sum" and seed == 0:
        raise InputError("seed 0 gives the same draw n times with estimator='sum': give a seed >= 1 (published: 42)")
    if not 0 < level < 1:
        raise InputError(f"level {level!r} is not allowed: give a share between 0 and 1, for example 0.95")
    if kind == "mapping" and block_errors is None:
        raise InputError(
            "kind='mapping' needs block_errors: give the held-out block errors of the model's bundle (prediction minus "
            "reference as a fraction of block area), or use kind='sampling'"
        )
    if kind == "sampling" and block_errors is not None:
        raise InputError("block_errors is not used by kind='sampling': leave it out, or give kind='mapping'")


def _observed_blocks(
    array: xr.DataArray, grid: RegionGrid, block: str | float, threshold: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return ice and observed area `(block, year)`, km2, of the blocks with an observed pixel."""
    side = grid.pixels(block)
    if side > max(grid.region_shape):
        raise InputError(f"block {block!r} is {side} pixels, the region {grid.region_shape}: give smaller blocks")
    table = block_table(array, grid, side, threshold=threshold).compute()
    ice, observed = (table[name].values.reshape(len(table[schema.YEAR]), -1).T for name in ("ice_km2", "observed_km2"))
    used = (observed > 0).any(axis=1)
    if not used.any():
        raise InputError("the map has no observed pixel: give at least one year with data")
    return np.ascontiguousarray(ice[used]), np.ascontiguousarray(observed[used])


def _read_errors(
    block_errors: BlockErrors | None, years: int, block: str | float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return block errors `(error,)` or `(error, year)` and year effects `(effect,)`; the latter are 0 if unknown."""
    content: Mapping[str, Any] = block_errors if isinstance(block_errors, Mapping) else {"errors": block_errors}
    known = ("errors", "year_effect", "block")
    for key in content:
        if key not in known:
            raise InputError(f"block_errors has {key!r}: allowed are {', '.join(known)}{did_you_mean(key, known)}")
    if "errors" not in content:
        raise InputError("block_errors lacks 'errors': give the errors of held-out blocks")
    if "block" in content and not np.isclose(parse_metres(content["block"]), parse_metres(block)):
        raise InputError(f"block_errors are of blocks of {content['block']!r}, not {block!r}: give that block size")
    errors = _fractions(content["errors"], "errors")
    if errors.ndim > 2 or (errors.ndim == 2 and errors.shape[1] != years):
        raise InputError(f"errors has shape {errors.shape}, the map {years} years: give (error,) or (error, {years})")
    effect = _fractions(content.get("year_effect", [0.0]), "year_effect")
    if effect.ndim != 1:
        raise InputError(f"year_effect has shape {effect.shape}: give one dimension, an effect per held-out year")
    return errors, effect


def _fractions(values: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} of block_errors is not an array of numbers: give fractions of block area") from None
    if array.ndim == 0 or array.size == 0 or not np.all(np.abs(array) <= 1):
        raise InputError(f"{name} of block_errors must be a non-empty array of fractions from -1 to 1, without NaN")
    return array


def _as_dataset(
    ice: NDArray[np.float64],
    observed: NDArray[np.float64],
    draws: NDArray[np.float64],
    level: float,
    years: xr.DataArray,
    attrs: dict[str, Any],
) -> xr.Dataset:
    total = observed.sum(axis=0)
    units = {"units": "km2", **attrs}
    year = (schema.YEAR,)
    return xr.Dataset(
        {
            "draws": ((*year, "draw"), draws, units),
            "interval": ((*year, "bound"), percentile_interval(draws, level), units),
            "area_km2": (year, np.where(total > 0, ice.sum(axis=0), np.nan), units),
            "observed_km2": (year, total, {"units": "km2"}),
        },
        coords={schema.YEAR: years.variable, "draw": np.arange(draws.shape[1]), "bound": BOUNDS},
        attrs=attrs,
    )
