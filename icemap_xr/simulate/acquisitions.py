"""When a simulated region is acquired: dates, platforms, orbits and pairs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from icemap_xr.sentinel1 import CYCLE, ORBITS_PER_CYCLE, orbit_offset, orbit_time
from icemap_xr.simulate.noise import stream

#: relative orbit and flight direction of every scene
RELATIVE_ORBIT, ORBIT_STATE = 14, "descending"
#: what the instrument can receive, each co-polarised channel first
POLARISATIONS = (("HH",), ("VV",), ("HH", "HV"), ("VV", "VH"))
#: years in which a second satellite shares the orbit, half a cycle apart: Sentinel-1B until its end in December 2021,
#: Sentinel-1C from 2025 on, except 2026, when it changed its orbit
_SECOND = {"sentinel-1b": range(2017, 2022), "sentinel-1c": (2025, *range(2027, 2101))}


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
    polarisations
        Channels, the co-polarised first; a pair has that one alone.
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
    polarisations: tuple[str, ...] = ("HH",)
    missing: bool = False

    @property
    def baseline_days(self) -> int | None:
        """Temporal baseline of a pair in days, None for a scene."""
        return None if self.second_time is None else round((self.second_time - self.time) / timedelta(days=1))

    @property
    def polarisation(self) -> str:
        """The co-polarised channel."""
        return self.polarisations[0]

    @property
    def number(self) -> int:
        """Number of the acquisition among all years, the same for every feature."""
        return self.year * 100 + self.step


def platform_of(year: int, step: int) -> str:
    """Return the platform of a scene: Sentinel-1A, in turn with the second satellite in years that had one."""
    if step % 2:
        for name, years in _SECOND.items():
            if year in years:
                return name
    return "sentinel-1a"


def acquisitions(
    feature: str,
    years: tuple[int, ...],
    steps: int,
    *,
    repeat_days: int,
    baseline_days: int,
    missing: float,
    seed: int,
    polarisations: tuple[str, ...],
) -> list[Acquisition]:
    """Return all acquisitions of a feature by time; repeat and baseline are multiples of 12 days.

    The two satellites of a year are half a cycle apart, so where they take turns the spacing alternates by 6 days.
    """
    made: list[Acquisition] = []
    for year in years:
        lost = stream(seed, 41, year).random(steps) < missing
        for step in range(steps):
            platform = platform_of(year, step)
            orbit = _first_orbit(platform, year) + ORBITS_PER_CYCLE * step * repeat_days // CYCLE.days
            later = orbit + ORBITS_PER_CYCLE * baseline_days // CYCLE.days
            made.append(
                Acquisition(
                    feature=feature,
                    year=year,
                    step=step,
                    time=orbit_time(platform, orbit),
                    second_time=orbit_time(platform, later) if feature == "insar" else None,
                    platform=platform,
                    absolute_orbit=orbit,
                    polarisations=polarisations[:1] if feature == "insar" else polarisations,
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
