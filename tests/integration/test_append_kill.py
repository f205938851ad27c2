"""A process that appends years to an archive is killed: readers see the old years or all, and the call resumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from icemap_xr.archive import archive, open_archive, read_outlines
from icemap_xr.errors import IncompleteStoreError
from icemap_xr.testing.archives import calibrated, maps, tables
from icemap_xr.verify import verify

OLD, NEW = [2019, 2020], [2021, 2022, 2023, 2024]
SCRIPT = """
import os, signal, sys, time
from icemap_xr import appending
from icemap_xr.testing.archives import calibrated, maps, tables

def slow(block, block_id=None):
    if block_id[0] == 0:  # the other thread goes on
        time.sleep(float(os.environ["PAUSE"]))
    return block

def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)

ds = calibrated(maps(range(2021, 2025), seed=9))
given = tables(ds)
lazy = ds.chunk(year=1)
data = lazy.probability.data.map_blocks(slow, dtype="f4", name="new", meta=lazy.probability.data._meta)
lazy = lazy.assign(probability=lazy.probability.copy(data=data))
if sys.argv[2] == "sidecars":  # the stores have changed places by then
    appending.write_sidecars = killed
appending.append(sys.argv[1], lazy, **given)
"""


CHILDREN: list[subprocess.Popen[bytes]] = []


def start(path: Path, point: str, pause: float = 0.0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, str(path), point]
    with (path.parent / "log").open("w") as log:
        CHILDREN.append(subprocess.Popen(command, env={**os.environ, "PAUSE": str(pause)}, stderr=log))
    return CHILDREN[-1]


def chunks(folder: Path) -> dict[str, tuple[int, int]]:
    """Finished chunks of the probability, and which files they are."""
    found = folder / "maps" / "probability" / "c"
    files = [one for one in found.rglob("*") if one.name.isdigit() and one.is_file()]
    return {str(one.relative_to(folder)): (one.stat().st_ino, one.stat().st_mtime_ns) for one in files}


def seen(path: Path) -> tuple[int, ...]:
    """Years of maps and outlines that a reader finds, who opens an archive again that changed while it was open."""
    for _ in range(20):
        try:
            tree = open_archive(path)
            years = [int(year) for year in tree["maps/year"].values]
            outlines = read_outlines(tree)
        except IncompleteStoreError:  # which says to open it again
            continue
        assert sorted(set(outlines["year"])) == years
        return tuple(years)
    raise AssertionError("the archive never held still")


@pytest.fixture(autouse=True)
def no_child_outlives_its_test() -> Iterator[None]:
    yield
    while CHILDREN:
        child = CHILDREN.pop()
        child.kill()
        child.wait()


@pytest.mark.timeout(280)
def test_an_append_that_is_killed_twice(tmp_path: Path) -> None:
    ds = calibrated(maps(OLD))
    path = archive(ds, tmp_path / "a.zarr", **tables(ds))
    clean = sorted(one.name for one in tmp_path.iterdir())
    unfinished = tmp_path / ".a.next.zarr.partial"

    child, views = start(path, "blocks", pause=60), set()
    while child.poll() is None and len(chunks(unfinished)) < 3:
        views.add(seen(path))
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert child.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert views | {seen(path)} == {tuple(OLD)}
    assert verify(path) == []
    done = chunks(unfinished)
    assert 3 <= len(done) < 6

    child = start(path, "sidecars")
    while child.poll() is None:
        views.add(seen(path))
        time.sleep(0.05)
    assert child.returncode == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert views | {seen(path)} == {tuple(OLD), tuple(OLD + NEW)}
    # what was written before the first kill was not written again
    assert done.items() <= chunks(path).items()
    # the store is whole, and the files beside it are still of the old years, which is told
    beside = [f"../{name}: is damaged" for name in ("a.glaciers.parquet", "a.json", "a.parquet")]
    assert sorted(verify(path)) == beside
    assert set(gpd.read_parquet(path.with_suffix(".parquet"))["year"]) == set(OLD)

    child = start(path, "nowhere")
    assert child.wait() == 0, (tmp_path / "log").read_text()
    assert set(gpd.read_parquet(path.with_suffix(".parquet"))["year"]) == {*OLD, *NEW}
    assert sorted(one.name for one in tmp_path.iterdir() if one.name != "log") == clean
    new = calibrated(maps(NEW, seed=9))
    both = np.concatenate([ds["probability"], new["probability"]])
    np.testing.assert_array_equal(open_archive(path)["maps/probability"], both)
    assert verify(path) == []
