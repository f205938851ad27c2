"""Run independent Dask tasks with progress, on the current cluster or on this process's threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import Delayed

from icemap_xr.progress import Advance, progress

if TYPE_CHECKING:
    from distributed import Client


def run_tasks(tasks: Sequence[Delayed], what: str) -> None:
    """Run tasks for their effects; the first failure cancels the rest and is raised as it is.

    Ctrl-C cancels what has not started and raises KeyboardInterrupt. Results are dropped, so tasks should return
    something small.
    """
    if not tasks:
        return
    with progress(what, len(tasks)) as advance:
        client = _current_client()
        if client is None:
            with _Counter({str(task.key) for task in tasks}, advance):
                compute(*tasks, scheduler="threads")
        else:
            _run_on(client, tasks, advance)


def _current_client() -> Client | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        client: Client = Client.current()
    except ValueError:
        return None
    return client


def _run_on(client: Client, tasks: Sequence[Delayed], advance: Advance) -> None:
    from distributed import as_completed

    futures = client.compute(list(tasks), optimize_graph=True)
    try:
        for future in as_completed(futures):
            future.result()
            advance(1)
            future.release()
    except BaseException:
        client.cancel(futures, force=True)
        raise


class _Counter(Callback):
    """Advance the bar whenever one of the wanted keys is done."""

    def __init__(self, keys: set[str], advance: Advance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._keys, self._advance = keys, advance

    def _posttask(self, key: Any, result: Any, dsk: Any, state: Any, worker_id: Any) -> None:
        if str(key) in self._keys:
            self._advance(1)
