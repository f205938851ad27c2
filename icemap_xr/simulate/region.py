"""A simulated glacier region: its truth, its scenes, and both as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.errors import GridError, InputError, did_you_mean
from icemap_xr.grid import RegionGrid
from icemap_xr.progress import Advance
from icemap_xr.simulate import scatter, truth
from icemap_xr.simulate.acquisitions import Acquisition, acquisitions
from icemap_xr.simulate.noise import Float32Array
from icemap_xr.simulate.parameters import Landscape, Sensor, Surface
from icemap_xr.simulate.season import weather
from icemap_xr.simulate.terrain import Layout, layout
from icemap_xr.types import StrPath

FEATURES = ("grd", "rtc", "insar")
#: rows that are simulated at a time, to bound memory
_BAND = 512


@dataclass(frozen=True)
class SimulatedRegion:
    """A region whose glaciers are known exactly; nothing is computed before it is asked for.

    Made by `region`, which explains and checks the parameters.
    """

    grid: RegionGrid
    years: tuple[int, ...]
    seed: int
    steps: int
    features: tuple[str, ...]
    repeat_days: int
    baseline_days: int
    missing: float
    shift: float
    landscape: Landscape
    sensor: Sensor

    @cached_property
    def _plan(self) -> Layout:
        span = max(self.years) - min(self.years) + 1
        return layout(self.grid.shape, self.grid.resolution, span, self.seed, self.landscape)

    def _state(self, year: int) -> int:
        return year - min(self.years)

    @property
    def _whole(self) -> tuple[slice, slice]:
        return slice(0, self.grid.shape[0]), slice(0, self.grid.shape[1])

    def truth(self) -> xr.Dataset:
        """Return what is really there.

        Returns
        -------
        Dataset
            `glacier_fraction (year, y, x)` float32, the share of the pixel that is glacier, exact;
            `surface (year, y, x)` uint8, the class at the pixel's centre (attrs `flag_meanings`; glacier from 6 on);
            `dem (y, x)` float32, m above sea.
        """
        fraction = [
            truth.fraction(truth.glacier_function(self._plan, self._state(y), *self._whole)) for y in self.years
        ]
        surface = [truth.classes(self._plan, self._state(y), *self._whole) for y in self.years]
        dem = truth.elevation(self._plan, *self._whole).astype(np.float32)
        meanings = " ".join(one.name.lower() for one in Surface)
        flags = {"flag_values": np.arange(len(Surface), dtype=np.uint8), "flag_meanings": meanings}
        cube = (schema.YEAR, schema.Y, schema.X)
        return xr.Dataset(
            {
                "glacier_fraction": (
                    cube,
                    np.stack(fraction),
                    {"units": "1", "long_name": "glacier share of the pixel"},
                ),
                "surface": (cube, np.stack(surface), {"long_name": "surface class at the pixel centre", **flags}),
                "dem": ((schema.Y, schema.X), dem, {"units": "m", "long_name": "elevation above sea"}),
            },
            coords={schema.YEAR: list(self.years), **self.grid.coords()},
        )

    def outlines(self) -> gpd.GeoDataFrame:
        """Return the exact glacier outlines: one row per year with `year`, `area_km2`, `geometry`."""
        transform = tuple(self.grid.geobox.transform)
        shapes = [
            truth.outline(truth.glacier_function(self._plan, self._state(y), *self._whole), transform)
            for y in self.years
        ]
        areas = [shape.area / 1e6 for shape in shapes]
        return gpd.GeoDataFrame({"year": list(self.years), "area_km2": areas}, geometry=shapes, crs=self.grid.crs)

    def areas(self) -> pd.DataFrame:
        """Return the true glacier area: `year`, `area_km2` (planar); equal to the area of the outlines."""
        return pd.DataFrame(self.outlines().drop(columns="geometry"))

    def acquisitions(self, feature: str) -> list[Acquisition]:
        """Return the acquisitions of a feature, by time."""
        self._check_feature(feature)
        return acquisitions(
            feature, self.years, self.steps, self.repeat_days, self.baseline_days, self.missing, self.seed
        )

    def scene(self, feature: str, k: int, rows: slice | None = None, columns: slice | None = None) -> Float32Array:
        """Return a block of one acquisition, exactly equal to the same part of the whole scene.

        Parameters
        ----------
        feature
            ``"grd"`` (sigma zero), ``"rtc"`` (gamma zero, terrain flattened), both dB, or ``"insar"`` (coherence).
        k
            Number of the acquisition in `acquisitions(feature)`.
        rows, columns
            The block, in pixels from the region's upper left corner; everything by default.

        Returns
        -------
        array
            `(y, x)` float32; NaN throughout where the acquisition is missing.

        Raises
        ------
        InputError
            There is no such feature, acquisition or block.
        """
        known = self.acquisitions(feature)
        if not 0 <= k < len(known):
            raise InputError(f"acquisition {k} does not exist: {feature!r} has 0 to {len(known) - 1}")
        block = self._span(rows, 0), self._span(columns, 1)
        view = scatter.scenery(self._plan, self._state(known[k].year), *block, self.shift, self.sensor)
        return self._look(view, known[k])

    def yearly(self, *features: str) -> xr.Dataset:
        """Return the model view: each feature `(year, step, y, x)` float32 in dB or 1, with `<feature>_time`.

        Parameters
        ----------
        features
            Which features; all of the region by default.
        """
        out = xr.Dataset(coords={schema.YEAR: list(self.years), **self.grid.coords()})
        for name in features or self.features:
            known, one = self.acquisitions(name), schema.feature(name)
            values = np.stack([self.year_series(name, year) for year in self.years])
            attrs = {"units": one.units, "long_name": one.long_name, "polarisation": known[0].polarisation}
            out[name] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), values, attrs)
            times = [
                [np.datetime64(a.time.replace(tzinfo=None), "ns") for a in known if a.year == y] for y in self.years
            ]
            out = out.assign_coords({one.time: ((schema.YEAR, schema.STEP), np.array(times))})
        return out

    def year_series(self, feature: str, year: int) -> Float32Array:
        """Return all acquisitions of a feature in one year, `(step, y, x)` float32."""
        known = [one for one in self.acquisitions(feature) if one.year == year]
        out = np.empty((len(known), *self.grid.shape), np.float32)
        for top in range(0, self.grid.shape[0], _BAND):
            rows = slice(top, min(top + _BAND, self.grid.shape[0]))
            view = scatter.scenery(self._plan, self._state(year), rows, self._whole[1], self.shift, self.sensor)
            for step, one in enumerate(known):
                out[step, rows] = self._look(view, one)
        return out

    def write(self, folder: StrPath, progress: Advance | None = None) -> Path:
        """Write scenes as Cloud-Optimized GeoTIFFs with a STAC catalogue, and the truth beside them.

        The folder appears under its name only when it is complete. One year of one feature is held in memory at a time.

        Parameters
        ----------
        folder
            A folder that does not exist, or is empty.
        progress
            Called with 1 after each of the `len(features) * len(years) * steps` scenes.

        Returns
        -------
        Path
            The catalogue, `catalog.json`.

        Raises
        ------
        OutputExistsError
            The folder is not empty.
        StoreError
            The files could not be written, for example because the disk is full.
        """
        # imported here so that simulating arrays needs neither rasterio nor pystac
        from icemap_xr.simulate.writer import write_region

        return write_region(self, Path(folder), progress)

    def _look(self, view: scatter.Scenery, one: Acquisition) -> Float32Array:
        shape = (view.rows.stop - view.rows.start, view.columns.stop - view.columns.start)
        if one.missing:
            return np.full(shape, np.nan, np.float32)
        first = weather(one.time, one.platform, self.seed, one.number)
        if one.second_time is None:
            return scatter.backscatter(view, first, one.number, flattened=one.feature == "rtc")
        # the second date of a pair has weather of its own, which no scene of the series shares
        second = weather(one.second_time, one.platform, self.seed, one.number + 10_000_000)
        return scatter.coherence(view, first, second, one.number, float(one.baseline_days or 0))

    def _span(self, span: slice | None, axis: int) -> slice:
        size = self.grid.shape[axis]
        start, stop, step = (span or slice(None)).indices(size)
        if step != 1 or stop <= start:
            raise InputError(f"{span} is no block of an axis of {size} pixels: give slice(start, stop) inside it")
        return slice(start, stop)

    def _check_feature(self, feature: str) -> None:
        if feature not in self.features:
            raise InputError(
                f"the region has no feature {feature!r}: it was made with {', '.join(self.features)}"
                f"{did_you_mean(feature, self.features)}"
            )


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
    repeat_days
        Days between scenes, a multiple of 12; `steps` of them must fit in a year.
    baseline_days
        Days between the two dates of a pair, a multiple of 12.
    missing
        Probability that an acquisition is missing, 0..1.
    shift
        How far the radar properties of each class are moved from their standard values, at random by seed: 0 not at
        all, 1 by about 0.8 dB and 0.03 of coherence.
    landscape
        What the land looks like: ice cover (0 none, 1 everything), debris, snow patches, relief, thinning, surge, lake.
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
    names = tuple(features)
    for name in names:
        if name not in FEATURES:
            raise InputError(
                f"feature {name!r} cannot be simulated: allowed are {', '.join(FEATURES)}{did_you_mean(name, FEATURES)}"
            )
    if not names or len(set(names)) != len(names):
        raise InputError(f"features {names} must name one or more of {', '.join(FEATURES)}, each once")
    if seed < 0:
        raise InputError(f"seed {seed} is not allowed: give 0 or more")
    if not 0 <= missing <= 1:
        raise InputError(f"missing {missing} is not a probability: give 0..1")
    _check_dates(steps, repeat_days, baseline_days)
    return SimulatedRegion(
        grid=grid,
        years=chosen,
        seed=seed,
        steps=steps,
        features=names,
        repeat_days=repeat_days,
        baseline_days=baseline_days,
        missing=missing,
        shift=shift,
        landscape=landscape or Landscape(),
        sensor=sensor or Sensor(),
    )


def _grid(size_km: float | tuple[float, float], resolution: float, crs: str, origin: tuple[float, float]) -> RegionGrid:
    if not resolution > 0:
        raise GridError(f"resolution {resolution} is not allowed: give a pixel size > 0 in metres")
    sizes = size_km if isinstance(size_km, tuple) else (size_km, size_km)
    shape = []
    for size in sizes:
        pixels = round(size * 1000 / resolution)
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
