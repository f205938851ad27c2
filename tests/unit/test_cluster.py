"""Clusters: on 127.0.0.1 only, options checked, nothing left behind."""

from __future__ import annotations

import builtins
import os
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import dask
import pytest
from distributed import Client

from icemap_xr.cluster import ClusterOptions, cluster
from icemap_xr.errors import InputError, MissingExtraError


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
        ({"kind": "slurm"}, "'slurm' is not allowed.*'local'"),
        ({"workers": 0}, "workers=0"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        ClusterOptions(**options)
    with pytest.raises(InputError, match=match), cluster(**options):
        pass


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense://127.0.0.1:1"])
def test_a_scheduler_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    # the package has a function of the module's name
    monkeypatch.setattr(import_module("icemap_xr.cluster"), "_JOIN_SECONDS", 0.5)
    with pytest.raises(InputError, match=f"no scheduler answers at {address}.*check address"), cluster(address):
        pass
    assert dask.compute(dask.delayed(sum)([1, 2])) == (3,), "what failed to join must not be waited for"


def test_gpus_need_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "dask_cuda":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'icemap-xr\[gpu\]'"), cluster("cuda"):
        pass
