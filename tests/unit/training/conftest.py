"""Small tiles, cheap to train on: glacier is where the first feature is dark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from icemap_xr.models.icemapper import Architecture
from icemap_xr.training.augment import AugmentOptions
from icemap_xr.training.fit import TrainOptions
from icemap_xr.training.tiles import Tile, feature_specs

MakeTile = Callable[..., Tile]


def make_tile(
    seed: int = 0, *, shape: tuple[int, int] = (40, 48), times: int = 6, steps: int = 4, name: str = ""
) -> Tile:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    glacier = np.hypot(y - shape[0] * rng.random(), x - shape[1] * rng.random()) < 15
    series = {
        feature: (0.7 - 0.3 * glacier + rng.normal(0, 0.05, (times, *shape))).astype(np.float32)
        for feature in ("grd", "insar")
    }
    index = {feature: np.arange(1, steps + 1) for feature in series}
    labels = np.stack([~glacier, glacier], axis=-1).astype(np.float32)
    specs = feature_specs(("grd", "insar"))
    return Tile(name or f"tile-{seed}", specs, series, index, labels, (slice(0, shape[0]), slice(0, shape[1])))


@pytest.fixture
def tile() -> Tile:
    return make_tile()


@pytest.fixture
def tiles() -> list[Tile]:
    return [make_tile(seed) for seed in (0, 1)]


@pytest.fixture
def architecture() -> Architecture:
    return Architecture(steps=4, filters=8, window=16)


@pytest.fixture
def options() -> TrainOptions:
    return TrainOptions(
        epochs=2,
        restarts=(2,),
        batch_size=2,
        batches_per_epoch=3,
        learning_rate=2e-3,
        dropout=0.2,
        augment=AugmentOptions(),
        overhang=0.5,
        seed=5,
    )
