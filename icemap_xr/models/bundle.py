"""Model bundles: a folder with `model.json` (what the model is) and `weights.safetensors` (its weights).

`model.json` uses the field names of the STAC extensions MLM, classification and file where they have one, and
`icemap:*` where they do not. A bundle holds no code and no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from icemap_xr.errors import ModelError, OutputExistsError, UnknownModelError, WeightsError
from icemap_xr.models import icemapper
from icemap_xr.models.digests import sha256
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.types import FeatureSpec, InputSpec, ModelSpec, StrPath

if TYPE_CHECKING:
    import keras

DOCUMENT, WEIGHTS = "model.json", "weights.safetensors"
VERSION = 1
#: largest `model.json`, and what a safetensors header may add to the weights themselves, in bytes
MAX_DOCUMENT, MAX_HEADER = 2**24, 2**20

_MULTIHASH_SHA256 = "1220"
_TASK = "semantic-segmentation"


@dataclass(frozen=True)
class ModelBundle:
    """A model with all that is known about it, to be saved as a folder or read from one.

    Parameters
    ----------
    name
        Name of the model, for attributes and lineage.
    architecture
        The network; its window and steps are those the model is for.
    inputs
        The named input, with its features in the order of the last axis.
    classes
        Class names in the order of the last output axis.
    glacier_class
        Which of `classes` is the glacier.
    note
        One line on where the weights come from and what they are good for.
    calibration
        A calibrator as JSON (its knots), or None.
    block_errors
        Block errors on held-out tiles, prediction minus reference as a share of the block, in the form that
        `bootstrap_area(kind="mapping")` takes: `errors`, `year_effect`, `block`, and from regions of several years also
        `region_effect`, `range_m`, `year_correlation` (see `icemap_xr.errormodel.held_out_errors`); or None.
    edge_errors
        Errors of the ice edge on held-out regions, in the form that `outlines(edge_errors=...)` takes (see
        `icemap_xr.edgeerrors.held_out_edge_errors`); or None.
    training
        Where the weights come from: data, options, versions; as JSON.
    digest
        sha256 of the weights file, hex; empty until saved.
    folder
        Where the bundle lies; None until saved.

    Raises
    ------
    ModelError
        The parts do not belong together, or hold something JSON cannot.
    """

    name: str
    architecture: Architecture
    inputs: tuple[InputSpec, ...]
    classes: tuple[str, ...] = icemapper.PUBLISHED_CLASSES
    glacier_class: str = icemapper.GLACIER_CLASS
    note: str = ""
    calibration: dict[str, Any] | None = None
    block_errors: dict[str, Any] | None = None
    edge_errors: dict[str, Any] | None = None
    training: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    folder: Path | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        self._check_parts()
        try:
            for name in ("calibration", "block_errors", "edge_errors", "training"):
                plain = json.loads(json.dumps(getattr(self, name), allow_nan=False))
                object.__setattr__(self, name, plain)
        except (TypeError, ValueError) as error:
            raise ModelError(f"calibration, errors and training must be plain JSON: {error}") from None

    def _check_parts(self) -> None:
        have = [len(one.features) for one in self.inputs]
        if have != [self.architecture.features]:
            raise ModelError(
                f"inputs have {have} features, the network takes one input of {self.architecture.features}: "
                "list the features of its one input"
            )
        if len(set(self.classes)) != self.architecture.classes or len(self.classes) != self.architecture.classes:
            raise ModelError(f"classes are {self.classes}: give {self.architecture.classes} different names")
        if self.glacier_class not in self.classes:
            raise ModelError(f"glacier class is {self.glacier_class!r}: allowed are {', '.join(self.classes)}")
        if self.architecture.window is None:
            raise ModelError("a bundle needs a window in px: set the architecture's window")

    @property
    def spec(self) -> ModelSpec:
        """What the model declares about itself."""
        window = self.architecture.window
        assert window is not None  # _check_parts
        return ModelSpec(
            self.name,
            self.inputs,
            self.architecture.steps,
            window,
            self.classes,
            self.glacier_class,
            self.digest,
            self.note,
        )

    def save(self, folder: StrPath, weights: keras.Model | Mapping[str, NDArray[Any]]) -> ModelBundle:
        """Write the bundle; the folder appears whole or not at all.

        Parameters
        ----------
        folder
            Where to; must not exist.
        weights
            The network, or its arrays by weight path.

        Returns
        -------
        ModelBundle
            This bundle with `digest` and `folder`.

        Raises
        ------
        OutputExistsError
            Something is there already.
        WeightsError
            The weights are not those of the architecture, or not finite.
        """
        target = Path(folder)
        if os.path.lexists(target):
            raise OutputExistsError(f"{os.fspath(folder)!r} exists already: give another folder or remove it")
        arrays = weights if isinstance(weights, Mapping) else icemapper.extract(weights)
        tensors = {path: np.ascontiguousarray(values, np.float32) for path, values in arrays.items()}
        icemapper.check_tensors(tensors, self.architecture, "the model to save")
        data = safetensors.numpy.save(tensors)
        saved = replace(self, digest=sha256(data), folder=target)
        document = json.dumps(saved._document(), indent=2, allow_nan=False) + "\n"
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
        try:
            temporary.mkdir()
            (temporary / WEIGHTS).write_bytes(data)
            (temporary / DOCUMENT).write_text(document, encoding="utf-8")
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return saved

    @classmethod
    def load(cls, folder: StrPath) -> ModelBundle:
        """Read and check `model.json` of a bundle; the weights stay on disk.

        Parameters
        ----------
        folder
            A bundle's folder.

        Returns
        -------
        ModelBundle

        Raises
        ------
        UnknownModelError
            The folder is no bundle.
        WeightsError
            `model.json` is damaged, lacks a field, or has one that is not known.
        """
        path = Path(folder) / DOCUMENT
        document = _read_document(path)
        try:
            bundle = cls._parse(document, Path(folder))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ModelError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise WeightsError(f"{path} is not a model description ({reason}): {_AGAIN}") from None
        _check_same(document, bundle._document(), path)
        return bundle

    def read_weights(self) -> Tensors:
        """Read and check the weights of a saved bundle.

        Returns
        -------
        dict
            float32 arrays by weight path.

        Raises
        ------
        WeightsError
            The file is missing, is not the one that was saved, or does not fit the architecture.
        """
        if self.folder is None:
            raise ModelError(f"the bundle {self.name!r} has not been saved: save it first")
        path = self.folder / WEIGHTS
        data = _read_limited(path, 4 * self.architecture.parameters + MAX_HEADER)
        found = sha256(data)
        if found != self.digest:
            raise WeightsError(f"{path} has sha256 {found}, {DOCUMENT} says {self.digest}: {_AGAIN}")
        try:
            entries = dict(safetensors.deserialize(data))  # type: ignore[no-untyped-call]
        except safetensors.SafetensorError as error:
            raise WeightsError(f"{path} is not a safetensors file ({error}): {_AGAIN}") from None
        tensors = {}
        for name, entry in entries.items():
            if entry["dtype"] != "F32":
                raise WeightsError(f"{path}: weight {name!r} has type {entry['dtype']}, needed is F32: {_AGAIN}")
            tensors[name] = np.frombuffer(entry["data"], "<f4").reshape(entry["shape"])
        icemapper.check_tensors(tensors, self.architecture, str(path))
        return tensors

    def _document(self) -> dict[str, Any]:
        """Return `model.json`; everything but the essential fields follows from them."""
        return {
            "icemap:bundle_version": VERSION,
            "mlm:name": self.name,
            "mlm:architecture": icemapper.FAMILY,
            "mlm:tasks": [_TASK],
            "mlm:framework": "Keras",
            "mlm:total_parameters": self.architecture.parameters,
            "mlm:hyperparameters": asdict(self.architecture),
            "mlm:input": [_input_document(one, self.architecture) for one in self.inputs],
            "mlm:output": [self._output_document()],
            "icemap:glacier_class": self.glacier_class,
            "icemap:note": self.note,
            "icemap:calibration": self.calibration,
            "icemap:block_errors": self.block_errors,
            # bundles from before there were any have no such field
            **({} if self.edge_errors is None else {"icemap:edge_errors": self.edge_errors}),
            "icemap:training": self.training,
            "assets": {
                "weights": {
                    "href": WEIGHTS,
                    "type": "application/octet-stream; application=safetensors",
                    "roles": ["mlm:model", "mlm:weights"],
                    "file:checksum": _MULTIHASH_SHA256 + self.digest,
                }
            },
        }

    def _output_document(self) -> dict[str, Any]:
        window = self.architecture.window
        return {
            "name": "probability",
            "tasks": [_TASK],
            "result": {
                "shape": [-1, window, window, self.architecture.classes],
                "dim_order": ["batch", "height", "width", "class"],
                "data_type": "float32",
            },
            "classification:classes": [{"value": value, "name": name} for value, name in enumerate(self.classes)],
        }

    @classmethod
    def _parse(cls, document: dict[str, Any], folder: Path) -> ModelBundle:
        checksum = document["assets"]["weights"]["file:checksum"]
        return cls(
            name=_text(document["mlm:name"]),
            architecture=Architecture(**document["mlm:hyperparameters"]),
            inputs=tuple(_parse_input(one) for one in document["mlm:input"]),
            classes=tuple(_text(one["name"]) for one in document["mlm:output"][0]["classification:classes"]),
            glacier_class=_text(document["icemap:glacier_class"]),
            note=_text(document["icemap:note"]),
            calibration=document["icemap:calibration"],
            block_errors=document["icemap:block_errors"],
            edge_errors=document.get("icemap:edge_errors"),
            training=document["icemap:training"],
            digest=_text(checksum).removeprefix(_MULTIHASH_SHA256),
            folder=folder,
        )


_AGAIN = "take the bundle from its source again"


def _input_document(one: InputSpec, architecture: Architecture) -> dict[str, Any]:
    return {
        "name": one.name,
        "bands": list(one.feature_names),
        "input": {
            "shape": [-1, architecture.steps, architecture.window, architecture.window, architecture.features],
            "dim_order": ["batch", "time", "height", "width", "channel"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "min-max", "minimum": f.minimum, "maximum": f.maximum} for f in one.features],
        "icemap:features": [asdict(feature) for feature in one.features],
    }


def _parse_input(document: dict[str, Any]) -> InputSpec:
    features = tuple(FeatureSpec(**one) for one in document["icemap:features"])
    for feature in features:
        low, high = feature.minimum, feature.maximum
        if not (isinstance(low, int | float) and isinstance(high, int | float) and -np.inf < low < high < np.inf):
            raise ValueError(f"feature {feature.name!r} is scaled from {low!r} to {high!r}")
        for text in (feature.name, feature.units, feature.polarisation or "", feature.radiometry or ""):
            _text(text)
    return InputSpec(_text(document["name"]), features)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _read_document(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UnknownModelError(f"{os.fspath(path.parent)!r} is no model bundle: it has no {DOCUMENT}")
    try:
        document = json.loads(_read_limited(path, MAX_DOCUMENT))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON ({error}): {_AGAIN}") from None
    if not isinstance(document, dict):
        raise WeightsError(f"{path} holds a {type(document).__name__}, needed is an object: {_AGAIN}")
    if document.get("icemap:bundle_version") != VERSION:
        version = document.get("icemap:bundle_version")
        raise WeightsError(f"{path} has version {version!r}, known is {VERSION}: update icemap-xr or the bundle")
    return document


def _read_limited(path: Path, limit: int) -> bytes:
    """Return the file's bytes, at most `limit`; a larger file is refused after one byte too many."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise WeightsError(f"cannot read {os.fspath(path)!r} ({error.strerror}): {_AGAIN}") from None
    if len(data) > limit:
        raise WeightsError(f"{path} is larger than the {limit} bytes it may have: {_AGAIN}")
    return data


def _check_same(found: Any, expected: Any, path: Path, where: str = "") -> None:
    """Raise `WeightsError` at the first place where a description differs from what its essential fields say."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in [*found, *expected]:
            if key not in found or key not in expected:
                state = "missing" if key in expected else "not known"
                raise WeightsError(f"{path}: field {f'{where}{key}'!r} is {state}: {_AGAIN}")
            _check_same(found[key], expected[key], path, f"{where}{key}.")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            _check_same(one, other, path, f"{where}{number}.")
    elif found != expected or type(found) is not type(expected):
        raise WeightsError(f"{path}: field {where.rstrip('.')!r} is {found!r}, needed is {expected!r}: {_AGAIN}")
