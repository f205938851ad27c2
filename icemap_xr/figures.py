"""Figures of areas and their uncertainty, in one style: Okabe and Ito's colours, which the colour-blind tell apart.

Nothing here touches matplotlib's global state, so it works without a display.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.options import calendar_years
from icemap_xr.plot import furnish, placing

#: Okabe and Ito, in the order in which series take them
COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
#: ice in both years, lost, gained, neither, not observed
_CHANGE_COLORS = ("#0072B2", "#D55E00", "#F0E442", "#EEEEEE", "#E3B7CF")
_CHANGE_NAMES = ("ice in both", "lost", "gained", "no ice", "not observed")


def area_figure(areas: Mapping[str, xr.Dataset], *, truth: xr.DataArray | None = None) -> Figure:
    """Draw areas by year with their intervals, one series for each kind of interval or method.

    Parameters
    ----------
    areas
        Label of each series, and a result of `bootstrap_area`.
    truth
        True area `(year)` in km2, where it is known.
    """
    if not areas:
        raise InputError("there are no areas to draw: give at least one result of bootstrap_area")
    figure, ax = _canvas((7.0, 4.4))
    apart = 0.5 / max(len(areas), 2)
    for i, (label, one) in enumerate(areas.items()):
        years = one[schema.YEAR].values + apart * (i - (len(areas) - 1) / 2)
        bounds = one["interval"].transpose(schema.YEAR, "bound").values
        middle = one["area_km2"].values
        kind = one.attrs.get("interval_kind", "")
        ax.vlines(years, bounds[:, 0], bounds[:, 1], color=COLORS[i % len(COLORS)], lw=2)
        ax.plot(years, middle, "o", ms=5, color=COLORS[i % len(COLORS)], label=f"{label} ({kind} interval)")
    if truth is not None:
        ax.plot(truth[schema.YEAR].values, truth.values, "D", color="black", mfc="none", ms=9, label="truth")
    first = next(iter(areas.values()))
    level = first.attrs.get("level", 0.95)
    ax.set(
        title=f"Glacier area, {level:.0%} intervals", ylabel=f"area [km²] ({first.attrs.get('area_kind', 'planar')})"
    )
    ax.set_xticks(first[schema.YEAR].values)
    _finish(ax, below=True)
    return figure


def change_figure(
    ds: xr.Dataset, *, first: int | None = None, last: int | None = None, threshold: float = 0.5
) -> Figure:
    """Draw where ice was lost and gained between two years.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and a CRS. A raster of more than 1500 pixels a side is thinned out.
    first, last
        Years; the earliest and the latest by default.
    threshold
        Probability above which a pixel is ice.

    Raises
    ------
    InputError
        A year is not in the dataset.
    """
    array = schema.validate_maps(ds, "change_figure")
    years = sorted(int(one) for one in calendar_years(array, "change_figure"))
    chosen = (years[0] if first is None else first, years[-1] if last is None else last)
    for year in chosen:
        if year not in years:
            raise InputError(f"year {year} is not in the dataset: it has {', '.join(map(str, years))}")
    grid = RegionGrid.from_dataset(ds[[schema.PROBABILITY]])
    step = max(1, -(-max(grid.shape) // 1500))
    before, after = (array.sel({schema.YEAR: year})[::step, ::step].values for year in chosen)
    ice = before > threshold, after > threshold
    seen = np.isfinite(before) & np.isfinite(after)
    what = np.select([~seen, ice[0] & ice[1], ice[0], ice[1]], [4, 0, 1, 2], 3)
    figure, ax = _canvas((7.0, 6.4))
    ax.imshow(what, cmap=ListedColormap(list(_CHANGE_COLORS)), vmin=-0.5, vmax=4.5, **placing(grid))
    furnish(ax, grid, f"Change of ice from {chosen[0]} to {chosen[1]}")
    names = zip(_CHANGE_COLORS, _CHANGE_NAMES, strict=True)
    handles = [Patch(fc=color, ec="#888888", label=name) for color, name in names]
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=5, frameon=False, fontsize=8)
    return figure


def reliability_figure(tables: Mapping[str, xr.Dataset], *, curves: Mapping[str, object] | None = None) -> Figure:
    """Draw reliability tables against the diagonal, with the pixels in each bin below.

    Parameters
    ----------
    tables
        Label of each series, and a result of `icemap_xr.calibrate.reliability` on data not used for a fit.
    curves
        Calibrators to draw as lines, by label.
    """
    if not tables:
        raise InputError("there is no reliability table to draw: give at least one")
    figure = Figure(figsize=(6.0, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    ax.plot([0, 1], [0, 1], color="#888888", lw=1, label="perfect")
    for i, (label, table) in enumerate(tables.items()):
        color = COLORS[i % len(COLORS)]
        text = f"{label} (ECE {float(table['ece']):.4f})"
        ax.plot(table["mean_probability"], table["ice_fraction"], "o-", ms=3, lw=1, color=color, label=text)
        width = 1 / table.sizes["bin"]
        below.stairs(table["pixels"].values, np.arange(table.sizes["bin"] + 1) * width, color=color)
    grid = np.linspace(0, 1, 501)
    for i, (label, curve) in enumerate((curves or {}).items()):
        if not callable(curve):
            raise InputError(f"{label!r} is no calibrator: give calibrators to draw")
        ax.plot(grid, curve(grid), "--", lw=1, color=COLORS[(len(tables) + i) % len(COLORS)], label=f"curve: {label}")
    ax.set(ylabel="true share of glacier", xlim=(0, 1), ylim=(0, 1))
    below.set(xlabel="probability", ylabel="pixels", yscale="log")
    _finish(ax)
    return figure


def bootstrap_figure(areas: xr.Dataset, *, year: int | None = None, truth: float | None = None) -> Figure:
    """Draw the distribution of one year's draws with its interval.

    Parameters
    ----------
    areas
        Result of `bootstrap_area`.
    year
        Which year; the last by default.
    truth
        True area in km2, where it is known.

    Raises
    ------
    InputError
        The year is not there, or has no data.
    """
    years = [int(one) for one in areas[schema.YEAR].values]
    chosen = max(years) if year is None else year
    if chosen not in years:
        raise InputError(f"year {chosen} is not in the areas: they have {', '.join(map(str, sorted(years)))}")
    one = areas.sel({schema.YEAR: chosen})
    draws = one["draws"].values[np.isfinite(one["draws"].values)]
    if not draws.size:
        raise InputError(f"year {chosen} has no data: choose another year")
    figure, ax = _canvas((6.4, 4.0))
    ax.hist(draws, bins=min(60, max(5, draws.size // 20)), color=COLORS[5], edgecolor="white", lw=0.3)
    low, high = one["interval"].values
    kind, level = areas.attrs.get("interval_kind", ""), areas.attrs.get("level", 0.95)
    ax.axvspan(low, high, color=COLORS[0], alpha=0.12, label=f"{level:.0%} {kind} interval")
    ax.axvline(float(one["area_km2"]), color=COLORS[0], label="mapped")
    if truth is not None:
        ax.axvline(truth, color="black", ls="--", label="truth")
    ax.set(title=f"{draws.size} draws of the area in {chosen}", xlabel="area [km²]", ylabel="draws")
    _finish(ax)
    return figure


def variogram_figure(found: xr.Dataset) -> Figure:
    """Draw a variogram as `icemap_xr.variogram.variogram` makes it, with the suggested block."""
    figure, ax = _canvas((6.4, 4.0))
    lag = found["lag"].values / 1000
    ax.plot(lag, found["semivariance"], "o", ms=3, color=COLORS[0], label="all pairs of cells")
    range_m, block = found.attrs["range_m"], found.attrs["suggested_block_m"]
    reach = f"range {range_m / 1000:.2g} km" if range_m < 1000 * lag[-1] else "range beyond these distances"
    ax.plot(lag, found["model"], color=COLORS[1], label=f"exponential, {reach}")
    ax.axvline(block / 1000, color=COLORS[3], ls="--", label=f"suggested block {block / 1000:.3g} km")
    ax.set(title=f"Variogram of ice cover {found.attrs['year']}", xlabel="distance [km]", ylabel="semivariance")
    ax.set_xlim(left=0)
    ax.set_ylim(bottom=0)
    _finish(ax)
    return figure


def rates_figure(periods: Sequence[tuple[str, float, float, xr.Dataset]]) -> Figure:
    """Draw rates of change by period, each as a bar over its years with its interval.

    Parameters
    ----------
    periods
        Label, first and last year, and a result of `trend` or `resample_rate`, of each period.
    """
    if not periods:
        raise InputError("there are no rates to draw: give at least one period")
    figure, ax = _canvas((7.0, 4.0))
    for i, (label, begin, end, rate) in enumerate(periods):
        if not begin < end:
            raise InputError(f"period {label!r} goes from {begin:g} to {end:g}: give the earlier year first")
        value = float(rate["rate_km2_per_year"])
        low, high = rate["interval"].values
        color = COLORS[i % len(COLORS)]
        ax.fill_between([begin, end], 0, value, color=color, alpha=0.35, lw=0)
        ax.errorbar(
            (begin + end) / 2,
            value,
            yerr=[[max(value - low, 0)], [max(high - value, 0)]],
            fmt="o",
            color=color,
            capsize=5,
            label=f"{label}: {value:.3g} km²/a",
        )
    ax.axhline(0, color="#888888", lw=1)
    ax.set(title="Rate of change of glacier area", xlabel="year", ylabel="rate [km² per year]")
    _finish(ax)
    return figure


def _canvas(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _finish(ax: Axes, *, below: bool = False) -> None:
    """Draw grid and legend, the latter below the axes where it would hide intervals."""
    ax.grid(axis="y", color="#DDDDDD")
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    if below:
        ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
    else:
        ax.legend(frameon=False, fontsize=8)
