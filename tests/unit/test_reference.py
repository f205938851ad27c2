"""References: outlines by pixel centre and year, stores on the same grid, and what cannot be used."""

from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.reference import read_reference

#: Dask carries no types for it
from_array: Any = da.from_array
GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_200, 8_600_100), "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(years: tuple[int, ...] = (2020, 2021)) -> xr.Dataset:
    p = from_array(np.full((len(years), 10, 20), 0.4, np.float32), chunks=(1, 4, 7))
    return xr.Dataset({"probability": (("year", "y", "x"), p)}, coords={**GRID.coords(), "year": list(years)})


def test_outlines_of_each_year(tmp_path: Path) -> None:
    boxes = [shapely.box(500_000, 8_600_000, 500_000 + side, 8_600_100) for side in (104, 44)]
    frame = gpd.GeoDataFrame({"year": [2020, 2021]}, geometry=boxes, crs="EPSG:32633")
    frame.to_crs("EPSG:4326").to_file(tmp_path / "outlines.gpkg")
    found = read_reference(tmp_path / "outlines.gpkg", maps())
    assert found.dims == ("year", "y", "x")
    assert found.chunks is not None
    np.testing.assert_array_equal(found.sum(("y", "x")), [100, 40])
    frame[["geometry"]].iloc[:1].to_file(tmp_path / "always.gpkg")
    np.testing.assert_array_equal(read_reference(tmp_path / "always.gpkg", maps()).sum(("y", "x")), [100, 100])
    with pytest.raises(InputError, match=r"lack the years \[2022\]"):
        read_reference(tmp_path / "outlines.gpkg", maps((2021, 2022)))


def test_a_store_of_ice_cover(tmp_path: Path) -> None:
    cover = maps((2019, 2020, 2021)).rename(probability="glacier_fraction").compute()
    cover["glacier_fraction"][0] = 1
    cover.to_zarr(tmp_path / "truth.zarr", consolidated=False)
    found = read_reference(tmp_path / "truth.zarr", maps())
    np.testing.assert_array_equal(found.values, np.full((2, 10, 20), 0.4, np.float32))
    with pytest.raises(InputError, match=r"lacks the years \[2022\]"):
        read_reference(tmp_path / "truth.zarr", maps((2021, 2022)))
    cover.rename(glacier_fraction="other").to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(InputError, match="glacier_fraction"):
        read_reference(tmp_path / "other.zarr", maps())
