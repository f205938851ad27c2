"""Making a simulated region: its parameters, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.errors import GridError, InputError, did_you_mean
from icemap_xr.grid import RegionGrid
from icemap_xr.simulate.acquisitions import POLARISATIONS
from icemap_xr.simulate.parameters import Landscape, Sensor
from icemap_xr.simulate.simulated import SimulatedRegion

FEATURES = ("grd", "rtc", "insar")


def region(
    *,
    size_km: float | tuple[float, float] = (6.0, 6.0),
    years: Sequence[int] = (2020, 2021, 2022),
    seed: int = 0,
    steps: int = 15,
    resolution: float = 10.0,
    crs: str = "EPSG:32633",
    origin: tuple[float, float] = (500_000.0, 8_700_000.0),
    features: Sequence[str] = ("grd", "insar"),
    polarisations: Sequence[str] = ("HH",),
    repeat_days: int = 24,
    baseline_days: int = 12,
    missing: float = 0.0,
    shift: float = 0.0,
    landscape: Landscape | None = None,
    sensor: Sensor | None = None,
) -> SimulatedRegion:
    """Simulate a glacier region with exactly known truth.

    The same arguments always give the same bytes, and any block equals the same part of the whole.

    Parameters
    ----------
    size_km
        Extent from north to south and from west to east, km; a multiple of the pixel. One number for a square.
    years
        Calendar years, 2015 or later, in any order, each once. Glaciers change from the earliest on.
    seed
        Number of the region, 0 or more.
    steps
        Scenes per year and feature.
    resolution
        Pixel size, m.
    crs
        Projected CRS in metres.
    origin
        Upper left corner (x, y) in the CRS, a multiple of the pixel.
    features
        Of ``"grd"``, ``"rtc"`` (dB) and ``"insar"`` (coherence).
    polarisations
        ``("HH",)``, ``("VV",)``, ``("HH", "HV")`` or ``("VV", "VH")``. Coherence is that of the first.
    repeat_days
        Days between scenes, a multiple of 12; `steps` of them must fit in a year. In years with two satellites, which
        take turns half a cycle apart, it is the mean spacing.
    baseline_days
        Days between the two dates of a pair, a multiple of 12.
    missing
        Probability that an acquisition is missing, 0..1.
    shift
        How far the radar properties of each class are moved from their standard values, at random by seed: 0 not at
        all, 1 by about 0.8 dB and 0.03 of coherence.
    landscape
        What the land looks like: ice cover (0 none, 1 everything), debris, snow patches, relief, calving fronts, and
        change: thinning, surge, lake.
    sensor
        Geometry, resolution, looks and noise.

    Raises
    ------
    GridError
        Size or origin is not a positive multiple of the pixel, or the CRS cannot be used.
    InputError
        Another argument is not allowed.
    """
    grid = _grid(size_km, resolution, crs, origin)
    chosen = _years(years)
    names, channels = _features(features), _polarisations(polarisations)
    _whole("seed", seed)
    _whole("steps", steps)
    if seed < 0:
        raise InputError(f"seed {seed} is not allowed: give 0 or more")
    if not (math.isfinite(shift) and shift >= 0):
        raise InputError(f"shift {shift} is not allowed: give 0 or more")
    if not 0 <= missing <= 1:
        raise InputError(f"missing {missing} is not a probability: give 0..1")
    _check_dates(steps, repeat_days, baseline_days)
    seen_by = _sensor(sensor or Sensor())
    return SimulatedRegion(
        grid=grid,
        years=chosen,
        seed=seed,
        steps=steps,
        features=names,
        polarisations=channels,
        repeat_days=repeat_days,
        baseline_days=baseline_days,
        missing=missing,
        shift=shift,
        landscape=_landscape(landscape or Landscape()),
        sensor=seen_by,
    )


def _grid(size_km: float | tuple[float, float], resolution: float, crs: str, origin: tuple[float, float]) -> RegionGrid:
    if not 0 < resolution < math.inf:
        raise GridError(f"resolution {resolution} is not allowed: give a pixel size > 0 in metres")
    sizes = size_km if isinstance(size_km, tuple) else (size_km, size_km)
    shape = []
    for size in sizes:
        pixels = round(size * 1000 / resolution) if math.isfinite(size) else 0
        if pixels < 1 or abs(pixels * resolution - size * 1000) > 1e-6 * resolution:
            raise GridError(f"size_km {size} is not a positive multiple of the pixel ({resolution} m): round it")
        shape.append(pixels)
    for value in origin:
        if abs(round(value / resolution) * resolution - value) > 1e-6 * resolution:
            raise GridError(f"origin {origin} is not a multiple of the pixel ({resolution} m): round it")
    try:
        geobox = GeoBox((shape[0], shape[1]), Affine(resolution, 0, origin[0], 0, -resolution, origin[1]), crs)
    except Exception as error:
        raise GridError(f"crs {crs!r} is not known: give for example 'EPSG:32633' ({error})") from error
    return RegionGrid(geobox)


def _features(features: Sequence[str]) -> tuple[str, ...]:
    names = tuple(features)
    for name in names:
        if name not in FEATURES:
            raise InputError(
                f"feature {name!r} cannot be simulated: allowed are {', '.join(FEATURES)}{did_you_mean(name, FEATURES)}"
            )
    if not names or len(set(names)) != len(names):
        raise InputError(f"features {names} must name one or more of {', '.join(FEATURES)}, each once")
    return names


def _polarisations(polarisations: Sequence[str]) -> tuple[str, ...]:
    channels = tuple(polarisations)
    if channels not in POLARISATIONS:
        allowed = ", ".join(str(one) for one in POLARISATIONS)
        raise InputError(f"polarisations {channels} cannot be simulated: give one of {allowed}")
    return channels


def _years(years: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(sorted(years))
    if not chosen:
        raise InputError("years is empty: give at least one, for example (2020, 2021, 2022)")
    if len(set(chosen)) != len(chosen):
        raise InputError(f"years {chosen} holds one twice: give each once")
    if not 2015 <= chosen[0] <= chosen[-1] <= 2100:
        raise InputError(f"years {chosen} are not allowed: Sentinel-1 flies from 2015 on; give 2015 to 2100")
    return chosen


def _check_dates(steps: int, repeat_days: int, baseline_days: int) -> None:
    for name, value in (("repeat_days", repeat_days), ("baseline_days", baseline_days)):
        if value < 12 or value % 12:
            raise InputError(f"{name} {value} is not allowed: give a positive multiple of 12, the orbit's repeat cycle")
    if steps < 1 or steps * repeat_days > 366:
        raise InputError(
            f"{steps} steps of {repeat_days} days do not fit in a year: give 1 to {366 // repeat_days} steps"
        )


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or value != int(value):
        raise InputError(f"{name} {value!r} is not allowed: give a whole number")


def _finite(what: object, **least_most: tuple[float, float]) -> None:
    """Refuse numbers that are not finite, or outside their bounds where these are given."""
    for name, value in vars(what).items():
        if isinstance(value, bool):
            continue
        low, high = least_most.get(name, (-math.inf, math.inf))
        if not (math.isfinite(value) and low <= value <= high):
            raise InputError(f"{name} {value} is not allowed: give a number from {low:g} to {high:g}")


def _landscape(land: Landscape) -> Landscape:
    share = (0.0, 1.0)
    _finite(
        land,
        ice_cover=share,
        debris_cover=share,
        snow_patch_cover=share,
        relief=(0.0, 9000.0),
        thinning=(0.0, 1000.0),
    )
    return land


def _sensor(sensor: Sensor) -> Sensor:
    _finite(sensor)
    _whole("window of the sensor", sensor.window)
    if sensor.window < 1 or sensor.window % 2 == 0:
        raise InputError(f"window {sensor.window} of the sensor is not allowed: give an odd number of pixels")
    if not 20 <= sensor.incidence <= 50:
        raise InputError(f"incidence {sensor.incidence} of the sensor is not allowed: give 20 to 50 degrees")
    if not (sensor.resolution > 0 and sensor.looks >= 1 and sensor.coherence_looks > 1 and sensor.border_noise >= 0):
        raise InputError("resolution must be > 0, looks >= 1, coherence_looks > 1 and border_noise >= 0: check them")
    return sensor
