"""Run blocks of work with progress, on the current cluster or on this process's threads.

Blocks go out in bounded batches. One that fails is tried again after all others, and set aside when it keeps failing
(at once where what it read from was tried until its own deadline: the two kinds of tries do not multiply);
an error that every block would meet (bad input, another model, a full disk) ends the run at once. A damaged chunk of
a store that is read from is met by the blocks that need it, and by no other.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import dask
from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import Delayed
from dask.system import CPU_COUNT

from icemap_xr.errors import DamagedChunkError, IcemapError, IncompleteRunError, ReadError
from icemap_xr.metrics import count
from icemap_xr.placing import Kind, resources
from icemap_xr.progress import Advance, progress
from icemap_xr.urls import scrub

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("icemap_xr")

#: most blocks in one graph, and in flight on a cluster: client and scheduler hold no more, however large the work
AT_ONCE = 1000

#: how often a block is tried
TRIES = 3

#: failures that are logged one by one
_LOGGED = 10

B = TypeVar("B")


@dataclass(frozen=True)
class Trouble:
    """How often a block failed, and with what at last."""

    tries: int
    error: BaseException

    @property
    def cause(self) -> str:
        """The error in one line, without credentials."""
        text = scrub(" ".join(str(self.error).split()))
        return text if text and isinstance(self.error, IcemapError) else f"{type(self.error).__name__}: {text}"


@dataclass(frozen=True)
class Outcome(Generic[B]):
    """What became of the blocks that failed: `lost` kept failing, `mended` went well when tried again."""

    lost: dict[B, Trouble] = field(default_factory=dict)
    mended: dict[B, Trouble] = field(default_factory=dict)


def run_blocks(
    blocks: Sequence[B],
    make: Callable[[Sequence[B]], Sequence[Delayed]],
    what: str,
    *,
    done: Callable[[B, Any], None],
    kind: Kind = "read",
) -> Outcome[B]:
    """Compute one task per block for its effect.

    Parameters
    ----------
    blocks
        Blocks in the order to start them, hashable.
    make
        Makes the tasks of a batch, one per block in their order. A task may be run more than once.
    what
        Label of the progress bar.
    done
        Called in this process with each block and the (small) result of its task.
    kind
        What the tasks are, which says where they may run on a cluster (`icemap_xr.placing`).

    Returns
    -------
    Outcome
        The blocks that failed.

    Raises
    ------
    IncompleteRunError
        The cluster's scheduler is gone.
    IcemapError
        An error that trying again does not mend; what has not started is cancelled, as it is by Ctrl-C.
    """
    outcome: Outcome[B] = Outcome()
    if not blocks:
        return outcome
    client = _current_client()
    with progress(what, len(blocks)) as advance:
        run = _Round(make, done, outcome, what, advance, kind)
        todo = list(blocks)
        for _ in range(TRIES):
            if client is None:
                _on_threads(run, todo)
            else:
                _on_cluster(client, run, todo)
            todo = [block for block, trouble in outcome.lost.items() if not given_up(trouble.error)]
            if not todo:
                break
    return outcome


def is_final(error: BaseException) -> bool:
    """Return whether every block would meet the error: deliberate ones, but for those of reading a file or a chunk."""
    return isinstance(error, IcemapError) and not isinstance(error, OSError | DamagedChunkError)


def given_up(error: BaseException) -> bool:
    """Return whether whoever raised the error has tried until its own deadline."""
    return isinstance(error, ReadError) and error.given_up


@dataclass(frozen=True)
class _Round(Generic[B]):
    """Book-keeping, the same wherever the blocks run."""

    make: Callable[[Sequence[B]], Sequence[Delayed]]
    done: Callable[[B, Any], None]
    outcome: Outcome[B]
    what: str
    advance: Advance
    kind: Kind

    def succeed(self, block: B, result: Any) -> None:
        self.done(block, result)
        if block in self.outcome.lost:
            self.outcome.mended[block] = self.outcome.lost.pop(block)
        self.advance(1, note=self._note())

    def fail(self, block: B, error: BaseException) -> None:
        if is_final(error):
            raise error
        count("blocks_failed")
        before = self.outcome.lost.get(block)
        trouble = Trouble(1 if before is None else before.tries + 1, error)
        self.outcome.lost[block] = trouble
        if before is None and len(self.outcome.lost) + len(self.outcome.mended) <= _LOGGED:
            then = "" if given_up(error) else " and will be tried again"
            logger.warning("%s: %s failed%s (%s)", self.what, block, then, trouble.cause)
        self.advance(0, note=self._note())

    def _note(self) -> str:
        return f"{len(self.outcome.lost)} failed" if self.outcome.lost else ""


def _current_client() -> Client | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        client: Client = Client.current()
    except ValueError:
        return None
    return client


def _on_threads(run: _Round[B], blocks: Sequence[B]) -> None:
    """Compute batches as one graph each; where something fails in one, the rest of it block by block."""
    for start in range(0, len(blocks), AT_ONCE):
        batch = blocks[start : start + AT_ONCE]
        if any(block in run.outcome.lost for block in batch):
            _one_by_one(run, batch)
            continue
        tasks = run.make(batch)
        waiting = {str(task.key): block for task, block in zip(tasks, batch, strict=True)}
        try:
            with _Watch(waiting, run.succeed):
                compute(*tasks, scheduler="threads")
        except Exception as error:
            if is_final(error):
                raise
            # Dask stops at the first failure and does not say whose it was
            _one_by_one(run, list(waiting.values()))


def _one_by_one(run: _Round[B], blocks: Sequence[B]) -> None:
    workers = dask.config.get("num_workers", None) or CPU_COUNT
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(_alone, run, block): block for block in blocks}
        try:
            for future in as_completed(futures):
                error = future.exception()
                if error is None:
                    run.succeed(futures[future], future.result())
                elif isinstance(error, Exception):
                    run.fail(futures[future], error)
                else:
                    raise error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _alone(run: _Round[B], block: B) -> Any:
    (task,) = run.make([block])
    return task.compute(scheduler="sync")


class _Watch(Callback):
    """Tell of every awaited task that is done, in the thread that waits for them."""

    def __init__(self, waiting: dict[str, B], tell: Callable[[B, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._waiting, self._tell = waiting, tell

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        if str(key) in self._waiting:
            self._tell(self._waiting.pop(str(key)), result)


def _on_cluster(client: Client, run: _Round[B], blocks: Iterable[B]) -> None:
    """Keep at most `AT_ONCE` blocks in flight."""
    from distributed import as_completed as as_they_come
    from distributed.comm.core import CommClosedError

    queue, flying = deque(blocks), dict[Any, B]()
    coming = as_they_come(loop=client.loop)

    def start(needed: dict[str, float] | None) -> None:
        batch = [queue.popleft() for _ in range(min(AT_ONCE - len(flying), len(queue)))]
        if batch:
            futures = client.compute(list(run.make(batch)), optimize_graph=True, resources=needed)
            flying.update(zip(futures, batch, strict=True))
            coming.update(futures)

    try:
        needed = resources(client, run.kind)
        start(needed)
        for future in coming:
            block = flying.pop(future)
            try:
                result = future.result()
            except Exception as error:
                if future.status != "error":
                    raise
                # it may have been done once, and its result lost with a worker, before it failed
                run.fail(block, error)
            else:
                run.succeed(block, result)
            future.release()
            if len(flying) <= AT_ONCE // 2:
                start(needed)
    except BaseException as error:
        if isinstance(error, CancelledError | CommClosedError) or client.status != "running":
            left = len(flying) + len(queue) + 1
            raise IncompleteRunError(
                f"{run.what}: the Dask scheduler is gone, about {left} blocks are left: start it again and repeat the "
                "call, which does only what is missing"
            ) from None
        with suppress(Exception):
            client.cancel(list(flying), force=True)
        raise
