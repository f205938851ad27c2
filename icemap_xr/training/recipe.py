"""A recipe: from one YAML file to a trained, calibrated and judged model bundle, on simulated regions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from icemap_xr import simulate
from icemap_xr.calibrate import KnotCalibrator, fit_calibrator
from icemap_xr.errors import ConfigError, InputError
from icemap_xr.grid import parse_metres
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import Architecture, Pooling
from icemap_xr.models.registry import INPUT, load_model
from icemap_xr.simulate.parameters import Landscape
from icemap_xr.training.card import model_card
from icemap_xr.training.evaluate import Evaluation, evaluate, glacier_pair, predict_tile
from icemap_xr.training.fit import FitResult, TrainOptions, fit
from icemap_xr.training.state import write_whole
from icemap_xr.training.tiles import Tile, feature_specs, simulated_tiles
from icemap_xr.types import FeatureSpec, InputSpec, Predictor, StrPath

#: seeds of regions that users see in demonstrations, documentation and tests: no model may have learnt from them
RESERVED_SEEDS = range(100)

#: pixel size of simulated regions, m
RESOLUTION = 10.0

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class RegionSet:
    """Simulated regions: each seed in each year.

    Parameters
    ----------
    seeds
        Seeds, 100 or more.
    years
        Years.
    size_km
        Side of a region, km.
    shift
        How far the radar properties of the classes are moved, see `icemap_xr.simulate.region`.
    landscapes
        ``"default"``, or ``"varied"``: ice, debris, snow patches and relief drawn by seed.
    """

    __pydantic_config__ = _STRICT

    seeds: tuple[int, ...]
    years: tuple[int, ...] = (2020,)
    size_km: float = 4.0
    shift: float = 1.0
    landscapes: Literal["default", "varied"] = "default"

    def regions(self, features: Sequence[str], steps: int) -> Iterator[simulate.SimulatedRegion]:
        """Yield the regions."""
        for seed in self.seeds:
            yield simulate.region(
                size_km=self.size_km,
                years=self.years,
                seed=seed,
                steps=steps,
                resolution=RESOLUTION,
                features=features,
                shift=self.shift,
                landscape=varied_landscape(seed) if self.landscapes == "varied" else None,
            )


@dataclass(frozen=True)
class DataSection:
    """Regions for each purpose; no seed serves two."""

    __pydantic_config__ = _STRICT

    train: tuple[RegionSet, ...]
    validation: tuple[RegionSet, ...]
    calibration: tuple[RegionSet, ...]
    test: tuple[RegionSet, ...]

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for purpose in ("train", "validation", "calibration", "test"):
            seeds = {seed for one in getattr(self, purpose) for seed in one.seeds}
            for seed in sorted(seeds):
                if seed in RESERVED_SEEDS:
                    raise InputError(f"seed {seed} of {purpose} is kept for users: give {RESERVED_SEEDS.stop} or more")
                if seed in seen:
                    raise InputError(f"seed {seed} serves {seen[seed]} and {purpose}: use each for one purpose")
                seen[seed] = purpose


@dataclass(frozen=True)
class ModelSection:
    """The network and what the bundle says about it.

    Parameters
    ----------
    name, note
        Name of the model, and one line on what it is good for.
    pooling, filters, steps, window
        See `icemap_xr.models.icemapper.Architecture`.
    scaling
        By feature, the values that become 0 and 1; those of the published networks where not given.
    """

    __pydantic_config__ = _STRICT

    name: str
    note: str = ""
    pooling: Pooling = "tweightedpool"
    filters: int = 32
    steps: int = 15
    window: int = 384
    scaling: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A whole training.

    Parameters
    ----------
    model
        The network.
    train
        Options of the training.
    data
        Simulated regions.
    train_window
        Side of training windows in pixels; None for the model's own. The network takes windows of any size.
    overlap
        Overlap of windows in the maps that are calibrated and judged.
    block
        Side of the blocks whose errors are kept, as text with a unit.
    baselines
        For the model card: IoU of other classifiers on the maps of the first test set.
    """

    __pydantic_config__ = _STRICT

    model: ModelSection
    data: DataSection
    train: TrainOptions = field(default_factory=TrainOptions)
    train_window: int | None = None
    overlap: float = 0.5
    block: str = "640m"
    baselines: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """Features and how they are scaled."""
        return feature_specs(self.train.features, self.model.scaling)

    @property
    def architecture(self) -> Architecture:
        """The network."""
        model = self.model
        return Architecture(
            model.pooling, model.steps, len(self.train.features), filters=model.filters, window=model.window
        )


def read_recipe(path: StrPath) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    ConfigError
        The file cannot be read, or a key or value is not allowed.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return TypeAdapter(Recipe).validate_python(content)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def run_recipe(recipe: Recipe, folder: StrPath) -> ModelBundle:
    """Train, calibrate, judge, and save a bundle; an interrupted training goes on where it was, a finished one is kept.

    Parameters
    ----------
    recipe
        What to do.
    folder
        Gets ``training`` (weights, log), ``evaluation.json``, ``MODEL_CARD.md`` and the bundle, a folder with the
        model's name.

    Returns
    -------
    ModelBundle
        As saved.
    """
    folder = Path(folder)
    network = replace(recipe.architecture, window=recipe.train_window or recipe.model.window)
    trained = fit(network, tiles(recipe, "train"), tiles(recipe, "validation"), recipe.train, folder / "training")
    target = folder / recipe.model.name
    if target.exists():
        return ModelBundle.load(target)
    draft = folder / f".{recipe.model.name}.uncalibrated"
    if not draft.exists():
        _bundle(recipe).save(draft, trained.weights())
    predictor = load_model(draft)
    calibrator = calibrate(recipe, predictor)
    found = evaluate(
        predictor,
        (tile for one in recipe.data.test for tile in set_tiles(recipe, one)),
        overlap=recipe.overlap,
        block_px=round(parse_metres(recipe.block) / RESOLUTION),
        calibrator=calibrator,
    )
    write_whole(folder / "evaluation.json", json.dumps(found.to_json()).encode())
    bundle = _bundle(recipe, calibrator, found, trained)
    saved = bundle.save(target, trained.weights())
    write_whole(folder / "MODEL_CARD.md", model_card(saved).encode())
    return saved


def tiles(recipe: Recipe, purpose: Literal["train", "validation"]) -> list[Tile]:
    """Simulate the tiles of a purpose, in memory."""
    sets: tuple[RegionSet, ...] = getattr(recipe.data, purpose)
    return [tile for one in sets for tile in set_tiles(recipe, one)]


def set_tiles(recipe: Recipe, regions: RegionSet) -> Iterator[Tile]:
    """Simulate the tiles of a set one region after the other."""
    for region in regions.regions(recipe.train.features, recipe.model.steps):
        yield from simulated_tiles(region, recipe.features)


def calibrate(recipe: Recipe, predictor: Predictor) -> KnotCalibrator:
    """Fit a calibrator to whole maps of the calibration regions."""
    glacier = predictor.spec.glacier_index
    pairs = (
        glacier_pair(*predict_tile(predictor, tile, overlap=recipe.overlap), glacier)
        for one in recipe.data.calibration
        for tile in set_tiles(recipe, one)
    )
    count = sum(len(one.seeds) * len(one.years) for one in recipe.data.calibration)
    return fit_calibrator(
        pairs, bins=1000, name=f"{recipe.model.name}-isotonic", fitted_on=f"{count} simulated maps, single years"
    )


def varied_landscape(seed: int) -> Landscape:
    """Return a landscape drawn by seed."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    return Landscape(
        ice_cover=float(rng.uniform(0.15, 0.65)),
        debris_cover=float(rng.uniform(0.1, 0.4)),
        snow_patch_cover=float(rng.uniform(0.03, 0.14)),
        relief=float(rng.uniform(600, 1400)),
    )


def split_errors(found: Evaluation, block: str) -> dict[str, Any]:
    """Split block errors into what a whole map has in common and the rest, as `bootstrap_area` takes them.

    Each tile is one region in one year. Its mean error less the mean of all tiles is drawn once for a year
    (`year_effect`); block errors less that are drawn for each block, and keep the mean of all: the model's bias.
    """
    means = {name: float(np.mean(errors)) for name, errors in found.block_errors.items() if errors}
    centre = float(np.mean(list(means.values())))
    rest = [error - means[name] + centre for name in means for error in found.block_errors[name]]
    return {
        "errors": [round(one, 6) for one in rest],
        "year_effect": [round(one - centre, 6) for one in means.values()],
        "block": block,
    }


def _bundle(
    recipe: Recipe,
    calibrator: KnotCalibrator | None = None,
    found: Evaluation | None = None,
    trained: FitResult | None = None,
) -> ModelBundle:
    errors: Any = None if found is None else split_errors(found, recipe.block)
    return ModelBundle(
        recipe.model.name,
        recipe.architecture,
        (InputSpec(INPUT, recipe.features),),
        note=recipe.model.note,
        calibration=None if calibrator is None else calibrator.to_json(),
        block_errors=errors,
        training={} if found is None or trained is None else _provenance(recipe, found, trained),
    )


def _provenance(recipe: Recipe, found: Evaluation, trained: FitResult) -> dict[str, Any]:
    """Return what a bundle says about its training and its figures on regions it has not seen."""
    spread = [error for errors in found.block_errors.values() for error in errors]
    return {
        "data": "simulated regions (icemap_xr.simulate), no real scene",
        "recipe": asdict(recipe),
        "software": {name: version(name) for name in ("icemap-xr", "tensorflow", "keras", "numpy")},
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(trained.seconds),
        "best_epoch": trained.best.epoch,
        "validation_iou": round(trained.best.val_iou, 4),
        "test": {
            "overall": found.overall.to_json(),
            "iou": {name: scores.iou for name, scores in found.tiles.items()},
            "ece": found.reliability.ece,
            "ece_calibrated": None if found.calibrated is None else found.calibrated.ece,
            "block_error_mean": float(np.mean(spread)),
            "block_error_std": float(np.std(spread)),
            "blocks": len(spread),
        },
    }
