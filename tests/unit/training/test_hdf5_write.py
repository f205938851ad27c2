"""What is written in the published layout is read back as the same tiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import h5py
import numpy as np
import pytest
from shapely.geometry import box

from icemap_xr import schema
from icemap_xr.cube import build_cube
from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster
from icemap_xr.training.cube_tiles import cube_tiles
from icemap_xr.training.hdf5 import open_tiles
from icemap_xr.training.hdf5_write import write_tiles
from icemap_xr.training.tiles import feature_specs

SHAPE = (30, 40)
GRID = small_grid(SHAPE)


def power(number: int) -> Any:
    return np.random.default_rng(number).lognormal(-3, 1, SHAPE)


@pytest.fixture
def tiles(tmp_path: Path) -> Any:
    import pystac

    days = ("2020-01-10", "2020-03-01", "2020-06-01", "2020-09-01", "2020-12-01")
    items = [
        rtc_item(write_raster(tmp_path / f"{n}.tif", power(n)), day, orbit=100 + 175 * n) for n, day in enumerate(days)
    ]
    cube = build_cube(pystac.ItemCollection(items), GRID, tmp_path / "cube.zarr", steps=3, chunk=40)
    west, south, east, north = GRID.geobox.boundingbox.bbox
    ice = gpd.GeoDataFrame(geometry=[box(west, south, (west + east) / 2, north)], crs=GRID.crs)
    return cube_tiles(cube, ice, feature_specs(["rtc"]), name="SVAL-1")


def test_the_file_has_the_published_layout_and_reads_back(tiles: Any, tmp_path: Path) -> None:
    path = write_tiles(tiles, tmp_path / "tiles.hdf5", relative_orbit=14, multiple=48)
    name = "SVAL-1-0-0_2020_ro14"
    with h5py.File(path) as file:
        assert list(file) == [name]
        group = file[name]
        assert group["rtc"].shape == (5, 48, 48, 1)
        assert group["outlines"].shape == (48, 48, 2)
        found = {key: int(group.attrs[key]) for key in ("height", "width", "orig_height", "orig_width")}
        assert found == {"height": 48, "width": 48, "orig_height": 30, "orig_width": 40}
        assert (int(group.attrs["pad_height"]), int(group.attrs["pad_width"])) == (9, 4)
        assert group.attrs["rtc_base_time_idx"].tolist() == tiles[0].index["rtc"].tolist()
        assert np.isnan(group["rtc"][:, :9]).all()
        assert group["outlines"][:9].sum() == 0
    one = schema.feature("rtc")
    with open_tiles(path, ["rtc"]) as read:
        (tile,) = read
        rows, columns = tile.inside
        for time in range(5):
            expected = (10 * np.log10(power(time)) - one.minimum) / (one.maximum - one.minimum)
            np.testing.assert_allclose(tile.series["rtc"][(time, rows, columns)], expected, atol=3e-5)
        labels = tile.labels[(rows, columns)]
        np.testing.assert_array_equal(labels, tiles[0].labels[tiles[0].inside])
        assert labels[:, :20, 1].all()
        assert not labels[:, 20:, 1].any()


def test_tiles_of_another_scaling_and_pixel_size_come_back_with_their_values(tiles: Any, tmp_path: Path) -> None:
    (own,) = feature_specs(["rtc"], {"rtc": (-12.0, -6.0)})
    published = feature_specs(["rtc"])[0]
    rows, columns = tiles[0].inside
    raw = 10 * np.log10(power(1))
    series = np.full((5, *SHAPE), own.scale(raw), np.float32)
    tile = replace(tiles[0], features=(own,), series={"rtc": series}, resolution=20.0)
    path = write_tiles([tile], tmp_path / "tiles.hdf5", multiple=48)
    with open_tiles(path, ["rtc"]) as (read,):
        values = read.series["rtc"][(0, *read.inside)]
        found = values * (published.maximum - published.minimum) + published.minimum
        np.testing.assert_allclose(found, raw[rows, columns], atol=1e-4)
        assert read.resolution == 20
        read.check((published,), 3, 2)
    with h5py.File(path, "a") as file:
        del file[tile.name].attrs["pixel_size"]
    with open_tiles(path, ["rtc"]) as (read,):
        assert read.resolution == 10


def test_what_cannot_be_written(tiles: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiles.hdf5"
    for given, options, match in (
        ([], {}, "0 tiles"),
        (tiles, {"multiple": 0}, "multiple=0"),
        ([tiles[0], tiles[0]], {}, "same name"),
    ):
        with pytest.raises(InputError, match=match):
            write_tiles(given, path, **options)
    tiles[0].index["rtc"][0] = -1
    with pytest.raises(InputError, match=r"1 steps of rtc have no scene"):
        write_tiles(tiles, path)
    assert not list(tmp_path.glob("*tiles.hdf5*"))
    path.write_bytes(b"")
    with pytest.raises(OutputExistsError, match="exists already"):
        write_tiles(tiles, path)
