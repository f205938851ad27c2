"""Work off a plan of tiles: any number of processes at once, each tile by one of them, with tries and a record.

Beside the plan: ``leases/`` has a file for each try of a tile (`icemap_xr.leases`), ``done/`` one for each tile that is
done, ``dead/`` one for each that was set aside, with its cause. What is in none of them is still to do.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from icemap_xr.errors import (
    AccessError,
    AnnotationError,
    AssetMissingError,
    CatalogUnavailableError,
    ClusterError,
    ElevationError,
    EmptySearchError,
    GeolocationError,
    InputError,
    MissingExtraError,
    ModelError,
    OutputExistsError,
    PlanError,
    StoreError,
)
from icemap_xr.execute import TRIES, Trouble
from icemap_xr.folders import write_text
from icemap_xr.leases import STALE, LeaseLost, Leases
from icemap_xr.progress import progress
from icemap_xr.tiles import Tile, TilePlan

logger = logging.getLogger("icemap_xr")

LEASES, _DONE, _DEAD = "leases", "done", "dead"
#: most seconds between two looks at tiles that other processes have
_POLL = 5.0
#: after so many tiles that failed in a row, what fails cannot be theirs
_IN_A_ROW = 10
#: what every tile would meet: the run ends, and no tile is blamed
_EVERYWHERE = (ModelError, PlanError, ClusterError, CatalogUnavailableError, MissingExtraError, OutputExistsError)
#: what is wrong with one tile's scenes or heights, and will be at the next try, too
_OF_THE_TILE = (EmptySearchError, AssetMissingError, AnnotationError, ElevationError, GeolocationError)
#: a wrong option, keys that are not set, a full disk; or what one tile's scenes hold
_UNCLEAR = (InputError, AccessError)

#: does a tile; what it returns is kept in its record (plain JSON types)
Work = Callable[[Tile], dict[str, Any]]
Attempt = Literal["ended", "failed", "elsewhere"]
Verdict = Literal["tile", "try", "all", "unclear"]


@dataclass(frozen=True)
class Dead:
    """A tile that was set aside.

    Parameters
    ----------
    name
        Tile.
    tries
        How often it was tried.
    cause
        The last error, without credentials.
    """

    name: str
    tries: int
    cause: str


@dataclass(frozen=True)
class TilesOutcome:
    """What a call of `run_tiles` ended with.

    Parameters
    ----------
    done
        Tiles that are done, by whomever.
    own
        Tiles that this process did.
    dead
        Tiles that were set aside.
    left
        Tiles that others are at, where it was not to wait for them.
    """

    done: int
    own: int
    dead: tuple[Dead, ...]
    left: int


@dataclass
class _Queue:
    plan: TilePlan
    leases: Leases
    tries: int
    work: Work
    own: int = 0
    #: tiles that failed since the last one that this process did
    row: set[str] = field(default_factory=set)

    def ended(self, names: Iterable[str]) -> set[str]:
        """Return which tiles need nothing more."""
        there = _names(self.plan.folder / _DONE) | _names(self.plan.folder / _DEAD)
        return there.intersection(names)

    def attempt(self, tile: Tile) -> Attempt:
        """Do a tile if it is free."""
        tries = self.leases.tries(tile.name)
        if _record(self.plan, _DONE, tile).exists():
            return "ended"
        if tries and self.leases.alive(tries[-1]):
            return "elsewhere"
        counted = sum(one.counted for one in tries)
        if counted >= self.tries or any(one.final for one in tries):
            last = tries[-1]
            cause = last.cause or f"its process {last.owner} died or lost the disk, {last.age:.0f} s ago"
            _write(_record(self.plan, _DEAD, tile), asdict(Dead(tile.name, counted, cause)))
            logger.warning("tile %s is set aside after %d tries (%s)", tile.name, counted, cause)
            return "ended"
        if not self.leases.take(tile.name, len(tries)):
            return "elsewhere"
        return self._do(tile, len(tries), counted)

    def _do(self, tile: Tile, number: int, counted: int) -> Attempt:
        begun = time.monotonic()
        try:
            with self.leases.kept(tile.name, number):
                result = self.work(tile)
        except LeaseLost:
            logger.warning("tile %s was taken over by another process: this one gave no sign of life", tile.name)
            return "elsewhere"
        except Exception as error:
            cause = Trouble(1, error).cause
            verdict = self.verdict(tile, error)
            self.leases.fail(tile.name, number, cause, counted=verdict in ("tile", "try"), final=verdict == "tile")
            if verdict == "all":
                raise
            logger.warning("tile %s failed (%s)", tile.name, cause)
            return "failed"
        except BaseException:
            self.leases.fail(tile.name, number, "interrupted", counted=False)
            raise
        record = {"tile": tile.name, "owner": self.leases.owner, "tries": counted + 1, "km2": tile.km2}
        record |= {"seconds": round(time.monotonic() - begun, 3), "when": _now(), "result": result}
        _write(_record(self.plan, _DONE, tile), record)
        self.own += 1
        self.row.clear()
        return "ended"

    def verdict(self, tile: Tile, error: Exception) -> Verdict:
        """Return whose fault an error is: the tile's for good, one that another try may mend, or one of all tiles.

        Some errors may be of the options, of this machine or of one tile's data. They are not clear until all other
        tiles were asked: what these do not meet is the tile's. What tile after tile meets is of none of them; before
        any tile of the plan is done, two are enough.
        """
        if isinstance(error, _OF_THE_TILE):
            return "tile"
        if isinstance(error, _EVERYWHERE):
            return "all"
        # of the store errors those of a disk; the others are of what lies on it
        unclear = isinstance(error, _UNCLEAR) or type(error) is StoreError
        again, begun = tile.name in self.row, bool(_names(self.plan.folder / _DONE))
        self.row.add(tile.name)
        if len(self.row) >= (2 if unclear and not begun else _IN_A_ROW):
            return "all"
        if not unclear:
            return "try"
        if not again:
            return "unclear"
        return "tile" if begun else "all"


def run_tiles(
    plan: TilePlan,
    work: Work,
    *,
    tiles: Sequence[Tile] | None = None,
    tries: int = TRIES,
    stale: float = STALE,
    wait: bool = True,
) -> TilesOutcome:
    """Do the tiles of a plan that are not done yet, beside other processes that do the same.

    Parameters
    ----------
    plan
        The plan.
    work
        Does one tile. It must be able to go on where another process was killed: it gets the same tile again.
    tiles
        Tiles to do (`TilePlan.select`); all by default.
    tries
        After so many tries a tile is set aside. A process that was killed counts as one, one that was interrupted not.
    stale
        Seconds without a sign of life after which a process counts as dead and its tile is taken over; the same for all
        processes.
    wait
        Whether to wait for the tiles that other processes are at, and to take over those of processes that die.

    Returns
    -------
    TilesOutcome
        What was done, and what was set aside.

    Raises
    ------
    PlanError
        The folder of the plan cannot be written.
    IcemapError
        An error that every tile would meet, such as a wrong option or a model that cannot be loaded; no tile is blamed.
    """
    if tries < 1 or not stale > 0:
        raise InputError(f"tries={tries}, stale={stale} are not allowed: give at least 1, and more than 0 s")
    chosen = list(plan.tiles if tiles is None else tiles)
    try:
        for name in (_DONE, _DEAD):
            (plan.folder / name).mkdir(exist_ok=True)
        leases = Leases(plan.folder / LEASES, stale)
        leases.now()
    except OSError as error:
        raise PlanError(
            f"{plan.folder} cannot be written ({error.strerror}): check its permissions and space"
        ) from None
    queue = _Queue(plan, leases, tries, work)
    try:
        _work_off(queue, chosen, min(_POLL, stale / 4), wait)
    finally:
        leases.close()
    names = [tile.name for tile in chosen]
    dead = tuple(one for one in dead_tiles(plan) if one.name in set(names))
    done = len(_names(plan.folder / _DONE).intersection(names))
    return TilesOutcome(done, queue.own, dead, len(names) - done - len(dead))


def _work_off(queue: _Queue, tiles: list[Tile], poll: float, wait: bool) -> None:
    # each process begins elsewhere, so that they rarely reach for the same tile
    start = zlib.crc32(queue.leases.owner.encode()) % max(1, len(tiles))
    left = {tile.name: tile for tile in tiles[start:] + tiles[:start]}
    with progress("tiles", len(tiles)) as advance:
        while True:
            advance(_drop(left, queue.ended(left)))
            before, own = len(left), queue.own
            attempts = set()
            for tile in list(left.values()):
                attempts.add(attempt := queue.attempt(tile))
                if attempt == "ended":
                    advance(_drop(left, {tile.name}))
            if not left or not (wait or "failed" in attempts):
                return
            if len(left) == before and queue.own == own:
                time.sleep(poll)


def _drop(left: dict[str, Tile], names: set[str]) -> int:
    for name in names:
        del left[name]
    return len(names)


def dead_tiles(plan: TilePlan) -> list[Dead]:
    """Return the tiles that were set aside, by name."""
    return [Dead(**_load(path)) for path in sorted((plan.folder / _DEAD).glob("*.json"))]


def revive(plan: TilePlan) -> int:
    """Let tiles that were set aside be tried again; returns how many there are. Not while others are at work."""
    dead = dead_tiles(plan)
    for one in dead:
        for path in (plan.folder / LEASES).glob(f"{one.name}.*.json"):
            path.unlink()
        _record_name(plan, _DEAD, one.name).unlink()
    return len(dead)


def _record(plan: TilePlan, kind: str, tile: Tile) -> Path:
    return _record_name(plan, kind, tile.name)


def _record_name(plan: TilePlan, kind: str, name: str) -> Path:
    return plan.folder / kind / f"{name}.json"


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {one.name.removesuffix(".json") for one in entries if not one.name.startswith(".")}


def _write(path: Path, content: dict[str, Any]) -> None:
    try:
        write_text(path, json.dumps(content))
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path} could not be written ({error}): a tile's result must be plain JSON") from None


def done_records(plan: TilePlan) -> list[dict[str, Any]]:
    """Return the records of the tiles that are done, by name."""
    return [_load(path) for path in sorted((plan.folder / _DONE).glob("*.json"))]


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
