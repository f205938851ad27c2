"""Fixtures of the unit tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr

from icemap_xr.cube import build_cube, open_cube
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

#: rows and columns of the stored cube
SHAPE = (37, 45)


@pytest.fixture(scope="session")
def rtc_cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube on disk of one year with three scenes of rtc and insar, 37 x 45 pixels, chunks of 16."""
    folder = tmp_path_factory.mktemp("cube")
    rng = np.random.default_rng(0)
    items = []
    for month in (2, 6, 10):
        raster = write_raster(folder / f"rtc{month}.tif", rng.lognormal(-3, 1, SHAPE))
        items.append(rtc_item(raster, f"2020-{month:02d}-01"))
        pair = write_raster(folder / f"pair{month}.tif", rng.random(SHAPE))
        items.append(pair_item(pair, f"2020-{month:02d}-01", f"2020-{month:02d}-13"))
    build_cube(pystac.ItemCollection(items), small_grid(SHAPE), folder / "cube.zarr", steps=3, chunk=16)
    return folder / "cube.zarr"


@pytest.fixture
def cube(rtc_cube: Path) -> xr.Dataset:
    """Open the cube on disk."""
    return open_cube(rtc_cube)
