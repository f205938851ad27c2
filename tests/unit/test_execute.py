"""Running tasks: each once, the first failure as it is, with progress."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest
from dask.delayed import delayed

from icemap_xr.execute import run_tasks

task: Any = delayed(pure=False)


def test_each_task_runs_once_and_progress_counts_tasks_only(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []
    lock = threading.Lock()

    @task
    def read(number: int) -> int:
        return number

    @task
    def write(number: int) -> None:
        with lock:
            done.append(number)

    with caplog.at_level(logging.INFO, "icemap_xr"):
        run_tasks([write(read(number)) for number in range(20)], "writing")
    assert sorted(done) == list(range(20))
    assert caplog.messages[-1] == "writing: 20 of 20 (100 %)"
    assert sum("20 of 20" in line for line in caplog.messages) == 1


def test_no_tasks_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "icemap_xr"):
        run_tasks([], "writing")
    assert not caplog.messages


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt("stop")])
def test_a_failure_is_raised_as_it_is(error: BaseException) -> None:
    @task
    def fail() -> None:
        raise error

    with pytest.raises(type(error), match=str(error)) as caught:
        run_tasks([fail()], "writing")
    assert caught.value is error
