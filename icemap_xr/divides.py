"""Glacier complexes divided into glaciers, with ids that stay the same through the years."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from icemap_xr.complexes import (
    checked_dem,
    checked_inventory,
    checked_outlines,
    complexes,
    no_inventory,
    polygons_of,
    taken_ids,
)
from icemap_xr.errors import DividesWarning, InputError, warn
from icemap_xr.glaciercuts import burn, cut, remnants, zones_of
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels import flowsheds, terrain
from icemap_xr.kernels.flow import Flow, Routing

# the published coefficient of the disc counts flow accumulation in pixels of 10 m
_PUBLISHED_PIXEL_M2 = 100.0
_EIGHT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class DivideOptions:
    """Options of `divide`, with the published defaults.

    Parameters
    ----------
    pixel_size
        Side of the pixels on which divides are drawn, m. Take 25 to 50 for ice caps.
    conditioning
        How depressions of the DEM are removed: ``"fill"`` or ``"breach"``.
    smoothing
        Side of the kernel of the feature-preserving smoothing, pixels, odd; 1 is none.
    buffer1, buffer2
        The DEM is used up to `buffer1` metres around the ice, the gutter begins `buffer2` metres from it.
    gutter_size
        Width of the gutter, pixels.
    gutter_depth
        How far it is sunk into the DEM, m.
    routing
        ``"dinf"``, ``"d8"`` or ``"mfd"``.
    sort_by
        By what pour points are sorted: ``"accumulation"`` or ``"elevation"``.
    a, b, c
        The disc around a pour point has the radius `min(c, a * F**b)` metres, with the flow accumulation F in units of
        100 m2: the pixels of the published program, so that the disc does not change with `pixel_size`.
    percentile
        Share of the pour points left out from the small end, 0..1.
    sliver_area, narrow_area, compactness
        A piece below `sliver_area` m2 is a sliver, and so is one below `narrow_area` m2 whose compactness
        `2 sqrt(pi area) / perimeter` is below `compactness`.
    sliver_filter
        Whether slivers are given to their neighbours. Ice on an earlier glacier is none: it has its id.

    Raises
    ------
    InputError
        A value is not allowed.
    """

    pixel_size: float = 10.0
    conditioning: Literal["fill", "breach"] = "fill"
    smoothing: int = 7
    buffer1: float = 160.0
    buffer2: float = 60.0
    gutter_size: int = 1
    gutter_depth: float = 100.0
    routing: Routing = "dinf"
    sort_by: Literal["accumulation", "elevation"] = "accumulation"
    a: float = 5.72
    b: float = 0.5
    c: float = 1400.0
    percentile: float = 0.8
    sliver_area: float = 1e5
    narrow_area: float = 2e5
    compactness: float = 0.5
    sliver_filter: bool = True

    def __post_init__(self) -> None:
        """Refuse values that have no meaning."""
        for name in ("pixel_size", "a", "b", "c", "buffer1"):
            _require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a number > 0")
        for name in ("buffer2", "gutter_depth", "sliver_area", "narrow_area"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "a number >= 0")
        for name in ("percentile", "compactness"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a share, 0..1")
        _require(self.smoothing >= 1 and self.smoothing % 2 == 1, "smoothing", self.smoothing, "an odd number >= 1")
        _require(self.gutter_size >= 1, "gutter_size", self.gutter_size, "a number of pixels >= 1")
        _require(self.conditioning in ("fill", "breach"), "conditioning", self.conditioning, "'fill' or 'breach'")
        _require(self.routing in ("dinf", "d8", "mfd"), "routing", self.routing, "'dinf', 'd8' or 'mfd'")
        keys = ("accumulation", "elevation")
        _require(self.sort_by in keys, "sort_by", self.sort_by, "'accumulation' or 'elevation'")
        inner = self.pixels(self.buffer2) + self.gutter_size
        _require(inner <= self.pixels(self.buffer1), "buffer1", self.buffer1, "at least buffer2 and the gutter")

    def pixels(self, length: float) -> int:
        """Return metres in whole pixels."""
        return round(length / self.pixel_size)


def divide(
    outlines: gpd.GeoDataFrame,
    dem: xr.DataArray,
    *,
    earlier: gpd.GeoDataFrame | None = None,
    id_column: str | None = None,
    options: DivideOptions | None = None,
) -> gpd.GeoDataFrame:
    """Divide glacier complexes into glaciers.

    Without `earlier` every complex is divided into flowsheds (Kienholz et al. 2013). With it the glaciers of an earlier
    inventory keep their ids and their divides, what has become ice since is given to them by flooding the terrain from
    high to low, and ice that touches none of them gets a new id. All years have the same divides: those of the ground
    that was ice in any of them. The glaciers of a year are its outlines, cut: their areas add up to those of the
    outlines.

    Parameters
    ----------
    outlines
        Outlines in a projected CRS in metres, of one or several years (column `year`); overlapping or touching
        polygons of one year are one complex. Invalid ones are repaired.
    dem
        Elevations `(y, x)` in metres with a CRS, on any grid, also geographic; NaN or the declared nodata value is a
        void. NumPy or Dask.
    earlier
        Glaciers with ids in any CRS, for example of the RGI. Where two overlap, the first has the ground.
    id_column
        Column of `earlier` with its ids; by default the first it has of glacier_id, rgi_id, RGIId, glims_id, GLIMSId.
    options
        Parameters of the method; the published ones by default.

    Returns
    -------
    geopandas.GeoDataFrame
        In the CRS of the outlines, one row per glacier and year, by year and id: `glacier_id` (str: that of the earlier
        inventory, or the GLIMS id of a point on the glacier, never one that is taken), `year` where the outlines have
        it, `origin` (``"earlier"`` or ``"new"``), `area_km2` (float64, planar) and `geometry`.

    Warns
    -----
    DividesWarning
        The DEM ends near the ice, glaciers of `earlier` overlap, or ice touches no flowshed.

    Raises
    ------
    InputError
        An option, a column or the DEM cannot be used; it has voids on the ice.
    GridError
        The outlines have no CRS, or one that is not in metres.
    SchemaError
        The DEM has no `(y, x)` grid with a CRS.
    """
    options = options or DivideOptions()
    frame = checked_outlines(outlines)
    ground = checked_dem(dem)
    inventory = no_inventory(frame.crs) if earlier is None else checked_inventory(earlier, id_column, frame.crs)
    taken = set(inventory["glacier_id"]) | (set() if earlier is None else taken_ids(earlier))
    found: list[dict[str, Any]] = []
    if len(frame):
        # the same for all calls, so that divides that are copied stay where they are
        lattice = Affine.scale(options.pixel_size, -options.pixel_size)
        for ice, old in complexes(frame, inventory, options.pixel_size):
            box = _window(np.concatenate([ice.geometry, old.geometry]), lattice, options, str(frame.crs))
            if earlier is None:
                labels = _flowsheds(ice, box, ground, options)
            else:
                labels = _copied(ice, old, box, ground, options)
            whole = ice.geometry.union_all()
            zones = zones_of(labels, box)
            names = _names(zones, old, whole, box, taken)
            found += cut(ice, zones, names, remnants(whole, old, box, labels))
    return _table(found, frame)


def _require(good: bool, name: str, value: object, allowed: str) -> None:
    if not good:
        raise InputError(f"{name} {value!r} is not allowed: give {allowed}")


def _window(shape: NDArray[Any], lattice: Affine, options: DivideOptions, crs: str) -> GeoBox:
    """Return the pixels around geometries up to `buffer1`, on the lattice."""
    west, south, east, north = shapely.total_bounds(shape)
    margin = options.pixels(options.buffer1) + 1
    (left, top), (right, bottom) = ~lattice @ (west, north), ~lattice @ (east, south)
    columns = math.floor(left + 1e-6) - margin, math.ceil(right - 1e-6) + margin
    rows = math.floor(top + 1e-6) - margin, math.ceil(bottom - 1e-6) + margin
    box = GeoBox((rows[1] - rows[0], columns[1] - columns[0]), lattice * Affine.translation(columns[0], rows[0]), crs)
    RegionGrid(box)  # refuses what is not in metres
    return box


def _elevations(
    ground: xr.DataArray, box: GeoBox, ice: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the DEM on a grid, its voids filled from the nearest pixel, and where they are; none may be on the ice."""
    values = np.asarray(ground.odc.reproject(box, resampling="cubic", dst_nodata=math.nan).compute(), np.float64)
    void = ~np.isfinite(values)
    if (void & ice).any():
        raise InputError(
            f"the DEM has voids on {(void & ice).sum() / ice.sum():.1%} of the ice of a complex: "
            "fill them, or give a DEM that covers it"
        )
    if void.any():
        nearest = distance_transform_edt(void, return_distances=False, return_indices=True)
        values = values[tuple(nearest)]
    return values, void


def _flowsheds(ice: gpd.GeoDataFrame, box: GeoBox, ground: xr.DataArray, options: DivideOptions) -> NDArray[np.int32]:
    """Divide one complex into flowsheds."""
    inside = burn([ice.geometry.union_all()], box) > 0
    if not inside.any() or ice.geometry.union_all().area < options.sliver_area:
        return np.ones(box.shape, np.int32)  # whatever its parts are, they are slivers of one glacier
    cell, width = options.pixel_size, options.gutter_size
    domain = binary_dilation(inside, iterations=options.pixels(options.buffer1))
    ring = flowsheds.gutter(inside, options.pixels(options.buffer2), width)
    heights, void = _elevations(ground, box, inside)
    if (void & (domain | ring)).any():
        share = (void & domain).sum() / domain.sum()
        message = f"the DEM ends or has voids within {options.buffer1:g} m of the ice, on {share:.1%} of that ground: "
        warn(message + "ice that would flow out there goes to its neighbours", DividesWarning)
        domain, ring = domain & ~void, ring & ~void
    dem = terrain.smooth(heights, cell, options.smoothing)
    rim = domain & binary_dilation(~domain, border_value=1)
    dem = {"fill": terrain.fill, "breach": terrain.breach}[options.conditioning](dem, domain, rim)
    dem[ring] -= options.gutter_depth
    flow = Flow(dem, domain, options.routing)
    accumulation = flow.accumulation()
    key = accumulation if options.sort_by == "accumulation" else dem
    unit = cell**2 / _PUBLISHED_PIXEL_M2
    least = (options.buffer2 / options.a) ** (1 / options.b) / unit
    points = flowsheds.pour_points(accumulation, ring, width, least, options.percentile, key)
    labels, kept = flowsheds.flowsheds(flow, points)
    labels, alone = flowsheds.complete(np.where(inside, labels, 0).astype(np.int32), inside)
    if alone and kept:
        warn(f"{alone} pieces of ice touch no flowshed: each is a glacier of its own", DividesWarning)
    radii = np.minimum(options.c, options.a * (points.pixels[kept] * unit) ** options.b) / cell
    labels = flowsheds.join_tongues(labels, inside, points.pixel[kept], radii)
    return _without_slivers(labels, options)


def _copied(
    ice: gpd.GeoDataFrame, old: gpd.GeoDataFrame, box: GeoBox, ground: xr.DataArray, options: DivideOptions
) -> NDArray[np.int32]:
    """Give ice to the earlier glaciers, numbered from 1 in their order; what touches none gets further numbers."""
    inside = burn([ice.geometry.union_all()], box) > 0
    markers = burn(old.geometry, box) if len(old) else np.zeros(box.shape, np.int32)
    overlap = old.geometry.area.sum() - old.geometry.union_all().area if len(old) else 0.0
    if overlap > old.geometry.area.sum() * 1e-6:
        warn(
            f"glaciers of the earlier inventory overlap on {overlap / 1e6:.3g} km2: the first has the ground",
            DividesWarning,
        )
    domain = inside | (markers > 0)
    labels = np.where(inside, markers, 0).astype(np.int32)
    if (inside & (markers == 0)).any() and markers.any():
        heights, void = _elevations(ground, box, inside)
        domain &= ~void
        dem = terrain.smooth(heights, options.pixel_size, options.smoothing)
        labels = np.where(inside, terrain.watershed(-dem, markers, domain), 0).astype(np.int32)
    patches, _ = label(inside & (labels == 0), _EIGHT)
    labels = np.where(patches > 0, patches + len(old), labels).astype(np.int32)
    return _without_slivers(labels, options, keep=range(1, len(old) + 1), fixed=markers > 0)


def _without_slivers(
    labels: NDArray[np.int32],
    options: DivideOptions,
    keep: Sequence[int] = (),
    fixed: NDArray[np.bool_] | None = None,
) -> NDArray[np.int32]:
    if not options.sliver_filter:
        return labels
    o = options
    return flowsheds.absorb_slivers(labels, o.pixel_size, o.sliver_area, o.narrow_area, o.compactness, keep, fixed)


def _names(
    zones: dict[int, Any], old: gpd.GeoDataFrame, ice: Any, box: GeoBox, taken: set[str]
) -> dict[int, tuple[str, str]]:
    """Return id and origin of each zone: that of the earlier glacier, or a new one."""
    names = {number: (str(name), "earlier") for number, name in enumerate(old["glacier_id"], start=1)}
    for number, zone in zones.items():
        if number not in names:
            inside = polygons_of(shapely.intersection(zone, ice))
            point = (ice if inside.is_empty else inside).representative_point()
            names[number] = (_new_id(gpd.GeoSeries([point], crs=str(box.crs)), taken), "new")
    return names


def _new_id(point: gpd.GeoSeries, taken: set[str]) -> str:
    """Return the GLIMS id of a point, moved east by the least step at which it is free, and take it."""
    where = point.to_crs("EPSG:4326").iloc[0]
    east, north = round(where.x * 1000), round(where.y * 1000)
    for step in range(360_000):
        name = f"G{(east + step) % 360_000:06d}E{abs(north):05d}{'N' if north >= 0 else 'S'}"
        if name not in taken:
            break
    taken.add(name)
    return name


def _table(found: list[dict[str, Any]], frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return the glaciers, sorted, with their areas."""
    table = pd.DataFrame(found, columns=["glacier_id", "year", "origin", "geometry"])
    out = gpd.GeoDataFrame(
        {
            "glacier_id": table["glacier_id"].astype(object),
            "year": table["year"].to_numpy(frame["year"].dtype),
            "origin": table["origin"].astype(object),
        },
        geometry=gpd.GeoSeries(table["geometry"], crs=frame.crs),
        crs=frame.crs,
    )
    # pieces of one glacier that lie in several complexes are one glacier
    if out.duplicated(["glacier_id", "year"]).any():
        out = out.dissolve(["glacier_id", "year"], aggfunc="first").reset_index()
    out = out.sort_values(["year", "glacier_id"], ignore_index=True)
    out["area_km2"] = out.geometry.area.to_numpy() / 1e6
    columns = ["glacier_id", *(["year"] if frame.attrs["has_year"] else []), "origin", "area_km2", "geometry"]
    return out[columns]
