"""Polygons cut at the edges of blocks: nothing is lost, and every piece knows its block."""

import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from icemap_xr.grid import RegionGrid
from icemap_xr.regionsums import cut_to_blocks

REGION = RegionGrid.from_bbox((0, 0, 300, 300), "EPSG:32633", 10, bbox_crs="EPSG:32633")


@given(block=st.integers(1, 40), row=st.integers(0, 9), column=st.integers(0, 9), seed=st.integers(0, 20))
def test_pieces_add_up_and_lie_in_their_blocks(block: int, row: int, column: int, seed: int) -> None:
    whole = xr.Dataset({"p": (("y", "x"), np.zeros((30, 30)))}, coords=REGION.coords())
    grid = RegionGrid.from_dataset(whole.isel(y=slice(row, row + 17), x=slice(column, column + 13)))
    rng = np.random.default_rng(seed)
    polygons = shapely.buffer(shapely.points(rng.uniform(-3, 20, (3, 2))), rng.uniform(1, 12, 3))
    areas, owner, places = cut_to_blocks(polygons, grid, block)
    inside = shapely.area(shapely.intersection(polygons, shapely.box(0, 0, 13, 17)))
    np.testing.assert_allclose(np.bincount(owner, areas, minlength=3), inside, atol=1e-9)
    for size, number, (down, across) in zip(areas, owner, places, strict=True):
        left, top = across * block - column, down * block - row
        cell = shapely.box(max(0, left), max(0, top), min(13, left + block), min(17, top + block))
        assert size == pytest.approx(shapely.intersection(polygons[number], cell).area, abs=1e-9)


def test_polygons_off_the_map_have_no_pieces() -> None:
    areas, owner, places = cut_to_blocks(np.array([shapely.box(-20, 0, -5, 5)]), REGION, 4)
    assert len(areas) == len(owner) == len(places) == 0
    assert places.shape == (0, 2)
    areas, _, places = cut_to_blocks(np.array([shapely.box(3, 3, 5, 5)]), REGION, 4)
    assert areas.tolist() == pytest.approx([1, 1, 1, 1])
    assert sorted(places.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1]]
