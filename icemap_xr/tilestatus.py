"""How far a plan of tiles is, from its files alone: what is done, under way and set aside, and how fast it goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from icemap_xr.leases import STALE, Leases
from icemap_xr.tilequeue import LEASES, dead_tiles, done_records
from icemap_xr.tiles import TilePlan


@dataclass(frozen=True)
class TilesStatus:
    """How a plan stands.

    Parameters
    ----------
    tiles, done, dead, working, waiting
        Tiles in all; done; set aside; under way; not begun, or to be tried again.
    km2_done, km2
        Area of the tiles that are done, and of all.
    retried
        Tiles that were done, but not at the first try.
    workers
        Processes that are at work.
    tiles_per_hour
        Over the last `recent` tiles since the last pause, also where nobody is at work now; None before the second one.
    hours_left
        At that rate; None where it is not known, or nobody is at work.
    causes
        Why tiles were set aside, the most frequent first.
    """

    tiles: int
    done: int
    dead: int
    working: int
    waiting: int
    km2_done: float
    km2: float
    retried: int
    workers: tuple[str, ...]
    tiles_per_hour: float | None
    hours_left: float | None
    causes: tuple[tuple[str, int], ...]


def status(plan: TilePlan, *, stale: float = STALE, recent: int = 100) -> TilesStatus:
    """Look how far a plan is, from its files alone; nothing is written but a clock.

    Parameters
    ----------
    plan
        The plan.
    stale
        As for `run_tiles`.
    recent
        Tiles over which the throughput is taken.
    """
    records = done_records(plan)
    dead = dead_tiles(plan)
    ended = {str(one["tile"]) for one in records} | {one.name for one in dead}
    # names of tiles have no dot
    begun = {path.name.split(".")[0] for path in (plan.folder / LEASES).glob("[!.]*.json")} - ended
    workers = []
    if begun:
        leases = Leases(plan.folder / LEASES, stale)
        for name in sorted(begun & {tile.name for tile in plan.tiles}):
            tries = leases.tries(name)
            if tries and leases.alive(tries[-1]):
                workers.append(tries[-1].owner)
        leases.close()
    times = _without_pauses(sorted(datetime.fromisoformat(one["when"]).timestamp() for one in records)[-recent:], stale)
    rate = None if len(times) < 2 or times[-1] == times[0] else (len(times) - 1) / (times[-1] - times[0]) * 3600
    left = len(plan.tiles) - len(ended)
    return TilesStatus(
        tiles=len(plan.tiles),
        done=len(records),
        dead=len(dead),
        working=len(workers),
        waiting=left - len(workers),
        km2_done=sum(float(one["km2"]) for one in records),
        km2=plan.km2,
        retried=sum(int(one["tries"]) > 1 for one in records),
        workers=tuple(workers),
        tiles_per_hour=rate,
        hours_left=None if rate is None or not workers else left / rate,
        causes=tuple(Counter(one.cause for one in dead).most_common()),
    )


def _without_pauses(times: list[float], stale: float) -> list[float]:
    """Return the times since the last pause: one much longer than between other tiles, in which nobody worked."""
    gaps = sorted(after - before for before, after in pairwise(times))
    limit = max(stale, 20 * gaps[len(gaps) // 2]) if gaps else 0.0
    since = max((number for number in range(1, len(times)) if times[number] - times[number - 1] > limit), default=0)
    return times[since:]
