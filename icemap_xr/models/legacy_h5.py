"""Read published ICEmapper weight files: HDF5 as Keras 2 wrote them.

The file is taken as hostile. Nothing in it is followed out of it (links, virtual or external datasets), nothing is
read before its type, place and size are known to be right, and names decide nothing: weights are taken in the order
that the file lists them, because the numbers in the names differ from one training run to the next.

Two time-weighted poolings of one level have equal shapes, so a file that lists them in another order cannot be told
from a right one by its shapes. The order here is that of the published files.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from icemap_xr.errors import ModelError, UnknownModelError, WeightsError
from icemap_xr.models import icemapper
from icemap_xr.models.digests import git_blob_id, sha256
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.types import StrPath

if TYPE_CHECKING:
    import keras

#: a published file has about 250 groups and datasets, 6 deep, and 18 MB
MAX_OBJECTS, MAX_DEPTH, MAX_BYTES = 1000, 10, 2**31
MAX_NAME_BYTES = 1024

_AGAIN = "take the file from its source again"

#: what h5py raises on damaged files, as found by flipping bytes
_HDF5_ERRORS = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class LegacyWeights:
    """What a published-layout weight file holds.

    Parameters
    ----------
    architecture
        The network, from the shapes in the file; steps and window as the caller said.
    tensors
        Arrays by weight path, float32, checked.
    digest, blob
        sha256 and git blob id of the file, hex.
    """

    architecture: Architecture
    tensors: Tensors
    digest: str
    blob: str


def read_legacy_h5(
    path: StrPath, *, steps: int = icemapper.PUBLISHED_STEPS, window: int = icemapper.PUBLISHED_WINDOW
) -> LegacyWeights:
    """Read and check a weight file in the published layout.

    Parameters
    ----------
    path
        An ``.h5`` file.
    steps, window
        Scenes per year, and window side in px; the file does not hold them.

    Returns
    -------
    LegacyWeights

    Raises
    ------
    UnknownModelError
        There is no such file.
    WeightsError
        The file is damaged, unsafe, or holds another network.
    """
    data = _read_bytes(Path(path))
    with _opened(data, path) as file:
        listed = _listed(file, path)
        architecture = _architecture(listed, steps, window, path)
        _check_layout(listed, architecture, len(data), path)
        tensors = _read(listed, architecture)
    icemapper.check_tensors(tensors, architecture, str(path))
    return LegacyWeights(architecture, tensors, sha256(data), git_blob_id(data))


def read_architecture(
    path: StrPath, *, steps: int = icemapper.PUBLISHED_STEPS, window: int = icemapper.PUBLISHED_WINDOW
) -> Architecture:
    """Read pooling, filters, features and classes of a weight file from its shapes; no weight is read.

    Parameters and errors are those of `read_legacy_h5`.
    """
    data = _read_bytes(Path(path))
    with _opened(data, path) as file:
        listed = _listed(file, path)
        architecture = _architecture(listed, steps, window, path)
        _check_layout(listed, architecture, len(data), path)
    return architecture


def load_legacy_h5(
    path: StrPath, *, steps: int = icemapper.PUBLISHED_STEPS, window: int | None = icemapper.PUBLISHED_WINDOW
) -> keras.Model:
    """Build the network of a weight file and set its weights.

    Parameters
    ----------
    path, steps
        As in `read_legacy_h5`.
    window
        Window side in px; None leaves it open.

    Returns
    -------
    keras.Model
        As from `icemap_xr.models.icemapper.build`.
    """
    weights = read_legacy_h5(path, steps=steps)
    architecture = Architecture(**{**vars(weights.architecture), "window": window})
    model = icemapper.build(architecture)
    icemapper.assign(model, weights.tensors)
    return model


def _read_bytes(path: Path) -> bytes:
    """Return the file's bytes: all checks and the digest are then about the same bytes."""
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise WeightsError(f"{path} has {size} bytes, allowed are {MAX_BYTES}: this is no ICEmapper weight file")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnknownModelError(f"no weight file {os.fspath(path)!r}: check the path") from None
    except OSError as error:
        raise WeightsError(f"cannot read {os.fspath(path)!r} ({error.strerror}): check path and rights") from None


@contextmanager
def _opened(data: bytes, path: StrPath) -> Iterator[h5py.File]:
    """Open the bytes as HDF5; whatever HDF5 finds wrong in them is a `WeightsError`."""
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            yield file
    except _HDF5_ERRORS as error:
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path} is damaged or not HDF5 ({reason}): {_AGAIN}") from error


def _listed(file: h5py.File, path: StrPath) -> dict[str, list[h5py.Dataset]]:
    """Return the datasets of each top group with weights, in the order the file lists them."""
    found = dict(_walk(file, "", 0, [0], path))
    listed: dict[str, list[h5py.Dataset]] = {}
    names: list[str] = []
    for layer in _names(file, "layer_names", path):
        if layer not in file:
            raise WeightsError(f"{path} lists the layer {layer!r} and does not hold it: {_AGAIN}")
        weights = [f"{layer}/{name}" for name in _names(file[layer], "weight_names", path)]
        names += weights
        if weights:
            listed[layer] = [_known(found, name, path) for name in weights]
    if sorted(names) != sorted(found):
        odd = sorted(set(found) - set(names)) or sorted({name for name in names if names.count(name) > 1})
        raise WeightsError(f"{path} holds {odd[0]!r} twice or without listing it: {_AGAIN}")
    return listed


def _known(found: dict[str, h5py.Dataset], name: str, path: StrPath) -> h5py.Dataset:
    if name not in found:
        raise WeightsError(f"{path} lists the weight {name!r} and does not hold it: {_AGAIN}")
    return found[name]


def _walk(
    group: h5py.Group, prefix: str, depth: int, count: list[int], path: StrPath
) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield every dataset by its full name, following nothing but plain links; `count` is the number of objects met."""
    count[0] += len(group)
    if depth > MAX_DEPTH or count[0] > MAX_OBJECTS:
        raise WeightsError(
            f"{path} holds more than {MAX_OBJECTS} groups and datasets, or more than {MAX_DEPTH} levels: "
            "this is no ICEmapper weight file"
        )
    for name in group:
        full = f"{prefix}{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink):
            raise WeightsError(f"{path}: {full!r} is a {type(link).__name__}, allowed are plain datasets: {_AGAIN}")
        member = group[name]
        if isinstance(member, h5py.Group):
            yield from _walk(member, f"{full}/", depth + 1, count, path)
        elif isinstance(member, h5py.Dataset):
            _check_plain(member, full, path)
            yield full, member
        else:
            raise WeightsError(f"{path}: {full!r} is neither a group nor a dataset: {_AGAIN}")


def _check_plain(dataset: h5py.Dataset, name: str, path: StrPath) -> None:
    """Raise `WeightsError` unless the dataset is a plain array of floats inside the file; reads no data."""
    kind = dataset.id.get_type()
    properties = dataset.id.get_create_plist()
    problem = None
    if kind.get_class() != h5py.h5t.FLOAT or kind.get_size() not in (2, 4, 8):
        problem = "does not hold floating-point numbers"
    elif properties.get_layout() == h5py.h5d.VIRTUAL:
        problem = "is a virtual dataset"
    elif properties.get_external_count():
        problem = "keeps its data in another file"
    elif properties.get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT):
        # a chunk can unpack to far more than the file's size
        problem = "is chunked or compressed"
    elif dataset.shape is None or dataset.id.get_storage_size() != dataset.size * kind.get_size():
        problem = f"declares the shape {dataset.shape} and does not hold that many values"
    if problem:
        raise WeightsError(f"{path}: {name!r} {problem}, allowed are plain float arrays: {_AGAIN}")


def _names(holder: h5py.Group, attribute: str, path: StrPath) -> list[str]:
    """Return a list of names from an attribute; its size is checked before it is read."""
    where = f"{path}: attribute {attribute!r} of {holder.name!r}"
    if not isinstance(holder, h5py.Group) or attribute not in holder.attrs:
        raise WeightsError(f"{where} is missing: this is no weight file of Keras 2 (model.save_weights('NAME.h5'))")
    header = holder.attrs.get_id(attribute)
    if len(header.shape) != 1 or header.shape[0] > MAX_OBJECTS:
        raise WeightsError(f"{where} has shape {header.shape}, allowed are lists up to {MAX_OBJECTS}: {_AGAIN}")
    if header.shape[0] == 0:
        return []
    if h5py.check_string_dtype(header.dtype) is None or header.dtype.itemsize > MAX_NAME_BYTES:
        raise WeightsError(f"{where} has type {header.dtype}, needed are names: {_AGAIN}")
    return [name.decode() if isinstance(name, bytes) else str(name) for name in holder.attrs[attribute]]


def _architecture(listed: dict[str, list[h5py.Dataset]], steps: int, window: int, path: StrPath) -> Architecture:
    """Infer the network from how many weights there are and the shapes of the first and last kernels."""
    groups = list(listed.values())
    counts = [len(group) for group in groups]
    for pooling in icemapper.POOLINGS:
        template = icemapper.layout(Architecture(pooling))
        if counts != [len(weights) for weights in template.values()]:
            continue
        head = [name for name, _ in template[icemapper.DECODER]].index("head/kernel")
        first, last = groups[0][0].shape, groups[1][head].shape
        if len(first) != 5 or len(last) != 2:
            raise WeightsError(f"{path}: first and last kernel have shapes {first} and {last}: {_AGAIN}")
        try:
            return Architecture(pooling, steps, first[3], last[1], first[4], window)
        except ModelError as error:
            raise WeightsError(f"{path}: {error}") from None
    raise WeightsError(
        f"{path} holds {counts} weights in its layers: this is none of the ICEmapper networks "
        f"({', '.join(icemapper.POOLINGS)})"
    )


def _check_layout(listed: dict[str, list[h5py.Dataset]], architecture: Architecture, size: int, path: StrPath) -> None:
    """Compare every declared shape with the network's, and their sum with the file's size; reads no data."""
    for datasets, weights in zip(listed.values(), icemapper.layout(architecture).values(), strict=True):
        for dataset, (name, shape) in zip(datasets, weights, strict=True):
            if dataset.shape != shape:
                raise WeightsError(
                    f"{path}: {dataset.name!r} has shape {dataset.shape}, but {name!r} of a {architecture.pooling} "
                    f"network with {architecture.filters} filters needs {shape}: {_AGAIN}"
                )
    declared = sum(dataset.nbytes for datasets in listed.values() for dataset in datasets)
    if declared > size:
        raise WeightsError(f"{path} declares {declared} bytes of weights and has {size}: {_AGAIN}")


def _read(listed: dict[str, list[h5py.Dataset]], architecture: Architecture) -> Tensors:
    tensors: Tensors = {}
    for datasets, weights in zip(listed.values(), icemapper.layout(architecture).values(), strict=True):
        for dataset, (name, _) in zip(datasets, weights, strict=True):
            values: Any = dataset[()]
            with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused later
                tensors[name] = np.asarray(values, np.float32)
    return tensors
