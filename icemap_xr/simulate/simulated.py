"""A simulated glacier region: its truth, its scenes, and both as files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import pairwise, product
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from numpy.typing import NDArray

from icemap_xr.errors import InputError, did_you_mean
from icemap_xr.grid import RegionGrid
from icemap_xr.progress import Advance
from icemap_xr.simulate import lazy, scatter, truth
from icemap_xr.simulate.acquisitions import Acquisition, acquisitions
from icemap_xr.simulate.noise import Float32Array
from icemap_xr.simulate.parameters import Landscape, Sensor
from icemap_xr.simulate.season import weather
from icemap_xr.simulate.terrain import Layout, layout
from icemap_xr.types import StrPath

#: rows and columns that are simulated at a time, to bound memory
BLOCK = (512, 1024)
#: Dask gives every task a copy of its region; copies share the layout, which two threads shall not make at once
_ONE_LAYOUT = Lock()
_layout = lru_cache(maxsize=2)(layout)


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
    polarisations: tuple[str, ...]
    repeat_days: int
    baseline_days: int
    missing: float
    shift: float
    landscape: Landscape
    sensor: Sensor

    @cached_property
    def _plan(self) -> Layout:
        span = max(self.years) - min(self.years) + 1
        with _ONE_LAYOUT:
            return _layout(self.grid.shape, self.grid.resolution, span, self.seed, self.landscape, self.sensor)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the layout out: a worker process makes its own once instead of receiving it with every task."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    def _state(self, year: int) -> int:
        return year - min(self.years)

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Yield the blocks, as rows and columns, in which the region is made; from the upper left corner."""
        yield from product(*self.spans())

    def spans(self) -> tuple[list[slice], list[slice]]:
        """Return the rows and the columns of the blocks."""
        down, across = (
            [slice(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip(self.grid.shape, BLOCK, strict=True)
        )
        return down, across

    def truth(self) -> xr.Dataset:
        """Return what is really there, lazy: one task per block; `.compute()` gives the values.

        Returns
        -------
        Dataset
            `glacier_fraction (year, y, x)` float32, the share of the pixel that is glacier, exact;
            `surface (year, y, x)` uint8, the class at the pixel's centre (attrs `flag_meanings`; glacier from 7 on);
            `glacier_id (y, x)` int32, the glacier at the pixel's centre, the same in all years; 0 where none has ice;
            `dem (y, x)` float32, m above sea, of the first year.
        """
        return lazy.truth_dataset(self)

    def fraction(self, year: int, rows: slice, columns: slice) -> Float32Array:
        """Return the glacier share of each pixel of a block."""
        return truth.fraction(truth.glacier_function(self._plan, self._state(year), rows, columns))

    def surface(self, year: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Return the class at each pixel's centre of a block."""
        return truth.classes(self._plan, self._state(year), rows, columns)

    def dem(self, rows: slice, columns: slice) -> Float32Array:
        """Return the elevation of a block, m above sea."""
        return truth.elevation(self._plan, rows, columns).astype(np.float32)

    def glacier_id(self, rows: slice, columns: slice) -> NDArray[np.int32]:
        """Return the number of the glacier at each pixel of a block, 0 where no year has ice."""
        ever = np.any([self.fraction(year, rows, columns) > 0 for year in self.years], axis=0)
        found = self._plan.glacier_at(truth.pixel_centres(rows), truth.pixel_centres(columns))
        return np.where(ever, found, 0).astype(np.int32)

    def outlines(self) -> gpd.GeoDataFrame:
        """Return the exact glacier outlines: one row per year with `year`, `area_km2`, `geometry`."""
        a, b, c, d, e, f = tuple(self.grid.geobox.transform)[:6]
        shapes = []
        for year in self.years:
            parts = []
            for rows, columns in self.blocks():
                function = truth.glacier_function(self._plan, self._state(year), rows, columns)
                corner = (a, b, c + a * columns.start, d, e, f + e * rows.start)
                parts += list(truth.outline(function, corner).geoms)
            shapes.append(truth.join(parts))
        areas = [shape.area / 1e6 for shape in shapes]
        return gpd.GeoDataFrame({"year": list(self.years), "area_km2": areas}, geometry=shapes, crs=self.grid.crs)

    def divides(self) -> gpd.GeoDataFrame:
        """Return the ice divides: a row per pair of glaciers with `glacier_a`, `glacier_b`, `length_km`, `geometry`.

        Divides run along pixel edges, between pixels that some year has ice on.
        """
        ids = np.empty(self.grid.shape, np.int32)
        for block in self.blocks():
            ids[block] = self.glacier_id(*block)
        pairs, lines = truth.divides(ids, tuple(self.grid.geobox.transform))
        columns = {"glacier_a": pairs[:, 0], "glacier_b": pairs[:, 1], "length_km": shapely.length(lines) / 1e3}
        return gpd.GeoDataFrame(columns, geometry=lines, crs=self.grid.crs)

    def areas(self, by: Literal["glacier"] | None = None) -> pd.DataFrame:
        """Return the true glacier area: `year`, `area_km2` (planar); equal to the area of the outlines.

        Parameters
        ----------
        by
            ``"glacier"`` for one row per year and glacier, with `glacier_id`: sums of the exact pixel shares.
        """
        if by is None:
            return pd.DataFrame(self.outlines().drop(columns="geometry"))
        if by != "glacier":
            raise InputError(f"areas by {by!r} are not known: give 'glacier', or nothing for the whole region")
        sums: list[dict[int, float]] = [{} for _ in self.years]
        for block in self.blocks():
            ids = self.glacier_id(*block).ravel()
            for k, year in enumerate(self.years):
                total = np.bincount(ids, self.fraction(year, *block).ravel().astype(np.float64))
                for one in np.unique(ids[ids > 0]).tolist():
                    sums[k][one] = sums[k].get(one, 0.0) + float(total[one])
        cell = self.grid.pixel_area_km2
        rows = [(y, one, total[one] * cell) for y, total in zip(self.years, sums, strict=True) for one in sorted(total)]
        return pd.DataFrame(rows, columns=["year", "glacier_id", "area_km2"])

    def changes(self) -> pd.DataFrame:
        """Return the true change between successive years, to the pixel: `from`, `to`, `gain_km2`, `loss_km2`.

        A pixel whose glacier share grows counts as gain, by as much as it grows; the difference is `change_km2`.
        """
        totals = np.zeros((len(self.years) - 1, 2))
        for block in self.blocks():
            shares = [self.fraction(year, *block).astype(np.float64) for year in self.years]
            for k, (before, after) in enumerate(pairwise(shares)):
                grown = after - before
                totals[k] += grown[grown > 0].sum(), -grown[grown < 0].sum()
        gain, loss = (totals * self.grid.pixel_area_km2).T
        columns = {"from": self.years[:-1], "to": self.years[1:], "gain_km2": gain, "loss_km2": loss}
        return pd.DataFrame(columns | {"change_km2": gain - loss})

    def acquisitions(self, feature: str) -> list[Acquisition]:
        """Return the acquisitions of a feature, by time."""
        if feature not in self.features:
            raise InputError(
                f"the region has no feature {feature!r}: it was made with {', '.join(self.features)}"
                f"{did_you_mean(feature, self.features)}"
            )
        return acquisitions(
            feature,
            self.years,
            self.steps,
            repeat_days=self.repeat_days,
            baseline_days=self.baseline_days,
            missing=self.missing,
            seed=self.seed,
            polarisations=self.polarisations,
        )

    def scene(
        self,
        feature: str,
        k: int,
        rows: slice | None = None,
        columns: slice | None = None,
        *,
        polarisation: str | None = None,
    ) -> Float32Array:
        """Return a block of one acquisition, exactly equal to the same part of the whole scene.

        Parameters
        ----------
        feature
            ``"grd"`` (sigma zero), ``"rtc"`` (gamma zero, terrain flattened), both dB, or ``"insar"`` (coherence).
        k
            Number of the acquisition in `acquisitions(feature)`.
        rows, columns
            The block, in pixels from the region's upper left corner; everything by default.
        polarisation
            Channel of the region; the first by default, and the only one of coherence.

        Returns
        -------
        array
            `(y, x)` float32; NaN throughout where the acquisition is missing.

        Raises
        ------
        InputError
            There is no such feature, acquisition, block or polarisation.
        """
        known = self.acquisitions(feature)
        if not 0 <= k < len(known):
            raise InputError(f"acquisition {k} does not exist: {feature!r} has 0 to {len(known) - 1}")
        return self.look(self.view(known[k].year, self._span(rows, 0), self._span(columns, 1)), known[k], polarisation)

    def yearly(self, *features: str) -> xr.Dataset:
        """Return the model view: each feature `(year, step, y, x)` float32 in dB or 1, with `<feature>_time`; lazy.

        Parameters
        ----------
        features
            Which features, in the first polarisation; all of the region by default.
        """
        return lazy.model_view(self, features or self.features)

    def year_series(self, feature: str, year: int, *, polarisation: str | None = None) -> Float32Array:
        """Return all acquisitions of a feature in one year, `(step, y, x)` float32."""
        known = [one for one in self.acquisitions(feature) if one.year == year]
        out = np.empty((len(known), *self.grid.shape), np.float32)
        for block in self.blocks():
            view = self.view(year, *block)
            for step, one in enumerate(known):
                out[step, *block] = self.look(view, one, polarisation)
        return out

    def view(self, year: int, rows: slice, columns: slice) -> scatter.Scenery:
        """Return what a block looks like to the radar in a year, apart from date and noise."""
        return scatter.scenery(self._plan, self._state(year), rows, columns, self.shift, self.sensor)

    def look(self, view: scatter.Scenery, one: Acquisition, polarisation: str | None = None) -> Float32Array:
        """Return one acquisition of the block that `view` shows; see `scene`."""
        channel = polarisation or one.polarisation
        if channel not in one.polarisations:
            raise InputError(f"{one.feature!r} has no polarisation {channel!r}: it has {', '.join(one.polarisations)}")
        if one.missing:
            return np.full(
                (view.rows.stop - view.rows.start, view.columns.stop - view.columns.start), np.nan, np.float32
            )
        first = weather(one.time, one.platform, self.seed, one.number)
        if one.second_time is None:
            flat = one.feature == "rtc"
            return scatter.backscatter(view, first, one.number, one.platform, flattened=flat, polarisation=channel)
        # the second date of a pair has weather of its own, which no scene of the series shares
        second = weather(one.second_time, one.platform, self.seed, one.number + 10_000_000)
        return scatter.coherence(view, first, second, one.number, one.platform, float(one.baseline_days or 0))

    def write(self, folder: StrPath, progress: Advance | None = None, *, workers: int = 2) -> Path:
        """Write scenes as Cloud-Optimized GeoTIFFs with a STAC catalogue, and the truth beside them.

        The folder appears under its name only when it is complete. Only blocks are held in memory; the scenes of one
        year lie uncompressed on the disk for a while.

        Parameters
        ----------
        folder
            A folder that does not exist, or is empty.
        progress
            Called with numbers of scenes that add up to `len(features) * len(years) * steps`.
        workers
            Threads that simulate and compress; the files do not depend on it.

        Returns
        -------
        Path
            The catalogue, `catalog.json`.

        Raises
        ------
        InputError
            There is no acquisition to write, or no worker.
        OutputExistsError
            The folder is not empty.
        StoreError
            The files could not be written, for example because the disk is full.
        """
        # imported here so that simulating arrays needs neither rasterio nor pystac
        from icemap_xr.simulate.writer import write_region

        return write_region(self, Path(folder), progress, workers)

    def _span(self, span: slice | None, axis: int) -> slice:
        size = self.grid.shape[axis]
        start, stop, step = (span or slice(None)).indices(size)
        if step != 1 or stop <= start:
            raise InputError(f"{span} is no block of an axis of {size} pixels: give slice(start, stop) inside it")
        return slice(start, stop)
