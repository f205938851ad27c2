"""Which workers of a cluster do what."""

from __future__ import annotations

from typing import Any

import pytest

from icemap_xr.placing import computes, kind_of, resources


class Client:
    """Stands for a client of a cluster whose workers have these resources."""

    def __init__(self, *workers: dict[str, float]) -> None:
        self.workers = list(workers)

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1, "all of them"
        return {"workers": {f"tcp://{number}": {"resources": one} for number, one in enumerate(self.workers)}}


@pytest.mark.parametrize(
    ("workers", "predict", "read"),
    [
        ([{}, {}], None, None),
        ([{"GPU": 1}, {}], {"GPU": 0.5}, None),
        ([{"GPU": 1}, {"READ": 4}], {"GPU": 0.5}, {"READ": 1.0}),
        ([{"READ": 4}], None, {"READ": 1.0}),
    ],
)
def test_where_blocks_go(
    workers: list[dict[str, float]], predict: dict[str, float] | None, read: dict[str, float] | None
) -> None:
    client: Any = Client(*workers)
    assert resources(client, "predict") == predict
    assert resources(client, "read") == read


def test_a_gpu_that_is_lost_is_waited_for() -> None:
    client: Any = Client({"GPU": 1}, {"READ": 4})
    resources(client, "read")
    client.workers = [{"READ": 4}]
    assert resources(client, "predict") == {"GPU": 0.5}, "a reader would be kept from reading"
    other: Any = Client({})
    assert resources(other, "predict") is None


def test_what_is_a_prediction() -> None:
    assert kind_of(["icemap-read-rtc", "array-1"]) == "read"
    assert kind_of(["array-1", "icemap-predict-0a1b"]) == "predict"


def test_readers_are_spared_the_model() -> None:
    assert [computes(one) for one in ({}, {"GPU": 1}, {"READ": 4}, {"READ": 4, "GPU": 1})] == [True, True, False, True]
