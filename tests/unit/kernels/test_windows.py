"""Where windows lie, and the published blending weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icemap_xr.kernels.windows import WindowGrid, gaussian_weights


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


@given(
    window=st.integers(1, 24),
    data=st.data(),
    size=st.integers(1, 80),
)
def test_starts_are_the_windows_that_touch_an_interval(window: int, data: st.DataObject, size: int) -> None:
    stride = data.draw(st.integers(1, window))
    lo = data.draw(st.integers(0, size - 1))
    hi = data.draw(st.integers(lo + 1, size))
    grid = WindowGrid(window, stride, (size, size))
    expected = [s for s in range(0, size, stride) if s < hi and s + window > lo]
    assert list(grid.starts(lo, hi, 0)) == expected
    read = {p for start in expected for p in range(start, min(start + window, size))}
    reach = grid.reach(lo, hi, 0)
    assert (reach.start, reach.stop) == (min(read), max(read) + 1)


@given(
    window=st.integers(1, 20),
    data=st.data(),
    shape=st.tuples(st.integers(1, 50), st.integers(1, 50)),
)
def test_cropped_windows_cover_each_pixel_once(window: int, data: st.DataObject, shape: tuple[int, int]) -> None:
    stride = data.draw(st.integers(1, window))
    grid = WindowGrid(window, stride, shape, blend="crop")
    covered = np.zeros((shape[0] + window, shape[1] + window), int)
    for row in grid.starts(0, shape[0], 0):
        for column in grid.starts(0, shape[1], 1):
            weights = grid.weights(row, column)
            assert set(np.unique(weights)) <= {0, 1}
            covered[row : row + window, column : column + window] += weights.astype(int)
    assert (covered[: shape[0], : shape[1]] == 1).all()
