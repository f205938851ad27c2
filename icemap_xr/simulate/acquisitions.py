"""When a simulated region is acquired: dates, platforms, orbits and pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from icemap_xr.sentinel1 import CYCLE, ORBITS_PER_CYCLE, orbit_offset, orbit_time
from icemap_xr.simulate.noise import stream

#: relative orbit and flight direction of every scene
RELATIVE_ORBIT, ORBIT_STATE = 14, "descending"
POLARISATION = "HH"


@dataclass(frozen=True)
class Acquisition:
    """One scene, or one pair of scenes.

    Parameters
    ----------
    feature
        ``"grd"``, ``"rtc"`` or ``"insar"``.
    year, step
        Year, and number within the year from 0.
    time
        Time of the scene, or of the first scene of a pair; UTC.
    second_time
        Time of the second scene of a pair, else None.
    platform
        For example ``"sentinel-1a"``.
    absolute_orbit, relative_orbit, orbit_state
        Orbit of the (first) scene.
    polarisation
        ``"HH"``.
    missing
        Whether the scene was never acquired: it reads as NaN and has no file.
    """

    feature: str
    year: int
    step: int
    time: datetime
    second_time: datetime | None
    platform: str
    absolute_orbit: int
    relative_orbit: int = RELATIVE_ORBIT
    orbit_state: str = ORBIT_STATE
    polarisation: str = POLARISATION
    missing: bool = False

    @property
    def baseline_days(self) -> int | None:
        """Temporal baseline of a pair in days, None for a scene."""
        return None if self.second_time is None else round((self.second_time - self.time) / timedelta(days=1))

    @property
    def number(self) -> int:
        """Number of the acquisition among all years, the same for every feature."""
        return self.year * 100 + self.step


def platform_of(year: int) -> str:
    """Return the platform of a year: two in turn, among those in service, so that their calibration differs."""
    if year % 2 and 2017 <= year <= 2021:
        return "sentinel-1b"
    # Sentinel-1C changed its orbit in 2026, an even year, so it never serves in that year
    return "sentinel-1c" if year % 2 and year >= 2025 else "sentinel-1a"


def acquisitions(
    feature: str, years: tuple[int, ...], steps: int, repeat_days: int, baseline_days: int, missing: float, seed: int
) -> list[Acquisition]:
    """Return all acquisitions of a feature by time; repeat and baseline are multiples of 12 days."""
    cycle_days = CYCLE.days
    made: list[Acquisition] = []
    for year in years:
        platform = platform_of(year)
        first = _first_orbit(platform, year)
        lost = stream(seed, 41, year).random(steps) < missing
        for step in range(steps):
            orbit = first + ORBITS_PER_CYCLE * step * repeat_days // cycle_days
            later = orbit + ORBITS_PER_CYCLE * baseline_days // cycle_days
            made.append(
                Acquisition(
                    feature=feature,
                    year=year,
                    step=step,
                    time=orbit_time(platform, orbit),
                    second_time=orbit_time(platform, later) if feature == "insar" else None,
                    platform=platform,
                    absolute_orbit=orbit,
                    missing=bool(lost[step]),
                )
            )
    return sorted(made, key=lambda one: one.time)


def _first_orbit(platform: str, year: int) -> int:
    """Return the first absolute orbit of the year on the region's relative orbit."""
    start = datetime(year, 1, 1, tzinfo=UTC)
    offset = orbit_offset(platform, start)
    if offset is None:
        raise ValueError(f"{platform} has no defined orbit on {start:%Y-%m-%d}")
    orbit = RELATIVE_ORBIT - 1 + offset
    cycles = math.ceil((start - orbit_time(platform, orbit)) / CYCLE)
    return orbit + ORBITS_PER_CYCLE * cycles
