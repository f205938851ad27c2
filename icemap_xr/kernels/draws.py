"""Bootstrap draws from block sums: which blocks each draw takes, and the area it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: draws times blocks held at once: 8 MiB of indices
BATCH_CELLS = 2**20

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


def block_counts(blocks: int, n: int, seed: int, *, published: bool) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield, batch by batch, how often each draw takes each block.

    Each draw takes as many blocks as there are, with replacement: ``rng.choice(blocks, blocks, replace=True)``.

    Yields
    ------
    draws, counts
        The draws of the batch, and their counts `(draw, block)` float64.
    """
    batch = max(1, BATCH_CELLS // blocks)
    for start in range(0, n, batch):
        draws = range(start, min(start + batch, n))
        # offset by `blocks` per draw, so that a single bincount serves the whole batch
        index = np.empty((len(draws), blocks), np.int64)
        for i, k in enumerate(draws):
            index[i] = generator(seed, k, published=published).choice(blocks, blocks, replace=True) + i * blocks
        counts = np.bincount(index.ravel(), minlength=index.size).reshape(index.shape)
        yield slice(start, start + len(draws)), counts.astype(np.float64)


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
    areas = np.full((n, ice.shape[1]), np.nan)
    total = observed.sum(axis=0)
    for draws, counts in block_counts(len(ice), n, seed, published=not ratio):
        drawn_ice = counts @ ice
        if ratio:
            drawn = counts @ observed
            np.divide(drawn_ice * total, drawn, out=areas[draws], where=drawn > 0)
        else:
            areas[draws] = np.where(total > 0, drawn_ice, np.nan)
    return areas.T


def corrected_areas(
    ice: NDArray[np.float64],
    observed: NDArray[np.float64],
    errors: NDArray[np.float64],
    year_effect: NDArray[np.float64],
    n: int,
    seed: int,
) -> NDArray[np.float64]:
    """Draw true areas by taking drawn mapping errors off the mapped area.

    Parameters
    ----------
    ice, observed
        Ice and observed area `(block, year)`, km2.
    errors
        Held-out block errors, prediction minus reference as a fraction of the block's observed area: `(error,)`,
        drawn for each block and each year on its own; or `(error, year)`, whose rows are drawn whole, so that errors
        that persist from year to year persist in the draws.
    year_effect
        Errors `(effect,)` shared by all blocks of a year, same unit; one is drawn for each year.
    n, seed
        Draws, and seed.

    Returns
    -------
    ndarray
        `(year, draw)` float64, km2; NaN where a year has no observed block.
    """
    blocks, years = ice.shape
    total = observed.sum(axis=0)
    areas = np.empty((n, years))
    for k in range(n):
        rng = generator(seed, k, published=False)
        if errors.ndim == 1:
            drawn = errors[rng.integers(len(errors), size=(blocks, years))]
        else:
            drawn = errors[rng.integers(len(errors), size=blocks)]
        shared = year_effect[rng.integers(len(year_effect), size=years)]
        areas[k] = ice.sum(axis=0) - np.sum(drawn * observed, axis=0) - shared * total
    areas[:, total == 0] = np.nan
    return areas.T


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
