"""Several processes on one plan, some of them killed; and the command line, on real backscatter."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

import icemap_xr as ix
from icemap_xr.testing.tileplans import tile_plan
from icemap_xr.tilequeue import run_tiles
from icemap_xr.tiles import read_plan
from icemap_xr.tilestatus import status

ROOT = Path(__file__).resolve().parents[2]
ICEMAP = Path(sys.executable).parent / "icemap"

WORKER = """
import os, sys, time
from pathlib import Path
from icemap_xr.tilequeue import run_tiles
from icemap_xr.tiles import read_plan

def work(tile):
    with open(Path(sys.argv[1]) / "begun.txt", "a") as log:
        log.write(f"{tile.index} {os.getpid()}\\n")
    time.sleep(0.15)
    with open(Path(sys.argv[1]) / "ended.txt", "a") as log:
        log.write(f"{tile.index} {os.getpid()}\\n")
    return {"pid": os.getpid()}

run_tiles(read_plan(sys.argv[1]), work, stale=2.0)
"""


def lines(path: Path) -> list[tuple[int, int]]:
    text = path.read_text() if path.exists() else ""
    return [(int(line.split()[0]), int(line.split()[1])) for line in text.splitlines()]


def start(plan: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WORKER, str(plan)], text=True, stderr=subprocess.PIPE)


def test_processes_share_a_plan_and_take_over_from_one_that_is_killed(tmp_path: Path) -> None:
    plan = tile_plan(tmp_path / "plan", 40)
    processes = [start(plan.folder) for _ in range(3)]
    victim = processes[0]
    end = time.monotonic() + 60
    try:
        # killed in the middle of a tile
        while time.monotonic() < end:
            begun, ended = (Counter(pid for _, pid in lines(plan.folder / name)) for name in ("begun.txt", "ended.txt"))
            if begun[victim.pid] >= 3 and begun[victim.pid] > ended[victim.pid]:
                break
            time.sleep(0.01)
        os.kill(victim.pid, signal.SIGKILL)
        for process in processes[1:]:
            _, err = process.communicate(timeout=90)
            assert process.returncode == 0, err
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    now = status(plan)
    assert (now.done, now.dead, now.working, now.waiting) == (40, 0, 0, 0)
    finished = Counter(index for index, _ in lines(plan.folder / "ended.txt"))
    assert set(finished) == set(range(40))
    # at most the tile that its killed owner had just ended is done again
    assert sum(finished.values()) <= 41
    begun = Counter(index for index, _ in lines(plan.folder / "begun.txt"))
    assert 40 <= sum(begun.values()) <= 41
    assert len({pid for _, pid in lines(plan.folder / "ended.txt")}) == 3, "not all took part"


def test_a_stopped_process_that_wakes_up_does_not_count_twice(tmp_path: Path) -> None:
    plan = tile_plan(tmp_path / "plan", 12)
    sleeper = start(plan.folder)
    try:
        end = time.monotonic() + 60
        while len(lines(plan.folder / "begun.txt")) <= len(lines(plan.folder / "ended.txt")):
            assert time.monotonic() < end
            time.sleep(0.005)
        os.kill(sleeper.pid, signal.SIGSTOP)
        helper = start(plan.folder)
        _, err = helper.communicate(timeout=90)
        assert helper.returncode == 0, err
        os.kill(sleeper.pid, signal.SIGCONT)
        _, err = sleeper.communicate(timeout=60)
        assert sleeper.returncode == 0, err
    finally:
        sleeper.kill()
        sleeper.communicate()
    records = [json.loads(path.read_text()) for path in (plan.folder / "done").glob("*.json")]
    assert len(records) == 12
    # the tile that it slept over belongs to the one that took it over
    assert all(one["result"]["pid"] == int(one["owner"].split("-")[-2]) for one in records)
    assert status(plan).dead == 0


def icemap(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(ICEMAP), *map(str, arguments)], capture_output=True, text=True, timeout=280)


def test_a_plan_over_real_backscatter_is_planned_run_and_shown(golden: Path, opera: Path, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "pipelines" / "opera_rtc.yaml").read_text())
    content["search"]["provider"] = str(opera)
    content["model"] = {"name": str(golden / "maxpool_grd_filters8.h5"), "features": ["rtc"], "window": 32}
    content |= {"years": [2021], "cluster": {"kind": "local", "workers": 1}}
    config, plan = tmp_path / "config.yaml", tmp_path / "plan"
    config.write_text(yaml.safe_dump(content))
    done = icemap("tiles", "plan", config, plan, "--tile", 1.9)
    assert done.returncode == 0, done.stderr
    tiles = read_plan(plan).tiles
    assert f"{len(tiles)} tiles of 4 km2 in 1 regions" in done.stdout
    chosen = next(tile for tile in tiles if tile.west > 237_000 and tile.south < 3_870_000)
    one = icemap("tiles", "run", plan, "--index", chosen.index)
    assert one.returncode == 0, one.stderr
    assert "1 of 1 tiles are done (1 by this process), 0 set aside" in one.stdout
    # one cluster for all tiles: the model is loaded before the first, and the report is that of all
    assert "is loaded on 1 of 1 workers" in one.stderr
    assert len(list(plan.glob("performance-*.html"))) == 1
    shown = icemap("status", plan)
    assert shown.returncode == 0, shown.stderr
    assert f"1 of {len(tiles)} tiles" in shown.stdout
    results = read_plan(plan).results(chosen)
    maps = ix.open_archive(results / f"{chosen.name}.zarr")["maps/probability"]
    inside = maps.sel(x=slice(chosen.west, chosen.east), y=slice(chosen.north, chosen.south))
    mapped = np.isfinite(maps).sum()
    assert mapped == np.isfinite(inside).sum() > 0, "only the tile itself is mapped"
    content["predict"] = {"gaps": "nearest", "overlap": 0.75}
    config.write_text(yaml.safe_dump(content))
    other = icemap("tiles", "run", plan, "--config", config)
    assert other.returncode == 1
    assert "was made with other options than this configuration (predict)" in other.stderr


def test_dead_tiles_are_told_by_the_exit_code(tmp_path: Path) -> None:
    # a provider that is not there: an option that every tile would meet, so none is blamed
    plan = tile_plan(tmp_path / "plan", 2)
    done = icemap("tiles", "run", plan.folder)
    assert done.returncode == 1
    assert "error:" in done.stderr
    assert status(plan).dead == 0

    def nothing(tile: object) -> dict[str, object]:
        raise OSError("no route to host")

    run_tiles(plan, nothing, stale=1)
    shown = icemap("status", plan.folder)
    assert shown.returncode == 0, shown.stderr
    assert "OSError: no route to host" in shown.stdout


@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, command: str) -> None:
    arguments = [tmp_path / "none", tmp_path / "out", "--tile", 3] if command == "plan" else [tmp_path / "none"]
    done = icemap("tiles", command, *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error:" in done.stderr
