"""A recipe from YAML to a bundle, at toy size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import xarray as xr
import yaml

from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.calibrate import KnotCalibrator, calibrate
from icemap_xr.errors import ConfigError, InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.registry import load_model
from icemap_xr.outlines import outlines
from icemap_xr.predict import predict
from icemap_xr.simulate import region
from icemap_xr.training import recipe as recipes
from icemap_xr.training import regionerrors
from icemap_xr.training.recipe import read_recipe, run_recipe
from icemap_xr.training.sources import RESERVED_SEEDS

PIPELINES = Path(__file__).resolve().parents[3] / "pipelines"

TOY = {
    "model": {"name": "toy", "note": "a toy", "filters": 2, "steps": 3, "window": 16, "scaling": {"grd": [-30, 0]}},
    "train": {"epochs": 1, "restarts": [1], "batch_size": 2, "batches_per_epoch": 2, "augment": {"gamma": 0}},
    "data": {
        "train": [{"seeds": [1000], "size_km": 0.64, "landscapes": "varied"}],
        "validation": [{"seeds": [1001], "size_km": 0.64}],
        "calibration": [{"seeds": [1002], "size_km": 0.64}],
        "test": [{"seeds": [1003], "years": [2020, 2021], "size_km": 0.64, "shift": 0.5}],
    },
    "block": "160m",
}


def write(path: Path, **change: object) -> Path:
    path.write_text(yaml.safe_dump(TOY | change))
    return path


def test_a_recipe_makes_a_bundle_that_maps_calibrates_and_bounds(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path / "toy.yaml"))
    made = run_recipe(recipe, tmp_path / "out")
    bundle = ModelBundle.load(tmp_path / "out" / "toy")
    assert bundle == made
    assert run_recipe(recipe, tmp_path / "out") == made, "what is finished is not done again"
    grd = bundle.inputs[0].features[0]
    assert (grd.name, grd.minimum, grd.maximum) == ("grd", -30, 0)
    assert bundle.training["recipe"]["data"]["test"][0]["seeds"] == [1003]
    assert "# Model card: toy" in (tmp_path / "out" / "MODEL_CARD.md").read_text()
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(evaluation["tiles"]) == ["sim-1003_2020", "sim-1003_2021"]
    assert bundle.training["test"]["ece_calibrated"] == evaluation["calibrated"]["ece"]
    assert bundle.calibration is not None
    ds = region(size_km=0.64, years=(2020,), seed=5, steps=3).yearly()
    maps = calibrate(predict(ds, load_model(tmp_path / "out" / "toy")), KnotCalibrator.from_json(bundle.calibration))
    draws = bootstrap_area(maps, block="160m", kind="mapping", block_errors=bundle.block_errors, n=10)
    assert np.isfinite(draws["draws"]).all()


def test_the_errors_of_edges_are_those_that_outlines_take(caplog: pytest.LogCaptureFixture) -> None:
    grid = RegionGrid.from_bbox((500_000, 8_600_000, 501_280, 8_601_280), "EPSG:32633", 10, bbox_crs="EPSG:32633")
    y, x = np.mgrid[:128, :128]

    def disc(radius: float) -> xr.DataArray:
        ice = (np.hypot(y - 63.3, x - 64.2) < radius)[None].astype(np.float32)
        return xr.DataArray(ice, {**grid.coords(), "year": [2020]}, ("year", "y", "x"), "probability")

    found = regionerrors.edge_errors([(disc(42), disc(40)), (disc(32), disc(30))])
    assert found is not None
    assert found["block"] == "160m"
    assert np.mean(found["errors_m"]) == pytest.approx(20, rel=0.1)
    shapes = outlines(disc(52).to_dataset(), edge_errors=found)
    assert shapes["mapping_low_km2"][0] < np.pi * 0.5**2 < shapes["mapping_high_km2"][0]
    fewer = regionerrors.compact({"errors_m": list(np.random.default_rng(0).normal(3, 9, 4001)), "block": "160m"})
    assert len(fewer["errors_m"]) < 1001
    assert np.mean(fewer["errors_m"]) == pytest.approx(3, abs=0.3)
    assert np.std(fewer["errors_m"]) == pytest.approx(9, rel=0.03)
    assert fewer["block"] == "160m"
    tiles = [(one[0].values, two[0].values) for one, two in ((disc(42), disc(40)), (disc(0), disc(0)))]
    assert regionerrors.edge_errors(regionerrors.tile_maps([tiles[0], tiles[1], tiles[0]], 10.0)) is not None
    assert regionerrors.edge_errors([(disc(42), disc(40)), (disc(0), disc(0))]) is None
    assert "without ice edge" in caplog.text


def test_regions_of_several_years_tell_apart_what_a_region_and_what_a_year_is_off_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [{"seeds": [1004, 1005], "years": [2020, 2021], "size_km": 0.64}]
    recipe = read_recipe(write(tmp_path / "toy.yaml", data={**TOY["data"], "errors": errors}))
    monkeypatch.setattr(regionerrors, "edge_errors", lambda pairs: {"regions": len(pairs)})
    made = run_recipe(recipe, tmp_path / "out")
    assert ModelBundle.load(tmp_path / "out" / "toy").edge_errors == {"regions": 2}
    found = made.block_errors
    assert found is not None
    # drawn: two regions say little of how much regions differ
    assert len(found["region_effect"]) > 2
    assert len(found["year_effect"]) > 4
    assert len(found["errors"]) == 2 * 2 * 4 * 4
    assert found["block"] == "160m"
    assert np.mean(found["year_effect"]) == pytest.approx(0, abs=1e-6)
    clash = [{"seeds": [1003], "years": [2020, 2021], "size_km": 0.64}]
    with pytest.raises(ConfigError, match="seed 1003 serves test and errors"):
        read_recipe(write(tmp_path / "clash.yaml", data={**TOY["data"], "errors": clash}))


def test_block_errors_are_split_without_changing_their_mean() -> None:
    rng = np.random.default_rng(0)
    errors = {f"tile-{k}": tuple(rng.normal(0.01 * k, 0.1, 30).tolist()) for k in range(5)}

    class Found:
        block_errors = errors

    split = recipes.split_errors(Found(), "640m")  # type: ignore[arg-type]
    everything = np.concatenate([np.array(one) for one in errors.values()])
    assert np.mean(split["errors"]) == pytest.approx(everything.mean(), abs=1e-6)
    assert np.mean(split["year_effect"]) == pytest.approx(0, abs=1e-6)
    rebuilt = np.array(split["errors"]).reshape(5, 30) + np.array(split["year_effect"])[:, None]
    np.testing.assert_allclose(rebuilt.ravel(), everything, atol=2e-6)


def test_errors_of_a_year_are_kept_apart_from_those_of_its_blocks() -> None:
    class Found:
        block_errors: ClassVar = {"a_2019": (0.1, 0.3), "b_2019": (0.2,), "a_2020": (0.0,), "a_2021": (-0.2, -0.2)}

    split = recipes.split_errors(Found(), "640m", lambda name: name[-4:])  # type: ignore[arg-type]
    assert split is not None
    # years are off by 0.2, 0 and -0.2; inside 2019 blocks differ by 0.1
    assert split["year_effect"] == pytest.approx([0.2, 0, -0.2])
    assert split["errors"] == pytest.approx([-0.1, 0.1, 0, 0, 0, 0], abs=1e-6)
    few = recipes.split_errors(Found(), "640m", lambda name: "2019")  # type: ignore[arg-type]
    assert few is not None
    assert len(few["year_effect"]) == 4, "one year says nothing about years: tiles stand in"


def test_a_block_is_a_whole_number_of_pixels() -> None:
    assert recipes.block_pixels("640m", 10.0) == 64
    with pytest.raises(InputError, match=r"block '75m' is 7.5 pixels of 10 m"):
        recipes.block_pixels("75m", 10.0)


@pytest.mark.parametrize("name", ["train_demo.yaml", "train_demo_rtc.yaml"])
def test_the_committed_recipes_are_valid(name: str) -> None:
    assert read_recipe(PIPELINES / name).train.epochs == 120


def test_the_committed_recipe_is_valid_and_keeps_the_users_seeds() -> None:
    recipe = read_recipe(PIPELINES / "train_demo.yaml")
    sets = [
        one for name in ("train", "validation", "calibration", "test", "errors") for one in getattr(recipe.data, name)
    ]
    assert not {seed for one in sets for seed in one.seeds} & set(RESERVED_SEEDS)
    assert 4 * recipe.architecture.parameters < 1.5e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {**TOY["model"], "filtres": 8}}, "model.filtres"),
        ({"train": {"augment": {"flop": 1}}}, "train.augment.flop"),
        ({"train": {"epochs": 300}}, "epochs is 300"),
        ({"data": {**TOY["data"], "test": [{"seeds": [42]}]}}, "seed 42 of test is kept for users"),
        ({"data": {**TOY["data"], "test": [{"seeds": [1000]}]}}, "seed 1000 serves train and test"),
        ({"block": None}, "block"),
        ({"data": {"hdf5": "a.hdf5", "train": ["*"]}}, "data: validation names no tile"),
        ({"data": {"cube": "a.zarr", "tile_px": 8}}, "data.outlines"),
        ({"data": {"cube": "a.zarr", "outlines": "b.gpkg", "tile_px": 8, "tiles": 1}}, "data.tiles"),
    ],
)
def test_bad_recipes_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_recipe(write(tmp_path / "bad.yaml", **change))


@pytest.mark.parametrize("content", ["model: [", None])
def test_what_is_no_yaml_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="cannot be read as YAML"):
        read_recipe(path)
