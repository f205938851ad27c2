"""Block table: the same for any chunking, each pixel in exactly one block."""

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.blocktable import block_table
from icemap_xr.grid import RegionGrid

#: Dask carries no types for it
from_array: Any = da.from_array

SHAPE = (2, 17, 13)


@st.composite
def ragged(draw: st.DrawFn, length: int) -> tuple[int, ...]:
    cuts = sorted(draw(st.sets(st.integers(1, length - 1))))
    return tuple(int(n) for n in np.diff([0, *cuts, length]))


def probability(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    p = rng.random(SHAPE, dtype=np.float32)
    p[rng.random(SHAPE) < rng.random()] = np.nan
    return p


def brute_force(p: Any, offset: tuple[int, int], block: int, shape: tuple[int, int]) -> tuple[Any, Any]:
    ice, observed = np.zeros((len(p), *shape)), np.zeros((len(p), *shape))
    for i, y, x in np.ndindex(*p.shape):
        if np.isfinite(p[i, y, x]):
            at = i, (y + offset[0]) // block - offset[0] // block, (x + offset[1]) // block - offset[1] // block
            ice[at] += float(p[i, y, x]) * 1e-4
            observed[at] += 1e-4
    return ice, observed


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    block=st.integers(1, 20),
    row=st.integers(0, 9),
    column=st.integers(0, 9),
    chunks=st.tuples(*(ragged(n) for n in SHAPE)),
)
def test_any_chunking_gives_the_sums_of_pixels(
    seed: int, block: int, row: int, column: int, chunks: tuple[tuple[int, ...], ...]
) -> None:
    region = RegionGrid.from_bbox((0, 0, 300, 300), "EPSG:32633", 10, bbox_crs="EPSG:32633")
    coords = {**region.coords(), "year": [2016, 2017]}
    full = xr.Dataset({"probability": (("year", "y", "x"), np.zeros((2, 30, 30), np.float32))}, coords=coords)
    crop = full.isel(y=slice(row, row + 17), x=slice(column, column + 13))
    grid = RegionGrid.from_dataset(crop)
    assert grid.offset == (row, column)
    p = probability(seed)
    eager = block_table(crop.probability.copy(data=p), grid, block)
    lazy = block_table(crop.probability.copy(data=from_array(p, chunks=chunks)), grid, block)
    assert lazy.ice_km2.chunks is not None
    ice, observed = brute_force(p, (row, column), block, (eager.sizes["block_y"], eager.sizes["block_x"]))
    for table in (eager, lazy.compute()):
        np.testing.assert_allclose(table.ice_km2, ice, rtol=1e-12, atol=1e-18)
        np.testing.assert_allclose(table.observed_km2, observed, rtol=1e-12, atol=1e-18)
        total = np.nansum(p.astype(float), axis=(1, 2)) * 1e-4
        np.testing.assert_allclose(table.ice_km2.sum(("block_y", "block_x")), total, rtol=1e-12)
