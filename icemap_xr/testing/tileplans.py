"""A plan of square tiles that is made without a search or a model, for tests and benchmarks of queues."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from icemap_xr.cluster import ClusterOptions
from icemap_xr.config import GridSection, ModelSection, RunConfig, SearchSection
from icemap_xr.tiles import Tile, TilePlan, make_plan

_SIDE_M = 16_000.0


def tile_plan(folder: Path, tiles: int) -> TilePlan:
    """Make a plan of a row of tiles of 16 x 16 km."""
    # on multiples of the side, so that there are as many as asked for
    west, south = 0.0, 500 * _SIDE_M
    columns = min(tiles, 100)
    rows = -(-tiles // columns)
    bounds = (west, south, west + columns * _SIDE_M, south + rows * _SIDE_M)
    config = RunConfig(
        name="simulated",
        region=(15, 78, 16, 79),
        years=(2020,),
        search=SearchSection("nowhere"),
        grid=GridSection("EPSG:32633", 1000.0, bounds),
        model=ModelSection("none"),
        cluster=ClusterOptions(kind="threads"),
    )
    return make_plan(config, folder, tile_km=_SIDE_M / 1000, window=32)


class TileWork:
    """Does tiles, and fails as told: errors by the index of the tile, one for each try."""

    def __init__(self, **faults: list[BaseException]) -> None:
        self.faults = {int(name.removeprefix("tile")): list(errors) for name, errors in faults.items()}
        self.calls = Counter[int]()

    def __call__(self, tile: Tile) -> dict[str, Any]:
        """Do a tile or fail."""
        self.calls[tile.index] += 1
        if self.faults.get(tile.index):
            raise self.faults[tile.index].pop(0)
        return {"windows": 4}
