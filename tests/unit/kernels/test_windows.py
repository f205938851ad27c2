"""Where windows lie, and the published blending weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icemap_xr.kernels.windows import Edges, WindowGrid, gaussian_weights


def test_the_weights_are_the_published_numbers() -> None:
    weights = gaussian_weights(384)
    assert weights.dtype == np.float32
    assert weights.max() == pytest.approx(2.5066, abs=1e-4)
    assert weights[[0, 0, -1, -1], [0, -1, 0, -1]] == pytest.approx([0.0459] * 4, abs=1e-4)
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    np.testing.assert_array_equal(weights, weights.T)


def test_weights_are_shared_and_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        gaussian_weights(8)[0, 0] = 1


EDGES = st.sampled_from(["published", "valid"])


def all_starts(grid: WindowGrid, axis: int) -> list[int]:
    """Where the documented rules put the windows of an axis."""
    size = grid.region[axis]
    if grid.edges == "published":
        return list(range(0, size, grid.stride))
    last = max(0, size - grid.window)
    return sorted({*range(0, last, grid.stride), last})


@given(window=st.integers(1, 24), data=st.data(), size=st.integers(1, 80), edges=EDGES)
def test_starts_are_the_windows_that_touch_an_interval(
    window: int, data: st.DataObject, size: int, edges: Edges
) -> None:
    stride = data.draw(st.integers(1, window))
    lo = data.draw(st.integers(0, size - 1))
    hi = data.draw(st.integers(lo + 1, size))
    grid = WindowGrid(window, stride, (size, size), edges=edges)
    expected = [s for s in all_starts(grid, 0) if s < hi and s + window > lo]
    assert list(grid.starts(lo, hi, 0)) == expected
    read = {p for start in expected for p in range(start, min(start + window, size))}
    reach = grid.reach(lo, hi, 0)
    assert (reach.start, reach.stop) == (min(read), max(read) + 1)


@given(window=st.integers(1, 24), data=st.data(), size=st.integers(1, 80))
def test_valid_windows_cover_the_region_and_reach_past_it_only_where_it_is_narrower(
    window: int, data: st.DataObject, size: int
) -> None:
    grid = WindowGrid(window, data.draw(st.integers(1, window)), (size, size), edges="valid")
    starts = grid.starts(0, size, 0)
    assert {p for s in starts for p in range(s, s + window)} == set(range(max(size, window)))


@given(
    window=st.integers(1, 20),
    data=st.data(),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    edges=EDGES,
)
def test_cropped_windows_cover_each_pixel_once(
    window: int, data: st.DataObject, shape: tuple[int, int], edges: Edges
) -> None:
    stride = data.draw(st.integers(1, window))
    grid = WindowGrid(window, stride, shape, blend="crop", edges=edges)
    covered = np.zeros((shape[0] + window, shape[1] + window), int)
    for row in grid.starts(0, shape[0], 0):
        for column in grid.starts(0, shape[1], 1):
            weights = grid.weights(row, column)
            assert set(np.unique(weights)) <= {0, 1}
            covered[row : row + window, column : column + window] += weights.astype(int)
            down, across = grid.support(row, 0), grid.support(column, 1)
            assert weights.sum() == (down.stop - down.start) * (across.stop - across.start)
            assert weights[down.start - row : down.stop - row, across.start - column : across.stop - column].all()
    assert (covered[: shape[0], : shape[1]] == 1).all()


def test_cuts_between_cropped_windows_are_the_middles_of_their_overlaps() -> None:
    grid = WindowGrid(8, 4, (21, 17), blend="crop", edges="valid")
    assert [grid.support(s, 0) for s in grid.starts(0, 21, 0)] == [
        slice(0, 6), slice(6, 10), slice(10, 14), slice(14, 16), slice(16, 21)
    ]  # fmt: skip
