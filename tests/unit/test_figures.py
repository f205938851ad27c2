"""Figures show the numbers they are given, in every format, without touching global state."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from icemap_xr import figures
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.calibrate import KnotCalibrator, reliability
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.historic import Inventory, resample_rate
from icemap_xr.plot import save_figure
from icemap_xr.variogram import variogram

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_400, 8_600_400), "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(name: str = "calibrated") -> xr.Dataset:
    rng = np.random.default_rng(0)
    p = np.clip(np.linspace(1.2, -0.2, 40) + rng.normal(0, 0.1, (3, 40, 40)), 0, 1).astype(np.float32)
    p[2] *= 0.8
    p[1, :5, :5] = np.nan
    return xr.Dataset({name: (("year", "y", "x"), p)}, coords={**GRID.coords(), "year": [2020, 2021, 2022]})


def every_figure() -> dict[str, Figure]:
    ds = maps()
    areas = bootstrap_area(ds, block=50, n=200)
    p = ds.calibrated.values[0]
    y = (np.random.default_rng(1).random(p.shape) < p).astype(float)
    curve = KnotCalibrator((0.0, 1.0), (0.1, 0.9))
    rate = resample_rate(Inventory.of_glaciers([1960, 1970], [50, 50]), Inventory.of_year(2016, [80.0, 82.0]), n=50)
    return {
        "area": figures.area_figure({"soft": areas, "again": areas}, truth=areas.area_km2 * 1.01),
        "change": figures.change_figure(maps("probability")),
        "reliability": figures.reliability_figure({"raw": reliability(p, y, bins=10)}, curves={"flat": curve}),
        "bootstrap": figures.bootstrap_figure(areas, truth=0.1),
        "variogram": figures.variogram_figure(variogram(ds)),
        "rates": figures.rates_figure([("inventories", 1965, 2016, rate)]),
    }


def test_every_figure_in_every_format(tmp_path: Path) -> None:
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for name, figure in every_figure().items():
        for kind, begin in begins.items():
            path = save_figure(figure, tmp_path / f"{name}.{kind}")
            assert path.read_bytes().startswith(begin)
            assert path.stat().st_size > 3000
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(InputError, match="png, svg, pdf"):
        save_figure(figure, tmp_path / "figure.jpg")


def test_figures_show_the_numbers() -> None:
    found = every_figure()
    areas = bootstrap_area(maps(), block=50, n=200)
    marks = found["area"].axes[0].lines[0]
    np.testing.assert_allclose(marks.get_ydata(), areas.area_km2)
    labels = found["area"].axes[0].get_legend_handles_labels()[1]
    assert "soft (sampling interval)" in labels
    assert "truth" in labels
    image = found["change"].axes[0].images[0].get_array()
    ds = maps("probability")
    before, after = (ds.probability.sel(year=year).values > 0.5 for year in (2020, 2022))
    assert (np.asarray(image) == 1).sum() == (before & ~after).sum()
    assert "ECE" in found["reliability"].axes[0].get_legend_handles_labels()[1][1]
    assert "95% sampling interval" in found["bootstrap"].axes[0].get_legend_handles_labels()[1]
    assert "suggested block" in found["variogram"].axes[0].get_legend_handles_labels()[1][2]


def test_unobserved_ground_is_no_change() -> None:
    image = figures.change_figure(maps("probability"), first=2021, last=2022).axes[0].images[0].get_array()
    assert (np.asarray(image)[:5, :5] == 4).all()


def test_bad_input() -> None:
    areas = bootstrap_area(maps(), block=50, n=20)
    empty: Any
    for function, empty in ((figures.area_figure, {}), (figures.reliability_figure, {}), (figures.rates_figure, [])):
        with pytest.raises(InputError, match="at least one"):
            function(empty)
    with pytest.raises(InputError, match="1999"):
        figures.bootstrap_figure(areas, year=1999)
    with pytest.raises(InputError, match="1999"):
        figures.change_figure(maps("probability"), first=1999)
    ds = maps("probability")
    dates = (ds.year.values - 1970).astype("datetime64[Y]").astype("datetime64[ns]")
    with pytest.raises(InputError, match="years as numbers"):
        figures.change_figure(ds.assign_coords(year=dates))
    with pytest.raises(InputError, match="no data"):
        figures.bootstrap_figure(areas.assign(draws=areas.draws * np.nan))
    with pytest.raises(InputError, match="earlier year first"):
        figures.rates_figure([("a", 2016, 2000, areas)])
