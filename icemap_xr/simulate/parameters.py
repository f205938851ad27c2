"""Parameters of a simulated region: landscape, seasons and the radar properties of each class.

Every number here was chosen by judgement so that the simulated statistics fall inside the ranges that the cited works
report; none is a measurement of a certain place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from icemap_xr.simulate.noise import stream


class Surface(IntEnum):
    """Classes of the truth map; glacier are those from `DEBRIS_ICE` on."""

    SEA = 0
    ROCK = 1
    MORAINE = 2
    OUTWASH = 3
    SNOW_PATCH = 4
    LAKE = 5
    DEBRIS_ICE = 6
    BARE_ICE = 7
    FIRN = 8


@dataclass(frozen=True)
class Radar:
    """Radar properties of one class at C-band, HH.

    Parameters
    ----------
    dry, wet
        Backscatter of the frozen or dry and of the melting snow-free surface at 39 degrees, dB.
    texture
        Standard deviation of the fixed small-scale pattern, dB.
    slope
        Exponent n of the cos^n decrease with local incidence angle.
    cold, melt
        Coherence of a 12-day pair in frost and in the melt season, 0..1.
    memory
        Share of the speckle that repeats between dates, 0..1.
    """

    dry: float
    wet: float
    texture: float
    slope: float
    cold: float
    melt: float
    memory: float


#: Ranges: rock, soil and snow after Ulaby and Dobson (1989, Handbook of Radar Scattering Statistics for Terrain);
#: the drop of wet snow and firn after Nagler et al. (2015, Remote Sens. 7); coherence of ice against rock by judgement.
RADAR: dict[Surface, Radar] = {
    Surface.SEA: Radar(-17.0, -17.0, 0.0, 1.0, 0.02, 0.02, 0.0),
    Surface.ROCK: Radar(-10.6, -11.6, 1.1, 1.2, 0.74, 0.62, 0.45),
    Surface.MORAINE: Radar(-9.8, -10.8, 1.2, 1.2, 0.70, 0.56, 0.35),
    Surface.OUTWASH: Radar(-13.0, -13.6, 0.8, 1.6, 0.52, 0.36, 0.15),
    Surface.SNOW_PATCH: Radar(-8.8, -15.0, 0.7, 1.5, 0.36, 0.12, 0.10),
    Surface.LAKE: Radar(-15.0, -20.0, 0.3, 2.0, 0.40, 0.03, 0.0),
    Surface.DEBRIS_ICE: Radar(-10.2, -11.4, 1.3, 1.3, 0.40, 0.21, 0.25),
    Surface.BARE_ICE: Radar(-12.0, -13.4, 0.8, 1.6, 0.29, 0.10, 0.10),
    Surface.FIRN: Radar(-7.4, -15.5, 0.5, 1.2, 0.27, 0.07, 0.05),
}

#: standard deviations by which a shift of 1 moves a class: backscatter in dB, coherence
SHIFT_DB, SHIFT_COHERENCE = 0.8, 0.03


@dataclass(frozen=True)
class Landscape:
    """What a region looks like; see `region` for the meaning and units."""

    ice_cover: float = 0.4
    debris_cover: float = 0.25
    snow_patch_cover: float = 0.08
    relief: float = 1000.0
    thinning: float = 3.0
    surge: bool = True
    lake: bool = True


@dataclass(frozen=True)
class Sensor:
    """Properties of the simulated sensor.

    Parameters
    ----------
    incidence
        Incidence angle on flat ground at the region's centre, degrees (IW spans 29 to 46: Torres et al. 2012).
    look_azimuth
        Direction in which the radar looks, degrees clockwise from north; 283 is a descending, right-looking pass.
    resolution
        Ground resolution, m: 20 x 22 m for IW GRDH.
    looks
        Equivalent number of looks of the backscatter: 4.4 for IW GRDH.
    noise_floor
        Noise-equivalent sigma zero, dB; specified as at most -22 dB (Torres et al. 2012, Remote Sens. Environ. 120).
    window
        Side of the coherence estimation window, pixels.
    coherence_looks
        Independent looks inside that window.
    """

    incidence: float = 39.0
    look_azimuth: float = 283.0
    resolution: float = 20.0
    looks: float = 4.4
    noise_floor: float = -24.0
    window: int = 5
    coherence_looks: float = 16.0


def class_table(seed: int, shift: float) -> dict[str, NDArray[np.float32]]:
    """Return the radar properties as one array per property, indexed by class.

    A positive `shift` moves every class of the region by its own random amount: `shift` times 0.8 dB and 0.03.
    """
    draws = stream(seed, 11).standard_normal((len(Surface), 3))
    rows = []
    for surface in Surface:
        radar, (a, b, c) = RADAR[surface], draws[surface] * shift
        rows.append(
            replace(
                radar,
                dry=radar.dry + SHIFT_DB * a,
                wet=radar.wet + SHIFT_DB * (0.7 * a + 0.7 * b),
                cold=float(np.clip(radar.cold + SHIFT_COHERENCE * c, 0.02, 0.95)),
                melt=float(np.clip(radar.melt + SHIFT_COHERENCE * c, 0.02, 0.95)),
            )
        )
    return {name: np.array([getattr(r, name) for r in rows], np.float32) for name in Radar.__dataclass_fields__}
