"""Where items lie: footprints beside a region, also over the antimeridian, at the poles, and where they are in metres.

Everything is compared in an equal-area projection centred on the region, in which neither 180 degrees nor the pole is
an edge. Footprints are projected corner by corner: a line between two corners may not follow a parallel, but crosses
180 degrees the short way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import pystac
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from shapely.geometry import mapping, shape
from shapely.geometry.base import BaseGeometry

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.vectors import as_frame

#: a region wider than this (degrees from its centre) is compared in lon/lat
_WIDEST = 60.0
#: what lies further than this from the centre (degrees) does not touch a region; the antipode has no place on the map
_FARTHEST = 120.0
#: longest edge of a region before it is projected, degrees
_EDGE = 0.1
#: beyond this latitude a box may hold the pole, of which only its edges tell the extent
_POLAR = 84.0


@dataclass(frozen=True)
class Area:
    """A region, ready to be compared with footprints.

    Parameters
    ----------
    lonlat
        The region in lon/lat; in two parts where it lies over the antimeridian.
    boxes
        Boxes (west, south, east, north) that hold it; none crosses the antimeridian.
    centre
        Longitude and latitude of its centre.
    radius
        Angle from the centre to its farthest corner, degrees.
    """

    lonlat: BaseGeometry
    boxes: tuple[tuple[float, float, float, float], ...]
    centre: tuple[float, float]
    radius: float

    @classmethod
    def of(cls, region: Any) -> Area:
        """Make one from whatever `icemap_xr.vectors.as_frame` takes; a box may have west > east (over 180 degrees)."""
        lonlat = _split_box(region)
        if lonlat is None:
            lonlat = as_frame(region).to_crs("EPSG:4326").union_all()
        corners = _unit(shapely.get_coordinates(lonlat))
        middle = corners.mean(axis=0)
        if np.linalg.norm(middle) < 1e-6:
            middle = corners[0]
        middle /= np.linalg.norm(middle)
        centre = float(np.degrees(np.arctan2(middle[1], middle[0]))), float(np.degrees(np.arcsin(middle[2])))
        return cls(lonlat, _boxes(lonlat), centre, float(_angle(corners, middle).max()))

    def touches(self, footprint: BaseGeometry) -> bool:
        """Whether a footprint in lon/lat touches the region."""
        near = self._near(footprint)
        return near is not None and bool(self._own.intersects(near))

    def share(self, footprints: Sequence[BaseGeometry]) -> float:
        """Return the share of the region that some footprints cover together, 0..1."""
        near = [one for one in map(self._near, footprints) if one is not None]
        whole = self._own.area
        if not near or not whole:
            return 0.0
        return float(min(1.0, self._own.intersection(shapely.union_all(near)).area / whole))

    def bounds_in(self, crs: str) -> tuple[float, float, float, float]:
        """Return west, south, east, north in a projected CRS, also of a region over the antimeridian."""
        there = Transformer.from_crs("EPSG:4326", CRS.from_user_input(crs), always_xy=True)
        west, south, east, north = _transform(shapely.segmentize(self.lonlat, _EDGE), there).bounds
        return float(west), float(south), float(east), float(north)

    @cached_property
    def _own(self) -> BaseGeometry:
        return self._projected(shapely.segmentize(self.lonlat, _EDGE)) if self.radius <= _WIDEST else self.lonlat

    def _near(self, footprint: BaseGeometry) -> BaseGeometry | None:
        if self.radius > _WIDEST:
            return footprint
        corners = _unit(shapely.get_coordinates(footprint))
        if not len(corners) or _angle(corners, _unit(np.array([self.centre]))[0]).max() > _FARTHEST:
            return None
        return shapely.make_valid(self._projected(footprint))

    def _projected(self, geometry: BaseGeometry) -> BaseGeometry:
        return _transform(geometry, _to_plane(*self.centre))


def grid_over(region: Any, crs: str, resolution: float) -> RegionGrid:
    """Return the grid that covers a region, also one over 180 degrees or a pole, snapped outwards to whole pixels.

    Parameters
    ----------
    region
        As in `Area.of`.
    crs
        Projected CRS of the grid.
    resolution
        Pixel size, metres.

    Raises
    ------
    InputError, GridError
        The region or the CRS cannot be used.
    """
    area = Area.of(region)
    if len(area.boxes) > 1 or area.lonlat.bounds[3] > _POLAR or area.lonlat.bounds[1] < -_POLAR:
        return RegionGrid.from_bbox(area.bounds_in(crs), crs, resolution, bbox_crs=crs)
    return RegionGrid.from_bbox(area.lonlat.bounds, crs, resolution)


def footprint(item: pystac.Item) -> BaseGeometry:
    """Return an item's geometry in lon/lat.

    Raises
    ------
    InputError
        There is none, or it is not in degrees: see `mend_footprint`.
    """
    if item.geometry is None:
        raise InputError(f"item {item.id!r} has no geometry: mend the catalogue")
    found = shape(item.geometry)
    if found.is_empty:
        raise InputError(f"item {item.id!r} has an empty geometry: mend the catalogue")
    if not _in_degrees(found):
        raise InputError(f"item {item.id!r} has a geometry outside -180..180, -90..90: mend the catalogue")
    return found


def mend_footprint(item: pystac.Item) -> str | None:
    """Give an item whose geometry is in metres one in lon/lat, by its own CRS; returns what was done, or None.

    Some catalogues hold such items, where a client that trusts them finds nothing, silently.

    Raises
    ------
    InputError
        The geometry is not in degrees and the item does not say in which CRS it is.
    """
    if item.geometry is None or _in_degrees(shape(item.geometry)):
        return None
    code = item.properties.get("proj:code") or item.properties.get("proj:epsg")
    code = f"EPSG:{code}" if isinstance(code, int) else code
    try:
        source = CRS.from_user_input(code)
        found = _transform(shape(item.geometry), Transformer.from_crs(source, "EPSG:4326", always_xy=True))
    except CRSError:
        found = None
    if found is None or not _in_degrees(found):
        raise InputError(
            f"item {item.id!r} has a geometry that is neither in degrees nor in its own CRS ({code}): "
            "mend the catalogue"
        )
    item.geometry, item.bbox = mapping(found), list(found.bounds)
    return f"{item.id}: geometry was in {code}"


@lru_cache(maxsize=16)
def _to_plane(lon: float, lat: float) -> Transformer:
    target = CRS.from_proj4(f"+proj=laea +lat_0={lat:.6f} +lon_0={lon:.6f} +ellps=WGS84 +units=m +no_defs")
    return Transformer.from_crs("EPSG:4326", target, always_xy=True)


def _transform(geometry: BaseGeometry, transformer: Transformer) -> BaseGeometry:
    def both(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack(transformer.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shapely.force_2d(geometry), both)


def _in_degrees(geometry: BaseGeometry) -> bool:
    west, south, east, north = geometry.bounds
    # items over the antimeridian may go on beyond 180
    return bool(-360 <= west <= east <= 360 and -90.001 <= south <= north <= 90.001)


def _split_box(region: Any) -> BaseGeometry | None:
    if not isinstance(region, list | tuple) or len(region) != 4:
        return None
    try:
        west, south, east, north = (float(value) for value in region)
    except (TypeError, ValueError):
        return None
    if not (-180 <= east < west <= 180 and -90 <= south < north <= 90):
        return None
    return shapely.union_all([shapely.box(west, south, 180, north), shapely.box(-180, south, east, north)])


def _boxes(lonlat: BaseGeometry) -> tuple[tuple[float, float, float, float], ...]:
    west, south, east, north = lonlat.bounds
    parts = shapely.get_parts(lonlat)
    bounds = shapely.bounds(parts)
    # parts at both sides of 180 degrees: one box would go around the Earth
    if west <= -179.999 and east >= 179.999 and len(parts) > 1:
        right, left = bounds[bounds[:, 0] >= 0], bounds[bounds[:, 2] <= 0]
        if len(right) + len(left) == len(bounds):
            return tuple(
                (float(b[:, 0].min()), float(b[:, 1].min()), float(b[:, 2].max()), float(b[:, 3].max()))
                for b in (right, left)
            )
    return ((west, south, east, north),)


def _unit(lonlat: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = np.radians(lonlat[:, 0]), np.radians(lonlat[:, 1])
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _angle(points: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.degrees(np.arccos(np.clip(points @ middle, -1, 1)))
