"""Clusters of other systems: what is handed on to their libraries, and what is said where something is missing."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import dask
import pytest
from distributed import LocalCluster

from icemap_xr.cluster import ClusterOptions, cluster
from icemap_xr.errors import ClusterError, InputError, MissingExtraError

SLURM = {"kind": "slurm", "memory": "8GiB"}
KUBERNETES = {"kind": "kubernetes", "memory": "8GiB", "insecure": True, "settings": {"name": "a", "image": "i:1"}}
GATEWAY = {"kind": "gateway", "settings": {"address": "http://127.0.0.1:1"}}


class Recorder:
    """Stands for the library's cluster class: notes its keywords, and starts a cluster in this process."""

    def __init__(self) -> None:
        self.keywords: dict[str, Any] = {}
        self.scaled: list[Any] = []

    def __call__(self, **keywords: Any) -> Any:
        self.keywords = keywords
        recorder = self

        class Started(LocalCluster):
            def scale(self, n: int = 0, **_: Any) -> Any:
                # a cluster that closes asks for no workers first: without it, its loop ends before the worker does
                if n == 0:
                    return super().scale(0)
                return recorder.scaled.append(n)

            def adapt(self, **bounds: Any) -> None:
                recorder.scaled.append(bounds)

        return Started(n_workers=1, processes=False, dashboard_address="127.0.0.1:0", resources={"GPU": 1})


class Refuses:
    """Stands for a library whose cluster class fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, **_: Any) -> Any:
        raise self.error


def provide(monkeypatch: pytest.MonkeyPatch, module: str, name: str, made: Any) -> None:
    """Put a stand-in for a library where it is imported from."""
    found = None
    for depth in range(1, module.count(".") + 2):
        found = ModuleType(".".join(module.split(".")[:depth]))
        monkeypatch.setitem(sys.modules, found.__name__, found)
    setattr(found, name, made)


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.fixture(autouse=True)
def sbatch(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bin")
    (folder / "sbatch").write_text("#!/bin/sh\n")
    (folder / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"kind": "slurm"}, "'slurm' needs memory="),
        (SLURM | {"settings": {"que": "gpu"}}, "unknown setting 'que'.*did you mean 'queue'.*account"),
        (KUBERNETES | {"settings": {"name": "a"}}, "'kubernetes' needs settings={'image': ...}.*docs/clusters.md"),
        (KUBERNETES | {"settings": {"image": "a"}}, "needs settings={'name': ...}"),
        (KUBERNETES | {"memory": "auto"}, "'kubernetes' needs memory="),
        (KUBERNETES | {"insecure": False}, "no TLS between its pods.*docs/clusters.md"),
        (
            KUBERNETES | {"settings": {"name": "a", "image": "b", "env": {"EODATA_SECRET_KEY": "hunter2"}}},
            "env 'EODATA_SECRET_KEY' may be a secret.*secretKeyRef",
        ),
        (
            KUBERNETES | {"settings": {"name": "a", "image": "b", "env": [{"name": "API_TOKEN", "value": "hunter2"}]}},
            "env 'API_TOKEN' may be a secret",
        ),
        ({"kind": "gateway"}, "'gateway' needs the gateway's address.*gateway.address"),
        ({"kind": "gateway", "settings": {"address": "http://192.0.2.1"}}, "neither on this machine nor behind TLS"),
        ({"kind": "gateway", "settings": {"address": "ftp://192.0.2.1"}}, "give an https:// address"),
        (
            {"kind": "gateway", "settings": {"address": "https://me:hunter2@host"}},
            "holds credentials: set gateway.auth",
        ),
    ],
)
def test_what_is_missing_is_said_before_anything_starts(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        ClusterOptions(**options)
    assert "hunter2" not in str(caught.value)


def test_a_secret_by_reference_is_allowed() -> None:
    reference = [{"name": "EODATA_SECRET_KEY", "valueFrom": {"secretKeyRef": {"name": "eodata", "key": "secret"}}}]
    settings = {"name": "a", "image": "b", "env": reference}
    assert ClusterOptions(**(KUBERNETES | {"settings": settings})).settings["env"] == reference


@pytest.mark.parametrize(
    ("options", "module", "match"),
    [
        (SLURM, "dask_jobqueue", r"cluster 'slurm' needs dask-jobqueue: pip install 'icemap-xr\[slurm\]'"),
        (KUBERNETES, "dask_kubernetes", r"cluster 'kubernetes' needs dask-kubernetes: .*'icemap-xr\[kubernetes\]'"),
        (GATEWAY, "dask_gateway", r"cluster 'gateway' needs dask-gateway: pip install 'icemap-xr\[gateway\]'"),
    ],
)
def test_the_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], module: str, match: str
) -> None:
    hide(monkeypatch, module, f"{module}.operator")
    with pytest.raises(MissingExtraError, match=match), cluster(**options):
        pass


def test_certificates_for_slurm_need_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, "dask_jobqueue", "SLURMCluster", Recorder())
    hide(monkeypatch, "cryptography")
    with pytest.raises(MissingExtraError, match=r"certificates with cryptography.*'icemap-xr\[slurm\]'"):
        cluster(**SLURM).__enter__()


def test_slurm_gets_one_worker_per_job_with_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    provide(monkeypatch, "dask_jobqueue", "SLURMCluster", recorder)
    settings = {"queue": "gpu", "walltime": "02:00:00", "job_extra_directives": ["--nice"]}
    with cluster("slurm", workers=3, memory="16GiB", gpus=1, insecure=True, settings=settings) as client:
        assert client is not None
        assert client.submit(sum, [1, 2]).result() == 3
    given = recorder.keywords
    assert (given["cores"], given["processes"], given["memory"]) == (2, 1, "16GiB")
    assert (given["queue"], given["walltime"]) == ("gpu", "02:00:00")
    assert given["job_extra_directives"] == ["--nice", "--gres=gpu:1"]
    assert given["worker_extra_args"] == [
        *("--resources", "GPU=1"),
        *("--dashboard-address", "127.0.0.1:0"),
        *("--preload", "icemap_xr.worker"),
    ]
    assert given["scheduler_options"] == {"dashboard_address": "127.0.0.1:0"}
    assert recorder.scaled[0] == 3


def test_slurm_without_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    provide(monkeypatch, "dask_jobqueue", "SLURMCluster", Recorder())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ClusterError, match="needs the command sbatch"), cluster(**SLURM):
        pass


def test_kubernetes_gets_image_memory_and_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    provide(monkeypatch, "dask_kubernetes.operator", "KubeCluster", recorder)
    with cluster(**KUBERNETES, workers=2, maximum=8, gpus=1):
        pass
    given = recorder.keywords
    assert (given["name"], given["image"], given["n_workers"]) == ("a", "i:1", 2)
    assert given["resources"]["limits"] == {"memory": "8GiB", "nvidia.com/gpu": "1"}
    expected = ["dask", "worker", "--nthreads", "2", "--resources", "GPU=1"]
    # nobody outside the pod sees a worker's dashboard, which has no TLS
    expected += ["--dashboard-address", "127.0.0.1:0", "--preload", "icemap_xr.worker"]
    assert given["worker_command"] == expected
    assert recorder.scaled[0] == {"minimum": 2, "maximum": 8}


def test_a_gateway_gets_its_own_options_and_the_configured_address(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    provide(monkeypatch, "dask_gateway", "GatewayCluster", recorder)
    with (
        dask.config.set({"gateway.address": "https://gateway.example.org"}),
        cluster("gateway", settings={"image": "i"}),
    ):
        pass
    assert recorder.keywords == {
        "address": "https://gateway.example.org",
        "proxy_address": None,
        "public_address": None,
        "image": "i",
    }
    assert recorder.scaled[0] == 1


@pytest.mark.parametrize(
    ("options", "module", "name", "match"),
    [
        (GATEWAY, "dask_gateway", "GatewayCluster", "gateway http://127.0.0.1:1 gives no cluster .*gateway.auth"),
        (KUBERNETES, "dask_kubernetes.operator", "KubeCluster", "the Kubernetes cluster gives no cluster .*kubeconfig"),
        (SLURM | {"insecure": True}, "dask_jobqueue", "SLURMCluster", "SLURM gives no cluster .*queue, account"),
    ],
)
def test_faults_of_the_libraries_are_one_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], module: str, name: str, match: str
) -> None:
    fault = ValueError("401 Unauthorized\nhttps://me:hunter2@host/api?token=hunter2")
    provide(monkeypatch, module, name, Refuses(fault))
    with pytest.raises(ClusterError, match=match) as caught, cluster(**options):
        pass
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_gpu_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class NVMLError(Exception):
        pass

    provide(monkeypatch, "dask_cuda", "LocalCUDACluster", Refuses(NVMLError("Driver Not Loaded")))
    with pytest.raises(ClusterError, match=r"finds no NVIDIA driver .*install it"), cluster("cuda"):
        pass
    provide(monkeypatch, "dask_cuda", "LocalCUDACluster", Refuses(OSError("no space")))
    with pytest.raises(OSError, match="no space"), cluster("cuda"):
        pass
