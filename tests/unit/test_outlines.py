"""What outlines promises besides exactness, which tests/property holds."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.errors import GridError, InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines


def dataset(values, **more):
    values = np.asarray(values, np.float32)
    grid = RegionGrid(GeoBox(values.shape[1:], Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633"))
    coords = {"year": 2018 + np.arange(len(values)), **grid.coords()}
    layers = {"probability": values, **more}
    return xr.Dataset({name: (("year", "y", "x"), layer) for name, layer in layers.items()}, coords=coords)


RING = [[[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0.9]]]


def test_columns_types_and_crs():
    got = outlines(dataset(RING))
    assert list(got.columns) == ["year", "area_km2", "mean_probability", "geometry"]
    assert got["year"].tolist() == [2018, 2018]
    assert got["area_km2"].tolist() == pytest.approx([8e-4, 1e-4])
    assert got["mean_probability"].tolist() == pytest.approx([1, 0.9])
    assert len(got.geometry[0].interiors) == 1
    assert got.crs.to_epsg() == 32633


def test_the_threshold_itself_and_nan_are_not_glacier():
    assert len(outlines(dataset([[[0.5, np.nan]]]))) == 0


def test_an_empty_map_gives_no_rows_of_the_same_types():
    full, empty = outlines(dataset(RING)), outlines(dataset(np.zeros((2, 3, 4))))
    assert len(empty) == 0
    assert (empty.dtypes == full.dtypes).all()
    assert empty.crs == full.crs


def test_all_ice_is_one_rectangle():
    (square,) = outlines(dataset(np.ones((1, 5, 7)))).geometry
    assert len(square.exterior.coords) == 5
    assert square.area == 3500


def test_minimum_area_and_connectivity():
    assert len(outlines(dataset(RING), min_area_km2=8e-4)) == 1
    joined = outlines(dataset(RING), connectivity=8)
    assert len(joined) == 1
    assert joined.geometry[0].geom_type == "MultiPolygon"
    assert joined["mean_probability"][0] == pytest.approx(8.9 / 9)


def test_calibrated_is_outlined_only_when_asked_for():
    ds = dataset(RING, calibrated=np.zeros((1, 4, 4), np.float32))
    assert len(outlines(ds)) == 2
    assert len(outlines(ds, variable="calibrated")) == 0


def test_each_chunk_is_read_once():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.random.default_rng(0).random(block.shape, np.float32)

    ds = dataset(np.zeros((2, 40, 40)))
    lazy = da.zeros((2, 40, 40), chunks=(1, 10, 10), dtype="float32").map_blocks(read, dtype="float32")
    assert len(outlines(ds.assign(probability=(("year", "y", "x"), lazy))))
    assert len(reads) == len(set(reads)) == 32


@pytest.mark.parametrize(
    "options",
    [{"threshold": 1.0}, {"threshold": np.nan}, {"connectivity": 6}, {"min_area_km2": -1}, {"min_area_km2": np.inf}],
)
def test_options_that_mean_nothing_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        outlines(dataset(RING), **options)


def test_a_missing_variable_and_grids_without_areas_are_refused():
    with pytest.raises(SchemaError, match="calibrated"):
        outlines(dataset(RING), variable="calibrated")
    geographic = xr.Dataset(
        {"probability": (("year", "y", "x"), np.ones((1, 3, 3), np.float32))},
        coords={"year": [2018], "y": [3.0, 2, 1], "x": [1.0, 2, 3]},
    ).odc.assign_crs("EPSG:4326")
    with pytest.raises(GridError, match="geographic"):
        outlines(geographic)
    with pytest.raises(GridError, match="north-up"):
        outlines(dataset(RING).isel(y=slice(None, None, -1)))
