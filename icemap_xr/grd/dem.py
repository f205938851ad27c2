"""Heights of the ground above WGS 84, from files or the items of a STAC collection such as the Copernicus DEM."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyproj
import pystac
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj.exceptions import ProjError
from rasterio.env import setenv
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from icemap_xr.access import Access
from icemap_xr.errors import ElevationError, ReadError
from icemap_xr.urls import scrub
from icemap_xr.web import Patience

Floats = NDArray[np.float64]
Datum = Literal["ellipsoid", "egm2008", "egm96"]

#: compound CRS of longitude, latitude and height above the geoid
_COMPOUND = {"egm2008": "EPSG:4326+3855", "egm96": "EPSG:4326+5773"}
#: no ground lies beyond, metres
_LOWEST, _HIGHEST = -600.0, 9100.0
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Tile:
    """A raster of an elevation model.

    Parameters
    ----------
    href
        Path or address.
    bounds
        West, south, east, north in degrees where a catalogue tells them, so that others need not be opened.
    """

    href: str
    bounds: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Dem:
    """An elevation model.

    Parameters
    ----------
    tiles
        Its rasters; where they overlap the first with a value counts. A path or several may be given.
    heights
        What the heights refer to: ``"ellipsoid"`` (WGS 84), ``"egm2008"`` (Copernicus DEM) or ``"egm96"`` (SRTM).
        There is no default: 30 m of difference move a pixel by 40 m.
    geoid
        Height of the geoid above the ellipsoid where `heights` refers to one: a raster, metres as a number, or None
        for PROJ's own grid (``pyproj sync --file us_nga_egm08_25`` gets it).
    missing
        Where no tile lies: ``"error"``, or ``"sea"`` for height 0 above the geoid (the Copernicus DEM has no tiles of
        open sea). Where `heights` refers to the ellipsoid, this needs `geoid`: the sea lies on it.
    voids
        Where a tile has no value: ``"error"``, or ``"nodata"`` to leave such pixels without an observation.
    access
        Which addresses may be opened, and with which credentials.

    Raises
    ------
    ElevationError
        A choice is not allowed.
    """

    tiles: tuple[Tile, ...]
    heights: Datum
    geoid: str | float | None = None
    missing: Literal["error", "sea"] = "error"
    voids: Literal["error", "nodata"] = "error"
    access: Access = field(default_factory=Access)

    def __post_init__(self) -> None:
        """Take paths, and check the choices."""
        given: Any = self.tiles
        several = [given] if isinstance(given, str | os.PathLike | Tile) else list(given)
        tiles = tuple(one if isinstance(one, Tile) else Tile(os.fspath(one)) for one in several)
        object.__setattr__(self, "tiles", tiles)
        if not tiles:
            raise ElevationError("the elevation model has no tiles: give one raster or more")
        for name, value, allowed in (
            ("heights", self.heights, ("ellipsoid", *_COMPOUND)),
            ("missing", self.missing, ("error", "sea")),
            ("voids", self.voids, ("error", "nodata")),
        ):
            if value not in allowed:
                raise ElevationError(f"{name}={value!r} is not allowed: choose one of {', '.join(allowed)}")
        if self.missing == "sea" and self.heights == "ellipsoid" and self.geoid is None:
            raise ElevationError(
                "missing='sea' with heights='ellipsoid' needs geoid= (a raster or metres): the sea lies on the geoid, "
                "tens of metres from the ellipsoid"
            )

    def read(self, geobox: GeoBox) -> Floats:
        """Return the heights above WGS 84 on a grid, bilinear.

        Returns
        -------
        numpy.ndarray
            `(y, x)` float64, metres; NaN only with ``voids="nodata"``.

        Raises
        ------
        ElevationError
            The model does not cover the grid, or has voids there.
        ReadError
            A tile could not be read.
        """
        found = np.full(geobox.shape, np.nan)
        covered = np.zeros(geobox.shape, bool)
        area = _degrees(geobox)
        for tile in self.tiles:
            if tile.bounds is not None and not _meet(tile.bounds, area):
                continue
            values, inside = self._tile(tile.href, geobox)
            found = np.where(np.isnan(found), values, found)
            covered |= inside
            if np.isfinite(found).all():
                break
        void = np.isnan(found)
        sea = void & ~covered
        if void.any():
            found = self._fill(found, sea, void & covered, area)
        if self.heights != "ellipsoid":
            return found + self._undulation(geobox)
        return np.where(sea, self._undulation(geobox), found) if sea.any() else found

    def near(self, geobox: GeoBox) -> Dem:
        """Return the model with only those tiles that may lie within 10 km of a grid.

        Raises
        ------
        ElevationError
            None does.
        """
        area = _degrees(geobox.pad(int(10e3 / abs(geobox.transform.a)) + 1))
        kept = tuple(tile for tile in self.tiles if tile.bounds is None or _meet(tile.bounds, area))
        if not kept:
            where = ", ".join(f"{value:.3f}" for value in area)
            raise ElevationError(f"no tile of the elevation model lies at {where} (W S E N): search for others")
        return replace(self, tiles=kept)

    def _fill(self, found: Floats, missing: NDArray[Any], voids: NDArray[Any], area: tuple[float, ...]) -> Floats:
        where = ", ".join(f"{value:.3f}" for value in area)
        if missing.any() and self.missing == "error":
            raise ElevationError(
                f"the elevation model does not cover {missing.mean():.1%} of the block at {where} (W S E N): give more "
                "tiles, or missing='sea' where only open sea has none"
            )
        if voids.any() and self.voids == "error":
            raise ElevationError(
                f"the elevation model has voids in {voids.mean():.1%} of the block at {where} (W S E N): fill them, or "
                "say voids='nodata' to leave them without an observation"
            )
        return np.where(missing, 0.0, found)

    def _tile(self, href: str, geobox: GeoBox) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the values of a tile on a grid, NaN where it has none, and where its rectangle lies."""
        self.access.check(href, local=True, what="elevation model")
        try:
            with opening(self.access, href, Patience()), rasterio.open(self.access.signed(href, Patience())) as src:
                if src.crs is None or src.transform.is_identity:
                    raise ElevationError(f"{scrub(href)} has no CRS or geotransform: geocode the elevation model first")
                to = {"crs": str(geobox.crs), "transform": geobox.transform}
                to |= {"height": geobox.shape[0], "width": geobox.shape[1]}
                with WarpedVRT(
                    src,
                    resampling=rasterio.enums.Resampling.bilinear,
                    nodata=np.nan,
                    src_nodata=src.nodata,
                    dtype="float32",
                    tolerance=1e-3,
                    **to,
                ) as warped:
                    values = warped.read(1).astype(np.float64)
                values[~((values > _LOWEST) & (values < _HIGHEST))] = np.nan
                # with a value everywhere, the tile lies everywhere
                inside = _rectangle(src, geobox) if np.isnan(values).any() else np.ones(values.shape, bool)
        except ElevationError:
            raise
        except (OSError, RuntimeError, RasterioError) as error:
            told = scrub(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
            raise ReadError(f"elevation model {scrub(href)} could not be read ({told}): check that it exists") from None
        return np.where(inside, values, np.nan), inside

    def _undulation(self, geobox: GeoBox) -> Floats | float:
        """Return the height of the geoid above the ellipsoid."""
        if isinstance(self.geoid, int | float):
            return float(self.geoid)
        if self.geoid is not None:
            return replace(self, tiles=(Tile(self.geoid),), heights="ellipsoid", missing="error", voids="error").read(
                geobox
            )
        lon, lat = lonlat(geobox, *np.meshgrid(*(np.arange(n) for n in geobox.shape), indexing="ij"))
        try:
            with warnings.catch_warnings():
                # the error says what to do
                warnings.simplefilter("ignore", UserWarning)
                heights = _geoid(self.heights).transform(lon, lat, np.zeros_like(lon), errcheck=True)[2]
        except ProjError:
            raise ElevationError(
                f"the geoid {self.heights} is not installed: get it with pyproj sync --file us_nga_egm08_25 (egm96: "
                "us_nga_egm96_15), give geoid= (a raster or metres), or a model with heights='ellipsoid'"
            ) from None
        return np.asarray(heights, np.float64)


def dem_from_items(
    items: Iterable[pystac.Item], heights: Datum = "egm2008", *, asset: str = "data", **options: Any
) -> Dem:
    """Return the elevation model of a STAC collection's items, such as those of ``cop-dem-glo-30``.

    Parameters
    ----------
    items
        Its items.
    heights
        What the heights refer to; the Copernicus DEM's are above EGM2008.
    asset
        Key of the raster.
    options
        Further options of `Dem`.

    Raises
    ------
    ElevationError
        There is no item, or one lacks the asset or its bbox.
    """
    tiles = []
    for item in items:
        if asset not in item.assets or not item.bbox:
            raise ElevationError(
                f"item {item.id!r} has no asset {asset!r} or no bbox; it has {', '.join(item.assets)}: name it, asset="
            )
        href = item.assets[asset].get_absolute_href() or item.assets[asset].href
        box = item.bbox if len(item.bbox) == 4 else [*item.bbox[:2], *item.bbox[3:5]]
        tiles.append(Tile(href, (box[0], box[1], box[2], box[3])))
    return Dem(tuple(tiles), heights, **options)


@contextmanager
def opening(access: Access, href: str, patience: Patience) -> Iterator[None]:
    """Set GDAL up to open one address, with its credentials."""
    options = access.options(href, patience)
    keys = {name: options.pop(name) for name in _KEYS if name in options}
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_HTTP_TIMEOUT="60", **options):
        setenv(**keys)
        yield


@lru_cache(maxsize=2)
def _geoid(datum: str) -> pyproj.Transformer:
    # without allow_ballpark=False PROJ takes the geoid for the ellipsoid where it lacks the grid, and says nothing
    return pyproj.Transformer.from_crs(
        _COMPOUND[datum], "EPSG:4979", always_xy=True, only_best=True, allow_ballpark=False
    )


def lonlat(geobox: GeoBox, rows: Any, columns: Any) -> tuple[Floats, Floats]:
    """Return degrees of pixel centres, given as (fractional) indices of rows and columns."""
    x, y = map_places(geobox, rows, columns)
    lon, lat = to_degrees(str(geobox.crs)).transform(x, y)
    return np.asarray(lon, np.float64), np.asarray(lat, np.float64)


def map_places(geobox: GeoBox, rows: Any, columns: Any) -> tuple[Floats, Floats]:
    """Return map coordinates of pixel centres."""
    t = geobox.transform
    c, r = np.asarray(columns) + 0.5, np.asarray(rows) + 0.5
    return t.a * c + t.b * r + t.c, t.d * c + t.e * r + t.f


@lru_cache(maxsize=16)
def to_degrees(crs: str) -> pyproj.Transformer:
    """Return the transformation of a CRS to lon/lat."""
    return pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)


def _degrees(geobox: GeoBox) -> tuple[float, float, float, float]:
    """Return west, south, east, north of a grid; west > east over the date line."""
    rows, columns = np.meshgrid(*(np.linspace(-0.5, n - 0.5, 9) for n in geobox.shape), indexing="ij")
    lon, lat = lonlat(geobox, rows, columns)
    if lon.max() - lon.min() > 180:
        return float(lon[lon > 0].min()), float(lat.min()), float(lon[lon < 0].max()), float(lat.max())
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    if one[3] < other[1] or one[1] > other[3]:
        return False
    spans = [[(w, e)] if w <= e else [(w, 180.0), (-180.0, e)] for w, e in ((one[0], one[2]), (other[0], other[2]))]
    return any(a[0] <= b[1] and b[0] <= a[1] for a in spans[0] for b in spans[1])


def _rectangle(src: Any, geobox: GeoBox) -> NDArray[np.bool_]:
    """Return where a raster's rectangle lies on a grid."""
    rows, columns = np.meshgrid(*(np.arange(n) for n in geobox.shape), indexing="ij")
    x, y = map_places(geobox, rows, columns)
    there = pyproj.Transformer.from_crs(str(geobox.crs), src.crs.to_wkt(), always_xy=True).transform(x, y)
    t = ~src.transform
    column, row = t.a * there[0] + t.b * there[1] + t.c, t.d * there[0] + t.e * there[1] + t.f
    inside: NDArray[np.bool_] = (column >= 0) & (column <= src.width) & (row >= 0) & (row <= src.height)
    return inside
