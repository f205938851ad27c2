"""Orbits of the Sentinel-1 satellites: what relative orbit, time and burst say about each other."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

#: orbits in one repeat cycle, and the duration of one
ORBITS_PER_CYCLE = 175
CYCLE = timedelta(days=12)
ORBIT = CYCLE / ORBITS_PER_CYCLE

#: burst timing of IW: preamble and beam cycle, s (Sentinel-1 SLC Detailed Algorithm Definition, Table 9-7)
_PREAMBLE, _BEAM_CYCLE = 2.299849, 2.758273

#: relative = (absolute - offset) mod 175 + 1. A and B: ESA, "Relationship between relative and absolute orbit numbers"
#: (sentiwiki.copernicus.eu/web/s1-products); C: the same until the orbit changed in June 2026; C after that and D:
#: isce-framework/isce2 pull requests 28130 and 28123
_OFFSETS = {"sentinel-1a": 73, "sentinel-1b": 27, "sentinel-1c": 172, "sentinel-1d": 42}
_OFFSET_C_AFTER = 99
#: Sentinel-1C was manoeuvred between these dates (dataspace.copernicus.eu, news of 2026-05-28)
_MANOEUVRE_C = (datetime(2026, 6, 8, tzinfo=UTC), datetime(2026, 6, 24, tzinfo=UTC))

#: one known absolute orbit of each platform, from the names of products of that time
_KNOWN_ORBIT = {
    "sentinel-1a": (54381, datetime(2024, 6, 18, 17, 39, 36, tzinfo=UTC)),
    "sentinel-1b": (3050, datetime(2016, 11, 21, 1, 9, 37, tzinfo=UTC)),
    "sentinel-1c": (8018, datetime(2026, 6, 8, tzinfo=UTC)),
    "sentinel-1d": (3907, datetime(2026, 7, 30, 18, 59, 10, tzinfo=UTC)),
}
#: how far the count of orbits from the known one may lie from the relative orbit's, in orbits; half a cycle would be
#: ambiguous, and the reference orbits above are known to about a day
_TOLERANCE = 20

#: names of level-1 products, and of what is made from them
_PRODUCT = re.compile(
    r"S1(?P<unit>[ABCD])_(?P<mode>IW|EW|WV|S[1-6])_(?P<type>GRD|SLC)(?P<resolution>[FHM_])_1S(?P<polarisation>[SD][HV])"
    r"_(?P<start>\d{8}T\d{6})_(?P<stop>\d{8}T\d{6})_(?P<orbit>\d{6})_(?P<datatake>[0-9A-F]{6})"
)
_POLARISATIONS = {"SH": ["HH"], "SV": ["VV"], "DH": ["HH", "HV"], "DV": ["VV", "VH"]}


def product_properties(name: str) -> dict[str, Any]:
    """Return the STAC properties that a product's name tells; empty where it is no name of a product.

    The name has the absolute orbit, from which the relative orbit follows (`orbit_offset`).

    Parameters
    ----------
    name
        Such as ``S1A_IW_GRDH_1SDV_20240325T055038_20240325T055103_053134_066FC4_F9DE``, with anything behind it.
    """
    match = _PRODUCT.match(name)
    if match is None:
        return {}
    start, stop = (datetime.strptime(match[key], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) for key in ("start", "stop"))
    platform, orbit = f"sentinel-1{match['unit'].lower()}", int(match["orbit"])
    offset = orbit_offset(platform, start)
    found: dict[str, Any] = {
        "platform": platform,
        "constellation": "sentinel-1",
        "start_datetime": start.isoformat().replace("+00:00", "Z"),
        "end_datetime": stop.isoformat().replace("+00:00", "Z"),
        "sar:instrument_mode": match["mode"],
        "sar:polarizations": _POLARISATIONS[match["polarisation"]],
        "sat:absolute_orbit": orbit,
    }
    if offset is not None:
        found["sat:relative_orbit"] = (orbit - offset) % ORBITS_PER_CYCLE + 1
    return found


def orbit_offset(platform: str, time: datetime) -> int | None:
    """Return the offset between absolute and relative orbits, or None where it is not defined.

    Parameters
    ----------
    platform
        ``"sentinel-1a"`` to ``"sentinel-1d"``.
    time
        Time of the acquisition, with time zone.
    """
    if platform == "sentinel-1c" and time >= _MANOEUVRE_C[0]:
        return _OFFSET_C_AFTER if time >= _MANOEUVRE_C[1] else None
    return _OFFSETS.get(platform)


def absolute_orbit(platform: str, relative_orbit: int, time: datetime) -> int | None:
    """Return the absolute orbit of an acquisition, or None where relative orbit and time do not determine it.

    The relative orbit gives the number modulo 175; the time since a known orbit picks the cycle.
    """
    offset = orbit_offset(platform, time)
    if offset is None:
        return None
    number, at = _KNOWN_ORBIT[platform]
    estimate = number + (time - at) / ORBIT
    first = relative_orbit - 1 + offset
    nearest = first + ORBITS_PER_CYCLE * round((estimate - first) / ORBITS_PER_CYCLE)
    return nearest if abs(nearest - estimate) <= _TOLERANCE and nearest > 0 else None


def orbit_time(platform: str, absolute: int) -> datetime:
    """Return when a platform was on an absolute orbit, to about a day; 175 orbits take exactly 12 days."""
    number, at = _KNOWN_ORBIT[platform]
    return (at + (absolute - number) * ORBIT).replace(microsecond=0)


def burst_relative_orbit(burst: int) -> int:
    """Return the relative orbit of an IW burst, from its number in the repeat cycle (ESA burst id)."""
    since_start = (burst - 1) * _BEAM_CYCLE + _PREAMBLE
    return int(since_start // ORBIT.total_seconds()) + 1


def burst_orbit_state(relative_orbit: int, burst: int) -> Literal["ascending", "descending"]:
    """Return the flight direction at an IW burst, from its number in the repeat cycle (ESA burst id).

    The number counts beam cycles since the ascending node of relative orbit 1, so it gives the time since the node of
    this orbit; the satellite flies north in the first and last quarter of an orbit.
    """
    since_node = (burst - 1) * _BEAM_CYCLE + _PREAMBLE - (relative_orbit - 1) * ORBIT.total_seconds()
    part = since_node / ORBIT.total_seconds() % 1.0
    return "ascending" if part < 0.25 or part >= 0.75 else "descending"
