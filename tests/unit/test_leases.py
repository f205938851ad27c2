"""Leases: one owner at a time, signs of life, takeover, and a record of every try."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from icemap_xr.leases import LeaseLost, Leases


def age(folder: Path, name: str, seconds: float) -> None:
    """Let a lease look as if it had not been renewed for so long."""
    then = time.time() - seconds
    os.utime(folder / name, (then, then))


def test_one_of_many_gets_a_try(tmp_path: Path) -> None:
    won: list[str] = []
    start = threading.Barrier(16)

    def reach() -> None:
        leases = Leases(tmp_path)
        start.wait()
        if leases.take("a", 0):
            won.append(leases.owner)

    threads = [threading.Thread(target=reach) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    (only,) = Leases(tmp_path).tries("a")
    assert only.owner == won[0]


def test_a_stale_try_is_followed_by_one_other(tmp_path: Path) -> None:
    first, second, third = (Leases(tmp_path, 60) for _ in range(3))
    assert first.take("a", 0)
    assert second.alive(second.tries("a")[-1])
    age(tmp_path, "a.0.json", 61)
    assert not second.alive(second.tries("a")[-1])
    assert second.take("a", 1)
    assert not third.take("a", 1), "two took over the same"
    assert [one.owner for one in third.tries("a")] == [first.owner, second.owner]
    assert third.alive(third.tries("a")[-1])


def test_signs_of_life_keep_a_lease(tmp_path: Path) -> None:
    leases, other = Leases(tmp_path, 0.4), Leases(tmp_path, 0.4)
    leases.take("a", 0)
    with leases.kept("a", 0):
        for _ in range(10):
            time.sleep(0.1)
            assert other.alive(other.tries("a")[-1])
    time.sleep(0.6)
    assert not other.alive(other.tries("a")[-1]), "nobody renews it any more"


def test_who_was_taken_over_is_told(tmp_path: Path) -> None:
    leases, other = Leases(tmp_path), Leases(tmp_path)
    leases.take("a", 0)
    with pytest.raises(LeaseLost), leases.kept("a", 0):
        other.take("a", 1)


def test_failures_are_recorded_with_their_cause(tmp_path: Path) -> None:
    leases = Leases(tmp_path)
    leases.take("a", 0)
    leases.fail("a", 0, "no space")
    leases.take("a", 1)
    leases.fail("a", 1, "stopped", counted=False)
    leases.take("a", 2)
    leases.fail("a", 2, "nothing there", final=True)
    found = [(one.cause, one.final, one.counted) for one in leases.tries("a")]
    assert found == [("no space", False, True), ("stopped", False, False), ("nothing there", True, True)]
    assert not any(leases.alive(one) for one in leases.tries("a"))
    leases.close()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
