"""Clusters of other systems behind `icemap_xr.cluster`: dask-gateway, Kubernetes, SLURM, GPUs. Thin adapters.

Each hands the options on to the library that knows the system, and turns its faults into errors that say what to set.
None of these libraries is needed to import this module.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import dask

from icemap_xr.errors import ClusterError, IcemapError, InputError, MissingExtraError, did_you_mean
from icemap_xr.loopbacks import is_loopback, tls_files
from icemap_xr.placing import GPU
from icemap_xr.urls import scrub

if TYPE_CHECKING:
    from icemap_xr.cluster import ClusterOptions

#: settings of each kind, which are keywords of the library behind it; a gateway's own options are not known here
KNOWN: dict[str, tuple[str, ...] | None] = {
    "gateway": None,
    "kubernetes": (
        "create_mode",
        "custom_cluster_spec",
        "env",
        "idle_timeout",
        "image",
        "name",
        "namespace",
        "port_forward_cluster_ip",
        "resource_timeout",
        "scheduler_forward_port",
        "scheduler_service_type",
    ),
    "slurm": (
        "account",
        "death_timeout",
        "interface",
        "job_cpu",
        "job_directives_skip",
        "job_extra_directives",
        "job_mem",
        "job_script_prologue",
        "local_directory",
        "log_directory",
        "python",
        "queue",
        "shared_temp_directory",
        "walltime",
    ),
}

#: names of environment variables that hold secrets
_SECRET = re.compile(r"secret|token|passw|credential|(?:^|_)key(?:$|_)", re.IGNORECASE)
_PRELOAD = "icemap_xr.worker"


def check_settings(options: ClusterOptions) -> None:
    """Refuse options that the kind of cluster cannot have, before anything is started.

    Raises
    ------
    InputError
        A setting is unknown or missing, holds a secret, or leaves the cluster open.
    """
    if options.kind not in KNOWN:
        if options.settings:
            raise InputError(
                f"cluster kind {options.kind!r} takes no settings (got {', '.join(options.settings)}): they belong to "
                f"{', '.join(KNOWN)}"
            )
        return
    known = KNOWN[options.kind]
    for name in options.settings:
        if known is not None and name not in known:
            raise InputError(
                f"unknown setting {name!r} of cluster kind {options.kind!r}{did_you_mean(name, known)}; known are "
                f"{', '.join(known)}"
            )
    {"gateway": _check_gateway, "kubernetes": _check_kubernetes, "slurm": _check_slurm}[options.kind](options)


def _check_gateway(options: ClusterOptions) -> None:
    address = _gateway_address(options)
    if not address:
        raise InputError(
            "cluster kind 'gateway' needs the gateway's address: give settings={'address': 'https://...'}, or set "
            "gateway.address in Dask's configuration"
        )
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise InputError(
            f"gateway address {scrub(address)} holds credentials: set gateway.auth in Dask's configuration"
        )
    if parts.scheme not in ("http", "https"):
        raise InputError(f"gateway address {scrub(address)} is not allowed: give an https:// address")
    if parts.scheme == "http" and not is_loopback(parts.hostname) and not options.insecure:
        raise InputError(
            f"gateway {scrub(address)} is neither on this machine nor behind TLS, and your credentials would travel in "
            "the clear: use its https:// address, or give insecure=True in a network you trust"
        )


def _gateway_address(options: ClusterOptions) -> str | None:
    given = options.settings.get("address")
    return str(given) if given else dask.config.get("gateway.address", None)


def _check_kubernetes(options: ClusterOptions) -> None:
    settings = options.settings
    if not settings.get("custom_cluster_spec"):
        _need(options, "image", "a container image that has icemap-xr and what it needs (docs/clusters.md)")
        _need(options, "name", "a name for the cluster's resources")
        _need_memory(options)
    env = settings.get("env") or {}
    plain = env.items() if isinstance(env, Mapping) else ((one.get("name"), one.get("value")) for one in env)
    for name, value in plain:
        if value is not None and _SECRET.search(str(name)):
            raise InputError(
                f"env {name!r} may be a secret, and would be written into a manifest: refer to a Kubernetes Secret "
                f"instead, env=[{{'name': {str(name)!r}, 'valueFrom': {{'secretKeyRef': ...}}}}]"
            )
    if not options.insecure:
        raise InputError(
            "cluster kind 'kubernetes' has no TLS between its pods: give insecure=True if their network is closed to "
            "others, or start a scheduler with TLS yourself and join its tls:// address (docs/clusters.md)"
        )


def _check_slurm(options: ClusterOptions) -> None:
    _need_memory(options)


def _need(options: ClusterOptions, name: str, what: str) -> None:
    if not options.settings.get(name):
        raise InputError(f"cluster kind {options.kind!r} needs settings={{{name!r}: ...}}: {what}")


def _need_memory(options: ClusterOptions) -> None:
    if options.memory == "auto":
        raise InputError(
            f"cluster kind {options.kind!r} needs memory=: how much a worker gets, such as '16GiB' "
            "(predict(dry_run=True) says how much it takes)"
        )


def start_gateway(options: ClusterOptions) -> Any:
    """Ask a dask-gateway server for a cluster; its TLS certificates come from the server."""
    module = _extra("dask_gateway", options.kind)
    settings = dict(options.settings)
    connect = {name: settings.pop(name, None) for name in ("address", "proxy_address", "public_address")}
    connect["address"] = _gateway_address(options)
    with _explained(f"gateway {scrub(connect['address'])}", "address, gateway.auth and the options it offers"):
        return module.GatewayCluster(**connect, **settings)


def start_kubernetes(options: ClusterOptions) -> Any:
    """Make a DaskCluster resource, from which the Dask operator makes pods."""
    module = _extra("dask_kubernetes.operator", options.kind)
    settings = {"quiet": True, "shutdown_on_close": True} | dict(options.settings)
    if "custom_cluster_spec" not in settings:
        limits = {"memory": options.memory, **({"nvidia.com/gpu": str(options.gpus)} if options.gpus else {})}
        settings |= {
            "n_workers": options.workers or 1,
            "resources": {"limits": limits, "requests": dict(limits)},
            "worker_command": ["dask", "worker", *_worker_arguments(options)],
        }
    with _explained(
        "the Kubernetes cluster", "your kubeconfig, its namespace, and that the Dask operator is installed"
    ):
        return module.KubeCluster(**settings)


def start_slurm(options: ClusterOptions) -> Any:
    """Submit a job per worker; the scheduler runs here, with TLS."""
    module = _extra("dask_jobqueue", options.kind)
    if shutil.which("sbatch") is None:
        raise ClusterError("cluster kind 'slurm' needs the command sbatch: start it on a node that submits jobs")
    settings = dict(options.settings)
    directives = [*settings.pop("job_extra_directives", [])]
    if options.gpus and not any("gpu" in str(one) for one in directives):
        directives.append(f"--gres=gpu:{options.gpus}")
    scheduler = {"dashboard_address": f"127.0.0.1:{options.dashboard or 0}"}
    if not is_loopback(options.host):
        scheduler["host"] = options.host
    with _explained("SLURM", "queue, account, walltime and memory"):
        return module.SLURMCluster(
            cores=options.threads,
            processes=1,
            memory=options.memory,
            security=_security(options),
            scheduler_options=scheduler,
            job_extra_directives=directives,
            worker_extra_args=_worker_arguments(options)[2:],
            silence_logs="critical",
            **settings,
        )


def start_cuda(options: ClusterOptions, shared: Mapping[str, Any]) -> Any:
    """Start a worker for each GPU of this machine."""
    module = _extra("dask_cuda", options.kind)
    # TensorFlow takes a whole GPU unless told before its import
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    try:
        return module.LocalCUDACluster(resources={GPU: 1}, **shared)
    except Exception as error:
        # pynvml's, which is there only with the extra
        if "NVML" not in f"{type(error).__name__} {error}":
            raise
        raise ClusterError(
            f"cluster 'cuda' finds no NVIDIA driver ({scrub(str(error))}): install it, or choose another kind"
        ) from None


def _worker_arguments(options: ClusterOptions) -> list[str]:
    resources = ["--resources", f"{GPU}=1"] if options.gpus else []
    # by default it is on all addresses, over plain HTTP; whoever is on the worker's own machine still sees it
    dashboard = ["--dashboard-address", "127.0.0.1:0"]
    return ["--nthreads", str(options.threads), *resources, *dashboard, "--preload", _PRELOAD]


def _security(options: ClusterOptions) -> Any:
    """Return certificates: the configured ones, else new ones for this cluster alone."""
    if options.insecure:
        return None
    from distributed.security import Security

    if tls_files("scheduler", "worker", "client"):
        return Security(require_encryption=True)
    try:
        return Security.temporary()
    except ImportError:
        raise MissingExtraError(
            f"cluster {options.kind!r} makes its own certificates with cryptography: pip install "
            f"'icemap-xr[{options.kind}]', or set distributed.comm.tls in Dask's configuration"
        ) from None


def _extra(module: str, kind: str) -> Any:
    extra = {"cuda": "gpu"}.get(kind, kind)
    try:
        return import_module(module)
    except ImportError:
        name = module.split(".")[0].replace("_", "-")
        raise MissingExtraError(f"cluster {kind!r} needs {name}: pip install 'icemap-xr[{extra}]'") from None


@contextmanager
def _explained(what: str, check: str) -> Iterator[None]:
    """Turn a library's fault into an error of one line."""
    try:
        yield
    except IcemapError:
        raise
    except Exception as error:
        text = scrub(" ".join(str(error).split()))[:300]
        raise ClusterError(f"{what} gives no cluster ({type(error).__name__}: {text}): check {check}") from None


STARTERS: dict[str, Callable[[ClusterOptions], Any]] = {
    "gateway": start_gateway,
    "kubernetes": start_kubernetes,
    "slurm": start_slurm,
}
