"""One writer at a time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icemap_xr import store
from icemap_xr.errors import (
    IncompleteStoreError,
    StoreBusyError,
)
from icemap_xr.testing.stores import PLAN, contents, two_year_map


def test_a_second_writer_is_told_to_wait(tmp_path: Path) -> None:
    path, begun, go = tmp_path / "a.zarr", threading.Event(), threading.Event()
    ds = two_year_map()

    def slowly(part: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return part

    lazy = ds.probability.data.map_blocks(slowly, dtype="f4", meta=np.empty((0,) * 3, np.float32))
    slow = ds.assign(probability=(ds.probability.dims, lazy))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(store.write, {"": slow}, path, plan=PLAN, call="test")
        assert begun.wait(60)
        with pytest.raises(StoreBusyError, match=r"a\.zarr is being written by another process: wait"):
            store.write({"": ds}, path, plan=PLAN, call="test")
        with pytest.raises(IncompleteStoreError, match="not finished"):
            store.read_manifest(path)
        go.set()
        first.result()
    assert contents(path) == contents(store.write({"": ds}, tmp_path / "b.zarr", plan=PLAN, call="test"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zarr", "b.zarr"]
    # whoever comes when it is finished finds it finished
    store.write({"": ds}, path, plan=PLAN, call="test")


def test_who_waited_for_the_lock_finds_the_store_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    real = store.exclusive

    def late(target: Path) -> Any:
        monkeypatch.setattr(store, "exclusive", real)
        store.write({"": two_year_map()}, path, plan=PLAN, call="test")
        return real(target)

    monkeypatch.setattr(store, "exclusive", late)
    seen: list[Any] = []
    store.write({"": two_year_map(seen=seen)}, path, plan=PLAN, call="test")
    assert seen == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]
