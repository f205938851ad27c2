"""Flowsheds: pour points, tongues that join, ice that nothing drains, slivers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icemap_xr.kernels import flowsheds
from icemap_xr.kernels.flow import Flow


def test_the_gutter_is_a_ring_around_the_ice():
    ice = np.zeros((11, 11), bool)
    ice[5, 5] = True
    ring = flowsheds.gutter(ice, 2, 1)
    y, x = np.nonzero(ring)
    assert set(np.abs(y - 5) + np.abs(x - 5)) == {3}
    assert len(y) == 12


def test_pour_points_are_maxima_above_the_least_and_the_largest_share():
    ring = np.ones((1, 30), bool)
    accumulation = np.zeros((1, 30))
    accumulation[0, [2, 3, 9, 15, 21, 27]] = [5, 50, 20, 30, 2, 40]
    points = flowsheds.pour_points(accumulation, ring, 1, 2, 0.5, accumulation)
    assert points.pixel.tolist() == [27, 3]
    assert points.pixels.tolist() == [40, 50]
    everything = flowsheds.pour_points(accumulation, ring, 1, 2, 0, accumulation)
    assert everything.pixel.tolist() == [9, 15, 27, 3]
    by_height = flowsheds.pour_points(accumulation, ring, 1, 2, 0, -accumulation)
    assert by_height.pixel.tolist() == [3, 27, 15, 9]


def test_two_slopes_are_two_flowsheds():
    dem = np.abs(np.arange(12) - 5.5)[None].repeat(4, 0) * -1
    flow = Flow(dem, np.ones(dem.shape, bool), "d8")
    points = flowsheds.PourPoints(np.array([12, 23]), np.array([6.0, 6.0]))
    labels, kept = flowsheds.flowsheds(flow, points)
    assert kept == [1, 0]
    assert (labels[1, :6] == 2).all()
    assert (labels[1, 6:] == 1).all()
    assert (labels[0] == 0).all()  # d8 keeps the rows apart


def test_a_point_inside_a_flowshed_is_passed_over_and_one_below_takes_over():
    dem = np.arange(8.0)[None]
    flow = Flow(dem, np.ones(dem.shape, bool), "d8")
    below_last = flowsheds.PourPoints(np.array([0, 4]), np.array([1.0, 2.0]))
    labels, kept = flowsheds.flowsheds(flow, below_last)
    assert kept == [1, 0]
    assert (labels == 2).all()
    labels, kept = flowsheds.flowsheds(flow, flowsheds.PourPoints(np.array([4, 0]), np.array([1.0, 2.0])))
    assert kept == [1]
    assert (labels == 1).all()


def test_flowsheds_join_in_a_disc_and_only_in_its_nearest_piece():
    labels = np.array([[1, 1, 2, 2, 0, 3, 3]], np.int32)
    ice = labels > 0
    joined = flowsheds.join_tongues(labels, ice, np.array([1]), np.array([1.0]))
    assert joined[0].tolist() == [1, 1, 1, 1, 0, 3, 3]
    # the disc reaches the third flowshed too, in another piece of ice
    wide = flowsheds.join_tongues(labels, ice, np.array([1]), np.array([9.0]))
    assert wide[0].tolist() == [1, 1, 1, 1, 0, 3, 3]
    np.testing.assert_array_equal(flowsheds.join_tongues(labels, ice, np.array([4]), np.array([0.5])), labels)


def test_joining_is_transitive():
    labels = np.array([[1, 2, 3, 4]], np.int32)
    joined = flowsheds.join_tongues(labels, labels > 0, np.array([0, 2]), np.array([1.0, 1.0]))
    assert joined[0].tolist() == [1, 1, 1, 1]


def test_unlabelled_ice_goes_to_the_nearest_that_touches_it_else_it_is_new():
    ice = np.array([[1, 1, 1, 1, 1, 0, 1, 0, 1]], bool)
    labels = np.array([[1, 0, 0, 0, 2, 0, 0, 0, 3]], np.int32)
    got, new = flowsheds.complete(labels, ice)
    assert got[0, [0, 1, 3, 4, 8]].tolist() == [1, 1, 2, 2, 3]
    assert got[0, 6] == 4
    assert new == 1


def slivers(labels, small=0.0, narrow=0.0, compactness=0.0, keep=()):
    return flowsheds.absorb_slivers(np.asarray(labels, np.int32), 1.0, small, narrow, compactness, keep)


def test_a_small_piece_goes_to_the_neighbour_with_the_longest_border():
    labels = [[1, 1, 1, 2], [1, 3, 2, 2], [1, 1, 2, 2]]
    assert slivers(labels, small=2)[1, 1] == 1
    assert slivers(labels, small=1)[1, 1] == 3
    assert slivers(labels, small=2, keep=[3])[1, 1] == 3


def test_slivers_that_touch_are_one():
    labels = [[1, 1, 1, 1], [3, 4, 0, 0], [0, 2, 2, 2]]
    # alone 3 would go to 1; together they touch 1 along two pixels and 2 along one
    assert slivers(labels, small=2)[1, :2].tolist() == [1, 1]
    assert slivers([[3, 4, 4]], small=9).tolist() == [[4, 4, 4]]


def test_a_detached_piece_of_a_glacier_is_judged_on_its_own():
    labels = [[1, 2, 1, 1], [2, 2, 1, 1]]
    got = slivers(labels, small=2, keep=[1])
    assert got.tolist() == [[2, 2, 1, 1], [2, 2, 1, 1]]


def test_narrow_pieces_are_slivers_below_the_larger_area():
    labels = np.ones((12, 12), np.int32)
    labels[0, :] = 2
    labels[8:, 8:] = 3
    got = slivers(labels, narrow=20, compactness=0.8)
    assert (got[0] == 1).all()
    assert (got[8:, 8:] == 3).all()


@given(hnp.arrays(np.int32, (7, 8), elements=st.integers(0, 4)), st.floats(0, 20))
def test_slivers_neither_make_nor_lose_ice(labels, small):
    got = slivers(labels, small=small)
    np.testing.assert_array_equal(got > 0, labels > 0)
    assert set(np.unique(got)) <= set(np.unique(labels))
    assert slivers(labels).tolist() == labels.tolist()


def test_nothing_is_no_sliver():
    assert not slivers(np.zeros((2, 3))).any()
    assert pytest.approx(0) == slivers(np.zeros((1, 1)), small=9).sum()
