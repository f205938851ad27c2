"""Sentinel-1-like backscatter and coherence of one block at one date.

What stays the same within a year (classes, geometry, texture) is a `Scenery`; a date adds weather, speckle and noise.
Numbers are in `parameters`; where a docstring names no work, the form was chosen by judgement.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from icemap_xr.simulate import truth
from icemap_xr.simulate.exposure import incidence
from icemap_xr.simulate.noise import (
    Float32Array,
    Float64Array,
    box_kernel,
    correlated,
    fractal,
    gaussian_kernel,
    grow,
    smooth,
    stream,
    value_noise,
)
from icemap_xr.simulate.parameters import Sensor, Surface, class_table
from icemap_xr.simulate.season import Weather, geolocation
from icemap_xr.simulate.terrain import Layout

#: steps to which values are rounded: powers of two, exact in float32, so that files compress; dB and coherence
STEP_DB, STEP_COHERENCE = 2.0**-7, 2.0**-10
#: backscatter of wet snow; of the strip of noise along a scene's border, dB
_WET_SNOW, _BORDER = -17.0, -35.0
#: days in which the part of coherence that fades falls to 37 %
_FADING = 40.0
#: random streams
_SPECKLE, _MEMORY, _PAIR, _EDGE = 21, 22, 23, 24
_GROUND = (Surface.ROCK, Surface.MORAINE, Surface.OUTWASH)


@dataclass(frozen=True)
class Scenery:
    """What a block looks like to the radar in one year, apart from date and noise; arrays `(y, x)` with a halo.

    Parameters
    ----------
    plan, sensor, table
        Layout of the region, the sensor, and the radar properties by class.
    rows, columns
        The block, without halo.
    halo
        Pixels around it: room for the resolution filter and the coherence window.
    surface
        Class, a `Surface` number.
    height
        Elevation, m.
    dry, wet
        HH backscatter of dry and of melting snow-free surface with texture, without geometry, dB.
    geometry
        Effect of terrain on sigma zero, dB.
    angular
        Effect of local incidence on gamma zero after terrain flattening, dB.
    shadow, layover
        Where nothing comes back, and where several places come back together.
    cold, melt, lasting
        Coherence of 12 days in frost and in the melt season before noise, and the share of it that never fades.
    ground
        1 where neither ice, snow nor water covers the ground.
    kept
        Filled as needed, by platform: the field whose speckle repeats.
    """

    plan: Layout
    sensor: Sensor
    table: dict[str, Float32Array]
    rows: slice
    columns: slice
    halo: int
    surface: NDArray[np.uint8]
    height: Float32Array
    dry: Float32Array
    wet: Float32Array
    geometry: Float32Array
    angular: Float32Array
    shadow: NDArray[np.bool_]
    layover: NDArray[np.bool_]
    cold: Float32Array
    melt: Float32Array
    lasting: Float32Array
    ground: Float32Array
    kept: dict[tuple[str, str], Float32Array] = field(default_factory=dict)


def scenery(plan: Layout, year: int, rows: slice, columns: slice, shift: float, sensor: Sensor) -> Scenery:
    """Work out what a block looks like in one year."""
    halo = max(_resolution_kernel(plan, sensor).size // 2, sensor.window // 2 + 1)
    outer_rows, outer_columns = grow(rows, halo), grow(columns, halo)
    surface = truth.classes(plan, year, outer_rows, outer_columns)
    by_class = class_table(plan.seed, shift)
    table = {name: by_class[name][surface] for name in ("dry", "wet", "texture", "slope", "cold", "melt", "lasting")}
    y, x = (truth.pixel_centres(span) * plan.resolution for span in (outer_rows, outer_columns))
    # two scales: grain of the ground, and moisture or roughness that changes over kilometres
    grain = fractal(y, x, 90.0, plan.seed + 2003, octaves=2, gain=0.8) / 0.4
    broad = fractal(y, x, 1800.0, plan.seed + 2011, octaves=2) / 0.4
    sea = surface == Surface.SEA
    pattern = table["texture"] * (0.8 * grain) + np.where(sea, 0.0, 1.1 * broad)
    stability = fractal(y, x, 1100.0, plan.seed + 2017, octaves=3, gain=0.7) / 0.4
    spread = np.where(surface >= Surface.MELANGE, 0.05, 0.10) * ~sea
    height = truth.elevation(plan, grow(outer_rows, 1), grow(outer_columns, 1))
    geometry, angular, shadow, layover = _geometry(plan, outer_rows, outer_columns, height, table["slope"], sensor)
    return Scenery(
        plan=plan,
        sensor=sensor,
        table=by_class,
        rows=rows,
        columns=columns,
        halo=halo,
        surface=surface,
        height=np.asarray(height[1:-1, 1:-1], np.float32),
        dry=np.asarray(table["dry"] + pattern, np.float32),
        wet=np.asarray(table["wet"] + pattern, np.float32),
        geometry=geometry,
        angular=angular,
        shadow=shadow,
        layover=layover,
        cold=np.asarray(np.clip(table["cold"] + spread * stability, 0.02, 0.95), np.float32),
        melt=np.asarray(np.clip(table["melt"] + spread * stability, 0.02, 0.95), np.float32),
        lasting=table["lasting"],
        ground=np.isin(surface, _GROUND).astype(np.float32),
    )


def _resolution_kernel(plan: Layout, sensor: Sensor, shift: float = 0.0) -> Float64Array:
    """Return what the sensor sees of a point: a Gaussian whose width at half height is the resolution."""
    return gaussian_kernel(sensor.resolution / plan.resolution / 2.355, shift)


def _range(plan: Layout, rows: slice, columns: slice) -> tuple[Float64Array, Float64Array]:
    """Return the distance south and east of the region's centre, m; `(y, 1)` and `(x,)`."""
    down = (truth.pixel_centres(rows) - plan.centre[0]) * plan.resolution
    return down[:, None], (truth.pixel_centres(columns) - plan.centre[1]) * plan.resolution


def _geometry(
    plan: Layout, rows: slice, columns: slice, height: Float64Array, exponent: Float32Array, sensor: Sensor
) -> tuple[Float32Array, Float32Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the terrain's effect on sigma zero and gamma zero (dB), and where there is shadow and layover.

    Sigma zero scales with the illuminated area, which grows as the slope turns to the radar (Small 2011, IEEE TGRS 49);
    the area is taken from the slope in range alone. Terrain flattening removes that and leaves the angular decrease of
    the scattering, cos^n of local incidence (Ulaby and Dobson 1989). Shadow and layover are active, where the ground
    itself leans past the line of sight, or passive, where other ground covers it (`exposure`). Layover brightens by
    3 dB, as if two places came back together; the displacement in range is not modelled.
    """
    down = (height[2:, 1:-1] - height[:-2, 1:-1]) / (2 * plan.resolution)
    right = (height[1:-1, 2:] - height[1:-1, :-2]) / (2 * plan.resolution)
    look, centre = math.radians(sensor.look_azimuth), math.radians(sensor.incidence)
    flat = incidence(sensor, *_range(plan, rows, columns))
    toward = right * math.sin(look) - down * math.cos(look)  # rise in look direction: the slope faces the radar
    local_range = flat - np.arctan(toward)
    y, x = truth.pixel_centres(rows), truth.pixel_centres(columns)
    layover = (local_range < math.radians(3.0)) | (plan.sample(plan.layover, y, x) > 0)
    shadow = (local_range > math.radians(87.0)) | (plan.sample(plan.shadow, y, x) > 0)
    local_range = np.clip(local_range, math.radians(8.0), math.radians(87.0))
    area = 10 * np.log10(np.sin(flat) / np.sin(local_range)) + np.where(layover, 3.0, 0.0)
    normal = np.sqrt(1 + down**2 + right**2)
    local = np.clip((np.cos(flat) + np.sin(flat) * toward) / normal, 0.03, 1.0)
    angular = exponent * 10 * np.log10(local / math.cos(centre))
    return np.asarray(area + angular, np.float32), np.asarray(0.7 * angular, np.float32), shadow & ~layover, layover


def _melt(height: Float32Array, weather: Weather) -> tuple[Float32Array, Float32Array]:
    """Return wetness of the surface and remaining winter snow, each 0..1; temperature falls by 5 K per km of height."""
    warm = np.float32(weather.temperature) - np.float32(0.005) * height
    wetness = np.clip((warm + np.float32(1.0)) / np.float32(2.5), 0, 1)
    snow = np.clip((height - np.float32(weather.snow_line)) / np.float32(120.0), 0, 1)
    return np.asarray(wetness, np.float32), np.asarray(snow, np.float32)


def backscatter(
    view: Scenery, weather: Weather, scene: int, platform: str, *, flattened: bool, polarisation: str
) -> Float32Array:
    """Return one acquisition of a block in dB, `(y, x)` float32, rounded to 2**-7 dB.

    Parameters
    ----------
    view
        The block in the year of the acquisition.
    weather
        State of the date.
    scene
        Number of the acquisition, for its own speckle.
    platform
        Satellite, which has a geolocation offset of its own.
    flattened
        False: sigma zero with all effects of terrain ("grd"). True: gamma zero after terrain flattening ("rtc").
    polarisation
        ``"HH"``, ``"HV"``, ``"VV"`` or ``"VH"``.

    Notes
    -----
    Dry snow is nearly transparent at C-band and wet snow absorbs: backscatter falls by several dB with wetness (Nagler
    et al. 2015). Thermal noise adds power. The sensor resolves less than a pixel: power is smoothed before speckle is
    applied, and speckle is correlated with the same kernel. That kernel also holds the sub-pixel geolocation offset.
    """
    sensor = view.sensor
    wetness, snow = _melt(view.height, weather)
    level = _level(view, weather, scene, wetness, snow, flattened, polarisation)
    power = np.exp(level * np.float32(math.log(10) / 10), dtype=np.float32)
    power = np.where(view.shadow, 0, power) + np.float32(10 ** (sensor.noise_floor / 10))
    down, across = (_resolution_kernel(view.plan, sensor, s) for s in _offset(view, platform))
    power = smooth(_trim(power, view.halo - down.size // 2), down, across)
    same = view.lasting * (view.cold + wetness * (view.melt - view.cold)) * np.float32(weather.stability)
    same = _trim(same, view.halo)
    speckle = _speckle(view, scene, platform, polarisation, same * same, (down, across))
    level = 10 * np.log10(power * speckle)
    if sensor.border_noise > 0 and not flattened:
        level = np.where(_border(view, scene), np.float32(_BORDER) + 10 * np.log10(speckle), level)
    return _round(level, STEP_DB)


def _offset(view: Scenery, platform: str) -> tuple[float, float]:
    """Return the geolocation offset in pixels, less than one."""
    south, east = (float(np.clip(m / view.plan.resolution, -0.9, 0.9)) for m in geolocation(platform, view.plan.seed))
    return south, east


def _border(view: Scenery, scene: int) -> NDArray[np.bool_]:
    """Return the strip of noise at the side of the region where the beam comes first."""
    look = math.radians(view.sensor.look_azimuth)
    down, right = _range(view.plan, view.rows, view.columns)
    away = right * math.sin(look) - down * math.cos(look)
    half_y, half_x = (n * view.plan.resolution for n in view.plan.centre)
    first = -(half_x * abs(math.sin(look)) + half_y * abs(math.cos(look)))
    width = view.sensor.border_noise * float(stream(view.plan.seed, _EDGE, scene).uniform(0.5, 1.5))
    return np.asarray(away < first + width)


def _level(
    view: Scenery,
    weather: Weather,
    scene: int,
    wetness: Float32Array,
    snow: Float32Array,
    flattened: bool,
    polarisation: str,
) -> Float32Array:
    """Return noise-free backscatter, dB."""
    melting = view.wet + snow * (np.float32(_WET_SNOW) - view.wet) * np.float32(0.7)
    level = view.dry + wetness * (melting - view.dry)
    rows, columns = grow(view.rows, view.halo), grow(view.columns, view.halo)
    y, x = (truth.pixel_centres(span) * view.plan.resolution for span in (rows, columns))
    drift = value_noise(y, x, 1500.0, view.plan.seed + 3001 + scene).astype(np.float32)
    level = level + np.float32(1.4) * drift + np.float32(weather.moisture) * wetness * view.ground
    # wind roughens open water, and gusts have scales of a kilometre; ice on lakes keeps wind out in frost
    gust = np.float32(weather.wind) + np.float32(4.0) * drift
    open_water = (view.surface == Surface.SEA) | ((view.surface == Surface.LAKE) & (wetness > 0.5))
    level = level + np.where(open_water, gust, np.float32(0))
    pack = view.surface == Surface.MELANGE
    if pack.any():
        # bergs move from date to date, and in the melt season water opens between them
        bergs = value_noise(y, x, 130.0, view.plan.seed + 3_000_017 + scene).astype(np.float32)
        level = level + pack * (np.float32(4.0) * bergs - np.float32(3.0) * wetness * (bergs < 0))
    if polarisation != "HH":
        level = level + view.table["vertical" if polarisation == "VV" else "cross"][view.surface]
    return np.asarray(level + (view.angular if flattened else view.geometry) + np.float32(weather.offset), np.float32)


def _speckle(
    view: Scenery,
    scene: int,
    platform: str,
    polarisation: str,
    share: Float32Array,
    kernels: tuple[Float64Array, Float64Array],
) -> Float32Array:
    """Return multiplicative speckle of mean 1: gamma distributed with the sensor's looks.

    Gamma variates are made from correlated Gaussian ones by the cube-root transform (Wilson and Hilferty 1931, PNAS
    17). `share`, the squared coherence that lasts, says how much of the field is the same at every date: intensities of
    circular Gaussian fields correlate by the squared magnitude of their coherence (Goodman 2007, Speckle Phenomena in
    Optics). Channels have speckle of their own, as where co- and cross-polarised waves are uncorrelated (Nghiem et al.
    1992, Radio Sci. 27).
    """
    channel = () if polarisation in ("HH", "VV") else (1,)
    known = view.kept.get((platform, polarisation))
    if known is None:
        known = correlated((view.plan.seed, _MEMORY, *channel), view.rows, view.columns, *kernels)
        view.kept[platform, polarisation] = known
    fresh = correlated((view.plan.seed, _SPECKLE, scene, *channel), view.rows, view.columns, *kernels)
    normal = np.asarray(np.sqrt(share) * known + np.sqrt(1 - share) * fresh, np.float32)
    return _gamma(normal, view.sensor.looks) / np.float32(view.sensor.looks)


def _gamma(normal: Float32Array, shape: float) -> Float32Array:
    """Return gamma variates of the given shape and unit scale from standard normal ones (Wilson and Hilferty 1931)."""
    root = np.float32(1 - 1 / (9 * shape)) + normal * np.float32(1 / (3 * math.sqrt(shape)))
    root = np.maximum(root, np.float32(0.05))
    return np.asarray(np.float32(shape) * root * root * root, np.float32)


def coherence(
    view: Scenery, first: Weather, second: Weather, pair: int, platform: str, baseline: float
) -> Float32Array:
    """Return the coherence estimate of one pair over a block, 0..1, `(y, x)` float32, rounded to 2**-10.

    Parameters
    ----------
    view
        The block in the year of the pair.
    first, second
        States of both dates.
    pair
        Number of the pair, for its own noise.
    platform
        Satellite of both scenes, which has a geolocation offset of its own.
    baseline
        Temporal baseline, days: coherence fades with exp(-days / tau) (form of Rocca 2007, IEEE TGRS 45) to the part
        that lasts.

    Notes
    -----
    Melt at either date takes coherence away, and so does thermal noise (Zebker and Villasenor 1992, IEEE TGRS 30). The
    estimate is the magnitude of the sample coherence of L looks, drawn from its exact distribution, so that it is noisy
    and biased upwards where coherence is low (Touzi et al. 1999, IEEE TGRS 37).
    """
    wet = np.maximum(_melt(view.height, first)[0], _melt(view.height, second)[0])
    true = view.cold + wet * (view.melt - view.cold)
    # the table holds 12-day values
    faded = np.float32(math.exp(-(baseline - 12.0) / _FADING))
    true = true * (view.lasting + (1 - view.lasting) * faded) * np.float32(0.5 * (first.stability + second.stability))
    floor = np.float32(10 ** (view.sensor.noise_floor / 10))
    power = np.exp((view.dry + view.geometry) * np.float32(math.log(10) / 10), dtype=np.float32)
    true = np.where(view.shadow | view.layover, np.float32(0.03), true * power / (power + floor))
    down, across = (box_kernel(view.sensor.window, s) for s in _offset(view, platform))
    true = smooth(_trim(true, view.halo - down.size // 2), down, across)
    return _round(_sample_coherence(np.clip(true, 0.01, 0.97), view, pair, (down, across)), STEP_COHERENCE)


def _sample_coherence(
    true: Float32Array, view: Scenery, pair: int, box: tuple[Float64Array, Float64Array]
) -> Float32Array:
    """Return one draw of the sample coherence magnitude for each true coherence.

    Given the power g1 of the first image over L looks, the second is the part that repeats plus an independent part;
    projecting the latter on the first image leaves a complex normal n and a remainder g2 with L - 1 looks.
    """
    looks = view.sensor.coherence_looks
    real, imaginary, first, rest = (
        correlated((view.plan.seed, _PAIR, pair, part), view.rows, view.columns, *box) for part in range(4)
    )
    g1, g2 = _gamma(first, looks), _gamma(rest, looks - 1)
    lost = 1 - true * true
    scale = np.sqrt(lost / 2)
    along = (true * np.sqrt(g1) + scale * real) ** 2 + (scale * imaginary) ** 2
    return np.asarray(np.sqrt(along / (along + lost * g2)), np.float32)


def _trim(values: Float32Array, by: int) -> Float32Array:
    height, width = values.shape
    return np.ascontiguousarray(values[by : height - by, by : width - by], np.float32)


def _round(values: NDArray[np.floating], step: float) -> Float32Array:
    return np.asarray(np.rint(values / np.float32(step)) * np.float32(step), np.float32)
