import numpy as np
import pytest

from icemap_xr.kernels.relief import LAYOVER, SHADOW, incidence, layover_shadow

CELL = 10.0


def look(height: np.ndarray, degrees: float, azimuth: float = 90.0) -> tuple[np.ndarray, np.ndarray, tuple]:
    """Distance and angle of ground seen by a platform so far away that its rays are parallel."""
    rows, columns = np.indices(height.shape)
    towards = np.radians(azimuth)
    # metres away from the radar along the ground; azimuth 90 looks east, along the columns
    along = (columns * np.sin(towards) - rows * np.cos(towards)) * CELL
    angle = np.radians(degrees)
    # plane waves: distance grows with sin along the ground and shrinks with cos for height
    distance = 8e5 + along * np.sin(angle) - height * np.cos(angle)
    # a ray's place in the fan, of which larger is farther: square to the distance
    seen = 0.5 + (along * np.cos(angle) + height * np.sin(angle)) / 8e5
    return distance, seen, (-np.cos(towards), np.sin(towards))


def test_flat_ground_is_seen_everywhere() -> None:
    assert not layover_shadow(*look(np.zeros((40, 50)), 38.0)).any()
    assert not layover_shadow(*look(np.zeros((40, 50)), 38.0, azimuth=281.0)).any()


def test_a_wall_lies_over_what_is_before_it_and_hides_what_is_behind() -> None:
    height = np.zeros((30, 200))
    height[:, 100:120] = 200.0
    mask = layover_shadow(*look(height, 45.0))
    # at 45 degrees layover reaches 200 m before the wall and as far onto it, shadow 200 m behind its end
    row = mask[15]
    assert (row[81:100] & LAYOVER).all()
    assert not (row[:79] & LAYOVER).any()
    assert (row[121:139] & SHADOW).all()
    assert not (row[141:] & SHADOW).any()
    assert not (row[:120] & SHADOW).any()


def test_shadow_is_longer_in_flat_looks_and_layover_in_steep_ones() -> None:
    height = np.zeros((30, 300))
    height[:, 150:155] = 200.0
    steep, shallow = (layover_shadow(*look(height, degrees))[15] for degrees in (25.0, 60.0))
    assert (shallow & SHADOW).astype(bool).sum() == pytest.approx(200 * np.tan(np.radians(60)) / CELL, abs=2)
    # before the wall 200 / tan(25) m, and the wall and what is behind it that far away
    before = (steep[:150] & LAYOVER).astype(bool).sum()
    assert before == pytest.approx(200 / np.tan(np.radians(25)) / CELL, abs=2)


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 135.0, 281.0])
def test_the_look_may_go_any_way(azimuth: float) -> None:
    height = np.zeros((200, 200))
    height[90:110, 90:110] = 150.0
    mask = layover_shadow(*look(height, 45.0, azimuth))
    away = np.array([-np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))])
    middle = np.array([99.5, 99.5])
    behind, before = (np.round(middle + sign * 22 * away).astype(int) for sign in (1, -1))
    assert mask[tuple(behind)] & SHADOW
    assert not mask[tuple(behind)] & LAYOVER
    assert mask[tuple(before)] & LAYOVER
    assert not mask[tuple(before)] & SHADOW


def test_unknown_ground_hides_nothing() -> None:
    height = np.zeros((30, 60))
    distance, angle, away = look(height, 40.0)
    distance[:, 20:30] = np.nan
    assert not layover_shadow(distance, angle, away).any()


def test_incidence_of_a_slope_is_that_of_flat_ground_less_its_tilt() -> None:
    # the platform is in the west (the look goes east) at 38 degrees; the ground rises eastwards by 10 degrees
    sight = tuple(np.full((5, 6), one) for one in (-np.sin(np.radians(38)), 0.0, np.cos(np.radians(38))))
    rise = np.tile(np.arange(6) * CELL * np.tan(np.radians(10)), (5, 1))
    np.testing.assert_allclose(incidence(rise, (CELL, CELL), sight), 28.0, atol=1e-9)
    np.testing.assert_allclose(incidence(-rise, (CELL, CELL), sight), 48.0, atol=1e-9)
    np.testing.assert_allclose(incidence(0 * rise, (CELL, CELL), sight), 38.0, atol=1e-9)


def test_incidence_knows_north_from_south() -> None:
    # the platform is in the north; rows run south, so ground that rises with the rows faces it
    sight = tuple(np.full((6, 5), one) for one in (0.0, np.sin(np.radians(38)), np.cos(np.radians(38))))
    rise = np.tile((np.arange(6) * CELL * np.tan(np.radians(10)))[:, None], (1, 5))
    np.testing.assert_allclose(incidence(rise, (CELL, CELL), sight), 28.0, atol=1e-9)
