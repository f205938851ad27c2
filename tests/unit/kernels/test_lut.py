import numpy as np
import pytest

from icemap_xr.kernels.lut import AzimuthFactor, NoiseTable, RangeVectors, calibrated


@pytest.fixture
def vectors() -> RangeVectors:
    return RangeVectors(
        np.array([0.0, 100.0, 200.0]),
        (np.array([0.0, 10.0, 20.0]), np.array([0.0, 20.0]), np.array([5.0, 15.0])),
        (np.array([1.0, 3.0, 7.0]), np.array([10.0, 30.0]), np.array([100.0, 200.0])),
    )


def test_annotated_points_come_back_exactly(vectors: RangeVectors) -> None:
    out = vectors.window(np.array([0.0, 100.0]), np.array([0.0, 10.0, 20.0]))
    assert out.tolist() == [[1, 3, 7], [10, 20, 30]]


def test_between_lines_and_pixels_it_is_bilinear(vectors: RangeVectors) -> None:
    # line 25 of 100, pixel 5: along range (1 + 3) / 2 = 2 and 10 + 20 * 5 / 20 = 15; then 2 + 0.25 * 13
    assert vectors.window(np.array([25.0]), np.array([5.0])).item() == pytest.approx(5.25)


def test_beyond_the_ends_the_last_values_count(vectors: RangeVectors) -> None:
    out = vectors.window(np.array([-50.0, 500.0]), np.array([0.0, 90.0]))
    assert out.tolist() == [[1, 7], [100, 200]]


def test_a_window_over_many_vectors_equals_its_lines_alone(vectors: RangeVectors) -> None:
    lines, pixels = np.arange(0.0, 220.0), np.arange(0.0, 25.0)
    whole = vectors.window(lines, pixels)
    for line in (0, 99, 100, 101, 199, 200, 219):
        np.testing.assert_array_equal(whole[line], vectors.window(lines[line : line + 1], pixels)[0])


def test_one_vector_counts_for_all_lines() -> None:
    one = RangeVectors(np.array([7.0]), (np.array([0.0, 2.0]),), (np.array([4.0, 8.0]),))
    assert one.window(np.array([0.0, 99.0]), np.array([1.0])).tolist() == [[6], [6]]


def test_factors_along_azimuth_count_in_their_rectangle_only() -> None:
    flat = RangeVectors(np.array([0.0]), (np.array([0.0]),), (np.array([10.0]),))
    factor = AzimuthFactor(2, 4, 1, 3, np.array([2.0, 4.0]), np.array([1.0, 3.0]))
    out = NoiseTable(flat, (factor,)).window(np.arange(6.0), np.arange(5.0))
    expected = np.full((6, 5), 10.0)
    expected[2:5, 1:4] = [[10], [20], [30]]
    np.testing.assert_array_equal(out, expected)


def test_rectangles_that_share_an_edge_do_not_meet_twice() -> None:
    flat = RangeVectors(np.array([0.0]), (np.array([0.0]),), (np.array([1.0]),))
    parts = [AzimuthFactor(0, 9, a, b, np.array([0.0]), np.array([f])) for a, b, f in ((0, 4, 2.0), (5, 9, 3.0))]
    out = NoiseTable(flat, tuple(parts)).window(np.array([5.0]), np.arange(10.0))
    assert out[0].tolist() == [2] * 5 + [3] * 5


def test_power_is_numbers_squared_less_noise_over_gain_squared() -> None:
    numbers = np.array([[100, 20, 0, 65535]], np.uint16)
    gain = np.full((1, 4), 500.0, np.float32)
    noise = np.full((1, 4), 900.0, np.float32)
    # (10000 - 900) / 250000; (400 - 900) / 250000 stays negative; 65535 ** 2 does not overflow
    expected = [0.0364, -0.002, -0.0036, (65535.0**2 - 900) / 250000]
    np.testing.assert_allclose(calibrated(numbers, gain, noise)[0], expected, rtol=1e-6)
    assert calibrated(numbers, gain, None)[0, 0] == pytest.approx(0.04)
    assert numbers[0, 0] == 100
