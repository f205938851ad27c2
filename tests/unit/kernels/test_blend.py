"""One block: what is read, what the model sees, what is blended."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from icemap_xr.kernels.blend import blend_block
from icemap_xr.kernels.infer import Dropout, Infer
from icemap_xr.kernels.windows import WindowGrid, gaussian_weights

SHAPE = (21, 17)
#: seconds; far longer than anything here takes, only a failing test waits so long
PATIENCE = 20
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
    return blend_block(reader(values), Infer(infer), GRID, rows, columns, **options)


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
    blend_block(reader(VALUES, seen), Infer(identity), GRID, rows, slice(0, 17), classes=2, batch_size=4)
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
def test_batches_are_full_but_for_the_last_and_change_nothing(size: int) -> None:
    counts: list[int] = []

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        counts.append(len(batch))
        return identity(batch)

    np.testing.assert_array_equal(block(infer=infer, batch_size=size), block(batch_size=3))
    assert set(counts[:-1]) <= {size}
    assert counts[-1] <= size
    assert sum(counts) == 6 * 5


# --- edges="valid"


def place_dependent(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depend on the pixel, its place in the window and the whole window, as a pooling network does."""
    first = batch[:, 0] + np.linspace(0, 1, 8, dtype=np.float32)[:, None, None]
    first = first + np.array([one.mean() for one in batch], np.float32)[:, None, None, None]
    return np.concatenate([1 - first, first], axis=-1)


@pytest.mark.parametrize("shape", [(21, 17), (8, 8), (9, 30), (5, 17), (3, 2)])
def test_valid_edges_shift_the_last_windows_and_weigh_by_what_is_observed(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    values = rng.random((2, *shape, 1)).astype(np.float32) + 0.01
    values[:, rng.random(shape) < 0.3] = np.nan
    seen = np.isfinite(values[0, :, :, 0])
    grid = WindowGrid(8, 4, shape, edges="valid")
    rows, columns = (sorted({*range(0, max(n - 8, 0), 4), max(n - 8, 0)}) for n in shape)
    room = tuple(max(n, 8) for n in shape)
    padded, observed = np.zeros((2, *room, 1), np.float32), np.zeros(room, bool)
    padded[:, : shape[0], : shape[1]] = np.nan_to_num(values)
    observed[: shape[0], : shape[1]] = seen
    total, weight = np.zeros(room), np.zeros(room)
    for row in rows:
        for column in columns:
            part = np.s_[row : row + 8, column : column + 8]
            scaled = gaussian_weights(8) * observed[part].mean()
            total[part] += scaled * place_dependent(padded[:, *part][None])[0, ..., 1]
            weight[part] += scaled
    expected = np.where(seen, (total / np.where(weight > 0, weight, 1))[: shape[0], : shape[1]], np.nan)
    out = blend_block(
        reader(values), Infer(place_dependent), grid, *(slice(0, n) for n in shape), classes=2, batch_size=3
    )
    np.testing.assert_allclose(out[1], expected, atol=2e-6)
    np.testing.assert_array_equal(np.isnan(out[1]), ~seen)


# --- passes


@pytest.mark.parametrize("blend", ["gaussian", "crop"])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_the_spread_is_the_standard_deviation_of_whole_blended_maps(blend: Any, batch_size: int) -> None:
    grid = WindowGrid(8, 3, SHAPE, blend)

    def sample(windows: NDArray[np.float32], seeds: NDArray[np.uint64], rate: float) -> NDArray[np.float32]:
        noise = np.array([np.random.default_rng(int(seed)).random() for seed in seeds], np.float32)
        return place_dependent(windows) + noise[:, None, None, None]

    def whole(infer: Any, rows: slice, columns: slice, **options: Any) -> NDArray[np.float32]:
        return blend_block(reader(VALUES), infer, grid, rows, columns, classes=2, batch_size=batch_size, **options)

    dropout = Dropout(6, 0.5, 3)
    everything = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
    out = whole(Infer(place_dependent, sample, None, dropout), *everything, spread_of=1)
    maps = []
    for number in range(6):
        maps.append(whole(OnePass(Infer(place_dependent, sample, None, dropout), number), *everything)[1])
    assert out.shape == (3, *SHAPE)
    np.testing.assert_allclose(out[1], np.mean(maps, axis=0), atol=2e-6)
    np.testing.assert_allclose(out[2], np.std(maps, axis=0, ddof=1), atol=2e-6)
    assert out[2].min() > 0.01
    for rows in (slice(0, 1), slice(5, 14), slice(14, 21)):
        for columns in (slice(0, 1), slice(3, 17)):
            part = whole(Infer(place_dependent, sample, None, dropout), rows, columns, spread_of=1)
            np.testing.assert_array_equal(part, out[:, rows, columns])


class OnePass:
    """One of the passes alone."""

    passes = 1

    def __init__(self, infer: Infer, number: int) -> None:
        self.infer, self.number = infer, number

    def __call__(self, windows: Any, places: Any) -> Any:
        yield list(self.infer(windows, places))[self.number]


# --- reading


def test_reading_is_cut_where_the_chunks_are() -> None:
    seen: list[tuple[slice, slice]] = []
    out = blend_block(
        reader(VALUES, seen),
        Infer(identity),
        GRID,
        slice(8, 16),
        slice(0, 17),
        classes=2,
        batch_size=4,
        cuts=(0, 7, 14),
    )
    assert [(part.start, part.stop) for part, _ in seen] == [(4, 7), (7, 14), (14, 20)]
    np.testing.assert_array_equal(out, block(rows=slice(8, 16)))


def test_only_what_wanted_pixels_need_is_read() -> None:
    seen: list[tuple[slice, slice]] = []
    wanted = np.zeros(SHAPE, bool)

    def run() -> NDArray[np.float32]:
        seen.clear()
        both = (slice(0, SHAPE[0]), slice(0, SHAPE[1]))
        return blend_block(
            reader(VALUES, seen),
            Infer(identity),
            GRID,
            *both,
            classes=2,
            batch_size=4,
            wanted=wanted,
            cuts=range(0, 21, 4),
        )

    assert np.isnan(run()).all()
    assert seen == []
    wanted[9:11, 8] = True
    np.testing.assert_array_equal(run()[:, wanted], block()[:, wanted])
    # windows begin at 4 and 8 in both directions, so they end at 16
    assert [part for part, _ in seen] == [slice(4, 8), slice(8, 12), slice(12, 16)]
    assert {(part.start, part.stop) for _, part in seen} == {(4, 16)}


def test_the_next_rows_are_read_while_the_model_runs() -> None:
    started = {row: Event() for row in range(0, 21, 4)}
    overlapped = []

    def read(rows: slice, columns: slice) -> NDArray[np.float32]:
        started[rows.start].set()
        return VALUES[:, rows, columns].copy()

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        # two pieces make the first row of windows; a third one must come before any answer is given
        overlapped.append(started[8].wait(PATIENCE))
        return identity(batch)

    columns = slice(0, 17)
    blend_block(read, Infer(identity), GRID, slice(0, 1), columns, classes=2, batch_size=9, cuts=range(0, 21, 4))
    assert not started[8].is_set(), "rows that no window needs were read"
    blend_block(read, Infer(infer), GRID, slice(0, 12), columns, classes=2, batch_size=5, cuts=range(0, 21, 4))
    assert overlapped
    assert all(overlapped)


def test_one_block_reads_while_another_computes_and_never_do_two_compute() -> None:
    lane, computing, other_reads, at_work = Lock(), Event(), Event(), []

    def infer(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        at_work.append(1)
        assert len(at_work) == 1, "two blocks computed at once"
        computing.set()
        # only a read of the other block lets this one go on
        assert other_reads.wait(PATIENCE)
        at_work.pop()
        return identity(batch)

    def read_other(rows: slice, columns: slice) -> NDArray[np.float32]:
        assert computing.wait(PATIENCE)
        other_reads.set()
        return VALUES[:, rows, columns].copy()

    def run(read: Any, rows: slice) -> NDArray[np.float32]:
        return blend_block(read, Infer(infer), GRID, rows, slice(0, 17), classes=2, batch_size=3, lane=lane)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, reader(VALUES), slice(0, 8))
        second = pool.submit(run, read_other, slice(8, 16))
        both = np.concatenate([first.result(PATIENCE), second.result(PATIENCE)], axis=1)
    np.testing.assert_array_equal(both, block()[:, :16])
    assert not lane.locked()


def test_a_block_that_waits_for_data_lets_another_compute() -> None:
    lane, other_done = Lock(), Event()

    def slow(rows: slice, columns: slice) -> NDArray[np.float32]:
        if rows.start >= 8:
            assert other_done.wait(PATIENCE)
        return VALUES[:, rows, columns].copy()

    def run(read: Any, rows: slice) -> NDArray[np.float32]:
        return blend_block(
            read, Infer(identity), GRID, rows, slice(0, 17), classes=2, batch_size=3, lane=lane, cuts=range(0, 21, 4)
        )

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, slow, slice(0, 16))
        np.testing.assert_array_equal(run(reader(VALUES), slice(16, 21)), block()[:, 16:])
        other_done.set()
        np.testing.assert_array_equal(first.result(PATIENCE), block()[:, :16])


@pytest.mark.parametrize("where", ["read", "infer"])
def test_an_error_ends_the_block_and_frees_the_lane(where: str) -> None:
    lane = Lock()

    def fail(*_: Any) -> Any:
        raise OSError(where)

    with pytest.raises(OSError, match=where):
        blend_block(
            fail if where == "read" else reader(VALUES),
            Infer(fail if where == "infer" else identity),
            GRID,
            slice(0, 21),
            slice(0, 17),
            classes=2,
            batch_size=3,
            lane=lane,
        )
    assert not lane.locked()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("icemap-ahead")]
