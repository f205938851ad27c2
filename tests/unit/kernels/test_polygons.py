"""Outlines of binary rasters: corners, rings, holes, areas and means."""

from __future__ import annotations

import numpy as np
import pytest
import shapely

from icemap_xr.kernels.polygons import block_corners, geometries, seam_corners, trace
from icemap_xr.kernels.runs import Runs, block_runs, polygon_means

UNIT = (1.0, 0.0, 0.0, 0.0, -1.0, 0.0)


def corners(mask):
    rows, columns = (np.array([0, size]) for size in mask.shape)
    rim = seam_corners(mask[:1], mask[-1:], mask[:, :1].T, mask[:, -1:].T, rows, columns)
    return np.concatenate([rim, block_corners(mask, 0, 0, mask.shape[1])])


def outline(picture, connectivity=4):
    mask = np.array([[pixel == "#" for pixel in line] for line in picture.split()])
    polygons = trace(corners(mask), mask.shape, connectivity)
    return polygons, geometries(polygons, UNIT, np.ones(len(polygons.pixels), bool))


def test_a_single_pixel_is_a_counter_clockwise_square():
    polygons, (square,) = outline("#")
    assert polygons.pixels.tolist() == [1]
    assert square.equals(shapely.box(0, -1, 1, 0))
    assert square.exterior.is_ccw
    assert len(square.exterior.coords) == 5


def test_collinear_vertices_are_left_out():
    _, (bar,) = outline("#####")
    assert len(bar.exterior.coords) == 5


def test_a_hole_belongs_to_the_polygon_around_it_and_islands_do_not():
    polygons, (ring, island) = outline("##### #...# #.#.# #...# #####")
    assert polygons.pixels.tolist() == [16, 1]
    assert len(ring.interiors) == 1
    assert not ring.interiors[0].is_ccw
    assert island.area == 1


def test_many_holes_behind_each_other_find_the_same_exterior():
    polygons, (sieve,) = outline("####### #.#.#.# ####### #.#.#.# #######")
    assert len(sieve.interiors) == 6
    assert polygons.pixels.tolist() == [29]


def test_a_polygon_that_meets_itself_at_a_corner_is_valid():
    _, (pinched,) = outline("### #.# ##. ..#".replace("..#", "#.."))
    _, (hook,) = outline("#### #..# ##.# .###".replace("##.#", "#.##"))
    for one in (pinched, hook):
        assert shapely.is_valid(one)
    # two holes that touch at a corner are two rings
    _, (touching,) = outline("#### #.## ##.# ####")
    assert shapely.is_valid(touching)
    assert len(touching.interiors) == 2


def test_pixels_that_touch_at_a_corner_are_two_or_one():
    assert len(outline("#. .#")[1]) == 2
    polygons, (both,) = outline("#. .#", connectivity=8)
    assert both.geom_type == "MultiPolygon"
    assert shapely.is_valid(both)
    assert len(np.unique(polygons.group)) == 1


def test_an_empty_and_a_full_raster():
    polygons, geometry = outline("... ...")
    assert len(geometry) == len(polygons.pixels) == 0
    assert outline("### ###")[1][0].equals(shapely.box(0, -2, 3, 0))


@pytest.mark.parametrize("connectivity", [4, 8])
def test_a_checkerboard_is_valid(connectivity):
    mask = np.indices((20, 21)).sum(0) % 2 == 0
    polygons = trace(corners(mask), mask.shape, connectivity)
    geometry = geometries(polygons, UNIT, np.ones(len(polygons.pixels), bool))
    assert shapely.is_valid(geometry).all()
    assert len(geometry) == (210 if connectivity == 4 else 1)
    assert shapely.area(geometry).sum() == 210


def test_only_kept_polygons_are_returned_with_their_holes():
    polygons, _ = outline("#.### ..#.# #.###")
    (ring,) = geometries(polygons, UNIT, polygons.pixels > 1)
    assert ring.area == 8
    assert len(ring.interiors) == 1


def test_means_over_polygons_do_not_depend_on_where_runs_are_cut():
    rng = np.random.default_rng(5)
    values = rng.random((30, 40)).astype(np.float32)
    mask = values > 0.4
    polygons = trace(corners(mask), mask.shape)
    whole = block_runs(mask, values, 0, 0, 40)
    left, right = block_runs(mask[:, :7], values[:, :7], 0, 0, 40), block_runs(mask[:, 7:], values[:, 7:], 0, 7, 40)
    cut = Runs(*(np.concatenate([getattr(right, n), getattr(left, n)]) for n in ("start", "length", "total")))
    means = polygon_means(whole, polygons, 40)
    np.testing.assert_array_equal(means, polygon_means(cut, polygons, 40))
    np.testing.assert_allclose((means * polygons.pixels).sum(), values[mask].sum(dtype=np.float64), rtol=1e-9)
