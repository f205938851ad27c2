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
    MELANGE = 6
    DEBRIS_ICE = 7
    BARE_ICE = 8
    FIRN = 9


@dataclass(frozen=True)
class Radar:
    """Radar properties of one class at C-band.

    Parameters
    ----------
    dry, wet
        HH backscatter of the frozen or dry and of the melting snow-free surface at 39 degrees, dB.
    texture
        Standard deviation of the fixed small-scale pattern, dB.
    slope
        Exponent n of the cos^n decrease with local incidence angle.
    cold, melt
        Coherence of a 12-day pair in frost and in the melt season, 0..1.
    lasting
        Share of the 12-day coherence that any longer time leaves, 0..1.
    vertical, cross
        VV, and HV or VH, against HH, dB.
    """

    dry: float
    wet: float
    texture: float
    slope: float
    cold: float
    melt: float
    lasting: float
    vertical: float
    cross: float


#: All values are judgement. Orders of magnitude of rock, soil and snow follow Ulaby and Dobson (1989, Handbook of Radar
#: Scattering Statistics for Terrain), the drop of wet snow and firn Nagler et al. (2015, Remote Sens. 7).
RADAR: dict[Surface, Radar] = {
    Surface.SEA: Radar(-17.0, -17.0, 0.0, 1.0, 0.02, 0.02, 0.0, 3.0, -11.0),
    Surface.ROCK: Radar(-10.6, -11.6, 1.1, 1.2, 0.74, 0.62, 0.75, 0.2, -7.5),
    Surface.MORAINE: Radar(-9.8, -10.8, 1.2, 1.2, 0.70, 0.56, 0.65, 0.2, -7.0),
    Surface.OUTWASH: Radar(-13.0, -13.6, 0.8, 1.6, 0.52, 0.36, 0.5, 0.5, -9.0),
    Surface.SNOW_PATCH: Radar(-8.8, -15.0, 0.7, 1.5, 0.36, 0.12, 0.3, 0.0, -6.0),
    Surface.LAKE: Radar(-15.0, -20.0, 0.3, 2.0, 0.40, 0.03, 0.0, 1.5, -10.0),
    Surface.MELANGE: Radar(-10.8, -13.0, 1.6, 1.0, 0.16, 0.02, 0.0, 0.3, -7.0),
    Surface.DEBRIS_ICE: Radar(-10.2, -11.4, 1.3, 1.3, 0.40, 0.21, 0.4, 0.2, -7.0),
    Surface.BARE_ICE: Radar(-12.0, -13.4, 0.8, 1.6, 0.29, 0.10, 0.1, 0.3, -7.0),
    Surface.FIRN: Radar(-7.4, -15.5, 0.5, 1.2, 0.27, 0.07, 0.1, 0.0, -5.0),
}

#: standard deviations by which a shift of 1 moves a class: backscatter in dB, coherence
SHIFT_DB, SHIFT_COHERENCE = 0.8, 0.03


@dataclass(frozen=True)
class Landscape:
    """What a region looks like.

    With ``thinning=0, surge=False, lake=False`` nothing changes: the truth of all years is equal bit by bit.

    Parameters
    ----------
    ice_cover
        Share of the land that is glacier, 0 (none) to 1 (everything).
    debris_cover
        Share of the glaciers that debris covers, 0..1.
    snow_patch_cover
        Share of the other land that perennial snow covers, 0..1.
    relief
        Height of the mountains, m.
    thinning
        Thinning of the tongues at sea level, m per year; less further up, none above the snow line.
    surge
        Whether one glacier advances by about 700 m in the second year.
    lake
        Whether a lake forms at the end of one tongue from the second year on.
    tidewater
        Whether glaciers that reach the coast end at a calving front in the water, with ice melange before it.
    """

    ice_cover: float = 0.4
    debris_cover: float = 0.25
    snow_patch_cover: float = 0.08
    relief: float = 1000.0
    thinning: float = 3.0
    surge: bool = True
    lake: bool = True
    tidewater: bool = True


@dataclass(frozen=True)
class Sensor:
    """Properties of the simulated sensor.

    Parameters
    ----------
    incidence
        Incidence angle on flat ground at the region's centre, degrees.
    incidence_gradient
        Its increase across the swath, degrees per km: IW spans 29 to 46 degrees over 250 km (Torres et al. 2012).
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
    border_noise
        Mean width of the strip along the near edge of ``grd`` scenes that holds noise instead of ground, m, as in
        products before March 2018 (Ali et al. 2018, IEEE JSTARS 11); its width differs by scene. 0 for none.
    """

    incidence: float = 39.0
    incidence_gradient: float = 0.068
    look_azimuth: float = 283.0
    resolution: float = 20.0
    looks: float = 4.4
    noise_floor: float = -24.0
    window: int = 5
    coherence_looks: float = 16.0
    border_noise: float = 0.0


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
