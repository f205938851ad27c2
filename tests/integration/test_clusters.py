"""Clusters of other systems, for real on this machine: a dask-gateway server; workers that come late or stand still."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import pytest
import requests

from icemap_xr import store
from icemap_xr.cluster import cluster
from icemap_xr.errors import ClusterError
from icemap_xr.loopback import free_ports
from icemap_xr.testing import chaos

BLOCKS = 4

GATEWAY = """
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = "open sesame"
c.DaskGateway.address = "127.0.0.1:{api}"
c.Proxy.address = "127.0.0.1:{web}"
c.Proxy.tcp_address = "127.0.0.1:{tcp}"
c.LocalBackend.clusters_directory = "{folder}/clusters"
c.LocalBackend.sigint_timeout = 2
c.LocalBackend.inherited_environment = ["PATH", "PYTHONPATH"]
c.ClusterConfig.scheduler_cmd = ["{python}", "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["{python}", "-m", "dask", "worker"]
c.ClusterConfig.worker_cores = 2
"""


@contextmanager
def gateway(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a dask-gateway server; yields its address and the port of its schedulers."""
    (web, tcp), (api, _) = free_ports(), free_ports()
    config = folder / "gateway.py"
    config.write_text(GATEWAY.format(web=web, tcp=tcp, api=api, folder=folder, python=sys.executable))
    command = [sys.executable, "-m", "dask_gateway_server", "-f", str(config)]
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            address, end = f"http://127.0.0.1:{web}", time.monotonic() + 60
            while True:
                try:
                    if requests.get(f"{address}/api/health", timeout=2).ok:
                        break
                except requests.RequestException:
                    pass
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < end, (folder / "log.txt").read_text()
                time.sleep(0.2)
            yield address, tcp
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings for a real dask-gateway server of this test."""
    proxy = pytest.importorskip("dask_gateway_server.proxy", reason="dask-gateway-server is not installed")
    pytest.importorskip("dask_gateway", reason="dask-gateway is not installed")
    if not (Path(proxy.__file__).parent / "dask-gateway-proxy").exists():
        pytest.skip("dask-gateway-server was installed without its proxy, which Go builds")
    with gateway(tmp_path) as (address, tcp):
        yield {"address": address, "proxy_address": tcp}


def auth(password: str) -> Any:
    return dask.config.set(
        {"gateway.auth.type": "basic", "gateway.auth.kwargs": {"username": "me", "password": password}}
    )


def test_a_map_on_a_real_dask_gateway_has_the_same_bytes(server: dict[str, Any], tmp_path: Path) -> None:
    cube = chaos.make_cube(tmp_path, BLOCKS)
    output, alone = tmp_path / "gateway" / "maps.zarr", tmp_path / "alone" / "maps.zarr"
    for path in (output, alone):
        path.parent.mkdir()
    chaos.job(cube, alone, pause=0.0)
    with auth("open sesame"), cluster("gateway", workers=1, settings=server) as client:
        assert client is not None
        assert client.scheduler.address.startswith("gateway://")
        assert client.submit(os.getpid).result() != os.getpid()
        chaos.job(cube, output, pause=0.0)
    assert store.read_manifest(output)["failures"] == []
    assert chaos.chunks(output) == chaos.chunks(alone)


# the client of a gateway that refused is closed after its loop has ended, and says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_wrong_credentials_and_an_unknown_option(server: dict[str, Any]) -> None:
    with auth("wrong"), pytest.raises(ClusterError, match=r"gives no cluster .*gateway.auth") as caught:
        cluster("gateway", settings=server).__enter__()
    assert "wrong" not in str(caught.value)
    with auth("open sesame"), pytest.raises(ClusterError, match=r"worker_memry.*the options it offers"):
        cluster("gateway", settings=server | {"worker_memry": 3}).__enter__()
    gc.collect()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_gateway_that_does_not_answer() -> None:
    pytest.importorskip("dask_gateway", reason="dask-gateway is not installed")
    with pytest.raises(ClusterError, match="gives no cluster"):
        cluster("gateway", settings={"address": "http://127.0.0.1:1"}).__enter__()
    gc.collect()


SBATCH = """#!/bin/sh
cp "$1" "{folder}/job.sh"
setsid sh "{folder}/job.sh" > "{folder}/job.log" 2>&1 &
echo "Submitted batch job $!"
"""
SCANCEL = """#!/bin/sh
for job in "$@"; do kill -- "-$job"; done
"""


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand-ins for the commands of SLURM, which run a job at once."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH.format(folder=tmp_path)), ("scancel", SCANCEL)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    # dask-jobqueue never closes the files of its certificates
    made, opened = tempfile.NamedTemporaryFile, list[Any]()
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda *a, **k: opened.append(made(*a, **k)) or opened[-1])
    yield tmp_path
    for file in opened:
        file.close()


def test_a_map_on_slurm_with_dask_jobqueue_and_tls(slurm: Path, tmp_path: Path) -> None:
    cube = chaos.make_cube(tmp_path, BLOCKS)
    expected, output = undisturbed(cube, tmp_path), tmp_path / "slurm" / "maps.zarr"
    output.parent.mkdir()
    settings = {"interface": "lo", "shared_temp_directory": str(tmp_path), "local_directory": str(tmp_path)}
    # a job for the worker, which must have got what a GPU's worker needs, or no block would come to it
    with cluster("slurm", workers=1, memory="2GiB", gpus=1, wait=60, settings=settings) as client:
        assert client is not None
        assert client.scheduler.address.startswith("tls://")
        chaos.job(cube, output, pause=0.0)
        script = client.cluster.job_script()
    assert chaos.chunks(output) == expected
    assert "--gres=gpu:1" in script
    assert "BEGIN" not in script, "a key in a job's script"


@contextmanager
def late(address: str, output: Path) -> Iterator[None]:
    """Let another worker join once a block of the output is written."""
    stop = threading.Event()
    joined: list[Any] = []

    def join() -> None:
        while not stop.wait(0.02):
            if chaos.written(output):
                joined.append(chaos._start(chaos._run_worker, address))
                return

    thread = threading.Thread(target=join)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for process in joined:
            chaos.kill(process)
    assert joined, "nobody joined"


def undisturbed(cube: Path, folder: Path) -> dict[str, bytes]:
    (folder / "alone").mkdir()
    chaos.job(cube, folder / "alone" / "maps.zarr", pause=0.0)
    return chaos.chunks(folder / "alone" / "maps.zarr")


def test_a_worker_that_joins_late_and_one_that_stands_still(tmp_path: Path) -> None:
    cube = chaos.make_cube(tmp_path, 8)
    expected, output = undisturbed(cube, tmp_path), tmp_path / "late" / "maps.zarr"
    output.parent.mkdir()
    with chaos.scheduler_with_workers(1) as (address, _):
        slow = chaos._start(chaos._run_worker, address)
        try:
            with late(address, output):
                process = chaos.start_job(cube, output, address)
                while not chaos.written(output) and process.is_alive():
                    time.sleep(0.01)
                # for two seconds it answers nobody, as on a machine that swaps
                os.kill(slow.pid, signal.SIGSTOP)
                time.sleep(2)
                os.kill(slow.pid, signal.SIGCONT)
                assert chaos.ended(process, output) == "finished"
        finally:
            chaos.kill(slow)
    assert chaos.chunks(output) == expected
