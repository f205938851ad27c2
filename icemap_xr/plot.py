"""Maps and the overview figure. Nothing here touches matplotlib's global state, so it works without a display."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from pyproj import CRS

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.types import FloatArray, StrPath

#: longest side of a drawn raster in pixels; a larger one is thinned out first
_MAX_PIXELS = 1500
# Okabe and Ito's colours, which the colour-blind tell apart
_ORANGE, _VERMILION, _BLUE, _GREEN = "#E69F00", "#D55E00", "#0072B2", "#009E73"
_UNOBSERVED = "#E3B7CF"

_FORMATS = ("png", "svg", "pdf")


def plot(
    ds: xr.Dataset,
    *,
    year: int | None = None,
    outlines: gpd.GeoDataFrame | None = None,
    background: xr.DataArray | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the map of one year: glacier probability, or a background, with outlines over it.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and a CRS. A raster of more than 1500 pixels a side is thinned out.
    year
        Which year; the last by default.
    outlines
        Outlines in any CRS, without one in that of `ds`; those of the year are drawn (all, without a column `year`).
    background
        Image `(y, x)` on the grid of `ds` to draw in grey instead of the probability, for example backscatter in dB;
        its `long_name` and `units` label the colour bar.
    ax
        Axes to draw in; by default those of a new figure (`ax.figure`).

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        The year is not in the dataset, or the background has another shape.
    SchemaError, GridError
        The dataset is no map.
    """
    array = schema.validate_maps(ds, "plot")
    grid = RegionGrid.from_dataset(ds[[schema.PROBABILITY]])
    chosen = _year(ds, year)
    if background is not None and background.shape != grid.shape:
        raise InputError(
            f"background has shape {background.shape}, the map {grid.shape}: put it on the map's grid first"
        )
    ax = _new_axes(grid) if ax is None else ax
    if background is None:
        image = ax.imshow(_thin(array.sel(year=chosen)), cmap="cividis", vmin=0, vmax=1, **placing(grid))
        label, line = "glacier probability (pink: not observed)", _VERMILION
    else:
        values = _thin(background)
        low, high = np.nanpercentile(values, [2, 98]) if np.isfinite(values).any() else (0.0, 1.0)
        image = ax.imshow(values, cmap="gray", vmin=low, vmax=high, **placing(grid, smooth=True))
        units = background.attrs.get("units", "")
        label, line = f"{background.attrs.get('long_name', background.name or '')} [{units}]", _ORANGE
    ax.set_facecolor(_UNOBSERVED)
    _canvas_figure(ax).colorbar(image, ax=ax, label=label, shrink=0.8, pad=0.02)
    if outlines is not None:
        placed = outlines if outlines.crs is None else outlines.to_crs(grid.crs)
        _draw_outlines(ax, placed, chosen, line)
    furnish(ax, grid, str(chosen))
    return ax


def overview_figure(
    ds: xr.Dataset,
    *,
    outlines: gpd.GeoDataFrame,
    areas: xr.Dataset,
    backscatter: xr.DataArray,
    truth: xr.DataArray | None = None,
    year: int | None = None,
) -> Figure:
    """Draw one product in one figure: backscatter, probability, outlines over backscatter, and areas by year.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and a CRS.
    outlines
        Outlines in the CRS of `ds`.
    areas
        `area_km2 (year)` in km2 and, if known, `interval (year, bound)` with the lower and the upper bound.
    backscatter
        Mean backscatter `(y, x)` in dB, on the grid of `ds`.
    truth
        True area `(year)` in km2, where it is known.
    year
        Which year the maps show; the last by default.

    Returns
    -------
    matplotlib.figure.Figure
    """
    chosen = _year(ds, year)
    figure = Figure(figsize=(11, 9.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    plot(ds, year=chosen, background=backscatter, ax=axes[0, 0]).set_title(f"Backscatter {chosen}")
    plot(ds, year=chosen, ax=axes[0, 1]).set_title(f"Glacier probability {chosen}")
    plot(ds, year=chosen, background=backscatter, outlines=outlines, ax=axes[1, 0]).set_title(f"Outlines {chosen}")
    _draw_areas(axes[1, 1], areas, truth)
    if "model" in ds.attrs:
        figure.suptitle(f"weights: {ds.attrs['model']}, {ds.attrs.get('model_note', '')}".rstrip(", "), fontsize=9)
    return figure


def save_figure(figure: Figure, path: StrPath, *, dpi: int = 150) -> Path:
    """Write a figure as PNG, or as SVG or PDF (vector), by the name's ending; the file appears complete or not at all.

    Raises
    ------
    InputError
        Another ending.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in _FORMATS:
        raise InputError(f"{str(path)!r} is no figure file name: end it in one of {', '.join(_FORMATS)}")
    temporary = path.with_name(f".{path.name}.partial")
    # without a date the same figure gives the same file
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata)
    os.replace(temporary, path)
    return path


def _year(ds: xr.Dataset, year: int | None) -> int:
    years = [int(one) for one in schema.validate_maps(ds, "plot")[schema.YEAR].values]
    if year is None:
        return max(years)
    if year not in years:
        raise InputError(f"year {year} is not in the dataset: it has {', '.join(map(str, sorted(years)))}")
    return int(year)


def _new_axes(grid: RegionGrid) -> Axes:
    rows, columns = grid.shape
    inch = min(6.5 / columns, 9.0 / rows)
    # room for labels and the colour bar beside the map
    size = max(columns * inch, 2.0) + 1.8, max(rows * inch, 2.0) + 0.7
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.subplots()


def _canvas_figure(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise InputError("the axes belong to no figure: give axes of a figure, or none")
    return figure


def _thin(array: xr.DataArray) -> FloatArray:
    """Return every n-th pixel, so that at most 1500 a side are left; only those are computed."""
    step = max(math.ceil(size / _MAX_PIXELS) for size in array.shape)
    return np.asarray(array[::step, ::step].values, np.float64)


def placing(grid: RegionGrid, *, smooth: bool = False) -> dict[str, Any]:
    """Return the arguments that place an image of the grid in map coordinates.

    A `smooth` image, such as speckled backscatter, is averaged where it has more pixels than the picture.
    """
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    interpolation = "antialiased" if smooth else "nearest"
    return {"extent": (left, right, bottom, top), "origin": "upper", "interpolation": interpolation}


def _draw_outlines(ax: Axes, outlines: gpd.GeoDataFrame, year: int, color: str) -> None:
    chosen = outlines[outlines["year"] == year] if "year" in outlines else outlines
    rings = shapely.get_rings(shapely.get_parts(chosen.geometry.to_numpy()))
    lines = [shapely.get_coordinates(ring) for ring in rings]
    # cased, to be seen on bright ice and dark ground
    casing = [patheffects.withStroke(linewidth=2.4, foreground="black" if color == _ORANGE else "white", alpha=0.8)]
    ax.add_collection(LineCollection(lines, colors=color, linewidths=1.1, path_effects=casing), autolim=False)


def furnish(ax: Axes, grid: RegionGrid, title: str) -> None:
    """Draw scale bar, axis labels, title and the name of the CRS."""
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    ax.set(title=title, aspect="equal", xlim=(left, right), ylim=(bottom, top))
    ax.set_xlabel(f"easting [km]   ({_crs_name(grid)})")
    ax.set_ylabel("northing [km]")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value / 1000:g}")
    ax.locator_params(axis="y", nbins=5)
    ax.locator_params(axis="x", nbins=5 if 2 * grid.shape[1] > grid.shape[0] else 2)
    ax.tick_params(labelsize=8)
    _scale_bar(ax, (left, bottom, right, top))


def _crs_name(grid: RegionGrid) -> str:
    crs = CRS(grid.crs)
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def _scale_bar(ax: Axes, bounds: tuple[float, float, float, float]) -> None:
    """Draw a bar of a round length, about a fifth of the map's width, on a white patch."""
    left, bottom, right, top = bounds
    length = _round_length((right - left) / 5)
    text = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    bar = AnchoredSizeBar(
        ax.transData,
        length,
        text,
        "lower left",
        label_top=True,
        pad=0.5,
        borderpad=0.8,
        sep=3,
        size_vertical=0.008 * min(right - left, top - bottom),
        fill_bar=True,
        fontproperties=FontProperties(size=8),
    )
    bar.patch.set(facecolor="white", alpha=0.85, linewidth=0)
    ax.add_artist(bar)


def _round_length(length: float) -> float:
    """Return the largest of 1, 2 or 5 times a power of ten that is not longer."""
    power = 10.0 ** math.floor(math.log10(length))
    return max(step * power for step in (1, 2, 5) if step * power <= length * (1 + 1e-9))


def _draw_areas(ax: Axes, areas: xr.Dataset, truth: xr.DataArray | None) -> None:
    years, area = areas["year"].values, areas["area_km2"].values
    if "interval" in areas:
        bounds = areas["interval"].transpose("year", "bound").values
        # a bound may lie on the estimate's other side by rounding, and a bar must not be negative
        spread = np.clip(np.abs(bounds[:, [0, -1]].T - area), 0, None)
        kind = f"{areas.attrs.get('interval_kind', '')} interval".strip()
        ax.errorbar(
            years,
            area,
            yerr=spread,
            fmt="o",
            color=_BLUE,
            capsize=5,
            label=f"mapped, {kind}",
        )
    else:
        ax.plot(years, area, "o", color=_BLUE, label="mapped")
    if truth is not None:
        ax.plot(truth["year"].values, truth.values, "D", color=_GREEN, mfc="none", ms=9, label="truth")
    ax.set(title="Glacier area by year", ylabel="area [km²]", xticks=years)
    ax.margins(x=0.15, y=0.2)
    ax.grid(axis="y", color="#DDDDDD")
    ax.set_axisbelow(True)
    # below the axes, where it hides no year
    ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2)
