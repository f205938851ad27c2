"""The commands and variables of the pods, run on this machine with certificates of the recipe's own script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import pytest
import requests

from icemap_xr.cluster import cluster
from icemap_xr.errors import InputError
from icemap_xr.kubemanifests import CERTIFICATES, COMM, DASHBOARD, NANNY_PORT, WORKER_DASHBOARD, WORKER_PORT, manifests
from icemap_xr.kubevalues import read_values
from icemap_xr.loopback import free_ports
from icemap_xr.testing import chaos

RECIPE = Path(__file__).resolve().parents[2] / "pipelines" / "creodias"


@dataclass
class Place:
    """What stands for the pods' network and volumes."""

    folder: Path
    ports: dict[int, int]

    def here(self, text: str, **names: str) -> str:
        """Put this machine's paths, ports and names into an argument of a container."""
        text = text.replace(CERTIFICATES, str(self.folder)).replace(
            "icemap-scheduler.icemap.svc.cluster.local", "127.0.0.1"
        )
        for port, own in self.ports.items():
            text = text.replace(str(port), str(own))
        for name, value in names.items():
            text = text.replace(f"$({name})", value)
        return str(self.folder) if text == "/tmp" else text

    def start(self, container: dict[str, Any], name: str) -> subprocess.Popen[bytes]:
        """Run a container's command with its variables; keys that come from a Secret are made up."""
        env = {one["name"]: self.here(one.get("value", "made-up")) for one in container["env"]}
        # the operator adds it, without TLS; nobody may follow it
        env |= {"DASK_WORKER_NAME": name, "DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:1"}
        command = [self.here(one, DASK_WORKER_NAME=name) for one in container["args"]]
        assert command[0] == "dask"
        with (self.folder / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *command],
                env=os.environ | env,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )


def containers() -> dict[str, dict[str, Any]]:
    made, readers, _ = manifests(read_values(RECIPE / "values.yaml"))["40-cluster.yaml"]
    specs = {"scheduler": made["spec"]["scheduler"], "gpu": made["spec"]["worker"], "reader": readers["spec"]["worker"]}
    return {name: one["spec"]["containers"][0] for name, one in specs.items()}


def ports() -> dict[int, int]:
    return dict(zip((WORKER_PORT, WORKER_DASHBOARD, NANNY_PORT), (*free_ports(), free_ports()[0]), strict=True))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Address, HTTP address and a client's configuration of a cluster of one GPU worker and one reader."""
    folder = tmp_path_factory.mktemp("pods")
    subprocess.run(["sh", RECIPE / "certificates.sh", folder], check=True, timeout=60)
    assert not (folder / "ca.key").exists()
    shared = dict(zip((COMM, DASHBOARD), free_ports(), strict=True))
    client = {"distributed.comm.tls.ca-file": str(folder / "ca.crt"), "distributed.comm.require-encryption": "true"}
    client |= {
        f"distributed.comm.tls.client.{one}": str(folder / f"tls.{end}")
        for one, end in (("cert", "crt"), ("key", "key"))
    }
    http = f"http://127.0.0.1:{shared[DASHBOARD]}"
    started: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        for name, container in containers().items():
            process = Place(folder, shared | ports()).start(container, name)
            stack.callback(process.wait, 60)
            started.append(process)
            end = time.monotonic() + 60
            while name == "scheduler" and not healthy(http):
                assert process.poll() is None, (folder / "scheduler.log").read_text()
                assert time.monotonic() < end, (folder / "scheduler.log").read_text()
                time.sleep(0.1)
        # all at once, and then each is waited for
        stack.callback(lambda: [os.killpg(process.pid, signal.SIGKILL) for process in started])
        yield f"tls://127.0.0.1:{shared[COMM]}", http, client


def healthy(http: str) -> bool:
    """What the probes of the pod ask."""
    try:
        return requests.get(f"{http}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def slow(number: int) -> int:
    time.sleep(1.0)
    return number


def test_the_pods_make_a_cluster_that_maps(running: tuple[str, str, dict[str, str]], tmp_path: Path) -> None:
    address, http, client_config = running
    cube = chaos.make_cube(tmp_path, 4)
    expected = tmp_path / "alone" / "maps.zarr"
    expected.parent.mkdir()
    chaos.job(cube, expected, pause=0.0)
    with pytest.raises(InputError, match=r"set distributed.comm.tls"), cluster(address):
        pass
    with dask.config.set(client_config), cluster(address, gpus=1, wait=60) as client:
        assert client is not None
        client.wait_for_workers(2, timeout=60)
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert {one["id"]: one["resources"] for one in workers.values()} == {"gpu": {"GPU": 1}, "reader": {"READ": 4}}
        assert all(at.startswith("tls://") for at in workers)
        chaos.job(cube, tmp_path / "maps.zarr", pause=0.0)
        assert chaos.chunks(tmp_path / "maps.zarr") == chaos.chunks(expected)
        check_autoscaling(client, http)


def check_autoscaling(client: Any, http: str) -> None:
    """What the operator asks: GPUs for the tasks that need them, and to retire these alone."""
    assert requests.get(f"{http}/api/v1/adaptive_target", timeout=10).json() == {"workers": 0}
    reading = client.map(slow, range(100, 108), resources={"READ": 1}, pure=False)
    mapping = client.map(slow, range(5), resources={"GPU": 0.5}, pure=False)
    end = time.monotonic() + 10
    while (wanted := requests.get(f"{http}/api/v1/adaptive_target", timeout=10).json()["workers"]) != 3:
        assert time.monotonic() < end, wanted
        time.sleep(0.01)
    retired = requests.post(f"{http}/api/v1/retire_workers", json={"n": 1}, timeout=60).json()
    assert [one["name"] for one in retired.values()] == ["gpu"]
    assert client.gather(reading) == list(range(100, 108)), "the reader goes on"
    client.cancel(mapping)
