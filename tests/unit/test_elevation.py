"""The part of an elevation model that a region needs, from files on other grids."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.elevation import read_dem
from icemap_xr.errors import GridError, InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import write_raster

GRID = small_grid((100, 120))  # 1 x 1.2 km at 500 000 E, 8 700 000 N


def degrees(path, values, transform, **profile):
    options = {"driver": "GTiff", "count": 1, "dtype": values.dtype, "crs": "EPSG:4326", "transform": transform}
    options |= {"height": values.shape[0], "width": values.shape[1]}
    with rasterio.open(path, "w", **options | profile) as out:
        out.write(values, 1)
    return path


def test_only_the_part_around_the_region_is_read(tmp_path):
    big = small_grid((400, 400), resolution=50.0)  # the same corner, 20 km wide
    values = np.arange(160_000.0).reshape(400, 400)
    got = read_dem(write_raster(tmp_path / "a.tif", values, grid=big), GRID, margin=500)
    # 1000 m and 500 m more southwards, 1200 and 500 eastwards; the raster ends in the north and west
    assert got.shape == (30, 34)
    np.testing.assert_array_equal(got, values[:30, :34])
    assert got.odc.geobox == big.geobox[:30, :34]


def test_another_crs_and_voids(tmp_path):
    values = np.full((200, 400), 500, np.int16)
    values[100, 200] = -32768
    path = degrees(tmp_path / "d.tif", values, Affine(0.001, 0, 14.8, 0, -0.001, 78.45), nodata=-32768)
    got = read_dem(path, GRID)
    assert got.dtype == np.float32
    assert got.odc.crs.to_epsg() == 4326
    box = got.odc.geobox.extent.to_crs("EPSG:32633")
    assert box.contains(GRID.geobox.extent)
    assert got.shape < (200, 400)
    assert np.isnan(got).sum() <= 1
    assert float(got.max()) == 500


def test_what_cannot_be_a_dem_of_the_region_is_refused(tmp_path):
    values = np.ones((10, 10), np.float32)
    with pytest.raises(InputError, match="beside"):
        read_dem(degrees(tmp_path / "a.tif", values, Affine(0.1, 0, 10, 0, -0.1, 47)), GRID)
    with pytest.raises(InputError, match="no CRS"):
        read_dem(degrees(tmp_path / "b.tif", values, Affine(10, 0, 0, 0, -10, 0), crs=None), GRID)
    with pytest.raises(GridError, match="rotated"):
        read_dem(degrees(tmp_path / "c.tif", values, Affine(0.1, 0.01, 10, 0.01, -0.1, 78)), GRID)
    (tmp_path / "d.tif").write_text("no raster")
    for name in ("d.tif", "missing.tif"):
        with pytest.raises(InputError, match=name):
            read_dem(tmp_path / name, GRID)


def test_a_dem_that_is_flipped_or_cut_at_the_antimeridian_is_named(tmp_path):
    values = np.ones((180, 360), np.float32)
    with pytest.raises(GridError, match=r"not north-up, its pixels are 1 by 1: flip it"):
        read_dem(degrees(tmp_path / "south.tif", values, Affine(1, 0, -180, 0, 1, -90)), GRID)
    with pytest.raises(GridError, match="not north-up, its pixels are -1 by -1"):
        read_dem(degrees(tmp_path / "east.tif", values, Affine(-1, 0, 180, 0, -1, 90)), GRID)
    globe = degrees(tmp_path / "globe.tif", values, Affine(1, 0, -180, 0, -1, 90))
    across = RegionGrid(GeoBox((20, 20), Affine(1000, 0, 385_000, 0, -1000, 7_950_000), "EPSG:32601"))
    with pytest.raises(GridError, match=r"crosses the antimeridian.*gdalwarp"):
        read_dem(globe, across)
    pole = RegionGrid(GeoBox((20, 20), Affine(1000, 0, -10_000, 0, -1000, 10_000), "EPSG:3413"))
    assert read_dem(globe, pole).shape == (1, 360)
    # west of Greenwich on a raster that counts eastwards from there
    west = RegionGrid(GeoBox((20, 20), Affine(1000, 0, 500_000, 0, -1000, 7_200_000), "EPSG:32627"))
    with pytest.raises(InputError, match=r"beside the region.*from -180 to 180"):
        read_dem(degrees(tmp_path / "round.tif", values, Affine(1, 0, 0, 0, -1, 90)), west)
