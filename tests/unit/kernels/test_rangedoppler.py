import numpy as np
import pytest

from icemap_xr.kernels.rangedoppler import GroundRange, Orbit, zero_doppler


def circle(step: float = 10.0) -> Orbit:
    """A circular orbit in the x-z plane around an earth that does not turn, 7.07e6 m, seconds from the x axis."""
    times = np.arange(-60.0, 61.0, step)
    radius, rate = 7.07e6, 1.06e-3
    position = radius * np.stack([np.cos(rate * times), 0 * times, np.sin(rate * times)], -1)
    velocity = radius * rate * np.stack([-np.sin(rate * times), 0 * times, np.cos(rate * times)], -1)
    return Orbit(times, position, velocity)


def test_positions_between_state_vectors_are_true_to_a_centimetre() -> None:
    orbit = circle()
    times = np.linspace(-55, 55, 331)
    position, velocity, _ = orbit.at(times)
    truth = 7.07e6 * np.stack([np.cos(1.06e-3 * times), 0 * times, np.sin(1.06e-3 * times)], -1)
    assert np.abs(position - truth).max() < 0.01
    assert np.abs(np.linalg.norm(velocity, axis=-1) - 7.07e6 * 1.06e-3).max() < 0.01


def test_acceleration_is_the_slope_of_velocity() -> None:
    orbit = circle()
    before, after = orbit.at(np.array([3.0]))[1], orbit.at(np.array([3.001]))[1]
    np.testing.assert_allclose((after - before) / 1e-3, orbit.at(np.array([3.0005]))[2], atol=1e-6)


def test_a_point_beside_the_track_is_seen_when_it_is_abeam() -> None:
    orbit = circle()
    # flying north over the x axis, right is east (+y): abeam of (r, y, 0) turned by the orbit's angle at 12 s
    angle = 1.06e-3 * 12.0
    point = np.array([6.37e6 * np.cos(angle), 4e5, 6.37e6 * np.sin(angle)])
    times, distance, sight = zero_doppler(point[None], orbit, 0.0)
    # cubic interpolation is off by millimetres
    assert times[0] == pytest.approx(12.0, abs=1e-6)
    assert distance[0] == pytest.approx(np.hypot(7.07e6 - 6.37e6, 4e5), abs=0.01)
    assert np.linalg.norm(sight[0]) == pytest.approx(1.0)


def test_left_of_the_track_and_beyond_the_vectors_nothing_is_seen() -> None:
    orbit = circle()
    left = np.array([6.37e6, -4e5, 0.0])
    early = np.array([6.37e6 * np.cos(-0.2), 4e5, 6.37e6 * np.sin(-0.2)])
    assert np.isnan(zero_doppler(np.stack([left, early]), orbit, 0.0)[0]).all()


def polynomials(between: str = "linear") -> GroundRange:
    rows = np.array([[8e5, 0.6, 4e-7], [8e5, 0.62, 4.4e-7]])
    return GroundRange(np.array([0.0, 1.0]), 0.0, rows, 250e3, between)  # type: ignore[arg-type]


def test_ground_range_is_the_inverse_of_slant_range() -> None:
    one = polynomials()
    times, ground = np.array([0.0, 0.3, 1.0, 0.5]), np.array([0.0, 1e5, 2.5e5, 30.0])
    np.testing.assert_allclose(one.ground(times, one.slant(times, ground)), ground, atol=1e-6)


def test_polynomials_are_interpolated_in_time() -> None:
    one = polynomials()
    # at 0.25 s the linear coefficient is 0.605, the square one 4.1e-7
    assert one.slant(np.array([0.25]), np.array([1e5]))[0] == pytest.approx(8e5 + 60500 + 4100)
    assert one.slant(np.array([9.0]), np.array([1e5]))[0] == pytest.approx(8e5 + 62000 + 4400)
    assert polynomials("nearest").slant(np.array([0.25]), np.array([1e5]))[0] == pytest.approx(8e5 + 60000 + 4000)


def test_far_beside_the_swath_there_is_no_ground_range() -> None:
    assert np.isnan(polynomials().ground(np.array([0.5, np.nan]), np.array([7e5, 8.1e5]))).all()
