"""Errors of the ice edge's position, and of the ground away from it: how wrong maps of a model are at single glaciers.

Below the stages: `glacier_area` and the intervals of outlines both draw from them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.blocktable import block_table
from icemap_xr.errormodel import Split, aligned_pair, split_errors
from icemap_xr.errors import InputError, did_you_mean
from icemap_xr.grid import RegionGrid, parse_metres
from icemap_xr.kernels.edges import FULL_EDGE, away_from_edge, edge_share

#: what the names of the errors of a place begin with: the edge, the ground away from it, and what of that is mapped ice
_PLACES = ("", "away_", "inside_")
_LISTS = tuple(
    f"{place}{name}{'' if place else '_m'}" for place in _PLACES for name in ("errors", "year_effect", "region_effect")
)
_NUMBERS = ("near_m", *(f"{place}{name}" for place in _PLACES for name in ("range_m", "year_correlation")))
KNOWN = (*_LISTS, *_NUMBERS, "segment_m", "block", "method", "threshold")
#: a block's edge counts if it is at least this share of the block's side: a shorter one says little
_LONG_ENOUGH = 0.5
#: a block's ground away from the edge counts if it is at least this share of the block
_WIDE_ENOUGH = 0.25


class PlaceErrors(NamedTuple):
    """Errors per unit of what they scale with, sorted, and what they have in common.

    Parameters
    ----------
    errors
        Of blocks: metres outwards along the edge, or fractions of the ground away from it.
    year, region
        Effects that all blocks of a year, and of all years, share.
    reach_m
        Distance at which the correlation of blocks falls to 1/e, m.
    persistence
        Correlation of a block's error in one year with that in another.
    """

    errors: NDArray[np.float64]
    year: NDArray[np.float64]
    region: NDArray[np.float64]
    reach_m: float
    persistence: float


class EdgeErrors(NamedTuple):
    """What `held_out_edge_errors` made, checked.

    Parameters
    ----------
    edge, away, inside
        Errors at the edge (m), away from it (fractions of the ground), and of that on ground that the map has as ice.
    segment
        Length of edge that counts as one independent piece where nothing is known of how it winds, m.
    block
        Side of the blocks, m; NaN where it is not given.
    near
        Distance from the map's edge up to which an error counts as one of the edge, m.
    """

    edge: PlaceErrors
    away: PlaceErrors
    inside: PlaceErrors
    segment: float
    block: float
    near: float

    @property
    def errors(self) -> NDArray[np.float64]:
        """Errors of the edge's position, m."""
        return self.edge.errors

    @property
    def year_effect(self) -> NDArray[np.float64]:
        """Errors of the edge's position that a year shares, m."""
        return self.edge.year

    @property
    def region_effect(self) -> NDArray[np.float64]:
        """Errors of the edge's position that all years share, m."""
        return self.edge.region


def _of_pixels(array: xr.DataArray, kernel: Any, depth: int) -> xr.DataArray:
    """Return what a kernel makes of each pixel and its neighbours; lazy where the map is."""
    if isinstance(array.data, da.Array):
        meta = np.empty((0, 0, 0), np.float32)
        data = array.data.map_overlap(kernel, depth=(0, depth, depth), boundary=np.nan, meta=meta)
    else:
        data = kernel(array.values)
    return array.copy(data=data)


def ice_edge(array: xr.DataArray, threshold: float = 0.5) -> xr.DataArray:
    """Return the length of the ice edge in each pixel, as a share of what a pixel can have; lazy where the map is.

    Parameters
    ----------
    array
        Probability `(year, y, x)`, NaN where nothing was observed.
    threshold
        Probability above which a pixel is ice.

    Notes
    -----
    Times `icemap_xr.kernels.edges.FULL_EDGE` pixel sides it is a length; a straight edge is right on average over all
    directions (27 % too short along the grid's axes, 11 % too long across). The same measure serves fit and use.
    """
    return _of_pixels(array, partial(edge_share, threshold=threshold), 1)


def edge_bands(
    array: xr.DataArray, grid: RegionGrid, near_m: float, threshold: float
) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the edge as `ice_edge` does, and 1 where a pixel is farther from it than `near_m`, else 0."""
    pixels = math.ceil(near_m / grid.resolution)
    kernel = partial(away_from_edge, threshold=threshold, distance=pixels)
    return ice_edge(array, threshold), _of_pixels(array, kernel, pixels + 1)


def read_edge_errors(content: Mapping[str, Any], *, method: str, threshold: float) -> EdgeErrors:
    """Check edge errors as `held_out_edge_errors` makes them, for areas of a method and a threshold.

    Raises
    ------
    InputError
        A key or a value is not allowed, or the errors are those of another method or threshold.
    """
    if not isinstance(content, Mapping) or not {"errors_m", "segment_m"} <= set(content):
        raise InputError("edge_errors lacks 'errors_m' or 'segment_m': give what held_out_edge_errors makes")
    for key in content:
        if key not in KNOWN:
            raise InputError(f"edge_errors has {key!r}: allowed are {', '.join(KNOWN)}{did_you_mean(key, KNOWN)}")
    for name, wanted in (("method", method), ("threshold", threshold)):
        if content.get(name, wanted) != wanted:
            raise InputError(
                f"edge_errors are of the {name} {content[name]!r}, the areas of {wanted!r}: "
                f"make them with held_out_edge_errors(pairs, ..., {name}={wanted!r})"
            )
    lists = {name: _list(content, name) for name in _LISTS}
    numbers = {name: _number(content, name) for name in _NUMBERS}
    segment = content["segment_m"]
    if isinstance(segment, bool) or not isinstance(segment, int | float) or not 0 < segment < math.inf:
        raise InputError(f"segment_m {segment!r} of edge_errors is not allowed: give a length > 0 in metres")

    def place(pre: str, unit: str) -> PlaceErrors:
        errors, year, region = (lists[f"{pre}{name}{unit}"] for name in ("errors", "year_effect", "region_effect"))
        reach, persistence = numbers[f"{pre}range_m"], numbers[f"{pre}year_correlation"]
        return PlaceErrors(np.sort(errors), year, region, reach, persistence)

    block = parse_metres(content["block"]) if "block" in content else math.nan
    places = place("", "_m"), place("away_", ""), place("inside_", "")
    return EdgeErrors(*places, float(segment), block, numbers["near_m"])


def _list(content: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    try:
        values = np.asarray(content.get(name, [0.0]), np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} of edge_errors is not a list of numbers: give what was made") from None
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise InputError(f"{name} of edge_errors must be a non-empty list of numbers, without NaN")
    return values


def _number(content: Mapping[str, Any], name: str) -> float:
    value, most = content.get(name, 0.0), 1.0 if name.endswith("correlation") else math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
        raise InputError(f"{name} {value!r} of edge_errors is not allowed: give a number from 0 to {most:g}")
    return float(value)


def held_out_edge_errors(
    pairs: Iterable[tuple[xr.DataArray, xr.DataArray]],
    *,
    block: str | float,
    threshold: float = 0.5,
    method: str = "soft",
    near_m: float = 100.0,
) -> dict[str, Any]:
    """Describe how far out or in the ice edge of maps is, on regions that the model has never seen.

    Parameters
    ----------
    pairs
        As for `icemap_xr.errormodel.held_out_errors`.
    block
        Side of the blocks in which errors are summed and divided by the length of the map's edge inside.
    threshold
        Probability above which the map has ice, for its edge.
    method
        How the areas are summed that these errors are for: ``"soft"`` (the probability) or ``"hard"`` (pixels above
        the threshold, as in outlines).
    near_m
        Distance from the map's edge along rows and columns, in metres, up to which an error counts as one of the edge;
        about as far as the edge is ever wrong. What lies beyond, such as a glacier that was missed, scales with the
        ground there instead.

    Returns
    -------
    dict
        Plain JSON: `errors_m` (quantiles of the errors less what their map has in common, plus the mean of all),
        `range_m` (distance at which their correlation falls to 1/e), `year_correlation`, `region_effect_m`,
        `year_effect_m`, as in `held_out_errors`; the same with `away_` for the ground away from the edge, in fractions
        of it, and with `inside_` for that part of it which the map has as ice; `segment_m` (length of edge that counts
        as one independent piece in regions like these), `block`,
        `near_m`, `method`, `threshold`.

    Raises
    ------
    InputError
        Fewer than two regions, a pair that does not fit together, or maps without an ice edge.
    """
    if method not in ("soft", "hard"):
        raise InputError(f"method {method!r} is not allowed: give 'soft' or 'hard'")
    if isinstance(near_m, bool) or not 0 <= near_m < math.inf:
        raise InputError(f"near_m {near_m!r} is not allowed: give a distance in metres, for example 100")
    cut = threshold if method == "hard" else None
    tables = [_table(mapped, reference, block, threshold, cut, near_m) for mapped, reference in pairs]
    if len(tables) < 2:
        raise InputError(f"errors of {len(tables)} region say nothing about another one: give at least 2 regions")
    side = tables[0].side
    if not all((one.edge.sum(axis=(1, 2)) > 0).all() for one in tables):
        raise InputError("a map has a year without ice edge: leave it out")
    if not any((one.edge >= _LONG_ENOUGH * side).any() for one in tables):
        raise InputError(f"no block of {block!r} has a long enough edge: give larger blocks")
    edge = _split([one.at_edge for one in tables], [one.edge for one in tables], _LONG_ENOUGH * side)
    wide = _WIDE_ENOUGH * side**2
    beyond = {
        "away": _split([one.beyond for one in tables], [one.ground for one in tables], wide),
        "inside": _split([one.within for one in tables], [one.ice for one in tables], wide),
    }
    lengths = [float(one.edge.sum(axis=(1, 2)).mean()) for one in tables]
    segment = np.mean([length * share for length, share in zip(lengths, edge.shares, strict=True)])
    return {
        "errors_m": _rounded(edge.errors + edge.effects.centre, 3),
        "segment_m": round(max(float(segment), 1.0), 1),
        "range_m": round(edge.length * side, 1),
        "region_effect_m": _rounded(edge.effects.region, 3),
        "year_effect_m": _rounded(edge.effects.year, 3),
        "year_correlation": edge.persistence,
        **{name: value for place, split in beyond.items() for name, value in _of_ground(place, split, side).items()},
        "near_m": float(near_m),
        "block": block,
        "method": method,
        "threshold": threshold,
    }


def _of_ground(place: str, split: Split, side: float) -> dict[str, Any]:
    """Return errors in fractions of ground as entries of the result; `side` is that of a block in metres."""
    return {
        f"{place}_errors": _rounded(split.errors + split.effects.centre, 6),
        f"{place}_range_m": round(split.length * side, 1),
        f"{place}_region_effect": _rounded(split.effects.region, 6),
        f"{place}_year_effect": _rounded(split.effects.year, 6),
        f"{place}_year_correlation": split.persistence,
    }


def _rounded(values: NDArray[np.float64], digits: int) -> list[float]:
    return [round(float(one), digits) for one in values]


class _Table(NamedTuple):
    """Sums of a region by block, `(year, block_y, block_x)`: errors in m2, edge in m, ground in m2.

    Errors `beyond` are those on `ground` away from the edge, errors `within` those on the mapped `ice` of it.
    """

    at_edge: NDArray[np.float64]
    edge: NDArray[np.float64]
    beyond: NDArray[np.float64]
    ground: NDArray[np.float64]
    within: NDArray[np.float64]
    ice: NDArray[np.float64]
    side: float


def _table(
    mapped: xr.DataArray, reference: xr.DataArray, block: str | float, threshold: float, cut: float | None, near: float
) -> _Table:
    mapped, reference, known, grid, side = aligned_pair(mapped, reference, block)
    edge, away = edge_bands(mapped, grid, near, threshold)
    pixel = grid.resolution**2

    def sums(array: xr.DataArray, at: float | None) -> NDArray[np.float64]:
        found = block_table(array, grid, side, threshold=at)["ice_km2"].values * 1e6
        return np.asarray(found, np.float64)

    far = known & (away > 0)
    ice = far & (mapped > threshold)
    errors = [sums(mapped.where(where), cut) - sums(reference.where(where), None) for where in (known, far, ice)]
    length = sums(edge.where(known), None) / pixel * FULL_EDGE * grid.resolution
    ground, inside = (sums(one.astype(np.float32), None) for one in (far, ice))
    return _Table(errors[0] - errors[1], length, errors[1], ground, errors[2], inside, side * grid.resolution)


def _split(errors: list[NDArray[np.float64]], extents: list[NDArray[np.float64]], least: float) -> Split:
    """Describe errors per unit of extent; those of blocks with less than `least` of it are in the means only.

    Regions without any extent say nothing, and count only where fewer than two others are left.
    """
    some = [k for k, extent in enumerate(extents) if extent.any()]
    if len(some) >= 2:
        errors, extents = [errors[k] for k in some], [extents[k] for k in some]
    by_year = []
    for error, extent in zip(errors, extents, strict=True):
        total = extent.sum(axis=(1, 2))
        by_year.append(np.divide(error.sum(axis=(1, 2)), total, out=np.zeros(len(total)), where=total > 0))
    rest = []
    for error, extent, mean in zip(errors, extents, by_year, strict=True):
        rest.append(np.full(extent.shape, np.nan))
        np.divide(error, extent, out=rest[-1], where=extent >= least)
        rest[-1] -= mean[:, None, None]
    return split_errors(rest, extents, by_year)
