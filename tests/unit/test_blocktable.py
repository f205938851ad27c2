"""The block table: shape, anchoring, laziness, what it refuses."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from icemap_xr.blocktable import block_table
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_300, 8_600_230), "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(values: Any, grid: RegionGrid = GRID) -> xr.Dataset:
    years = 2016 + np.arange(len(values))
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={**grid.coords(), "year": years})


def values(years: int = 2) -> Any:
    rng = np.random.default_rng(3)
    p = rng.random((years, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.1] = np.nan
    return p


def test_units_dims_and_totals() -> None:
    p = values()
    table = block_table(maps(p).probability, GRID, 8)
    assert table.ice_km2.dims == ("year", "block_y", "block_x")
    assert dict(table.sizes) == {"year": 2, "block_y": 3, "block_x": 4}
    assert table.ice_km2.attrs["units"] == table.observed_km2.attrs["units"] == "km2"
    assert table.attrs["block_m"] == 80
    assert "spatial_ref" not in table.coords
    pixel = 100 / 1e6
    total = table.sum(("block_y", "block_x"))
    np.testing.assert_allclose(total.ice_km2, np.nansum(p.astype(float), axis=(1, 2)) * pixel, rtol=1e-12)
    np.testing.assert_allclose(total.observed_km2, np.isfinite(p).sum(axis=(1, 2)) * pixel, rtol=1e-12)
    # the block in the lower right corner is cut by the edge: rows 16..22, columns 24..29
    np.testing.assert_allclose(table.ice_km2[0, 2, 3], np.nansum(p[0, 16:, 24:].astype(float)) * pixel, rtol=1e-12)


def test_a_crop_keeps_the_regions_blocks() -> None:
    ds = maps(values())
    whole = block_table(ds.probability, GRID, 8)
    crop = ds.isel(y=slice(8, 23), x=slice(16, 30))
    part = block_table(crop.probability, RegionGrid.from_dataset(crop), 8)
    assert part.block_y.values.tolist() == [1, 2]
    assert part.block_x.values.tolist() == [2, 3]
    xr.testing.assert_allclose(part, whole.sel(block_y=[1, 2], block_x=[2, 3]), rtol=1e-12)


@pytest.mark.parametrize("chunks", [(1, 8, 8), (2, 23, 1), (1, 7, 11), ((1, 1), (1, 22), (29, 1))])
def test_lazy_one_task_per_chunk_and_one_more(chunks: Any) -> None:
    p = values()
    data = from_array(p, chunks=chunks)
    table = block_table(maps(data).probability, GRID, 8)
    graph = table.ice_km2.data.dask
    sums = [key for key in graph.to_dict() if str(key).count("block-table")]
    assert len([key for key in sums if "block-table-chunk" in str(key)]) == data.npartitions
    assert (
        len(graph.layers[next(name for name in graph.layers if name.startswith("block-table"))]) == data.npartitions + 1
    )
    xr.testing.assert_allclose(table.compute(), block_table(maps(p).probability, GRID, 8), rtol=1e-12)


def test_names_are_deterministic() -> None:
    ds = maps(from_array(values(), chunks=(1, 8, 8)))
    first, second = (block_table(ds.probability, GRID, 8).ice_km2.data.name for _ in range(2))
    assert first == second
    assert first != block_table(ds.probability, GRID, 9).ice_km2.data.name
    assert first != block_table(ds.probability, GRID, 8, threshold=0.5).ice_km2.data.name


def test_refuses_what_it_cannot_sum() -> None:
    ds = maps(values())
    with pytest.raises(InputError, match="at least 1 pixel"):
        block_table(ds.probability, GRID, 0)
    with pytest.raises(InputError, match="own grid"):
        block_table(ds.probability[:, 1:], GRID, 8)
    lazy = block_table(maps(from_array(values() + 1, chunks=(1, 8, 8))).probability, GRID, 8)
    with pytest.raises(InputError, match=r"0\.\.1"):
        lazy.compute()
