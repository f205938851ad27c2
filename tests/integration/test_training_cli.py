"""`icemap train` and `icemap evaluate` on files: whole runs with a tiny network, a kill, and what must be refused."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import h5py
import numpy as np
import pytest
import safetensors.numpy
import xarray as xr
import yaml
from shapely import box

from icemap_xr import store
from icemap_xr.calibrate import KnotCalibrator
from icemap_xr.models import icemapper
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import Architecture
from icemap_xr.models.registry import feature_spec, load_model
from icemap_xr.testing.commands import Result
from icemap_xr.testing.fakes import small_grid
from icemap_xr.training import regionerrors
from icemap_xr.training.evaluate import predict_tile
from icemap_xr.training.hdf5 import open_tiles
from icemap_xr.types import InputSpec

SIDE, STEPS = 32, 3
NAMES = [f"SVAL-{place // 3}-{place % 3}_{2018 + place % 4}_ro14" for place in range(9)]
RECIPE: dict[str, Any] = {
    "model": {"name": "tiny", "note": "a tiny network", "filters": 2, "steps": STEPS, "window": 16},
    "train": {"features": ["grd"], "epochs": 3, "restarts": [3], "batch_size": 2, "batches_per_epoch": 2},
    "data": {
        "hdf5": "tiles.hdf5",
        "train": ["SVAL-0-*"],
        "validation": ["SVAL-1-0*"],
        "calibration": ["SVAL-1-1*", "SVAL-1-2*"],
        "test": ["SVAL-2-*"],
    },
    "block": "80m",
}


Run = Callable[..., Result]


def refused(result: Result, *words: str) -> None:
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert result.code != 0
    assert len(lines) == 1, result.err
    for word in words:
        assert word in lines[0], lines[0]


def scene(rng: np.random.Generator, times: int, shape: tuple[int, int], glacier: np.ndarray) -> np.ndarray:
    """Scaled backscatter that is lower on glaciers."""
    return (0.7 - 0.2 * glacier + rng.normal(0, 0.03, (times, *shape))).astype(np.float32)


def write_tiles(path: Path, names: list[str] = NAMES, *, blank: str = "") -> Path:
    shape = (SIDE, SIDE)
    sizes = {"height": SIDE, "width": SIDE, "orig_height": 30, "orig_width": 28, "pad_height": 1, "pad_width": 2}
    with h5py.File(path, "w") as file:
        for number, name in enumerate(names):
            rng = np.random.default_rng(number)
            glacier = np.add.outer(np.arange(SIDE), np.arange(SIDE)) > 20 + 3 * number
            group = file.create_group(name)
            values = scene(rng, 5, shape, glacier)
            group["grd"] = np.full_like(values, np.nan)[..., None] if name == blank else values[..., None]
            group["outlines"] = np.stack([~glacier, glacier], -1).astype(np.uint8)
            group.attrs.update({**sizes, "grd_base_time_idx": np.array([1, 2, 4])})
    return path


def write_cube(folder: Path, steps: int = STEPS) -> Path:
    """A native cube of 96 x 80 pixels with two years, and its glaciers as a GeoPackage."""
    grid, shape = small_grid((96, 80)), (96, 80)
    glacier = np.zeros(shape, bool)
    glacier[:, :40] = True
    one = feature_spec("grd")
    values = scene(np.random.default_rng(1), 2 * steps, shape, glacier) * (one.maximum - one.minimum) + one.minimum
    cube = xr.Dataset(coords={"year": [2020, 2021], **grid.coords()})
    cube["grd"] = (("grd_time", "y", "x"), values.astype(np.float32), {"units": "dB", "polarisation": "VV"})
    cube["grd_index"] = (("year", "step"), np.arange(2 * steps, dtype=np.int32).reshape(2, steps))
    store.save(cube, folder / "cube.zarr")
    west, south, _, north = grid.geobox.boundingbox.bbox
    gpd.GeoDataFrame(geometry=[box(west, south, west + 400, north)], crs="EPSG:32633").to_file(folder / "ice.gpkg")
    return folder


def write_recipe(folder: Path, name: str = "recipe.yaml", **change: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(RECIPE | change))
    return path


def bundle_of(folder: Path, seed: int = 0) -> ModelBundle:
    """A bundle with random weights."""
    architecture = Architecture(steps=STEPS, features=1, filters=2, window=16)
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, shape in icemapper.shapes(architecture).items():
        values = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.2, shape)
        tensors[path] = (np.abs(values) + 0.5 if path.endswith(("gamma", "variance")) else values).astype(np.float32)
    inputs = (InputSpec("sar", (feature_spec("grd"),)),)
    return ModelBundle("tiny", architecture, inputs, note="random weights", training={"seed": seed}).save(
        folder, tensors
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_tiles(tmp_path / "tiles.hdf5")
    return tmp_path


def curve(output: Path) -> list[dict[str, str]]:
    with (output / "training" / "log.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


# train


def test_training_on_a_file_makes_a_judged_bundle_and_is_not_repeated(icemap: Run, folder: Path) -> None:
    output = folder / "out"
    first = icemap("train", write_recipe(folder), "--output", output, "--tensorboard")
    assert first.code == 0, first.err
    assert "ground it has not seen" in first.out
    bundle = ModelBundle.load(output / "tiny")
    assert bundle.training["tiles"] == {"train": 3, "validation": 1, "calibration": 2, "test": 3}
    assert bundle.training["real"] is True
    assert set(bundle.training["test"]["iou"]) == set(NAMES[6:])
    assert bundle.calibration is not None
    assert bundle.block_errors is not None
    assert bundle.block_errors["block"] == "80m"
    # 3 x 3 blocks of 8 px in 30 x 28 px, in three tiles
    assert len(bundle.block_errors["errors"]) == 27
    card = (output / "MODEL_CARD.md").read_text()
    assert "tiles of tiles.hdf5: 3 tiles for training" in card.lower()
    assert "simulated" not in card.lower()
    assert list((output / "training" / "tensorboard").iterdir())
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    assert icemap("train", folder / "recipe.yaml", "--output", output, "--workers", 1).code == 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == before
    # other options, other data, or other files are not mixed in
    other = write_recipe(folder, "other.yaml", train=RECIPE["train"] | {"learning_rate": 1e-3})
    refused(icemap("train", other, "--output", output), "holds a training with other options")
    write_tiles(folder / "tiles.hdf5", [*NAMES, "SVAL-0-9_2020_ro14"])
    refused(icemap("train", folder / "recipe.yaml", "--output", output), "holds a training with other options")
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").write_text("mine")
    refused(icemap("train", folder / "recipe.yaml", "--output", folder / "mine"), "is not an empty folder")
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_training_on_a_cube(icemap: Run, tmp_path: Path) -> None:
    write_cube(tmp_path)
    data = {"cube": "cube.zarr", "outlines": "ice.gpkg", "tile_px": 16}
    recipe = write_recipe(tmp_path, data=data, train=RECIPE["train"] | {"epochs": 1, "restarts": [1]})
    result = icemap("train", recipe, "--output", tmp_path / "out")
    assert result.code == 0, result.err
    bundle = ModelBundle.load(tmp_path / "out" / "tiny")
    assert sum(bundle.training["tiles"].values()) == 2 * 6 * 5
    assert "squares of the cube cube.zarr with the outlines ice.gpkg" in bundle.training["data"]
    (one,) = bundle.inputs[0].features
    assert (one.polarisation, one.radiometry) == ("VV", None)


#: `icemap` in a process that kills itself in the middle of its third epoch, so that it matters not how fast it is
KILLED = """
import os, signal, sys
from icemap_xr import cli
from icemap_xr.training.trainer import Trainer

step, steps = Trainer.step, []

def counted(self, *arguments):
    steps.append(len(steps))
    if len(steps) == 2 * 2 + 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *arguments)

Trainer.step = counted
cli.main()
"""


@pytest.mark.timeout(1200)
def test_a_killed_training_command_goes_on_to_the_same_bundle(icemap: Run, folder: Path) -> None:
    train = RECIPE["train"] | {"epochs": 4, "restarts": [4], "dropout": 0.2}
    command = ("train", write_recipe(folder, train=train), "--output")
    call = [sys.executable, "-c", KILLED, *map(str, command), str(folder / "killed")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [row["epoch"] for row in curve(folder / "killed")] == ["1", "2"]
    assert not (folder / "killed" / "tiny").exists()
    for name in ("killed", "whole"):
        result = icemap(*command, folder / name)
        assert result.code == 0, result.err
    assert len(curve(folder / "killed")) == 4
    assert curve(folder / "killed") == curve(folder / "whole")
    weights, expected = (
        safetensors.numpy.load_file(folder / one / "tiny" / "weights.safetensors") for one in ("killed", "whole")
    )
    assert all(weights[name].tobytes() == expected[name].tobytes() for name in expected)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {**RECIPE["data"], "test": ["SVAL-0-0*"]}}, ("serves train and test",)),
        ({"data": {**RECIPE["data"], "hdf5": "absent.hdf5"}}, ("absent.hdf5", "cannot be opened")),
        ({"data": {**RECIPE["data"], "tails": ["a"]}}, ("data.tails",)),
        ({"data": {"cube": "absent.zarr", "outlines": "ice.gpkg", "tile_px": 16}}, ("absent.zarr",)),
        ({"model": {**RECIPE["model"], "steps": 4}}, ("has 3 steps of grd, needed are 4",)),
        ({"model": {**RECIPE["model"], "scaling": {"grd": [-20, 0]}}}, ("scaled from -146", "needed is -20 to 0")),
        ({"train": {**RECIPE["train"], "features": ["rtc"]}}, ("has no rtc",)),
    ],
)
def test_recipes_that_do_not_fit_their_data_are_refused_before_training(
    icemap: Run, folder: Path, change: dict[str, Any], words: tuple[str, ...]
) -> None:
    refused(icemap("train", write_recipe(folder, **change), "--output", folder / "out"), *words)
    assert not (folder / "out" / "training").exists()


# evaluate


def test_judging_a_file_writes_scores_pictures_and_probabilities(icemap: Run, folder: Path) -> None:
    bundle_of(folder / "model")
    options = ("--hdf5", folder / "tiles.hdf5", "--tiles", "SVAL-2-*", "--block", "80m")
    output, probabilities = folder / "out", folder / "probs.hdf5"
    result = icemap("evaluate", folder / "model", *options, "--output", output, "--probabilities", probabilities)
    assert result.code == 0, result.err
    assert sorted(path.name for path in output.iterdir()) == [
        "evaluation.json",
        "iou.png",
        "reliability.png",
        "tiles.csv",
    ]
    with (output / "tiles.csv").open() as file:
        rows = {row["tile"]: row for row in csv.DictReader(file)}
    assert list(rows) == [*NAMES[6:], "all"]
    model = load_model(folder / "model")
    tp = fp = fn = 0
    with open_tiles(folder / "tiles.hdf5", ["grd"], names=NAMES[6:]) as tiles, h5py.File(probabilities) as file:
        for tile in tiles:
            found, labels = predict_tile(model, tile, edges="full")
            np.testing.assert_array_equal(file[f"{tile.name}/probs"][()], np.moveaxis(found, 0, -1))
            mapped, true = found[1] > found[0], labels[..., 1] == 1
            tp, fp, fn = tp + (mapped & true).sum(), fp + (mapped & ~true).sum(), fn + (~mapped & true).sum()
            assert int(rows[tile.name]["tp"]) == (mapped & true).sum()
    assert float(rows["all"]["iou"]) == pytest.approx(tp / (tp + fp + fn))
    content = json.loads((output / "evaluation.json").read_text())
    assert content["overall"]["tp"] == tp
    assert content["edges"] == "full"
    assert sum(content["reliability"]["pixels"]) == 3 * 30 * 28
    refused(icemap("evaluate", folder / "model", *options, "--output", output), "not empty")
    again = (*options, "--output", folder / "other", "--probabilities", probabilities)
    refused(icemap("evaluate", folder / "model", *again), "exists already")
    assert not (folder / "other").exists()


def test_a_calibrator_of_some_tiles_goes_into_a_new_bundle_with_the_errors_on_others(
    icemap: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bundle_of(folder / "model")
    document = (folder / "model" / "model.json").read_bytes()
    call = ("evaluate", folder / "model", "--hdf5", folder / "tiles.hdf5", "--block", "80m")
    fitted = ("--tiles", "SVAL-1-*", "--fit-calibrator", folder / "calibrator.json", "--output", folder / "a")
    assert icemap(*call, *fitted).code == 0
    calibrator = json.loads((folder / "calibrator.json").read_text())
    assert calibrator["places"] == ["SVAL-1-0", "SVAL-1-1", "SVAL-1-2"]
    with_it = (*call, "--calibrator", folder / "calibrator.json", "--save-bundle", folder / "judged")
    refused(icemap(*with_it, "--output", folder / "b"), "was fitted on 3 of the places", "SVAL-1-0")
    edges = ("--edge-errors", folder / "edges.json", "--edge-block", "80m")
    whole = ("--tiles", "SVAL-0-*", "--output", folder / "z")
    result = icemap(*with_it[:-2], *edges, *whole)  # these weights map ice everywhere
    assert result.code == 0, result.err
    assert not (folder / "edges.json").exists()
    assert (folder / "z" / "evaluation.json").exists()
    monkeypatch.setattr(regionerrors, "edge_errors", lambda pairs, block: {"maps": len(list(pairs)), "block": block})
    monkeypatch.setattr(regionerrors, "ice_edge", lambda array: array * 0 + 1)
    result = icemap(*with_it, *edges, "--tiles", "SVAL-0-*", "--tiles", "SVAL-2-*", "--output", folder / "b")
    assert result.code == 0, result.err
    saved = ModelBundle.load(folder / "judged")
    assert saved.digest == model.digest
    assert (folder / "model" / "model.json").read_bytes() == document
    assert saved.calibration == KnotCalibrator.from_json(calibrator).to_json()
    found = json.loads((folder / "b" / "evaluation.json").read_text())
    assert saved.training["judged"]["ece_calibrated"] == found["calibrated"]["ece"]
    assert saved.training["seed"] == 0
    assert saved.edge_errors == json.loads((folder / "edges.json").read_text()) == {"maps": 6, "block": "80m"}
    assert f"edge errors: {folder / 'edges.json'}" in result.out
    errors = [error for errors in found["block_errors"].values() for error in errors]
    assert saved.block_errors is not None
    assert len(saved.block_errors["year_effect"]) == 4, "tiles of four years"
    effects = dict(zip(("2018", "2019", "2020", "2021"), sorted(saved.block_errors["year_effect"]), strict=True))
    assert np.mean(list(effects.values())) == pytest.approx(0, abs=1e-5)
    assert len(saved.block_errors["errors"]) == len(errors) == 6 * 9
    refused(icemap(*with_it, "--tiles", "SVAL-0-*", "--output", folder / "c"), "judged", "exists already")
    both = (*fitted[:-1], folder / "d", "--save-bundle", folder / "e")
    refused(icemap(*call, *both), "do not go together")


def test_a_cube_is_judged_with_outlines(icemap: Run, tmp_path: Path) -> None:
    write_cube(tmp_path)
    bundle_of(tmp_path / "model")
    call = ("evaluate", tmp_path / "model", "--cube", tmp_path / "cube.zarr", "--block", "80m")
    options = ("--outlines", tmp_path / "ice.gpkg", "--years", "2021", "--output", tmp_path / "out")
    result = icemap(*call, *options)
    assert result.code == 0, result.err
    assert "cover 60.0% of the cube" in result.err, "a tile of three windows of 16 px fits 2 x 1 times"
    content = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(content["tiles"]) == ["cube-0-0_2021", "cube-1-0_2021"]
    counts = content["overall"]
    assert content["edges"] == "published"
    assert counts["tp"] + counts["fn"] == 96 * 40
    assert counts["tn"] + counts["fp"] == 96 * 8
    refused(icemap(*call, "--output", tmp_path / "b"), "--cube needs --outlines")
    refused(icemap(*call, *options[:2], "--block", "75m", "--output", tmp_path / "b"), "7.5 pixels of 10 m")


def test_a_blank_tile_is_named_or_left_out(icemap: Run, folder: Path) -> None:
    bundle_of(folder / "model")
    write_tiles(folder / "gaps.hdf5", NAMES[:2], blank=NAMES[0])
    call = ("evaluate", folder / "model", "--hdf5", folder / "gaps.hdf5", "--output", folder / "out")
    probabilities = folder / "probs.hdf5"
    refused(icemap(*call, "--probabilities", probabilities), NAMES[0], "no pixel that is both labelled and observed")
    assert sorted(path.name for path in folder.iterdir()) == ["gaps.hdf5", "model", "tiles.hdf5"], "nothing is left"
    result = icemap(*call, "--skip-unknown")
    assert result.code == 0, result.err
    content = json.loads((folder / "out" / "evaluation.json").read_text())
    assert (list(content["tiles"]), content["skipped"]) == ([NAMES[1]], [NAMES[0]])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("either --hdf5, or --cube",)),
        (("--hdf5", "tiles.hdf5", "--outlines", "ice.gpkg"), ("--outlines goes with --cube",)),
        (("--hdf5", "tiles.hdf5", "--tiles", "NORW-*"), ("no tile named NORW-*",)),
        (("--hdf5", "tiles.hdf5", "--probabilities", "out/probs.hdf5"), ("lies in --output",)),
        (("--hdf5", "tiles.hdf5", "--overlap", "1"), ("overlap=1",)),
        (("--hdf5", "model/model.json"), ("cannot be opened as HDF5",)),
    ],
)
def test_calls_that_cannot_be_are_refused_and_leave_nothing(
    icemap: Run, folder: Path, options: tuple[str, ...], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle_of(folder / "model")
    monkeypatch.chdir(folder)
    refused(icemap("evaluate", "model", *options, "--output", "out"), *words)
    assert sorted(path.name for path in folder.iterdir()) == ["model", "tiles.hdf5"]


# models


def test_models_says_which_fit_a_cube(icemap: Run, tmp_path: Path) -> None:
    write_cube(tmp_path, steps=15)
    result = icemap("models", "--cube", tmp_path / "cube.zarr")
    assert result.code == 0, result.err
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines() if line[0] == "│"]
    fits = {row[0]: row[-1] for row in cells}
    assert fits["ICEmapper_tweightedpool_grd"].startswith("yes")
    assert fits["ICEmapper_tweightedpool_grdinsar"].startswith("no: the")
    refused(icemap("models", "--cube", tmp_path / "none.zarr"), "does not exist")
