"""Many regions: `icemap tiles plan`, `icemap tiles run`, `icemap tiles status` (also `icemap status`)."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.execute import TRIES
from icemap_xr.leases import STALE

_PATH = click.Path(path_type=Path)
#: tiles that were set aside that are listed
_SHOWN = 20

_stale = click.option(
    "--stale", type=float, default=STALE, show_default=True, help="Seconds without a sign of life: taken over."
)


@click.group()
def tiles() -> None:
    """Map many regions, cut into tiles, with any number of processes or clusters at once."""


@tiles.command()
@click.argument("config", type=_PATH)
@click.argument("folder", metavar="PLAN", type=_PATH)
@click.option("--regions", type=_PATH, help="Vector file of regions, such as RGI first-order regions.")
@click.option("--name", help="Its column with the regions' names.")
@click.option("--tile", "tile_km", type=float, required=True, help="Side of a tile in km.")
def plan(config: Path, folder: Path, regions: Path | None, name: str | None, tile_km: float) -> None:
    """Cut the region of CONFIG.yaml, or the regions of a layer, into tiles; write the new folder PLAN."""
    from icemap_xr.config import read_config
    from icemap_xr.tilerun import plan_tiles

    made = plan_tiles(read_config(config), folder, regions=regions, tile_km=tile_km, name=name)
    count = len({tile.region for tile in made.tiles})
    console.OUT.print(
        f"{len(made.tiles)} tiles of {made.tiles[0].km2:,.0f} km2 in {count} regions: {folder / 'tiles.csv'}",
        highlight=False,
        soft_wrap=True,
    )


@tiles.command()
@click.argument("folder", metavar="PLAN", type=_PATH)
@click.option("--config", type=_PATH, help="The configuration again, with another cluster: section, say.")
@click.option("--index", type=int, help="One tile.")
@click.option("--slice", "part", help="FIRST:LAST, such as 100:200.")
@click.option("--shard", help="NUMBER/COUNT, such as 2/8: every 8th tile.")
@click.option("--tries", type=int, default=TRIES, show_default=True, help="Then a tile is set aside.")
@_stale
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for tiles that others are at.")
def run(
    folder: Path,
    config: Path | None,
    index: int | None,
    part: str | None,
    shard: str | None,
    tries: int,
    stale: float,
    wait: bool,
) -> None:
    """Run the tiles of PLAN that are not done; start it as often and on as many machines as you like.

    Exit code 0: all are done. 3: some were set aside, with their causes in `icemap status`.
    """
    from icemap_xr.config import read_config
    from icemap_xr.tilerun import run_plan_tiles
    from icemap_xr.tiles import read_plan

    made = read_plan(folder, None if config is None else read_config(config))
    chosen = made.select(index=index, part=part, shard=shard)
    outcome = run_plan_tiles(made, tiles=chosen, tries=tries, stale=stale, wait=wait)
    left = f", {outcome.left} under way elsewhere" if outcome.left else ""
    console.OUT.print(
        f"{outcome.done} of {len(chosen)} tiles are done ({outcome.own} by this process), {len(outcome.dead)} set aside"
        f"{left}",
        highlight=False,
        soft_wrap=True,
    )
    if outcome.dead:
        sys.exit(3)


@tiles.command()
@click.argument("folder", metavar="PLAN", type=_PATH)
@_stale
def status(folder: Path, stale: float) -> None:
    """Show how far PLAN is: tiles done, under way and set aside, throughput, time left."""
    from icemap_xr.tilequeue import dead_tiles
    from icemap_xr.tiles import read_plan
    from icemap_xr.tilestatus import status as look

    made = read_plan(folder)
    now = look(made, stale=stale)
    rate = "" if now.tiles_per_hour is None else f"{now.tiles_per_hour:.1f} tiles per hour"
    rate += " when last at work" if rate and not now.workers else ""
    rows = {
        "done": f"{now.done} of {now.tiles} tiles, {now.km2_done:,.0f} of {now.km2:,.0f} km2",
        "under way": f"{now.working}: {', '.join(now.workers)}" if now.workers else "0",
        "to do": str(now.waiting),
        "tried again": f"{now.retried} of those that are done",
        "set aside": str(now.dead),
        "throughput": rate or "not known yet",
        "time left": "not known" if now.hours_left is None else f"{now.hours_left:.1f} h",
    }
    table = Table("", "", title=str(folder), show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.OUT.print(table, markup=False)
    dead = dead_tiles(made)
    if dead:
        listed = Table("tile", "tries", "cause", title="Set aside")
        for one in dead[:_SHOWN]:
            listed.add_row(one.name, str(one.tries), escape(one.cause))
        if len(dead) > _SHOWN:
            listed.add_row("...", "", f"{len(dead) - _SHOWN} more in {folder / 'dead'}")
        console.OUT.print(listed)


@tiles.command()
@click.argument("folder", metavar="PLAN", type=_PATH)
def revive(folder: Path) -> None:
    """Let the tiles of PLAN that were set aside be tried again; not while processes are at work on it."""
    from icemap_xr.tilequeue import revive as again
    from icemap_xr.tiles import read_plan

    console.OUT.print(f"{again(read_plan(folder))} tiles can be tried again", highlight=False)
