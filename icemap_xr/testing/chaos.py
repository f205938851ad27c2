"""A prediction that takes its time and can be killed: clients, schedulers and workers, for tests and benchmarks.

All are processes of their own, forked from a server that has imported everything once.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import store
from icemap_xr.cluster import cluster
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.errors import IcemapError
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster
from icemap_xr.types import Batch

#: beside the output: a line for every computed block, and how the last job ended
CALLS = "calls.log"
ENDED = "ended.txt"

_SHAPE = (24, 28)
_FIRST_YEAR = 2000
_PATIENCE = 120.0
#: how a job ends whose scheduler was killed
_TOLD = ("IncompleteRunError", "InputError: no scheduler", "ClusterError: the Dask scheduler is gone")
_WORKERS = 2
_THREADS = 2

#: seconds per block while workers die, and most jobs until enough have died
_LONG = 0.5
_JOBS = 50

#: most kills, as a multiple of those asked for: some come when the job has just ended
_MISSES = 3

#: most calls until a job is finished
_CALLS = 3

Mode = Literal["sys.exit", "graceful", "segfault"]


@dataclass(frozen=True)
class SlowPredictor(FakePredictor):
    """A `FakePredictor` that takes time for each block, and keeps count of them in a file.

    Parameters
    ----------
    pause
        Seconds per call.
    calls
        File that gets a line per call.
    """

    window: int = 16
    steps: int = 1
    features: tuple[str, ...] = ("rtc",)
    pause: float = 0.1
    calls: str = ""

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Map `(batch, step, y, x, feature)` to `(batch, y, x, 2)`, slowly."""
        with open(self.calls, "a") as log:
            log.write(f"{os.getpid()}\n")
        time.sleep(self.pause)
        return super().__call__(batch)


def make_cube(folder: Path, blocks: int) -> Path:
    """Make a small cube of as many years as there shall be blocks."""
    items = []
    for number in range(blocks):
        values = np.random.default_rng(number).lognormal(-3, 1, _SHAPE)
        raster = write_raster(folder / f"scene{number}.tif", values)
        items.append(rtc_item(raster, f"{_FIRST_YEAR + number}-06-01", orbit=100 + 175 * number))
    build_cube(pystac.ItemCollection(items), small_grid(_SHAPE), folder / "cube.zarr", steps=1, chunk=16)
    return folder / "cube.zarr"


def job(cube: Path, output: Path, *, pause: float = 0.1) -> xr.Dataset:
    """Map a cube into a store beside a count of the computed blocks."""
    model = SlowPredictor(pause=pause, calls=str(output.with_name(CALLS)))
    return store.save(predict(open_cube(cube), model), output)


def calls(output: Path) -> int:
    """Return how many blocks were computed for a store, those of killed runs included."""
    log = output.with_name(CALLS)
    return len(log.read_text().splitlines()) if log.exists() else 0


def chunks(output: Path) -> dict[str, bytes]:
    """Return all chunk files of a store, finished or not."""
    return {name: file.read_bytes() for name, file in _chunk_files(output)}


def written(output: Path) -> int:
    """Return how many blocks of the map are there."""
    try:
        return sum(name.startswith("probability/") for name, _ in _chunk_files(output))
    except FileNotFoundError:  # the store got its name while it was listed
        return written(output)


def _chunk_files(output: Path) -> Iterator[tuple[str, Path]]:
    """Find the files of whole chunks; one that is being written has another name until it is whole."""
    folder = output if output.exists() else store.partial_path(output)
    for file in folder.rglob("*"):
        name = file.relative_to(folder)
        if "c" in name.parts and (file.name.isdigit() or file.name == "c") and file.is_file():
            yield name.as_posix(), file


def run_job(cube: str, output: str, scheduler: str | None, pause: float) -> None:
    """Do the job in a process of its own, and leave a note of how it ended."""
    _silence()
    note = "finished"
    try:
        with cluster(scheduler or "threads"), dask.config.set(num_workers=2):
            job(Path(cube), Path(output), pause=pause)
    except IcemapError as error:
        note = f"{type(error).__name__}: {error}"
    except Exception:
        note = f"untyped: {traceback.format_exc()}"
    Path(output).with_name(ENDED).write_text(note)


def start_job(cube: Path, output: Path, scheduler: str | None = None, *, pause: float = 0.1) -> Any:
    """Start the job in a process of its own."""
    output.with_name(ENDED).unlink(missing_ok=True)
    return _start(run_job, str(cube), str(output), scheduler, pause)


def ended(process: Any, output: Path) -> str:
    """Wait for a job's end; return ``"finished"``, or its error."""
    process.join(_PATIENCE)
    kill(process)
    note = output.with_name(ENDED)
    return note.read_text() if note.exists() else "killed"


def kill_at(job: Any, victim: Any, output: Path, blocks: int, delay: float) -> bool:
    """SIGKILL a victim some seconds after a job has written so many blocks (-1: begun at all).

    Returns
    -------
    bool
        Whether there was a job left to disturb, and its victim still alive.
    """
    deadline = time.monotonic() + _PATIENCE
    while job.is_alive() and time.monotonic() < deadline:
        if (store.partial_path(output).exists() if blocks < 0 else written(output) >= blocks) or output.exists():
            break
        time.sleep(0.005)
    time.sleep(delay)
    hit = bool(job.is_alive() and victim.is_alive())
    kill(victim)
    return hit


def kill(process: Any) -> None:
    """SIGKILL a process and wait for its end."""
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join()


@contextmanager
def scheduler_with_workers(workers: int = _WORKERS) -> Iterator[tuple[str, Any]]:
    """Start a scheduler and its workers as processes of their own; yields the address and the scheduler."""
    here, there = _context().Pipe(duplex=False)
    started = [_start(_run_scheduler, there)]
    try:
        address: str = here.recv()
        started += [_start(_run_worker, address) for _ in range(workers)]
        yield address, started[0]
    finally:
        for process in started:
            kill(process)


@contextmanager
def dying_workers(mode: Mode, delay: str, workers: int = _WORKERS) -> Iterator[tuple[str, Callable[[], int]]]:
    """Start a local cluster whose workers live for `delay` on average, killed as `distributed.chaos` does.

    Yields the scheduler's address, and a function that returns how many workers have died so far.
    """
    from distributed import Client, LocalCluster, SchedulerPlugin
    from distributed.chaos import KillWorker

    class Deaths(SchedulerPlugin):
        count = 0

        def remove_worker(self, *_: Any, **__: Any) -> None:
            self.count += 1

    _context()
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    # a nanny starts no new worker for one that said goodbye; the cluster does, once it takes it for lost
    new = {"distributed.worker.multiprocessing-method": "forkserver", "distributed.deploy.lost-worker-timeout": "1s"}
    with (
        dask.config.set(new),
        LocalCluster(n_workers=workers, threads_per_worker=_THREADS, processes=True, **options) as started,
        Client(started, set_as_default=False) as client,
    ):
        started.adapt(minimum=workers, maximum=workers, interval="500ms")
        deaths = Deaths()
        started.scheduler.add_plugin(deaths)
        client.register_plugin(KillWorker(delay, mode), name="chaos")
        yield client.scheduler.address, lambda: deaths.count


@dataclass(frozen=True)
class Verdict:
    """What a series of kills did.

    Parameters
    ----------
    what
        Who was killed.
    kills
        How many were.
    redone
        Blocks that were computed more than once, at most after one kill (clients, schedulers) or in all (workers).
    allowed
        Blocks that were in flight: so many may be.
    identical
        Whether every chunk equals that of an undisturbed run.
    """

    what: str
    kills: int
    redone: int
    allowed: int
    identical: bool

    @property
    def good(self) -> bool:
        """Whether the promise was kept, and tested."""
        return self.identical and self.redone <= self.allowed and self.kills > 0


def kill_clients(
    cube: Path, folder: Path, points: int, seed: int, blocks: int, scheduler: str | None = None
) -> Verdict:
    """SIGKILL a client at random points, each time followed by a run to the end.

    Without a scheduler its threads die with it; with one, the workers of that go on by themselves for a while.
    """
    expected, rng = _undisturbed(cube, folder), np.random.default_rng(seed)
    redone, identical, hits = [], True, 0
    what, allowed = ("client", 2) if scheduler is None else ("client of a cluster", _WORKERS * _THREADS)
    for point in range(_MISSES * points):
        output = _fresh(folder / f"{what.replace(' ', '-')}{point}")
        process = start_job(cube, output, scheduler)
        hits += kill_at(process, process, output, int(rng.integers(-1, blocks)), float(rng.uniform(0, 0.15)))
        identical &= ended(start_job(cube, output, scheduler), output) == "finished" and chunks(output) == expected
        redone.append(calls(output) - blocks)
        if hits == points:
            break
    return Verdict(what, hits, max(redone), allowed, identical)


def kill_schedulers(cube: Path, folder: Path, points: int, seed: int, blocks: int) -> Verdict:
    """SIGKILL a scheduler at random points; the client must end by itself, and a new cluster finish the rest."""
    expected, rng = _undisturbed(cube, folder), np.random.default_rng(seed)
    redone, identical, hits = [], True, 0
    for point in range(_MISSES * points):
        output = _fresh(folder / f"scheduler{point}")
        with scheduler_with_workers() as (address, scheduler):
            process = start_job(cube, output, address)
            hits += kill_at(process, scheduler, output, int(rng.integers(-1, blocks)), float(rng.uniform(0, 0.15)))
            end = ended(process, output)
        # killed in the last moment, everything may have been written already
        if end != "finished" and not end.startswith(_TOLD):
            identical = False
            logging.getLogger("icemap_xr").error("after the scheduler was killed the client ended so: %s", end)
        with scheduler_with_workers() as (address, _):
            identical &= ended(start_job(cube, output, address), output) == "finished" and chunks(output) == expected
        redone.append(calls(output) - blocks)
        if hits == points:
            break
    return Verdict("scheduler", hits, max(redone), _WORKERS * _THREADS, identical)


def kill_workers(cube: Path, folder: Path, mode: Mode, delay: str, blocks: int, kills: int = 1) -> Verdict:
    """Map cubes on workers that die all the time, until so many have died, and one of them over a block."""
    expected, identical, redone, died = _undisturbed(cube, folder), True, 0, 0
    with dying_workers(mode, delay) as (address, deaths):
        for number in range(_JOBS):
            output, before = _fresh(folder / f"{mode}{number}"), deaths()
            for _ in range(_CALLS):
                end = ended(start_job(cube, output, address, pause=_LONG), output)
                # a block that was on too many dying workers is set aside, and done by the next call
                if not end.startswith("IncompleteRunError"):
                    break
            died += deaths() - before
            identical &= end == "finished" and chunks(output) == expected
            redone += calls(output) - blocks
            if (redone and died >= kills) or not identical:
                break
    # a worker dies with what it computes, and with as much whose end it has not told yet
    return Verdict(f"workers, {mode}", died, redone, 2 * _THREADS * died, identical)


def _undisturbed(cube: Path, folder: Path) -> dict[str, bytes]:
    output = folder / "undisturbed" / "maps.zarr"
    if not output.exists():
        job(cube, _fresh(output.parent), pause=0.0)
    return chunks(output)


def _fresh(folder: Path) -> Path:
    folder.mkdir()
    return folder / "maps.zarr"


def _run_scheduler(pipe: Any) -> None:
    from distributed import Scheduler

    _silence()

    async def serve() -> None:
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address="127.0.0.1:0") as scheduler:
            pipe.send(scheduler.address)
            await scheduler.finished()

    asyncio.run(serve())


def _run_worker(address: str) -> None:
    from distributed import Worker

    _silence()

    async def serve() -> None:
        async with Worker(address, nthreads=2, dashboard=False) as worker:
            await worker.finished()

    asyncio.run(serve())


def _silence() -> None:
    # a killed partner is told in many lines
    logging.disable(logging.CRITICAL)


def _start(target: Any, *arguments: Any) -> Any:
    # not a daemon: those may not have children
    process = _context().Process(target=target, args=arguments)
    process.start()
    return process


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    # only the first call matters, which starts the server
    context.set_forkserver_preload(["icemap_xr.testing.chaos", "distributed"])
    from multiprocessing.forkserver import ensure_running

    ensure_running()
    return context
