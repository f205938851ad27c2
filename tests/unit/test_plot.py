"""Figures are drawn without a display, in bounded size, and written whole."""

from __future__ import annotations

import matplotlib.image
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar
from odc.geo.geobox import GeoBox

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines
from icemap_xr.plot import overview_figure, plot, save_figure


def dataset(rows=40, columns=60):
    grid = RegionGrid(GeoBox((rows, columns), Affine(20.0, 0, 500_000, 0, -20.0, 8_700_000), "EPSG:32633"))
    values = np.zeros((2, rows, columns), np.float32)
    values[:, 5:20, 5:30] = 0.9
    values[:, 10:12, 10:12] = 0.1
    values[0, :3] = np.nan
    coords = {"year": [2019, 2020], **grid.coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def backscatter(ds):
    return xr.full_like(ds["probability"][0], -12.0).assign_attrs(long_name="grd", units="dB")


def scale_bars(ax):
    return [one for one in ax.artists if isinstance(one, AnchoredSizeBar)]


def test_a_map_has_scale_bar_crs_title_and_outlines():
    ds = dataset()
    ax = plot(ds, outlines=outlines(ds))
    assert ax.get_title() == "2020"
    assert "EPSG:32633" in ax.get_xlabel()
    (bar,) = scale_bars(ax)
    assert bar.txt_label.get_text() == "200 m"
    (line,) = bar.size_bar.get_children()
    assert line.get_width() == 200
    (lines,) = (one for one in ax.collections if isinstance(one, LineCollection))
    assert len(lines.get_segments()) == 2  # exterior and hole of the chosen year only


def test_outlines_in_another_crs_lie_where_they_are_on_the_ground():
    ds = dataset()
    drawn = []
    for shapes in (outlines(ds), outlines(ds).to_crs("EPSG:4326")):
        (lines,) = (one for one in plot(ds, outlines=shapes).collections if isinstance(one, LineCollection))
        drawn.append(lines.get_segments())
    for one, other in zip(*drawn, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_map_is_drawn_in_given_axes_over_a_background():
    ds = dataset()
    ax = Figure().subplots()
    assert plot(ds, year=2019, background=backscatter(ds), ax=ax) is ax
    assert ax.images[0].get_cmap().name == "gray"


@pytest.mark.parametrize(("rows", "columns"), [(400, 60), (60, 400)])
def test_long_regions_leave_no_blank_paper(rows, columns):
    width, height = plot(dataset(rows, columns)).figure.get_size_inches()
    assert max(width - 1.8, height - 0.7) <= 9
    assert (width - 1.8) / (height - 0.7) == pytest.approx(max(columns / rows, 2 / 9), rel=0.6)


def test_the_accessor_draws_over_a_background_too():
    ds = dataset()
    ax = ds.icemap.plot(background=backscatter(ds), outlines=outlines(ds), ax=Figure().subplots())
    assert ax.images[0].get_cmap().name == "gray"
    assert ax.figure.axes[1].get_ylabel() == "grd [dB]"


def test_big_rasters_are_thinned_out():
    ax = plot(dataset(3100, 10))
    assert max(ax.images[0].get_size()) <= 1500


def test_an_unobserved_background_can_be_drawn():
    ds = dataset()
    plot(ds, background=xr.full_like(backscatter(ds), np.nan))


def test_a_wrong_year_and_a_wrong_background_are_refused():
    ds = dataset()
    with pytest.raises(InputError, match=r"2021.*2019, 2020"):
        plot(ds, year=2021)
    with pytest.raises(InputError, match="shape"):
        plot(ds, background=backscatter(ds)[:5])


@pytest.mark.parametrize("interval", [True, False])
def test_the_overview_is_written_as_png(tmp_path, interval):
    ds = dataset()
    areas = xr.Dataset({"area_km2": ("year", [1.0, 0.9])}, coords={"year": [2019, 2020]})
    if interval:
        areas["interval"] = (("year", "bound"), [[0.8, 1.2], [0.7, 1.0]])
    figure = overview_figure(
        ds, outlines=outlines(ds), areas=areas, backscatter=backscatter(ds), truth=areas["area_km2"] * 1.1
    )
    path = save_figure(figure, tmp_path / "overview.png", dpi=40)
    assert matplotlib.image.imread(path).std() > 0.05
    assert [one.name for one in tmp_path.iterdir()] == ["overview.png"]


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(InputError, match="png"):
        save_figure(Figure(), tmp_path / "overview.jpg")
