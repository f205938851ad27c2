"""One image of a Sentinel-1 GRD product: its raster, its annotation, calibration and noise, checked to belong together.

The annotation lies beside the raster as in a product of the SAFE format: `measurement/NAME.tiff`,
`annotation/NAME.xml`, `annotation/calibration/calibration-NAME.xml` and `noise-NAME.xml`. Catalogues keep that layout,
whether NAME is the original or short (`iw-vv`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import rasterio

from icemap_xr.errors import AnnotationError, GeolocationError
from icemap_xr.grd.annotation import (
    Annotation,
    Calibration,
    Identity,
    Noise,
    Radiometry,
    TiePoints,
    check_extent,
    read_annotation,
    read_calibration,
    read_noise,
)
from icemap_xr.sentinel1 import product_properties
from icemap_xr.urls import scrub

Fetch = Callable[[str], bytes]

_VERSION = re.compile(r"IPF\s*0*(\d+)\.(\d+)")
_MEASUREMENT = re.compile(r"^(?P<folder>.*/)?measurement/(?P<name>[^/]+?)\.tiff?$", re.IGNORECASE)
_PRODUCT = re.compile(r"S1[A-D]_(?:IW|EW|WV|S[1-6])_[A-Z]{3}[FHM_]_1S[SD][HV](?:_\d{8}T\d{6}){2}_\d{6}_[0-9A-F]{6}")
#: since this version borders are zeros and noise has factors along azimuth
AZIMUTH_NOISE = (2, 90)
#: before this version noise is annotated in other units, which differ between versions and modes
_KNOWN_NOISE = (2, 50)
#: about when version 2.50 came into use; products of unknown version from before are taken for earlier ones
_KNOWN_NOISE_SINCE = np.datetime64("2015-11-25")


@dataclass(frozen=True)
class Image:
    """An image with all that turns its numbers into backscatter.

    Parameters
    ----------
    annotation, calibration, noise
        Its annotation; noise is None where it must not be removed.
    bordered
        Whether borders hold noise rather than zeros (before version 2.90).
    border_noise
        The noise table for finding such borders.
    """

    annotation: Annotation
    calibration: Calibration
    noise: Noise | None
    bordered: bool
    border_noise: Noise | None


@dataclass(frozen=True)
class Header:
    """What the raster itself tells.

    Parameters
    ----------
    shape
        Lines and samples.
    version
        Version of ESA's processor, such as ``(2, 91)``; None where it is not told.
    points
        Its ground control points; None where it has none.
    """

    shape: tuple[int, int]
    version: tuple[int, int] | None
    points: TiePoints | None


def read_header(src: Any, name: str) -> Header:
    """Read size, processor version and ground control points of an open raster.

    Raises
    ------
    GeolocationError
        Its control points are not in longitude and latitude of WGS 84.
    AnnotationError
        It does not hold detected amplitudes (one band, uint16).
    """
    if src.count != 1 or src.dtypes[0] != "uint16":
        raise AnnotationError(
            f"{name} has {src.count} bands of {src.dtypes[0]}, wanted is one of uint16: it is no GRD measurement"
        )
    match = _VERSION.search(src.tags().get("TIFFTAG_SOFTWARE", ""))
    version = (int(match[1]), int(match[2])) if match else None
    return Header((src.height, src.width), version, _points(src, name))


def _points(src: Any, name: str) -> TiePoints | None:
    points, crs = src.gcps
    if not points:
        return None
    if crs is None or rasterio.crs.CRS.from_user_input(crs).to_epsg() != 4326:
        raise GeolocationError(
            f"{name} has ground control points in {crs or 'no CRS'}, wanted is EPSG:4326: take the product as published"
        )
    row, column, lon, lat, height = (
        np.array([getattr(p, key) for p in points], np.float64) for key in ("row", "col", "x", "y", "z")
    )
    if np.abs(lat).max() > 90 or np.abs(lon).max() > 360:
        raise GeolocationError(f"{name} has ground control points that are no degrees: take the product as published")
    line, pixel = _centres(row, src.height), _centres(column, src.width)
    return TiePoints(line, pixel, lon, lat, np.nan_to_num(height))


def _centres(position: Any, size: int) -> Any:
    """Return positions as counted from the centre of the first pixel.

    The points of a product count centres, and the last lies on the last pixel. An overview of it is `s` times as large,
    and its points were multiplied by `s` by whoever made it, so that the last lies at `size - s`. Where the file says
    that its pixels are points (``AREA_OR_POINT=Point``) GDAL has added half a pixel already, so that they count from
    the corner: they then lie as far from the first edge as from the last.
    """
    scale, first = size - float(position.max()), float(position.min())
    if 0 < scale <= 0.5 + 1e-6 and abs(scale - first) < 1e-3 * scale:
        return position - 0.5
    if not 0 < scale <= 1.0 + 1e-6:
        # not as the processor lays its points; they are taken as they stand
        return position
    return position + 0.5 * scale - 0.5


def annotation_hrefs(measurement: str) -> dict[str, str]:
    """Return the addresses of the annotation of a raster.

    Raises
    ------
    AnnotationError
        The raster does not lie in a folder named `measurement`.
    """
    remote = "://" in measurement
    parts = urlsplit(measurement)
    path = parts.path if remote else measurement.replace("\\", "/")
    match = _MEASUREMENT.match(path)
    if match is None:
        raise AnnotationError(
            f"{scrub(measurement)} does not lie in a folder 'measurement' of a product, so its annotation cannot be "
            "found: keep the product as it was published"
        )
    folder, name = match["folder"] or "", match["name"]
    names = {
        "annotation": f"{folder}annotation/{name}.xml",
        "calibration": f"{folder}annotation/calibration/calibration-{name}.xml",
        "noise": f"{folder}annotation/calibration/noise-{name}.xml",
    }
    if not remote:
        return names
    return {key: urlunsplit((parts.scheme, parts.netloc, one, parts.query, "")) for key, one in names.items()}


def load_image(
    measurement: str,
    header: Header,
    polarisation: str | None,
    fetch: Fetch,
    *,
    radiometry: Radiometry = "sigma0",
    noise: bool = True,
    border: bool = True,
) -> Image:
    """Read the annotation of a raster and check that all belongs together.

    Parameters
    ----------
    measurement
        Path or address of the raster.
    header
        What the raster tells.
    polarisation
        Polarisation that the raster should have; None for any.
    fetch
        Returns the content of a file.
    radiometry, noise, border
        See `GrdOptions`.

    Raises
    ------
    AnnotationError
        Annotation is missing, damaged, or of another product.
    """
    hrefs = annotation_hrefs(measurement)
    name = scrub(measurement)
    annotation = read_annotation(fetch(hrefs["annotation"]), scrub(hrefs["annotation"]))
    calibration = read_calibration(fetch(hrefs["calibration"]), scrub(hrefs["calibration"]), radiometry)
    _check_same(annotation.identity, calibration.identity, scrub(hrefs["calibration"]))
    _check_raster(annotation, header, polarisation, measurement)
    check_extent(calibration.table, annotation.lines, annotation.samples, scrub(hrefs["calibration"]))
    bordered = header.version is not None and header.version < AZIMUTH_NOISE
    wanted = noise and not annotation.denoised
    found = None
    if wanted or border:
        found = read_noise(fetch(hrefs["noise"]), scrub(hrefs["noise"]))
        _check_same(annotation.identity, found.identity, scrub(hrefs["noise"]))
        check_extent(found.table.vectors, annotation.lines, annotation.samples, scrub(hrefs["noise"]))
        bordered = bordered or (header.version is None and found.form == "range")
        if wanted or (border and bordered):
            _check_units(found, header, name)
    return Image(annotation, calibration, found if wanted else None, border and bordered, found)


def _check_same(one: Identity, other: Identity, name: str) -> None:
    if one != other:
        raise AnnotationError(f"{name} is of {other}, the annotation of {one}: it belongs to another product")


def _check_raster(annotation: Annotation, header: Header, polarisation: str | None, measurement: str) -> None:
    one, name = annotation.identity, scrub(measurement)
    if header.shape != (annotation.lines, annotation.samples):
        raise AnnotationError(
            f"{name} has {header.shape[0]} x {header.shape[1]} pixels, its annotation says {annotation.lines} x "
            f"{annotation.samples}: it was cut or resampled, or the annotation belongs to another product"
        )
    if polarisation is not None and polarisation != one.polarisation:
        raise AnnotationError(f"{name} is wanted as {polarisation}, its annotation is of {one.polarisation}")
    found = _PRODUCT.search(measurement)
    if found is None:
        return
    told = product_properties(found[0])
    take = int(found[0][-6:], 16)
    if (told.get("sat:absolute_orbit"), take, told.get("sar:instrument_mode")) != (one.orbit, one.take, one.mode):
        raise AnnotationError(f"the annotation of {name} is of {one}, data take {one.take:06X}: of another product")


def _check_units(noise: Noise, header: Header, name: str) -> None:
    """Refuse noise of the earliest versions, which is in other units."""
    old = header.version < _KNOWN_NOISE if header.version else noise.identity.start < _KNOWN_NOISE_SINCE
    if noise.form == "range" and old:
        told = f"version {header.version[0]}.{header.version[1]:02d}" if header.version else "an unknown version"
        raise AnnotationError(
            f"{name} was made by {told} of the processor, before 2.50, whose noise is annotated in other units: leave "
            "the scene out, or take its noise and border as they are (noise=False, border=False)"
        )
