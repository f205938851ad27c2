import numpy as np
import pytest

from icemap_xr.kernels.nodes import levels, positions, spread


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 512])
def test_first_and_last_pixel_are_nodes(size: int) -> None:
    found = positions(size)
    assert found[0] == 0
    assert found[-1] == size - 1
    assert (np.diff(found) <= 16).all()


def test_what_is_linear_in_place_and_square_in_height_is_exact() -> None:
    rng = np.random.default_rng(0)
    height = rng.uniform(-50, 900, (45, 70))

    def function(rows: np.ndarray, columns: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
        return (3 * rows - 2 * columns + rows * columns * 1e-2 + 0.1 * level + 1e-4 * level**2, rows)

    both = spread(function, height.shape, height)
    rows, columns = np.indices(height.shape)
    expected = 3 * rows - 2 * columns + 0.1 * height + 1e-4 * height**2
    # the product of rows and columns is bilinear too
    np.testing.assert_allclose(both[0], expected + rows * columns * 1e-2, atol=1e-9)
    np.testing.assert_allclose(both[1], rows, atol=1e-9)


def test_unknown_height_has_no_value() -> None:
    height = np.array([[np.nan, 5.0]])
    assert np.isnan(spread(lambda r, c, h: (r + h,), (1, 2), height)[0]).tolist() == [[True, False]]
    assert np.isnan(spread(lambda r, c, h: (r + h,), (1, 1), np.full((1, 1), np.nan))[0]).all()


def test_a_node_without_a_value_takes_only_the_pixels_around_it() -> None:
    """Nodes far beside a swath have no place in the image; the rest of the block has."""

    def function(rows: np.ndarray, columns: np.ndarray, level: float) -> tuple[np.ndarray, ...]:
        return (np.where(columns > 40, np.nan, columns + level),)

    # nodes at columns 0, 16, 32, 48, 64
    found = spread(function, (33, 65), np.zeros((33, 65)))[0]
    assert np.isnan(found[:, 33:]).all()
    np.testing.assert_allclose(found[:, :33], np.broadcast_to(np.arange(33.0), (33, 33)), atol=1e-9)


def test_levels_enclose_the_heights() -> None:
    assert levels(np.array([10.0, 500.0])).tolist() == [10, 255, 500]
    assert levels(np.array([7.0])).tolist() == [-3, 7, 17]
