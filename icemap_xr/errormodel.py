"""How wrong the maps of a model are: from held-out maps and their reference to what `bootstrap_area` draws from.

Below the stages. A mapping error is prediction minus reference, as a fraction of observed area. It has a part that all
blocks of all years of a map share (a landscape that the model reads wrong), one that all blocks of a year share (wet
snow, a platform's offset), and a rest that is correlated between neighbouring blocks and from year to year.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from icemap_xr import schema
from icemap_xr.blocktable import block_table
from icemap_xr.errors import CalibrationMismatchWarning, InputError, did_you_mean, warn
from icemap_xr.grid import RegionGrid, parse_metres
from icemap_xr.kernels.draws import ErrorModel
from icemap_xr.kernels.effects import Effects, means_of_rest, normal_scores, split_effects
from icemap_xr.kernels.semivariance import fit_exponential, semivariance
from icemap_xr.options import check_threshold
from icemap_xr.types import StrPath

BlockErrors: TypeAlias = ArrayLike | Mapping[str, Any]
KNOWN = (
    "errors",
    "year_effect",
    "region_effect",
    "range_m",
    "year_correlation",
    "block",
    "method",
    "threshold",
    "map_kind",
)
#: a block counts with at least this share of its area observed: the error of a sliver says little
_MOSTLY = 0.5
#: quantiles that stand for a distribution of errors, at most
_QUANTILES = 4001


def read_errors(
    block_errors: BlockErrors, years: int, block_m: float, block: object, threshold: float | None = None
) -> ErrorModel:
    """Check block errors as `bootstrap_area` takes them; effects are 0 and errors independent where not given.

    Parameters
    ----------
    block_errors
        An array, or what `held_out_errors` makes; such a mapping is of soft areas where it does not say.
    years
        Years of the map.
    block_m, block
        Side of its blocks, m, and as it was given.
    threshold
        Of hard areas; None for soft ones.

    Raises
    ------
    InputError
        A key, a shape or a value is not allowed, or the errors are of blocks of another size, or of areas of another
        method or threshold.
    """
    content: Mapping[str, Any] = block_errors if isinstance(block_errors, Mapping) else {"errors": block_errors}
    for key in content:
        if key not in KNOWN:
            raise InputError(f"block_errors has {key!r}: allowed are {', '.join(KNOWN)}{did_you_mean(key, KNOWN)}")
    if "errors" not in content:
        raise InputError("block_errors lacks 'errors': give the errors of held-out blocks")
    if "block" in content and not math.isclose(parse_metres(content["block"]), block_m, rel_tol=1e-6):
        raise InputError(f"block_errors are of blocks of {content['block']!r}, not {block!r}: give that block size")
    if isinstance(block_errors, Mapping):
        _check_method(content, threshold)
    errors = _fractions(content["errors"], "errors")
    if errors.ndim > 2 or (errors.ndim == 2 and errors.shape[1] != years):
        raise InputError(f"errors has shape {errors.shape}, the map {years} years: give (error,) or (error, {years})")
    effects = {}
    for name in ("year_effect", "region_effect"):
        effects[name] = _fractions(content.get(name, [0.0]), name)
        if effects[name].ndim != 1:
            raise InputError(f"{name} has shape {effects[name].shape}: give one dimension, an effect per held-out map")
    range_m = _number(content.get("range_m", 0.0), "range_m", math.inf)
    persistence = _number(content.get("year_correlation", 0.0), "year_correlation", 1.0)
    return ErrorModel(errors, effects["year_effect"], effects["region_effect"], range_m / block_m, persistence)


def _check_method(content: Mapping[str, Any], threshold: float | None) -> None:
    """Refuse errors of other areas: a threshold is wrong in another way than a sum of probabilities."""
    wanted = "soft" if threshold is None else "hard"
    found = content.get("method", "soft")
    if found != wanted:
        raise InputError(
            f"block_errors are of {found} areas, not {wanted}: give those of held_out_errors(..., method={wanted!r})"
        )
    if threshold is not None and content.get("threshold", 0.5) != threshold:
        raise InputError(f"block_errors are of the threshold {content.get('threshold', 0.5)}, not {threshold}")


def check_map_kind(block_errors: BlockErrors, mapped: xr.DataArray) -> None:
    """Warn where errors are those of maps that were filtered over the years in another way, as far as they say."""
    of = block_errors.get("map_kind") if isinstance(block_errors, Mapping) else None
    given = _kind(mapped)
    if of is not None and of != given:
        warn(
            f"block_errors are of maps of the kind {of!r} and the maps are {given!r}: their errors are others; learn "
            "errors from maps that are filtered as these are",
            CalibrationMismatchWarning,
        )


def _kind(mapped: xr.DataArray) -> str:
    return str(mapped.attrs.get("temporal_filter", "single years"))


def load_block_errors(path: StrPath) -> dict[str, Any]:
    """Return the block errors in a JSON file; they are checked where they are used.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"block errors {str(path)!r} cannot be read ({error}): give a JSON file") from None
    return content


def _number(value: Any, name: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most or value == math.inf:
        raise InputError(f"{name} {value!r} of block_errors is not allowed: give a number from 0 to {most:g}")
    return float(value)


def _fractions(values: Any, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} of block_errors is not an array of numbers: give fractions of block area") from None
    if array.ndim == 0 or array.size == 0 or not np.all(np.abs(array) <= 1):
        raise InputError(f"{name} of block_errors must be a non-empty array of fractions from -1 to 1, without NaN")
    return array


def held_out_errors(
    pairs: Iterable[tuple[xr.DataArray, xr.DataArray]],
    *,
    block: str | float,
    method: Literal["soft", "hard"] = "soft",
    threshold: float = 0.5,
) -> dict[str, Any]:
    """Describe the errors of maps of regions that the model, its calibrator and its filter have never seen.

    Parameters
    ----------
    pairs
        One pair for each region: the map as it will be summed (calibrated, if so) and the true ice cover, both
        `(year, y, x)`, 0..1, NaN where unknown, on one grid with a CRS in metres. Regions are read one at a time.
    block
        Block side, as `bootstrap_area` will be given it.
    method, threshold
        Of the areas whose errors these are, as in `area`. The reference is summed as it is.

    Returns
    -------
    dict
        Plain JSON for `bootstrap_area(kind="mapping", block_errors=...)`: `errors` of the blocks (quantiles, of many)
        less what their map has in common, plus the mean of all (the model's bias); `region_effect` and `year_effect`,
        the departures of whole regions and of single years of a region, less what the blocks' own errors make of such
        means; `range_m`, the distance at which the correlation between blocks falls to 1/e; `year_correlation`;
        `block`, `method`, `threshold` of hard areas, and `map_kind`, the temporal filter of the maps. Region effects
        are widened for the number of regions they come from. With one year to a region, region and year cannot be told
        apart, and both are in `year_effect`.

    Raises
    ------
    InputError
        Fewer than two regions, a pair that does not fit together, or maps that are filtered in different ways.
    """
    if method not in ("soft", "hard"):
        raise InputError(f"method {method!r} is not allowed: give 'soft' or 'hard'")
    check_threshold(threshold)
    cut = threshold if method == "hard" else None
    fields, spacing, kinds = [], 0.0, set()
    for mapped, reference in pairs:
        found, spacing = _error_field(mapped, reference, block, cut)
        fields.append(found)
        kinds.add(_kind(mapped))
    if len(kinds) > 1:
        raise InputError(f"the maps are of several kinds ({', '.join(sorted(kinds))}): filter all as the others were")
    if len(fields) < 2:
        raise InputError(f"errors of {len(fields)} region say nothing about another one: give at least 2 regions")
    known = [np.isfinite(one).astype(float) for one in fields]
    by_year = [np.nanmean(one, axis=(1, 2)) for one in fields]
    rest = [one - mean[:, None, None] for one, mean in zip(fields, by_year, strict=True)]
    split = split_errors(rest, known, by_year)
    effects = {"year_effect": _rounded(split.effects.year), "region_effect": _rounded(split.effects.region)}
    if max(map(len, fields)) == 1:
        effects = {"year_effect": effects["region_effect"]}
    return {
        "errors": _rounded(split.errors + split.effects.centre),
        **effects,
        "range_m": split.length * spacing,
        "year_correlation": split.persistence,
        "block": block,
        "method": method,
        **({} if cut is None else {"threshold": cut}),
        "map_kind": kinds.pop(),
    }


class Split(NamedTuple):
    """Errors of blocks without what maps have in common, and how they are correlated.

    Parameters
    ----------
    errors
        Sorted.
    length
        Distance in blocks at which the correlation falls to 1/e.
    persistence
        Correlation from year to year.
    effects
        What years and regions share.
    shares
        Variance of each region's mean over that of a block: 1 over the number of its independent blocks.
    """

    errors: NDArray[np.float64]
    length: float
    persistence: float
    effects: Effects
    shares: list[float]


def split_errors(
    rest: list[NDArray[np.float64]], weights: list[NDArray[np.float64]], by_year: list[NDArray[np.float64]]
) -> Split:
    """Describe errors of blocks by their spread, their correlation, and what regions and years have in common.

    Parameters
    ----------
    rest
        Of each region, errors `(year, block_y, block_x)` less the mean of their year, NaN where unknown.
    weights
        How much each block counts in the mean of its year, same shape.
    by_year
        These means `(year,)`.
    """
    scores = normal_scores(rest)
    length, persistence = error_range(scores), year_correlation(scores)
    values = np.concatenate([one[np.isfinite(one)] for one in rest])
    if not values.size:
        nothing = Effects(float(np.mean([one.mean() for one in by_year])), np.zeros(1), np.zeros(1))
        return Split(np.zeros(1), 0.0, 0.0, nothing, [0.0] * len(rest))
    counts = np.concatenate([w[np.isfinite(one)] for one, w in zip(rest, weights, strict=True)])
    ordered = weighted_quantiles(values, counts)
    ordered -= ordered.mean()
    alone = [means_of_rest(one, ordered, length, persistence) for one in weights]
    variance = max(float(ordered.var()), 1e-30)
    shares = [float(one.var()) / variance for one in alone]
    # the mean that was taken off took some of the rest with it: what is left is too narrow by that
    widened = 1 / math.sqrt(1 - min(float(np.mean(shares)), 0.5))
    effects = split_effects(by_year, [one * widened for one in alone])
    return Split(ordered * widened, length, persistence, effects, shares)


def weighted_quantiles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values that stand for a weighted distribution, sorted, at most `_QUANTILES` of them."""
    if (weights == weights[0]).all() and len(values) <= _QUANTILES:
        return np.sort(values)
    at = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.quantile(values, at, weights=weights, method="inverted_cdf")


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(float(one), 6) for one in np.clip(values, -1, 1)]


class Pair(NamedTuple):
    """A map and its reference on one grid.

    Parameters
    ----------
    mapped, reference
        `(year, y, x)`.
    known
        Where both are, same dims.
    grid
        Their grid.
    side
        Side of a block, pixels.
    """

    mapped: xr.DataArray
    reference: xr.DataArray
    known: xr.DataArray
    grid: RegionGrid
    side: int


def aligned_pair(mapped: xr.DataArray, reference: xr.DataArray, block: str | float) -> Pair:
    """Return a map with its reference, whose dims may stand in another order; `block` is the side of a block.

    Raises
    ------
    InputError
        Their coordinates differ.
    """
    try:
        xr.align(mapped, reference, join="exact")
    except ValueError:
        raise InputError("a map and its reference have different coordinates: select the same years and grid") from None
    reference = reference.transpose(*mapped.dims)
    grid = RegionGrid.from_dataset(mapped)
    known: xr.DataArray = np.isfinite(mapped) & np.isfinite(reference)  # type: ignore[assignment]
    return Pair(mapped, reference, known, grid, grid.pixels(block))


def _error_field(
    mapped: xr.DataArray, reference: xr.DataArray, block: str | float, threshold: float | None
) -> tuple[NDArray[np.float64], float]:
    """Return block errors `(year, block_y, block_x)`, NaN where too little is known, and the block side in metres."""
    mapped, reference, known, grid, side = aligned_pair(mapped, reference, block)
    tables = [
        block_table(one.where(known), grid, side, threshold=cut).compute()
        for one, cut in ((mapped, threshold), (reference, None))
    ]
    observed = tables[0]["observed_km2"].values
    difference = tables[0]["ice_km2"].values - tables[1]["ice_km2"].values
    enough = observed >= _MOSTLY * (side * grid.resolution) ** 2 / 1e6
    years = enough.any(axis=(1, 2))
    if not years.all():
        missing = mapped[schema.YEAR].values[~years].tolist()
        raise InputError(f"years {missing} have no block of {block!r} with known errors: leave them out")
    field = np.full(observed.shape, np.nan)
    np.divide(difference, observed, out=field, where=enough)
    return field, side * grid.resolution


def error_range(residuals: list[NDArray[np.float64]]) -> float:
    """Return the distance, in blocks, at which the correlation of errors falls to 1/e; 0 if it is not seen.

    Parameters
    ----------
    residuals
        Of each region, errors `(year, block_y, block_x)` without what they have in common, NaN where unknown.
    """
    half = max(1, min(min(one.shape[1:]) for one in residuals) // 2)
    sums, pairs = np.zeros(half + 1), np.zeros(half + 1)
    for one in residuals:
        for year in one:
            gamma, count = semivariance(year, half)
            sums += np.where(count > 0, gamma * count, 0)
            pairs += count
    lags = np.arange(half + 1)[1:]
    used = pairs[1:] > 0
    if used.sum() < 3:
        return 0.0
    gamma = sums[1:][used] / pairs[1:][used]
    return fit_exponential(lags[used].astype(float), gamma, pairs[1:][used]).length


def year_correlation(residuals: list[NDArray[np.float64]]) -> float:
    """Return the correlation of a block's error between neighbouring years of a map, cut to 0..1."""
    now = np.concatenate([one[1:].ravel() for one in residuals])
    before = np.concatenate([one[:-1].ravel() for one in residuals])
    both = np.isfinite(now) & np.isfinite(before)
    now, before = now[both], before[both]
    if now.size < 3 or not now.std() or not before.std():
        return 0.0
    return round(float(np.clip(np.corrcoef(now, before)[0, 1], 0, 1)), 4)
