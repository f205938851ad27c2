"""Areas of single glaciers with mapping intervals, and their rates.

A glacier is often smaller than a block, and a map is wrong mostly along its edge: there it is too far out or too far
in. So errors of glaciers are held-out errors of the edge's position (metres, an area over a length), times the edge's
length, and errors away from the edge, such as a glacier that was missed, as fractions of the ground there. Both are
correlated in space: an edge that winds through a small area has few independent pieces, however long it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.arealscale import AreaKind, GroundWeights, check_area_kind
from icemap_xr.blocktable import block_table, choose_map, facts_kept, facts_of
from icemap_xr.drawcalls import DRAW_CALL, check_one_call, draw_call
from icemap_xr.edgeerrors import EdgeErrors, edge_bands, held_out_edge_errors, ice_edge, read_edge_errors
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.draws import BOUNDS, generator, percentile_interval
from icemap_xr.kernels.edges import FULL_EDGE
from icemap_xr.kernels.effects import drawn_errors
from icemap_xr.kernels.errorfields import BlockField
from icemap_xr.options import calendar_years, check_count, check_level, check_seed, made_by
from icemap_xr.regionsums import REGION, cut_to_blocks, read_regions, region_sums

__all__ = ["glacier_area", "glacier_rates", "held_out_edge_errors", "ice_edge", "read_edge_errors"]

#: draws times years times blocks held at once
_AT_ONCE = 2**21
_BANDS = ("edge", "away")


def glacier_area(
    ds: xr.Dataset,
    by: gpd.GeoDataFrame,
    *,
    edge_errors: Mapping[str, Any],
    n: int = 1000,
    seed: int = 42,
    method: str = "soft",
    threshold: float = 0.5,
    level: float = 0.95,
    area_kind: AreaKind = "planar",
) -> xr.Dataset:
    """Sum yearly maps to the area of each glacier, with mapping intervals from the length of its edge.

    Parameters
    ----------
    ds
        Dataset with `probability` or, preferred where present, `calibrated` `(year, y, x)` and a CRS in metres.
    by
        Polygons, as in `area`: the ground that belongs to each glacier, for example its outline in an inventory with
        a margin. Ice divides are no edge: only where the map itself goes from ice to no ice.
    edge_errors
        What `held_out_edge_errors` makes. Its blocks should not be much larger than the glaciers: the error of an edge
        is taken to be the same inside a block.
    n
        Draws. What is returned has `n` x years x glaciers x 8 bytes; tables of 32 bytes a block and year are in memory.
    seed
        Seed. The draws of a glacier depend on it and on the glacier's position in `by` alone.
    method, threshold, area_kind
        As in `area`.
    level
        Share of the draws between the interval's bounds.

    Returns
    -------
    xarray.Dataset
        `area_km2`, `observed_km2` and `edge_km` `(year, region)`, `draws (year, region, draw)` and `interval (year,
        region, bound)`, km2. Draws are of the true area and not cut at 0; errors that last from year to year are shared
        by the years of a draw. Glaciers share the effects of region and year, and are else drawn on their own.
        `away_km2` `(year, region)` is the ground farther from the map's edge than `near_m` of the errors. Draws of
        years are paired inside one call only, which the coordinate `draw_call (year)` names.

    Warns
    -----
    UncalibratedWarning
        ``"soft"`` without `calibrated`.

    Raises
    ------
    InputError
        A wrong option, polygons or errors that cannot be used.
    """
    check_count(n)
    check_seed(seed)
    check_level(level)
    check_area_kind(area_kind)
    model = read_edge_errors(edge_errors, method=method, threshold=threshold)
    if not model.block > 0:
        raise InputError("edge_errors lacks 'block': give what held_out_edge_errors makes")
    array, calibrated = choose_map(ds, method, threshold, "glacier_area")
    grid = RegionGrid.from_dataset(ds)
    labels, polygons = read_regions(by, grid)
    weights = GroundWeights(grid) if area_kind == "true" else None
    sums = region_sums(array, polygons, threshold if method == "hard" else None, weights)
    side = grid.pixels(model.block)
    bands = _band_sums(array, grid, polygons, side, (model.near, threshold))
    # all at once, so that each chunk of the map is read once
    found = xr.Dataset({"sums": (("what", "year", "region"), sums), **bands}).compute()
    ice, observed = found["sums"].values * grid.pixel_area_km2
    area = np.where(observed > 0, ice, np.nan)
    errors = _errors_of_glaciers(found, polygons, grid, model, n, seed)
    length = FULL_EDGE * grid.resolution
    total = {"edge": found["edge"].values * length, "away": found["away"].values * grid.pixel_area_km2}
    draws = area[..., None] - errors
    attrs: dict[str, Any] = {
        "interval_kind": "mapping",
        "level": level,
        "seed": seed,
        "area_kind": area_kind,
        "method": method,
        **facts_of(array, calibrated),
    }
    if method == "hard":
        attrs["threshold"] = threshold
    dims, units = (schema.YEAR, REGION), {"units": "km2", **attrs}
    return xr.Dataset(
        {
            "area_km2": (dims, area, {"long_name": "area of ice", **units}),
            "observed_km2": (dims, observed, {"units": "km2", "long_name": "observed area"}),
            "edge_km": (dims, total["edge"] / 1000, {"units": "km", "long_name": "length of the ice edge"}),
            "away_km2": (dims, total["away"], {"units": "km2", "long_name": "ground away from the ice edge"}),
            "draws": ((*dims, "draw"), draws, units),
            "interval": ((*dims, "bound"), percentile_interval(draws, level), units),
        },
        coords={
            schema.YEAR: array[schema.YEAR].variable,
            REGION: labels,
            "draw": np.arange(n),
            "bound": BOUNDS,
            DRAW_CALL: draw_call(seed, array[schema.YEAR].values),
        },
        attrs=made_by() | attrs,
    )


def _errors_of_glaciers(
    found: xr.Dataset, polygons: NDArray[Any], grid: RegionGrid, model: EdgeErrors, n: int, seed: int
) -> NDArray[np.float64]:
    """Draw the errors `(year, region, draw)` of all glaciers, km2, each on the blocks that it has a part in."""
    side, length = grid.pixels(model.block), FULL_EDGE * grid.resolution
    size, owner, places = cut_to_blocks(polygons, grid, side)
    first = np.array(grid.offset) // side
    spread = {
        name: _over_blocks(found[name].values, found[f"{name}_table"].values, size, owner, places - first)
        for name in _BANDS
    }
    errors = np.empty((*found["edge"].shape, n))
    for j in range(errors.shape[1]):
        these = owner == j
        metres, ground = spread["edge"][:, these] * length, spread["away"][:, these] * grid.pixel_area_km2
        errors[:, j] = _drawn_errors(metres, ground, places[these], model, n, seed, j)
    return errors


def _band_sums(
    array: xr.DataArray, grid: RegionGrid, polygons: NDArray[Any], side: int, bands: tuple[float, float]
) -> dict[str, Any]:
    """Return sums of the edge and of the ground away from it, by polygon and by block, as variables of a dataset."""
    read: dict[str, Any] = {}
    for name, one in zip(_BANDS, edge_bands(array, grid, *bands), strict=True):
        read[name] = (("year", "region"), region_sums(one, polygons, None)[0])
        table = block_table(one, grid, side)["ice_km2"]
        read[f"{name}_table"] = (("year", "block_y", "block_x"), table.data / grid.pixel_area_km2)
    return read


def _over_blocks(
    totals: NDArray[np.float64],
    table: NDArray[np.float64],
    size: NDArray[np.float64],
    owner: NDArray[np.intp],
    places: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Spread totals of polygons `(year, region)` over their pieces, `(year, piece)`.

    A block's share follows its own sum `(year, block_y, block_x)` and the area of the polygon in it; the totals are
    kept.
    """
    weights = table[:, places[:, 0], places[:, 1]] * size
    by_size = np.broadcast_to(size, weights.shape)
    sums, sizes = (
        np.stack([np.bincount(owner, one, minlength=totals.shape[1]) for one in each]) for each in (weights, by_size)
    )
    # where no block of a polygon has any, what little it has goes by area
    weights = np.where((sums > 0)[:, owner], weights, by_size)
    sums = np.where(sums > 0, sums, sizes)
    return weights * np.divide(totals, sums, out=np.zeros(totals.shape), where=sums > 0)[:, owner]


def _drawn_errors(
    metres: NDArray[np.float64],
    ground: NDArray[np.float64],
    places: NDArray[np.intp],
    model: EdgeErrors,
    n: int,
    seed: int,
    number: int,
) -> NDArray[np.float64]:
    """Return errors `(year, draw)` of a glacier in km2.

    Parameters
    ----------
    metres, ground
        Length of edge in m and ground away from it in km2, `(year, block)`.
    places
        Row and column of each block.
    model, n, seed
        Errors, draws and seed.
    number
        The glacier's position.
    """
    years = len(metres)
    shared = generator(seed, 0, published=False)
    rng = generator(seed, number + 1, published=False)
    out = np.zeros((years, n))
    for weights, one in ((metres / 1e6, model.edge), (ground, model.away)):
        everywhere = one.region[shared.integers(len(one.region), size=n)]
        yearly = one.year[shared.integers(len(one.year), size=(years, n))]
        out += weights.sum(axis=1)[:, None] * (everywhere + yearly)
        used = (weights > 0).any(axis=0)
        if not used.any():
            continue
        rows, columns = places[used].T
        field = BlockField(rows, columns, one.reach_m / model.block)
        batch = max(1, _AT_ONCE // (int(used.sum()) * (years + 1)))
        for start in range(0, n, batch):
            some = slice(start, min(start + batch, n))
            drawn = drawn_errors(rng, field, one.errors, one.persistence, (some.stop - some.start, years))
            out[:, some] += np.einsum("kyb,yb->yk", drawn, weights[:, used])
    return out


def glacier_rates(areas: xr.Dataset, *, level: float = 0.95) -> xr.Dataset:
    """Fit a linear rate to the area of each glacier and to each of its draws.

    Parameters
    ----------
    areas
        Result of `glacier_area`.
    level
        Share of the draws between the interval's bounds.

    Returns
    -------
    xarray.Dataset
        `rate_km2_per_year` and `relative_rate` (over the mean area, per year) `(region)`, and `interval (region,
        bound)` of the former. NaN where a year of the glacier is NaN.

    Raises
    ------
    InputError
        Fewer than two years, duplicate years, years that different calls drew, or a wrong option.
    """
    check_level(level)
    years = calendar_years(areas, "glacier_rates").astype(np.float64)
    if len(years) < 2 or len(np.unique(years)) != len(years):
        raise InputError(f"rates need at least 2 different years, got {years.astype(int).tolist()}")
    check_one_call(areas, years, "glacier_rates")
    centred = xr.DataArray(years - years.mean(), dims=schema.YEAR, coords={schema.YEAR: areas[schema.YEAR]})
    scale = float((centred**2).sum())
    rate = (centred * areas["area_km2"]).sum(schema.YEAR, skipna=False) / scale
    drawn = (centred * areas["draws"]).sum(schema.YEAR, skipna=False) / scale
    mean = areas["area_km2"].mean(schema.YEAR, skipna=False)
    units = {"units": "km2 year-1", "level": level}
    return xr.Dataset(
        {
            "rate_km2_per_year": rate.assign_attrs(units),
            "relative_rate": (rate / mean.where(mean > 0)).assign_attrs(units="year-1"),
            "interval": ((REGION, "bound"), percentile_interval(drawn.transpose(REGION, "draw").values, level), units),
        },
        coords={"bound": BOUNDS},
        attrs=made_by() | facts_kept(areas),
    )
