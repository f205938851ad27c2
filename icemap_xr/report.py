"""One HTML page about a map: pictures, tables and where the map is wrong, in a single file without scripts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from icemap_xr import schema
from icemap_xr.grid import RegionGrid
from icemap_xr.plot import furnish, placing, plot

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ddd}
img{max-width:100%;height:auto}table{border-collapse:collapse}
td,th{padding:.3em .9em;text-align:right;border-bottom:1px solid #eee}th{border-color:#888}
p.note{background:#fff6e0;padding:.6em 1em;border-left:4px solid #e69f00}
"""
# right, missed and false glacier, and neither: grey, vermilion, blue and white tell apart for the colour-blind
_OUTCOMES = ("not glacier, mapped so", "glacier, mapped so", "glacier, missed", "not glacier, mapped as glacier")
_OUTCOME_COLORS = ("#FFFFFF", "#9AA5B1", "#D55E00", "#0072B2")


@dataclass(frozen=True)
class Section:
    """A part of the page: text, then a table, then a picture; each may be absent.

    Parameters
    ----------
    title, text
        Plain text.
    table
        Rows of cells; the first row is the head.
    figure
        Picture.
    """

    title: str
    text: str = ""
    table: Sequence[Sequence[str]] = ()
    figure: Figure | None = None


def html_page(title: str, note: str, sections: Sequence[Section]) -> str:
    """Return a self-contained page; the note stands in a box at its head."""
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="note">{html.escape(note)}</p>']
    for section in sections:
        parts.append(f"<h2>{html.escape(section.title)}</h2>")
        if section.text:
            parts.append(f"<p>{html.escape(section.text)}</p>")
        if section.table:
            parts.append(_table(section.table))
        if section.figure is not None:
            parts.append(f'<img alt="{html.escape(section.title)}" src="data:image/png;base64,{_png(section.figure)}">')
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def inputs_figure(view: xr.Dataset, year: int) -> Figure:
    """Draw what the network sees of a year: each feature's scenes at four moments.

    Parameters
    ----------
    view
        Model view `(year, step, y, x)`.
    year
        Which year.
    """
    names = [name for name in schema.FEATURES if name in view]
    steps = np.linspace(0, view.sizes[schema.STEP] - 1, 4).round().astype(int)
    grid = RegionGrid.from_dataset(view)
    figure, axes = _canvas(len(names), len(steps), (11.0, 2.7 * len(names) + 0.2))
    for row, name in enumerate(names):
        scenes = view[name].sel({schema.YEAR: year}).isel({schema.STEP: steps}).compute()
        low, high = np.nanpercentile(scenes, [2, 98])
        for column, step in enumerate(steps):
            ax = axes[row][column]
            image = ax.imshow(scenes[column], cmap="gray", vmin=low, vmax=high, **placing(grid, smooth=True))
            ax.set(title=f"{name}, {_moment(scenes[column], int(step))}", xticks=[], yticks=[])
        spec = schema.feature(name)
        unit = "" if spec.units == "1" else f" [{spec.units}]"
        figure.colorbar(image, ax=axes[row], label=f"{spec.long_name}{unit}", shrink=0.8)
    return figure


def _moment(scene: xr.DataArray, step: int) -> str:
    """Return the date of a scene where it is known, else its number in the year."""
    time = scene.coords.get(schema.feature(str(scene.name)).time)
    if time is None or np.isnat(time.values):
        return f"step {step + 1}"
    return str(time.values.astype("M8[D]"))


def errors_figure(maps: xr.Dataset, truth: xr.DataArray, year: int, outlines: gpd.GeoDataFrame) -> Figure:
    """Draw where a year's map is right and wrong, beside its outlines over the probability.

    Parameters
    ----------
    maps
        `probability (year, y, x)`.
    truth
        True glacier share of the pixel, `(year, y, x)`.
    year
        Which year.
    outlines
        Outlines with a column `year`.
    """
    figure, axes = _canvas(1, 2, (11.0, 5.2))
    mapped = (maps[schema.PROBABILITY].sel(year=year) > 0.5).to_numpy()
    true = (truth.sel(year=year) > 0.5).to_numpy()
    outcome = np.select([mapped & true, ~mapped & true, mapped & ~true], [1, 2, 3], 0)
    grid = RegionGrid.from_dataset(maps)
    left: Axes = axes[0][0]
    left.imshow(outcome, cmap=ListedColormap(list(_OUTCOME_COLORS)), vmin=-0.5, vmax=3.5, **placing(grid))
    furnish(left, grid, f"Where the map of {year} is wrong")
    handles = [Patch(fc=color, ec="#888", label=name) for color, name in zip(_OUTCOME_COLORS, _OUTCOMES, strict=True)]
    left.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=8)
    plot(maps, year=year, outlines=outlines, ax=axes[0][1]).set_title(f"Probability and outlines {year}")
    return figure


def _canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes: np.ndarray = figure.subplots(rows, columns, squeeze=False)
    return figure, axes


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body)
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _png(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
