"""Progress bars in a terminal or notebook, and a line now and then in a log file."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

logger = logging.getLogger("icemap_xr")

#: share of the work after which a log file gets its next line
_LOG_EVERY = 0.1


class Advance(Protocol):
    """Say that `count` more steps are done, and in a few words how it stands."""

    def __call__(self, count: int, /, note: str = "") -> None:
        """Move the bar."""
        ...


@contextmanager
def progress(what: str, total: int, *, console: Console | None = None) -> Iterator[Advance]:
    """Show the progress of `total` steps; yields a function to call with the number of steps done.

    A terminal or notebook gets a `rich` bar; anything else (a log file, a batch job) gets one log line per tenth.
    """
    console = console or Console(stderr=True)
    if console.is_terminal or console.is_jupyter:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        told_so = TextColumn("{task.fields[note]}")
        # a widget is lost when a notebook is saved: there the bar's last state is printed instead
        with Progress(*columns, TimeRemainingColumn(), told_so, console=console, transient=console.is_jupyter) as bar:
            task = bar.add_task(what, total=total, note="")
            try:
                yield lambda count, /, note="": bar.update(task, advance=count, note=note)
            finally:
                bar.stop()
                if console.is_jupyter:
                    console.print(bar)
        return
    done, told = 0, 0.0

    def advance(count: int, /, note: str = "") -> None:
        nonlocal done, told
        done += count
        share = done / total if total else 1.0
        if share >= told + _LOG_EVERY or done == total:
            told = share
            logger.info("%s: %d of %d (%.0f %%)%s", what, done, total, 100 * share, f"; {note}" if note else "")

    yield advance
