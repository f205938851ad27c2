"""Block sums of one chunk, against loops over pixels."""

import numpy as np
import pytest

from icemap_xr.errors import InputError
from icemap_xr.kernels.blocks import block_starts, block_sums


def test_starts_cut_at_block_edges() -> None:
    assert block_starts(0, 7, 3)[0] == 0
    np.testing.assert_array_equal(block_starts(0, 7, 3)[1], [0, 3, 6])
    first, starts = block_starts(5, 5, 4)  # pixels 5..9, blocks 1 (4..7) and 2 (8..11)
    assert first == 1
    np.testing.assert_array_equal(starts, [0, 3])
    first, starts = block_starts(9, 1, 4)
    assert first == 2
    np.testing.assert_array_equal(starts, [0])


@pytest.mark.parametrize("offset", [(0, 0), (5, 2), (11, 30)])
@pytest.mark.parametrize("block", [1, 3, 4, 100])
@pytest.mark.parametrize("threshold", [None, 0.5])
def test_equals_a_loop_over_pixels(offset: tuple[int, int], block: int, threshold: float | None) -> None:
    rng = np.random.default_rng(0)
    values = rng.random((2, 9, 7), dtype=np.float32)
    values[rng.random(values.shape) < 0.2] = np.nan
    first, ice, observed = block_sums(values, offset, block, threshold)
    expected_ice, expected_observed = np.zeros_like(ice), np.zeros_like(observed)
    for i, row, column in np.ndindex(*values.shape):
        p = values[i, row, column]
        if np.isfinite(p):
            at = (i, (row + offset[0]) // block - first[0], (column + offset[1]) // block - first[1])
            expected_observed[at] += 1
            expected_ice[at] += float(p) if threshold is None else float(p > threshold)
    np.testing.assert_allclose(ice, expected_ice, rtol=1e-12)
    np.testing.assert_array_equal(observed, expected_observed)


def test_sums_in_float64() -> None:
    values = np.full((1, 1000, 1000), 0.1, np.float32)
    assert block_sums(values, (0, 0), 1000).ice[0, 0, 0] == pytest.approx(1e6 * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("wrong", [-0.1, 1.01, 255.0, np.inf, -np.inf])
def test_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        block_sums(np.array([[[0.5, wrong]]], np.float32), (0, 0), 2)


def test_float32_rounding_above_one_is_no_error() -> None:
    values = np.array([[[np.nextafter(np.float32(1), np.float32(2))]]])
    assert block_sums(values, (0, 0), 1).ice[0, 0, 0] == pytest.approx(1)
