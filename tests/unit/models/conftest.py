"""Small networks and weight files for the tests of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest

from icemap_xr.models import icemapper
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import Architecture, Tensors
from icemap_xr.models.registry import feature_spec
from icemap_xr.types import InputSpec

MakeH5 = Callable[..., Path]


def random_tensors(architecture: Architecture, seed: int = 0) -> Tensors:
    """Random weights of a size that keeps the values in the network from growing or vanishing."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for path, shape in icemapper.shapes(architecture).items():
        values = rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5 if len(shape) > 1 else 0.2, shape)
        if path.endswith(("gamma", "moving_variance")):
            values = rng.uniform(0.5, 1.5, shape)
        tensors[path] = values.astype(np.float32)
    return tensors


def write_h5(path: Path, architecture: Architecture, tensors: Mapping[str, np.ndarray]) -> Path:
    """Write weights as Keras 2 does, under names with numbers that say nothing."""
    number = 100
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([b"inputs", b"Conv3DResUNetEncoder", b"ResUNetDecoder"])
        file.create_group("inputs").attrs["weight_names"] = np.array([], dtype="float64")
        for group, weights in icemapper.layout(architecture).items():
            names = []
            for name, _ in weights:
                number -= 1 if number > 50 else -1
                names.append(f"layer_{number % 7}/part_{len(names)}/{name.rsplit('/', 1)[-1]}:0")
                file.create_dataset(f"{group}/{names[-1]}", data=tensors[name])
            file[group].attrs["weight_names"] = np.array([name.encode() for name in names])
    return path


@pytest.fixture
def make_h5(tmp_path: Path) -> MakeH5:
    """Write a weight file of that name for an architecture, with random weights of that seed."""

    def make(name: str, architecture: Architecture, seed: int = 0) -> Path:
        return write_h5(tmp_path / name, architecture, random_tensors(architecture, seed))

    return make


@pytest.fixture
def architecture() -> Architecture:
    return Architecture("tweightedpool", steps=3, features=2, classes=2, filters=4, window=16)


@pytest.fixture
def tensors(architecture: Architecture) -> Tensors:
    return random_tensors(architecture)


@pytest.fixture
def h5_file(tmp_path: Path, architecture: Architecture, tensors: Tensors) -> Path:
    return write_h5(tmp_path / "tiny_grdinsar.h5", architecture, tensors)


@pytest.fixture
def bundle(architecture: Architecture) -> ModelBundle:
    features = tuple(feature_spec(name) for name in ("grd", "insar"))
    return ModelBundle(
        "tiny",
        architecture,
        (InputSpec("sar", features),),
        note="random weights",
        calibration={"knots": [[0.0, 0.1], [1.0, 0.9]]},
        block_errors={"errors": [0.01, -0.02], "block": "640m"},
        edge_errors={"errors_m": [5.0, -3.0], "segment_m": 200.0, "method": "hard", "threshold": 0.5},
        training={"seed": 1},
    )


@pytest.fixture
def saved(tmp_path: Path, bundle: ModelBundle, tensors: Tensors) -> ModelBundle:
    return bundle.save(tmp_path / "tiny", tensors)


@pytest.fixture
def windows(architecture: Architecture) -> np.ndarray:
    rng = np.random.default_rng(5)
    shape = (3, architecture.steps, architecture.window, architecture.window, architecture.features)
    return rng.random(shape, dtype=np.float32)
