"""Before work starts: versions compared, a worker waited for, the model loaded everywhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client, LocalCluster, versions
from numpy.typing import NDArray

from icemap_xr.clustercheck import check_versions, late_workers, preload, told_if_gone, wait_for_worker
from icemap_xr.errors import ClusterError, ModelError, VersionMismatchError
from icemap_xr.testing.fakes import FakePredictor
from icemap_xr.types import Batch


@pytest.fixture
def client() -> Iterator[Client]:
    local = LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0")
    with local as started, Client(started, set_as_default=False) as found:
        yield found


def pretend(client: Client, monkeypatch: pytest.MonkeyPatch, place: str, **packages: str | None) -> None:
    """Let a place answer with other versions."""
    found = client.get_versions(packages=["icemap-xr", "xarray", "zarr", "keras", "tensorflow", "numpy", "msgpack"])
    target = next(iter(found["workers"].values())) if place == "worker" else found[place]
    target["packages"] = target["packages"] | packages
    monkeypatch.setattr(client, "get_versions", lambda **_: found)


def test_the_same_environment_is_accepted(client: Client) -> None:
    check_versions(client)


@pytest.mark.parametrize(
    ("place", "packages", "match"),
    [
        (
            "worker",
            {"icemap-xr": "0.0.1"},
            "worker .* has other packages .icemap-xr .* here, 0.0.1 there.*one environment",
        ),
        ("worker", {"tensorflow": None}, "tensorflow .* here, none there"),
        ("worker", {"numpy": "1.26.4"}, "numpy .* here, 1.26.4 there"),
        ("scheduler", {"distributed": "2020.1.0"}, "the scheduler has other packages .distributed"),
        ("scheduler", {"python": "3.9.1.final.0"}, "python .* here, 3.9.1.final.0 there"),
    ],
)
def test_other_versions_are_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch, place: str, packages: dict[str, Any], match: str
) -> None:
    pretend(client, monkeypatch, place, **packages)
    with pytest.raises(VersionMismatchError, match=match):
        check_versions(client)


def test_a_patch_release_and_a_scheduler_without_networks_are_accepted(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(client, monkeypatch, "worker", numpy=f"{np.__version__.rsplit('.', 1)[0]}.999")
    check_versions(client)
    pretend(client, monkeypatch, "scheduler", tensorflow=None, zarr=None)
    check_versions(client)


def test_no_worker_comes() -> None:
    local = LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")
    with (
        local as started,
        Client(started, set_as_default=False) as client,
        pytest.raises(ClusterError, match=r"no worker came within 0.2 s.*wait="),
    ):
        wait_for_worker(client, 0.2)


class Gone:
    """A client whose scheduler died while it waits."""

    def wait_for_workers(self, count: int, timeout: float) -> None:
        raise OSError("Timed out trying to connect to tcp://127.0.0.1:1 after 20 s")


def test_a_scheduler_that_dies_while_workers_are_waited_for_is_told() -> None:
    with pytest.raises(ClusterError, match=r"scheduler is gone .*repeat the call"):
        wait_for_worker(Gone(), 0.2)  # type: ignore[arg-type]


def test_errors_of_a_lost_scheduler_are_told_and_others_are_left_alone(client: Client) -> None:
    with pytest.raises(RuntimeError, match="its own"), told_if_gone(client):
        raise RuntimeError("its own")
    client.close()
    with pytest.raises(ClusterError, match=r"scheduler is gone .RuntimeError.: start it again"), told_if_gone(client):
        raise RuntimeError("ConnectionPool closing.")


@dataclass(frozen=True)
class Noting(FakePredictor):
    """Leaves a line for every call."""

    log: str = ""

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()} {len(batch)}\n")
        return super().__call__(batch)


@dataclass(frozen=True)
class Broken(FakePredictor):
    """Cannot be loaded."""

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        raise ModelError("the file has changed: load the model again")


def test_the_model_is_loaded_once_on_each_worker_and_on_those_that_join_later(client: Client, tmp_path: Path) -> None:
    log = tmp_path / "calls.txt"
    preload(client, Noting(log=str(log)))
    assert len(log.read_text().splitlines()) == 1
    preload(client, Noting(log=str(log)))
    assert len(log.read_text().splitlines()) == 1, "loaded twice"
    client.cluster.scale(2)
    client.wait_for_workers(2, timeout=30)
    assert len(log.read_text().splitlines()) == 2, "the late worker has no model"


def test_a_model_that_cannot_be_loaded_is_told_before_work(client: Client) -> None:
    with pytest.raises(ModelError, match="the file has changed"):
        preload(client, Broken())


def test_a_late_worker_with_another_version_is_turned_away(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = versions.get_versions
    with late_workers(client):
        first = set(client.scheduler_info()["workers"])
        assert len(first) == 1, "a worker with the same packages stays"

        def pretended(packages: Any = None) -> Any:
            found = asked(packages)
            return found | {"packages": found["packages"] | {"icemap-xr": "0.0.1"}}

        monkeypatch.setattr(versions, "get_versions", pretended)
        client.cluster.scale(2)
        deadline = time.monotonic() + 20
        while "0.0.1 there" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        while set(client.scheduler_info()["workers"]) != first and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "VersionMismatchError" in caplog.text
        assert "icemap-xr" in caplog.text
        assert "0.0.1 there" in caplog.text
        assert set(client.scheduler_info()["workers"]) == first
        assert client.submit(sum, [1, 2]).result(timeout=20) == 3
