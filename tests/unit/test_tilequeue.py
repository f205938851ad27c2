"""The queue of tiles: tries, causes, what is set aside, what ends the run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from icemap_xr.errors import (
    AccessError,
    CatalogUnavailableError,
    ClusterError,
    ElevationError,
    EmptySearchError,
    IcemapError,
    InputError,
    ModelError,
    PlanError,
    ReadError,
    SchemaError,
    StoreError,
)
from icemap_xr.leases import Leases
from icemap_xr.testing.tileplans import TileWork as Work
from icemap_xr.testing.tileplans import tile_plan
from icemap_xr.tilequeue import dead_tiles, revive, run_tiles
from icemap_xr.tiles import TilePlan
from icemap_xr.tilestatus import status


@pytest.fixture
def plan(tmp_path: Path) -> TilePlan:
    return tile_plan(tmp_path / "plan", 9)


def test_each_tile_is_done_once_and_a_second_call_does_nothing(plan: TilePlan) -> None:
    work = Work()
    outcome = run_tiles(plan, work)
    assert (outcome.done, outcome.own, outcome.dead, outcome.left) == (9, 9, (), 0)
    assert set(work.calls.values()) == {1}
    again = Work()
    assert run_tiles(plan, again).own == 0
    assert not again.calls


def test_a_tile_that_fails_is_tried_after_all_others(plan: TilePlan) -> None:
    work = Work(tile2=[ReadError("gone"), ReadError("gone")])
    outcome = run_tiles(plan, work, stale=1)
    assert outcome.done == 9
    assert work.calls[2] == 3
    assert status(plan).retried == 1


def test_a_tile_that_keeps_failing_is_set_aside_with_its_cause(plan: TilePlan) -> None:
    faults: list[BaseException] = [OSError("disk https://me:hunter2@host is\nfull") for _ in range(5)]
    outcome = run_tiles(plan, Work(tile4=faults), stale=1)
    (dead,) = outcome.dead
    assert (dead.name, dead.tries) == (plan.tiles[4].name, 3)
    assert dead.cause.startswith("OSError: disk")
    assert "hunter2" not in dead.cause
    assert "\n" not in dead.cause
    assert outcome.done == 8
    # it stays so until it is revived
    assert run_tiles(plan, Work()).dead == outcome.dead
    assert revive(plan) == 1
    assert run_tiles(plan, Work()).dead == ()


def test_what_a_catalogue_does_not_have_is_not_asked_for_again(plan: TilePlan) -> None:
    work = Work(tile0=[EmptySearchError("no scene here")] * 5)
    (dead,) = run_tiles(plan, work).dead
    assert work.calls[0] == 1
    assert dead.cause == "no scene here"


@pytest.mark.parametrize(
    "error",
    [ModelError("no such weights"), CatalogUnavailableError("try later"), ClusterError("the Dask scheduler is gone")],
)
def test_what_every_tile_would_meet_ends_the_run_and_blames_no_tile(plan: TilePlan, error: IcemapError) -> None:
    with pytest.raises(type(error), match=str(error)):
        run_tiles(plan, Work(**{f"tile{number}": [error] * 9 for number in range(9)}))
    assert dead_tiles(plan) == []
    assert run_tiles(plan, Work()).done == 9


def test_what_is_wrong_with_one_tile_alone_does_not_end_the_run(plan: TilePlan) -> None:
    (dead,) = run_tiles(plan, Work(tile2=[ElevationError("no heights here")] * 5)).dead
    assert (dead.name, dead.tries) == (plan.tiles[2].name, 1)


def test_an_input_error_before_any_tile_is_done_asks_a_second_tile(plan: TilePlan) -> None:
    option = InputError("gaps='linear' is not allowed")
    work = Work(**{f"tile{number}": [option] * 9 for number in range(9)})
    with pytest.raises(InputError, match="is not allowed"):
        run_tiles(plan, work)
    assert sum(work.calls.values()) == 2
    assert dead_tiles(plan) == []
    # one tile's raster, met first
    first = next(iter(work.calls))
    (dead,) = run_tiles(plan, Work(**{f"tile{first}": [InputError("a raster of angles")] * 9}), stale=1).dead
    assert (dead.name, dead.cause) == (plan.tiles[first].name, "a raster of angles")


def test_the_only_tile_of_a_call_is_not_blamed_for_an_option(plan: TilePlan) -> None:
    with pytest.raises(InputError, match="is not allowed"):
        run_tiles(plan, Work(tile4=[InputError("gaps is not allowed")] * 9), tiles=plan.tiles[4:5])
    assert dead_tiles(plan) == []


def test_an_input_error_that_other_tiles_did_not_meet_is_of_the_tile(plan: TilePlan) -> None:
    run_tiles(plan, Work(), tiles=plan.tiles[:1])
    work = Work(tile5=[SchemaError("two scenes on another grid")] * 9)
    (dead,) = run_tiles(plan, work, stale=1).dead
    assert (dead.name, dead.tries) == (plan.tiles[5].name, 1)
    assert work.calls[5] <= 3
    assert sum(work.calls.values()) == 7 + work.calls[5]


@pytest.mark.parametrize(
    "error",
    [
        InputError("calibrator.json does not exist"),
        AccessError("the environment variable EODATA_ACCESS_KEY is not set"),
        StoreError("the disk is full"),
        ReadError("status 403"),
    ],
)
def test_what_tile_after_tile_meets_is_of_none(tmp_path: Path, error: IcemapError) -> None:
    plan = tile_plan(tmp_path / "plan", 30)
    run_tiles(plan, Work(), tiles=plan.tiles[:1])
    work = Work(**{f"tile{number}": [error] * 9 for number in range(1, 30)})
    with pytest.raises(type(error), match=str(error)):
        run_tiles(plan, work)
    assert sum(work.calls.values()) == 10
    assert dead_tiles(plan) == []
    assert run_tiles(plan, Work()).done == 30


def test_tiles_that_keep_failing_are_set_aside_also_where_they_are_many(tmp_path: Path) -> None:
    plan = tile_plan(tmp_path / "plan", 14)
    faults: dict[str, list[BaseException]] = {f"tile{number}": [ReadError("gone")] * 99 for number in range(12)}
    for _ in range(20):
        try:
            run_tiles(plan, Work(**faults), stale=1)
        except ReadError:
            continue
        break
    assert len(dead_tiles(plan)) == 12


def test_without_waiting_a_tile_that_fails_is_tried_on_or_told(plan: TilePlan) -> None:
    outcome = run_tiles(plan, Work(tile3=[ReadError("gone")]), wait=False, stale=1)
    assert (outcome.done, outcome.left) == (9, 0)


def test_without_waiting_a_refused_tile_is_an_error(plan: TilePlan) -> None:
    with pytest.raises(InputError, match="no such resampling"):
        run_tiles(plan, Work(tile1=[InputError("no such resampling")] * 9), tiles=plan.tiles[1:2], wait=False, stale=1)


def test_an_interruption_counts_as_no_try(plan: TilePlan) -> None:
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run_tiles(plan, Work(tile3=[KeyboardInterrupt()]), tiles=plan.tiles[3:4])
    assert run_tiles(plan, Work()).done == 9


def test_processes_that_vanish_three_times_over_a_tile_set_it_aside(plan: TilePlan) -> None:
    leases = Leases(plan.folder / "leases")
    for number in range(3):
        assert leases.take(plan.tiles[1].name, number)
        file = plan.folder / "leases" / f"{plan.tiles[1].name}.{number}.json"
        os.utime(file, (time.time() - 1000,) * 2)
    outcome = run_tiles(plan, Work())
    (dead,) = outcome.dead
    assert dead.cause.startswith(f"its process {leases.owner} died or lost the disk")
    assert outcome.done == 8


def test_tiles_of_others_are_left_to_them(plan: TilePlan) -> None:
    Leases(plan.folder / "leases").take(plan.tiles[0].name, 0)
    work = Work()
    outcome = run_tiles(plan, work, wait=False)
    assert (outcome.done, outcome.left) == (8, 1)
    assert work.calls[0] == 0
    now = status(plan)
    assert (now.done, now.working, now.waiting, len(now.workers)) == (8, 1, 0, 1)


def test_a_plan_that_cannot_be_written_is_told_before_work(plan: TilePlan) -> None:
    # a file in the place of a folder denies writing to everybody, also to root
    (plan.folder / "leases").write_text("")
    work = Work()
    with pytest.raises(PlanError, match="cannot be written"):
        run_tiles(plan, work)
    assert not work.calls


def test_a_result_that_is_no_json_is_an_error(plan: TilePlan) -> None:
    with pytest.raises(StoreError, match="must be plain JSON"):
        run_tiles(plan, lambda tile: {"x": object()})
