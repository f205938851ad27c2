"""Dask clusters in one line, ``with ix.cluster("local", workers=2) as client:``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import dask
from pydantic import ConfigDict

from icemap_xr.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster


_JOIN_SECONDS = 20.0


@dataclass(frozen=True)
class ClusterOptions:
    """How to run.

    Parameters
    ----------
    kind
        ``"threads"`` (this process, no cluster), ``"local"`` (processes on this machine), ``"cuda"`` (one process per
        GPU), or the address of a scheduler such as ``"tcp://127.0.0.1:8786"``.
    workers
        Worker processes of a local cluster; the number of cores by default. A cuda cluster has one per GPU.
    threads
        Threads per worker.
    memory
        Memory limit per worker, such as ``"8GiB"``.
    dashboard
        Port of the dashboard on 127.0.0.1; None for any free one.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    kind: Literal["threads", "local", "cuda"] | str = "local"
    workers: int | None = None
    threads: int = 1
    memory: str = "auto"
    dashboard: int | None = None

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.kind not in ("threads", "local", "cuda") and "://" not in self.kind:
            raise InputError(
                f"cluster kind {self.kind!r} is not allowed: choose 'threads', 'local', 'cuda' or a scheduler's "
                "address such as 'tcp://127.0.0.1:8786'"
            )
        if (self.workers is not None and self.workers < 1) or self.threads < 1:
            raise InputError(f"workers={self.workers}, threads={self.threads} are not allowed: give at least 1")


@contextmanager
def cluster(
    kind: str = "local",
    *,
    workers: int | None = None,
    threads: int = 1,
    memory: str = "auto",
    dashboard: int | None = None,
) -> Iterator[Client | None]:
    """Start (or join) a Dask cluster for the length of a `with` block.

    Scheduler and dashboard listen on 127.0.0.1 only. Workers are spawned, never forked: a fork after TensorFlow has run
    hangs.

    Parameters
    ----------
    kind, workers, threads, memory, dashboard
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
        ``"cuda"`` without the gpu extra.
    """
    from distributed import Client  # slow to import, and not everyone needs a cluster

    options = ClusterOptions(kind, workers, threads, memory, dashboard)
    if options.kind == "threads":
        yield None
        return
    if "://" in options.kind:
        with _join(options.kind) as client, client.as_current():
            yield client
        return
    # spawn is what TensorFlow survives; nannies read it from the configuration
    spawn = dask.config.set({"distributed.worker.multiprocessing-method": "spawn"})
    with spawn, _start_guarded(options) as started, Client(started) as client:
        yield client


def _start_guarded(options: ClusterOptions) -> LocalCluster:
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

    try:
        # made the default before it is connected, a client that fails would leave every later computation waiting
        return Client(address, timeout=_JOIN_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"no scheduler answers at {address} ({type(error).__name__}): check address and port"
        ) from None


def _start(options: ClusterOptions) -> LocalCluster:
    shared = {
        "host": "127.0.0.1",
        # without a number any free port: two clusters on one machine must not fight for 8787
        "dashboard_address": f"127.0.0.1:{options.dashboard or 0}",
        "threads_per_worker": options.threads,
        # a failed task's error reaches the caller; the worker's own log of it names addresses in full
        "silence_logs": logging.CRITICAL,
    }
    if options.kind == "cuda":
        try:
            from dask_cuda import LocalCUDACluster
        except ImportError:
            raise MissingExtraError("cluster 'cuda' needs dask-cuda: pip install 'icemap-xr[gpu]'") from None
        # TensorFlow takes a whole GPU unless told before its import
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        return LocalCUDACluster(**shared)
    from distributed import LocalCluster

    workers = options.workers or os.cpu_count() or 1
    return LocalCluster(
        n_workers=workers, processes=True, memory_limit=options.memory, preload="icemap_xr.worker", **shared
    )
