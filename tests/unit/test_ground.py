"""Masks from files: the right pixels, lazy, the same for vector and raster, and used by maps and areas alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from shapely.geometry import box

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask, marked_km2
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import write_raster

GRID = small_grid((40, 50))
BOX = GRID.geobox.boundingbox
#: the second quarter of the columns, by pixel centres
LAND = box(BOX.left + 120, BOX.bottom, BOX.left + 256, BOX.top)
EXPECTED = np.zeros(GRID.shape, bool)
EXPECTED[:, 12:26] = True


def vector(folder: Path, crs: str = "EPSG:4326") -> Path:
    path = folder / "land.gpkg"
    gpd.GeoDataFrame(geometry=[LAND.segmentize(20)], crs=GRID.crs).to_crs(crs).to_file(path)
    return path


def raster(folder: Path, nodata: float | None, outside: float) -> Path:
    return write_raster(folder / "land.tif", np.where(EXPECTED, 7.0, outside), grid=GRID, nodata=nodata)


@pytest.mark.parametrize("chunk", [7, 1024])
def test_pixels_whose_centre_is_inside_are_marked(tmp_path: Path, chunk: int) -> None:
    mask = ground_mask(vector(tmp_path), GRID, chunk=chunk)
    assert mask.chunks is not None
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask.values, EXPECTED)
    assert marked_km2(mask, GRID) == pytest.approx(40 * 14 * 1e-4)


@pytest.mark.parametrize(("nodata", "outside"), [(None, 0.0), (float("nan"), np.nan), (-9.0, -9.0), (255.0, 0.0)])
@pytest.mark.parametrize("chunk", [7, 1024])
def test_a_raster_marks_what_is_neither_zero_nor_nodata(
    tmp_path: Path, nodata: float | None, outside: float, chunk: int
) -> None:
    mask = ground_mask(raster(tmp_path, nodata, outside), GRID, chunk=chunk)
    np.testing.assert_array_equal(mask.values, EXPECTED)


def test_beyond_the_raster_is_outside(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "small.tif", np.ones((40, 30)), grid=RegionGrid(GRID.geobox[:, :30]), nodata=None)
    mask = ground_mask(path, GRID, chunk=16)
    assert mask.values[:, :30].all()
    assert not mask.values[:, 30:].any()


def test_the_same_file_is_the_same_mask_and_another_is_not(tmp_path: Path) -> None:
    """A resumed run recognises its store by this."""
    path = raster(tmp_path, None, 0.0)
    first = ground_mask(path, GRID).data.name
    assert ground_mask(path, GRID).data.name == first
    write_raster(path, np.ones((40, 51)), grid=small_grid((40, 51)))
    assert ground_mask(path, GRID).data.name != first
    shapes = vector(tmp_path)
    assert ground_mask(shapes, GRID).data.name == ground_mask(shapes, GRID).data.name


@pytest.mark.parametrize("kind", ["missing", "no raster", "no crs", "missing vector", "elsewhere"])
def test_masks_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    path: Any = tmp_path / "mask.tif"
    match = {
        "missing": "does not exist",
        "no raster": "cannot be read as a raster",
        "no crs": "has no CRS",
        "missing vector": "does not exist",
        "elsewhere": "marks no pixel",
    }[kind]
    if kind == "no raster":
        path.write_text("no raster")
    elif kind == "no crs":
        options = {"driver": "GTiff", "height": 4, "width": 4, "count": 1, "dtype": "uint8"}
        with rasterio.open(path, "w", transform=GRID.geobox.transform, **options) as out:
            out.write(np.ones((4, 4), np.uint8), 1)
    elif kind == "missing vector":
        path = tmp_path / "land.gpkg"
    elif kind == "elsewhere":
        path = write_raster(path, np.ones((4, 4)), grid=RegionGrid(small_grid((4, 4)).geobox.translate_pix(9000, 0)))
    with pytest.raises(InputError, match=match):
        marked_km2(ground_mask(path, GRID), GRID)
