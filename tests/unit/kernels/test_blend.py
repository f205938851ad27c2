"""One block: what is read, what the model sees, what is blended."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icemap_xr.kernels.blend import blend_block
from icemap_xr.kernels.windows import WindowGrid

SHAPE = (21, 17)
GRID = WindowGrid(8, 4, SHAPE)
VALUES = np.random.default_rng(0).random((2, *SHAPE, 1)).astype(np.float32)


def reader(values: NDArray[np.float32], seen: list[tuple[slice, slice]] | None = None) -> Any:
    def read(rows: slice, columns: slice) -> NDArray[np.float32]:
        if seen is not None:
            seen.append((rows, columns))
        return values[:, rows, columns].copy()

    return read


def identity(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    first = batch[:, 0]
    return np.concatenate([1 - first, first], axis=-1)


def block(values: NDArray[np.float32] = VALUES, infer: Any = identity, **options: Any) -> NDArray[np.float32]:
    rows, columns = options.pop("rows", slice(0, SHAPE[0])), options.pop("columns", slice(0, SHAPE[1]))
    options = {"classes": 2, "batch_size": 3} | options
    return blend_block(reader(values), infer, GRID, rows, columns, **options)


def test_a_model_that_copies_its_input_gives_the_input_back() -> None:
    np.testing.assert_allclose(block()[1], VALUES[0, :, :, 0], atol=1e-6)


def test_blocks_equal_the_whole_bit_for_bit() -> None:
    whole = block()
    for rows in (slice(0, 4), slice(4, 12), slice(12, 21)):
        for columns in (slice(0, 8), slice(8, 17)):
            np.testing.assert_array_equal(block(rows=rows, columns=columns), whole[:, rows, columns])


def test_no_row_is_read_twice_and_nothing_beyond_the_region() -> None:
    seen: list[tuple[slice, slice]] = []
    rows = slice(8, 16)
    blend_block(reader(VALUES, seen), identity, GRID, rows, slice(0, 17), classes=2, batch_size=4)
    read = [row for part, _ in seen for row in range(part.start, part.stop)]
    assert read == list(range(4, 20))
    assert {(part.start, part.stop) for _, part in seen} == {(0, 17)}


def test_the_model_sees_zeros_for_what_cannot_be_used() -> None:
    values = VALUES.copy()
    values[0, 2, 3], values[0, 4, 5], values[0, 6, 7], values[0, 8, 9] = np.nan, np.inf, -np.inf, 100.5
    values[0, 10, 11] = 100.0
    batches: list[NDArray[np.float32]] = []

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        batches.append(batch)
        return identity(batch)

    block(values, infer)
    windows = np.concatenate(batches)
    clean = np.zeros((2, 28, 24, 1), np.float32)
    clean[:, : SHAPE[0], : SHAPE[1]] = values
    for place in ((2, 3), (4, 5), (6, 7), (8, 9)):
        clean[0, *place] = 0
    starts = [(row, column) for row in range(0, 21, 4) for column in range(0, 17, 4)]
    assert len(windows) == len(starts)
    for window, (row, column) in zip(windows, starts, strict=True):
        np.testing.assert_array_equal(window, clean[:, row : row + 8, column : column + 8])


def test_a_pixel_without_any_observation_is_nan_and_one_step_is_enough() -> None:
    values = VALUES.copy()
    values[:, 5, 6], values[0, 7, 8] = np.nan, np.nan
    out = block(values)
    assert np.isnan(out[:, 5, 6]).all()
    assert np.isnan(out).sum() == 2


def test_a_pixel_of_which_one_feature_is_never_observed_is_nan() -> None:
    values = np.concatenate([VALUES, VALUES], axis=-1)
    values[:, 9, 9, 1] = np.nan
    out = block(values, lambda batch: identity(batch[..., :1]))
    assert np.isnan(out[:, 9, 9]).all()
    assert np.isnan(out).sum() == 2


def test_windows_without_a_wanted_or_observed_pixel_are_not_run() -> None:
    counts: list[int] = []

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        counts.append(len(batch))
        return identity(batch)

    wanted = np.zeros(SHAPE, bool)
    wanted[10, 9] = True
    out = block(infer=infer, wanted=wanted)
    assert sum(counts) == 4
    assert np.isfinite(out[1]).sum() == 1
    assert wanted.sum() == 1
    counts.clear()
    assert np.isnan(block(np.full_like(VALUES, np.nan), infer)).all()
    assert counts == []


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_batches_are_full_but_for_a_strips_last_and_change_nothing(size: int) -> None:
    counts: list[int] = []

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        counts.append(len(batch))
        return identity(batch)

    np.testing.assert_array_equal(block(infer=infer, batch_size=size), block(batch_size=3))
    assert max(counts) <= size
    assert sum(counts) == 6 * 5
