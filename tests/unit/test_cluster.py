"""Clusters: on 127.0.0.1 only, options checked, nothing left behind."""

from __future__ import annotations

import builtins
import os
import socket
import subprocess
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import dask
import pytest
from distributed import Client, LocalCluster

from icemap_xr.cluster import ClusterOptions, cluster
from icemap_xr.errors import ClusterError, InputError, MissingExtraError
from icemap_xr.placing import AT_WORK


def test_threads_need_no_cluster() -> None:
    with cluster("threads") as client:
        assert client is None


def test_a_local_cluster_runs_in_other_processes_and_listens_on_loopback_only() -> None:
    with cluster("local", workers=1) as client:
        assert client is not None
        assert client.submit(os.getpid).result() != os.getpid()
        info = client.scheduler_info()
        assert urlsplit(client.scheduler.address).hostname == "127.0.0.1"
        assert {urlsplit(address).hostname for address in info["workers"]} == {"127.0.0.1"}
        assert urlsplit(client.dashboard_link).hostname == "127.0.0.1"
        address = client.scheduler.address
        with cluster(address) as joined:
            assert joined is not None
            assert joined.submit(sum, [1, 2]).result() == 3
            assert Client.current() is joined
    assert client.status == "closed"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "pbs"}, "'pbs' is not allowed.*'local'"),
        ({"workers": 0}, "workers=0"),
        ({"threads": 0}, "threads=0"),
        ({"workers": 1.5}, "workers=1.5 is not allowed: give a whole number"),
        ({"threads": True}, "threads=True is not allowed"),
        ({"threads": None}, "threads=None is not allowed"),
        ({"gpus": "1"}, "gpus='1' is not allowed"),
        ({"memory": "lots"}, "memory='lots' is not allowed: give a size such as '8GiB'"),
        ({"memory": "-1GiB"}, "memory='-1GiB' is not allowed"),
        ({"memory": 8}, "memory=8 is not allowed"),
        ({"dashboard": 99999}, "dashboard=99999 is not allowed: give a port up to 65535"),
        ({"wait": float("nan")}, "wait=nan is not allowed"),
        ({"wait": 0}, "wait=0"),
        ({"workers": 3, "maximum": 2}, "maximum=2 with workers=3.*at least"),
        ({"kind": "cuda", "maximum": 2}, "maximum=2.*not allowed for 'cuda'"),
        ({"gpus": 1}, "gpus=1 is not allowed for 'local'"),
        ({"settings": {"queue": "gpu"}}, "'local' takes no settings .got queue."),
        ({"host": "0.0.0.0"}, "host '0.0.0.0' is not this machine's loopback.*distributed.comm.tls.*insecure=True"),
        ({"host": "cluster.example.org"}, "not this machine's loopback"),
        ({"kind": "cuda", "host": "192.0.2.1"}, "not this machine's loopback"),
        ({"kind": "tcp://192.0.2.1:8786"}, "scheduler tcp://192.0.2.1:8786 is neither.*tls://.*insecure=True"),
        ({"kind": "tcp://user:hunter2@host:8786"}, "scheduler tcp://host:8786 is neither"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ClusterOptions(**options)
    with pytest.raises(InputError, match=match), cluster(**options):
        pass


@pytest.mark.parametrize(
    "options",
    [
        {"host": "127.0.0.2"},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "0.0.0.0", "insecure": True},
        {"kind": "tcp://localhost:8786"},
        {"kind": "tls://192.0.2.1:8786"},
        {"kind": "tcp://192.0.2.1:8786", "insecure": True},
    ],
)
def test_loopback_tls_and_explicit_leave_are_allowed(options: dict[str, Any]) -> None:
    ClusterOptions(**options)


def test_a_host_beyond_loopback_speaks_tls_with_the_configured_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    done = subprocess.run([*make.split(), "-keyout", key, "-out", certificate], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    tls = {"distributed.comm.tls.ca-file": str(certificate)}
    for role in ("scheduler", "worker", "client"):
        tls |= {f"distributed.comm.tls.{role}.key": str(key), f"distributed.comm.tls.{role}.cert": str(certificate)}
    # all addresses of this machine, as on a cluster's head node
    beyond = cluster("local", workers=1, threads=1, host="0.0.0.0")
    with dask.config.set(tls), beyond as client:
        assert client is not None
        port = urlsplit(client.scheduler.address).port
        assert client.scheduler.address.startswith("tls://")
        assert client.submit(sum, [1, 2]).result() == 3
        with cluster(f"tls://127.0.0.1:{port}") as joined:
            assert joined is not None
            assert joined.submit(sum, [1, 2]).result() == 3
        # a client without certificates, or without encryption, is not let in
        monkeypatch.setattr(import_module("icemap_xr.cluster"), "_JOIN_SECONDS", 2.0)
        refusals = {"tls": "asks for certificates: set distributed.comm.tls", "tcp": "no scheduler answers"}
        for scheme, said in refusals.items():
            bare, address = dask.config.set(dict.fromkeys(tls)), f"{scheme}://127.0.0.1:{port}"
            with bare, pytest.raises(InputError, match=said), cluster(address):
                pass


def test_a_worker_computes_one_block_and_reads_another() -> None:
    assert ClusterOptions().threads == AT_WORK


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    # the package has a function of the module's name
    monkeypatch.setattr(import_module("icemap_xr.cluster"), "_JOIN_SECONDS", 0.5)
    with pytest.raises(InputError, match=f"no scheduler answers at {address}.*check address"), cluster(address):
        pass
    assert dask.compute(dask.delayed(sum)([1, 2])) == (3,), "what failed to join must not be waited for"


def answering(listening: socket.socket, said: bytes) -> None:
    """Say something to whoever comes, as a server of another kind does, and leave the connection open."""
    kept = []
    while True:
        try:
            kept.append(listening.accept()[0])
        except OSError:
            return
        kept[-1].sendall(said)


@pytest.mark.parametrize("said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\1\0\0\0\0\0\0\0x"])
def test_an_address_where_something_else_answers(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(import_module("icemap_xr.cluster"), "_JOIN_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=answering, args=(listening, said), daemon=True).start()
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"{address} is no Dask scheduler .*own address"), cluster(address):
            pass
    assert dask.compute(dask.delayed(sum)([1, 2])) == (3,), "what failed to join must not be waited for"


def test_a_worker_and_a_dashboard_are_no_schedulers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("icemap_xr.cluster"), "_JOIN_SECONDS", 0.5)
    options: dict[str, Any] = {"processes": False, "dashboard_address": "127.0.0.1:0", "host": "127.0.0.1"}
    with LocalCluster(n_workers=1, protocol="tcp", **options) as local:
        (worker,) = local.scheduler.workers
        for address in (worker, f"tcp://127.0.0.1:{local.scheduler.http_server.port}"):
            with pytest.raises(ClusterError, match="no Dask scheduler"), cluster(address):
                pass


def test_gpus_need_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "dask_cuda":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'icemap-xr\[gpu\]'"), cluster("cuda"):
        pass
