"""GeoTIFFs in, a GeoTIFF out: `apply` equals `predict`, and bad inputs are one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.apply import apply
from icemap_xr.errors import InputError, ModelMismatchError, OutputExistsError, ReadError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.models import load_model
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.testing.rasters import write_raster

SHAPE = (90, 100)
Files = dict[str, list[Path]]


def scene(folder: Path, steps: int, features: tuple[str, ...] = ("grd", "insar")) -> tuple[xr.Dataset, Files]:
    """A scene in memory, with some of each kind of nodata, and as one GeoTIFF per feature and step."""
    ds = yearly_dataset(SHAPE, steps=steps, features=features, seed=4)
    fills = (np.nan, -9999.0, np.inf, -3.4e38)
    files: Files = {name: [] for name in features}
    for name in features:
        for step in range(steps):
            raw = ds[name].values[0, step].copy()
            hole = (slice(10 * (step % 4), 10 * (step % 4) + 7), slice(20, 55))
            raw[hole] = fills[step % 4]
            raw[80:, :12] = -9999.0
            ds[name][0, step].values[hole] = np.nan
            ds[name][0, step].values[80:, :12] = np.nan
            files[name].append(write_raster(folder / f"{name}_{step:02d}.tif", raw, nodata=None))
    return ds, files


def check_output(path: Path, expected: xr.Dataset, classes: tuple[str, ...]) -> None:
    with rasterio.open(path) as src:
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.dtypes == ("float32",) * 2
        assert src.crs == rasterio.crs.CRS.from_epsg(32633)
        assert tuple(src.transform)[:6] == (10, 0, 500_000, 0, -10, 8_700_000)
        assert np.isnan(src.nodata)
        assert src.descriptions == classes
        values = src.read()
    np.testing.assert_allclose(values, expected["class_probability"][0], atol=1e-5, rtol=0)
    np.testing.assert_allclose(values[1], expected["probability"][0], atol=1e-5, rtol=0)
    assert np.isnan(values[:, 80:, :12]).all()
    assert np.isfinite(values[:, :80]).all()
    np.testing.assert_allclose(values.sum(axis=0)[:80], 1, atol=1e-5)


def test_apply_equals_predict_with_a_fake(tmp_path: Path) -> None:
    model = FakePredictor(window=32, steps=3)
    ds, files = scene(tmp_path, 3)
    path = apply(files, model, tmp_path / "out" / "map.tif", overlap=0.75, batch_size=3)
    assert [one.name for one in path.parent.iterdir()] == ["map.tif"]
    check_output(path, predict(ds, model, overlap=0.75, classes="all"), ("not_glacier", "glacier"))
    with rasterio.open(path) as src:
        tags = src.tags()
    assert (tags["model"], tags["model_sha256"], tags["model_note"]) == ("fake", "0" * 64, model.spec.note)
    assert (tags["overlap"], tags["window"], tags["precision"]) == ("0.75", "32", "float32")


def test_apply_equals_predict_with_a_published_network(tmp_path: Path, golden: Path) -> None:
    model = load_model(golden / "tweightedpool_grdinsar_filters8.h5", window=32)
    ds, files = scene(tmp_path, 15)
    path = apply(files, model, tmp_path / "map.tif", batch_size=16)
    check_output(path, predict(ds, model, batch_size=16, classes="all"), model.spec.classes)


def test_the_grid_is_that_of_the_first_feature_of_the_model_or_of_the_reference(tmp_path: Path) -> None:
    model = FakePredictor(window=16, steps=1)
    _, files = scene(tmp_path, 1)
    coarse = RegionGrid(GeoBox((30, 30), Affine(40, 0, 499_900, 0, -40, 8_700_100), "EPSG:32633"))
    coherence = write_raster(tmp_path / "coarse.tif", np.full((30, 30), 0.4), grid=coarse)
    path = apply({"insar": [coherence], "grd": files["grd"]}, model, tmp_path / "map.tif")
    with rasterio.open(path) as src:
        assert src.shape == SHAPE
        assert np.isfinite(src.read(2)[:80, 55:]).all()
    path = apply({"insar": [coherence], "grd": files["grd"]}, model, tmp_path / "coarse_map.tif", reference=coherence)
    with rasterio.open(path) as src:
        assert src.shape == (30, 30)
        assert src.transform == coarse.geobox.transform


def test_fourteen_rasters_instead_of_fifteen(tmp_path: Path) -> None:
    model = FakePredictor(window=16, steps=15)
    names: Any = {"grd": [f"{i}.tif" for i in range(15)], "insar": [f"{i}.tif" for i in range(14)]}
    with pytest.raises(InputError, match=r"^14 insar rasters were given, model 'fake' needs 15: give one") as error:
        apply(names, model, tmp_path / "map.tif")
    assert isinstance(error.value, ValueError)
    with pytest.raises(InputError, match=r"^16 grd rasters were given, model 'fake' needs 15"):
        apply({"grd": ["a.tif"] * 16, "insar": ["a.tif"] * 16}, model, tmp_path / "map.tif")
    assert list(tmp_path.iterdir()) == []


def test_bad_inputs_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    model, output = FakePredictor(window=16, steps=1), tmp_path / "out" / "map.tif"
    _, files = scene(tmp_path, 1)
    with pytest.raises(ModelMismatchError, match="needs rasters of grd and insar, given are grd: "):
        apply({"grd": files["grd"]}, model, output)
    with pytest.raises(ModelMismatchError, match="given are grd and insar and rtc"):
        apply({**files, "rtc": files["grd"]}, model, output)
    with pytest.raises(SchemaError, match="did you mean 'insar'"):
        apply({"grd": files["grd"], "inser": files["insar"]}, model, output)
    with pytest.raises(InputError, match="give a list"):
        apply({**files, "grd": str(files["grd"][0])}, model, output)
    with pytest.raises(InputError, match="overlap=1"):
        apply(files, model, output, overlap=1)
    with pytest.raises(ReadError, match=r"absent\.tif"):
        apply({**files, "insar": [tmp_path / "absent.tif"]}, model, output)
    far = RegionGrid(GeoBox((30, 30), Affine(40, 0, 599_900, 0, -40, 8_700_100), "EPSG:32633"))
    away = write_raster(tmp_path / "far.tif", np.full((30, 30), 0.4), grid=far)
    with pytest.raises(InputError, match=r"far\.tif does not overlap"):
        apply({**files, "insar": [away]}, model, output)
    percent = write_raster(tmp_path / "percent.tif", np.full(SHAPE, 40.0))
    with pytest.raises(InputError, match="up to 40"):
        apply({**files, "insar": [percent]}, model, output)
    assert not output.parent.exists() or list(output.parent.iterdir()) == []
    output.parent.mkdir(exist_ok=True)
    output.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"map\.tif exists already"):
        apply(files, model, output)
    assert output.read_text() == "mine"
