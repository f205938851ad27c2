"""Whoever is killed, and however: the same call finishes the store to the same bytes, and redoes what was in flight.

The short form of `benchmarks/chaos.py`.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from icemap_xr import store
from icemap_xr.errors import IncompleteStoreError
from icemap_xr.testing import chaos
from icemap_xr.verify import verify

BLOCKS = 8


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.make_cube(tmp_path_factory.mktemp("cube"), BLOCKS)


def test_a_client_killed_at_random_points(cube: Path, tmp_path: Path) -> None:
    verdict = chaos.kill_clients(cube, tmp_path, points=3, seed=0, blocks=BLOCKS)
    assert verdict.good, verdict


def test_a_client_killed_whose_cluster_goes_on(cube: Path, tmp_path: Path) -> None:
    with chaos.scheduler_with_workers() as (address, _):
        verdict = chaos.kill_clients(cube, tmp_path, points=2, seed=2, blocks=BLOCKS, scheduler=address)
    assert verdict.good, verdict


def test_a_scheduler_killed_at_random_points(cube: Path, tmp_path: Path) -> None:
    verdict = chaos.kill_schedulers(cube, tmp_path, points=2, seed=1, blocks=BLOCKS)
    assert verdict.good, verdict


@pytest.mark.parametrize("mode", ["sys.exit", "graceful", "segfault"])
def test_workers_that_die_all_the_time(cube: Path, tmp_path: Path, mode: chaos.Mode) -> None:
    verdict = chaos.kill_workers(cube, tmp_path, mode, "3 s", BLOCKS)
    assert verdict.good, verdict
    assert verdict.redone > 0, "no worker died over a block"


def reading(path: Path) -> str:
    try:
        faults = verify(path)
    except IncompleteStoreError as error:
        return str(error)
    return "\n".join(faults) or "whole"


def test_a_reader_during_the_write_is_told_that_it_is_not_finished(cube: Path, tmp_path: Path) -> None:
    output = tmp_path / "maps.zarr"
    process, told = chaos.start_job(cube, output), set[str]()
    while process.is_alive() and not output.exists():
        if store.partial_path(output).exists():
            told.add(reading(output))
    assert chaos.ended(process, output) == "finished"
    # whole only if it got its name between the look and the reading
    assert f"{output} is not finished: repeat the call that writes it, it resumes" in told
    assert len(told - {"whole"}) == 1
    assert store.read_manifest(output)["failures"] == []
    assert reading(output) == "whole"


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, xarray as xr, dask.array as da
from icemap_xr import store
from icemap_xr.errors import StoreError

def save(output):
    values = np.random.default_rng(0).random((4, 200, 200)).astype("f4")
    lazy = da.from_array(values, chunks=(1, 100, 100))
    store.save(xr.Dataset({"probability": (("year", "y", "x"), lazy)}), output)
    np.testing.assert_array_equal(xr.open_zarr(output).probability, values)

if __name__ == "__main__":
    if limit := int(sys.argv[2]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        save(Path(sys.argv[1]))
    except StoreError as error:
        print(error)
        sys.exit(3)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    (tmp_path / "write.py").write_text(FULL_DISK)
    return tmp_path / "write.py"


def run(command: list[object]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240)


def resume(script: Path, output: Path) -> None:
    """Make the call again, with room on the disk."""
    runpy.run_path(str(script))["save"](output)


def files(folder: Path) -> dict[Path, int]:
    """Chunk files and when they were written."""
    found = (file for file in (folder / "probability" / "c").rglob("*") if file.is_file())
    return {file.relative_to(folder): file.stat().st_mtime_ns for file in found}


def test_a_full_disk_ends_the_run_with_one_line_and_the_call_resumes(tmp_path: Path, script: Path) -> None:
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    kept.mkdir()
    # a file system of its own, which ends with the command; what is on it is copied
    mount = f"mount -t tmpfs -o size=256k tmpfs {small}"
    if run(["unshare", "-rm", "sh", "-c", mount]).returncode:
        pytest.skip("this system lets no user make a file system of its own")
    python = f"{sys.executable} {script} {small}/maps.zarr 0"
    shell = f"{mount} && {{ {python}; code=$?; cp -rp {small}/. {kept}/; exit $code; }}"
    full = run(["unshare", "-rm", "sh", "-c", shell])
    assert full.returncode == 3, full.stdout + full.stderr
    (line,) = full.stdout.splitlines()
    assert line.endswith(
        "could not be written (No space left on device): free space on its disk and repeat the call; it resumes"
    )
    assert "Traceback" not in full.stderr
    output = kept / "maps.zarr"
    before = files(store.partial_path(output))
    assert 0 < len(before) < 16
    assert all((store.partial_path(output) / file).stat().st_size > 0 for file in before)
    resume(script, output)
    after = files(output)
    assert len(after) == 16
    assert {file: after[file] for file in before} == before


def test_a_file_size_limit_is_told_as_a_full_disk(tmp_path: Path, script: Path) -> None:
    output = tmp_path / "maps.zarr"
    limited = run([sys.executable, script, output, 20_000])
    assert limited.returncode == 3, limited.stdout + limited.stderr
    assert "File too large" in limited.stdout
    assert "Traceback" not in limited.stderr
    assert not files(store.partial_path(output))
    assert not list((store.partial_path(output) / "probability").rglob("*.partial"))
    resume(script, output)
    assert sorted(os.listdir(tmp_path)) == ["maps.zarr", "write.py"]
