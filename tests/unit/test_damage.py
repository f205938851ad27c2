"""What happens to an unfinished store, or to the cube a map is made from, is mended, or found, and never sealed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr

from icemap_xr import blockjob, store
from icemap_xr.archive import archive
from icemap_xr.cube import open_cube
from icemap_xr.errors import IncompleteRunError, IncompleteStoreError
from icemap_xr.testing.fakes import FakePredictor, small_grid
from icemap_xr.testing.stores import PLAN, Killed, contents, two_year_map, write_store
from icemap_xr.verify import reopen, verify


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No block is in flight when another one fails."""
    with dask.config.set(num_workers=1):
        yield


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "a bit of a coordinate": lambda partial: flip(partial / "y" / "c" / "0"),
    "a coordinate in another's place": lambda partial: shutil.copy(
        partial / "x" / "c" / "0", partial / "y" / "c" / "0"
    ),
    "a coordinate lost": lambda partial: shutil.rmtree(partial / "x"),
    "another type": lambda partial: edit(partial / "year" / "zarr.json", "int64", "uint64"),
    "another projection": lambda partial: edit(partial / "spatial_ref" / "zarr.json", "32633", "32632"),
    "an attribute of the root": lambda partial: edit(partial / "zarr.json", "fake", "evil"),
    "the root": lambda partial: (partial / "zarr.json").unlink(),
    "a group": lambda partial: (partial / "icemap" / "zarr.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_happens_to_an_unfinished_store_is_made_good(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.zarr"
    expected = contents(write_store(tmp_path / "b.zarr", two_year_map().assign_attrs(model="fake")))
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=9).assign_attrs(model="fake"))
    DAMAGE[damage](store.partial_path(path))
    seen: list[Any] = []
    write_store(path, two_year_map(seen=seen).assign_attrs(model="fake"))
    assert len(seen) < 18
    assert contents(path) == expected
    assert verify(path) == []


def test_killed_while_it_is_made_good_the_next_call_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, expected = tmp_path / "a.zarr", contents(write_store(tmp_path / "b.zarr"))
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=9))
    real, left = store.os.replace, [3]

    def dying(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store.os, "replace", dying)
        with pytest.raises(Killed):
            write_store(path)
    assert (store.partial_path(path) / "icemap" / "draft").exists()
    write_store(path)
    assert contents(path) == expected


@pytest.mark.parametrize("file", ["y/c/0", "probability/c/1/1/1"])
def test_damage_when_only_the_name_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    path, expected = tmp_path / "a.zarr", contents(write_store(tmp_path / "b.zarr"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "_take_name", lambda _: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            store.write({"": two_year_map()}, path, plan=PLAN, call="the call that wrote it")
    flip(store.partial_path(path) / file)
    store.write({"": two_year_map()}, path, plan=PLAN, call="the call that wrote it")
    assert contents(path) == expected


def test_a_store_opened_for_repair_knows_its_metadata(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    (path / "probability" / "c" / "1" / "1" / "1").unlink()
    assert len(reopen(path)) == 1
    edit(store.partial_path(path) / "probability" / "zarr.json", '"NaN"', "0.0")
    with pytest.raises(
        IncompleteStoreError, match=r"probability/zarr\.json was changed or lost.*delete .*a\.zarr\.partial"
    ):
        write_store(path)


def test_a_plan_that_cannot_be_read_says_what_to_delete(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(Killed):
        write_store(path, two_year_map(fail_after=3))
    (store.partial_path(path) / "icemap" / "plan.json").write_text("{")
    with pytest.raises(IncompleteStoreError, match=r"plan\.json is damaged.*delete .*a\.zarr\.partial and repeat"):
        write_store(path)


def blocks_in(folder: Path) -> set[tuple[int, ...]]:
    """Positions of the chunks of a store's maps."""
    chunks = folder / "probability" / "c"
    return {tuple(map(int, file.relative_to(chunks).parts)) for file in chunks.rglob("*") if file.is_file()}


@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_chunk_of_the_cube_costs_the_blocks_that_need_it_alone(
    rtc_cube: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 8)
    cube, path = Path(shutil.copytree(rtc_cube, tmp_path / "cube.zarr")), tmp_path / "maps.zarr"
    chunk = cube / "rtc" / "c" / "1" / "0" / "0"
    content = chunk.read_bytes()

    def save(to: Path) -> xr.Dataset:
        maps = open_cube(cube).icemap.predict(FakePredictor(8, 3, ("rtc", "insar")))
        saved: xr.Dataset = maps.icemap.to_zarr(to)
        return saved

    whole = save(tmp_path / "whole.zarr").load()
    if missing:
        chunk.unlink()
    else:
        flip(chunk)
    with pytest.raises(IncompleteRunError, match=r"run icemap verify .*cube\.zarr.*blocks of .* are missing") as caught:
        save(path)
    lost = {failure.block for failure in caught.value.failures}
    every = blocks_in(tmp_path / "whole.zarr")
    assert (0, 0, 0) in lost
    assert len(lost) < len(every) / 2
    assert all("missing" in one.cause or "cannot be decoded" in one.cause for one in caught.value.failures)
    assert blocks_in(store.partial_path(path)) == every - lost
    chunk.write_bytes(content)
    xr.testing.assert_identical(save(path).load(), whole)


def test_a_repaired_archive_is_whole_though_its_codec_writes_the_time(tmp_path: Path) -> None:
    grid = small_grid((40, 30))
    values = np.random.default_rng(0).random((1, 40, 30)).astype(np.float32)
    ds = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2020], **grid.coords()})
    path = archive(ds.chunk(y=16), tmp_path / "a.zarr")
    before = (path / "maps" / "x" / "c" / "0").read_bytes()
    flip(next(file for file in sorted((path / "maps" / "probability" / "c").rglob("*")) if file.is_file()))
    assert len(reopen(path)) == 1
    # the time in a gzip header has whole seconds
    time.sleep(1.1)
    archive(ds.chunk(y=16), path)
    assert (path / "maps" / "x" / "c" / "0").read_bytes() != before, "the test would prove nothing"
    assert verify(path) == []
