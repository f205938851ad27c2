"""What all commands share: the console, the log, the parsing of years and regions."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import dask
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from icemap_xr.errors import Failure, IcemapWarning, OutputExistsError
from icemap_xr.urls import is_remote

# a file or pipe has no width of its own; tables should not be folded for it
OUT = Console(width=None if sys.stdout.isatty() else 140)
ERR = Console(stderr=True)

#: missing blocks that are listed
_SHOWN = 50


def fail(message: str, code: int) -> None:
    """Print an error as one line and end the program."""
    ERR.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", highlight=False, soft_wrap=True)
    sys.exit(code)


def show_missing(failures: Sequence[Failure]) -> None:
    """Print a table of the blocks that are missing."""
    if not failures:
        return
    table = Table("array", "block", "tries", "cause", title="Missing blocks")
    for one in failures[:_SHOWN]:
        table.add_row(one.array, " ".join(map(str, one.block)), str(one.tries), escape(one.cause))
    if len(failures) > _SHOWN:
        table.add_row(
            "...", f"{len(failures) - _SHOWN} more", "", "all are in icemap/failures.json of the unfinished store"
        )
    ERR.print(table)


def holes_table(missing: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the blocks of rasters that could not be read."""
    table = Table("item", "asset", "block", "status", "cause", "when", title=f"{len(missing)} blocks could not be read")
    for hole in missing:
        status = "" if hole["status"] is None else str(hole["status"])
        table.add_row(hole["item"], hole["asset"], str(hole["block"]), status, hole["cause"], hole["when"])
    return table


def start_logging(verbose: bool) -> None:
    """Show log and warnings of this package, one line each."""
    handler: logging.Handler = RichHandler(console=ERR, show_path=False, show_level=False, log_time_format="%X")
    if not ERR.is_terminal:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("icemap_xr").setLevel(logging.DEBUG if verbose else logging.INFO)
    # Dask sets its loggers to INFO on import, and its configuration has the last word
    quiet = {"distributed": "error", "distributed.nanny.memory": "warning"}
    dask.config.set({"logging": {"distributed": "info"} if verbose else quiet})
    logging.captureWarnings(True)
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", IcemapWarning)
    warnings.formatwarning = lambda message, *_: str(message)


def years(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """Parse 2020, 2016-2024 or 2017,2019."""
    years: set[int] = set()
    try:
        for part in text.split(","):
            first, _dash, last = part.partition("-")
            years |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise click.BadParameter(f"{text!r}: give years such as 2020, 2016-2024 or 2017,2019") from None
    return tuple(sorted(years))


def region(_: click.Context, __: click.Parameter, text: str) -> Any:
    """Parse west,south,east,north or the name of a vector file."""
    try:
        box = tuple(float(value) for value in text.split(","))
    except ValueError:
        return text
    if len(box) != 4:
        raise click.BadParameter(f"{text!r}: give west,south,east,north in degrees, or a vector file")
    return box


class StorePath(click.Path):
    """Path of a store, or its address in a bucket, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path, or the address."""
        return value if is_remote(value) else super().convert(value, param, ctx)


def open_maps(path: Path | str) -> Any:
    """Open a finished Zarr store of maps, the maps of an archive, or a store of maps that was published."""
    import xarray as xr

    if is_remote(path):
        from icemap_xr import objectstore

        return objectstore.open_maps(path)

    from icemap_xr.manifest import check_chunks, read_manifest

    plan = read_manifest(path).get("plan")
    if isinstance(plan, dict) and plan.get("kind") == "archive":
        from icemap_xr.archive import open_archive

        return open_archive(path)["maps"].to_dataset()
    check_chunks(path)
    return xr.open_zarr(path, chunks={})


def new_file(path: Path) -> None:
    """Refuse a path that exists."""
    if path.exists():
        raise OutputExistsError(f"{path} exists already: choose a new name or delete it")
