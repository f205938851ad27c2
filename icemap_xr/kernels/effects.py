"""What errors of maps have in common: by region, by year, and the rest that differs from place to place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import chi2, rankdata

from icemap_xr.kernels.errorfields import BlockField, as_errors

#: draws of the rest by which is found how much it alone makes means differ
_DRAWS = 200
#: quantiles that stand for the distribution of a variance, and at most for that of an effect
_SCALES, _QUANTILES = 101, 1001


class Effects(NamedTuple):
    """Parts of an error that places share.

    Parameters
    ----------
    centre
        Mean of the regions' means.
    year
        Departures of single years from their region's mean, `(effect,)`, sorted; 0 alone where no region has several.
    region
        Departures of regions from the centre, likewise; of regions with one year, they include that year's.
    """

    centre: float
    year: NDArray[np.float64]
    region: NDArray[np.float64]


def split_effects(by_year: Sequence[NDArray[np.float64]], rest: Sequence[NDArray[np.float64]]) -> Effects:
    """Split means of maps into what regions and what years share.

    The rest, which differs from place to place, makes means of finite regions differ too. That part is taken off the
    variances (analysis of variance), so that it is not drawn twice, and a larger region does not inherit it.

    Parameters
    ----------
    by_year
        Of each region, the mean error of its years `(year,)`.
    rest
        Of each region, draws of such means if there were nothing but the rest, `(draw, year)`.

    Notes
    -----
    Departures keep their shape and get the variances found. These are uncertain themselves, the more so the fewer the
    regions, and so are drawn too: a mean square of f degrees of freedom stands for the variance
    ``mean square * f / chi2(f)`` (generalised inference, Weerahandi 1993, J. Am. Stat. Assoc. 88, 899-905). Where the
    rest explains nothing, that gives Student's t. What is returned are quantiles of all that.
    """
    regions = len(by_year)
    means = np.array([one.mean() for one in by_year])
    centre = float(means.mean())
    several = [i for i, one in enumerate(by_year) if len(one) > 1]
    year, yearly = np.zeros(1), 0.0
    if several:
        departures = np.concatenate([by_year[i] - means[i] for i in several])
        freedom = len(departures) - len(several)
        within = float(np.sum(departures**2)) / freedom
        alone = float(np.mean([rest[i].var(axis=1, ddof=1).mean() for i in several]))
        year, yearly = _mixture(departures, within, freedom, alone, 0.0), max(0.0, within - alone)
    between = float(means.var(ddof=1))
    alone = float(np.mean([np.mean(one.mean(axis=1) ** 2) for one in rest]))
    alone += yearly * float(np.mean([1 / len(one) for one in by_year]))
    # the centre is no better known than between / regions
    return Effects(centre, year, _mixture(means - centre, between, regions - 1, alone, 1 / regions))


def _mixture(
    departures: NDArray[np.float64], square: float, freedom: int, alone: float, more: float
) -> NDArray[np.float64]:
    """Return quantiles of departures whose variance is drawn.

    Parameters
    ----------
    departures
        What was found.
    square, freedom
        Their mean square and its degrees of freedom.
    alone
        Variance that the rest alone makes.
    more
        Share of the whole variance to add.
    """
    size = float(np.sqrt(np.mean(departures**2)))
    if not size > 0:
        return np.zeros(1)
    whole = square * freedom / chi2.ppf((np.arange(_SCALES) + 0.5) / _SCALES, freedom)
    scales = np.sqrt(np.maximum(0.0, whole - alone) + more * whole) / size
    values = np.outer(scales, departures).ravel()
    if values.size <= _QUANTILES:
        return np.sort(values)
    return np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)


def normal_scores(fields: Sequence[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Return fields whose values are replaced by the normal numbers of the same rank; NaN stays NaN.

    Fields are drawn as normal numbers and then given the errors' values by rank, so their correlation is that of these.
    """
    known = [np.isfinite(one) for one in fields]
    values = np.concatenate([one[these] for one, these in zip(fields, known, strict=True)])
    scores = ndtri((rankdata(values) - 0.5) / max(1, values.size))
    parts = np.split(scores, np.cumsum([int(these.sum()) for these in known])[:-1])
    out = []
    for one, these, part in zip(fields, known, parts, strict=True):
        filled = np.full(one.shape, np.nan)
        filled[these] = part
        out.append(filled)
    return out


def drawn_errors(
    rng: np.random.Generator,
    field: BlockField,
    ordered: NDArray[np.float64],
    persistence: float,
    shape: tuple[int, int],
) -> NDArray[np.float64]:
    """Return errors `(draw, year, block)` that are correlated in space and from year to year.

    Parameters
    ----------
    rng, field
        Random numbers, and the blocks' fields.
    ordered
        Errors `(error,)`, sorted.
    persistence
        Correlation of a block's error in one year with that in another.
    shape
        Draws and years.
    """
    draws, years = shape
    fields = field.draw(rng, draws * (years + 1)).reshape(draws, years + 1, -1)
    normals = math.sqrt(persistence) * fields[:, :1] + math.sqrt(1 - persistence) * fields[:, 1:]
    return as_errors(normals, ordered)


def means_of_rest(
    weights: NDArray[np.float64], ordered: NDArray[np.float64], length: float, persistence: float
) -> NDArray[np.float64]:
    """Draw means of a region if its errors had nothing in common, `(draw, year)`.

    Parameters
    ----------
    weights
        How much each block counts, `(year, block_y, block_x)`.
    ordered, persistence
        As for `drawn_errors`.
    length
        Distance in blocks at which their correlation falls to 1/e.
    """
    rows, columns = np.nonzero((weights > 0).any(axis=0))
    if not len(rows):
        return np.zeros((_DRAWS, len(weights)))
    rng = np.random.default_rng(len(rows))  # the same answer every time
    errors = drawn_errors(rng, BlockField(rows, columns, length), ordered, persistence, (_DRAWS, len(weights)))
    chosen = weights[:, rows, columns]
    total = chosen.sum(axis=1)
    return np.divide(
        np.sum(errors * chosen, axis=2), total, out=np.zeros((_DRAWS, len(total))), where=np.asarray(total > 0)
    )
