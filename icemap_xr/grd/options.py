"""How GRD in radar geometry becomes backscatter on the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from icemap_xr.errors import InputError
from icemap_xr.grd.annotation import Radiometry
from icemap_xr.grd.dem import Dem
from icemap_xr.urls import scrub

Geocoding = Literal["terrain", "ellipsoid", "gcp"]
Folded = Literal["keep", "nodata"]


@dataclass(frozen=True)
class GrdOptions:
    """How GRD in radar geometry is calibrated, cleaned and geocoded.

    Parameters
    ----------
    geocoding
        ``"terrain"``: range-Doppler with a DEM, the only way that is right on slopes. ``"ellipsoid"``: range-Doppler at
        the heights of the annotated grid, or at `height`; right at sea and on plains. ``"gcp"``: a fit to the ground
        control points of the raster, with a DEM if one is given; for rasters that lost their annotation's geometry.
    dem
        Elevation model.
    height
        Height in metres above WGS 84 where there is no DEM; None for a surface through the control points.
    radiometry
        ``"sigma0"``, ``"gamma0"`` or ``"beta0"``, all for the ellipsoid as annotated.
    noise
        Whether thermal noise is removed.
    border
        Whether what lies beyond the recorded swath becomes nodata; without it, it is an observation of nothing.
    layover_shadow
        ``"keep"`` keeps what was observed in layover and shadow, ``"nodata"`` drops it (needs a DEM).
    stable
        Vector or raster file of ground that does not move (`icemap_xr.ground.ground_mask`): the shifts between scenes
        are looked for there alone; None for wherever there is texture that stays.

    Raises
    ------
    InputError
        A choice is not allowed, or the DEM is missing.
    """

    geocoding: Geocoding
    dem: Dem | None = None
    height: float | None = None
    radiometry: Radiometry = "sigma0"
    noise: bool = True
    border: bool = True
    layover_shadow: Folded = "keep"
    stable: str | None = None

    def __post_init__(self) -> None:
        """Check the choices."""
        for name, value, allowed in (
            ("geocoding", self.geocoding, get_args(Geocoding)),
            ("radiometry", self.radiometry, get_args(Radiometry)),
            ("layover_shadow", self.layover_shadow, get_args(Folded)),
        ):
            if value not in allowed:
                raise InputError(f"{name}={value!r} is not allowed: choose one of {', '.join(allowed)}")
        if self.dem is not None and self.height is not None:
            raise InputError("both dem and height are given: a height is for where there is no DEM")
        if self.geocoding == "terrain" and self.dem is None:
            raise InputError("geocoding='terrain' needs dem=: an elevation model, or choose geocoding='ellipsoid'")
        if self.geocoding == "ellipsoid" and self.dem is not None:
            raise InputError("geocoding='ellipsoid' takes no dem: choose geocoding='terrain'")
        if self.layover_shadow == "nodata" and self.geocoding != "terrain":
            raise InputError("layover_shadow='nodata' needs geocoding='terrain': they cannot be found without a DEM")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, without credentials; equal for what gives equal results."""
        dem = self.dem
        model = None
        if dem is not None:
            geoid = scrub(dem.geoid) if isinstance(dem.geoid, str) else dem.geoid
            model = {"tiles": [scrub(one.href) for one in dem.tiles], "heights": dem.heights, "geoid": geoid}
            model |= {"missing": dem.missing, "voids": dem.voids}
        names = ("geocoding", "height", "radiometry", "noise", "border", "layover_shadow")
        stable = None if self.stable is None else scrub(self.stable)
        return {name: getattr(self, name) for name in names} | {"stable": stable, "dem": model}

    def attributes(self) -> dict[str, str]:
        """Return what a cube says about its backscatter."""
        ground = {
            "terrain": "range-Doppler with an elevation model",
            "ellipsoid": "range-Doppler at " + self._height(),
            "gcp": "fit to ground control points at " + ("an elevation model" if self.dem else self._height()),
        }
        return {
            "radiometry": self.radiometry,
            "thermal_noise": "removed with the product's table" if self.noise else "not removed",
            "border_noise": "nodata" if self.border else "kept",
            "geocoding": ground[self.geocoding],
            "layover_shadow": self.layover_shadow,
        }

    def measured(self) -> str:
        """Return at what the error of the places is measured."""
        points = "control points held back" if self.geocoding == "gcp" else "the annotated grid"
        known = "their own heights" if self.geocoding == "gcp" else "its own heights"
        if self.dem is not None:
            return f"{points}, with {known}"
        return f"{points}, at " + ("the height between neighbours" if self.height is None else self._height())

    def _height(self) -> str:
        return "the heights of the control points" if self.height is None else f"{self.height:g} m above WGS 84"
