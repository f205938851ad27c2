"""Orbits of Sentinel-1, against products whose names hold the absolute orbit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from icemap_xr.sentinel1 import absolute_orbit, burst_orbit_state, orbit_offset, orbit_time

#: platform, time, absolute orbit, relative orbit: as catalogues list them
PRODUCTS = [
    ("sentinel-1a", "2014-10-31T09:59:45", 3072, 25),
    ("sentinel-1a", "2019-12-15T03:48:33", 30353, 6),
    ("sentinel-1a", "2022-11-30T01:44:14", 46117, 20),
    ("sentinel-1a", "2024-05-31T07:31:24", 54112, 140),
    ("sentinel-1b", "2016-11-21T01:09:37", 3050, 49),
    ("sentinel-1c", "2025-03-31T06:01:16", 1681, 110),
    ("sentinel-1d", "2026-07-30T18:59:10", 3907, 16),
]


@pytest.mark.parametrize(("platform", "time", "absolute", "relative"), PRODUCTS)
def test_absolute_orbit_of_real_products(platform: str, time: str, absolute: int, relative: int) -> None:
    at = datetime.fromisoformat(time).replace(tzinfo=UTC)
    assert absolute_orbit(platform, relative, at) == absolute
    assert abs((orbit_time(platform, absolute) - at).days) <= 1


def test_absolute_orbit_is_left_out_where_time_and_relative_orbit_disagree() -> None:
    at = datetime(2024, 5, 31, 7, 31, tzinfo=UTC)
    assert absolute_orbit("sentinel-1a", 20, at) is None
    assert absolute_orbit("envisat", 140, at) is None


def test_sentinel_1c_changed_its_orbit() -> None:
    assert orbit_offset("sentinel-1c", datetime(2026, 6, 1, tzinfo=UTC)) == 172
    assert orbit_offset("sentinel-1c", datetime(2026, 6, 15, tzinfo=UTC)) is None
    assert orbit_offset("sentinel-1c", datetime(2026, 7, 1, tzinfo=UTC)) == 99


def test_flight_direction_of_bursts() -> None:
    # T137-292322 lies in California and is acquired at 01:59 UTC, in the evening: ascending
    assert burst_orbit_state(137, 292322) == "ascending"
    # half an orbit (about 1074 bursts) later the satellite flies south
    assert burst_orbit_state(137, 292322 + 1074) == "descending"
