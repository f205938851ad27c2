"""Terrain: depressions and watersheds as a priority flood finds them; smoothing that keeps what has a shape."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icemap_xr.kernels import terrain

DEMS = hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 6))


def around(place, shape):
    for row, column in terrain.NEIGHBOURS:
        y, x = place[0] + row, place[1] + column
        if 0 <= y < shape[0] and 0 <= x < shape[1]:
            yield y, x


def priority_flood(dem, outlets):
    """Filled elevations by the textbook algorithm (Barnes et al. 2014)."""
    level = np.full(dem.shape, np.inf)
    queue = [(dem[place], place) for place in zip(*np.nonzero(outlets), strict=True)]
    for height, place in queue:
        level[place] = height
    heapq.heapify(queue)
    while queue:
        height, place = heapq.heappop(queue)
        for near in around(place, dem.shape):
            if np.isinf(level[near]):
                level[near] = max(height, dem[near])
                heapq.heappush(queue, (level[near], near))
    return level


def rim(shape):
    out = np.ones(shape, bool)
    out[1:-1, 1:-1] = False
    return out


@given(DEMS)
def test_filled_elevations_are_those_of_a_priority_flood(dem):
    outlets = rim(dem.shape)
    np.testing.assert_array_equal(terrain.fill(dem, np.ones(dem.shape, bool), outlets), priority_flood(dem, outlets))


@given(DEMS)
def test_breaching_only_lowers_and_leaves_no_depression(dem):
    outlets = rim(dem.shape)
    cut = terrain.breach(dem, np.ones(dem.shape, bool), outlets)
    assert (cut <= dem).all()
    np.testing.assert_array_equal(priority_flood(cut, outlets), cut)


@settings(max_examples=200)
@given(st.data())
def test_watersheds_are_reached_without_climbing_higher_than_from_another_marker(data):
    height = data.draw(DEMS)
    markers = data.draw(hnp.arrays(np.int32, height.shape, elements=st.integers(-4, 2))).clip(0)
    got = terrain.watershed(height, markers, np.ones(height.shape, bool))
    np.testing.assert_array_equal(got[markers > 0], markers[markers > 0])
    if not markers.any():
        assert not got.any()
        return
    # the height that a flood from all markers needs to come to a pixel, and the one from its own marker alone
    lowest = priority_flood(height, markers > 0)
    for number in np.unique(got):
        own = priority_flood(height, markers == number)
        here = (got == number) & (markers == 0)
        np.testing.assert_array_equal(own[here], lowest[here])


def test_a_valley_between_two_peaks_is_the_divide_when_floods_come_from_above():
    height = np.abs(np.arange(11.0) - 4)[None].repeat(5, 0)
    markers = np.zeros((5, 11), np.int32)
    markers[:, 0], markers[:, -1] = 1, 2
    got = terrain.watershed(-height, markers, np.ones((5, 11), bool))
    assert (got[:, :4] == 1).all()
    assert (got[:, 5:] == 2).all()


def test_floods_share_a_plain_by_distance_and_stay_in_the_domain():
    markers = np.zeros((3, 10), np.int32)
    markers[:, 0], markers[:, -1] = 1, 2
    domain = np.ones((3, 10), bool)
    domain[1, 2:4] = False
    got = terrain.watershed(np.zeros((3, 10)), markers, domain)
    assert (got[1, 2:4] == 0).all()
    assert (got[:, :2] == 1).all()
    assert (got[:, 6:] == 2).all()


def test_smoothing_keeps_planes_and_ridges_and_damps_noise():
    y, x = np.mgrid[:40, :40] * 10.0
    plane, roof = 0.3 * x - 0.1 * y, 500 - 0.8 * np.abs(x - 200)
    inner = (slice(8, -8), slice(8, -8))
    np.testing.assert_allclose(terrain.smooth(plane, 10, 7)[inner], plane[inner], atol=1e-9)
    np.testing.assert_allclose(terrain.smooth(roof, 10, 7)[inner], roof[inner], atol=0.5)
    noise = np.random.default_rng(0).normal(0, 0.2, plane.shape)
    left = terrain.smooth(plane + noise, 10, 7) - plane
    assert left[inner].std() < 0.6 * noise[inner].std()
    assert terrain.smooth(plane, 10, 1) is plane


def test_smoothing_never_moves_an_elevation_by_more_than_half_a_metre():
    dem = np.random.default_rng(1).normal(0, 3, (20, 20))
    assert np.abs(terrain.smooth(dem, 10, 5) - dem).max() <= 0.5


@pytest.mark.parametrize("step", terrain.NEIGHBOURS)
def test_shifted_is_the_neighbour(step):
    values = np.arange(12.0).reshape(3, 4)
    got = terrain.shifted(values, step, -1)
    for y in range(3):
        for x in range(4):
            near = y + step[0], x + step[1]
            inside = 0 <= near[0] < 3 and 0 <= near[1] < 4
            assert got[y, x] == (values[near] if inside else -1)
