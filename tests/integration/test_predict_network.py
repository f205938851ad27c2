"""Invariance with a real network: the demonstration model, several blocks, odd chunks, batches and masks."""

from __future__ import annotations

from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import blockjob
from icemap_xr.models.registry import load_model
from icemap_xr.testing.fakes import yearly_dataset

SHAPE = (200, 170)


@pytest.fixture(scope="module")
def model() -> Any:
    return load_model("demo_grdinsar")


@pytest.fixture(scope="module")
def scene() -> xr.Dataset:
    return yearly_dataset(SHAPE, steps=15)


@pytest.fixture(scope="module")
def whole(model: Any, scene: xr.Dataset) -> NDArray[np.float32]:
    values: NDArray[np.float32] = scene.icemap.predict(model).probability.values
    return values


@pytest.mark.parametrize(
    ("chunks", "options"),
    [
        ({"y": 7, "x": -1}, {}),
        ({"y": (1, 150, 49), "x": (169, 1)}, {"batch_size": 1}),
        ({"step": 4, "y": 64, "x": 64}, {"batch_size": 3}),
    ],
)
def test_chunks_blocks_batches_and_threads_change_no_bit(
    model: Any,
    scene: xr.Dataset,
    whole: NDArray[np.float32],
    monkeypatch: pytest.MonkeyPatch,
    chunks: Any,
    options: Any,
) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 128)
    maps = scene.chunk(chunks).icemap.predict(model, **options).probability
    assert maps.data.numblocks[1:] == (2, 2)
    with dask.config.set(num_workers=3):
        np.testing.assert_array_equal(maps.values, whole)


def test_a_mask_keeps_the_bits_of_the_full_map(
    model: Any, scene: xr.Dataset, whole: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 64)
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disc = (rows - 90) ** 2 + (columns - 120) ** 2 < 40**2
    found = scene.icemap.predict(model, mask=xr.DataArray(disc, dims=("y", "x"))).probability.values[0]
    np.testing.assert_array_equal(found[disc], whole[0][disc])
    assert np.isnan(found[~disc]).all()
