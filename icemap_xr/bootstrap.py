"""Intervals of ice area by resampling blocks: how unevenly ice is spread, or how wrong the map is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.arealscale import AreaKind, GroundWeights, check_area_kind
from icemap_xr.blocktable import BLOCK, BLOCK_X, BLOCK_Y, block_table, choose_map, facts_of
from icemap_xr.domain import tile_table, within_domain
from icemap_xr.drawcalls import DRAW_CALL, draw_call
from icemap_xr.errormodel import BlockErrors, check_map_kind, read_errors
from icemap_xr.errors import InputError, NothingObservedError, OutsideBlocksWarning, warn
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.draws import (
    BOUNDS,
    bca_interval,
    corrected_areas,
    left_out,
    percentile_interval,
    resampled_areas,
)
from icemap_xr.options import check_count, check_level, check_seed, made_by

#: share of the observed area outside given blocks from which on there is a warning
_OUTSIDE = 1e-6


class Blocks(NamedTuple):
    """Blocks to draw from.

    Parameters
    ----------
    ice, observed
        Ice and observed area `(block, year)`, km2.
    rows, columns
        Place of each block in the lattice of blocks.
    side_m
        Block side, m.
    """

    ice: NDArray[np.float64]
    observed: NDArray[np.float64]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    side_m: float


def bootstrap_area(
    ds: xr.Dataset,
    *,
    block: str | float | gpd.GeoDataFrame = "3.2km",
    n: int = 10_000,
    seed: int = 42,
    kind: Literal["sampling", "mapping"] = "sampling",
    estimator: Literal["ratio", "sum"] = "ratio",
    method: str = "soft",
    threshold: float = 0.5,
    level: float = 0.95,
    block_errors: BlockErrors | None = None,
    interval: Literal["percentile", "bca"] = "percentile",
    domain: xr.DataArray | gpd.GeoDataFrame | None = None,
    area_kind: AreaKind = "planar",
) -> xr.Dataset:
    """Draw ice areas from blocks of yearly maps.

    ``kind="sampling"`` resamples the blocks themselves, as published. Its interval says how unevenly ice is spread
    over the region, not how wrong the map is: the region is fully mapped, the width falls with the number of blocks,
    and there is no promise that the interval holds the true area.

    ``kind="mapping"`` says how wrong the map is: errors of blocks that the model was never trained on are drawn for
    each block and taken off, together with an error shared by all blocks of a year and one shared by all years. The
    draws are of the true area, so a bias of the model moves them away from `area_km2`. Errors of neighbouring blocks
    and of the same block in other years are as correlated as `block_errors` says, by default not at all. Draws are not
    cut at 0.

    The map is read once, chunk by chunk; what is returned is in memory (`n` x years x 8 bytes).

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)`, NaN where nothing was
        observed, and a CRS in metres.
    block
        Block side in metres or as text (``"3.2km"``), a whole number of pixels; blocks are anchored to the region's
        grid, and those without an observed pixel in any year are left out. Or a layer of tiles (see
        `icemap_xr.domain.tile_table`); with ``"sum"`` every tile on the map is drawn from, observed or not, in the
        order of the layer, as published.
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
        what is observed inside `domain`: sea mapped as probability 0 widens the interval, so declare a domain of land,
        or set open sea to NaN.
        ``"sum"``: sum of the drawn ice, as published.
    method, threshold
        As in `area`.
    level
        Share of the draws between the interval's bounds.
    block_errors
        For mapping: prediction minus reference as a fraction of a block's observed area, from held-out blocks of the
        same size. An array `(error,)`, drawn anew for each year, or `(error, year)`, rows drawn whole so that what
        persists between years cancels in changes; or a mapping as `icemap_xr.errormodel.held_out_errors` makes it, with
        `errors` and, if known, `year_effect` `(effect,)`, `region_effect` `(effect,)`, `range_m` (distance in metres at
        which the correlation of errors falls to 1/e), `year_correlation` (of a block's errors), and `block`,
        `method`, `threshold` and `map_kind`, which are checked. A mapping without `method` is of soft areas.
    interval
        ``"percentile"``: equal tails of the draws. ``"bca"``: bias-corrected and accelerated, for sampling only.
    domain
        Where ice is looked for: boolean `(y, x)` on the map's grid, True inside, or polygons, to which a pixel belongs
        by its centre. Everything outside counts as unobserved, also in `area_km2`. None: the whole map.
    area_kind
        ``"planar"`` or ``"true"``, as in `area`.

    Returns
    -------
    xarray.Dataset
        `draws (year, draw)`, `interval (year, bound)` with bounds ``"low"`` and ``"high"``, `area_km2 (year)` and
        `observed_km2 (year)`, float64, km2. Every year takes the same blocks in the same draw, so differences of
        `draws` are draws of change, inside one call, which the coordinate `draw_call (year)` names. A year without data
        is NaN; so is a ratio draw that met none of a year's observed blocks, and it is left out of the interval.

    Warns
    -----
    UncalibratedWarning
        ``"soft"`` without `calibrated`.
    OutsideBlocksWarning
        Observed ground lies in no tile.

    Raises
    ------
    InputError
        A wrong option, a block larger than the region, too few blocks, tiles or a domain that cannot be used, or no
        observed pixel at all.
    GridError
        `block` is no whole number of pixels.
    SchemaError
        The map or its CRS is missing.

    Notes
    -----
    ICEmapper's published bootstrap is ``kind="sampling", estimator="sum", seed=42, n=10_000, block="3.2km"``.
    """
    _check_options(n, seed, kind, estimator, level, block_errors)
    if interval not in ("percentile", "bca") or (interval == "bca" and kind != "sampling"):
        raise InputError(f"interval {interval!r} is not allowed for {kind}: give 'percentile', or 'bca' for sampling")
    check_area_kind(area_kind)
    array, calibrated = choose_map(ds, method, threshold, "bootstrap_area")
    grid = RegionGrid.from_dataset(ds)
    if domain is not None:
        array = within_domain(array, grid, domain)
    cut = threshold if method == "hard" else None
    weights = GroundWeights(grid) if area_kind == "true" else None
    blocks = _blocks(array, grid, block, cut, weights, keep_all=kind == "sampling" and estimator == "sum")
    ice, observed = blocks.ice, blocks.observed
    if kind == "sampling":
        if len(ice) < 2:
            given = "the tiles leave" if isinstance(block, gpd.GeoDataFrame) else f"block {block!r} leaves"
            raise InputError(f"{given} 1 observed block: resampling needs at least 2, give smaller blocks")
        draws = resampled_areas(ice, observed, n, seed, ratio=estimator == "ratio")
    else:
        size = blocks.side_m if isinstance(block, gpd.GeoDataFrame) else block
        model = read_errors(block_errors, len(array[schema.YEAR]), blocks.side_m, size, cut)  # type: ignore[arg-type]
        check_map_kind(block_errors, array)  # type: ignore[arg-type]
        draws = corrected_areas(ice, observed, model, n, seed, (blocks.rows, blocks.columns))
    attrs: dict[str, Any] = {
        "interval_kind": kind,
        "interval_method": interval,
        "level": level,
        "block_m": blocks.side_m,
        "n_blocks": len(ice),
        "seed": seed,
        "area_kind": area_kind,
        "method": method,
        **facts_of(array, calibrated),
        "domain": "map" if domain is None else "mask" if isinstance(domain, xr.DataArray) else "polygons",
    }
    if kind == "sampling":
        attrs["estimator"] = estimator
    if method == "hard":
        attrs["threshold"] = threshold
    if interval == "bca":
        jackknife = left_out(ice, observed, ratio=estimator == "ratio")
        bounds = bca_interval(draws, ice.sum(axis=0), jackknife, level)
    else:
        bounds = percentile_interval(draws, level)
    return _as_dataset(blocks, draws, bounds, array[schema.YEAR], attrs)


def _check_options(n: int, seed: int, kind: str, estimator: str, level: float, block_errors: object) -> None:
    if kind not in ("sampling", "mapping"):
        raise InputError(f"kind {kind!r} is not allowed: give 'sampling' or 'mapping'")
    if estimator not in ("ratio", "sum"):
        raise InputError(f"estimator {estimator!r} is not allowed: give 'ratio' or 'sum'")
    check_count(n)
    check_seed(seed)
    if kind == "sampling" and estimator == "sum" and seed == 0:
        raise InputError("seed 0 gives the same draw n times with estimator='sum': give a seed >= 1 (published: 42)")
    check_level(level)
    if kind == "mapping" and block_errors is None:
        raise InputError(
            "kind='mapping' needs block_errors: give the held-out block errors of the model's bundle (prediction minus "
            "reference as a fraction of block area), or use kind='sampling'"
        )
    if kind == "sampling" and block_errors is not None:
        raise InputError("block_errors is not used by kind='sampling': leave it out, or give kind='mapping'")


def _blocks(
    array: xr.DataArray,
    grid: RegionGrid,
    block: str | float | gpd.GeoDataFrame,
    threshold: float | None,
    weights: GroundWeights | None,
    *,
    keep_all: bool,
) -> Blocks:
    """Sum the map to blocks; leave out those without an observed pixel, but with `keep_all` no tile of a layer."""
    if isinstance(block, gpd.GeoDataFrame):
        table = tile_table(array, grid, block, threshold=threshold, weights=weights).compute()
        side = float(table.attrs["block_m"])
        rows = _lattice(-table["centre_y"].values, side)
        columns = _lattice(table["centre_x"].values, side)
        _report_outside(table)
    else:
        keep_all = False
        pixels = grid.pixels(block)
        if pixels > max(grid.region_shape):
            raise InputError(f"block {block!r} is {pixels} pixels, the region {grid.region_shape}: give smaller blocks")
        table = block_table(array, grid, pixels, threshold=threshold, weights=weights).compute()
        side = float(table.attrs["block_m"])
        table = table.stack({BLOCK: (BLOCK_Y, BLOCK_X)}, create_index=False)
        rows, columns = (table[axis].values.astype(np.intp) for axis in (BLOCK_Y, BLOCK_X))
    ice, observed = (table[name].transpose(BLOCK, schema.YEAR).values for name in ("ice_km2", "observed_km2"))
    used = (observed > 0).any(axis=1)
    if not used.any():
        raise NothingObservedError(
            "the map has no observed pixel: give at least one year with data, and a domain that meets it"
        )
    used |= keep_all
    return Blocks(
        np.ascontiguousarray(ice[used]), np.ascontiguousarray(observed[used]), rows[used], columns[used], side
    )


def _lattice(centres: NDArray[np.float64], side: float) -> NDArray[np.intp]:
    return np.rint((centres - centres.min()) / side).astype(np.intp)


def _report_outside(table: xr.Dataset) -> None:
    outside, inside = float(table["outside_observed_km2"].max()), float(table["observed_km2"].sum(BLOCK).max())
    if outside > _OUTSIDE * (inside + outside):
        ice = float(table["outside_ice_km2"].max())
        warn(
            f"{outside:.3f} km2 of observed ground with {ice:.3f} km2 of ice lies in no tile, and is in no sum: give "
            "tiles that cover the map, or a domain inside them",
            OutsideBlocksWarning,
        )


def _as_dataset(
    blocks: Blocks,
    draws: NDArray[np.float64],
    bounds: NDArray[np.float64],
    years: xr.DataArray,
    attrs: dict[str, Any],
) -> xr.Dataset:
    total = blocks.observed.sum(axis=0)
    units = {"units": "km2", **attrs}
    year = (schema.YEAR,)
    mapped = np.where(total > 0, blocks.ice.sum(axis=0), np.nan)
    return xr.Dataset(
        {
            "draws": ((*year, "draw"), draws, {"long_name": "draws of the area of ice", **units}),
            "interval": ((*year, "bound"), bounds, {"long_name": "interval of the area of ice", **units}),
            "area_km2": (year, mapped, {"long_name": "area of ice", **units}),
            "observed_km2": (
                year,
                total,
                {"units": "km2", "long_name": "observed area", "area_kind": attrs["area_kind"]},
            ),
        },
        coords={
            schema.YEAR: years.variable,
            "draw": np.arange(draws.shape[1]),
            "bound": BOUNDS,
            DRAW_CALL: draw_call(attrs["seed"], years.values),
        },
        attrs=made_by() | attrs,
    )
