"""What a cube says of its scenes, and which of them it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from icemap_xr import store
from icemap_xr.cube import build_cube
from icemap_xr.cube_report import cube_info
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SHAPE = (20, 26)
GRID = small_grid(SHAPE)
OPTIONS: dict[str, Any] = {"steps": 3, "chunk": 10}


def power(number: int) -> Any:
    return np.random.default_rng(number).lognormal(-3, 1, SHAPE).astype(np.float32)


def test_of_a_scene_that_was_processed_again_the_newest_is_read(tmp_path: Path) -> None:
    """Items need not come from a search: two catalogues put together, or a list of one's own."""
    names = [f"OPERA_L2_RTC-S1_x_20200501T060000Z_{when}T060000Z_S1A" for when in ("20200601", "20230601")]
    items = [
        rtc_item(write_raster(tmp_path / f"{n}.tif", power(n)), "2020-05-01T06:00:00", orbit=100, name=name)
        for n, name in enumerate(names)
    ]
    ds = build_cube(pystac.ItemCollection(items), GRID, tmp_path / "cube.zarr", **OPTIONS)
    assert ds.rtc_item.values.tolist() == [names[1]]
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power(1)), atol=0.003)
    (dropped,) = store.read_manifest(tmp_path / "cube.zarr")["dropped"]
    assert (dropped["kept"], dropped["dropped"]) == (names[1], names[0])


def test_pairs_of_which_nothing_is_told_are_described(tmp_path: Path) -> None:
    values = np.full(SHAPE, 0.5)
    values[:, :13] = 0
    for number, nodata in enumerate((None, 0.0)):
        raster = write_raster(tmp_path / f"p{number}.tif", values, nodata=nodata)
        found = pystac.ItemCollection([pair_item(raster, "2020-05-01", "2020-05-13")])
        ds = build_cube(found, GRID, tmp_path / f"{number}.zarr", **OPTIONS)
        assert "polarisation" not in ds.insar.attrs
        info = cube_info(tmp_path / f"{number}.zarr")
        told = info["features"]["insar"]
        assert (told["platforms"], told["polarisation"]) == ([], "")
        assert info["grid"]["crs"] == "EPSG:32633"
        # zeros that nobody declared count as observed, which is said
        assert told["floor_share"] == pytest.approx(0.5 if nodata is None else 0)
        notes = [note for note in info["notes"] if "is zero, the first is 'p0'" in note]
        assert len(notes) == (nodata is None)


def test_a_value_that_no_code_can_hold_is_an_error_that_names_the_item(tmp_path: Path) -> None:
    values = power(0)
    values[5, 5] = 1e38
    values[6, 6] = 1e17
    found = pystac.ItemCollection([rtc_item(write_raster(tmp_path / "x.tif", values), "2020-05-01", orbit=100)])
    with pytest.raises(InputError, match=r"item 'x': value \d+ does not fit in steps of 0.005"):
        build_cube(found, GRID, tmp_path / "cube.zarr", **OPTIONS)


def test_a_crs_without_a_code_is_told_whole(tmp_path: Path) -> None:
    local = "+proj=laea +lat_0=78 +lon_0=15 +datum=WGS84 +units=m"
    grid = RegionGrid.from_bbox((-130, -100, 130, 100), local, 10, bbox_crs=local)
    raster = write_raster(tmp_path / "a.tif", power(0), grid=grid)
    found = pystac.ItemCollection([rtc_item(raster, "2020-05-01", orbit=100)])
    ds = build_cube(found, grid, tmp_path / "cube.zarr", **OPTIONS)
    assert "proj:code" not in ds.attrs
    assert ds.attrs["proj:wkt2"].startswith("PROJCRS")
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power(0)), atol=0.003)
    assert "Lambert" in cube_info(tmp_path / "cube.zarr")["grid"]["crs"]
