"""An archive, or a part of it, in the formats that other programs read: COG, GeoParquet, GeoPackage, static STAC."""

from __future__ import annotations

import gzip
import shlex
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import xarray as xr

from icemap_xr import schema
from icemap_xr.archive import attributes, check_names, open_archive
from icemap_xr.cog import write_cog
from icemap_xr.errors import IcemapError, IncompleteStoreError, InputError
from icemap_xr.folders import appearing
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import rgi7_table, write_table
from icemap_xr.regions import subset
from icemap_xr.sidecars import CLASSES, stac_item
from icemap_xr.sources import model_of
from icemap_xr.types import StrPath

FORMATS = ("cog", "parquet", "gpkg")
_RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
_COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
_PARQUET_TYPE, _PACKAGE_TYPE = "application/vnd.apache.parquet", "application/geopackage+sqlite3"


def export(
    path: StrPath,
    folder: StrPath,
    *,
    formats: Sequence[str] = FORMATS,
    bbox: Any = None,
    years: Sequence[int] | None = None,
    glacier: str | None = None,
) -> Path:
    """Write an archive, or a part of it, into a new folder, with a static STAC catalogue.

    ::

        <folder>/catalog.json              links the items; open it with pystac, STAC Browser or QGIS
        <folder>/<region>_<year>.json      item: projection, raster, classification, datacube and MLM fields;
                                           blanks in the region's name are underscores in names of files
        <folder>/<region>_<year>.tif       COG with overviews, float32, NaN = unobserved; one band per map, the class
                                           with 1 glacier and 0 not
        <folder>/<region>_outlines.parquet and .gpkg; <region>_glaciers.parquet and .gpkg where the archive has them,
                                           with the RGI 7 columns

    The folder appears when all of it is written.

    Parameters
    ----------
    path
        The archive.
    folder
        A new or empty folder.
    formats
        Of ``"cog"``, ``"parquet"`` and ``"gpkg"``; all by default.
    bbox, years, glacier
        The part; see `icemap_xr.regions.subset`.

    Returns
    -------
    Path
        The catalogue.

    Raises
    ------
    InputError
        A format is not known, or the part is not in the archive.
    OutputExistsError
        The folder is not empty.
    IncompleteStoreError
        The archive is unfinished or damaged.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise InputError(f"format {', '.join(unknown) or 'none'} is not allowed: give some of {', '.join(FORMATS)}")
    tree = open_archive(path)
    region = str(tree.attrs["region"])
    check_names(Path(path), region)  # the name becomes part of file names, and the archive may come from anywhere
    maps, outlines, glaciers = subset(tree, bbox=bbox, years=years, glacier=glacier)
    lineage = attributes(tree, "lineage")
    with _readable(path), appearing(Path(folder)) as draft:
        stem = region.replace(" ", "_")  # a link must not have blanks
        tables = _tables(draft, stem, {"outlines": outlines, "glaciers": glaciers}, formats)
        catalog = pystac.Catalog(region, f"Glacier maps of {region}", f"Glacier maps of {region}")
        for year in maps[schema.YEAR].values:
            item = _item(draft, stem, maps.sel({schema.YEAR: year}), int(year), lineage, formats)
            for name, asset in tables.items():
                item.add_asset(name, asset.clone())
            catalog.add_item(item)
        _save(catalog, draft)
    return Path(folder) / "catalog.json"


@contextmanager
def _readable(path: StrPath) -> Iterator[None]:
    """Tell a chunk that is cut or flipped as damage of the archive, which its codec does in its own way."""
    try:
        yield
    except IcemapError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, RuntimeError, ValueError) as error:
        name = shlex.quote(str(path))
        raise IncompleteStoreError(f"{path} cannot be read ({error}): run icemap verify {name}") from error


def _tables(
    draft: Path, region: str, frames: Mapping[str, gpd.GeoDataFrame], formats: Sequence[str]
) -> dict[str, pystac.Asset]:
    """Write the vector files and return their assets."""
    assets = {}
    for name, frame in frames.items():
        if not len(frame.columns) or (name == "glaciers" and "glacier_id" not in frame):
            continue
        for suffix, kind in (("parquet", _PARQUET_TYPE), ("gpkg", _PACKAGE_TYPE)):
            if suffix in formats:
                file = write_table(rgi7_table(frame), draft / f"{region}_{name}.{suffix}", layer=name)
                assets[f"{name}_{suffix}"] = pystac.Asset(f"./{file.name}", f"{name} ({suffix})", None, kind, ["data"])
    return assets


def _item(
    draft: Path, region: str, maps: xr.Dataset, year: int, lineage: Mapping[str, Any], formats: Sequence[str]
) -> pystac.Item:
    """Write the raster of one year and return its item."""
    grid, names = RegionGrid.from_dataset(maps), [str(name) for name in maps.data_vars]
    ident = f"{region}_{year}"
    model = {"model": model_of(lineage, [year])}
    item = stac_item(ident, grid, [year], dict.fromkeys(names, "1"), "", None, model)
    item.assets.pop("maps")
    if "cog" not in formats:
        return item
    layers = []
    for name in names:
        layer = maps[name]
        layers.append(layer.where(layer != layer.dtype.type(255)) if np.issubdtype(layer.dtype, np.integer) else layer)
    tags = {"region": region, "year": year}
    classes = {"glacier_class": schema.PROBABILITY} if "glacier_class" in names else {}
    file = write_cog(
        layers,
        grid,
        draft / f"{ident}.tif",
        descriptions=names,
        tags=tags,
        classes=classes,
        what=f"COG of {year}",
    )
    band = {"data_type": "float32", "nodata": "nan", "sampling": "area", "spatial_resolution": grid.resolution}
    bands = [{**band, "name": name, "unit": "1"} for name in names]
    fields: dict[str, Any] = {"raster:bands": bands}
    if "glacier_class" in names:
        bands[names.index("glacier_class")]["classification:classes"] = CLASSES[:2]
    title = f"Maps of {year}: {', '.join(names)}"
    item.add_asset("maps", pystac.Asset(f"./{file.name}", title, None, _COG_TYPE, ["data"], fields))
    item.stac_extensions.append(_RASTER)
    return item


def _save(catalog: pystac.Catalog, draft: Path) -> None:
    """Write catalogue and items side by side with relative links."""
    catalog.set_self_href(str(draft / "catalog.json"))
    for item in catalog.get_items():
        item.set_self_href(str(draft / f"{item.id}.json"))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
