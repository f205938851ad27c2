"""Chunks appear as whole files, once, whoever writes them, however often and however late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from dask.highlevelgraph import HighLevelGraph

from icemap_xr import blockwrite, execute, store
from icemap_xr.errors import (
    IncompleteStoreError,
)
from icemap_xr.testing.stores import PLAN, Killed, contents, two_year_map, write_store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No block is in flight when another one fails."""
    with dask.config.set(num_workers=1):
        yield


def test_every_chunk_is_a_file_even_without_a_value(tmp_path: Path) -> None:
    ds = two_year_map()
    path = write_store(tmp_path / "a.zarr", ds * np.nan)
    assert sum(f.is_file() for f in (path / "probability" / "c").rglob("*")) == 18
    assert (path / "zeros" / "c" / "0").is_file()


def test_ragged_chunks_are_written_whole(tmp_path: Path) -> None:
    ds = two_year_map().chunk(y=(3, 9, 8), x=(1, 23))
    xr.testing.assert_identical(store.save(ds, tmp_path / "a.zarr").load(), ds.compute())


def test_shards_are_whole_files(tmp_path: Path) -> None:
    ds = two_year_map()
    ds.probability.encoding["inner_chunks"] = (1, 4, 4)
    path = write_store(tmp_path / "a.zarr", ds)
    meta = json.loads((path / "probability" / "zarr.json").read_text())
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [1, 8, 8]
    assert meta["codecs"][0]["name"] == "sharding_indexed"
    np.testing.assert_array_equal(xr.open_zarr(path).probability, two_year_map().probability)


@pytest.mark.parametrize("together", [False, True])
def test_tasks_that_run_twice_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    real, digests = blockwrite.write_chunk, []

    def twice(*arguments: Any) -> str:
        with ThreadPoolExecutor(2 if together else 1) as pool:
            first, second = pool.map(lambda _: real(*arguments), range(2))
        digests.append(first == second)
        return second

    with monkeypatch.context() as patch:
        patch.setattr(blockwrite, "write_chunk", twice)
        write_store(tmp_path / "b.zarr")
    assert contents(tmp_path / "b.zarr") == expected
    assert digests == [True] * 18


def test_a_task_left_over_from_an_earlier_call_does_no_harm(tmp_path: Path) -> None:
    path, values = tmp_path / "a.zarr", np.zeros((1, 8, 8), np.float32)
    partial, block = store.partial_path(path), blockwrite.Block("probability", (0, 0, 0))
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=0))
    late = (str(partial), store.plan_hash({"kind": "other"}), block, values)
    with pytest.raises(IncompleteStoreError, match="not being written from this plan"):
        blockwrite.write_chunk(*late)
    assert not (partial / "probability" / "c").exists()
    expected = contents(write_store(path))
    with pytest.raises(FileNotFoundError):
        blockwrite.write_chunk(str(partial), store.plan_hash(PLAN), block, values)
    assert not partial.exists()
    assert contents(path) == expected


def test_what_a_dead_writer_leaves_is_no_chunk(tmp_path: Path) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    path = tmp_path / "b.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=9))
    chunks = store.partial_path(path) / "probability" / "c"
    present = sorted(file for file in chunks.rglob("*") if file.is_file())
    # a power cut can leave a name without its content
    present[0].write_bytes(b"")
    (present[1].parent / f".1.{'0' * 32}.partial").write_bytes(b"half a chunk")
    seen: list[Any] = []
    write_store(path, two_year_map(seen=seen))
    assert len(seen) == 18 - len(present) + 1
    assert contents(path) == expected


def test_batches_are_bounded_and_share_what_arrays_have_in_common(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "AT_ONCE", 4)
    sizes: list[int] = []
    real = blockwrite.BlockTasks.__call__

    def counting(self: Any, blocks: Any) -> Any:
        tasks = real(self, blocks)
        sizes.append(len(HighLevelGraph.merge(*(task.dask for task in tasks)).to_dict()))
        return tasks

    monkeypatch.setattr(blockwrite.BlockTasks, "__call__", counting)
    seen: list[Any] = []
    ds = two_year_map(seen=seen)
    ds["twice"] = ds.probability * 2
    found = store.save(ds, tmp_path / "a.zarr").load()
    assert len(sizes) == 36 / 4
    assert max(sizes) <= 5 * 4
    assert len(seen) == 18
    np.testing.assert_array_equal(found.twice, two_year_map().probability * 2)
