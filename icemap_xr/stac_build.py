"""One STAC item for one acquisition or one pair, from the headers of its raster files.

Every item describes files that were opened: CRS, shape, transform, nodata and data type are the file's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import rasterio
import shapely
from rasterio.warp import transform, transform_bounds
from shapely.geometry import mapping, shape

from icemap_xr.errors import InputError, ReadError
from icemap_xr.types import StrPath

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
SAR = "https://stac-extensions.github.io/sar/v1.0.0/schema.json"
SAT = "https://stac-extensions.github.io/sat/v1.0.0/schema.json"
INSAR = "https://stac-extensions.github.io/insar/v1.0.0/schema.json"

COHERENCE_COLLECTION = "coherence"
#: parts of the longest edge of a footprint over 180 degrees or a pole
_EDGE_PARTS = 64

#: property that says how a product was made where that changes values (filter, pixel spacing): a series has one
PROCESSING = "icemap:processing"


@dataclass(frozen=True)
class Orbit:
    """Where a scene was taken from; what is not known stays None and is left out of the item.

    Parameters
    ----------
    platform
        For example ``"sentinel-1a"``.
    relative, absolute
        Orbit numbers.
    state
        ``"ascending"`` or ``"descending"``.
    mode
        Instrument mode, for example ``"IW"``.
    """

    platform: str | None = None
    relative: int | None = None
    absolute: int | None = None
    state: str | None = None
    mode: str | None = None

    def properties(self) -> dict[str, Any]:
        """Return the STAC properties of what is known."""
        known = {
            "platform": self.platform,
            "constellation": "sentinel-1" if self.platform else None,
            "instruments": ["c-sar"] if self.platform else None,
            "sat:relative_orbit": self.relative,
            "sat:absolute_orbit": self.absolute,
            "sat:orbit_state": self.state,
            "sar:instrument_mode": self.mode,
        }
        return {name: value for name, value in known.items() if value is not None}


@dataclass(frozen=True)
class Raster:
    """What the header of a raster file says.

    Parameters
    ----------
    path
        The file, absolute.
    crs
        CRS of the file.
    shape, transform, bounds
        Rows and columns; affine coefficients (a, b, c, d, e, f); left, bottom, right, top.
    nodata, dtype
        nodata value, None where none is set; data type.
    tags
        Dataset tags.
    cog
        Whether it is a Cloud-Optimized GeoTIFF.
    bands
        Number of bands.
    """

    path: Path
    crs: Any
    shape: tuple[int, int]
    transform: tuple[float, ...]
    bounds: tuple[float, float, float, float]
    nodata: float | None
    dtype: str
    tags: Mapping[str, str] = field(default_factory=dict)
    cog: bool = False
    bands: int = 1


def open_header(path: StrPath) -> Raster:
    """Read the header of a raster file.

    Raises
    ------
    ReadError
        The file cannot be opened as a raster.
    InputError
        The file has no CRS.
    """
    file = Path(path).resolve()
    try:
        with rasterio.open(file) as src:
            if src.crs is None:
                raise InputError(f"{file} has no CRS: geocode it, or set its CRS")
            return Raster(
                path=file,
                crs=src.crs,
                shape=(src.height, src.width),
                transform=tuple(src.transform)[:6],
                bounds=tuple(src.bounds),
                nodata=src.nodata,
                dtype=src.dtypes[0],
                tags=src.tags(),
                cog=src.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG",
                bands=src.count,
            )
    except rasterio.errors.RasterioIOError as error:
        raise ReadError(f"{file} cannot be read as a raster: {error}; check or remove it") from error


def sar_item(
    name: str,
    assets: Mapping[str, Raster],
    *,
    time: datetime,
    collection: str,
    product_type: str,
    unit: str,
    orbit: Orbit,
    properties: Mapping[str, Any] | None = None,
) -> pystac.Item:
    """Return the item of one acquisition.

    Parameters
    ----------
    name
        Identifier of the item.
    assets
        One raster per polarisation (``"VV"``, ``"HH"``, ...), all on one grid.
    time
        Start of the acquisition, UTC.
    collection
        Identifier of its collection.
    product_type
        ``sar:product_type``, for example ``"RTC"``.
    unit
        Unit of the values: ``"1"`` for linear power, ``"dB"``.
    orbit
        Platform and orbit.
    properties
        More properties.

    Raises
    ------
    InputError
        The rasters do not lie on one grid.
    """
    item = _item(name, assets, time, collection, orbit)
    item.properties |= {
        "sar:frequency_band": "C",
        "sar:center_frequency": 5.405,
        "sar:polarizations": sorted(assets),
        "sar:product_type": product_type,
        **(properties or {}),
    }
    for polarisation, raster in assets.items():
        item.add_asset(polarisation, _asset(raster, f"{polarisation} backscatter", unit, polarisation))
    return item


def coherence_item(
    name: str,
    raster: Raster,
    *,
    first: datetime,
    second: datetime,
    collection: str = COHERENCE_COLLECTION,
    orbit: Orbit | None = None,
    polarisation: str | None = None,
    properties: Mapping[str, Any] | None = None,
) -> pystac.Item:
    """Return the item of the coherence of one pair, 0..1.

    Parameters
    ----------
    name
        Identifier of the item.
    raster
        The file.
    first, second
        Times of the two acquisitions, UTC, in order.
    collection
        Identifier of its collection.
    orbit
        Platform and orbit, as far as known.
    polarisation
        For example ``"VV"``; None where not known.
    properties
        More properties.

    Raises
    ------
    InputError
        The second time is not after the first.
    """
    if second <= first:
        raise InputError(f"{raster.path.name}: the second date {second} is not after the first {first}: swap them")
    item = _item(name, {"coherence": raster}, first + (second - first) / 2, collection, orbit or Orbit())
    item.stac_extensions.append(INSAR)
    item.properties |= {
        "start_datetime": _stamp(first),
        "end_datetime": _stamp(second),
        "insar:reference_datetime": _stamp(first),
        "insar:secondary_datetime": _stamp(second),
        "insar:temporal_baseline": float((second.date() - first.date()).days),
        "sar:frequency_band": "C",
        "sar:product_type": "COHERENCE",
        **({"sar:polarizations": [polarisation]} if polarisation else {}),
        **(properties or {}),
    }
    item.add_asset("coherence", _asset(raster, "Interferometric coherence", "1", polarisation))
    return item


def _item(name: str, assets: Mapping[str, Raster], time: datetime, collection: str, orbit: Orbit) -> pystac.Item:
    raster, *others = assets.values()
    for other in others:
        if (other.crs, other.shape, other.transform) != (raster.crs, raster.shape, raster.transform):
            raise InputError(f"{other.path} and {raster.path} belong to one item but lie on different grids")
    geometry = _footprint(raster)
    known = orbit.properties()
    item = pystac.Item(
        id=name,
        geometry=geometry,
        bbox=_bbox(raster, geometry),
        datetime=time,
        collection=collection,
        properties={**_projection(raster), **known},
    )
    item.stac_extensions = [PROJECTION, RASTER]
    # their schemas demand these fields; without them the remaining ones stand as plain properties
    item.stac_extensions += [SAR] if "sar:instrument_mode" in known else []
    item.stac_extensions += [SAT] if any(key.startswith("sat:") for key in known) else []
    return item


def _projection(raster: Raster) -> dict[str, Any]:
    authority = raster.crs.to_authority()
    crs = {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": raster.crs.to_wkt()}
    return {
        **crs,
        "proj:shape": list(raster.shape),
        "proj:transform": [*raster.transform, 0.0, 0.0, 1.0],
        "proj:bbox": list(raster.bounds),
    }


def _footprint(raster: Raster) -> dict[str, Any]:
    left, bottom, right, top = raster.bounds
    xs, ys = transform(raster.crs, "EPSG:4326", [left, right, right, left, left], [bottom, bottom, top, top, bottom])[
        :2
    ]
    far = _far_footprint(raster)
    if far is not None:
        return far
    ring = [[round(x, 7), round(y, 7)] for x, y in zip(xs, ys, strict=True)]
    return {"type": "Polygon", "coordinates": [ring]}


def _far_footprint(raster: Raster) -> dict[str, Any] | None:
    """Return the footprint of a raster over 180 degrees or a pole, None for any other.

    As RFC 7946 wants it: in parts that end at 180 degrees, and with the pole in it.
    """
    left, bottom, right, top = raster.bounds
    outline = shapely.segmentize(shapely.box(left, bottom, right, top), max(right - left, top - bottom) / _EDGE_PARTS)
    xs, ys = shapely.get_coordinates(outline)[:-1].T
    lon, lat = (np.array(found) for found in transform(raster.crs, "EPSG:4326", xs, ys)[:2])
    if np.abs(np.diff(lon, append=lon[:1])).max() <= 180:
        return None
    ring = np.column_stack([np.unwrap(np.append(lon, lon[0]), period=360), np.append(lat, lat[0])])
    if abs(ring[-1, 0] - ring[0, 0]) > 180:
        # it goes around a pole
        pole = float(np.copysign(90, lat.mean()))
        ring = np.vstack([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])
    world = shapely.box(-180, -90, 180, 90)
    turns = [np.array([360.0 * turn, 0.0]) for turn in (-2, -1, 0, 1, 2)]
    copies = [shapely.make_valid(shapely.Polygon(ring + turn)) for turn in turns]
    parts = shapely.union_all([shapely.intersection(copy, world) for copy in copies])
    return dict(mapping(shapely.set_precision(parts, 1e-7)))


def _bbox(raster: Raster, geometry: Mapping[str, Any]) -> list[float]:
    """Return west, south, east, north; west > east over 180 degrees, as RFC 7946 wants it."""
    found = shape(dict(geometry))
    west, south, east, north = found.bounds
    if found.geom_type == "MultiPolygon" and west <= -180 and east >= 180 and max(abs(south), abs(north)) < 90:
        bounds = shapely.bounds(shapely.get_parts(found))
        west, east = bounds[bounds[:, 2] >= 180, 0].min(), bounds[bounds[:, 0] <= -180, 2].max()
        return [round(float(v), 7) for v in (west, south, east, north)]
    if found.geom_type == "MultiPolygon" or len(geometry["coordinates"][0]) > 5:
        return [round(float(v), 7) for v in (west, south, east, north)]
    return [round(v, 7) for v in transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)]


def _asset(raster: Raster, title: str, unit: str, polarisation: str | None) -> pystac.Asset:
    band: dict[str, Any] = {"data_type": raster.dtype, "unit": unit}
    if raster.nodata is not None:
        # JSON has no NaN; the raster extension writes it as text
        band["nodata"] = "nan" if math.isnan(raster.nodata) else raster.nodata
    return pystac.Asset(
        href=str(raster.path),
        title=title,
        media_type=pystac.MediaType.COG if raster.cog else pystac.MediaType.GEOTIFF,
        roles=["data"],
        extra_fields={"raster:bands": [band], **({"sar:polarizations": [polarisation]} if polarisation else {})},
    )


def _stamp(time: datetime) -> str:
    return (
        time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") + (f".{time.microsecond:06d}" * bool(time.microsecond)) + "Z"
    )
