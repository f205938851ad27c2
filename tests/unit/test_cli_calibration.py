"""`icemap calibrate`: fit, check, apply and errors on stores of maps; filter first."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.ndimage import gaussian_filter
from sklearn.kernel_ridge import KernelRidge

from icemap_xr import store
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.commands import Result

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_640, 8_600_640), "EPSG:32633", 10, bbox_crs="EPSG:32633")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Overconfident maps of three regions, and their truth."""
    folder = tmp_path_factory.mktemp("calibrate")
    coords = {**GRID.coords(), "year": [2020, 2021, 2022]}
    for i in range(3):
        rng = np.random.default_rng(i)
        true = 1 / (1 + np.exp(-30 * gaussian_filter(rng.standard_normal((3, 64, 64)), (3, 5, 5))))
        p = 1 / (1 + np.exp(-3 * np.log(true / (1 - true))))
        ice = (rng.random(true.shape) < true).astype(np.float32)
        for name, values in (("probability", p.astype(np.float32)), ("glacier_fraction", ice)):
            ds = xr.Dataset({name: (("year", "y", "x"), values)}, coords=coords).chunk(y=32, x=32)
            store.save(ds, folder / f"{'maps' if name == 'probability' else 'truth'}{i}.zarr")
    return folder


def pair(folder: Path, *numbers: int) -> list[object]:
    return [part for i in numbers for part in ("--pair", folder / f"maps{i}.zarr", folder / f"truth{i}.zarr")]


def test_fit_check_and_apply(folder: Path, tmp_path: Path, icemap: Callable[..., Result]) -> None:
    curve = tmp_path / "curve.json"
    done = icemap("calibrate", "fit", *pair(folder, 0, 1), "--method", "beta", "--filter", "median", "--output", curve)
    assert done.code == 0, done.err
    assert json.loads(curve.read_text())["map_kind"] == "median of 3 years"
    assert json.loads(curve.read_text())["fitted_on"] == "maps0.zarr, maps1.zarr"
    again = icemap("calibrate", "fit", *pair(folder, 0), "--output", curve)
    assert again.code == 1
    assert "exists already" in again.err
    figure = tmp_path / "reliability.svg"
    done = icemap(
        "calibrate", "check", *pair(folder, 2), "--calibrator", curve, "--filter", "median", "--figure", figure
    )
    assert done.code == 0, done.err
    found = [float(line.split()[2].rstrip(",")) for line in done.out.splitlines() if line.startswith("calibration")]
    assert found[1] < found[0] / 2
    assert figure.exists()
    output = tmp_path / "calibrated.zarr"
    done = icemap("calibrate", "apply", folder / "maps2.zarr", curve, "--filter", "median", "--output", output)
    assert done.code == 0, done.err
    assert "calibrated" in xr.open_zarr(output)


def test_errors_of_held_out_regions(folder: Path, tmp_path: Path, icemap: Callable[..., Result]) -> None:
    done = icemap("calibrate", "errors", *pair(folder, 0, 1, 2), "--block", "80m", "--output", tmp_path / "e.json")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "e.json").read_text())["block"] == "80m"
    edges = tmp_path / "edges.json"
    done = icemap("calibrate", "errors", *pair(folder, 0, 1), "--edge-block", "80m", "--output", edges)
    assert done.code == 0, done.err
    assert json.loads(edges.read_text())["block"] == "80m"
    outlines = ("outlines", folder / "maps2.zarr", "--threshold", "0.4", "--edge-errors")
    wrong = icemap(*outlines, edges, "--output", tmp_path / "wrong.gpkg")
    assert wrong.code == 1
    assert "'soft'" in wrong.err
    hard = (*pair(folder, 0, 1), "--area-method", "hard", "--threshold", "0.4")
    done = icemap("calibrate", "errors", *hard, "--block", "80m", "--output", tmp_path / "hard.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "hard.json").read_text())
    assert (found["method"], found["threshold"]) == ("hard", 0.4)
    done = icemap("calibrate", "errors", *hard, "--edge-block", "80m", "--output", tmp_path / "no.json")
    assert done.code == 1
    assert "--area-method is for errors of blocks" in done.err
    done = icemap("calibrate", "errors", *pair(folder, 0), "--block", "80m", "--output", tmp_path / "one.json")
    assert done.code == 1
    assert "at least 2 regions" in done.err


def test_errors_that_outlines_take(folder: Path, tmp_path: Path, icemap: Callable[..., Result]) -> None:
    edges, drawn = tmp_path / "edges.json", tmp_path / "o.parquet"
    options = ("--edge-block", "80m", "--edges-of", "outlines", "--threshold", "0.4")
    done = icemap("calibrate", "errors", *pair(folder, 0, 1), *options, "--output", edges)
    assert done.code == 0, done.err
    outlines = ("outlines", folder / "maps2.zarr", "--threshold", "0.4", "--edge-errors", edges)
    done = icemap(*outlines, "--output", drawn)
    assert done.code == 0, done.err
    table = gpd.read_parquet(drawn)
    assert (table["mapping_low_km2"] < table["mapping_high_km2"]).all()
    done = icemap("calibrate", "errors", *pair(folder, 0, 1), *options[2:], "--output", tmp_path / "e.json")
    assert done.code == 1
    assert "give --edge-block too" in done.err


def test_the_published_file_is_read(tmp_path: Path, icemap: Callable[..., Result]) -> None:
    x = np.array([[0.0], [0.3], [1.0]])
    model = KernelRidge(kernel="laplacian", alpha=0.0).fit(x, [0.0, 0.8, 1.0])
    (tmp_path / "published.pickle").write_bytes(pickle.dumps(model))
    done = icemap("calibrate", "read-published", tmp_path / "published.pickle", "--output", tmp_path / "c.json")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "c.json").read_text())
    np.testing.assert_allclose(found["y"], [0.0, 0.8, 1.0], atol=1e-9)


def test_areas_of_either_kind(folder: Path, tmp_path: Path, icemap: Callable[..., Result]) -> None:
    found = {}
    for kind in ("planar", "true"):
        output = tmp_path / f"{kind}.csv"
        done = icemap("area", folder / "maps0.zarr", "--area-kind", kind, "--output", output)
        assert done.code == 0, done.err
        assert f"(hard, {kind})" in done.out
        found[kind] = pd.read_csv(output)["area_km2"]
    np.testing.assert_allclose(found["planar"] / found["true"], 0.9992, rtol=1e-5)  # near the zone's centre
