"""Real coherence rasters enter a cube with both dates and their baseline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT

import icemap_xr as ix
from icemap_xr import schema
from icemap_xr.errors import InputError

REGION = (-99.18, 19.38, -99.06, 19.44)


@pytest.fixture
def grid() -> ix.RegionGrid:
    return ix.RegionGrid.from_bbox((-99.19, 19.37, -99.055, 19.45), "EPSG:32614", 150)


def test_pairs_of_one_baseline_make_a_series(data: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    items = ix.search(data / "coherence", REGION, 2018)
    cube = ix.build_cube(items, grid, tmp_path / "cube.zarr", baseline_days=12, resampling="nearest")
    first, second = cube["insar_reference_time"].values, cube["insar_secondary_time"].values
    assert len(first) >= 4
    # the same second of the day, give or take one
    np.testing.assert_allclose((second - first) / np.timedelta64(1, "D"), 12, atol=1e-4)
    assert set(cube["insar_baseline_days"].values.tolist()) == {12.0}
    np.testing.assert_array_equal(cube["insar_time"].values, first + (second - first) // 2)
    values = cube["insar"].values
    assert np.nanmin(values) >= 0
    assert np.nanmax(values) <= 1
    assert cube["insar"].attrs["units"] == "1"


def test_values_are_the_rasters_own_and_zero_is_nodata(data: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    items = ix.search(data / "coherence", REGION, 2018)
    cube = ix.build_cube(items, grid, tmp_path / "cube.zarr", baseline_days=12, resampling="nearest")
    dates = [
        np.datetime_as_string(cube[f"insar_{one}_time"].values[0], "D").replace("-", "")
        for one in ("reference", "secondary")
    ]
    (path,) = (data / "coherence").glob(f"*_{dates[0]}-{dates[1]}_*cc.tif")
    box = grid.geobox
    with (
        rasterio.open(path) as source,
        WarpedVRT(source, crs="EPSG:32614", transform=box.transform, height=box.shape[0], width=box.shape[1]) as warped,
    ):
        raw = warped.read(1)
    expected = np.where(raw == 0, np.nan, raw)
    found = cube["insar"].values[0]
    # the two warpers may choose another neighbour where a centre lies between two pixels
    same = np.isclose(found, expected, atol=schema.FEATURES["insar"].encoding_error + 1e-6, equal_nan=True)
    assert same.mean() > 0.97
    assert np.isnan(found).any()
    assert not (found == 0).any()


def test_mixed_baselines_are_refused_unless_one_is_chosen(data: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    items = ix.search(data / "coherence", REGION, 2018)
    with pytest.raises(InputError, match=r"mixes temporal baselines .*build_cube\(baseline_days=\)"):
        ix.build_cube(items, grid, tmp_path / "cube.zarr")
    assert not (tmp_path / "cube.zarr").exists()
