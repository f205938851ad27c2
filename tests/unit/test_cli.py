"""The command line: bad input is one line on stderr that begins with error:, and an exit code that is not 0."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
import yaml

from icemap_xr import cli, store
from icemap_xr.cube import build_cube
from icemap_xr.errors import MissingExtraError
from icemap_xr.models import list_models
from icemap_xr.stac_items import write_catalog
from icemap_xr.testing.commands import Result
from icemap_xr.testing.fakes import FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.rasters import rtc_item, write_raster

ICEMAP = Path(sys.executable).with_name("icemap")
SHAPE = (20, 24)
REGION = "14.9,78.0,15.1,79.0"


def assert_one_line(result: Result, *words: str) -> None:
    assert result.code != 0
    lines = result.err.splitlines()
    assert len(lines) == 1, result.err
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a catalogue, items, a cube, maps and a configuration."""
    folder = tmp_path_factory.mktemp("cli")
    items = []
    for i, day in enumerate(("2020-02-01", "2020-06-01", "2020-10-01")):
        raster = write_raster(folder / f"rtc{i}.tif", np.random.default_rng(i).lognormal(-3, 1, SHAPE))
        items.append(rtc_item(raster, day, orbit=100 + 175 * i))
    write_catalog(items, folder / "catalog", title="test")
    found = pystac.ItemCollection(items)
    (folder / "items.json").write_text(json.dumps(found.to_dict()))
    build_cube(found, small_grid(SHAPE), folder / "cube.zarr", steps=3)
    store.save(yearly_dataset(SHAPE).icemap.predict(FakePredictor()), folder / "maps.zarr")
    config = {
        "name": "test",
        "region": [float(value) for value in REGION.split(",")],
        "years": [2020],
        "search": {"provider": "catalog/catalog.json"},
        "grid": {"crs": "EPSG:32633", "bounds": [500_000, 8_699_800, 500_240, 8_700_000]},
        "model": {"name": "ICEmapper_tweightedpool_grdinsar"},
        "cluster": {"kind": "threads"},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_an_empty_search(icemap: Any, folder: Path) -> None:
    result = icemap("search", folder / "catalog/catalog.json", "--region", REGION, "--years", "2024")
    assert_one_line(result, "2024", "check region")


def test_a_catalogue_that_is_down(icemap: Any) -> None:
    result = icemap("search", "http://user:hunter2@127.0.0.1:1/?token=x", "--region", REGION, "--years", "2020")
    assert_one_line(result, "http://127.0.0.1:1/", "does not answer")
    assert "hunter2" not in result.err


def test_an_item_without_the_asset(icemap: Any, folder: Path, tmp_path: Path) -> None:
    content = json.loads((folder / "items.json").read_text())
    content["features"][1]["assets"] = {}
    (tmp_path / "items.json").write_text(json.dumps(content))
    options = ("--crs", "EPSG:32633", "--region", "14.99,78.3,15.01,78.4", "--output", tmp_path / "cube.zarr")
    assert_one_line(icemap("cube", tmp_path / "items.json", *options), "'rtc1'", "has no asset")
    assert not (tmp_path / "cube.zarr").exists()


def test_a_grid_that_cannot_be(icemap: Any, folder: Path, tmp_path: Path) -> None:
    options = ("--region", "14.99,78.3,15.01,78.4", "--output", tmp_path / "cube.zarr")
    for crs in ("EPSG:4326", "EPSG:999999", "nonsense"):
        assert_one_line(icemap("cube", folder / "items.json", "--crs", crs, *options), crs)


def test_a_cube_with_wrong_dims_crs_or_steps(
    icemap: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import icemap_xr.models as models

    monkeypatch.setattr(models, "load_model", lambda name: FakePredictor(8, 15, ("rtc",)))
    command = ("--model", "fake", "--output", tmp_path / "out.zarr")
    assert_one_line(icemap("predict", folder / "cube.zarr", *command), "3 steps", "needs 15")
    cube = xr.open_zarr(folder / "cube.zarr").load()
    plain = cube.drop_vars("spatial_ref").assign_coords(y=cube.y.values, x=cube.x.values)
    others = {"dims": cube.rename(rtc_time="time"), "crs": plain, "maps": xr.Dataset({"a": ("y", [1.0])})}
    for name, ds in others.items():
        store.save(ds.drop_encoding(), tmp_path / f"{name}.zarr")
    assert_one_line(icemap("predict", tmp_path / "dims.zarr", *command), "dims", "rtc_time")
    assert_one_line(icemap("predict", tmp_path / "crs.zarr", *command), "CRS")
    assert_one_line(icemap("predict", tmp_path / "maps.zarr", *command), "no feature")
    assert_one_line(icemap("predict", tmp_path / "none.zarr", *command), "does not exist")
    assert not (tmp_path / "out.zarr").exists()


def test_an_unknown_model(icemap: Any, folder: Path, tmp_path: Path) -> None:
    name = list_models()[0].name
    result = icemap("predict", folder / "cube.zarr", "--model", name[:-1], "--output", tmp_path / "out.zarr")
    assert_one_line(result, name[:-1], name)


def test_an_output_that_is_there_already(icemap: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert_one_line(icemap("run", folder / "run.yaml", "--output", tmp_path), "is not empty", "new folder")
    assert_one_line(icemap("run", folder / "run.yaml", "--output", tmp_path / "mine.txt"), "mine.txt")
    search = ("search", folder / "catalog/catalog.json", "--region", REGION, "--years", "2020")
    assert_one_line(icemap(*search, "--output", tmp_path / "mine.txt"), "exists already")
    assert_one_line(icemap("area", folder / "maps.zarr", "--output", tmp_path / "mine.txt"), "exists already")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("provider:", "provder:", ("'search.provder'", "'provider'")),
        ("years:", "yaers:", ("'yaers'", "'years'")),
        ("name: test", "name: [", ("YAML",)),
        ("kind: threads", "kind: slurm", ("'slurm'",)),
    ],
)
def test_a_faulty_configuration(
    icemap: Any, folder: Path, tmp_path: Path, old: str, new: str, words: tuple[str, ...]
) -> None:
    text = (folder / "run.yaml").read_text()
    assert old in text
    (tmp_path / "run.yaml").write_text(text.replace(old, new))
    assert_one_line(icemap("run", tmp_path / "run.yaml", "--output", tmp_path / "out"), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("search", "x", "--region", "1,2,3", "--years", "2020"), "1,2,3"),
        (("search", "x", "--region", REGION, "--years", "soon"), "soon"),
        (("search", "x", "--years", "2020"), "--region"),
        (("serach",), "serach"),
        (("run", "none.yaml", "--output", "none"), "none.yaml"),
        (("verify", "none.zarr"), "none.zarr"),
        (("outlines", "none.zarr", "--output", "none.txt"), "none.txt"),
        (("stac-from-files", "none", "--output", "other"), "none"),
    ],
)
def test_wrong_arguments(icemap: Any, arguments: tuple[str, ...], word: str) -> None:
    assert_one_line(icemap(*arguments), word)


def test_square_brackets_in_a_message_are_shown(icemap: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise MissingExtraError("install 'icemap-xr[gpu]' for [/x] and\n[2019, 2020]")

    monkeypatch.setattr(cli, "cli", fail)
    result = icemap()
    assert result.err == "error: install 'icemap-xr[gpu]' for [/x] and [2019, 2020]\n"
    assert result.code == 1


def test_an_interrupt_says_that_the_command_resumes(icemap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "cli", stop)
    result = icemap()
    assert_one_line(result, "resumes")
    assert result.code == 130


def test_good_commands_succeed(icemap: Any, folder: Path, tmp_path: Path) -> None:
    found = icemap(
        *("search", folder / "catalog", "--region", REGION, "--years", "2019-2020", "--output", tmp_path / "items.json")
    )
    assert (found.code, found.err) == (0, "")
    assert "3 items" in found.out
    assert len(pystac.ItemCollection.from_file(str(tmp_path / "items.json"))) == 3
    assert icemap("verify", folder / "cube.zarr").code == 0
    for name in ("a.gpkg", "a.parquet"):
        assert icemap("outlines", folder / "maps.zarr", "--output", tmp_path / name).code == 0
        assert (tmp_path / name).is_file()
    assert icemap("models").code == 0


def test_verify_fails_on_damage(icemap: Any, tmp_path: Path) -> None:
    path = tmp_path / "maps.zarr"
    store.save(yearly_dataset(SHAPE).icemap.predict(FakePredictor()), path)
    (path / "probability" / "c" / "0" / "0" / "0").unlink()
    result = icemap("verify", path)
    assert "probability: chunk c/0/0/0 is missing" in result.out
    assert_one_line(result, "1 faults")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "bad.yaml", "--output", "out"), ("'serch'", "'search'")),
        (("search", "catalog/catalog.json", "--region", REGION, "--years", "2024"), ("2024",)),
        (("predict", "cube.zarr", "--model", "no_such_model", "--output", "out.zarr"), ("'no_such_model'",)),
    ],
)
def test_the_installed_command(
    folder: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (folder / "bad.yaml").write_text((folder / "run.yaml").read_text().replace("search:", "serch:"))
    done = subprocess.run([ICEMAP, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert_one_line(Result(done.returncode, done.stdout, done.stderr), *words)
    assert not (folder / "out").exists()
    assert not (folder / "out.zarr").exists()
