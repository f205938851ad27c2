"""The files beside an archive that other programs read: GeoParquet with the RGI 7 columns, and a STAC item."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import shapely
import shapely.affinity
import shapely.geometry
from pyproj import CRS, Transformer

from icemap_xr.folders import write_text
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import RGI7_COLUMNS, rgi7_table, utm_zone, write_table

__all__ = [
    "CLASSES",
    "RGI7_COLUMNS",
    "footprint",
    "glaciers_path",
    "item_content",
    "rgi7_table",
    "sidecar_paths",
    "stac_item",
    "utm_zone",
    "write_geoparquet",
    "write_item",
]

#: classes of the map `glacier_class`, as the STAC classification extension has them
CLASSES: list[dict[str, Any]] = [
    {"value": 0, "name": "not_glacier", "description": "probability at most 0.5"},
    {"value": 1, "name": "glacier", "description": "probability greater than 0.5"},
    {"value": 255, "name": "unobserved", "description": "no observation", "nodata": True},
]

_SCHEMAS = "https://stac-extensions.github.io/{}/v{}/schema.json"
_PROJECTION = _SCHEMAS.format("projection", "2.0.0")
_CLASSIFICATION = _SCHEMAS.format("classification", "2.0.0")
_DATACUBE = _SCHEMAS.format("datacube", "2.2.0")
_MLM = _SCHEMAS.format("mlm", "1.4.0")


def sidecar_paths(path: Path) -> tuple[Path, Path]:
    """Return where the GeoParquet file and the STAC item of an archive lie."""
    return path.with_suffix(".parquet"), path.with_suffix(".json")


def glaciers_path(path: Path) -> Path:
    """Return where the GeoParquet file of an archive's glaciers lies."""
    return path.with_suffix(".glaciers.parquet")


def write_geoparquet(outlines: gpd.GeoDataFrame, path: Path) -> Path:
    """Write outlines as GeoParquet 1.1 with the RGI 7 columns; the file appears complete or not at all."""
    return write_table(rgi7_table(outlines), path)


def write_item(item: pystac.Item, path: Path) -> Path:
    """Write a STAC item as JSON; the file appears complete or not at all."""
    write_text(path, item_content(item))
    return path


def item_content(item: pystac.Item) -> str:
    """Return the text of the file of a STAC item."""
    return json.dumps(item.to_dict(include_self_link=False, transform_hrefs=False), indent=1, allow_nan=False)


def stac_item(
    region: str,
    grid: RegionGrid,
    years: Sequence[int],
    variables: Mapping[str, str],
    store: str,
    table: str | None,
    lineage: Mapping[str, Any],
) -> pystac.Item:
    """Return the STAC item of an archive.

    Parameters
    ----------
    region
        The item's id.
    grid
        Grid of the maps.
    years
        Years of the maps.
    variables
        Units of each map `(year, y, x)`.
    store, table
        Names of the Zarr store and of the GeoParquet file (None: there is none) beside the item.
    lineage
        Scrubbed lineage. Of `lineage["model"]`, `name`, `architecture`, `features`, `steps` and `window` become MLM
        fields; none are written without one model that made all years. The MLM extension wants the model itself among
        the assets: that is `href`, else `sha256` as a name without a place (RFC 6920); with neither the extension is
        not declared.
    """
    outline, bbox = footprint(grid)
    properties = {
        **_span(years),
        **_projection(grid),
        **_cube(grid, years, variables),
    }
    item = pystac.Item(
        id=region,
        geometry=outline,
        bbox=bbox,
        datetime=None,
        properties=properties,
        stac_extensions=[_PROJECTION, _CLASSIFICATION, _DATACUBE],
    )
    item.add_asset("maps", _maps_asset(store))
    if table is not None:
        kind = "application/vnd.apache.parquet"
        item.add_asset("outlines", pystac.Asset(f"./{table}", "Glacier outlines (GeoParquet)", None, kind, ["data"]))
    _add_model(item, lineage.get("model"))
    return item


def footprint(grid: RegionGrid) -> tuple[dict[str, Any], list[float]]:
    """Return a grid's outline as GeoJSON in degrees, and its bbox.

    Across the antimeridian it is cut in two (and west > east in the bbox); around a pole it is all longitudes.
    """
    extent = shapely.box(*grid.geobox.boundingbox.bbox)
    # points along the edges, as a rectangle in metres is none in degrees
    corners = shapely.get_coordinates(shapely.segmentize(extent, extent.length / 64))
    to_degrees = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(corners[:, 0], corners[:, 1])
    for pole in (-90.0, 90.0):
        if extent.contains(shapely.Point(to_degrees.transform(0.0, pole, direction="INVERSE"))):
            cap = [-180.0, min(pole, lat.min()), 180.0, max(pole, lat.max())]
            return shapely.geometry.mapping(shapely.box(*cap)), cap
    if np.ptp(lon) <= 180:
        outline = shapely.Polygon(np.column_stack([lon, lat]))
        return shapely.geometry.mapping(outline), list(outline.bounds)
    outline = shapely.Polygon(np.column_stack([lon % 360, lat]))
    west, south, east, north = outline.bounds
    near = shapely.intersection(outline, shapely.box(0, -90, 180, 90))
    far = shapely.affinity.translate(shapely.intersection(outline, shapely.box(180, -90, 360, 90)), -360)
    return shapely.geometry.mapping(shapely.union_all([near, far])), [west, south, east - 360, north]


def _span(years: Sequence[int]) -> dict[str, Any]:
    return {
        "datetime": None,
        "start_datetime": f"{min(years):04d}-01-01T00:00:00Z",
        "end_datetime": f"{max(years):04d}-12-31T23:59:59Z",
    }


def _projection(grid: RegionGrid) -> dict[str, Any]:
    crs = CRS(grid.crs)
    authority = crs.to_authority()
    code = {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": crs.to_wkt()}
    return {
        **code,
        "proj:bbox": list(grid.geobox.boundingbox.bbox),
        "proj:shape": list(grid.shape),
        "proj:transform": list(grid.geobox.transform)[:6],
    }


def _cube(grid: RegionGrid, years: Sequence[int], variables: Mapping[str, str]) -> dict[str, Any]:
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    half = grid.resolution / 2
    system = CRS(grid.crs).to_epsg() or CRS(grid.crs).to_json_dict()
    spatial = {"type": "spatial", "step": grid.resolution, "reference_system": system}
    stamps = [f"{year:04d}-01-01T00:00:00Z" for year in years]
    return {
        "cube:dimensions": {
            "year": {"type": "temporal", "extent": [min(stamps), max(stamps)], "values": stamps},
            "y": {**spatial, "axis": "y", "extent": [bottom + half, top - half]},
            "x": {**spatial, "axis": "x", "extent": [left + half, right - half]},
        },
        "cube:variables": {
            name: {"dimensions": ["year", "y", "x"], "type": "data", "unit": unit} for name, unit in variables.items()
        },
    }


def _maps_asset(store: str) -> pystac.Asset:
    return pystac.Asset(
        f"./{store}",
        "Maps, outlines, areas and lineage (Zarr)",
        "Groups maps, outlines, areas, draws, calibration, lineage; the classes are those of maps/glacier_class",
        "application/vnd.zarr; version=3",
        ["data", "zarr"],
        {"classification:classes": CLASSES},
    )


def _add_model(item: pystac.Item, model: Any) -> None:
    """Describe the model that made the maps in MLM fields, as far as it is known."""
    if not isinstance(model, Mapping) or not model.get("name"):
        return
    features = [str(name) for name in model.get("features", [])]
    window = int(model.get("window", -1))
    shape = [-1, int(model.get("steps", -1)), window, window, len(features) or -1]
    task = "semantic-segmentation"
    item.properties |= {
        "mlm:name": str(model["name"]),
        "mlm:architecture": str(model.get("architecture", "unknown")),
        "mlm:tasks": [task],
        "mlm:input": [
            {
                "name": "scenes",
                "bands": [],
                "input": {
                    "shape": shape,
                    "dim_order": ["batch", "time", "height", "width", "bands"],
                    "data_type": "float32",
                },
                "description": "features: " + (", ".join(features) or "not recorded"),
            }
        ],
        "mlm:output": [
            {
                "name": "glacier",
                "tasks": [task],
                "result": {
                    "shape": [-1, window, window, 2],
                    "dim_order": ["batch", "height", "width", "class"],
                    "data_type": "float32",
                },
                "classification:classes": CLASSES[:2],
            }
        ],
    }
    href = model.get("href") or _digest_name(model.get("sha256"))
    if href:
        fields = {"mlm:artifact_type": str(model.get("artifact_type", "safetensors.tensorflow.save_file"))}
        title = f"Weights of {model['name']}"
        item.add_asset("model", pystac.Asset(str(href), title, None, None, ["mlm:model"], fields))
        item.stac_extensions.append(_MLM)


def _digest_name(digest: Any) -> str | None:
    """Return the name of what has a sha256, given in hexadecimal (RFC 6920); None if it is none."""
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        return None
    return "ni:///sha-256;" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")
