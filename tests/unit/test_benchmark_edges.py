"""The benchmark of edge errors: which true ice counts as that of an outline, and regions that are left out."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "edge_errors.py"
GRID = RegionGrid.from_bbox((500_000, 8_600_000, 501_280, 8_601_280), "EPSG:32633", 10, bbox_crs="EPSG:32633")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_edges", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def discs(*where: tuple[float, float, float]) -> xr.DataArray:
    """Ice within the radii of some centres, pixels."""
    y, x = np.mgrid[:128, :128]
    ice = np.zeros((1, 128, 128), np.float32)
    for row, column, radius in where:
        ice[0][np.hypot(y - row, x - column) < radius] = 1
    return xr.DataArray(ice, {**GRID.coords(), "year": [2020]}, ("year", "y", "x"), "probability")


def test_true_ice_counts_for_the_nearest_outline_up_to_a_distance(script: ModuleType) -> None:
    mapped = discs((30, 30, 10), (30, 70, 10))
    truth = discs((30, 30, 12), (30, 72, 8), (100, 100, 9))  # the last was missed
    shapes = outlines(mapped.to_dataset()).geometry.to_numpy()
    found = script.true_areas(shapes, truth[0], 100.0)
    each = [float(discs(one).sum()) * 1e-4 for one in ((30, 30, 12), (30, 72, 8))]
    assert found.tolist() == pytest.approx(each)
    assert script.true_areas(shapes, truth[0], 0.0).sum() < sum(each)


def test_each_region_is_judged_by_the_errors_of_the_others(script: ModuleType) -> None:
    pairs = [(discs((60, 60, radius + 2)), discs((60, 60, radius))) for radius in (20, 25, 30, 35)]
    pairs.append((discs((60, 60, 20)), discs((60, 60, 32))))  # unlike any other
    inside, mapped, true = script.held(pairs)
    assert inside.tolist() == [True, True, True, True, False]
    assert (mapped > true).tolist() == [True, True, True, True, False]
