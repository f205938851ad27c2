"""Dask clusters in one line, ``with ix.cluster("local", workers=2) as client:``."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import dask
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from pydantic import ConfigDict

from icemap_xr.clustercheck import ask_scheduler, check_versions, late_workers, told_if_gone, wait_for_worker
from icemap_xr.clusterkinds import STARTERS, check_settings, start_cuda
from icemap_xr.errors import InputError
from icemap_xr.interrupted import Calm
from icemap_xr.loopbacks import is_loopback, tls_files
from icemap_xr.urls import scrub

if TYPE_CHECKING:
    from distributed import Client


logger = logging.getLogger("icemap_xr")

_JOIN_SECONDS = 20.0
_PORTS = 65_535
#: a worker of a local cluster gets at least this where the user names no number: the published network's peak
_WORKER_MEMORY = 4 * 2**30


_KINDS = ("threads", "local", "cuda", "gateway", "kubernetes", "slurm")


@dataclass(frozen=True)
class ClusterOptions:
    """How to run.

    Parameters
    ----------
    kind
        ``"threads"`` (this process, no cluster), ``"local"`` (processes on this machine), ``"cuda"`` (one process per
        GPU), ``"gateway"`` (a dask-gateway server), ``"kubernetes"`` (the Dask operator), ``"slurm"`` (a job for each
        worker), or the address of a scheduler such as ``"tcp://127.0.0.1:8786"``.
    workers
        Worker processes. By default a local cluster has one per core, but no more than leave each 4 GiB of memory, what
        the published network takes; the others start one. A cuda cluster has one per GPU.
    threads
        Threads per worker. With two, one block is read while another one computes; a model computes one block at a
        time in each worker, on all cores or on the GPU.
    memory
        Memory limit per worker, such as ``"8GiB"``.
    dashboard
        Port of the dashboard on 127.0.0.1; None for any free one.
    host
        Address that scheduler and workers of a local or cuda cluster listen on, and the scheduler of a slurm one. Any
        but this machine's own loopback lets whoever reaches it run programs here, so it needs TLS (Dask's
        ``distributed.comm.tls`` configuration, which is then used) or `insecure`; slurm makes certificates for itself.
        The dashboard stays on 127.0.0.1.
    insecure
        Allow a scheduler without TLS that is not on this machine's loopback: only in a network you trust.
    maximum
        Most workers: the cluster then grows and shrinks between `workers` (1 by default) and this with the work there
        is; for local, gateway, kubernetes and slurm.
    gpus
        GPUs per worker of a kubernetes or slurm cluster, 0 or 1; the worker then has Dask's resource ``GPU=1``, and
        predictions go to such workers alone. Of a gateway or a scheduler that is joined, 1 says that there are such
        workers, and the first of them is waited for.
    wait
        Seconds to wait for the first worker.
    settings
        Keywords of the library behind the kind, such as ``{"queue": "gpu", "walltime": "02:00:00"}`` for slurm,
        ``{"name": ..., "image": ..., "namespace": ...}`` for kubernetes, ``{"address": "https://..."}`` and the
        server's own options for a gateway; see docs/clusters.md. Never secrets: credentials belong in Dask's
        configuration (``gateway.auth``) or in Kubernetes Secrets.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["threads", "local", "cuda", "gateway", "kubernetes", "slurm"] | str = "local"
    workers: int | None = None
    threads: int = 2
    memory: str = "auto"
    dashboard: int | None = None
    host: str = "127.0.0.1"
    insecure: bool = False
    maximum: int | None = None
    gpus: int = 0
    wait: float = 300.0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.kind not in _KINDS and "://" not in self.kind:
            raise InputError(
                f"cluster kind {self.kind!r} is not allowed: choose {', '.join(map(repr, _KINDS))} or a scheduler's "
                "address such as 'tcp://127.0.0.1:8786'"
            )
        self._check_numbers()
        if (self.workers is not None and self.workers < 1) or self.threads < 1 or not self.wait > 0:
            raise InputError(
                f"workers={self.workers}, threads={self.threads}, wait={self.wait} are not allowed: give at least 1, "
                "and more than 0 s"
            )
        if self.maximum is not None and (self.maximum < (self.workers or 1) or not self._adapts):
            raise InputError(
                f"maximum={self.maximum} with workers={self.workers} is not allowed for {self.kind!r}: give at least "
                "workers, with kind local, gateway, kubernetes or slurm"
            )
        if self.gpus not in (0, 1) or (self.gpus and self.kind in ("threads", "local", "cuda")):
            raise InputError(
                f"gpus={self.gpus} is not allowed for {scrub(self.kind)!r}: a worker has 0 or 1, and a cuda cluster "
                "has a worker for each GPU anyway"
            )
        check_settings(self)
        if "://" in self.kind:
            self._check_address()
        elif self.kind == "slurm" or is_loopback(self.host) or self.insecure or tls_files("scheduler", "worker"):
            return
        else:
            raise InputError(
                f"host {self.host!r} is not this machine's loopback, and without TLS whoever reaches it can run "
                "programs here: set distributed.comm.tls in Dask's configuration, or give insecure=True in a network "
                "you trust"
            )

    def _check_numbers(self) -> None:
        """Refuse what is no number, no port and no memory; Dask would say so after work has been prepared."""
        for name in ("workers", "threads", "maximum", "gpus", "dashboard"):
            value = getattr(self, name)
            if type(value) is not int and not (value is None and name in ("workers", "maximum", "dashboard")):
                raise InputError(f"{name}={value!r} is not allowed: give a whole number")
        if self.dashboard is not None and not 0 <= self.dashboard <= _PORTS:
            raise InputError(f"dashboard={self.dashboard} is not allowed: give a port up to {_PORTS}, or None")
        if type(self.wait) not in (int, float) or not math.isfinite(self.wait):
            raise InputError(f"wait={self.wait!r} is not allowed: give a number of seconds")
        if self.memory == "auto":
            return
        try:
            size = parse_bytes(self.memory)
        except (ValueError, TypeError, AttributeError, OverflowError):
            size = 0
        if not isinstance(self.memory, str) or size < 1:
            raise InputError(f"memory={self.memory!r} is not allowed: give a size such as '8GiB', or 'auto'")

    @property
    def _adapts(self) -> bool:
        return self.kind in ("local", *STARTERS)

    def _check_address(self) -> None:
        address = urlsplit(self.kind)
        if address.scheme not in ("tls", "wss", "inproc") and not is_loopback(address.hostname) and not self.insecure:
            raise InputError(
                f"scheduler {scrub(self.kind)} is neither on this machine nor behind TLS: use its tls:// address, or "
                "give insecure=True in a network you trust"
            )


@contextmanager
def cluster(
    kind: str = "local",
    *,
    workers: int | None = None,
    threads: int = 2,
    memory: str = "auto",
    dashboard: int | None = None,
    host: str = "127.0.0.1",
    insecure: bool = False,
    maximum: int | None = None,
    gpus: int = 0,
    wait: float = 300.0,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[Client | None]:
    """Start (or join) a Dask cluster for the length of a `with` block.

    Scheduler and dashboard listen on 127.0.0.1 unless told otherwise (`host`). Workers are spawned, never forked: a
    fork after TensorFlow has run hangs. Before anything is run, the packages of client, scheduler and workers are
    compared. What was started is stopped at the end of the block; a scheduler that was joined goes on.

    Parameters
    ----------
    kind, workers, threads, memory, dashboard, host, insecure, maximum, gpus, wait, settings
        See `ClusterOptions`.

    Yields
    ------
    distributed.Client or None
        The current client; None for ``"threads"``.

    Raises
    ------
    InputError
        An option is not allowed, or the scheduler does not answer.
    MissingExtraError
        The kind needs an extra that is not installed; the message names it.
    ClusterError
        The system behind the kind gives no cluster (credentials, quota, driver), what answers at the address is no
        Dask scheduler, or no worker came within `wait`.
    VersionMismatchError
        Client, scheduler and workers have different packages.
    """
    options = ClusterOptions(
        kind, workers, threads, memory, dashboard, host, insecure, maximum, gpus, wait, dict(settings or {})
    )
    if options.kind == "threads":
        yield None
        return
    if "://" in options.kind:
        with Calm() as calm, _join(options.kind) as client, client.as_current():
            _ready(client, options)
            with told_if_gone(client), late_workers(client), calm.interrupted():
                yield client
        return
    from distributed import Client  # slow to import, and not everyone needs a cluster

    # spawn is what TensorFlow survives; nannies read it from the configuration
    spawn = dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
    with spawn, Calm() as calm, _start_guarded(options) as started:
        _scale(started, options)
        with Client(started) as client:
            _ready(client, options)
            with told_if_gone(client), late_workers(client), calm.interrupted():
                yield client


def _scale(started: Any, options: ClusterOptions) -> None:
    """Ask for the workers that are not there from the start."""
    if options.maximum is not None:
        started.adapt(minimum=options.workers or 1, maximum=options.maximum)
    elif options.kind in STARTERS:
        started.scale(options.workers or 1)


def _ready(client: Client, options: ClusterOptions) -> None:
    """Check what work needs before it starts, and say where it can be watched."""
    wait_for_worker(client, options.wait, gpu=bool(options.gpus))
    check_versions(client)
    logger.info("dashboard: %s", scrub(client.dashboard_link))


def _start_guarded(options: ClusterOptions) -> Any:
    """Start workers, or say why a script without a guard cannot."""
    try:
        return _start(options)
    except RuntimeError as error:
        raise InputError(
            f"worker processes could not start ({error}): a script must start its cluster below "
            "if __name__ == '__main__':"
        ) from None


def _join(address: str) -> Client:
    from distributed import Client

    if urlsplit(address).scheme in ("tls", "wss") and not tls_files("client"):
        raise InputError(
            f"scheduler {scrub(address)} asks for certificates: set distributed.comm.tls.ca-file, client.cert and "
            "client.key in Dask's configuration"
        )
    try:
        ask_scheduler(address, _JOIN_SECONDS)
        # made the default before it is connected, a client that fails would leave every later computation waiting
        return Client(address, timeout=_JOIN_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no scheduler answers at {scrub(address)} ({type(error).__name__}): check address and port"
        ) from None


def _start(options: ClusterOptions) -> Any:
    if options.kind in STARTERS:
        return STARTERS[options.kind](options)
    shared: dict[str, Any] = {
        "host": options.host,
        # without a number any free port: two clusters on one machine must not fight for 8787
        "dashboard_address": f"127.0.0.1:{options.dashboard or 0}",
        "threads_per_worker": options.threads,
        # a failed task's error reaches the caller; the worker's own log of it names addresses in full
        "silence_logs": logging.CRITICAL,
    }
    if not is_loopback(options.host) and tls_files("scheduler", "worker"):
        from distributed.security import Security

        # the configuration's certificates
        shared |= {"protocol": "tls", "security": Security(require_encryption=True)}
    if options.kind == "cuda":
        return start_cuda(options, shared)
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    workers = options.workers or max(1, min(CPU_COUNT, MEMORY_LIMIT // _WORKER_MEMORY))
    return LocalCluster(
        n_workers=workers, processes=True, memory_limit=options.memory, preload="icemap_xr.worker", **shared
    )
