"""What a cube needs of scenes in radar geometry: how they are told, and how far they lie from each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr
from rasterio.errors import RasterioError

from icemap_xr import schema, store
from icemap_xr.errors import GeolocationWarning, InputError, warn
from icemap_xr.grd.dem import opening
from icemap_xr.grd.fetch import Fetcher
from icemap_xr.grd.options import GrdOptions
from icemap_xr.grd.shifts import LIMIT, estimate_shifts
from icemap_xr.grd.step import load, open_image
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask
from icemap_xr.scenes import Scene

if TYPE_CHECKING:
    from icemap_xr.reading import Reading

Series = Mapping[str, Sequence[Scene]]

#: scenes that are tried where the first cannot be opened
_TRIED = 3


def in_radar_geometry(series: Series) -> list[str]:
    """Return the features whose scenes are in radar geometry."""
    return [name for name, scenes in series.items() if not scenes[0].geocoded]


def as_read(series: Series, grd: GrdOptions | None) -> dict[str, Sequence[Scene]]:
    """Return the scenes as they come out of reading: in dB, of the radiometry that was asked for.

    Raises
    ------
    InputError
        Options are given, and no scene is in radar geometry.
    """
    if grd is None:
        return dict(series)
    raw = in_radar_geometry(series)
    if not raw:
        raise InputError(f"grd= is given, but no scene of {', '.join(series)} is in radar geometry: leave it out")
    return {
        name: tuple(replace(scene, values="dB", radiometry=grd.radiometry) for scene in scenes)
        if name in raw
        else scenes
        for name, scenes in series.items()
    }


def near(grd: GrdOptions | None, grid: RegionGrid) -> GrdOptions | None:
    """Return the options with only those tiles of the elevation model that a grid needs: they travel in every task.

    Raises
    ------
    InputError
        The file of stable ground cannot be used; later, all would have been read in vain.
    """
    if grd is not None and grd.stable is not None:
        ground_mask(grd.stable, grid)
    if grd is None or grd.dem is None:
        return grd
    return replace(grd, dem=grd.dem.near(grid.geobox))


def described(series: Series, reading: Reading) -> dict[str, dict[str, Any]]:
    """Return what a cube says of each feature whose scenes are in radar geometry.

    With the error at control points, measured in the first scene (scenes of one orbit show the same ground from the
    same place); nothing is said of it where neither that scene nor the next ones can be opened now.

    Raises
    ------
    AnnotationError, GeolocationError
        A scene's annotation or control points cannot be used.

    Warns
    -----
    GeolocationWarning
        The error is above half a pixel.
    """
    if reading.grd is None:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in in_radar_geometry(series):
        found[name] = dict(reading.grd.attributes())
        for scene in series[name][:_TRIED]:
            try:
                residual = max(_residual(scene, item, reading) for item in scene.items)
            except (OSError, RuntimeError, RasterioError):
                # reading says what is wrong, and tries again
                continue
            found[name] |= {"geolocation_residual_pixels": residual, "geolocation_residual_of": reading.grd.measured()}
            if not residual <= LIMIT:
                _warn(name, residual, reading.grd)
            break
    return found


def _residual(scene: Scene, item: Mapping[str, Any], reading: Reading) -> float:
    """Return the error of a slice, in pixels of the image."""
    assert reading.grd is not None
    grd, href = reading.grd, str(item["assets"][scene.asset]["href"])
    reading.access.check(href, local=reading.local, what=f"item {scene.item_ids!r}, asset {scene.asset!r}")
    fetcher = Fetcher(reading.access, reading.patience)
    with (
        opening(reading.access, href, reading.patience),
        open_image(reading.access.signed(href, reading.patience)) as src,
    ):
        geometry = load(src, href, scene.polarisation, grd, fetcher).geometry
    return geometry.residual(known=grd.dem is not None, height=grd.height)


def _warn(name: str, residual: float, grd: GrdOptions) -> None:
    mend = (
        "its annotation does not fit together; take the product as it was published"
        if grd.geocoding == "terrain"
        else "correct for terrain, GrdOptions('terrain', dem=...)"
    )
    warn(
        f"{name} is placed with an error of {residual:.2f} pixels of the image (rms of {grd.measured()}; wanted is "
        f"{LIMIT} or less): {mend}",
        GeolocationWarning,
    )


def add_shifts(partial: Path, series: Series, grd: GrdOptions | None) -> None:
    """Add to an unfinished cube how far the scenes of its orbit lie from each other; warns over half a pixel."""
    for name in in_radar_geometry(series):
        if len(series[name]) < 2:
            continue
        one = schema.feature(name)
        found = xr.open_zarr(str(partial), chunks=None, consolidated=False)
        stable = ground_mask(grd.stable, RegionGrid.from_dataset(found)) if grd and grd.stable else None
        shifts = estimate_shifts(found[[name, f"{name}_platform"]], name, stable=stable)
        store.add_variables(shifts.drop_vars(one.time), partial)
