"""Kernel ridge regression with a Laplacian kernel of one variable, as an exact piecewise curve.

``f(x) = sum_i dual_i exp(-|x - x_i|)`` is ``A e^x + B e^-x`` between neighbouring knots, with A and B fixed by the
values at the two knots. So the knots and the values there are the whole regression, and no pixel needs the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from icemap_xr.errors import InputError
from icemap_xr.kernels.confidence import CLIP, shannon_confidence
from icemap_xr.kernels.probabilities import check_probabilities

#: pixels worked on at once: what they need then stays in the processor's cache
_AT_ONCE = 2**16
#: finest table of knots; knots nearer than this are found by bisection
_MOST_CELLS = 2**16
#: at or below this probability nothing is mapped, and the published calibration gives 0
NOTHING = 1e-8


class Segments(NamedTuple):
    """Coefficients of each segment, and how to find a value's segment.

    Parameters
    ----------
    knots
        `(n,)` strictly increasing, 0..1.
    rising, falling
        A and B of the `n + 1` segments: before the first knot, between neighbours, from the last knot on.
    before, knot
        By cell of 0..1: knots in earlier cells, and the one knot inside (infinite where there is none). Empty where
        knots lie too near for that.
    """

    knots: NDArray[np.float64]
    rising: NDArray[np.float64]
    falling: NDArray[np.float64]
    before: NDArray[np.int32]
    knot: NDArray[np.float64]


def segments(x: ArrayLike, y: ArrayLike) -> Segments:
    """Return the segments of the curve through knots.

    Parameters
    ----------
    x
        Knots 0..1, strictly increasing.
    y
        Value of the regression at each knot.
    """
    knots, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    left, right = knots[:-1], knots[1:]
    scale = 2 * np.sinh(right - left)
    rising = (values[1:] * np.exp(-left) - values[:-1] * np.exp(-right)) / scale
    falling = (values[:-1] * np.exp(right) - values[1:] * np.exp(left)) / scale
    cells = 1
    while cells <= _MOST_CELLS and len(np.unique((knots * cells).astype(np.int64))) < len(knots):
        cells *= 2
    before, inside = np.empty(0, np.int32), np.empty(0)
    if cells <= _MOST_CELLS:
        cell_of = (knots * cells).astype(np.int64)
        before = np.searchsorted(cell_of, np.arange(cells + 1), side="left").astype(np.int32)
        inside = np.full(cells + 1, np.inf)
        inside[cell_of] = knots
    return Segments(
        knots,
        np.concatenate([[values[0] * np.exp(-knots[0])], rising, [0.0]]),
        np.concatenate([[0.0], falling, [values[-1] * np.exp(knots[-1])]]),
        before,
        inside,
    )


def curve_values(x: NDArray[np.float64], curve: Segments) -> NDArray[np.float64]:
    """Return the regression at `x (n,)` in 0..1, without NaN; not cut to 0..1."""
    if curve.before.size:
        # the number of cells is a power of two, so the product is exact and a knot falls into its own cell
        cell = (x * (len(curve.before) - 1)).astype(np.int32)
        at = curve.before.take(cell)
        at += x >= curve.knot.take(cell)
    else:
        at = np.searchsorted(curve.knots, x, side="right").astype(np.int32)
    growth = np.exp(x)
    values: NDArray[np.float64] = curve.rising.take(at)
    values *= growth
    values += curve.falling.take(at) / growth
    return values


class Table(NamedTuple):
    """The published calibration of float32 probabilities, tabulated.

    Confidence is the same for p and 1 - p, so cells are those of the smaller one, q. They are cut by the leading bits
    of the number, and so are finest where the confidence is steepest. In each cell the curve is a line; a cell where
    that is not exact enough, because a knot lies in it, holds NaN, and its pixels are evaluated one by one.

    Parameters
    ----------
    first
        Leading bits of the first cell; smaller q belong to it.
    lines
        By cell: the calibrated confidence at the cell's start less 1, and its slope per unit of q, as real and
        imaginary part: one look-up then gives both.
    """

    first: int
    lines: NDArray[np.complex64]


#: bits of a float32 that are dropped: 12 bits of the mantissa are left
_DROPPED = 11
#: largest error of a cell's line
_OFF = 2e-7


def tabulate(curve: Segments) -> Table:
    """Return the table of a curve, which it follows to less than 1e-6."""
    ends = np.array([2.0**-20, 0.5], np.float32).view(np.int32) >> _DROPPED
    cells = int(ends[1] - ends[0]) + 1
    edges = ((ends[0] + np.arange(cells + 1)) << _DROPPED).astype(np.int32).view(np.float32).astype(np.float64)
    start, end = edges[:-1], np.minimum(edges[1:], 0.5)  # the last cell holds 0.5 alone
    values, behind = _confident(start, curve), _confident(end, curve)
    slopes = np.divide(behind - values, end - start, out=np.zeros(cells), where=end > start)
    exact = np.ones(cells, bool)
    for share in (0.25, 0.5, 0.75):
        off = values + share * (behind - values) - _confident(start + share * (end - start), curve)
        exact &= np.abs(off) < _OFF
    # between the places just tested a line may still be bent by a knot
    exact[np.clip(np.searchsorted(edges, _kinks(curve), side="right") - 1, 0, cells - 1)] = False
    # the first cell's q are all that small, and one value serves them
    slopes[0], values[0], exact[0] = 0.0, _confident(np.array([CLIP]), curve)[0], True
    exact[-1] = False  # at 0.5 itself
    lines = np.empty(cells, np.complex64)
    lines.real, lines.imag = np.where(exact, values - 1, np.nan), slopes
    return Table(int(ends[0]), lines)


def _confident(q: NDArray[np.float64], curve: Segments) -> NDArray[np.float64]:
    """Return the calibrated confidence, cut to 0..1, of probabilities q."""
    return np.clip(curve_values(np.asarray(shannon_confidence(q), np.float64), curve), 0, 1)


def _kinks(curve: Segments) -> NDArray[np.float64]:
    """Return the q at which the confidence reaches each knot."""
    low, high = np.full(curve.knots.shape, CLIP), np.full(curve.knots.shape, 0.5)
    for _ in range(60):  # the confidence falls from q = 1e-6 to 0.5
        middle = (low + high) / 2
        above = shannon_confidence(middle) > curve.knots
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return high


class _Workspace(NamedTuple):
    """Arrays that every batch of float32 probabilities is worked on in."""

    upper: NDArray[np.float32]
    q: NDArray[np.float32]
    at: NDArray[np.int32]
    line: NDArray[np.complex64]

    @classmethod
    def of(cls, size: int) -> _Workspace:
        """Return arrays for batches of up to `size` pixels."""
        kinds = (np.float32, np.float32, np.int32, np.complex64)
        return cls(*(np.empty(size, kind) for kind in kinds))  # type: ignore[arg-type]


def _look_up(p: NDArray[np.float32], table: Table, out: NDArray[np.float32], workspace: _Workspace) -> None:
    """Write calibrated float32 probabilities `(n,)` to `out`; NaN where p is NaN, and where the table has no line."""
    some = slice(p.size)
    upper, q, at, line = workspace.upper[some], workspace.q[some], workspace.at[some], workspace.line[some]
    np.rint(p, out=upper)  # 1 above 0.5
    np.subtract(p, upper, out=q)
    np.abs(q, out=q)
    bits = q.view(np.int32)
    np.right_shift(bits, _DROPPED, out=at)
    at -= np.int32(table.first)
    table.lines.take(at, mode="clip", out=line)
    np.bitwise_and(bits, np.int32(-1 << _DROPPED), out=at)
    q -= at.view(np.float32)
    q *= line.imag
    q += line.real
    # lines are of c - 1: that gives c above 0.5, and 1 - c below
    q += upper
    np.abs(q, out=out)


def calibrate_confidence(probability: ArrayLike, curve: Segments, table: Table | None = None) -> NDArray[np.float32]:
    """Calibrate probabilities through their confidence, as published.

    Parameters
    ----------
    probability
        0..1 of any shape; NaN stays NaN.
    curve
        Calibrated confidence over confidence.
    table
        Of the curve, for float32 probabilities, which it calibrates several times faster and to 1e-6.

    Returns
    -------
    ndarray
        float32 of the same shape: the calibrated confidence c, cut to 0..1, where the probability is at least 0.5,
        else 1 - c; 0 where the probability is at most 1e-8.

    Raises
    ------
    InputError
        A value lies outside 0..1.
    """
    values = np.asarray(probability)
    out = np.empty(values.shape, np.float32)
    whole = values.flags.c_contiguous
    left: list[tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.float32]]] = []
    workspace = None
    for some, found in zip(_batches(values, flat=whole), _batches(out, flat=whole), strict=True):
        low, high = check_probabilities(some, "calibrating")
        if table is None or some.dtype != np.float32:
            found[...] = _evaluate(some, curve)
            continue
        if workspace is None:  # the first batch is the largest
            workspace = _Workspace.of(some.size)
        # rounding may have gone beyond
        p = (some if high <= 1 else np.minimum(some, np.float32(1))).reshape(-1)
        found = found.reshape(-1)  # a view: rows of the result lie one behind the other
        _look_up(p, table, found, workspace)
        if np.isnan(found.min()):
            odd = np.flatnonzero(np.isnan(found))
            odd = odd[np.isfinite(p[odd])]
            left.append((found, odd, p[odd]))
        if low <= NOTHING:
            found[p <= np.float32(NOTHING)] = 0
    if left:  # all at once: each batch has few
        exact = _evaluate(np.concatenate([one for *_, one in left]), curve)
        ends = np.cumsum([one.size for *_, one in left])
        for (found, odd, one), end in zip(left, ends, strict=True):
            found[odd] = exact[end - one.size : end]
    return out


def _batches(values: NDArray[Any], *, flat: bool) -> Iterator[NDArray[Any]]:
    """Yield views of an array that fit into the processor's cache; with `flat`, of one that is contiguous."""
    if flat or values.ndim < 2:
        line = values.reshape(-1)
        for start in range(0, len(line), _AT_ONCE):
            yield line[start : start + _AT_ONCE]
        return
    rows = max(1, _AT_ONCE // values.shape[-1])
    for index in np.ndindex(values.shape[:-2]):
        for start in range(0, values.shape[-2], rows):
            yield values[index][start : start + rows]


def _evaluate(p: NDArray[Any], curve: Segments) -> NDArray[np.float64]:
    """Return calibrated probabilities `(n,)` of any precision; NaN stays NaN."""
    confidence = shannon_confidence(p.astype(np.float64))
    seen = np.isfinite(confidence)
    found = np.clip(curve_values(np.where(seen, confidence, 0), curve), 0, 1)
    found = np.where(p >= 0.5, found, 1 - found)
    found[p <= NOTHING] = 0
    found[~seen] = np.nan
    return found


def ridge_knots(x_fit: ArrayLike, dual: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn support points and dual coefficients into knots and the regression's values there.

    Parameters
    ----------
    x_fit
        Support points `(n,)`, 0..1, in any order; repeated ones are joined.
    dual
        Dual coefficient of each.

    Raises
    ------
    InputError
        Fewer than two different support points, one outside 0..1, or a number that is not finite.
    """
    points, weights = np.ravel(np.asarray(x_fit, np.float64)), np.ravel(np.asarray(dual, np.float64))
    if points.shape != weights.shape:
        raise InputError(f"a regression has {points.size} support points and {weights.size} coefficients: give as many")
    if not (np.isfinite(points).all() and np.isfinite(weights).all() and np.all((points >= 0) & (points <= 1))):
        raise InputError("a regression of confidence needs finite support points in 0..1: this is another regression")
    knots, where = np.unique(points, return_inverse=True)
    if len(knots) < 2:
        raise InputError("a regression of confidence needs at least two different support points")
    duals = np.bincount(where, weights)
    return knots, np.exp(-np.abs(knots[:, None] - knots)) @ duals
