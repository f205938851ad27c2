"""Outlines are those of the whole raster, whatever the chunks."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from odc.geo.geobox import GeoBox
from rasterio.features import shapes
from scipy.ndimage import label, mean
from shapely.geometry import shape

from icemap_xr.burning import rasterize
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines

TRANSFORM = Affine(10.0, 0, 500_000.3, 0, -10.0, 8_700_000.7)


def dataset(values):
    grid = RegionGrid(GeoBox(values.shape[1:], TRANSFORM, "EPSG:32633"))
    coords = {"year": 2018 + np.arange(len(values)), **grid.coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def whole(values, connectivity):
    """Polygons of the whole raster as rasterio makes them, as a set of exact geometries."""
    mask = values > 0.5
    found = [shape(one) for one, _ in shapes(mask.astype("u1"), mask, connectivity, TRANSFORM)]
    return exact(shapely.make_valid(found))


def exact(geometry):
    return sorted(shapely.to_wkb(shapely.normalize(np.asarray(geometry, object))).tolist())


@st.composite
def maps(draw):
    years, rows, columns = draw(st.integers(1, 2)), draw(st.integers(1, 12)), draw(st.integers(1, 12))
    codes = draw(hnp.arrays(np.uint8, (years, rows, columns), elements=st.integers(0, 4)))
    share = draw(st.sampled_from([1, 2, 3]))
    # codes below the share are no glacier; the highest code is unobserved
    return np.select([codes < share, codes < 4], [0.25, 0.75], np.nan).astype(np.float32)


@st.composite
def chunks(draw, size):
    cuts = draw(st.sets(st.integers(1, size - 1))) if size > 1 else set()
    return tuple(np.diff([0, *sorted(cuts), size]).tolist())


@pytest.mark.parametrize("connectivity", [4, 8])
@given(data=st.data(), values=maps())
@settings(max_examples=60, deadline=None)
def test_any_chunking_gives_the_polygons_of_the_whole_raster(connectivity, data, values):
    sizes = {dim: data.draw(chunks(size)) for dim, size in zip(("year", "y", "x"), values.shape, strict=True)}
    got = outlines(dataset(values).chunk(sizes), connectivity=connectivity)
    for year, layer in enumerate(values, 2018):
        one = got[got["year"] == year]
        assert exact(one.geometry) == whole(layer, connectivity)
        assert one["area_km2"].sum() == pytest.approx((layer > 0.5).sum() * 1e-4, rel=1e-12)
    assert got.geometry.is_valid.all()
    np.testing.assert_allclose(got["area_km2"], got.geometry.area / 1e6, rtol=1e-6)
    assert_geodataframe_equal(got, outlines(dataset(values), connectivity=connectivity))


@pytest.mark.parametrize("side", [1, 2, 7])
def test_checkerboard_noise_in_small_chunks(side):
    values = np.random.default_rng(side).random((1, 24, 31)).astype(np.float32)
    got = outlines(dataset(values).chunk({"year": 1, "y": side, "x": side}))
    assert exact(got.geometry) == whole(values[0], 4)


def test_a_large_smooth_map_has_the_polygons_of_the_whole_raster():
    rng = np.random.default_rng(0)
    coarse = rng.random((1, 24, 24))
    values = np.kron(coarse, np.ones((1, 25, 25))).astype(np.float32) + 0.2 * rng.random((1, 600, 600), np.float32)
    values = np.clip(values - 0.1, 0, 1)
    got = outlines(dataset(values).chunk({"year": 1, "y": 128, "x": 77}))
    assert exact(got.geometry) == whole(values[0], 4)


def filled(hole, layer, most):
    """Whether a hole is small enough and everything in it was observed."""
    inside = rasterize([hole], layer.shape, transform=TRANSFORM).astype(bool)
    return hole.area <= most * 100 + 1 and not np.isnan(layer[inside]).any()


@given(data=st.data(), values=maps(), most=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_filling_holes_is_what_it_does_to_the_polygons_of_the_whole_raster(data, values, most):
    sizes = {dim: data.draw(chunks(size)) for dim, size in zip(("year", "y", "x"), values.shape, strict=True)}
    got = outlines(dataset(values).chunk(sizes), max_hole_km2=most * 1e-4)
    for year, layer in enumerate(values, 2018):
        one = got[got["year"] == year]
        mask = layer > 0.5
        parts = [shapely.make_valid(shape(part)) for part, _ in shapes(mask.astype("u1"), mask, 4, TRANSFORM)]
        kept = [
            shapely.Polygon(
                part.exterior, [hole for hole in part.interiors if not filled(shapely.Polygon(hole), layer, most)]
            )
            for part in parts
        ]
        assert shapely.union_all(one.geometry.values).symmetric_difference(shapely.union_all(kept)).area < 1e-3
        assert one["area_km2"].sum() * 1e6 == pytest.approx(shapely.union_all(kept).area, abs=1e-3)
    assert got.geometry.is_valid.all()
    assert got["mean_probability"].between(0.75, 0.75).all()
    assert_geodataframe_equal(got, outlines(dataset(values), max_hole_km2=most * 1e-4))


def enclosed(layer, most):
    """Pixels of the holes that are filled where ice is joined through corners, found pixel by pixel."""
    layer = np.pad(layer, 1)
    ground, count = label(~(layer > 0.5))
    out = np.zeros(layer.shape, bool)
    for number in range(1, count + 1):
        around = label(ground != number, np.ones((3, 3)))[0]
        hole = around != around[0, 0]
        if ground[0, 0] != number and hole.sum() <= most and not np.isnan(layer[hole]).any():
            out |= hole
    return out[1:-1, 1:-1]


@pytest.mark.parametrize("seed", range(12))
def test_holes_that_ice_encloses_through_corners_are_filled_pixel_by_pixel(seed):
    rng = np.random.default_rng(seed)
    size, share, most = rng.integers(4, 40, 2), rng.uniform(0.2, 0.7), int(rng.integers(1, 25))
    layer = np.where(rng.random(size) < share, rng.uniform(0.6, 1, size), 0.2)
    layer = np.where(rng.random(size) < 0.02, np.nan, layer).astype(np.float32)
    holes = enclosed(layer, most)
    ice = holes | (layer > 0.5)
    got = outlines(dataset(layer[None]).chunk(y=7, x=5), connectivity=8, max_hole_km2=most * 1e-4)
    assert exact(got.geometry) == exact(outlines(dataset(ice[None].astype(float)), connectivity=8).geometry)
    burnt = rasterize(got.geometry, ice.shape, transform=TRANSFORM).astype(bool)
    np.testing.assert_array_equal(burnt, ice)
    assert got.geometry.is_valid.all()
    glacier, count = label(ice, np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    np.testing.assert_allclose(got["area_km2"], np.bincount(glacier.ravel())[1:] * 1e-4)
    counted = np.where(holes | ~(layer > 0.5), 0, glacier)
    np.testing.assert_allclose(got["mean_probability"], mean(layer, counted, numbers), rtol=1e-6)
    assert_geodataframe_equal(got, outlines(dataset(layer[None]), connectivity=8, max_hole_km2=most * 1e-4))
