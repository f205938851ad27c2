"""Cloud-Optimized GeoTIFFs from lazy maps: whole or not there, right CRS, transform and nodata."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import rasterio
import xarray as xr

from icemap_xr.cog import write_cog
from icemap_xr.errors import GridError, InputError, OutputExistsError, StoreError
from icemap_xr.testing.fakes import small_grid

#: Dask carries no types for it
from_array: Any = da.from_array

SHAPE = (700, 600)


def layers(count: int, *, lazy: bool = True) -> tuple[Any, xr.DataArray]:
    values = np.random.default_rng(1).random((count, *SHAPE), dtype=np.float32)
    values[:, 100:200, 100:300] = np.nan
    data = from_array(values, chunks=(1, 250, 333)) if lazy else values
    return values, xr.DataArray(data, dims=("class", "y", "x"))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("lazy", [True, False])
def test_file_is_a_cog_with_values_grid_nodata_and_tags(tmp_path: Path, count: int, lazy: bool) -> None:
    values, array = layers(count, lazy=lazy)
    grid, names = small_grid(SHAPE), [f"class {i}" for i in range(count)]
    path = write_cog(array, grid, tmp_path / "new" / "map.tif", descriptions=names, tags={"model": "m", "window": 384})
    assert [one.name for one in path.parent.iterdir()] == ["map.tif"]
    with rasterio.open(path) as src:
        assert src.driver == "GTiff"
        assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert src.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "DEFLATE"
        assert src.dtypes == ("float32",) * count
        assert src.crs == rasterio.crs.CRS.from_epsg(32633)
        assert src.transform == grid.geobox.transform
        assert np.isnan(src.nodata)
        assert src.descriptions == tuple(names)
        assert (src.tags()["model"], src.tags()["window"]) == ("m", "384")
        assert src.overviews(1) == [2]
        np.testing.assert_array_equal(src.read(), values)
        overview = src.read(1, out_shape=(350, 300))
        np.testing.assert_allclose(overview[0, 0], values[0, :2, :2].mean(), atol=1e-6)
        assert np.isnan(overview[60:90, 60:140]).all()


def test_list_of_bands_and_another_nodata(tmp_path: Path) -> None:
    values, array = layers(2)
    bands = [array[1], array[0] * 2]
    path = write_cog(bands, small_grid(SHAPE), tmp_path / "map.tif", descriptions=["b", "a"], nodata=-9999)
    with rasterio.open(path) as src:
        assert src.nodata == -9999
        np.testing.assert_array_equal(src.read(1), np.where(np.isnan(values[1]), -9999, values[1]))
        np.testing.assert_array_equal(src.read(2, masked=True).filled(np.nan), values[0] * 2)
    single = write_cog(array[0], small_grid(SHAPE), tmp_path / "one.tif", descriptions=["a"])
    with rasterio.open(single) as src:
        np.testing.assert_array_equal(src.read(1), values[0])


def test_blocks_are_computed_once_in_order_and_one_at_a_time(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def block(block_id: tuple[int, ...]) -> Any:
        seen.append(block_id[1:])
        return np.full((2, *(size[i] for size, i in zip(chunks[1:], block_id[1:], strict=True))), 1, np.float32)

    chunks = ((2,), (250, 250, 200), (300, 300))
    data = da.map_blocks(block, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0, 0), np.float32))
    write_cog(xr.DataArray(data), small_grid(SHAPE), tmp_path / "map.tif", descriptions=["a", "b"])
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_of_a_failure(tmp_path: Path, error: type[BaseException]) -> None:
    def block(block_id: tuple[int, ...]) -> Any:
        if block_id == (1, 1):
            raise error
        return np.ones((350, 300), np.float32)

    data = da.map_blocks(block, chunks=((350, 350), (300, 300)), dtype=np.float32, meta=np.empty((0, 0), np.float32))
    with pytest.raises(error):
        write_cog(xr.DataArray(data), small_grid(SHAPE), tmp_path / "map.tif", descriptions=["a"])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_gdal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise rasterio.errors.RasterioIOError("write error\nat scanline 3")

    monkeypatch.setattr("icemap_xr.cog.copy", full)
    with pytest.raises(StoreError, match=r"map\.tif could not be written \(write error at scanline 3\): check"):
        write_cog(layers(1)[1], small_grid(SHAPE), tmp_path / "map.tif", descriptions=["a"])
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    path.write_text("mine")
    with pytest.raises(OutputExistsError, match=r"map\.tif exists already"):
        write_cog(layers(1)[1], small_grid(SHAPE), path, descriptions=["a"])
    assert path.read_text() == "mine"
    with pytest.raises(StoreError, match="cannot be written"):
        write_cog(layers(1)[1], small_grid(SHAPE), path / "below.tif", descriptions=["a"])


def test_wrong_shapes_and_counts_are_refused(tmp_path: Path) -> None:
    _, array = layers(2)
    path, grid = tmp_path / "map.tif", small_grid(SHAPE)
    with pytest.raises(InputError, match="2 bands have 1 descriptions"):
        write_cog(array, grid, path, descriptions=["a"])
    with pytest.raises(InputError, match="0 bands have 0 descriptions"):
        write_cog([], grid, path, descriptions=[])
    with pytest.raises(InputError, match=r"isel\(year=0\)"):
        write_cog(array.expand_dims("year"), grid, path, descriptions=["a", "b"])
    with pytest.raises(GridError, match=r"the grid has \(3, 4\) rows and columns"):
        write_cog(array, small_grid((3, 4)), path, descriptions=["a", "b"])
    assert not path.exists()
