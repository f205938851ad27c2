"""Workers and a scheduler as processes of their own, with TLS, over a network that fails: the right bytes come out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask
import pytest
from distributed import get_task_stream

from icemap_xr import store
from icemap_xr.cluster import cluster
from icemap_xr.clustercheck import preload
from icemap_xr.errors import ClusterError, IncompleteRunError
from icemap_xr.placing import resources
from icemap_xr.testing import chaos, namespaces
from icemap_xr.testing.nodes import Member, Nodes, certificates, join, nodes

BLOCKS = 12
PARTED, WHOLE = Member(parted=True), Member()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.make_cube(tmp_path_factory.mktemp("cube"), BLOCKS)


@pytest.fixture(scope="module")
def expected(cube: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("alone") / "maps.zarr"
    chaos.job(cube, output, pause=0.0)
    return chaos.chunks(output)


@contextmanager
def when_begun(output: Path, act: Callable[[], None], blocks: int = 2) -> Iterator[None]:
    """Do something in the middle of a job."""
    stop, acted = threading.Event(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            if chaos.written(output) >= blocks:
                acted.set()
                act()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert acted.is_set(), "the job had ended before"


def mapped(cube: Path, output: Path, address: str, tls: dict[str, str], *, workers: int = 2) -> dict[str, bytes]:
    """Map the cube on a cluster that is joined over TLS."""
    assert urlsplit(address).scheme == "tls"
    with dask.config.set(tls), cluster(address) as client:
        assert client is not None
        client.wait_for_workers(workers, timeout=60)
        chaos.job(cube, output)
    return chaos.chunks(output)


def part(running: Nodes, seconds: float) -> None:
    for proxy in running.proxies[0]:
        proxy.part()
    time.sleep(seconds)
    for proxy in running.proxies[0]:
        proxy.join()


def test_a_partition_that_heals(cube: Path, expected: dict[str, bytes], tls: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "maps.zarr"
    with nodes([PARTED, WHOLE], config=tls) as running, when_begun(output, lambda: part(running, 2.0)):
        assert mapped(cube, output, running.address, tls) == expected
    # nobody was given up, so nothing was done twice
    assert chaos.calls(output) == BLOCKS
    assert store.read_manifest(output)["failures"] == []


def test_a_partition_that_lasts_longer_than_a_worker_is_waited_for(
    cube: Path, expected: dict[str, bytes], tls: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "maps.zarr"
    ttl = {"distributed.scheduler.worker-ttl": "1s"}
    with (
        nodes([PARTED, WHOLE], config=tls | ttl) as running,
        when_begun(output, lambda: [proxy.part() for proxy in running.proxies[0]]),
    ):
        assert mapped(cube, output, running.address, tls) == expected


def test_connections_that_are_cut(cube: Path, expected: dict[str, bytes], tls: dict[str, str], tmp_path: Path) -> None:
    output = tmp_path / "maps.zarr"
    with (
        nodes([PARTED, WHOLE], config=tls) as running,
        when_begun(output, lambda: [proxy.cut() for proxy in running.proxies[0]]),
    ):
        assert mapped(cube, output, running.address, tls) == expected


def test_a_worker_is_lost_and_another_joins_late(
    cube: Path, expected: dict[str, bytes], tls: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "maps.zarr"
    with ExitStack() as late, nodes([WHOLE, WHOLE], config=tls) as running:

        def swap() -> None:
            chaos.kill(running.workers[0])
            join(running, WHOLE, tls, late)

        with when_begun(output, swap):
            assert mapped(cube, output, running.address, tls) == expected
    pids = {int(line) for line in output.with_name(chaos.CALLS).read_text().splitlines()}
    assert running.workers[2].pid in pids, "the late worker did nothing"


def test_a_scheduler_that_is_restarted_at_its_address(
    cube: Path, expected: dict[str, bytes], tls: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "maps.zarr"
    with nodes([WHOLE], config=tls) as running:
        with when_begun(output, lambda: chaos.kill(running.scheduler)), pytest.raises(IncompleteRunError) as caught:
            mapped(cube, output, running.address, tls, workers=1)
        assert "the Dask scheduler is gone" in str(caught.value)
        assert store.partial_path(output).exists()
        port = urlsplit(running.address).port
    assert port is not None
    with nodes([WHOLE], config=tls, port=port) as again:
        assert again.address == running.address
        assert mapped(cube, output, again.address, tls, workers=1) == expected
    # what was in flight is done again, and no more
    assert chaos.calls(output) <= BLOCKS + 2


def test_a_cable_that_is_pulled(cube: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    if (refusal := namespaces.reason()) is not None:
        pytest.skip(refusal)
    output = tmp_path / "maps.zarr"
    found = namespaces.run(cube, output, 1.0)
    assert chaos.chunks(output) == expected
    assert found["workers"] == 2
    assert chaos.calls(output) == BLOCKS


@pytest.fixture(scope="module")
def mixed() -> Iterator[tuple[Nodes, Any]]:
    """A cluster of one worker with a (pretended) GPU and one that reads."""
    members = [Member({"GPU": 1}), Member({"READ": 2})]
    with nodes(members) as running, cluster(running.address, gpus=1) as client:
        assert client is not None
        client.wait_for_workers(2, timeout=60)
        yield running, client


def places(client: Any) -> tuple[str, str]:
    """Addresses of the worker with a GPU and of the one that reads."""
    found = client.scheduler_info(n_workers=-1)["workers"]
    return tuple(next(at for at, one in found.items() if name in one["resources"]) for name in ("GPU", "READ"))


def test_predictions_go_to_gpus_and_reading_to_readers(mixed: tuple[Nodes, Any], tmp_path: Path) -> None:
    running, client = mixed
    gpu, reader = places(client)
    with get_task_stream(client) as reading:
        cube = chaos.make_cube(tmp_path, 4)
    # short sums over what was read go anywhere
    blocks = [one for one in reading.data if "icemap-write" in str(one["key"])]
    assert len(blocks) >= 4 * 4
    assert {one["worker"] for one in blocks} == {reader}
    output = tmp_path / "maps.zarr"
    with get_task_stream(client) as mapping:
        chaos.job(cube, output)
    assert {one["worker"] for one in mapping.data} == {gpu}
    calls = output.with_name(chaos.CALLS).read_text().split()
    assert calls == [str(running.workers[0].pid)] * 4
    # one reads while another computes, and never more than these two
    assert resources(client, "predict") == {"GPU": 0.5}


def test_a_model_is_loaded_where_predictions_go(mixed: tuple[Nodes, Any], tmp_path: Path) -> None:
    running, client = mixed
    log = tmp_path / "calls.log"
    preload(client, chaos.SlowPredictor(pause=0.0, calls=str(log)))
    assert log.read_text().split() == [str(running.workers[0].pid)]


def test_no_worker_with_a_gpu_comes() -> None:
    with (
        nodes([WHOLE]) as running,
        pytest.raises(ClusterError, match=r"no worker with Dask's resource GPU came.*quota"),
    ):
        cluster(running.address, gpus=1, wait=1.0).__enter__()
