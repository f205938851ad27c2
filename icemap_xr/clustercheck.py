"""Before work starts on a cluster: the same packages everywhere, a worker at all, and the model loaded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError as FutureCancelled
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from icemap_xr.errors import ClusterError, IncompleteRunError, VersionMismatchError
from icemap_xr.placing import GPU, computes
from icemap_xr.types import Predictor
from icemap_xr.urls import scrub

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("icemap_xr")

#: packages that must be the same to the last digit: what travels between processes is theirs
_EXACT = ("icemap-xr", "dask", "distributed")
#: packages whose first two numbers must be the same: they compute, or write files
_NEAR = ("python", "numpy", "xarray", "zarr", "keras", "tensorflow", "cloudpickle", "msgpack")
#: what a scheduler needs, which computes nothing
_SCHEDULER = ("python", "dask", "distributed", "msgpack")

#: seconds after which a scheduler that says nothing counts as gone
_ANSWER_SECONDS = 30.0


def ask_scheduler(address: str, seconds: float) -> None:
    """Ask what is at an address who it is, before a client is made: that one would wait for ever for some answers.

    Raises
    ------
    OSError, ValueError
        Nothing can be reached there, within `seconds`, or the address is none.
    ClusterError
        What is there is no Dask scheduler: it says something else, or nothing within twice `seconds`.
    """
    from distributed.core import rpc
    from distributed.security import Security

    async def ask() -> Any:
        node: Any = rpc(address, timeout=seconds, connection_args=Security().get_connection_args("client"))
        async with node:
            return await asyncio.wait_for(node.identity(), 2 * seconds)

    what = f"what answers at {scrub(address)} is no Dask scheduler"
    advice = "give the scheduler's own address and port, not those of its dashboard or of a worker"
    try:
        # a thread of its own: where a notebook runs, this one has a loop already
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(asyncio.run, ask()).result()
    except TimeoutError:
        raise ClusterError(f"{what} (it says nothing for {2 * seconds:g} s): {advice}") from None
    except (OSError, ValueError):
        raise
    except (asyncio.CancelledError, FutureCancelled):  # Dask ends so what waits for a connection that is lost
        raise ConnectionError(f"the connection to {scrub(address)} was lost") from None
    except Exception as error:  # any bytes at all may have come, and Dask takes them for lengths and pickles
        raise ClusterError(f"{what} ({type(error).__name__}): {advice}") from None
    kind = found.get("type") if isinstance(found, Mapping) else type(found).__name__
    if kind != "Scheduler":
        raise ClusterError(f"{what} (it is a {kind}): {advice}")


def check_versions(client: Client) -> None:
    """Compare the packages of client, scheduler and all workers.

    Raises
    ------
    VersionMismatchError
        They differ; the message names packages, versions and one place.
    """
    found: Any = client.get_versions(packages=[*_EXACT, *_NEAR])
    here = _packages(found["client"])
    if (scheduler := found.get("scheduler")) is not None:
        _compare(here, _packages(scheduler), "the scheduler", _SCHEDULER)
    for address, one in found["workers"].items():
        # a worker that is just leaving does not answer
        if isinstance(one, Mapping):
            _compare(here, _packages(one), f"worker {address}", (*_EXACT, *_NEAR))


@contextmanager
def late_workers(client: Client) -> Iterator[None]:
    """Compare the packages of workers that join later, too, and close those that have others before they get work.

    The worker's own log has the `VersionMismatchError`. The check ends with the block; a cluster that grows by itself
    goes on to try such workers, which stay away.
    """
    from distributed import WorkerPlugin
    from distributed.versions import get_versions

    found = get_versions(packages=[*_EXACT, *_NEAR])["packages"]

    class SameVersions(WorkerPlugin):
        """Turns a worker with other packages away."""

        name = f"icemap-versions-{client.id}"

        def __init__(self, here: dict[str, Any]) -> None:
            self.here = here

        async def setup(self, worker: Any) -> None:
            # an icemap-xr that lacks what this class refers to cannot take it, and that worker does not start at all
            from distributed import versions
            from distributed.core import Status

            def ask() -> Any:
                return versions.get_versions(packages=list(self.here))["packages"]

            there = await worker.loop.run_in_executor(None, ask)
            try:
                _compare(self.here, there, f"worker {worker.address}", tuple(self.here))
            except Exception:
                # scheduled, as a worker that is still starting cannot wait for its own end
                worker.status = Status.paused
                worker.loop.add_callback(worker.close, reason="icemap-xr: the worker has other packages")
                raise

    client.register_plugin(SameVersions({name: found.get(name) for name in (*_EXACT, *_NEAR)}))
    try:
        yield
    finally:
        # a scheduler that was joined outlives its clients; one that is gone has forgotten the check
        if client.status == "running":
            with suppress(OSError, RuntimeError, TimeoutError, ValueError):
                scheduler: Any = client.scheduler
                client.sync(
                    scheduler.unregister_worker_plugin, name=SameVersions.name, callback_timeout=_ANSWER_SECONDS
                )


def _packages(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return found["packages"]


def _compare(here: Mapping[str, Any], there: Mapping[str, Any], where: str, names: tuple[str, ...]) -> None:
    different = [
        f"{name} {here.get(name) or 'none'} here, {there.get(name) or 'none'} there"
        for name in names
        if _key(name, here.get(name)) != _key(name, there.get(name))
    ]
    if different:
        raise VersionMismatchError(
            f"{where} has other packages ({'; '.join(different)}): use one environment or image for client, scheduler "
            "and workers"
        )


def _key(name: str, version: object) -> object:
    if version is None or name in _EXACT:
        return version
    return tuple(str(version).split(".")[:2])


def wait_for_worker(client: Client, seconds: float, *, gpu: bool = False) -> None:
    """Wait for the first worker, or for the first one with a GPU.

    Raises
    ------
    ClusterError
        None came in time, or the scheduler is gone.
    """
    end = time.monotonic() + seconds
    what, where = "no worker", "queue, image, quota"
    try:
        client.wait_for_workers(1, timeout=seconds)
        what, where = f"no worker with Dask's resource {GPU}", "node groups, driver, quota of GPUs"
        while gpu and not _has_gpu(client):
            if time.monotonic() > end:
                raise TimeoutError
            time.sleep(min(1.0, seconds / 10))
    except TimeoutError:
        raise ClusterError(
            f"{what} came within {seconds:g} s: look into the logs of the cluster ({where}), or give more time with "
            "wait="
        ) from None
    except OSError as error:
        raise ClusterError(
            f"the Dask scheduler is gone ({type(error).__name__}): start it again and repeat the call"
        ) from None


@contextmanager
def told_if_gone(client: Client) -> Iterator[None]:
    """Tell errors that come of a lost scheduler as what they are, whatever they look like.

    Raises
    ------
    ClusterError
        The scheduler is gone.
    """
    try:
        yield
    except (IncompleteRunError, ClusterError):
        raise  # these tell it themselves
    except Exception as error:
        if not gone(client):
            raise
        raise ClusterError(
            f"the Dask scheduler is gone ({type(error).__name__}): start it again and repeat the call, which does only "
            "what is missing"
        ) from None


def gone(client: Client) -> bool:
    """Return whether the scheduler of a client does not answer any more."""
    scheduler = client.scheduler
    if scheduler is None:
        return True
    try:
        client.sync(scheduler.identity, n_workers=1, callback_timeout=_ANSWER_SECONDS)
    except (OSError, RuntimeError, AttributeError, ValueError):
        # a connection that breaks, a pool or a client that was closed because of it
        return True
    return False


def _has_gpu(client: Client) -> bool:
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return any(GPU in one.get("resources", {}) for one in workers)


def preload(client: Client, model: Predictor) -> None:
    """Load a model on every worker, now and on those that join later, so that no block waits for it.

    Workers that only read (`icemap_xr.placing`) are spared it. A worker that cannot load it says so here, and not in
    the first block.

    Raises
    ------
    IcemapError
        Whatever loading the model raises.
    """
    from distributed import WorkerPlugin

    class Preload(WorkerPlugin):
        """Loads the model when a worker starts."""

        # the same model, registered again, is not loaded again
        idempotent = True
        name = f"icemap-model-{model.spec.digest}-{model.spec.window}"

        def __init__(self, model: Predictor) -> None:
            self.model = model

        async def setup(self, worker: Any) -> None:
            if computes(worker.state.total_resources):
                await worker.loop.run_in_executor(None, warm_up, self.model)

    client.register_plugin(Preload(model))
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    loaded = sum(computes(one.get("resources", {})) for one in workers)
    logger.info("model %s is loaded on %d of %d workers", model.spec.name, loaded, len(workers))


def warm_up(model: Predictor) -> None:
    """Call a model once, on an empty window: that builds its network."""
    spec = model.spec
    shape = (1, spec.steps, spec.window, spec.window)
    parts = {one.name: np.zeros((*shape, len(one.features)), np.float32) for one in spec.inputs}
    model(parts if len(parts) > 1 else next(iter(parts.values())))
