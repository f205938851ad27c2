"""How far a plan of tiles is: counts, throughput, causes."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from icemap_xr.errors import EmptySearchError
from icemap_xr.leases import Leases
from icemap_xr.testing.commands import Result
from icemap_xr.testing.tileplans import TileWork as Work
from icemap_xr.testing.tileplans import tile_plan
from icemap_xr.tilequeue import run_tiles
from icemap_xr.tiles import TilePlan, read_plan
from icemap_xr.tilestatus import status


@pytest.fixture
def plan(tmp_path: Path) -> TilePlan:
    return tile_plan(tmp_path / "plan", 9)


def test_status_counts_area_throughput_and_causes(plan: TilePlan) -> None:
    fresh = status(plan)
    assert (fresh.done, fresh.waiting, fresh.tiles_per_hour, fresh.hours_left) == (0, 9, None, None)
    run_tiles(plan, Work(tile5=[EmptySearchError("no scene here")]), tiles=plan.tiles[:6])
    now = status(read_plan(plan.folder))
    assert (now.tiles, now.done, now.dead, now.waiting) == (9, 5, 1, 3)
    assert now.km2_done == pytest.approx(sum(tile.km2 for tile in plan.tiles[:5]))
    assert now.causes == (("no scene here", 1),)
    assert now.tiles_per_hour is not None
    assert now.hours_left is None, "nobody is at work"
    Leases(plan.folder / "leases").take(plan.tiles[7].name, 0)
    now = status(plan)
    assert now.tiles_per_hour is not None
    assert now.hours_left == pytest.approx(3 / now.tiles_per_hour)


def test_a_pause_does_not_count_as_slow_work(plan: TilePlan) -> None:
    run_tiles(plan, Work())
    week, minute = 7 * 86_400, 60
    for number, file in enumerate(sorted((plan.folder / "done").glob("*.json"))):
        record = json.loads(file.read_text())
        when = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number * minute + (week if number >= 6 else 0))
        file.write_text(json.dumps(record | {"when": when.isoformat()}))
    assert status(plan).tiles_per_hour == pytest.approx(60)


def test_the_command_says_that_a_rate_is_an_old_one(plan: TilePlan, icemap: Callable[..., Result]) -> None:
    run_tiles(plan, Work(), tiles=plan.tiles[:6])
    assert "tiles per hour when last at work" in icemap("status", plan.folder).out
    Leases(plan.folder / "leases").take(plan.tiles[7].name, 0)
    shown = icemap("status", plan.folder).out
    assert "tiles per hour" in shown
    assert "last at work" not in shown
