"""Stores are finished or recognisably not, resume to the same bytes, and record what failed on the way."""

from __future__ import annotations

import json
import os
import pickle
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
from icemap_xr.errors import (
    Failure,
    IncompleteReadError,
    IncompleteRunError,
    IncompleteStoreError,
    InputError,
    OutputExistsError,
    ReadError,
)
from icemap_xr.testing.stores import PLAN, Killed, contents, flaky_map, two_year_map, write_store


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No block is in flight when another one fails."""
    with dask.config.set(num_workers=1):
        yield


@pytest.mark.parametrize("after", [0, 1, 7, 17])
def test_a_store_killed_and_resumed_equals_an_undisturbed_one_byte_for_byte(tmp_path: Path, after: int) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    path = tmp_path / "b.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=after))
    assert not path.exists()
    with pytest.raises(IncompleteStoreError, match=r"not finished.*resumes"):
        store.read_manifest(path)
    before = sum(f.is_file() for f in (store.partial_path(path) / "probability" / "c").rglob("*"))
    seen: list[Any] = []
    write_store(path, two_year_map(seen=seen))
    assert len(seen) == 18 - before
    assert contents(path) == expected


def test_killed_before_any_block_the_templates_are_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store.files, "write_json", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_store(tmp_path / "a.zarr")
    assert contents(write_store(tmp_path / "a.zarr")) == contents(write_store(tmp_path / "b.zarr"))


def test_finishing_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            write_store(path)
    assert not path.exists()
    write_store(path)
    assert not store.partial_path(path).exists()
    assert store.read_manifest(path)["plan"] == PLAN


def test_a_finished_store_is_left_alone_and_another_plan_refused(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    assert store.check_writable(path, PLAN)
    with pytest.raises(OutputExistsError, match=r"a\.zarr.*other inputs.*new path"):
        store.check_writable(path, PLAN | {"number": 2})
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputExistsError):
        store.check_writable(tmp_path / "file", PLAN)


def test_an_unfinished_store_of_another_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=3))
    kept = contents(store.partial_path(path))
    with pytest.raises(OutputExistsError, match="unfinished store of other inputs"):
        write_store(path, plan=PLAN | {"number": 2})
    assert contents(store.partial_path(path)) == kept


def test_plain_xarray_reads_the_same_without_a_warning(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = xr.open_zarr(path).load()
    xr.testing.assert_identical(found, two_year_map().load())


def test_save_resumes_and_returns_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    ds = two_year_map().chunk(y=8, x=(8, 8, 8))
    first = store.save(ds, path)
    xr.testing.assert_identical(first.load(), ds.compute())
    before = {f: f.stat().st_mtime_ns for f in path.rglob("*")}
    store.save(ds, path)
    assert {f: f.stat().st_mtime_ns for f in path.rglob("*")} == before
    with pytest.raises(OutputExistsError):
        store.save(ds + 1, path)


def test_lazy_coordinates_and_numbers_are_written_too(tmp_path: Path) -> None:
    ds = two_year_map().assign_coords(height=(("y", "x"), da.ones((20, 24), chunks=8))).assign(total=da.ones(()))
    xr.testing.assert_identical(store.save(ds, tmp_path / "a.zarr").load(), ds.compute())


def test_other_names_units_or_chunks_are_other_inputs(tmp_path: Path) -> None:
    ds = two_year_map()
    store.save(ds, tmp_path / "a.zarr")
    others = [ds.assign(probability=ds.probability.assign_attrs(units="%")), ds.chunk(y=4), ds.assign_attrs(a=1)]
    others.append(ds.drop_vars(["x", "y"]).assign(probability=(("year", "x", "y"), ds.probability.data)))
    for other in others:
        with pytest.raises(OutputExistsError):
            store.save(other, tmp_path / "a.zarr")


def test_a_block_that_keeps_failing_is_set_aside_and_only_it_is_done_later(tmp_path: Path) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    path = tmp_path / "b.zarr"
    with pytest.raises(IncompleteRunError, match=r"1 of 18 blocks of .*b\.zarr.*repeat the call") as caught:
        write_store(path, flaky_map(99, RuntimeError("http://user:secret@host/x?sig=1 broke")))
    assert "secret" not in str(caught.value)
    assert caught.value.failures == (Failure("probability", (1, 1, 2), 3, "RuntimeError: http://host/x broke"),)
    assert not path.exists()
    assert len(list((store.partial_path(path) / "probability" / "c").rglob("*/*/*"))) == 17
    seen: list[Any] = []
    write_store(path, two_year_map(seen=seen))
    assert seen == [(1, 1, 2)]
    found = contents(path)
    manifest = json.loads(found.pop(store.MANIFEST))
    assert manifest["failures"] == [
        {"array": "probability", "block": [1, 1, 2], "tries": 3, "cause": "RuntimeError: http://host/x broke"}
    ]
    expected.pop(store.MANIFEST)
    assert found == expected


def test_a_block_that_failed_once_is_tried_again_and_recorded(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr", flaky_map(2, RuntimeError("now and then")))
    (failure,) = store.read_manifest(path)["failures"]
    assert failure["cause"] == "RuntimeError: now and then"
    np.testing.assert_array_equal(xr.open_zarr(path).probability, two_year_map().probability)


def test_what_rasters_break_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"a\.tif is cut; 1 of 18") as caught:
        write_store(tmp_path / "a.zarr", flaky_map(99, ReadError("a.tif is cut")))
    assert isinstance(caught.value, IncompleteReadError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), IncompleteReadError)


def test_bad_input_ends_the_run_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^wrong units$"):
        write_store(tmp_path / "a.zarr", flaky_map(1, InputError("wrong units")))


def test_a_log_that_was_cut_short_is_made_good(tmp_path: Path) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    path = tmp_path / "b.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=9))
    log = store.partial_path(path) / "icemap" / "chunks.log"
    log.write_text(log.read_text()[:-30])
    assert contents(write_store(path)) == expected


@pytest.mark.parametrize("moment", ["manifest", "plan"])
def test_killed_when_only_the_name_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    path = tmp_path / "a.zarr"
    target = (store.os, "replace") if moment == "plan" else (store, "_take_name")

    def die(*arguments: Any) -> None:
        if moment == "manifest" or Path(arguments[1]) == path:
            raise Killed
        rename(*arguments)

    rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(*target, die)
        with pytest.raises(Killed):
            store.write({"": two_year_map()}, path, plan=PLAN, call="test")
    assert (store.partial_path(path) / store.MANIFEST).exists()
    with pytest.raises(OutputExistsError, match="unfinished store of other"):
        store.check_writable(path, PLAN | {"number": 2})
    seen: list[Any] = []
    store.write({"": two_year_map(seen=seen)}, path, plan=PLAN, call="test")
    assert seen == []
    assert contents(path) == contents(store.write({"": two_year_map()}, tmp_path / "b.zarr", plan=PLAN, call="test"))


def test_a_store_with_a_hole_is_never_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store.write_groups({"": two_year_map()}, path, plan=PLAN)
    (store.partial_path(path) / "probability" / "c" / "1" / "2" / "0").unlink()
    with pytest.raises(IncompleteStoreError, match=r"lacks 1 chunks, such as probability/c/1/2/0"):
        store.finish(path, plan=PLAN)
    assert not path.exists()


def _interrupted(tmp_path: Path) -> tuple[Path, Path]:
    path = tmp_path / "b.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=9))
    return path, store.partial_path(path)


@pytest.mark.parametrize("damage", ["cut", "zeroed"])
def test_a_chunk_that_a_power_cut_spoiled_is_written_again(tmp_path: Path, damage: str) -> None:
    expected = contents(write_store(tmp_path / "a.zarr"))
    path, partial = _interrupted(tmp_path)
    chunk = next(file for file in sorted(partial.glob("probability/c/*/*/*")) if file.is_file())
    log, name = partial / "icemap" / "chunks.log", chunk.relative_to(partial).as_posix()
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[: len(whole) // 2] if damage == "cut" else bytes(len(whole)))
    lines = [line for line in log.read_text().splitlines(keepends=True) if not line.rstrip().endswith(name)]
    log.write_text("".join(lines))
    write_store(path)
    assert contents(path) == expected


def test_metadata_changed_while_a_store_was_unfinished_are_refused(tmp_path: Path) -> None:
    path, partial = _interrupted(tmp_path)
    file = partial / "probability" / "zarr.json"
    file.write_text(file.read_text().replace("float32", "float64"))
    with pytest.raises(IncompleteStoreError, match=r"zarr.json was changed.*delete"):
        write_store(path)


def test_a_finished_store_whose_metadata_changed_is_not_returned(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    ds = two_year_map().assign_attrs(sigma=0.5)
    store.save(ds, path)
    file = path / "zarr.json"
    file.write_text(file.read_text().replace('"sigma": 0.5', '"sigma": 0.6'))
    with pytest.raises(IncompleteStoreError, match=r"zarr.json is damaged"):
        store.save(ds, path)
