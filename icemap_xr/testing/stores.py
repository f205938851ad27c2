"""A small map to write, whole, interrupted or failing, for tests of stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from icemap_xr import store
from icemap_xr.testing.fakes import small_grid

#: what the stores of `write_store` are made from
PLAN = {"kind": "test", "number": 1}

_EMPTY = np.empty((0, 0, 0), np.float32)
_map_blocks: Any = da.map_blocks


class Killed(BaseException):
    """Ends a call where a kill would."""


def two_year_map(*, fail_after: int | None = None, seen: list[Any] | None = None, seed: int = 0) -> xr.Dataset:
    """Make a lazy map of 18 blocks, and an array in memory.

    Parameters
    ----------
    fail_after
        Raise `Killed` once so many blocks are computed.
    seen
        Gets the index of each block that is computed.
    seed
        Of the values.
    """
    values = np.random.default_rng(seed).random((2, 20, 24)).astype(np.float32)
    values[0, :8, :8] = np.nan
    seen = [] if seen is None else seen

    def block(part: Any, block_id: Any = None) -> Any:
        if fail_after is not None and len(seen) >= fail_after:
            raise Killed
        seen.append(block_id)
        return part

    lazy = _map_blocks(block, da.from_array(values, chunks=(1, 8, 8)), dtype="f4", meta=_EMPTY)
    coords = {"year": [2020, 2021], **small_grid((20, 24)).coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), lazy), "zeros": ("year", [0, 0])}, coords=coords)


def flaky_map(failures: int, error: Exception) -> xr.Dataset:
    """Make a `two_year_map` one block of which fails so many times."""
    left, ds = [failures], two_year_map()

    def block(part: Any, block_id: Any = None) -> Any:
        if block_id == (1, 1, 2):
            left[0] -= 1
            if left[0] >= 0:
                raise error
        return part

    lazy = _map_blocks(block, ds.probability.data, dtype="f4", meta=_EMPTY)
    return ds.assign(probability=(ds.probability.dims, lazy))


def write_store(path: Path, ds: xr.Dataset | None = None, plan: Any = PLAN) -> Path:
    """Write a store and finish it."""
    store.write_groups({"": two_year_map() if ds is None else ds}, path, plan=plan)
    return store.finish(path, plan=plan)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
