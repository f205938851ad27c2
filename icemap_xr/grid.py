"""RegionGrid: the one grid to which windows, blocks and chunks are anchored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from odc.geo import CRS
from odc.geo.geobox import GeoBox
from odc.geo.geom import box
from odc.geo.xr import xr_coords
from pyproj.exceptions import CRSError

from icemap_xr import schema
from icemap_xr.errors import GridError

#: parts into which the edges of a box are cut before they are projected
_EDGE_PARTS = 64


#: largest difference between areas on the map and on the ground
_AREA_SCALE = 0.1


@dataclass(frozen=True)
class RegionGrid:
    """An immutable north-up grid of square pixels in a projected CRS.

    Windows and blocks are counted in pixels from the grid's upper left corner, so a result never depends on how an
    array is chunked.

    Parameters
    ----------
    geobox
        The region's GeoBox.
    offset
        Row and column of this piece inside the region's grid; (0, 0) for the whole region.
    full_shape
        Rows and columns of the whole region; None for the shape of `geobox`.

    Raises
    ------
    GridError
        The grid is empty, rotated, geographic, or its pixels are not square.
    """

    geobox: GeoBox
    offset: tuple[int, int] = (0, 0)
    full_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Refuse grids on which pixel areas or windows would be wrong."""
        transform = self.geobox.transform
        if 0 in self.shape:
            raise GridError(f"the grid has shape {self.shape}: it needs at least one pixel")
        if self.geobox.crs is None:
            raise GridError("the grid has no CRS: give one, for example 'EPSG:32633'")
        if self.geobox.crs.geographic:
            raise GridError(f"{self.geobox.crs} is geographic: use a projected CRS in metres, for example UTM")
        check_metres(str(self.geobox.crs), _coarse_centre(self.geobox))
        if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
            raise GridError(f"the grid {tuple(transform)[:6]} is not north-up: reproject to a north-up grid first")
        if not math.isclose(transform.a, -transform.e, rel_tol=1e-6):
            raise GridError(f"pixels of {transform.a} x {-transform.e} are not square: reproject to square pixels")
        if any(o < 0 or o + n > full for o, n, full in zip(self.offset, self.shape, self.region_shape, strict=True)):
            raise GridError(
                f"{self.shape} pixels at {self.offset} reach beyond their region of {self.region_shape} pixels: "
                "drop the attributes icemap_grid_* of spatial_ref to start a new grid"
            )

    @classmethod
    def from_bbox(
        cls, bbox: tuple[float, float, float, float], crs: str, resolution: float, *, bbox_crs: str = "EPSG:4326"
    ) -> RegionGrid:
        """Return the grid that covers a box, snapped outwards to multiples of the resolution.

        Parameters
        ----------
        bbox
            West, south, east, north in `bbox_crs`.
        crs
            Projected CRS of the grid.
        resolution
            Pixel size in CRS units (metres).
        bbox_crs
            CRS of `bbox`; lon/lat by default.
        """
        if not resolution > 0:
            raise GridError(f"resolution {resolution} is not allowed: give a pixel size > 0 in metres")
        if not (bbox[0] < bbox[2] and bbox[1] < bbox[3]):
            raise GridError(f"bbox {bbox} is empty: give west, south, east, north with west < east, south < north")
        target, source = _crs(crs), _crs(bbox_crs)
        left, bottom, right, top = bbox
        if source != target:
            # straight edges in one CRS are curved in the other
            edge = max(right - left, top - bottom) / _EDGE_PARTS
            left, bottom, right, top = box(*bbox, source).to_crs(target, edge).boundingbox.bbox
        # 1e-6 of a pixel is rounding, not extent
        x0, y0 = math.floor(left / resolution + 1e-6), math.floor(bottom / resolution + 1e-6)
        x1, y1 = math.ceil(right / resolution - 1e-6), math.ceil(top / resolution - 1e-6)
        transform = Affine(resolution, 0, x0 * resolution, 0, -resolution, y1 * resolution)
        return cls(GeoBox((max(y1 - y0, 0), max(x1 - x0, 0)), transform, target))

    @classmethod
    def from_dataset(cls, ds: xr.Dataset | xr.DataArray) -> RegionGrid:
        """Return the grid of a dataset; its region's origin is read from `spatial_ref` where recorded."""
        geobox = ds.odc.geobox
        if geobox is None or not isinstance(geobox, GeoBox):
            raise GridError("the dataset has no regular y/x grid with a CRS: assign coordinates and a CRS first")
        _check_regular(ds, geobox)
        attrs = ds.coords[schema.SPATIAL_REF].attrs if schema.SPATIAL_REF in ds.coords else {}
        origin, shape = attrs.get(schema.GRID_ORIGIN), attrs.get(schema.GRID_SHAPE)
        if origin is None or shape is None:
            return cls(geobox)
        transform = geobox.transform
        known = float(attrs.get(schema.GRID_RESOLUTION, transform.a))
        if abs(known - transform.a) > 1e-6 * known:
            raise GridError(
                f"pixels are {transform.a} wide, the region's {known}: the dataset was coarsened or resampled; drop "
                "the attributes icemap_grid_* of spatial_ref to start a new grid"
            )
        column = (transform.c - float(origin[0])) / transform.a
        row = (transform.f - float(origin[1])) / transform.e
        offset = (round(row), round(column))
        if abs(row - offset[0]) > 0.01 or abs(column - offset[1]) > 0.01:
            raise GridError(
                f"the dataset lies {row:.3f}, {column:.3f} pixels from its recorded grid origin {list(origin)}: "
                "it was resampled; drop the attributes icemap_grid_* of spatial_ref to start a new grid"
            )
        return cls(geobox, offset, (int(shape[0]), int(shape[1])))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return (int(self.geobox.shape[0]), int(self.geobox.shape[1]))

    @property
    def region_shape(self) -> tuple[int, int]:
        """Rows and columns of the whole region this grid is a piece of."""
        return self.full_shape or self.shape

    @property
    def is_cropped(self) -> bool:
        """Whether this is only a piece of the region's grid."""
        return self.offset != (0, 0) or self.region_shape != self.shape

    @property
    def crs(self) -> str:
        """CRS as an authority code where it has one, else WKT."""
        return str(self.geobox.crs)

    @property
    def resolution(self) -> float:
        """Pixel side in CRS units (metres)."""
        return float(self.geobox.transform.a)

    @property
    def pixel_area_km2(self) -> float:
        """Planar pixel area in km2."""
        return self.resolution**2 / 1e6

    def pixels(self, length: str | float) -> int:
        """Return a length as a whole number of pixels.

        Parameters
        ----------
        length
            Metres as a number, or text such as ``"3.2km"`` or ``"640 m"``.

        Raises
        ------
        GridError
            The length is not a positive whole number of pixels.
        """
        metres = parse_metres(length)
        count = round(metres / self.resolution) if math.isfinite(metres) else 0
        if count < 1 or not math.isclose(count * self.resolution, metres, rel_tol=1e-6):
            raise GridError(
                f"{length!r} is {metres / self.resolution:g} pixels of {self.resolution:g} m: "
                "give a positive multiple of the pixel size"
            )
        return count

    def coords(self) -> dict[str, xr.DataArray]:
        """Return `y`, `x` and `spatial_ref` coordinates, with the region's origin recorded."""
        coords: dict[str, Any] = {
            str(k): v for k, v in xr_coords(self.geobox, crs_coord_name=schema.SPATIAL_REF).items()
        }
        transform, (row, column) = self.geobox.transform, self.offset
        coords[schema.SPATIAL_REF].attrs |= {
            schema.GRID_ORIGIN: [transform.c - column * transform.a, transform.f - row * transform.e],
            schema.GRID_SHAPE: list(self.region_shape),
            schema.GRID_RESOLUTION: transform.a,
        }
        return coords

    def piece(self, rows: slice, columns: slice) -> GeoBox:
        """Return the GeoBox of a block of rows and columns."""
        return self.geobox[rows, columns]


def _check_regular(ds: xr.Dataset | xr.DataArray, geobox: GeoBox) -> None:
    """Refuse coordinates that are not the pixel centres of the grid that their ends suggest."""
    if not geobox.axis_aligned:
        return  # a rotated grid has no coordinates to compare, and is refused as such
    for axis, centres in geobox.coordinates.items():
        if axis in ds.coords and not np.allclose(ds[axis], centres.values, rtol=0, atol=0.01 * geobox.transform.a):
            raise GridError(f"coordinate {axis!r} is not regular: resample the dataset to square pixels first")


def _crs(name: str) -> CRS:
    try:
        return CRS(name)
    except CRSError:
        raise GridError(f"CRS {name!r} is not known: give a code such as 'EPSG:32633'") from None


def _coarse_centre(geobox: GeoBox) -> tuple[float, float]:
    """Return the centre rounded to 100 km: area scales hardly change within, and few are looked up."""
    x, y = geobox.transform @ (geobox.shape[1] / 2, geobox.shape[0] / 2)
    return round(x, -5), round(y, -5)


@lru_cache(maxsize=256)
def check_metres(crs: str, centre: tuple[float, float]) -> None:
    """Raise `GridError` where pixels of the CRS are not metres on the ground, so that areas would be wrong."""
    projected = pyproj.CRS(crs)
    units = {axis.unit_name for axis in projected.axis_info[:2]}
    if not units <= {"metre", "meter"}:
        raise GridError(f"{projected.name} is in {' and '.join(sorted(units))}: use a CRS in metres, such as UTM")
    lon, lat = pyproj.Transformer.from_crs(projected, projected.geodetic_crs, always_xy=True).transform(*centre)
    scale = float(pyproj.Proj(projected).get_factors(lon, lat).areal_scale) if math.isfinite(lon + lat) else math.nan
    if abs(scale - 1) > _AREA_SCALE:
        raise GridError(
            f"areas in {projected.name} are {scale:.2f} times those on the ground here: use a CRS that keeps areas "
            "within 10 %, such as the UTM zone"
        )


def parse_metres(length: str | float) -> float:
    """Return a length in metres from a number or from text such as ``"3.2km"``."""
    if isinstance(length, int | float) and not isinstance(length, bool):
        return float(length)
    text = str(length).strip().lower().replace(" ", "")
    factor = 1.0
    for unit, size in (("km", 1000.0), ("m", 1.0)):
        if text.endswith(unit):
            text, factor = text.removesuffix(unit), size
            break
    try:
        return float(text) * factor
    except ValueError:
        raise GridError(f"{length!r} is not a length: give metres as a number, or text such as '3.2km'") from None
