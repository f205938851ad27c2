"""Work ahead: what overlaps with what, told by events and never by time."""

from __future__ import annotations

from collections.abc import Generator
from threading import Event, Lock, Thread, get_ident

import pytest

from icemap_xr.kernels.ahead import ahead

#: far longer than anything here takes; only a failing test waits so long
PATIENCE = 20


def test_items_come_in_order_and_from_another_thread() -> None:
    threads = set()

    def items() -> Generator[int]:
        for number in range(20):
            threads.add(get_ident())
            yield number

    assert list(ahead(items())) == list(range(20))
    assert len(threads) == 1
    assert get_ident() not in threads
    assert list(ahead(n for n in ())) == []


def test_the_next_item_is_made_while_one_is_used_and_no_further() -> None:
    made = [Event() for _ in range(4)]

    def items() -> Generator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    source = ahead(items())
    assert next(source) == 0
    assert made[1].wait(PATIENCE)
    assert next(source) == 1
    assert made[2].wait(PATIENCE)
    assert not made[3].is_set()
    source.close()


@pytest.mark.parametrize("lane", [None, Lock()])
def test_an_error_of_the_source_arrives_and_the_source_is_closed_at_the_end(lane: Lock | None) -> None:
    closed = []

    def items(fail: bool) -> Generator[int]:
        try:
            yield 1
            if fail:
                raise OSError("gone")
            yield 2
            yield 3
        finally:
            closed.append(fail)

    with pytest.raises(OSError, match="gone"):
        list(ahead(items(True), lane))
    source = ahead(items(False), lane)
    next(source)
    source.close()
    assert closed == [True, False]
    assert lane is None or not lane.locked()


def test_the_lane_is_held_while_items_are_ready_and_let_go_while_one_is_not() -> None:
    lane, may_go_on, second_waits = Lock(), Event(), Event()

    def items() -> Generator[int]:
        yield 0
        second_waits.set()
        assert may_go_on.wait(PATIENCE)
        yield 1

    used = []

    def use() -> None:
        for number in ahead(items(), lane):
            assert lane.locked()
            assert second_waits.wait(PATIENCE)
            used.append(number)

    worker = Thread(target=use)
    worker.start()
    assert second_waits.wait(PATIENCE)
    # item 1 is not ready: another one gets the lane
    assert lane.acquire(timeout=PATIENCE)
    assert used == [0]
    may_go_on.set()
    lane.release()
    worker.join(PATIENCE)
    assert used == [0, 1]
    assert not lane.locked()
