"""Offsets between satellites: found over stable ground, reported, and taken away only where asked for.

Sentinel-1A, B, C and D are calibrated each for itself, so one may see the same ground a few tenths of a dB brighter
than another; a year with more scenes of the one then differs from a year with more of the other. Cubes keep satellites
apart and change nothing. This module measures the offset of each feature in dB and, asked to, takes it from a view.

The offset of a platform is the median of the differences between each of its scenes and the mean of the reference
platform's scenes at most `window_days` away; of a scene the median over stable ground counts (bare rock, say, neither
ice nor snow nor water). Snow and moisture change within days, so the differences scatter; `standard_error_db` says how
well the median is known.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import xarray as xr
from dask.base import compute
from dask.delayed import delayed
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask
from icemap_xr.types import StrPath

#: pixels of stable ground that a scene must have seen
_LEAST = 50
#: differences from which an offset follows
_PAIRS = 3
#: standard error of a median of normal values, from their median absolute deviation
_ERROR = 1.2533 * 1.4826


@dataclass(frozen=True)
class PlatformOffset:
    """How much brighter a platform sees stable ground than the reference platform.

    Parameters
    ----------
    feature, platform, reference
        What is compared.
    offset_db
        Platform minus reference, dB; NaN where there are too few pairs.
    standard_error_db
        Of the offset, from the scatter of the differences, dB; NaN likewise.
    pairs
        Scenes of the platform that have one of the reference near in time.
    scenes
        Scenes of the platform.
    """

    feature: str
    platform: str
    reference: str
    offset_db: float
    standard_error_db: float
    pairs: int
    scenes: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def platform_offsets(
    cube: xr.Dataset,
    stable: StrPath | gpd.GeoDataFrame | xr.DataArray,
    *,
    reference: str | None = None,
    window_days: float = 13.0,
) -> list[PlatformOffset]:
    """Measure the offsets of a cube's platforms over stable ground.

    Parameters
    ----------
    cube
        Native cube of `open_cube`.
    stable
        Stable ground: a vector or raster file or polygons (`icemap_xr.ground.ground_mask`), or a boolean `(y, x)`.
    reference
        Platform that the others are compared with; by default the one with most scenes of a feature.
    window_days
        Largest distance in time between two scenes that are compared.

    Returns
    -------
    list of PlatformOffset
        One for each feature in dB and each platform but the reference.

    Raises
    ------
    InputError
        The mask marks nothing, or the reference is no platform of the cube.
    SchemaError
        The dataset is no cube with platforms.
    """
    names = schema.validate_cube(cube, "platform_offsets")
    inside = _stable(stable, cube)
    found = []
    for name in names:
        one = schema.feature(name)
        if one.units != "dB":
            continue
        if f"{name}_platform" not in cube:
            raise SchemaError(f"the cube has no {name}_platform: it was not built from a catalogue")
        platforms = np.array([str(value) for value in cube[f"{name}_platform"].values])
        main = reference or _most(platforms)
        if main not in platforms:
            raise InputError(f"no {name} scene is of {main}: its platforms are {', '.join(sorted(set(platforms)))}")
        levels, times = _levels(cube[name], inside), cube[one.time].values
        for platform in sorted(set(platforms) - {main}):
            differences = _differences(levels, times, platforms == platform, platforms == main, window_days)
            counts = len(differences), int((platforms == platform).sum())
            found.append(PlatformOffset(name, platform, main, *_median(differences), *counts))
    return found


def harmonise(cube: xr.Dataset, offsets: list[PlatformOffset]) -> xr.Dataset:
    """Return the cube with the offsets of its platforms taken away; lazy, and what is stored stays as it is.

    Parameters
    ----------
    cube
        Native cube.
    offsets
        What `platform_offsets` found, for all its platforms.

    Returns
    -------
    xarray.Dataset
        The cube, its features in dB on the level of the reference platform; their attribute `platform_offsets_db` says
        what was taken away.

    Raises
    ------
    InputError
        A platform has no offset, because there were too few scenes to compare.
    """
    out = cube.copy()
    for name in {one.feature for one in offsets}:
        mine = {one.platform: one.offset_db for one in offsets if one.feature == name}
        mine |= {one.reference: 0.0 for one in offsets if one.feature == name}
        platforms = [str(value) for value in cube[f"{name}_platform"].values]
        unknown = sorted({one for one in platforms if not np.isfinite(mine.get(one, np.nan))})
        if unknown:
            raise InputError(
                f"the {name} offset of {', '.join(unknown)} is not known (too few scenes near those of the reference): "
                "give more stable ground or a longer window_days, or leave these scenes out"
            )
        shift = xr.DataArray(np.array([mine[one] for one in platforms], np.float32), dims=schema.feature(name).time)
        attrs = cube[name].attrs | {"platform_offsets_db": {key: round(mine[key], 4) for key in sorted(mine)}}
        out[name] = (cube[name] - shift).assign_attrs(attrs)
    return out


def _stable(stable: Any, cube: xr.Dataset) -> NDArray[np.bool_]:
    grid = RegionGrid.from_dataset(cube)
    mask = stable if isinstance(stable, xr.DataArray) else ground_mask(stable, grid)
    if mask.shape != grid.shape or mask.dtype != bool:
        raise InputError(f"stable ground is {mask.dtype} {mask.shape}: give a boolean (y, x) of shape {grid.shape}")
    inside = np.asarray(mask.values)
    if not inside.any():
        raise InputError("stable ground marks no pixel of the cube: check its extent and CRS")
    return inside


def _most(platforms: NDArray[np.str_]) -> str:
    names, counts = np.unique(platforms, return_counts=True)
    return str(names[counts.argmax()])


def _levels(series: xr.DataArray, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median of each scene over stable ground; NaN where it saw too little of it."""
    rows, columns = (slice(found.min(), found.max() + 1) for found in np.nonzero(inside))
    piece, within = series[:, rows, columns].data, inside[rows, columns]

    def level(scene: NDArray[Any]) -> float:
        values = scene[within]
        values = values[np.isfinite(values)]
        return float(np.median(values)) if values.size >= min(_LEAST, int(within.sum())) else float("nan")

    scenes = (piece[number] for number in range(piece.shape[0]))
    if not isinstance(piece, da.Array):
        return np.array([level(scene) for scene in scenes])
    # a task per scene: never more than some scenes in memory
    return np.array(compute(*(delayed(level)(scene) for scene in scenes)))


def _differences(levels: Any, times: Any, mine: Any, theirs: Any, window_days: float) -> NDArray[np.float64]:
    """Return, for each scene of a platform, its level minus the mean of the reference's scenes near in time."""
    found = []
    for number in np.flatnonzero(mine & np.isfinite(levels)):
        days = np.abs((times - times[number]) / np.timedelta64(1, "D"))
        near = theirs & np.isfinite(levels) & (days <= window_days)
        if near.any():
            found.append(levels[number] - levels[near].mean())
    return np.array(found)


def _median(differences: NDArray[np.float64]) -> tuple[float, float]:
    if differences.size < _PAIRS:
        return float("nan"), float("nan")
    middle = float(np.median(differences))
    return middle, float(_ERROR * np.median(np.abs(differences - middle)) / np.sqrt(differences.size))
