"""Polygons come back from the archive's encoding and from GeoParquet as they were."""

from __future__ import annotations

from io import BytesIO

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox

from icemap_xr.cftables import decode_polygons, encode_polygons
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import rgi7_table
from icemap_xr.outlines import outlines

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=40, deadline=None)
@given(
    values=hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.25, 0.75, np.nan])),
    connectivity=st.sampled_from([4, 8]),
)
def test_any_outlines_make_the_round_trip(values, connectivity):
    grid = RegionGrid(GeoBox(values.shape[1:], Affine(10.0, 0, 500_000.3, 0, -10.0, 8_700_000.7), "EPSG:32633"))
    coords = {"year": 2018 + np.arange(len(values)), **grid.coords()}
    shapes = outlines(
        xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords), connectivity=connectivity
    )
    assert shapes["area_km2"].sum() * 1e4 == pytest.approx((values > 0.5).sum(), abs=1e-9)
    for frame in (shapes, rgi7_table(shapes)):
        assert_geodataframe_equal(decode_polygons(encode_polygons(frame, grid, "outlines"), grid.crs), frame)
        file = BytesIO()
        frame.to_parquet(file, schema_version="1.1.0")
        assert_geodataframe_equal(gpd.read_parquet(file), frame)
