"""Stores are finished or recognisably not, resume to the same bytes, and decode what they encode."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from icemap_xr import store
from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError
from icemap_xr.testing.fakes import small_grid

PLAN = {"kind": "test", "number": 1}
map_blocks: Any = da.map_blocks


class Killed(BaseException):
    pass


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No block is in flight when another one fails."""
    with dask.config.set(num_workers=1):
        yield


def dataset(*, fail_after: int | None = None, seen: list[Any] | None = None, seed: int = 0) -> xr.Dataset:
    values = np.random.default_rng(seed).random((2, 20, 24)).astype(np.float32)
    values[0, :8, :8] = np.nan
    seen = [] if seen is None else seen

    def block(part: Any, block_id: Any = None) -> Any:
        if fail_after is not None and len(seen) >= fail_after:
            raise Killed
        seen.append(block_id)
        return part

    lazy = map_blocks(block, da.from_array(values, chunks=(1, 8, 8)), dtype="f4", meta=np.empty((0,) * 3, np.float32))
    coords = {"year": [2020, 2021], **small_grid((20, 24)).coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), lazy), "zeros": ("year", [0, 0])}, coords=coords)


def write(path: Path, ds: xr.Dataset | None = None, plan: Any = PLAN) -> Path:
    store.write_groups({"": dataset() if ds is None else ds}, path, plan=plan)
    return store.finish(path, plan=plan)


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("after", [0, 1, 7, 17])
def test_a_store_killed_and_resumed_equals_an_undisturbed_one_byte_for_byte(tmp_path: Path, after: int) -> None:
    expected = files(write(tmp_path / "a.zarr"))
    path = tmp_path / "b.zarr"
    with pytest.raises(Killed):
        write(path, dataset(fail_after=after))
    assert not path.exists()
    with pytest.raises(IncompleteStoreError, match=r"not finished.*resumes"):
        store.read_manifest(path)
    before = sum(f.is_file() for f in (store.partial_path(path) / "probability" / "c").rglob("*"))
    seen: list[Any] = []
    write(path, dataset(seen=seen))
    assert len(seen) == 18 - before
    assert files(path) == expected


def test_killed_before_any_block_the_templates_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "_write_json", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write(tmp_path / "a.zarr")
    assert files(write(tmp_path / "a.zarr")) == files(write(tmp_path / "b.zarr"))


def test_finishing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write(path)
    assert not path.exists()
    write(path)
    assert not store.partial_path(path).exists()
    assert store.read_manifest(path)["plan"] == PLAN


def test_every_chunk_is_a_file_even_without_a_value(tmp_path: Path) -> None:
    ds = dataset()
    path = write(tmp_path / "a.zarr", ds * np.nan)
    assert sum(f.is_file() for f in (path / "probability" / "c").rglob("*")) == 18
    assert (path / "zeros" / "c" / "0").is_file()


def test_a_finished_store_is_left_alone_and_another_plan_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    assert store.check_writable(path, PLAN)
    with pytest.raises(OutputExistsError, match=r"a\.zarr.*other inputs.*new path"):
        store.check_writable(path, PLAN | {"number": 2})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError):
        store.check_writable(tmp_path / "file", PLAN)


def test_an_unfinished_store_of_another_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(Killed):
        write(path, dataset(fail_after=3))
    kept = files(store.partial_path(path))
    with pytest.raises(OutputExistsError, match="unfinished store of other inputs"):
        write(path, plan=PLAN | {"number": 2})
    assert files(store.partial_path(path)) == kept


def test_changed_metadata_is_found(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    names = [name for name in files(path) if name.endswith("zarr.json")]
    assert len(names) == 8
    for name in names:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content.replace(b"3", b"4", 1))
        with pytest.raises(IncompleteStoreError, match="sha256"):
            store.read_manifest(path)
        (path / name).unlink()
        with pytest.raises(IncompleteStoreError, match="missing"):
            store.read_manifest(path)
        (path / name).write_bytes(content)
    store.read_manifest(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"plan": {}}'])
def test_a_damaged_manifest_is_a_typed_error(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.zarr")
    (path / store.MANIFEST).write_text(content)
    with pytest.raises(IncompleteStoreError, match=r"manifest\.json is damaged") as caught:
        store.read_manifest(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        store.read_manifest(tmp_path / "none.zarr")
    with pytest.raises(IncompleteStoreError, match="no icemap/manifest"):
        store.read_manifest(tmp_path)


def test_plain_xarray_reads_the_same_without_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(path).load()
    xr.testing.assert_identical(found, dataset().load())


def test_save_resumes_and_returns_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    ds = dataset().chunk(y=8, x=(8, 8, 8))
    first = store.save(ds, path)
    xr.testing.assert_identical(first.load(), ds.compute())
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    store.save(ds, path)
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*")} == before
    with pytest.raises(OutputExistsError):
        store.save(ds + 1, path)


def test_ragged_chunks_are_written_whole(tmp_path: Path) -> None:
    ds = dataset().chunk(y=(3, 9, 8), x=(1, 23))
    xr.testing.assert_identical(store.save(ds, tmp_path / "a.zarr").load(), ds.compute())


def test_shards_are_whole_files(tmp_path: Path) -> None:
    ds = dataset()
    ds.probability.encoding["inner_chunks"] = (1, 4, 4)
    path = write(tmp_path / "a.zarr", ds)
    meta = json.loads((path / "probability" / "zarr.json").read_text())
    assert meta["chunk_grid"]["configuration"]["chunk_shape"] == [1, 8, 8]
    assert meta["codecs"][0]["name"] == "sharding_indexed"
    np.testing.assert_array_equal(xr.open_zarr(path).probability, dataset().probability)


# --- encoding


def test_codes_hold_values_to_half_a_step_and_nodata_apart() -> None:
    values = np.random.default_rng(0).uniform(-160, 160, 5000)
    values[::7] = np.nan
    codes = store.encode(values, 0.005, -32768)
    assert codes.dtype == np.int16
    found = store.decode(codes, {"scale_factor": 0.005, "_FillValue": -32768})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    assert np.nanmax(np.abs(found - values)) <= 0.0025 + 2e-5
    np.testing.assert_array_equal(store.encode(found, 0.005, -32768), codes)


@pytest.mark.parametrize("value", [164.0, -163.84, -163.838, 1e30, -1e30])
def test_values_that_do_not_fit_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"does not fit.*units"):
        store.encode(np.array([1.0, value, np.nan]), 0.005, -32768)
    assert store.encode(np.array([-163.835, 163.835]), 0.005, -32768).tolist() == [-32767, 32767]


def test_nothing_observed_is_all_nodata() -> None:
    assert store.encode(np.full((2, 2), np.nan), 0.1, -32768).tolist() == [[-32768] * 2] * 2
    assert store.encode(np.empty((0, 2)), 0.1, -32768).shape == (0, 2)


def test_only_an_array_as_opened_is_untouched(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zarr")
    source = store.StoreArray(str(path), "probability", (2, 20, 24), "digest")
    array = store.lazy(source, (1, 8, 8))
    assert store.untouched(array) == source
    assert store.lazy(source, (1, 8, 8)).name == array.name
    changed = [array + 0, array[:], array[:1], array.rechunk((2, 20, 24)), array.T, array.persist(), array.compute()]
    assert [store.untouched(one) for one in changed if one is not array] == [None] * (
        len(changed) - sum(one is array for one in changed)
    )
    assert store.untouched(da.zeros((2, 3))) is None
    np.testing.assert_array_equal(array.compute(), dataset().probability)
    np.testing.assert_array_equal(source[0, 3:9, [1, 5]], dataset().probability.values[0, 3:9][:, [1, 5]])
