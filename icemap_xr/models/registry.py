"""Load models by name or path.

The registry (`models.yaml` of the catalogs) lists the published weights, which are downloaded once and checked, and
the bundles that come with icemap-xr. Importing this module imports no TensorFlow.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from icemap_xr import schema
from icemap_xr.errors import ModelError, ModelMismatchError, UnknownModelError, did_you_mean
from icemap_xr.models import icemapper
from icemap_xr.models.bundle import DOCUMENT, ModelBundle
from icemap_xr.models.download import cached, fetch
from icemap_xr.models.icemapper import Precision
from icemap_xr.models.legacy_h5 import LegacyWeights, read_legacy_h5
from icemap_xr.models.predictor import KerasPredictor, Recipe, absolute, from_recipe
from icemap_xr.resources import catalog_path
from icemap_xr.types import FeatureSpec, InputSpec, ModelSpec, StrPath

log = logging.getLogger(__name__)

#: name of the one input of an ICEmapper network
INPUT = "sar"
VERIFIED = "published ICEmapper weights, verified"

_SUFFIXES = (".h5", ".hdf5")
#: how published file names say which features a model takes
_TOKENS: dict[str, tuple[str, ...]] = {
    "grd": ("grd",),
    "insar": ("insar",),
    "rtc": ("rtc",),
    "grdinsar": ("grd", "insar"),
    "rtcinsar": ("rtc", "insar"),
}

Features = Sequence[str | FeatureSpec]


@dataclass(frozen=True)
class Entry:
    """One model of the registry: either published weights (`file`) or a bundle that comes along (`bundle`)."""

    name: str
    features: tuple[str, ...]
    note: str
    pooling: str = ""
    file: str = ""
    blob: str = ""
    bundle: str = ""

    @property
    def folder(self) -> Path:
        """Folder of a bundle that comes with icemap-xr."""
        return catalog_path(*Path(self.bundle).parts)


@dataclass(frozen=True)
class ModelRow:
    """What `list_models` says about one model.

    Parameters
    ----------
    name
        Name for `load_model`.
    features
        Features it takes, in order.
    cached
        Whether it can be loaded without a download.
    kind
        ``"published"`` weights or a ``"bundle"`` that comes with icemap-xr.
    note
        One line about it.
    """

    name: str
    features: tuple[str, ...]
    cached: bool
    kind: Literal["published", "bundle"]
    note: str


def load_model(
    name_or_path: StrPath,
    *,
    weights: StrPath | None = None,
    features: Features | None = None,
    window: int | None = None,
    steps: int | None = None,
    precision: Precision = "float32",
) -> KerasPredictor:
    """Load a model by its registered name, from a bundle folder, or from a published-layout ``.h5``.

    Parameters
    ----------
    name_or_path
        A name from `list_models`, the folder of a bundle, or an ``.h5`` file.
    weights
        With a registered name of published weights: a file to take instead of downloading it.
    features
        Features in the order of the network's last axis, as names or with their scaling. For an ``.h5`` they are
        otherwise read from its name (``..._grdinsar.h5``); for other models they must be the declared ones.
    window
        Window side in pixels, a multiple of 8, if not the one the model was trained with.
    steps
        Scenes per year, if not the number the model was trained with.
    precision
        ``"float32"``, or ``"bfloat16"``: faster, with probabilities off by hundredths at worst pixels.

    Returns
    -------
    KerasPredictor
        Checked; the network itself is built at the first call.

    Raises
    ------
    UnknownModelError
        No such name or path, or the weights cannot be downloaded.
    WeightsError
        The file is damaged, unsafe, or holds another network.
    ModelError
        The options do not fit the model.
    """
    if precision not in icemapper.PRECISIONS:
        raise ModelError(f"precision is {precision!r}: allowed are {', '.join(icemapper.PRECISIONS)}")
    entry = _entry(name_or_path)
    if entry is None:
        if weights is not None:
            raise ModelError(f"weights= goes with a registered name, not {os.fspath(name_or_path)!r}: leave it out")
        path = _existing(name_or_path)
        recipe = _bundle(path, features) if path.is_dir() else _from_file(path, features)
    elif entry.bundle:
        if weights is not None:
            raise ModelError(f"{entry.name!r} brings its own weights: leave weights= out")
        recipe = replace(_bundle(locate(entry.name), features), registered=entry.name)
    else:
        recipe = _published(entry, weights, features)
    return from_recipe(_with_options(recipe, window, steps, precision))


def list_models() -> list[ModelRow]:
    """Return the models of the registry, those that come with icemap-xr first; nothing is downloaded."""
    rows = []
    for entry in _entries().values():
        here = (entry.folder / DOCUMENT).is_file() if entry.bundle else cached(entry.file, entry.blob) is not None
        rows.append(ModelRow(entry.name, entry.features, here, "bundle" if entry.bundle else "published", entry.note))
    return sorted(rows, key=lambda row: (row.kind, row.name))


def models_for(features: Iterable[str]) -> list[ModelRow]:
    """Return the models that need no other features than these, in the order of `list_models`.

    Parameters
    ----------
    features
        Features that were found, for example by a search for scenes: ``grd``, ``rtc``, ``insar``.

    Raises
    ------
    SchemaError
        There is no such feature.
    """
    found = {schema.feature(name).name for name in features}
    return [row for row in list_models() if found.issuperset(row.features)]


def declared(name: str) -> ModelSpec:
    """Return what a registered model declares, without a download; the digest of published weights stays empty.

    Raises
    ------
    UnknownModelError
        The model is not registered, or its bundle is not here.
    WeightsError
        Its bundle is damaged.
    """
    entry = _entry(name)
    if entry is None:
        raise _unknown(name)
    if entry.bundle:
        return ModelBundle.load(locate(entry.name)).spec
    inputs = (InputSpec(INPUT, _feature_specs(entry.features)),)
    return _published_spec(entry.name, inputs, icemapper.PUBLISHED_STEPS, "", entry.note)


def locate(name: str) -> Path:
    """Return the local path of a registered model; published weights are downloaded if they are not here.

    Raises
    ------
    UnknownModelError
        The model is not registered, or not here and cannot be downloaded.
    """
    entry = _entry(name)
    if entry is None:
        raise _unknown(name)
    if not entry.bundle:
        return fetch(entry.file, entry.blob, _registry()["published"]["url"])
    if not (entry.folder / DOCUMENT).is_file():
        raise UnknownModelError(f"{entry.name!r} is not at {entry.folder}: the installation lacks it; install it again")
    return entry.folder


def published_address(spec: ModelSpec) -> str | None:
    """Return where the file of verified published weights can be had; None for all other models."""
    entry = _entries().get(spec.name)
    if entry is None or not entry.blob or spec.note != VERIFIED:
        return None
    return f"{_registry()['published']['url']}/{entry.file}"


def _registry() -> dict[str, Any]:
    return _read_registry(catalog_path("models.yaml"))


@cache
def _read_registry(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return document


def _entries() -> dict[str, Entry]:
    return {
        name: Entry(name, **{**values, "features": tuple(values["features"])})
        for name, values in _registry()["models"].items()
    }


def _entry(name: StrPath) -> Entry | None:
    text = os.fspath(name)
    return _entries().get(_registry()["aliases"].get(text, text))


def _existing(path: StrPath) -> Path:
    text = os.fspath(path)
    found = Path(text).expanduser()
    if found.is_dir() or (found.is_file() and found.suffix.lower() in _SUFFIXES):
        return found
    if found.is_file():
        raise UnknownModelError(f"{text!r} is neither a bundle folder nor an .h5 file: give one of these")
    if found.suffix.lower() in _SUFFIXES or len(found.parts) > 1:
        raise UnknownModelError(f"no model at {text!r}: check the path")
    raise _unknown(text)


def _unknown(name: str) -> UnknownModelError:
    known = [*_entries(), *_registry()["aliases"]]
    return UnknownModelError(
        f"no model named {name!r}{did_you_mean(name, known)}: known are {', '.join(_entries())}; or give a path"
    )


def _bundle(path: Path, features: Features | None) -> Recipe:
    bundle = ModelBundle.load(path)
    declared = bundle.inputs[0].features
    if features is not None and _feature_specs(features) != declared:
        _check_declared(bundle.name, features, tuple(feature.name for feature in declared))
    return Recipe("bundle", absolute(path), bundle.spec, bundle.architecture)


def _published(entry: Entry, weights: StrPath | None, features: Features | None) -> Recipe:
    """Return the recipe of registered weights: of the downloaded ones, or of a file the user has."""
    if features is not None:
        _check_declared(entry.name, features, entry.features)
    path = locate(entry.name) if weights is None else Path(weights).expanduser()
    found = read_legacy_h5(path)
    if found.architecture.pooling != entry.pooling:
        raise ModelError(
            f"{entry.name!r} is a {entry.pooling} network, {path.name!r} holds a {found.architecture.pooling} one: "
            "give the right file, or load the file by its path"
        )
    other = _entry_of(found)
    if other is not None and other.blob != entry.blob:
        raise ModelError(
            f"{path.name!r} is the published file of {other.name!r}, not of {entry.name!r}, and takes "
            f"{', '.join(other.features)}: load {other.name!r}, or give the right file"
        )
    if other is not None:
        note = VERIFIED
    else:
        log.warning("%s is not the published file of %s: it is used as it is", path, entry.name)
        note = f"weights read from {path.name}, which is not the published file of {entry.name}"
    recipe = _h5_recipe(path, entry.name, features or entry.features, found, note)
    return replace(recipe, registered=entry.name) if note == VERIFIED else recipe


def _from_file(path: Path, features: Features | None) -> Recipe:
    """Return the recipe of an .h5: known by its bytes if it is a published one, else with features by its name."""
    found = read_legacy_h5(path)
    published = _entry_of(found)
    if published is not None:
        if features is not None:
            _check_declared(published.name, features, published.features)
        return _h5_recipe(path, published.name, features or published.features, found, VERIFIED)
    note = f"weights read from {path.name} (published layout; not verified as a published file)"
    names = features or _features_by_name(path, found.architecture.features)
    return _h5_recipe(path, path.stem, names, found, note)


def _entry_of(found: LegacyWeights) -> Entry | None:
    """Return the published entry whose file this is, by its bytes."""
    return next((entry for entry in _entries().values() if entry.blob and entry.blob == found.blob), None)


def _features_by_name(path: Path, count: int) -> Features:
    tokens = [token for token in re.split(r"[\W_]+", path.stem.lower()) if token in _TOKENS]
    if len(tokens) == 1:
        return _TOKENS[tokens[0]]
    if count == 2:
        log.warning("%s does not say its features: taken as grd, insar; give features= if that is wrong", path.name)
        return _TOKENS["grdinsar"]
    raise ModelError(
        f"{path.name!r} does not say its {count} feature(s): give features=, allowed are {', '.join(schema.FEATURES)}"
    )


def _h5_recipe(path: Path, name: str, features: Features, found: LegacyWeights, note: str) -> Recipe:
    specs = _feature_specs(features)
    architecture = found.architecture
    if len(specs) != architecture.features:
        listed = ", ".join(one.name for one in specs)
        raise ModelError(f"{path.name!r} takes {architecture.features} feature(s), given are {listed}: set features=")
    if architecture.classes != len(icemapper.PUBLISHED_CLASSES):
        raise ModelError(
            f"{path.name!r} has {architecture.classes} classes without names: save it as a bundle, which names them"
        )
    spec = _published_spec(name, (InputSpec(INPUT, specs),), architecture.steps, found.digest, note)
    return Recipe("h5", absolute(path), spec, architecture)


def _published_spec(name: str, inputs: tuple[InputSpec, ...], steps: int, digest: str, note: str) -> ModelSpec:
    window, classes = icemapper.PUBLISHED_WINDOW, icemapper.PUBLISHED_CLASSES
    return ModelSpec(name, inputs, steps, window, classes, icemapper.GLACIER_CLASS, digest, note)


def _feature_specs(features: Features) -> tuple[FeatureSpec, ...]:
    if isinstance(features, str):
        raise ModelError(f"features is {features!r}: give a list of names, for example ['grd', 'insar']")
    return tuple(one if isinstance(one, FeatureSpec) else feature_spec(one) for one in features)


def feature_spec(name: str) -> FeatureSpec:
    """Return how the published networks scale a feature.

    Raises
    ------
    SchemaError
        There is no such feature.
    """
    one = schema.feature(name)
    return FeatureSpec(one.name, one.minimum, one.maximum, one.units)


def _check_declared(name: str, features: Features, declared: tuple[str, ...]) -> None:
    given = tuple(one.name for one in _feature_specs(features))
    if given != declared:
        raise ModelMismatchError(
            f"{name!r} takes the features {', '.join(declared)}, given are {', '.join(given)}: leave features= out"
        )


def _with_options(recipe: Recipe, window: int | None, steps: int | None, precision: Precision) -> Recipe:
    architecture = recipe.architecture
    if window is not None:
        architecture = replace(architecture, window=window)
    if steps is not None:
        architecture = replace(architecture, steps=steps)
    side = architecture.window
    assert side is not None  # bundles and published files always have one
    spec = replace(recipe.spec, steps=architecture.steps, window=side)
    return replace(recipe, spec=spec, architecture=architecture, precision=precision)
