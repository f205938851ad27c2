"""The HTML page is self-contained and shows text as text."""

from __future__ import annotations

import numpy as np
import xarray as xr

from icemap_xr.calibrate import reliability
from icemap_xr.figures import reliability_figure
from icemap_xr.outlines import outlines
from icemap_xr.report import Section, errors_figure, html_page, inputs_figure
from icemap_xr.testing import small_grid, yearly_dataset


def maps() -> tuple[xr.Dataset, xr.DataArray]:
    probability = np.zeros((1, 20, 30), np.float32)
    probability[:, 5:15, 5:20] = 0.9
    truth = np.zeros((1, 20, 30), np.float32)
    truth[:, 5:15, 8:25] = 1
    coords = {"year": [2020], **small_grid((20, 30)).coords()}
    ds = xr.Dataset({"probability": (("year", "y", "x"), probability)}, coords=coords)
    return ds, xr.DataArray(truth, dims=("year", "y", "x"), coords={"year": [2020]})


def test_text_and_tables_are_escaped() -> None:
    page = html_page("a <b>", "x & y", [Section("<i>", "1 < 2", [("head",), ("<script>",)])])
    for raw in ("<b>", "<i>", "<script>", "x & y"):
        assert raw not in page
    assert "&lt;script&gt;" in page
    assert page.startswith("<!doctype html>")


def test_pictures_are_embedded() -> None:
    ds, truth = maps()
    table = reliability(ds["probability"].values, truth.values)
    figures = [
        inputs_figure(yearly_dataset((20, 30), steps=5), 2020),
        errors_figure(ds, truth, 2020, outlines(ds)),
        reliability_figure({"as predicted": table, "calibrated": table}),
    ]
    page = html_page("t", "n", [Section(str(k), figure=figure) for k, figure in enumerate(figures)])
    assert page.count('src="data:image/png;base64,iVBOR') == 3


def test_errors_are_drawn_in_their_four_classes() -> None:
    ds, truth = maps()
    image = errors_figure(ds, truth, 2020, outlines(ds)).axes[0].get_images()[0].get_array()
    assert image is not None
    assert image.shape == (20, 30)
    assert [int((np.asarray(image) == value).sum()) for value in range(4)] == [600 - 200, 120, 50, 30]


def test_inputs_are_dated_where_the_time_is_known() -> None:
    view = yearly_dataset((20, 30), steps=5)
    assert "grd, step 1" in [ax.get_title() for ax in inputs_figure(view, 2020).axes]
    years = view.sizes["year"]
    times = np.full((years, 5), np.datetime64("2020-03-04T05:06", "ns"))
    times[:, 4] = np.datetime64("NaT")
    dated = inputs_figure(view.assign_coords(grd_time=(("year", "step"), times)), 2020)
    titles = [ax.get_title() for ax in dated.axes]
    assert titles.count("grd, 2020-03-04") == 3
    assert titles.count("grd, step 5") == 1
