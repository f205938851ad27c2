"""Weather and platform state of each date, with what a whole year has in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from icemap_xr.simulate.noise import stream

#: calibration offset of each platform against Sentinel-1A, dB; sizes by judgement, inside the mission's 1 dB accuracy
#: requirement (Torres et al. 2012, Remote Sens. Environ. 120)
PLATFORM_OFFSET = {"sentinel-1a": 0.0, "sentinel-1b": 0.35, "sentinel-1c": -0.25}
#: geolocation offset of a platform: standard deviation and limit, m; sizes by judgement, of the order that Schubert et
#: al. (2017, Remote Sens. 9) report for products without further correction
GEOLOCATION_SPREAD, GEOLOCATION_LIMIT = 2.5, 5.0


@dataclass(frozen=True)
class Weather:
    """State of one date.

    Parameters
    ----------
    temperature
        Air temperature at sea level, degrees Celsius.
    snow_line
        Height above which winter snow still lies, m; below zero in winter.
    wind
        Change of sea backscatter by wind, dB.
    offset
        Calibration of platform and year together, dB.
    moisture
        Change of backscatter of thawed snow-free ground by its moisture, dB.
    stability
        Factor on coherence: wind, snowfall and frost since the last date, 0..1.
    """

    temperature: float
    snow_line: float
    wind: float
    offset: float
    moisture: float
    stability: float


def weather(time: datetime, platform: str, seed: int, scene: int) -> Weather:
    """Return the state of a date: the season, the year's own anomaly, and the day's.

    Effects common to a year: temperature (1 K) and snow (90 m of snow line), which shift melt everywhere at once,
    moisture of the ground (0.5 dB in a wet or dry year), wind and snowfall that take coherence (4 %), and 0.25 dB of
    calibration drift, besides the platform's own offset. All sizes are judgement.
    """
    year = stream(seed, 31, time.year).standard_normal(5)
    day = stream(seed, 32, scene).standard_normal(5)
    phase = (time.timetuple().tm_yday - 30) / 365.25
    temperature = -3.0 - 12.0 * math.cos(2 * math.pi * phase) + 1.0 * float(year[0]) + 1.5 * float(day[0])
    # winter snow melts upwards from late May and is back at the end of September
    thaw = (time.timetuple().tm_yday - 145) / 100.0
    snow_line = -200.0 + 1300.0 * math.sin(math.pi * min(max(thaw, 0.0), 1.2) / 1.2) + 90.0 * float(year[1])
    return Weather(
        temperature=temperature,
        snow_line=snow_line,
        wind=3.5 * float(day[1]),
        offset=PLATFORM_OFFSET[platform] + 0.25 * float(year[2]) + 0.1 * float(day[2]),
        moisture=0.5 * float(year[3]) + 0.5 * float(day[4]),
        stability=(1.0 - 0.12 * min(abs(float(day[3])), 2.5)) * (1.0 - 0.04 * min(abs(float(year[4])), 2.5)),
    )


def geolocation(platform: str, seed: int) -> tuple[float, float]:
    """Return by how much all scenes of a platform lie too far south and too far east, m; at most 5 m."""
    drawn = stream(seed, 33, ord(platform[-1])).standard_normal(2) * GEOLOCATION_SPREAD
    south, east = np.clip(drawn, -GEOLOCATION_LIMIT, GEOLOCATION_LIMIT)
    return float(south), float(east)
