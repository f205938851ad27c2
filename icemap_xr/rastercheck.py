"""Is a raster what its item and the provider profile say? What would be read wrongly is refused before it is read."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pystac
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from icemap_xr.errors import InputError, NotGeocodedError
from icemap_xr.scenes import Scene
from icemap_xr.urls import scrub

#: the only driver: others read descriptions that may point to any file
DRIVER = "GTiff"


def check_raster(
    asset: pystac.Asset, item: str, scene: Scene, *, seen: Callable[[Any], None] | None = None
) -> float | None:
    """Open a raster by the one driver that is allowed; its header stays in GDAL's cache for the read that follows.

    Parameters
    ----------
    asset
        The raster, with an address that can be opened.
    item
        Name of its item, for messages.
    scene
        What is to be read.
    seen
        Called with the opened dataset.

    Returns
    -------
    float or None
        Value that stands for nodata where the raster declares none: the item's, else the profile's.

    Raises
    ------
    NotGeocodedError
        It lies on no map grid.
    InputError
        It has several bands and nothing says which one is meant, or other bands than the profile says; its values are
        scaled, or a mask says where they are none: the readers heed neither.
    """
    told = _band_of(asset, scene.band or 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(asset.href, driver=DRIVER) as src:
            who = f"item {item!r} at {scrub(asset.href)}"
            if src.crs is None:
                lacks = "only ground control points" if src.gcps[0] else "no CRS"
                raise NotGeocodedError(f"{who} has {lacks}: calibrate and geocode it first (to a projected CRS)")
            _check_bands(src, who, scene)
            if seen is not None:
                seen(src)
            own = (scene.band or 1) - 1
            declared = src.nodatavals[own]
            scaling = [(src.scales[own], src.offsets[own]), (told.get("scale") or 1.0, told.get("offset") or 0.0)]
            hides = MaskFlags.per_dataset in src.mask_flag_enums[own] or ColorInterp.alpha in src.colorinterp
            # with a declared value the mask says the same again
            masked = hides and declared is None
    for scale, offset in scaling:
        if (float(scale), float(offset)) != (1.0, 0.0):
            raise InputError(
                f"{who} holds scaled values (scale {scale:g}, offset {offset:g}), which are not undone while reading: "
                "write them out unscaled (gdal_translate -unscale -ot Float32)"
            )
    otherwise = scene.nodata if told.get("nodata") is None else float(told["nodata"])
    if masked and otherwise is None:
        raise InputError(
            f"{who} has a mask and no nodata value, and what it hides would be read as data: write it with a nodata "
            "value (gdalwarp -dstnodata nan), or name the value under the mask as nodata in the provider profile"
        )
    return otherwise if declared is None else None


def _band_of(asset: pystac.Asset, band: int) -> dict[str, Any]:
    """Return what an item says of a band, by the raster extension in either form."""
    bands = asset.extra_fields.get("raster:bands") or asset.extra_fields.get("bands") or []
    told = dict(bands[band - 1]) if len(bands) >= band else {}
    for name in ("scale", "offset"):
        told.setdefault(name, told.get(f"raster:{name}", asset.extra_fields.get(f"raster:{name}")))
    return told


def _check_bands(src: Any, who: str, scene: Scene) -> None:
    # an alpha band is no second measurement
    measured = sum(color != ColorInterp.alpha for color in src.colorinterp)
    if scene.band is None and measured > 1:
        raise InputError(
            f"{who} has {measured} bands, and nothing says which one holds {scene.feature} {scene.polarisation}: name "
            "it under bands in the provider profile"
        )
    if scene.band is not None and scene.band > src.count:
        raise InputError(
            f"{who} has {src.count} bands, and the provider profile says that band {scene.band} holds {scene.feature} "
            f"{scene.polarisation}: mend the profile or leave the item out"
        )
