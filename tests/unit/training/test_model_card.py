"""The demonstration model in the catalogs, and its card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from icemap_xr import simulate
from icemap_xr.calibrate import KnotCalibrator
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.registry import load_model
from icemap_xr.training.card import model_card
from icemap_xr.training.evaluate import evaluate
from icemap_xr.training.recipe import read_recipe
from icemap_xr.training.sources import RESERVED_SEEDS
from icemap_xr.training.tiles import simulated_tiles

ROOT = Path(__file__).resolve().parents[3]
RECIPES = {"demo_grdinsar": "train_demo.yaml", "demo_rtc": "train_demo_rtc.yaml"}
LEAST_IOU = {"demo_grdinsar": 0.93, "demo_rtc": 0.88}


@pytest.fixture(scope="module", params=list(RECIPES))
def bundle(request: pytest.FixtureRequest) -> ModelBundle:
    return ModelBundle.load(ROOT / "catalogs" / "models" / request.param)


def test_the_card_is_what_the_bundle_says(bundle: ModelBundle) -> None:
    assert (ROOT / "docs" / f"model_card_{bundle.name}.md").read_text() == model_card(bundle)
    assert "real glaciers need the published weights" in model_card(bundle)


def test_the_bundle_is_of_the_committed_recipe(bundle: ModelBundle) -> None:
    recipe = read_recipe(ROOT / "pipelines" / RECIPES[bundle.name])
    assert bundle.training["recipe"] == json.loads(json.dumps(asdict(recipe)))


def test_the_bundle_is_as_good_as_promised_on_the_first_set(bundle: ModelBundle) -> None:
    first = bundle.training["recipe"]["data"]["test"][0]
    iou = [bundle.training["test"]["iou"][f"sim-{seed}_{year}"] for seed in first["seeds"] for year in first["years"]]
    assert sum(iou) / len(iou) >= LEAST_IOU[bundle.name]


def test_the_bundle_is_small_and_knows_nothing_of_the_users_seeds(bundle: ModelBundle) -> None:
    assert bundle.folder is not None
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) < 1.5e6
    sets = [one for sets in bundle.training["recipe"]["data"].values() for one in sets]
    seeds = [seed for one in sets for seed in one["seeds"]]
    assert not set(seeds) & set(RESERVED_SEEDS)
    assert bundle.training["test"]["ece_calibrated"] < bundle.training["test"]["ece"]


def test_the_model_maps_a_region_it_has_not_seen(bundle: ModelBundle) -> None:
    model = load_model(bundle.name)
    names = bundle.inputs[0].feature_names
    region = simulate.region(size_km=4.0, years=(2020,), seed=1, features=names)
    assert bundle.calibration is not None
    calibrator = KnotCalibrator.from_json(bundle.calibration)
    found = evaluate(model, simulated_tiles(region, model.spec.features), calibrator=calibrator)
    assert found.overall.iou is not None
    assert found.overall.iou > 0.8
