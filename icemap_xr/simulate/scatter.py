"""Sentinel-1-like backscatter and coherence of one block at one date.

What stays the same within a year (classes, geometry, texture) is a `Scenery`; a date adds weather, speckle and noise.
Numbers are in `parameters`; where a docstring names no work, the form was chosen by judgement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from icemap_xr.simulate import truth
from icemap_xr.simulate.noise import Float32Array, correlated, fractal, gaussian_kernel, grow, smooth, value_noise
from icemap_xr.simulate.parameters import Sensor, Surface, class_table
from icemap_xr.simulate.season import Weather
from icemap_xr.simulate.terrain import Layout

#: steps to which values are rounded: powers of two, exact in float32, so that files compress; dB and coherence
STEP_DB, STEP_COHERENCE = 2.0**-7, 2.0**-10
#: pixels of halo around a block: room for the resolution filter and the coherence window
HALO = 4
_WET_SNOW = -17.0
#: random streams
_SPECKLE, _MEMORY, _PAIR = 21, 22, 23


@dataclass(frozen=True)
class Scenery:
    """What a block looks like to the radar in one year, apart from date and noise; arrays `(y, x)` with a halo.

    Parameters
    ----------
    plan, sensor
        Layout of the region and the sensor.
    rows, columns
        The block, without halo.
    surface
        Class, a `Surface` number.
    height
        Elevation, m.
    dry, wet
        Backscatter of dry and of melting snow-free surface with texture, without geometry, dB.
    geometry
        Effect of terrain on sigma zero, dB.
    angular
        Effect of local incidence on gamma zero after terrain flattening, dB.
    hidden
        Layover or shadow.
    cold, melt
        Coherence in frost and in the melt season before noise.
    memory
        Share of speckle that repeats.
    """

    plan: Layout
    sensor: Sensor
    rows: slice
    columns: slice
    surface: NDArray[np.uint8]
    height: Float32Array
    dry: Float32Array
    wet: Float32Array
    geometry: Float32Array
    angular: Float32Array
    hidden: NDArray[np.bool_]
    cold: Float32Array
    melt: Float32Array
    memory: Float32Array


def scenery(plan: Layout, year: int, rows: slice, columns: slice, shift: float, sensor: Sensor) -> Scenery:
    """Work out what a block looks like in one year."""
    outer_rows, outer_columns = grow(rows, HALO), grow(columns, HALO)
    surface = truth.classes(plan, year, outer_rows, outer_columns)
    table = {name: values[surface] for name, values in class_table(plan.seed, shift).items()}
    y, x = (truth.pixel_centres(span) * plan.resolution for span in (outer_rows, outer_columns))
    # two scales: grain of the ground, and moisture or roughness that changes over kilometres
    grain = fractal(y, x, 90.0, plan.seed + 2003, octaves=2, gain=0.8) / 0.4
    broad = fractal(y, x, 1800.0, plan.seed + 2011, octaves=2) / 0.4
    pattern = table["texture"] * (0.8 * grain) + np.where(surface == Surface.SEA, 0.0, 1.1 * broad)
    stability = fractal(y, x, 1100.0, plan.seed + 2017, octaves=3, gain=0.7) / 0.4
    spread = np.where(surface >= Surface.DEBRIS_ICE, 0.05, 0.10) * (surface != Surface.SEA)
    height = truth.elevation(plan, outer_rows, outer_columns)
    geometry, angular, hidden = _geometry(plan, outer_rows, outer_columns, table["slope"], sensor)
    return Scenery(
        plan=plan,
        sensor=sensor,
        rows=rows,
        columns=columns,
        surface=surface,
        height=np.asarray(height, np.float32),
        dry=np.asarray(table["dry"] + pattern, np.float32),
        wet=np.asarray(table["wet"] + pattern, np.float32),
        geometry=geometry,
        angular=angular,
        hidden=hidden,
        cold=np.asarray(np.clip(table["cold"] + spread * stability, 0.02, 0.95), np.float32),
        melt=np.asarray(np.clip(table["melt"] + spread * stability, 0.02, 0.95), np.float32),
        memory=table["memory"],
    )


def _geometry(
    plan: Layout, rows: slice, columns: slice, exponent: Float32Array, sensor: Sensor
) -> tuple[Float32Array, Float32Array, NDArray[np.bool_]]:
    """Return the terrain's effect on sigma zero and on gamma zero (dB), and where layover or shadow hides the ground.

    Sigma zero scales with the illuminated area, which grows as the slope turns to the radar (Small 2011, IEEE TGRS 49);
    the area is taken from the slope in range alone. Terrain flattening removes that and leaves the angular decrease of
    the scattering, cos^n of local incidence (Ulaby and Dobson 1989). Hidden is where the ground itself leans past the
    line of sight (active layover and shadow, Kropatsch and Strobl 1990, IEEE TGRS 28); cast shadow is not modelled.
    """
    height = truth.elevation(plan, grow(rows, 1), grow(columns, 1))
    down = (height[2:, 1:-1] - height[:-2, 1:-1]) / (2 * plan.resolution)
    right = (height[1:-1, 2:] - height[1:-1, :-2]) / (2 * plan.resolution)
    look, incidence = math.radians(sensor.look_azimuth), math.radians(sensor.incidence)
    toward = right * math.sin(look) - down * math.cos(look)  # rise in look direction: the slope faces the radar
    facing = np.arctan(toward)
    local_range = incidence - facing
    hidden = (local_range < math.radians(3.0)) | (local_range > math.radians(87.0))
    local_range = np.clip(local_range, math.radians(8.0), math.radians(87.0))
    area = 10 * np.log10(math.sin(incidence) / np.sin(local_range))
    normal = np.sqrt(1 + down**2 + right**2)
    local = np.clip((math.cos(incidence) + math.sin(incidence) * toward) / normal, 0.03, 1.0)
    angular = exponent * 10 * np.log10(local / math.cos(incidence))
    return np.asarray(area + angular, np.float32), np.asarray(0.7 * angular, np.float32), hidden


def _melt(height: Float32Array, weather: Weather) -> tuple[Float32Array, Float32Array]:
    """Return wetness of the surface and remaining winter snow, each 0..1; temperature falls by 5 K per km of height."""
    warm = np.float32(weather.temperature) - np.float32(0.005) * height
    wetness = np.clip((warm + np.float32(1.0)) / np.float32(2.5), 0, 1)
    snow = np.clip((height - np.float32(weather.snow_line)) / np.float32(120.0), 0, 1)
    return np.asarray(wetness, np.float32), np.asarray(snow, np.float32)


def backscatter(view: Scenery, weather: Weather, scene: int, *, flattened: bool) -> Float32Array:
    """Return one acquisition of a block in dB, `(y, x)` float32, rounded to 2**-7 dB.

    Parameters
    ----------
    view
        The block in the year of the acquisition.
    weather
        State of the date.
    scene
        Number of the acquisition, for its own speckle.
    flattened
        False: sigma zero with all effects of terrain ("grd"). True: gamma zero after terrain flattening ("rtc").

    Notes
    -----
    Dry snow is nearly transparent at C-band and wet snow absorbs: backscatter falls by several dB with wetness (Nagler
    et al. 2015). Thermal noise adds power. The sensor resolves less than a pixel: power is smoothed before speckle is
    applied, and speckle is correlated with the same kernel.
    """
    sensor = view.sensor
    level = _level(view, weather, scene, flattened=flattened)
    power = np.exp(level * np.float32(math.log(10) / 10), dtype=np.float32)
    floor = np.float32(10 ** (sensor.noise_floor / 10))
    power = np.where(view.hidden & (view.geometry < 0), 0, power) + floor
    kernel = gaussian_kernel(sensor.resolution / view.plan.resolution / 2.355)
    trim = HALO - kernel.size // 2
    power = smooth(np.ascontiguousarray(power[trim:-trim, trim:-trim]), kernel)
    return _round(10 * np.log10(power * _speckle(view, scene, kernel)), STEP_DB)


def _level(view: Scenery, weather: Weather, scene: int, *, flattened: bool) -> Float32Array:
    """Return noise-free backscatter, dB."""
    wetness, snow = _melt(view.height, weather)
    melting = view.wet + snow * (np.float32(_WET_SNOW) - view.wet) * np.float32(0.7)
    level = view.dry + wetness * (melting - view.dry)
    rows, columns = grow(view.rows, HALO), grow(view.columns, HALO)
    y, x = (truth.pixel_centres(span) * view.plan.resolution for span in (rows, columns))
    drift = value_noise(y, x, 1500.0, view.plan.seed + 3001 + scene).astype(np.float32)
    level = level + np.float32(1.4) * drift
    # wind roughens open water, and gusts have scales of a kilometre; ice on lakes keeps wind out in frost
    gust = np.float32(weather.wind) + np.float32(4.0) * drift
    open_water = (view.surface == Surface.SEA) | ((view.surface == Surface.LAKE) & (wetness > 0.5))
    level = level + np.where(open_water, gust, np.float32(0))
    return np.asarray(level + (view.angular if flattened else view.geometry) + np.float32(weather.offset), np.float32)


def _speckle(view: Scenery, scene: int, kernel: NDArray[np.float64]) -> Float32Array:
    """Return multiplicative speckle of mean 1: gamma distributed with the sensor's looks.

    Gamma variates are made from correlated Gaussian ones by the cube-root transform (Wilson and Hilferty 1931, PNAS
    17). Where the ground keeps its phase, part of the Gaussian field is the same at every date.
    """
    fresh = correlated((view.plan.seed, _SPECKLE, scene), view.rows, view.columns, kernel)
    kept = correlated((view.plan.seed, _MEMORY), view.rows, view.columns, kernel)
    share = _inner(view.memory)
    normal = np.asarray(np.sqrt(share) * kept + np.sqrt(1 - share) * fresh, np.float32)
    return _gamma(normal, view.sensor.looks) / np.float32(view.sensor.looks)


def _gamma(normal: Float32Array, shape: float) -> Float32Array:
    """Return gamma variates of the given shape and unit scale from standard normal ones (Wilson and Hilferty 1931)."""
    root = np.float32(1 - 1 / (9 * shape)) + normal * np.float32(1 / (3 * math.sqrt(shape)))
    root = np.maximum(root, np.float32(0.05))
    return np.asarray(np.float32(shape) * root * root * root, np.float32)


def coherence(view: Scenery, first: Weather, second: Weather, pair: int, baseline: float) -> Float32Array:
    """Return the coherence estimate of one pair over a block, 0..1, `(y, x)` float32, rounded to 2**-10.

    Parameters
    ----------
    view
        The block in the year of the pair.
    first, second
        States of both dates.
    pair
        Number of the pair, for its own noise.
    baseline
        Temporal baseline, days: coherence decays with exp(-days / tau) (form of Rocca 2007, IEEE TGRS 45).

    Notes
    -----
    Melt at either date takes coherence away, and so does thermal noise (Zebker and Villasenor 1992, IEEE TGRS 30). The
    estimate is the magnitude of the sample coherence of L looks, drawn from its exact distribution, so that it is noisy
    and biased upwards where coherence is low (Touzi et al. 1999, IEEE TGRS 37).
    """
    wet = np.maximum(_melt(view.height, first)[0], _melt(view.height, second)[0])
    true = view.cold + wet * (view.melt - view.cold)
    # the table holds 12-day values; longer pairs lose the rest with a tau of 90 days
    true = (
        true * np.float32(math.exp(-(baseline - 12.0) / 90.0)) * np.float32(0.5 * (first.stability + second.stability))
    )
    floor = np.float32(10 ** (view.sensor.noise_floor / 10))
    power = np.exp((view.dry + view.geometry) * np.float32(math.log(10) / 10), dtype=np.float32)
    true = np.where(view.hidden, np.float32(0.03), true * power / (power + floor))
    box = np.full(view.sensor.window, 1 / view.sensor.window)
    trim = HALO - view.sensor.window // 2
    true = smooth(np.ascontiguousarray(true[trim:-trim, trim:-trim]), box)
    return _round(_sample_coherence(np.clip(true, 0.01, 0.97), view, pair, box), STEP_COHERENCE)


def _sample_coherence(true: Float32Array, view: Scenery, pair: int, box: NDArray[np.float64]) -> Float32Array:
    """Return one draw of the sample coherence magnitude for each true coherence.

    Given the power g1 of the first image over L looks, the second is the part that repeats plus an independent part;
    projecting the latter on the first image leaves a complex normal n and a remainder g2 with L - 1 looks.
    """
    looks = view.sensor.coherence_looks
    real, imaginary, first, rest = (
        correlated((view.plan.seed, _PAIR, pair, part), view.rows, view.columns, box) for part in range(4)
    )
    g1, g2 = _gamma(first, looks), _gamma(rest, looks - 1)
    lost = 1 - true * true
    scale = np.sqrt(lost / 2)
    along = (true * np.sqrt(g1) + scale * real) ** 2 + (scale * imaginary) ** 2
    return np.asarray(np.sqrt(along / (along + lost * g2)), np.float32)


def _inner(field: Float32Array) -> Float32Array:
    return np.ascontiguousarray(field[HALO:-HALO, HALO:-HALO])


def _round(values: NDArray[np.floating], step: float) -> Float32Array:
    return np.asarray(np.rint(values / np.float32(step)) * np.float32(step), np.float32)
