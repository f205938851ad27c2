"""Bootstrap draws from block sums: which blocks each draw takes, and the area it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from icemap_xr.kernels.errorfields import BlockField, as_errors

#: draws times blocks held at once: 1 MiB of counts, which stay in the processor's cache
BATCH_CELLS = 2**17

#: labels of an interval's bounds; as objects, because Zarr v3 has no specification of fixed-length text
BOUNDS = np.array(["low", "high"], dtype=object)


def generator(seed: int, k: int, *, published: bool) -> np.random.Generator:
    """Return the random generator of draw `k`.

    Parameters
    ----------
    seed
        Seed of the whole bootstrap.
    k
        Number of the draw from 0. A draw depends on `seed` and `k` alone, so more draws never change earlier ones.
    published
        True for ``default_rng(seed * (k + 1))`` as in the published program, whose streams are not independent by
        construction; False for child `k` of numpy's `SeedSequence`.
    """
    if published:
        return np.random.default_rng(seed * (k + 1))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))


def taken_blocks(blocks: int, seed: int, k: int, *, published: bool) -> NDArray[np.int64]:
    """Return which blocks draw `k` takes: as many as there are, with replacement."""
    return generator(seed, k, published=published).choice(blocks, blocks, replace=True)


def block_counts(blocks: int, n: int, seed: int, *, published: bool) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield, batch by batch, how often each draw takes each block.

    Yields
    ------
    draws, counts
        The draws of the batch, and their counts `(draw, block)` float64.
    """
    batch = max(1, BATCH_CELLS // blocks)
    for start in range(0, n, batch):
        draws = range(start, min(start + batch, n))
        counts = np.empty((len(draws), blocks))
        for i, k in enumerate(draws):
            counts[i] = np.bincount(taken_blocks(blocks, seed, k, published=published), minlength=blocks)
        yield slice(start, start + len(draws)), counts


def resampled_areas(
    ice: NDArray[np.float64], observed: NDArray[np.float64], n: int, seed: int, *, ratio: bool
) -> NDArray[np.float64]:
    """Draw areas by resampling blocks; every year takes the same blocks in the same draw.

    Parameters
    ----------
    ice, observed
        Ice and observed area `(block, year)`, km2.
    n
        Draws.
    seed
        Seed.
    ratio
        True: ice / observed area of the drawn blocks, times the whole observed area. False: sum of the drawn ice,
        with the published program's indices.

    Returns
    -------
    ndarray
        `(year, draw)` float64, km2. NaN where a year has no observed block, or (ratio) a draw took none of them.
    """
    total = observed.sum(axis=0)
    if not ratio:
        areas = _summed(ice, n, seed)
        areas[:, total == 0] = np.nan
        return areas.T
    areas = np.full((n, ice.shape[1]), np.nan)
    for draws, counts in block_counts(len(ice), n, seed, published=False):
        drawn = counts @ observed
        np.divide((counts @ ice) * total, drawn, out=areas[draws], where=drawn > 0)
    return areas.T


def _summed(ice: NDArray[np.float64], n: int, seed: int) -> NDArray[np.float64]:
    """Return the published sums `(draw, year)`, to the last bit: NumPy's own sum of the blocks in the order drawn."""
    by_year = np.ascontiguousarray(ice.T)
    areas = np.empty((n, ice.shape[1]))
    for k in range(n):
        taken = taken_blocks(len(ice), seed, k, published=True)
        # mode="clip" spares the check of indices, which are right
        areas[k] = by_year.take(taken, axis=1, mode="clip").sum(axis=1)
    return areas


class ErrorModel(NamedTuple):
    """How wrong maps are, from held-out ones: prediction minus reference, as fractions of observed area.

    Parameters
    ----------
    errors
        Of blocks: `(error,)`, drawn for each block and year; or `(error, year)`, whose rows are drawn whole, so that
        errors that persist from year to year persist in the draws.
    year_effect
        `(effect,)`, shared by all blocks of a year; one is drawn for each year.
    region_effect
        `(effect,)`, shared by all blocks and years; one is drawn for all.
    range_blocks
        Distance at which the correlation of block errors falls to 1/e, in blocks.
    year_correlation
        Correlation of a block's error in one year with that in another; for `(error,)` only.
    """

    errors: NDArray[np.float64]
    year_effect: NDArray[np.float64]
    region_effect: NDArray[np.float64]
    range_blocks: float = 0.0
    year_correlation: float = 0.0


def corrected_areas(
    ice: NDArray[np.float64],
    observed: NDArray[np.float64],
    model: ErrorModel,
    n: int,
    seed: int,
    places: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]] | None = None,
) -> NDArray[np.float64]:
    """Draw true areas by taking drawn mapping errors off the mapped area.

    Parameters
    ----------
    ice, observed
        Ice and observed area `(block, year)`, km2.
    model
        Errors to draw from.
    n, seed
        Draws, and seed.
    places
        Row and column of each block in the lattice of blocks; needed where errors are correlated in space.

    Returns
    -------
    ndarray
        `(year, draw)` float64, km2; NaN where a year has no observed block.
    """
    blocks, years = ice.shape
    total, mapped = observed.sum(axis=0), ice.sum(axis=0)
    rows, columns = (np.zeros(blocks, np.intp),) * 2 if places is None else places
    field = BlockField(rows, columns, 0.0 if places is None else model.range_blocks)
    ordered = _ordered(model.errors)
    areas = np.empty((n, years))
    for k in range(n):
        rng = generator(seed, k, published=False)
        drawn = _block_errors(rng, field, ordered, model.year_correlation, years)
        shared = model.year_effect[rng.integers(len(model.year_effect), size=years)]
        everywhere = model.region_effect[rng.integers(len(model.region_effect))]
        areas[k] = mapped - np.sum(drawn * observed, axis=0) - (shared + everywhere) * total
    areas[:, total == 0] = np.nan
    return areas.T


def _ordered(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the errors in order of size, or whole rows in order of their mean."""
    return np.sort(errors) if errors.ndim == 1 else errors[np.argsort(errors.mean(axis=1), kind="stable")]


def _block_errors(
    rng: np.random.Generator, field: BlockField, ordered: NDArray[np.float64], persistence: float, years: int
) -> NDArray[np.float64]:
    """Return errors `(block, year)` of one draw."""
    if ordered.ndim == 2:
        return as_errors(field.draw(rng, 1)[0], ordered)
    if persistence > 0:
        fields = field.draw(rng, years + 1)
        fields = np.sqrt(persistence) * fields[:1] + np.sqrt(1 - persistence) * fields[1:]
    else:
        fields = field.draw(rng, years)
    return as_errors(fields.T, ordered)


def left_out(ice: NDArray[np.float64], observed: NDArray[np.float64], *, ratio: bool) -> NDArray[np.float64]:
    """Return the estimate without each block in turn (the jackknife), `(year, block)`, km2; NaN where nothing is left.

    Parameters
    ----------
    ice, observed
        Ice and observed area `(block, year)`, km2.
    ratio
        As in `resampled_areas`.
    """
    rest, total = ice.sum(axis=0) - ice, observed.sum(axis=0)
    if not ratio:
        blocks = len(ice)
        return (rest * (blocks / (blocks - 1))).T
    seen = total - observed
    estimate = np.full(ice.shape, np.nan)
    np.divide(rest * total, seen, out=estimate, where=seen > 1e-12 * total)
    return estimate.T


def bca_interval(
    draws: NDArray[np.float64], estimate: NDArray[np.float64], jackknife: NDArray[np.float64], level: float
) -> NDArray[np.float64]:
    """Return the bias-corrected and accelerated interval of each row.

    Parameters
    ----------
    draws
        `(row, draw)`; NaN draws are left out.
    estimate
        `(row,)`, of all blocks.
    jackknife
        `(row, block)`, of all blocks but one.
    level
        Share of the interval, between 0 and 1.

    Returns
    -------
    ndarray
        `(row, 2)` float64: low, high; NaN where every draw is NaN.

    Notes
    -----
    Efron (1987), J. Am. Stat. Assoc. 82, 171-185.
    """
    bounds = np.full((len(draws), 2), np.nan)
    tails = ndtri([(1 - level) / 2, (1 + level) / 2])
    for i, one in enumerate(draws):
        kept, held = one[np.isfinite(one)], jackknife[i][np.isfinite(jackknife[i])]
        if not kept.size:
            continue
        below = np.mean(kept < estimate[i]) + np.mean(kept == estimate[i]) / 2
        half = 0.5 / kept.size  # draws all on one side say that the share is small, not that it is 0
        bias = ndtri(np.clip(below, half, 1 - half))
        off = held.mean() - held
        spread = np.sum(off**2) ** 1.5
        acceleration = np.sum(off**3) / (6 * spread) if spread > 0 else 0.0
        shifted = bias + tails
        bounds[i] = np.quantile(kept, ndtr(bias + shifted / (1 - acceleration * shifted)))
    return bounds


def percentile_interval(draws: NDArray[np.floating[Any]], level: float) -> NDArray[np.float64]:
    """Return the equal-tailed percentile interval over the last axis.

    Parameters
    ----------
    draws
        `(..., draw)`; NaN draws are left out.
    level
        Share of the draws inside, between 0 and 1.

    Returns
    -------
    ndarray
        `(..., 2)` float64: low, high; NaN where every draw is NaN.
    """
    flat = draws.reshape(-1, draws.shape[-1])
    tails = [(1 - level) / 2, (1 + level) / 2]
    bounds = np.full((len(flat), 2), np.nan)
    for i, one in enumerate(flat):
        kept = one[np.isfinite(one)]
        if kept.size:
            bounds[i] = np.quantile(kept, tails)
    return bounds.reshape(*draws.shape[:-1], 2)
