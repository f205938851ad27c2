"""GeoTIFFs in, a GeoTIFF out: `apply` equals `predict`, and bad inputs are one line."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.apply import apply
from icemap_xr.archive import open_archive
from icemap_xr.errors import InputError, ModelMismatchError, OutputExistsError, ReadError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.models import load_model
from icemap_xr.predict import predict
from icemap_xr.testing.commands import Result
from icemap_xr.testing.fakes import FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.rasters import write_raster
from icemap_xr.types import FeatureSpec, InputSpec, ModelSpec
from icemap_xr.verify import verify

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


def dated(folder: Path, steps: int, feature: str = "grd", year: int = 2021) -> list[Path]:
    """Rasters with dates in their names: half of the scene is dark."""
    rng = np.random.default_rng(3)
    paths = []
    for step in range(steps):
        values = rng.normal(-12, 2, SHAPE).astype(np.float32)
        values[:, :50] -= 8
        paths.append(write_raster(folder / f"{feature}_{year}{step + 1:02d}05.tif", values, nodata=None))
    return paths


def test_an_archive_holds_the_map_of_the_geotiff(tmp_path: Path) -> None:
    model = FakePredictor(window=16, steps=2, features=("grd",))
    files = {"grd": dated(tmp_path, 2)}
    out = tmp_path / "out"
    path = apply(files, model, out / "map.tif", archive=out / "land.zarr", region="Some land")
    assert sorted(one.name for one in out.iterdir()) == ["land.json", "land.parquet", "land.zarr", "map.tif"]
    tree = open_archive(out / "land.zarr")
    with rasterio.open(path) as src:
        np.testing.assert_array_equal(tree["maps"]["probability"].values[0], src.read(2))
    assert tree["maps"]["year"].values.tolist() == [2021]
    assert tree.attrs["region"] == "Some land"
    assert tree["lineage"].attrs["rasters"]["grd"] == [one.name for one in files["grd"]]
    ice = (tree["maps"]["probability"].values[0] > 0.5).sum() * 1e-4
    assert float(tree["areas"]["area_km2"][0]) == pytest.approx(ice)
    assert verify(out / "land.zarr") == []
    plain = apply(files, model, tmp_path / "plain.tif")
    with rasterio.open(path) as one, rasterio.open(plain) as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_an_archive_that_cannot_be_is_refused_before_the_map_is_made(tmp_path: Path) -> None:
    model = FakePredictor(window=16, steps=2, features=("grd",))
    first, second = dated(tmp_path, 1, year=2020), dated(tmp_path, 1, year=2021)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="do not agree on a year: give year="):
        apply({"grd": first + second}, model, out / "map.tif", archive=out / "land.zarr")
    with pytest.raises(InputError, match=r"end it in '\.zarr'"):
        apply({"grd": first + second}, model, out / "map.tif", archive=out / "land", year=2020)
    assert not out.exists()
    out.mkdir()
    (out / "land.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"land\.json exists already"):
        apply({"grd": first + second}, model, out / "map.tif", archive=out / "land.zarr", year=2020)
    assert [one.name for one in out.iterdir()] == ["land.json"]
    (out / "land.json").unlink()
    # a raster that breaks half-way leaves neither the map nor the archive
    broken = second[0]
    broken.write_bytes(broken.read_bytes()[:-20_000])
    with pytest.raises(ReadError, match=broken.name):
        apply({"grd": [*first, broken]}, model, out / "map.tif", archive=out / "land.zarr", year=2020)
    assert list(out.iterdir()) == []


@dataclass(frozen=True)
class Named(FakePredictor):
    """A fake whose one feature has a name that cubes do not have."""

    feature: str = "vv"
    units: str = "dB"

    @property
    def spec(self) -> ModelSpec:
        """One feature."""
        plain = FakePredictor(self.window, self.steps, ("grd",)).spec
        return replace(plain, inputs=(InputSpec("inputs", (FeatureSpec(self.feature, -30, 10, self.units),)),))


def test_a_feature_that_only_the_bundle_declares(tmp_path: Path) -> None:
    model = Named(window=16, steps=2, features=("grd",))
    files = dated(tmp_path, 2)
    path = apply({"vv": files}, model, tmp_path / "map.tif")
    ds = xr.Dataset(coords={"year": [0], **small_grid(SHAPE).coords()})
    scenes = [rasterio.open(file).read(1) for file in files]
    ds["vv"] = (("year", "step", "y", "x"), np.stack(scenes)[None], {"units": "dB"})
    expected = predict(ds, model)["probability"].values[0]
    with rasterio.open(path) as src:
        np.testing.assert_allclose(src.read(2), expected, atol=1e-6)
    with pytest.raises(ModelMismatchError, match="takes dem in 'm': rasters can be read in 'dB' and '1' only"):
        apply({"dem": files}, Named(16, 2, ("grd",), "dem", "m"), tmp_path / "other.tif")


def test_the_command_takes_features_by_name_and_writes_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, icemap: Callable[..., Result]
) -> None:
    import icemap_xr.models as models

    monkeypatch.setattr(models, "load_model", lambda name: FakePredictor(16, 2, ("grd",)))
    dated(tmp_path, 2)
    command = [str(tmp_path / "map.tif"), "--model", "fake", "--archive", str(tmp_path / "land.zarr")]
    pattern = f"{tmp_path}/grd_*.tif"
    assert "--feature 'grd' is not allowed: give NAME=FILES" in icemap("apply", *command, "--feature", "grd").err
    done = icemap("apply", *command, "--feature", f"grd={pattern}")
    assert done.code == 0, done.err
    assert (tmp_path / "map.tif").is_file()
    assert open_archive(tmp_path / "land.zarr")["maps"]["year"].values.tolist() == [2021]


PEAK = """
import sys
from pathlib import Path
from icemap_xr.apply import apply
from icemap_xr.testing.fakes import FakePredictor

folder = Path(sys.argv[1])
files = {name: sorted(folder.glob(f"{name}_*.tif")) for name in ("grd", "insar")}
apply(files, FakePredictor(window=128, steps=3), folder / "map.tif", overlap=0)
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_of(folder: Path, columns: int) -> float:
    """Peak memory in MB of a process that maps a scene of 1536 rows, 3 steps of 2 features."""
    folder.mkdir()
    values = np.tile(np.random.default_rng(0).uniform(0.1, 0.9, (1536, 512)).astype(np.float32), (1, columns // 512))
    for name in ("grd", "insar"):
        for step in range(3):
            write_raster(folder / f"{name}_{step}.tif", values if name == "insar" else -20 * values)
    # GDAL keeps blocks of files in memory up to a twentieth of the machine's: here almost none
    environment = {**os.environ, "GDAL_CACHEMAX": "16"}
    command = [sys.executable, "-c", PEAK, folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    # both hold whole blocks of the prediction, 3072 pixels a side: 2 and 6 of them
    small, large = peak_of(tmp_path / "small", 6144), peak_of(tmp_path / "large", 18432)
    # the rasters of the large scene have 340 MB more than those of the small one, its map 113 MB: held whole they would
    # be 450 MB more; threads and the allocator account for some of the rest
    assert large < small + 225, f"{small:.0f} MB for 4.7 Mpx, {large:.0f} MB for 19 Mpx"
