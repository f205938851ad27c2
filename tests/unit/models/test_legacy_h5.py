"""A published-layout file is read by order; anything odd in it is refused before it does harm."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from icemap_xr.errors import UnknownModelError, WeightsError
from icemap_xr.models import icemapper, legacy_h5
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.models.legacy_h5 import load_legacy_h5, read_architecture, read_legacy_h5


def name_of(file: h5py.File, number: int, layer: str = icemapper.ENCODER) -> str:
    """Full name of a weight by its place in the list."""
    return f"{layer}/{_decoded(file[layer].attrs['weight_names'])[number]}"


def _decoded(names: object) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def changed(path: Path, change: Callable[[h5py.File, str], None]) -> Path:
    """Apply a change to the first weight of the encoder, which is taken out of the file before."""
    with h5py.File(path, "r+") as file:
        name = name_of(file, 0)
        values = file[name][()]
        del file[name]
        change(file, name)
        file.attrs["note"] = str(values.shape)
    return path


def external_link(file: h5py.File, name: str) -> None:
    file[name] = h5py.ExternalLink("/etc/hostname", "/x")


def soft_link(file: h5py.File, name: str) -> None:
    file[name] = h5py.SoftLink(name_of(file, 4).replace(icemapper.ENCODER, f"/{icemapper.ENCODER}", 1))


def virtual_dataset(file: h5py.File, name: str) -> None:
    virtual = h5py.VirtualLayout((3, 3, 3, 2, 4), "f4")
    virtual[:] = h5py.VirtualSource("other.h5", "x", (3, 3, 3, 2, 4))
    file.create_virtual_dataset(name, virtual)


def external_storage(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (3, 3, 3, 2, 4), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def huge_shape(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (3, 3, 3, 2, 10**10), "f4")


def huge_chunk(file: h5py.File, name: str) -> None:
    file.create_dataset(
        name, (3, 3, 3, 2, 4), "f4", compression="gzip", chunks=(3, 3, 3, 2, 10**4), maxshape=(None,) * 5
    )


def right_shape_without_data(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (3, 3, 3, 2, 4), "f4")


def objects(file: h5py.File, name: str) -> None:
    file.create_dataset(name, data=np.full((3, 3, 3, 2, 4), "x", object), dtype=h5py.string_dtype())


def variable_length(file: h5py.File, name: str) -> None:
    file.create_dataset(name, (3, 3, 3, 2, 4), h5py.vlen_dtype(np.float32))


def integers(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 4), np.int32)


def compound(file: h5py.File, name: str) -> None:
    file[name] = np.zeros((3, 3, 3, 2, 4), [("a", "f4"), ("b", "f4")])


def not_a_number(file: h5py.File, name: str) -> None:
    file[name] = np.full((3, 3, 3, 2, 4), np.nan, np.float32)


def too_large_for_float32(file: h5py.File, name: str) -> None:
    file[name] = np.full((3, 3, 3, 2, 4), 1e300)


def other_shape(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 2, 2, 4), np.float32)


def other_rank(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 4), np.float32)


def no_filters(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 0), np.float32)


def nothing(file: h5py.File, name: str) -> None:
    """Leave the weight out."""


def extra_layer(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 4), np.float32)
    layers = [*_decoded(file.attrs["layer_names"]), "dense"]
    file.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
    file["dense/kernel:0"] = np.ones((2, 2), np.float32)
    file["dense"].attrs["weight_names"] = np.array([b"kernel:0"])


def unlisted_dataset(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 4), np.float32)
    file["hidden/kernel:0"] = np.ones((2, 2), np.float32)


def layer_listed_twice(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 4), np.float32)
    file.attrs["layer_names"] = np.array([icemapper.ENCODER.encode()] * 2 + [icemapper.DECODER.encode()])


def unknown_layer(file: h5py.File, name: str) -> None:
    file[name] = np.ones((3, 3, 3, 2, 4), np.float32)
    file.attrs["layer_names"] = np.array([b"elsewhere", icemapper.DECODER.encode()])


def no_layer_names(file: h5py.File, name: str) -> None:
    del file.attrs["layer_names"]


def layer_names_that_are_numbers(file: h5py.File, name: str) -> None:
    file.attrs["layer_names"] = np.arange(3)


def too_many_names(file: h5py.File, name: str) -> None:
    file.attrs["layer_names"] = np.array([b"x"] * 5000)


def too_many_groups(file: h5py.File, name: str) -> None:
    for number in range(legacy_h5.MAX_OBJECTS + 1):
        file.create_group(f"more/{number}")


def too_deep(file: h5py.File, name: str) -> None:
    file.create_group("/".join("d" * (legacy_h5.MAX_DEPTH + 2)))


def circle(file: h5py.File, name: str) -> None:
    file["circle"] = file["/"]


def named_type(file: h5py.File, name: str) -> None:
    file[name] = np.dtype("f4")


CORPUS = [
    (external_link, "ExternalLink"),
    (soft_link, "SoftLink"),
    (virtual_dataset, "virtual"),
    (external_storage, "another file"),
    (huge_shape, "does not hold that many"),
    (huge_chunk, "chunked"),
    (right_shape_without_data, "does not hold that many"),
    (objects, "floating-point"),
    (variable_length, "floating-point"),
    (integers, "floating-point"),
    (compound, "floating-point"),
    (not_a_number, "NaN"),
    (too_large_for_float32, "infinity"),
    (other_shape, "needs"),
    (other_rank, "shapes"),
    (no_filters, "filters"),
    (nothing, "does not hold it"),
    (extra_layer, "none of the ICEmapper networks"),
    (unlisted_dataset, "without listing it"),
    (layer_listed_twice, "twice"),
    (unknown_layer, "does not hold it"),
    (no_layer_names, "missing"),
    (layer_names_that_are_numbers, "needed are names"),
    (too_many_names, "lists up to"),
    (too_many_groups, "more than"),
    (too_deep, "more than"),
    (circle, "more than"),
    (named_type, "neither a group nor a dataset"),
]


@pytest.mark.parametrize(("change", "reason"), CORPUS, ids=[change.__name__ for change, _ in CORPUS])
def test_a_hostile_or_damaged_file_is_refused_in_one_line(
    h5_file: Path, change: Callable[[h5py.File, str], None], reason: str
) -> None:
    changed(h5_file, change)
    with pytest.raises(WeightsError, match=reason) as caught:
        read_legacy_h5(h5_file)
    assert "\n" not in str(caught.value)
    assert str(h5_file) in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_refused(h5_file: Path, share: float) -> None:
    whole = h5_file.read_bytes()
    h5_file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(WeightsError, match="damaged or not HDF5"):
        read_legacy_h5(h5_file)


def test_flipped_bytes_are_an_error_of_ours_or_harmless(h5_file: Path) -> None:
    whole = bytearray(h5_file.read_bytes())
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 20_000), 20):
            damaged[place] ^= 0xFF
        h5_file.write_bytes(damaged)
        # anything but a WeightsError fails the test
        with contextlib.suppress(WeightsError):
            read_legacy_h5(h5_file)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "text.h5"
    path.write_text("no weights here")
    with pytest.raises(WeightsError, match="damaged or not HDF5"):
        read_legacy_h5(path)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match=r"no weight file .*absent\.h5"):
        read_legacy_h5(tmp_path / "absent.h5")
    with pytest.raises(WeightsError, match="cannot read"):
        read_legacy_h5(tmp_path)


def test_a_file_too_large_is_refused_by_its_size(h5_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legacy_h5, "MAX_BYTES", 100)
    with pytest.raises(WeightsError, match="bytes, allowed are 100"):
        read_legacy_h5(h5_file)


def test_weights_go_by_order_and_not_by_name(h5_file: Path, tensors: Tensors) -> None:
    with h5py.File(h5_file) as file:
        names = _decoded(file[icemapper.ENCODER].attrs["weight_names"])
    assert names != sorted(names)
    read = read_legacy_h5(h5_file, window=16).tensors
    assert read.keys() == tensors.keys()
    for path, values in tensors.items():
        assert np.array_equal(read[path], values), path


@pytest.mark.parametrize("pooling", icemapper.POOLINGS)
def test_the_architecture_is_read_from_the_shapes(make_h5: Callable[..., Path], pooling: icemapper.Pooling) -> None:
    architecture = Architecture(pooling, steps=15, features=3, classes=4, filters=6, window=384)
    path = make_h5("any.h5", architecture)
    assert read_architecture(path) == architecture
    assert read_architecture(path, steps=7, window=64) == Architecture(pooling, 7, 3, 4, 6, 64)


@pytest.mark.parametrize(("name", "expected"), [("tweightedpool_grdinsar", 2), ("maxpool_grd", 1)])
def test_the_architecture_of_files_from_keras_2_is_read(golden: Path, name: str, expected: int) -> None:
    found = read_architecture(golden / f"{name}_filters8.h5")
    assert found == Architecture(name.split("_")[0], features=expected, filters=8)


def test_digests_are_those_of_the_file(h5_file: Path) -> None:
    import hashlib

    data = h5_file.read_bytes()
    found = read_legacy_h5(h5_file)
    assert found.digest == hashlib.sha256(data).hexdigest()
    assert found.blob == hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


def test_the_network_gets_the_weights(h5_file: Path, architecture: Architecture, tensors: Tensors) -> None:
    model = load_legacy_h5(h5_file, steps=architecture.steps, window=architecture.window)
    found = icemapper.extract(model)
    assert all(np.array_equal(found[path], values) for path, values in tensors.items())


def test_reading_leaves_no_file_open(h5_file: Path) -> None:
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(3):
        read_legacy_h5(h5_file)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after <= before
