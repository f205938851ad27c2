"""Where a point of the map lies in the image: by the range and Doppler equations, or by ground control points."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyproj
from numpy.typing import NDArray

from icemap_xr.errors import GeolocationError
from icemap_xr.grd.annotation import Annotation, TiePoints
from icemap_xr.kernels import gcpfit
from icemap_xr.kernels.rangedoppler import zero_doppler

Floats = NDArray[np.float64]

#: points farther from the middle of a scene than this are not looked up, metres
_FAR = 1.0e6


class Geometry(Protocol):
    """Places points of the map in an image; lines and pixels count the centres of pixels from 0."""

    @property
    def method(self) -> str:
        """Name of the geometry."""

    def locate(self, lon: Floats, lat: Floats, height: Floats) -> tuple[Floats, Floats]:
        """Return lines and pixels of points (degrees, metres above WGS 84); NaN where they cannot be seen."""

    def surface(self, lon: Floats, lat: Floats) -> Floats:
        """Return heights between those of the control points, metres above WGS 84."""

    def residual(self, *, known: bool, height: float | None) -> float:
        """Return the root mean square error at control points that did not take part, in pixels of the image.

        With their own heights if the ground is `known`, else at one `height`, else with the height between their
        neighbours.
        """


@dataclass(frozen=True)
class GcpGeometry:
    """A geometry fitted to ground control points.

    The points are fitted in a stereographic projection around their middle, so that neither the pole nor the date line
    is a special place.

    Parameters
    ----------
    points
        The control points.

    Raises
    ------
    GeolocationError
        The points are too few, or lie on one line.
    """

    points: TiePoints
    method: str = "gcp"
    _fit: Any = field(init=False, repr=False, compare=False)
    _to_plane: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Fit."""
        points = self.points
        if points.line.size < gcpfit.LEAST_POINTS:
            raise GeolocationError(
                f"{points.line.size} ground control points are not enough, wanted are {gcpfit.LEAST_POINTS}: take the "
                "product as it was published"
            )
        object.__setattr__(self, "_to_plane", _around(points))
        x, y = self._plane(points.lon, points.lat)
        spread = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()]), compute_uv=False)
        if not np.isfinite(x + y).all() or spread[1] < 1e-3 * spread[0]:
            raise GeolocationError("the ground control points lie on one line or at no place of the earth")
        object.__setattr__(self, "_fit", gcpfit.fit(x, y, points.height, self._image()))

    def _image(self) -> Floats:
        return np.stack([self.points.line, self.points.pixel], 1)

    def _plane(self, lon: Floats, lat: Floats) -> tuple[Floats, Floats]:
        x, y = self._to_plane.transform(lon, lat)
        return np.asarray(x, np.float64), np.asarray(y, np.float64)

    def locate(self, lon: Floats, lat: Floats, height: Floats) -> tuple[Floats, Floats]:
        """Return lines and pixels."""
        x, y = self._plane(lon, lat)
        near = np.hypot(x, y) < _FAR
        found = np.full((*x.shape, 2), np.nan)
        found[near] = self._fit.at(x[near], y[near], np.broadcast_to(height, x.shape)[near])
        return found[..., 0], found[..., 1]

    def surface(self, lon: Floats, lat: Floats) -> Floats:
        """Return heights."""
        x, y = self._plane(lon, lat)
        near = np.hypot(x, y) < _FAR
        out = np.full(x.shape, np.nan)
        out[near] = self._fit.height(x[near], y[near])
        return out

    def residual(self, *, known: bool, height: float | None) -> float:
        """Return the error at control points that were held back; see `Geometry`."""
        x, y = self._plane(self.points.lon, self.points.lat)
        own, other = gcpfit.held_back(x, y, self.points.height, self._image(), height)
        return gcpfit.rms(own if known else other)

    def heights_between(self) -> Floats:
        """Return the height that the other points tell at each control point, metres."""
        return gcpfit.heights_between(*self._plane(self.points.lon, self.points.lat), self.points.height)

    def residuals(self) -> dict[str, float]:
        """Return the errors at control points that were held back, in pixels of the image.

        Returns
        -------
        dict
            `rms` with the height of the point itself, and `rms_unknown_height` with the height between its
            neighbours, which is what geocoding without an elevation model knows of the ground.
        """
        x, y = self._plane(self.points.lon, self.points.lat)
        own, surface = gcpfit.held_back(x, y, self.points.height, self._image())
        return {"rms": gcpfit.rms(own), "rms_unknown_height": gcpfit.rms(surface)}


@dataclass(frozen=True)
class RangeDoppler:
    """The geometry of an annotation: orbit, time of each line, and polynomials of ground range."""

    annotation: Annotation
    method: str = "range-doppler"
    _surface: GcpGeometry = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Take the heights of the annotated grid for where no elevation model is."""
        object.__setattr__(self, "_surface", GcpGeometry(self.annotation.points))

    def locate(self, lon: Floats, lat: Floats, height: Floats) -> tuple[Floats, Floats]:
        """Return lines and pixels."""
        return self.sight(lon, lat, height)[:2]

    def sight(self, lon: Floats, lat: Floats, height: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return lines, pixels, slant ranges in metres and unit vectors `(..., 3)` to the platform (earth-fixed)."""
        one = self.annotation
        points = earth_centred(lon, lat, np.broadcast_to(height, np.shape(lon)))
        times, distances, sight = zero_doppler(points, one.orbit, 0.5 * one.lines * one.interval)
        pixels = one.ground_range.ground(times, distances) / one.spacing[1]
        return times / one.interval + np.interp(pixels, *one.shift), pixels, distances, sight

    def surface(self, lon: Floats, lat: Floats) -> Floats:
        """Return heights."""
        return self._surface.surface(lon, lat)

    def residual(self, *, known: bool, height: float | None) -> float:
        """Return the error at all points of the annotated grid; see `Geometry`."""
        points = self.annotation.points
        if known:
            heights = points.height
        else:
            heights = self._surface.heights_between() if height is None else np.full(points.height.shape, height)
        lines, pixels = self.locate(points.lon, points.lat, heights)
        return gcpfit.rms(np.stack([lines - points.line, pixels - points.pixel], 1))

    def residuals(self) -> dict[str, float]:
        """Return the errors at all points of the annotated grid, in pixels; none of them was used for a fit."""
        return {"rms": self.residual(known=True, height=None)}


def _around(points: TiePoints) -> pyproj.Transformer:
    """Return the transformation from lon/lat to a stereographic plane around the points."""
    middle = earth_centred(points.lon, points.lat, np.zeros_like(points.lon)).mean(axis=0)
    lon, lat = np.degrees(np.arctan2(middle[1], middle[0])), np.degrees(np.arctan2(middle[2], np.hypot(*middle[:2])))
    plane = pyproj.CRS.from_proj4(f"+proj=stere +lat_0={lat:.12f} +lon_0={lon:.12f} +ellps=WGS84")
    return pyproj.Transformer.from_crs("EPSG:4326", plane, always_xy=True)


@lru_cache(maxsize=1)
def _geocentric() -> pyproj.Transformer:
    return pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)


def earth_centred(lon: Floats, lat: Floats, height: Floats) -> Floats:
    """Return earth-centred coordinates `(..., 3)` in metres."""
    return np.stack([np.asarray(one, np.float64) for one in _geocentric().transform(lon, lat, height)], axis=-1)
