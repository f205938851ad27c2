"""Products and elevation models as STAC items: of a folder of products, and of a collection of tiles."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import shapely

from icemap_xr.access import Access
from icemap_xr.errors import ElevationError, InputError
from icemap_xr.footprints import Area
from icemap_xr.grd.annotation import Annotation, read_annotation
from icemap_xr.grd.dem import Datum, Dem, dem_from_items
from icemap_xr.grd.fetch import Fetcher
from icemap_xr.grd.product import annotation_hrefs
from icemap_xr.grid import RegionGrid
from icemap_xr.sentinel1 import ORBITS_PER_CYCLE, orbit_offset
from icemap_xr.stac_read import Query, read_items
from icemap_xr.types import StrPath
from icemap_xr.web import Patience, Web

COLLECTION = "sentinel-1-grd"
#: the Copernicus DEM was published in 2019 and later, its items have dates from 2021 on
_ALWAYS = (np.datetime64("2000-01-01", "ns"), np.datetime64("2100-01-01", "ns"))


def items_from_products(paths: StrPath | Iterable[StrPath]) -> pystac.ItemCollection:
    """Return the items of GRD products in the SAFE format, unpacked, for `build_cube(grd=)`.

    Parameters
    ----------
    paths
        A product, a folder of products, or several of either.

    Raises
    ------
    InputError
        There is no product.
    AnnotationError
        The annotation of one is missing or damaged.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    rasters = sorted({raster for path in given for raster in Path(path).glob("**/measurement/*.tif*")})
    products: dict[Path, list[Path]] = {}
    for raster in rasters:
        products.setdefault(raster.resolve().parent.parent, []).append(raster.resolve())
    if not products:
        raise InputError(f"{', '.join(map(str, given))} holds no product: give unpacked .SAFE folders of GRD products")
    return pystac.ItemCollection([_item(folder, files) for folder, files in products.items()])


def _item(folder: Path, files: list[Path]) -> pystac.Item:
    known = {file: _annotation(file) for file in files}
    first = next(iter(known.values()))
    one = first.identity
    platform = f"sentinel-1{one.mission[-1].lower()}"
    start = one.start.astype("M8[us]").item().replace(tzinfo=UTC)
    velocity = first.orbit.at(np.array([0.5 * first.lines * first.interval]))[1][0]
    properties: dict[str, Any] = {
        "platform": platform,
        "constellation": "sentinel-1",
        "sar:instrument_mode": one.mode,
        "sar:polarizations": sorted(each.identity.polarisation for each in known.values()),
        "sat:absolute_orbit": one.orbit,
        "sat:orbit_state": "ascending" if velocity[2] > 0 else "descending",
    }
    offset = orbit_offset(platform, start)
    if offset is not None:
        properties["sat:relative_orbit"] = (one.orbit - offset) % ORBITS_PER_CYCLE + 1
    outline = _outline(first)
    item = pystac.Item(
        folder.name.removesuffix(".SAFE"),
        shapely.geometry.mapping(outline),
        list(outline.bounds),
        start,
        properties,
        collection=COLLECTION,
    )
    for file, each in known.items():
        item.add_asset(each.identity.polarisation.lower(), pystac.Asset(str(file), media_type="image/tiff"))
    return item


def _annotation(file: Path) -> Annotation:
    href = annotation_hrefs(str(file))["annotation"]
    return read_annotation(Fetcher(Access(), Patience())(href), href)


def _outline(annotation: Annotation) -> Any:
    """Return the outline through the outer points of the annotated grid; over the date line lon goes beyond 180."""
    points = annotation.points
    lon = points.lon.copy()
    if np.ptp(lon) > 180:
        lon = np.where(lon < 0, lon + 360, lon)
    on_rim = (
        (points.line == points.line.min())
        | (points.line == points.line.max())
        | (points.pixel == points.pixel.min())
        | (points.pixel == points.pixel.max())
    )
    line, pixel = (values - values.mean() for values in (points.line[on_rim], points.pixel[on_rim]))
    order = np.argsort(np.arctan2(line / np.ptp(line), pixel / np.ptp(pixel)))
    return shapely.Polygon(np.stack([lon[on_rim][order], points.lat[on_rim][order]], 1))


def find_dem(
    where: str,
    grid: RegionGrid,
    *,
    collection: str = "cop-dem-glo-30",
    heights: Datum = "egm2008",
    asset: str = "data",
    **options: Any,
) -> Dem:
    """Return the tiles of an elevation model that a grid needs, from a STAC API or a static catalogue.

    Parameters
    ----------
    where
        URL or path of the catalogue.
    grid
        The grid; tiles within 10 km of it are taken.
    collection, heights, asset
        Which collection, what its heights refer to, and the key of its raster.
    options
        Further options of `Dem`, such as `access` and `geoid`.

    Raises
    ------
    CatalogUnavailableError
        The catalogue does not answer.
    ElevationError
        It has no tile there.
    """
    geobox = grid.geobox.pad(int(10e3 / grid.resolution) + 1)
    area = Area.of(geobox.extent.to_crs("EPSG:4326", grid.resolution * max(grid.shape) / 20).geom)
    found = read_items(where, Query([collection], area.boxes, _ALWAYS), Web(Patience()))
    items = [item for item in found if item.collection_id == collection]
    if not items:
        raise ElevationError(f"{where} has no item of {collection} at the grid: name another collection or catalogue")
    for item in items:
        item.make_asset_hrefs_absolute()
    return dem_from_items(items, heights, asset=asset, **options).near(grid.geobox)
