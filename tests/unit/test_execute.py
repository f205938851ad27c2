"""Running blocks: in bounded batches, again when they fail, with progress; final errors end the run as they are."""

from __future__ import annotations

import logging
import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask
import pytest
from dask.delayed import Delayed, delayed

from icemap_xr import execute
from icemap_xr.errors import (
    DamagedChunkError,
    IncompleteStoreError,
    InputError,
    ModelMismatchError,
    ReadError,
    StoreError,
)
from icemap_xr.execute import Trouble, run_blocks

task: Any = delayed(pure=False)


#: what tasks share; they are sent as names and numbers
WORKS: list[Work] = []
LOCK = threading.Lock()


def read(work: int, number: int) -> int:
    with LOCK:
        WORKS[work].started.append(number)
        WORKS[work].failures[number] -= 1
        if WORKS[work].failures[number] >= 0:
            raise WORKS[work].error
    return number


def square(number: int) -> int:
    return number**2


class Work:
    """Squares numbers; a number fails as often as it is told to."""

    def __init__(self, failures: dict[int, int] | None = None, error: BaseException | None = None) -> None:
        self.failures, self.error = Counter(failures or {}), error or OSError("no route to host")
        self.started: list[int] = []
        self.batches: list[int] = []
        self.results: dict[int, int] = {}
        WORKS.append(self)

    def make(self, numbers: Sequence[int]) -> list[Delayed]:
        self.batches.append(len(numbers))
        return [task(square)(task(read)(WORKS.index(self), number)) for number in numbers]

    def done(self, number: int, result: int) -> None:
        assert number not in self.results
        self.results[number] = result

    def run(self, numbers: Sequence[int]) -> execute.Outcome[int]:
        return run_blocks(numbers, self.make, "squaring", done=self.done)


def squares(numbers: Sequence[int]) -> dict[int, int]:
    return {number: number**2 for number in numbers}


def test_each_block_runs_once_and_progress_counts_blocks_only(caplog: pytest.LogCaptureFixture) -> None:
    work = Work()
    with caplog.at_level(logging.INFO, "icemap_xr"):
        assert work.run(range(20)) == execute.Outcome({}, {})
    assert work.results == squares(range(20))
    assert sorted(work.started) == list(range(20))
    assert caplog.messages[-1] == "squaring: 20 of 20 (100 %)"
    assert sum("20 of 20" in line for line in caplog.messages) == 1


def test_no_blocks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "icemap_xr"):
        assert not Work().run([]).lost
    assert not caplog.messages


def test_no_graph_holds_more_than_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "AT_ONCE", 7)
    work = Work()
    work.run(range(45))
    assert work.batches == [7] * 6 + [3]
    assert work.results == squares(range(45))


@pytest.fixture(params=[1, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    with dask.config.set(num_workers=request.param):
        yield


@pytest.mark.usefixtures("threads")
def test_a_block_that_fails_now_and_then_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "AT_ONCE", 6)
    work = Work({3: 2, 8: 1, 9: 2})
    outcome = work.run(range(12))
    assert not outcome.lost
    assert work.results == squares(range(12))
    assert max(Counter(work.started).values()) <= execute.TRIES + 1


@pytest.mark.usefixtures("threads")
def test_a_block_that_keeps_failing_is_set_aside_and_the_rest_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    work = Work({0: 99, 5: 99})
    outcome = work.run(range(9))
    assert set(outcome.lost) == {0, 5}
    assert {trouble.tries for trouble in outcome.lost.values()} == {execute.TRIES}
    assert work.results == squares([1, 2, 3, 4, 6, 7, 8])
    assert outcome.lost[0].cause == "OSError: no route to host"
    assert "squaring: 0 failed and will be tried again (OSError: no route to host)" in caplog.messages


@pytest.mark.parametrize("error", [InputError("wrong units"), ModelMismatchError("other model"), StoreError("full")])
def test_an_error_that_every_block_would_meet_ends_the_run_at_once(error: Exception) -> None:
    work = Work(dict.fromkeys(range(30), 99), error)
    with dask.config.set(num_workers=1), pytest.raises(type(error), match=str(error)) as caught:
        work.run(range(30))
    assert caught.value is error
    assert len(work.started) == 1


def test_a_file_that_cannot_be_read_may_be_readable_later() -> None:
    assert not execute.is_final(ReadError("a.tif"))
    assert not execute.is_final(MemoryError())
    assert Work({2: 2}, ReadError("a.tif")).run(range(4)).lost == {}


def test_a_damaged_chunk_is_met_by_the_blocks_that_need_it_alone() -> None:
    assert execute.is_final(IncompleteStoreError("the cube is gone"))
    error = pickle.loads(pickle.dumps(DamagedChunkError("chunk rtc/c/0/1/2 is missing")))
    outcome = (work := Work({2: 99}, error)).run(range(4))
    assert work.results == squares([0, 1, 3])
    assert {number: trouble.cause for number, trouble in outcome.lost.items()} == {2: "chunk rtc/c/0/1/2 is missing"}


def test_ctrl_c_is_raised_as_it_is() -> None:
    work = Work({2: 1}, KeyboardInterrupt("stop"))
    with pytest.raises(KeyboardInterrupt) as caught:
        work.run(range(4))
    assert caught.value is work.error


def test_ctrl_c_while_blocks_run_one_by_one() -> None:
    work = Work({1: 99})
    failing = work.make

    def make(numbers: Sequence[int]) -> list[Delayed]:
        # alone: the batch has failed, in whatever order its blocks ran
        if len(numbers) == 1:
            work.error = KeyboardInterrupt()
        return failing(numbers)

    with dask.config.set(num_workers=1), pytest.raises(KeyboardInterrupt):
        run_blocks(range(4), make, "squaring", done=work.done)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError("https://user:secret@host/a.tif?sig=secret\nis gone"), "OSError: https://host/a.tif is gone"),
        (ReadError("http://host/a.tif?token=secret"), "http://host/a.tif"),
        (ValueError(), "ValueError: "),
    ],
)
def test_causes_are_one_line_without_credentials(error: Exception, cause: str) -> None:
    assert Trouble(1, error).cause == cause


def test_a_cluster_gets_no_more_than_a_batch_at_once_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from distributed import Client

    monkeypatch.setattr(execute, "AT_ONCE", 8)
    work = Work({3: 2, 4: 99})
    most: list[int] = []

    def counting(client: Client) -> Callable[[int, int], None]:
        def done(number: int, result: int) -> None:
            most.append(len(client.futures))
            work.done(number, result)

        return done

    # in this process, so that tasks share `work`
    with Client(processes=False, dashboard_address="127.0.0.1:0", n_workers=1, threads_per_worker=2) as client:
        outcome = run_blocks(range(50), work.make, "squaring", done=counting(client))
        with pytest.raises(InputError):
            Work({7: 1}, InputError("wrong")).run(range(50))
    assert set(outcome.lost) == {4}
    assert outcome.lost[4].tries == 3
    assert set(outcome.mended) == {3}
    assert work.results == squares(sorted({*range(50)} - {4}))
    assert max(most) <= 8
    assert (work.started.count(3), work.started.count(4)) == (3, 3)


def test_what_was_given_up_after_its_own_deadline_is_not_tried_again() -> None:
    """A reader's tries and those of the blocks would otherwise multiply."""
    over = ReadError("no answer within the deadline")
    over.given_up = True
    assert pickle.loads(pickle.dumps(over)).given_up
    work = Work({3: 100}, over)
    outcome = work.run(range(6))
    assert list(outcome.lost) == [3]
    assert outcome.lost[3].tries == 1
    # the first failure ends the graph of all, which does not say whose it was
    assert work.started.count(3) <= 2
    again = Work({3: 100}, ReadError("a disk that stumbles"))
    assert again.run(range(6)).lost[3].tries == execute.TRIES
