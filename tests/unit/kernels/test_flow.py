"""Flow: nothing is lost, directions are those of the slope, catchments are what drains to a pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icemap_xr.kernels import terrain
from icemap_xr.kernels.flow import Flow

ROUTINGS = ["d8", "dinf", "mfd"]


def sinks(flow):
    down = np.asarray(flow._down.sum(axis=1)).ravel()
    return down == 0


@pytest.mark.parametrize("routing", ROUTINGS)
@given(
    dem=hnp.arrays(np.float64, st.tuples(st.integers(2, 8), st.integers(2, 8)), elements=st.integers(0, 5)),
    share=st.integers(0, 3),
)
def test_all_water_ends_in_pits_and_none_is_lost(routing, dem, share):
    domain = np.random.default_rng(share).random(dem.shape) >= share / 10
    flow = Flow(dem, domain, routing)
    accumulation = flow.accumulation().ravel()
    end = sinks(flow) & domain.ravel()
    assert accumulation[end].sum() == pytest.approx(domain.sum())
    assert (accumulation[~domain.ravel()] == 0).all()
    given_away = np.asarray(flow._down.sum(axis=1)).ravel()
    np.testing.assert_allclose(given_away[~end & domain.ravel()], 1)


@pytest.mark.parametrize("routing", ROUTINGS)
@given(dem=hnp.arrays(np.float64, (6, 7), elements=st.integers(0, 4)))
def test_a_filled_dem_drains_to_its_rim(routing, dem):
    rim = np.ones(dem.shape, bool)
    rim[1:-1, 1:-1] = False
    everywhere = np.ones(dem.shape, bool)
    flow = Flow(terrain.fill(dem, everywhere, rim), everywhere, routing)
    level = terrain.fill(dem, everywhere, rim)
    ends = sinks(flow).reshape(dem.shape) & ~rim
    # an inner pixel keeps its water only on a flat that is the lowest ground as far as the rim
    for place in zip(*np.nonzero(ends), strict=True):
        assert level[place] == level[rim].min() or (level[rim] == level[place]).any()


@given(dem=hnp.arrays(np.float64, (6, 6), elements=st.integers(0, 9)), start=st.integers(0, 35))
def test_d8_accumulation_counts_the_catchment(dem, start):
    flow = Flow(dem, np.ones((6, 6), bool), "d8")
    catchment = flow.catchment(start)
    assert start in catchment
    assert len(set(catchment.tolist())) == len(catchment)
    assert flow.accumulation().ravel()[start] == pytest.approx(len(catchment))


def test_dinf_splits_between_the_two_neighbours_of_its_direction():
    y, x = np.mgrid[:5, :5]
    direction = np.radians(22.5)  # south of east: half way between the east and the south-east neighbour
    flow = Flow(-(x * np.cos(direction) + y * np.sin(direction)), np.ones((5, 5), bool), "dinf")
    row = flow._down[[12]].toarray().ravel()
    assert row[13] == pytest.approx(0.5)
    assert row[18] == pytest.approx(0.5)


def test_mfd_splits_by_slope_and_d8_takes_the_steepest():
    dem = np.full((3, 3), 9.0)
    dem[1, 1], dem[1, 2], dem[2, 1] = 5, 4, 2
    everywhere = np.ones((3, 3), bool)
    assert Flow(dem, everywhere, "mfd")._down[[4]].toarray().ravel()[[5, 7]] == pytest.approx([0.25, 0.75])
    assert Flow(dem, everywhere, "d8")._down[[4]].toarray().ravel().tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_water_crosses_a_flat_by_the_shortest_way():
    dem = np.array([[9, 9, 9, 9, 9, 9], [9, 3, 3, 3, 3, 1], [9, 9, 9, 9, 9, 9.0]])
    got = Flow(dem, np.ones(dem.shape, bool), "d8").accumulation()
    assert (np.diff(got[1, 1:]) > 0).all()
    assert got[1, 5] == 18
