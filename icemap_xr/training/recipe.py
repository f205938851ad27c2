"""A recipe: from one YAML file to a trained, calibrated and judged model bundle."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
import yaml
from pydantic import ConfigDict, Discriminator, Tag, TypeAdapter, ValidationError

from icemap_xr.calibrate import SINGLE_YEARS, fit_calibrator
from icemap_xr.errors import ConfigError, InputError
from icemap_xr.grid import parse_metres
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import Architecture, Pooling
from icemap_xr.models.registry import INPUT, load_model
from icemap_xr.progress import Advance, progress
from icemap_xr.training.card import model_card
from icemap_xr.training.evaluate import evaluate, glacier_pair, predict_tile
from icemap_xr.training.fit import NOT_DECIDING, FitResult, TrainOptions, fit
from icemap_xr.training.real_sources import CubeSection, Hdf5Section
from icemap_xr.training.regionerrors import region_errors
from icemap_xr.training.scores import Evaluation
from icemap_xr.training.sources import DataSection, Tiles
from icemap_xr.training.state import claim, write_whole
from icemap_xr.training.tiles import Tile, feature_specs
from icemap_xr.types import Calibrator, FeatureSpec, InputSpec, Predictor, StrPath

_STRICT = ConfigDict(extra="forbid")


def _kind(content: Any) -> str:
    """Return which section a mapping, or a section itself, is."""
    if isinstance(content, dict):
        return "hdf5" if "hdf5" in content else "cube" if "cube" in content else "simulated"
    return {Hdf5Section: "hdf5", CubeSection: "cube"}.get(type(content), "simulated")


Data: TypeAlias = Annotated[
    Annotated[DataSection, Tag("simulated")]
    | Annotated[Hdf5Section, Tag("hdf5")]
    | Annotated[CubeSection, Tag("cube")],
    Discriminator(_kind),
]


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
        Where tiles come from, see `icemap_xr.training.sources`.
    train_window
        Side of training windows in pixels; None for the model's own. The network takes windows of any size.
    overlap
        Overlap of windows in the maps that are calibrated and judged.
    block
        Side of the blocks whose errors are kept, as text with a unit.
    baselines
        For the model card: IoU of other classifiers on the maps of the first test set of simulated regions.
    """

    __pydantic_config__ = _STRICT

    model: ModelSection
    data: Data
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
        # after "data" comes the kind of section, which is not in the file
        where = ".".join(str(part) for k, part in enumerate(first["loc"]) if (k, first["loc"][0]) != (1, "data"))
        raise ConfigError(f"{path}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def run_recipe(recipe: Recipe, folder: StrPath, *, base: StrPath = ".") -> ModelBundle:
    """Train, calibrate, judge, and save a bundle; an interrupted training goes on where it was, a finished one is kept.

    Parameters
    ----------
    recipe
        What to do.
    folder
        Folder: new, empty, or of the same recipe. It gets ``training`` (weights, log), ``evaluation.json``,
        ``MODEL_CARD.md`` and the bundle, a folder with the model's name.
    base
        Folder that paths in the recipe are relative to.

    Returns
    -------
    ModelBundle
        As saved.

    Raises
    ------
    InputError
        The folder holds something else, or recipe and data do not fit together.
    ReadError, SchemaError
        The data cannot be read.
    WeightsError, ModelError
        See `icemap_xr.training.fit.fit`.
    """
    folder, target = Path(folder), Path(folder) / recipe.model.name
    with recipe.data.open(recipe.features, recipe.model.steps, Path(base)) as data:
        claim(folder, {"recipe": plain(recipe), "data": dict(data.identity)})
        if not target.exists():
            _make(recipe, data, folder)
    saved = ModelBundle.load(target)
    card = folder / "MODEL_CARD.md"
    if not card.exists():
        write_whole(card, model_card(saved).encode())
    return saved


def plain(recipe: Recipe) -> dict[str, Any]:
    """Return all of a recipe that decides its result, as plain JSON types."""
    content: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    for key in NOT_DECIDING:
        del content["train"][key]
    return content


def _make(recipe: Recipe, data: Tiles, folder: Path) -> None:
    """Train, calibrate and judge; the bundle comes last."""
    network = replace(recipe.architecture, window=recipe.train_window or recipe.model.window)
    trained = fit(
        network, tiles(recipe, data, "train"), tiles(recipe, data, "validation"), recipe.train, folder / "training"
    )
    draft = folder / f".{recipe.model.name}.uncalibrated"
    if not draft.exists():
        _bundle(recipe, data).save(draft, trained.weights())
    predictor = load_model(draft)
    calibrator = calibrate(recipe, predictor, data)
    with progress("judging", data.counts["test"]) as advance:
        found = evaluate(
            predictor,
            data.read("test"),
            overlap=recipe.overlap,
            block_px=block_pixels(recipe.block, data.resolution),
            calibrator=calibrator,
            skip_unknown=True,
            on_tile=lambda name, scores: advance(
                1, name if scores is None else f"IoU of {name}: {scores.iou or 0:.3f}"
            ),
        )
    write_whole(folder / "evaluation.json", json.dumps(found.to_json()).encode())
    blocks, edges = region_errors(predictor, calibrator, data, overlap=recipe.overlap, block=recipe.block)
    errors = blocks or split_errors(found, recipe.block, data.unit_of)
    made = _bundle(recipe, data, calibrator, errors, edges, _provenance(recipe, found, trained, data))
    made.save(folder / recipe.model.name, trained.weights())
    shutil.rmtree(draft, ignore_errors=True)


def tiles(recipe: Recipe, data: Tiles, purpose: Literal["train", "validation"]) -> list[Tile]:
    """Return the tiles of a purpose; simulated ones are made, in memory."""
    found = []
    with progress(f"opening tiles ({purpose})", data.counts[purpose]) as advance:
        for tile in data.read(purpose):
            tile.check(recipe.features, recipe.model.steps, recipe.architecture.classes)
            found.append(tile)
            advance(1)
    return found


def calibrate(recipe: Recipe, predictor: Predictor, data: Tiles) -> Calibrator:
    """Fit a calibrator to whole maps of the calibration tiles."""
    glacier, count = predictor.spec.glacier_index, data.counts["calibration"]

    def pairs(advance: Advance) -> Iterator[tuple[Any, Any]]:
        for tile in data.read("calibration"):
            yield glacier_pair(*predict_tile(predictor, tile, overlap=recipe.overlap), glacier)
            advance(1)

    kind = "tiles" if data.real else "simulated maps"
    with progress("calibrating", count) as advance:
        return fit_calibrator(
            pairs(advance),
            bins=1000,
            name=f"{recipe.model.name}-isotonic",
            fitted_on=f"{count} {kind}, {SINGLE_YEARS}",
            map_kind=SINGLE_YEARS,
        )


def split_errors(
    found: Evaluation, block: str, unit_of: Callable[[str], str] = lambda name: name
) -> dict[str, Any] | None:
    """Split block errors into what a whole map has in common and the rest, as `bootstrap_area` takes them.

    A unit is what is mapped at once: one region in one year. Its mean error less the mean of all units is drawn once
    for a year (`year_effect`); block errors less that are drawn for each block, and keep the mean of all: the model's
    bias. With fewer than three units each tile counts as one: how far a whole year can be off has then not been seen,
    and only the spread from tile to tile stands in for it.

    Parameters
    ----------
    found
        The evaluation.
    block
        Side of the blocks, as text.
    unit_of
        Unit of a tile, by its name.

    Returns
    -------
    dict or None
        None where no whole block was judged.
    """
    tiles = {name: errors for name, errors in found.block_errors.items() if errors}
    units = {name: unit_of(name) for name in tiles}
    if len(set(units.values())) < 3:
        units = {name: name for name in tiles}
    groups: dict[str, list[float]] = {}
    for name, errors in tiles.items():
        groups.setdefault(units[name], []).extend(errors)
    if not groups:
        return None
    means = {name: float(np.mean(errors)) for name, errors in groups.items()}
    centre = float(np.mean(list(means.values())))
    rest = [error - means[name] + centre for name, errors in groups.items() for error in errors]
    return {
        # a block can be off by its whole area, and by rounding no further
        "errors": [round(min(1.0, max(-1.0, one)), 6) for one in rest],
        "year_effect": [round(one - centre, 6) for one in means.values()],
        "block": block,
    }


def block_pixels(block: str, resolution: float) -> int:
    """Return the side of a block in pixels.

    Raises
    ------
    InputError
        It is no whole number of pixels.
    """
    side = parse_metres(block) / resolution
    if round(side) < 1 or abs(side - round(side)) > 1e-6:
        raise InputError(f"block {block!r} is {side:g} pixels of {resolution:g} m: give a multiple of the pixel size")
    return round(side)


def _bundle(
    recipe: Recipe,
    data: Tiles,
    calibrator: Calibrator | None = None,
    errors: dict[str, Any] | None = None,
    edges: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> ModelBundle:
    return ModelBundle(
        recipe.model.name,
        recipe.architecture,
        (InputSpec(INPUT, data.features or recipe.features),),
        note=recipe.model.note,
        calibration=None if calibrator is None else calibrator.to_json(),
        block_errors=errors,
        edge_errors=edges,
        training=training or {},
    )


def _provenance(recipe: Recipe, found: Evaluation, trained: FitResult, data: Tiles) -> dict[str, Any]:
    """Return what a bundle says about its training and its figures on ground it has not seen."""
    return {
        "data": data.origin,
        "real": data.real,
        "tiles": dict(data.counts),
        "recipe": asdict(recipe),
        "software": {name: version(name) for name in ("icemap-xr", "tensorflow", "keras", "numpy")},
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(trained.seconds),
        "best_epoch": trained.best.epoch,
        "validation_iou": round(trained.best.val_iou, 4),
        "test": figures(found),
    }


def figures(found: Evaluation) -> dict[str, Any]:
    """Return the figures of an evaluation that a bundle keeps."""
    spread = [error for errors in found.block_errors.values() for error in errors]
    return {
        "overall": found.overall.to_json(),
        "iou": {name: scores.iou for name, scores in found.tiles.items()},
        "ece": found.reliability.ece,
        "ece_calibrated": None if found.calibrated is None else found.calibrated.ece,
        "block_error_mean": float(np.mean(spread)) if spread else None,
        "block_error_std": float(np.std(spread)) if spread else None,
        "blocks": len(spread),
    }
