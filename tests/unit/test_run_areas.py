"""What a run does with its area section: filter first, then calibrate; given tiles, errors and kinds of area."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from icemap_xr import run
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.config import OutlinesSection, RunConfig, parse_config
from icemap_xr.errors import CalibrationMismatchWarning, ConfigError
from icemap_xr.grid import RegionGrid

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_400, 8_600_400), "EPSG:32633", 10, bbox_crs="EPSG:32633")
MODEL: Any = SimpleNamespace(bundle=None)


def maps() -> xr.Dataset:
    p = np.random.default_rng(0).random((3, 40, 40), dtype=np.float32)
    return xr.Dataset({"probability": (("year", "y", "x"), p)}, coords={**GRID.coords(), "year": [2020, 2021, 2022]})


def config(**area: Any) -> RunConfig:
    content = {
        "name": "test",
        "region": [15.0, 78.0, 16.0, 78.5],
        "years": [2020, 2021, 2022],
        "search": {"provider": "catalog.json"},
        "grid": {"crs": "EPSG:32633"},
        "model": {"name": "model"},
        "area": area,
    }
    return parse_config(content, "run.yaml")


def test_maps_are_filtered_before_they_are_calibrated(tmp_path: Path) -> None:
    curve = {"type": "monotone-knots", "x": [0, 1], "y": [0.1, 0.9], "map_kind": "median of 3 years"}
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    options = config(filter="median", calibrator=str(tmp_path / "curve.json"))
    ds, calibrator = run._calibrated(run._filtered(maps(), options), options, MODEL)
    assert calibrator is not None
    filtered = maps().icemap.filter_years(method="median")
    np.testing.assert_allclose(ds.calibrated, 0.1 + 0.8 * filtered.probability, atol=1e-6)
    assert ds.probability.attrs["temporal_filter"] == "median of 3 years"
    none = config(calibrator=str(tmp_path / "curve.json"))
    with pytest.warns(CalibrationMismatchWarning, match="median of 3 years"):
        run._calibrated(run._filtered(maps(), none), none, MODEL)
    slow = config(filter="hmm", filter_stay=0.8)
    assert "stay 0.8" in run._filtered(maps(), slow).probability.attrs["temporal_filter"]


def test_outlines_get_the_edge_errors_of_the_model_where_they_hold(tmp_path: Path) -> None:
    own = {"errors_m": [1.0], "segment_m": 100.0, "method": "hard", "threshold": 0.5}
    model: Any = SimpleNamespace(bundle=SimpleNamespace(edge_errors=own))
    assert run._outline_options(config(), model)["edge_errors"] == own
    assert run._outline_options(config(), MODEL)["edge_errors"] is None
    assert run._outline_options(config(filter="median"), model)["edge_errors"] is None
    other = replace(config(), outlines=OutlinesSection(threshold=0.4))
    assert run._outline_options(other, model)["edge_errors"] is None
    (tmp_path / "edges.json").write_text(json.dumps(own | {"errors_m": [2.0]}))
    given = replace(config(), outlines=OutlinesSection(edge_errors=str(tmp_path / "edges.json")))
    assert run._outline_options(given, model)["edge_errors"]["errors_m"] == [2.0]


def test_tiles_bounds_and_kinds_of_area(tmp_path: Path) -> None:
    boxes = [
        shapely.box(500_000 + x, 8_600_000 + y, 500_100 + x, 8_600_100 + y)
        for x in range(0, 400, 100)
        for y in range(0, 400, 100)
    ]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32633").to_file(tmp_path / "tiles.gpkg")
    ds = maps().rename(probability="calibrated")
    options = config(tiles=str(tmp_path / "tiles.gpkg"), bounds="bca", area_kind="true", estimator="sum", draws=50)
    areas = run._areas(ds, options, MODEL, None)
    assert (areas.attrs["n_blocks"], areas.attrs["interval_method"], areas.attrs["area_kind"]) == (16, "bca", "true")
    blocks = run._blocks(ds, areas)
    np.testing.assert_allclose(blocks.ice_km2.sum(("block_y", "block_x")), areas.area_km2, rtol=1e-9)


def test_errors_of_a_file_are_drawn_from(tmp_path: Path) -> None:
    errors = {"errors": [0.1, 0.2], "block": "100m"}
    (tmp_path / "errors.json").write_text(json.dumps(errors))
    ds = maps().rename(probability="calibrated")
    options = config(interval="mapping", block="100m", block_errors=str(tmp_path / "errors.json"), draws=30)
    found = run._areas(ds, options, MODEL, None)
    wanted = bootstrap_area(ds, kind="mapping", block="100m", block_errors=errors, n=30)
    np.testing.assert_array_equal(found.draws, wanted.draws)


def test_options_of_another_interval_are_refused() -> None:
    for wrong, match in (
        ({"block_errors": "errors.json"}, "not used by interval 'sampling'"),
        ({"interval": "mapping", "bounds": "bca"}, "for interval 'sampling'"),
        ({"filter": "mean"}, "median"),
    ):
        with pytest.raises(ConfigError, match=match):
            config(**wrong)
