"""A bundle gives back what was saved, and refuses anything else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from icemap_xr.errors import ModelError, OutputExistsError, UnknownModelError, WeightsError
from icemap_xr.models import icemapper
from icemap_xr.models.bundle import DOCUMENT, WEIGHTS, ModelBundle
from icemap_xr.models.digests import sha256
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.types import FeatureSpec, InputSpec


def edit(bundle: ModelBundle, change: Callable[[dict[str, Any]], object]) -> Path:
    """Apply a change to `model.json` of a saved bundle."""
    path = bundle.folder / DOCUMENT
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return bundle.folder


def reweigh(bundle: ModelBundle, tensors: dict[str, np.ndarray]) -> ModelBundle:
    """Put other weights into a saved bundle, with the right checksum."""
    data = safetensors.numpy.save(tensors)
    (bundle.folder / WEIGHTS).write_bytes(data)
    edit(bundle, lambda document: document["assets"]["weights"].update({"file:checksum": "1220" + sha256(data)}))
    return ModelBundle.load(bundle.folder)


def test_a_saved_bundle_loads_as_it_was(saved: ModelBundle, tensors: Tensors) -> None:
    again = ModelBundle.load(saved.folder)
    assert again == saved
    read = again.read_weights()
    assert read.keys() == tensors.keys()
    assert all(np.array_equal(read[path], values) for path, values in tensors.items())


def test_a_bundle_without_edge_errors_has_no_such_field(tmp_path: Path, bundle: ModelBundle, tensors: Tensors) -> None:
    """As those that were saved before there were any."""
    saved = replace(bundle, edge_errors=None).save(tmp_path / "plain", tensors)
    assert "icemap:edge_errors" not in json.loads((saved.folder / DOCUMENT).read_text())
    assert ModelBundle.load(saved.folder).edge_errors is None


@pytest.mark.parametrize("pooling", icemapper.POOLINGS)
def test_a_network_saved_and_loaded_gives_identical_outputs(
    tmp_path: Path, bundle: ModelBundle, windows: np.ndarray, pooling: icemapper.Pooling
) -> None:
    bundle = replace(bundle, architecture=replace(bundle.architecture, pooling=pooling))
    model = icemapper.build(bundle.architecture, dropout=0.1)
    saved = bundle.save(tmp_path / "model", model)
    again = icemapper.build(saved.architecture)
    icemapper.assign(again, ModelBundle.load(tmp_path / "model").read_weights())
    assert np.array_equal(model(windows, training=False), again(windows, training=False))


def test_the_same_weights_have_the_same_digest(tmp_path: Path, bundle: ModelBundle, tensors: Tensors) -> None:
    one = bundle.save(tmp_path / "one", tensors)
    other = bundle.save(tmp_path / "other", dict(reversed(tensors.items())))
    assert one.digest == other.digest == sha256((tmp_path / "one" / WEIGHTS).read_bytes())


def test_the_document_uses_the_fields_of_the_mlm_extension(saved: ModelBundle) -> None:
    document = json.loads((saved.folder / DOCUMENT).read_text())
    assert document["mlm:name"] == "tiny"
    assert document["mlm:architecture"] == "ICEmapper"
    assert document["mlm:input"][0]["input"]["shape"] == [-1, 3, 16, 16, 2]
    assert document["mlm:input"][0]["value_scaling"][1] == {
        "type": "min-max",
        "minimum": 0.0,
        "maximum": 0.9979742169380188,
    }
    assert document["mlm:output"][0]["classification:classes"][1] == {"value": 1, "name": "glacier"}
    assert document["mlm:total_parameters"] == saved.architecture.parameters


def test_the_spec_says_what_the_bundle_says(saved: ModelBundle) -> None:
    spec = saved.spec
    assert (spec.name, spec.steps, spec.window, spec.digest) == ("tiny", 3, 16, saved.digest)
    assert [feature.name for feature in spec.features] == ["grd", "insar"]
    assert spec.glacier_index == 1


def test_nothing_that_exists_is_overwritten(tmp_path: Path, saved: ModelBundle, tensors: Tensors) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    for name in ("tiny", "dangling", "empty"):
        with pytest.raises(OutputExistsError, match=name):
            saved.save(tmp_path / name, tensors)
    assert ModelBundle.load(saved.folder) == saved


def test_a_failed_save_leaves_nothing(tmp_path: Path, bundle: ModelBundle, tensors: Tensors) -> None:
    tensors["head/bias"] = np.array([np.nan, 0], np.float32)
    with pytest.raises(WeightsError, match="NaN"):
        bundle.save(tmp_path / "model", tensors)

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    tensors["head/bias"] = np.zeros(2, np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="disk full"):
            bundle.save(tmp_path / "model", tensors)
    assert os.listdir(tmp_path) == []


def test_changed_weights_are_refused(saved: ModelBundle) -> None:
    path = saved.folder / WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="sha256"):
        ModelBundle.load(saved.folder).read_weights()


def test_missing_extra_wrong_and_oversized_tensors_are_refused(saved: ModelBundle, tensors: Tensors) -> None:
    bias = tensors.pop("head/bias")
    for reason, bad in {
        "missing": tensors,
        "not part": {**tensors, "head/bias": bias, "evil": bias},
        "shape": {**tensors, "head/bias": np.zeros(3, np.float32)},
        "F32": {**tensors, "head/bias": bias.astype(np.float64)},
        "larger": {**tensors, "head/bias": np.zeros(10**6, np.float32)},
    }.items():
        with pytest.raises(WeightsError, match=reason):
            reweigh(saved, bad).read_weights()


def test_weights_that_are_no_safetensors_are_refused(saved: ModelBundle) -> None:
    data = b"\x80\x04not a safetensors file"
    (saved.folder / WEIGHTS).write_bytes(data)
    edit(saved, lambda document: document["assets"]["weights"].update({"file:checksum": "1220" + sha256(data)}))
    with pytest.raises(WeightsError, match="not a safetensors file"):
        ModelBundle.load(saved.folder).read_weights()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda d: d.update(extra=1), "'extra' is not known"),
        (lambda d: d["mlm:hyperparameters"].update(evil=1), "evil"),
        (lambda d: d["mlm:hyperparameters"].update(filters="4"), "filters"),
        (lambda d: d["mlm:input"][0].update(extra=1), "extra' is not known"),
        (lambda d: d["mlm:input"][0]["icemap:features"][0].update(extra=1), "extra"),
        (lambda d: d["mlm:input"][0]["icemap:features"][0].update(minimum="low"), "low"),
        (lambda d: d["mlm:input"][0]["icemap:features"][0].update(minimum=99), "99"),
        (lambda d: d["mlm:input"].clear(), "features"),
        (lambda d: d["assets"]["weights"].update(href="../../etc/passwd"), "passwd"),
        (lambda d: d["assets"]["weights"].update(href="/etc/passwd"), "passwd"),
        (lambda d: d["assets"].update(code={"href": "model.py"}), "code' is not known"),
        (lambda d: d["assets"]["weights"].update({"file:checksum": 5}), "not text"),
        (lambda d: d.update({"mlm:name": None}), "not text"),
        (lambda d: d.pop("mlm:input"), "mlm:input"),
        (lambda d: d.pop("mlm:framework"), "'mlm:framework' is missing"),
        (lambda d: d.update({"mlm:architecture": "GlaViTU"}), "GlaViTU"),
        (lambda d: d.update({"icemap:glacier_class": "cow"}), "cow"),
        (lambda d: d.update({"icemap:bundle_version": 2}), "version 2"),
        (lambda d: d.update({"icemap:calibration": float("nan")}), "JSON"),
        (lambda d: d["mlm:output"].append({}), "mlm:output"),
    ],
)
def test_a_changed_description_is_refused(
    saved: ModelBundle, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    folder = edit(saved, change)
    with pytest.raises(WeightsError, match=reason) as caught:
        ModelBundle.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000, '"' + "x" * 2**24 + '"'])
def test_a_description_that_is_no_object_is_refused(saved: ModelBundle, text: str) -> None:
    (saved.folder / DOCUMENT).write_text(text)
    with pytest.raises(WeightsError):
        ModelBundle.load(saved.folder)


def test_a_folder_without_description_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="no model bundle"):
        ModelBundle.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"classes": ("a", "b", "c")}, "2 different names"),
        ({"classes": ("a", "a")}, "2 different names"),
        ({"glacier_class": "ice"}, "'ice'"),
        ({"inputs": ()}, "one input of 2"),
        ({"inputs": (InputSpec("sar", (FeatureSpec("grd", 0, 1, "dB"),)),)}, "one input of 2"),
        ({"training": {"when": object()}}, "plain JSON"),
        ({"block_errors": {"errors": [float("inf")]}}, "plain JSON"),
        ({"architecture": Architecture(features=2, window=None)}, "window"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    bundle: ModelBundle, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        replace(bundle, **options)


def test_a_bundle_that_was_not_saved_has_no_weights(bundle: ModelBundle) -> None:
    with pytest.raises(ModelError, match="save it first"):
        bundle.read_weights()
