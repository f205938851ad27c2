"""Small real GeoTIFFs and their STAC items, for tests of what reads rasters."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

from icemap_xr.grid import RegionGrid
from icemap_xr.stac_build import Orbit, coherence_item, open_header, sar_item
from icemap_xr.testing.fakes import small_grid


def write_raster(
    path: Path, values: NDArray[Any], *, grid: RegionGrid | None = None, nodata: float | None = float("nan")
) -> Path:
    """Write one band as float32 GeoTIFF on a grid; `small_grid` of its shape by default."""
    geobox = (grid or small_grid((values.shape[0], values.shape[1]))).geobox
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = values.shape
    options = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=str(geobox.crs), transform=geobox.transform, nodata=nodata, **options) as out:
        out.write(values.astype(np.float32), 1)
    return path


def read_raster(path: Path) -> xr.DataArray:
    """Read the first band of a raster `(y, x)` as it is, with its CRS and declared nodata value."""
    with rasterio.open(path) as source:
        box = GeoBox(source.shape, source.transform, source.crs.to_string())
        return wrap_xr(source.read(1), box, nodata=source.nodata)


def rtc_item(
    path: Path,
    day: str,
    *,
    platform: str = "sentinel-1a",
    orbit: int | None = None,
    track: int | None = 14,
    state: str | None = "descending",
    polarisation: str = "HH",
    collection: str = "opera-s1-rtc",
    name: str | None = None,
) -> pystac.Item:
    """Return the item of one acquisition in one file of linear power, taken on a day (ISO date or time)."""
    return sar_item(
        name or path.stem,
        {polarisation: open_header(path)},
        time=datetime.fromisoformat(day).replace(tzinfo=UTC),
        collection=collection,
        product_type="RTC",
        unit="1",
        orbit=Orbit(platform, track, orbit, state, "IW"),
    )


def pair_item(path: Path, first: str, second: str, *, track: int | None = None) -> pystac.Item:
    """Return the item of the coherence of two days."""
    days = (datetime.fromisoformat(day).replace(tzinfo=UTC) for day in (first, second))
    return coherence_item(
        path.stem, open_header(path), first=next(days), second=next(days), orbit=Orbit(relative=track)
    )
