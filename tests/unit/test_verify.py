"""Every flipped bit and every missing file of a finished store is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr

from icemap_xr import store
from icemap_xr.cube import build_cube
from icemap_xr.errors import IncompleteStoreError, InputError
from icemap_xr.manifest import FILES, LOCK, MANIFEST, read_manifest, read_table
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster
from icemap_xr.testing.stores import two_year_map, write_store
from icemap_xr.verify import check_file, find_faults, reopen, repair_commands, verify


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    make(folder, folder / "cube.zarr")
    return folder / "cube.zarr"


def make(folder: Path, path: Path) -> None:
    values = np.random.default_rng(0).lognormal(-3, 1, (20, 24))
    values[:, :8] = np.nan
    item = rtc_item(write_raster(folder / "a.tif", values), "2020-05-01")
    build_cube(pystac.ItemCollection([item]), small_grid((20, 24)), path, steps=1, chunk=8)


def faults(path: Path) -> list[str]:
    try:
        return verify(path)
    except IncompleteStoreError as error:
        return [str(error)]


def all_files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def copy_of(cube: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cube, tmp_path / "copy.zarr"))


def test_a_whole_store_has_no_fault(cube: Path) -> None:
    assert verify(cube) == []
    (cube / LOCK).touch()  # a writer that was killed in its last moment leaves it
    assert verify(cube) == []
    (cube / LOCK).unlink()


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (value,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([value ^ 1 << bit % 8]))


def test_a_thousand_flipped_bits_are_found_and_the_file_is_named(cube: Path) -> None:
    rng, missed, table, flips = np.random.default_rng(1), [], read_table(cube / FILES), 0
    paths = all_files(cube)
    assert {path.relative_to(cube).as_posix() for path in paths} == {*table, FILES, MANIFEST}
    sizes = np.array([path.stat().st_size for path in paths], float)
    # some in every file, the others where most bytes are
    chosen = [*paths, *rng.choice(np.array(paths, object), 1000 - len(paths), p=sizes / sizes.sum())]
    for number, path in enumerate(chosen):
        name, bit = path.relative_to(cube).as_posix(), int(rng.integers(0, 8 * path.stat().st_size))
        flip(path, bit)
        flips += 1
        # the whole store once for each file; later a file of the table by itself, as the whole check does it
        alone = number >= len(paths) and name in table
        found = [str(check_file(cube, name, table[name]))] if alone else faults(cube)
        flip(path, bit)
        if not any(name.split("/")[0] in line and path.name in line for line in found):
            missed.append((name, bit, found))
    assert missed == []
    assert flips == 1000
    assert verify(cube) == []


def test_every_bit_of_the_manifest_and_of_the_table_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    store.save(xr.Dataset({"a": ("x", [1.0])}, attrs={"step": 1e-05}), path)
    text = (path / MANIFEST).read_text()
    # the first is the same number, written another way
    for old, new in (("e-05", "E-05"), ("\n ", "\n  "), ('"software"', '"softwarf"'), ("}", "} ")):
        assert old in text
        (path / MANIFEST).write_text(text.replace(old, new, 1))
        assert verify(path) == ["icemap/manifest.json: is damaged"]
    (path / MANIFEST).write_bytes(text.replace("\n", "\r\n").encode())
    assert verify(path) == ["icemap/manifest.json: is damaged"]
    (path / MANIFEST).write_text(text)
    table = (path / FILES).read_text()
    (path / FILES).write_text(table.replace("  ", " ", 1))
    assert verify(path) == ["icemap/files.sha256: is damaged"]
    (path / FILES).unlink()
    assert verify(path) == ["icemap/files.sha256: is missing"]
    (path / FILES).write_text(table)
    assert verify(path) == []


def test_a_hundred_missing_files_are_found_and_named(cube: Path) -> None:
    rng, paths = np.random.default_rng(2), all_files(cube)
    chosen = [*paths, *rng.choice(np.array(paths, object), 100)][: max(100, len(paths))]
    assert len(chosen) >= 100
    for path in chosen:
        content = path.read_bytes()
        path.unlink()
        assert any(path.name in line for line in faults(cube)), path
        path.write_bytes(content)
    chunk = cube / "rtc" / "c" / "0" / "1" / "2"
    content = chunk.read_bytes()
    chunk.unlink()
    assert verify(cube) == ["rtc: chunk c/0/1/2 is missing"]
    shutil.copy(cube / "rtc" / "c" / "0" / "1" / "1", chunk)
    assert verify(cube) == ["rtc: chunk c/0/1/2 is damaged"], "a whole chunk in another's place"
    chunk.write_bytes(content)


def test_a_file_that_does_not_belong_there_is_named(cube: Path, tmp_path: Path) -> None:
    path = copy_of(cube, tmp_path)
    (path / "rtc" / "notes.txt").write_text("mine")
    assert verify(path) == ["rtc/notes.txt: is unexpected"]
    assert repair_commands(path, find_faults(path)) == [f"rm {path}/rtc/notes.txt"]
    assert len(reopen(path)) == 1
    assert verify(path) == [], "it is whole without the file, and needs no call to be so"


def test_sha256sum_reads_the_table(cube: Path) -> None:
    done = subprocess.run(["sha256sum", "--quiet", "-c", FILES], cwd=cube, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_damaged_chunks_are_written_again_by_the_call_that_wrote_them(cube: Path, tmp_path: Path) -> None:
    path, whole = copy_of(cube, tmp_path), {file: file.read_bytes() for file in all_files(cube)}
    chunks = [path / "rtc" / "c" / "0" / "1" / "2", path / "y" / "c" / "0", path / "rtc_index" / "c" / "0" / "0"]
    chunks[0].write_bytes(b"damaged")
    for chunk in chunks[1:]:
        chunk.unlink()
    kept = (path / "rtc" / "c" / "0" / "0" / "0").stat().st_mtime_ns
    found = find_faults(path)
    assert [fault.what for fault in found] == ["damaged", "missing", "missing"]
    assert repair_commands(path, found) == [f"icemap verify {path} --repair", "ix.build_cube(items, grid, path)"]
    assert reopen(path) == found
    with pytest.raises(IncompleteStoreError, match="is not finished: repeat the call"):
        verify(path)
    make(cube.parent, path)
    assert verify(path) == []
    assert {file: (path / file.relative_to(cube)).read_bytes() for file in whole} == whole
    assert (path / "rtc" / "c" / "0" / "0" / "0").stat().st_mtime_ns == kept
    assert reopen(path) == []


def test_damaged_metadata_means_writing_the_store_again(cube: Path, tmp_path: Path) -> None:
    path = copy_of(cube, tmp_path)
    (path / "rtc" / "zarr.json").write_text("{}")
    found = find_faults(path)
    assert repair_commands(path, found) == [f"rm -r {path}", "ix.build_cube(items, grid, path)"]
    before = all_files(path)
    with pytest.raises(InputError, match=r"rtc/zarr\.json: is damaged, which no block can mend: rm -r"):
        reopen(path)
    assert all_files(path) == before


def test_a_manifest_that_cannot_be_read_still_has_a_remedy(cube: Path, tmp_path: Path) -> None:
    path = copy_of(cube, tmp_path)
    (path / MANIFEST).write_text("{")
    with pytest.raises(IncompleteStoreError, match=r"manifest\.json is damaged.*write the store again") as caught:
        verify(path)
    assert str(caught.value).endswith(f"again: rm -r {path}, then: the call that wrote it")
    # most of what can happen to it leaves the line that is needed
    for old, new in (('"plan"', '"plam"'), ('"plan"', '"pl"n"'), ('"plan_sha256": "', '"plan_sha256": ["')):
        text = (cube / MANIFEST).read_text()
        assert old in text
        (path / MANIFEST).write_text(text.replace(old, new))
        with pytest.raises(IncompleteStoreError) as caught:
            verify(path)
        assert str(caught.value).endswith(f"again: rm -r {path}, then: ix.build_cube(items, grid, path)")
    (path / MANIFEST).unlink()
    with pytest.raises(
        IncompleteStoreError, match=r"has no icemap/manifest\.json.*: rm -r .*, then: the call that wrote"
    ):
        verify(path)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that a command wrote which was started in another folder, with a relative path."""
    (tmp_path / "at work").mkdir()
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "at work")
        patch.setattr(sys, "argv", ["/opt/bin/icemap", "predict", "cube.zarr", "--output", "a.zarr"])
        write_store(Path("a.zarr"))
    return tmp_path / "at work" / "a.zarr"


def test_the_recorded_command_works_from_any_folder(written: Path) -> None:
    flip(written / "probability" / "c" / "1" / "1" / "1", 99)
    call = f"cd '{written.parent}' && icemap predict cube.zarr --output a.zarr"
    assert repair_commands(written, find_faults(written)) == [f"icemap verify '{written}' --repair", call]
    reopen(written)
    write_store(written)
    assert verify(written) == []
    assert read_manifest(written)["written_by"] == call


def test_another_name_of_the_same_place_is_that_place(written: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(written.parent)
    path = tmp_path / "link" / "a.zarr"
    flip(path / "probability" / "c" / "1" / "1" / "1", 99)
    assert repair_commands(path, find_faults(path))[0] == f"icemap verify {path} --repair"


def test_a_store_that_was_moved_goes_back_for_repair(written: Path, tmp_path: Path) -> None:
    path, call = tmp_path / "moved.zarr", f"cd '{written.parent}' && icemap predict cube.zarr --output a.zarr"
    written.rename(path)
    flip(path / "probability" / "c" / "1" / "1" / "1", 99)
    commands = repair_commands(path, find_faults(path))
    assert commands == [f"mv {path} '{written}'", f"icemap verify '{written}' --repair", call, f"mv '{written}' {path}"]
    before = all_files(path)
    with pytest.raises(InputError, match=r"was moved or copied; .* writes to .*a\.zarr: mv "):
        reopen(path)
    assert all_files(path) == before
    path.rename(written)
    reopen(written)
    write_store(written)
    assert verify(written) == []
    written.rename(path)
    (path / "probability" / "zarr.json").write_text("{}")
    assert repair_commands(path, find_faults(path)) == [f"rm -r {path}", call, f"mv '{written}' {path}"]
    written.parent.rename(tmp_path / "elsewhere")
    (command,) = repair_commands(path, find_faults(path))
    assert command.startswith(f"put a whole copy of {path} in its place, or ")
    assert command.endswith(call)


def test_a_copy_is_mended_from_the_store_it_was_copied_from(written: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(written, tmp_path / "copy.zarr"))
    flip(path / "probability" / "c" / "1" / "1" / "1", 99)
    commands = repair_commands(path, find_faults(path))
    assert commands == [f"icemap verify '{written}'", f"rm -r {path}", f"cp -r '{written}' {path}"]
    with pytest.raises(InputError, match="was moved or copied"):
        reopen(path)
    for command in commands[1:]:
        subprocess.run(command, shell=True, check=True)
    assert verify(path) == []
    shutil.rmtree(written)
    write_store(written, two_year_map(seed=1))
    flip(path / "probability" / "c" / "1" / "1" / "1", 99)
    (command,) = repair_commands(path, find_faults(path))
    assert command.startswith("put a whole copy"), "what lies there now is another store"


def test_what_is_no_finished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "none.zarr")
    with pytest.raises(IncompleteStoreError):
        verify(tmp_path)
