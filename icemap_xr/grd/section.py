"""GRD options in plain words, as a run configuration and the command line give them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from icemap_xr.errors import InputError
from icemap_xr.grd.annotation import Radiometry
from icemap_xr.grd.dem import Datum, Dem
from icemap_xr.grd.options import Folded, Geocoding, GrdOptions


@dataclass(frozen=True)
class GrdSection:
    """Section `grd` of a run configuration; see `icemap_xr.grd.GrdOptions` and `icemap_xr.grd.Dem`.

    Parameters
    ----------
    geocoding
        How scenes in radar geometry are geocoded; without it they are refused.
    dem
        Rasters of the elevation model.
    dem_heights
        What its heights refer to; needed with `dem`.
    geoid
        Height of the geoid above the ellipsoid: a raster, or metres.
    dem_missing, dem_voids
        What becomes of ground without a tile, and of voids.
    height, radiometry, noise, border, layover_shadow, stable
        See `GrdOptions`.

    Raises
    ------
    InputError
        Something is given without `geocoding`, or the choices do not fit together.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    geocoding: Geocoding | None = None
    dem: tuple[str, ...] = ()
    dem_heights: Datum | None = None
    geoid: float | str | None = None
    dem_missing: Literal["error", "sea"] = "error"
    dem_voids: Literal["error", "nodata"] = "error"
    height: float | None = None
    radiometry: Radiometry = "sigma0"
    noise: bool = True
    border: bool = True
    layover_shadow: Folded = "keep"
    stable: str | None = None

    def __post_init__(self) -> None:
        """Check the choices."""
        self.options()

    def options(self) -> GrdOptions | None:
        """Return what `build_cube` takes; None where scenes in radar geometry are refused."""
        if self.geocoding is None:
            if any(getattr(self, one.name) != one.default for one in fields(self)):
                raise InputError("grd options are given without grd.geocoding: give terrain, ellipsoid or gcp")
            return None
        return GrdOptions(
            self.geocoding,
            dem=self._dem(),
            height=self.height,
            radiometry=self.radiometry,
            noise=self.noise,
            border=self.border,
            layover_shadow=self.layover_shadow,
            stable=self.stable,
        )

    def _dem(self) -> Dem | None:
        if not self.dem:
            if (self.dem_heights, self.geoid, self.dem_missing, self.dem_voids) != (None, None, "error", "error"):
                raise InputError("grd.dem is missing: give the elevation model that its other options are for")
            return None
        if self.dem_heights is None:
            raise InputError("grd.dem_heights is missing: say whether they refer to the ellipsoid, egm2008 or egm96")
        return Dem(self.dem, self.dem_heights, self.geoid, self.dem_missing, self.dem_voids)  # type: ignore[arg-type]
