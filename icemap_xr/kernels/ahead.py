"""Work ahead: the next item is made in a thread while this one is used."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")

_END: Any = object()


def ahead(items: Generator[T], lane: Lock | None = None) -> Generator[T]:
    """Yield the items, always with one more in the making.

    Parameters
    ----------
    items
        Made one by one, in a thread of their own; closed at the end.
    lane
        Held while an item is used, and let go while the next one is not ready: among several threads that share a
        lane one at a time works, and another takes over where one would have to wait.
    """
    with closing(items), ThreadPoolExecutor(1, "icemap-ahead") as pool, ExitStack() as turn:
        upcoming = pool.submit(next, items, _END)
        held = False
        while True:
            if held and not upcoming.done():
                turn.close()
                held = False
            item = upcoming.result()
            if item is _END:
                return
            upcoming = pool.submit(next, items, _END)
            if lane is not None and not held:
                turn.enter_context(lane)
                held = True
            yield item
