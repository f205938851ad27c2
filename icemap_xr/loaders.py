"""The two libraries that read rasters onto a grid, with options under which neither hides a fault or a nodata value."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pystac
import rasterio
import stackstac
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.loader import RasterLoadParams, RasterSource, RioReader
from odc.loader._rio import LocalContext


def read_odc(
    rasters: Sequence[tuple[str, float | None]], band: int, geobox: GeoBox, resampling: str
) -> NDArray[np.float32]:
    """Read rasters with the reader of odc-stac, `(y, x)`; where they overlap the first valid pixel counts.

    Its reader is called directly: it takes what a raster's own header says for its grid, not what an item claims, and
    the nodata value that comes with an address where the header declares none, which `odc.stac.load` takes for data.
    """
    out = np.full(geobox.shape, np.nan, np.float32)
    for href, nodata in rasters:
        options = RasterLoadParams("float32", fill_value=np.nan, src_nodata_fallback=nodata, resampling=resampling)
        where, values = RioReader(RasterSource(href, band=band), LocalContext()).read(options, geobox)
        np.copyto(out[where], values, where=np.isnan(out[where]))
    return out


def read_stackstac(
    items: list[pystac.Item], asset: str, geobox: GeoBox, resampling: str, options: dict[str, str]
) -> NDArray[Any]:
    """Read the items' asset with stackstac, `(y, x)`; where items overlap the first valid pixel counts."""
    for item in items:
        code = str(item.properties.get("proj:code") or "")
        if code.upper().startswith("EPSG:"):
            # stackstac reads proj:epsg only, and without it silently invents a grid
            item.properties["proj:epsg"] = int(code.split(":")[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        stack = stackstac.stack(
            items,
            assets=[asset],
            epsg=geobox.crs.epsg if geobox.crs else None,
            bounds=tuple(geobox.boundingbox),
            resolution=float(geobox.transform.a),
            resampling=rasterio.enums.Resampling[resampling],
            dtype=np.dtype("float32"),
            fill_value=np.float32("nan"),
            rescale=False,
            xy_coords="center",
            errors_as_nodata=(),
            gdal_env=stackstac.rio_env.LayeredEnv(always=options),
        )
        layers: NDArray[Any] = stack.isel(band=0).compute(scheduler="synchronous").values
    out = layers[0].copy()
    for layer in layers[1:]:
        out = np.where(np.isnan(out), layer, out)
    return out
