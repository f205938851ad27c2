"""One Zarr store per region with everything a product is, and the files beside it that other programs read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from icemap_xr import objectstore, schema, store
from icemap_xr.cftables import decode_polygons, encode_polygons, plain
from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.kernels.probabilities import check_probabilities
from icemap_xr.lineage import scrub, software
from icemap_xr.manifest import check_chunks
from icemap_xr.overviews import multiscales, widely_readable, write_overviews
from icemap_xr.sidecars import CLASSES, glaciers_path, sidecar_paths, stac_item, write_geoparquet, write_item
from icemap_xr.sources import model_of
from icemap_xr.tableyears import check_years, in_order
from icemap_xr.types import Calibrator, StrPath
from icemap_xr.urls import is_remote

#: version of the layout below; a reader refuses newer ones
ARCHIVE_VERSION = 1

#: nodes of every archive; one without content is an empty group
NODES = ("maps", "overviews", "outlines", "glaciers", "areas", "draws", "blocks", "calibration", "lineage")

#: the maps that are given; the other layers follow from them
LAYERS = (schema.PROBABILITY, schema.CALIBRATED)

_TABLES = ("outlines", "glaciers", "areas", "draws", "blocks", "calibration")
# a chunk is one file of about 4 MB; GDAL up to 3.11 does not read shards
_CHUNK = 1024
_UNOBSERVED = 255
_REGION = re.compile(r"\w[\w .-]{0,99}")


def archive(
    ds: xr.Dataset,
    path: StrPath,
    *,
    areas: xr.Dataset | None = None,
    outlines: gpd.GeoDataFrame | None = None,
    calibrator: Calibrator | None = None,
    lineage: Mapping[str, Any] | None = None,
    region: str = "region",
    glaciers: gpd.GeoDataFrame | None = None,
    blocks: xr.Dataset | None = None,
) -> Path:
    """Write the archive of a region: one Zarr v3 store, a GeoParquet file and a STAC item.

    ::

        <name>.zarr             attributes: region, Conventions, icemap_archive_version, multiscales
        ├── maps                (year, y, x): probability float32; calibrated float32 where `ds` has it;
        │                       confidence float32 (1 - Shannon entropy of probability, bits);
        │                       glacier_class uint8 (1 glacier: probability > 0.5, 0 not, 255 unobserved)
        ├── overviews/2, 4, ... the maps at 2, 4, ... times the pixel side, down to 512 pixels: averages of all
        │                       observed pixels below; the class is that of the averaged probability
        ├── outlines            CF geometry (node_count, part_node_count, interior_ring, x, y), year, area_km2, ...
        ├── glaciers            the same for `glaciers`: a row per glacier and year
        ├── areas               what `areas` holds without a dim "draw"
        ├── draws               what `areas` holds with a dim "draw"
        ├── blocks              the block table
        ├── calibration         the calibrator as attributes
        └── lineage             what it was made from, as attributes, without credentials
        <name>.parquet          the outlines as GeoParquet 1.1 with the RGI 7 columns (only with `outlines`)
        <name>.glaciers.parquet the glaciers likewise (only with `glaciers`)
        <name>.json             a STAC item (projection, classification, datacube and MLM fields)

    Years are written in ascending order. Nothing half-written gets the store's name: the same call made again resumes
    where a killed one stopped, and is a no-op where it had finished.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and, if calibrated, `calibrated (year, y, x)`, 0..1, NaN where
        unobserved, and a CRS. NumPy or Dask.
    path
        The store, for example ``"svalbard.zarr"``.
    areas
        Areas in km2 and their draws, of any dims; with a dim `year`, of the years of `ds`.
    outlines
        Outlines with `year`, `area_km2` and `geometry`, in the CRS of `ds` and of no other years.
    calibrator
        What made `calibrated`.
    lineage
        Where it comes from: STAC item ids (`stac_items`), `model` (`name`, `sha256`, ...). URLs lose passwords and
        query strings. Software versions and the attributes of `ds` are added.
    region
        Name of the region: letters, digits, ``_ . -`` and spaces.
    glaciers
        Glaciers by year, as `divide` or `icemap_xr.inventory.rgi7_table` return them, in the CRS of `ds`.
    blocks
        Ice and observed area by block, as `icemap_xr.blocktable.block_table` returns them.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    OutputExistsError
        Something else is there already, at `path` or beside it.
    InputError, SchemaError, GridError
        An input cannot be archived.
    """
    path = Path(path)
    check_names(path, region)
    for beside in (*sidecar_paths(path), glaciers_path(path)):
        if beside.exists() and not path.exists() and not store.partial_path(path).exists():
            raise OutputExistsError(f"{beside} exists already and belongs to no archive: move it or choose a new path")
    write_store(
        ds,
        path,
        areas=areas,
        outlines=outlines,
        glaciers=glaciers,
        blocks=blocks,
        calibration=calibrator.to_json() if calibrator is not None else {},
        record={"software": software(), "attributes": scrub(ds.attrs), **scrub(lineage or {})},
        region=region,
    )
    write_sidecars(path)
    return path


def write_store(
    ds: xr.Dataset,
    path: Path,
    *,
    areas: xr.Dataset | None,
    outlines: gpd.GeoDataFrame | None,
    glaciers: gpd.GeoDataFrame | None,
    blocks: xr.Dataset | None,
    calibration: Mapping[str, Any],
    record: Mapping[str, Any],
    region: str,
    appended: bool = False,
) -> None:
    """Write the Zarr store of an archive without the files beside it; see `archive`.

    Where years were `appended`, the manifest says that no call writes the store again: the old one is gone.
    """
    schema.validate_maps(ds, "archive")
    ds, areas, blocks = in_order(ds), areas and in_order(areas), blocks and in_order(blocks)
    years = [int(year) for year in ds[schema.YEAR].values]
    check_years(years, {"areas": areas, "blocks": blocks, "outlines": outlines, "glaciers": glaciers})
    grid = RegionGrid.from_dataset(ds[[schema.PROBABILITY]])
    for what, frame in (("outlines", outlines), ("glaciers", glaciers)):
        if frame is not None and frame.crs != CRS(grid.crs):
            raise InputError(f"{what} are in {frame.crs}, the maps in {grid.crs}: reproject with {what}.to_crs()")
    tables = plain(areas) if areas is not None else xr.Dataset()
    draws = [name for name, var in tables.data_vars.items() if "draw" in var.dims]
    root = {"Conventions": "CF-1.11", "region": region, "icemap_archive_version": ARCHIVE_VERSION}
    root |= multiscales(grid.shape)
    groups = {
        "": xr.Dataset(attrs=root),
        "maps": _maps(ds, grid),
        "outlines": encode_polygons(outlines, grid, "outlines"),
        "glaciers": encode_polygons(glaciers, grid, "glaciers"),
        # coordinates along "draw" alone have no place among the areas
        "areas": tables.drop_vars(draws).drop_dims("draw", errors="ignore"),
        "draws": tables[draws],
        "blocks": plain(blocks) if blocks is not None else xr.Dataset(),
        "calibration": xr.Dataset(attrs=scrub(calibration)),
        "lineage": xr.Dataset(attrs=dict(record)),
    }
    store.write(
        groups,
        path,
        plan=_plan(ds, groups, region),
        call="icemap_xr.regions.append(path, maps)" if appended else "ds.icemap.archive(path)",
        what="archive",
        facts={"region": region} | ({"repeatable": False} if appended else {}),
        last=lambda partial: write_overviews(partial, grid, _CHUNK),
    )


def write_sidecars(path: StrPath) -> None:
    """Write the GeoParquet files and the STAC item beside a finished archive, from what it holds."""
    path = Path(path)
    tree = open_archive(path)
    for file, frame in tables_of(tree, path).items():
        write_geoparquet(frame, file)
    write_item(item_of(tree, path), sidecar_paths(path)[1])


def tables_of(tree: xr.DataTree, path: Path) -> dict[Path, gpd.GeoDataFrame]:
    """Return what lies in which GeoParquet file beside an opened archive."""
    files = {"outlines": sidecar_paths(path)[0], "glaciers": glaciers_path(path)}
    return {file: _read_polygons(tree, node) for node, file in files.items() if tree[node].attrs["columns"]}


def item_of(tree: xr.DataTree, path: Path) -> pystac.Item:
    """Return the STAC item of an opened archive."""
    maps = tree["maps"].to_dataset()
    table = sidecar_paths(path)[0].name if tree["outlines"].attrs["columns"] else None
    units = {str(one): "1" for one in maps.data_vars}
    years = [int(year) for year in maps[schema.YEAR].values]
    model = {"model": model_of(attributes(tree, "lineage"), years)}
    return stac_item(tree.attrs["region"], RegionGrid.from_dataset(maps), years, units, path.name, table, model)


def open_archive(path: StrPath) -> xr.DataTree:
    """Open an archive lazily (Dask-backed) with the nodes that `archive` documents.

    All of it is of one moment, also where a year is appended meanwhile.

    Raises
    ------
    IncompleteStoreError
        The archive is unfinished or damaged.
    InputError
        There is none, it is another kind of store, or its layout is newer than this version of icemap-xr.
    """
    if is_remote(path):
        return _open(path)
    while True:
        before = _stamp(Path(path))
        try:
            tree = _open(path)
        except Exception:
            if _stamp(Path(path)) == before:
                raise
        else:
            if _stamp(Path(path)) == before:
                return tree


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return what changes when another store takes an archive's place."""
    try:
        found = (path / store.MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _open(path: StrPath) -> xr.DataTree:
    try:
        manifest = objectstore.read_manifest(path) if is_remote(path) else store.read_manifest(path)
        plan = manifest["plan"]
        kind, version = plan.get("kind"), plan.get("version", 0)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise IncompleteStoreError(
            f"{Path(path) / store.MANIFEST} is damaged ({error}): write the archive again"
        ) from None
    if kind != "archive":
        raise InputError(f"{path} holds no archive but {kind or 'another store'!r}: open it as what it is")
    if isinstance(version, int) and version > ARCHIVE_VERSION:
        raise InputError(
            f"{path} has archive layout {version}, this program reads {ARCHIVE_VERSION}: upgrade icemap-xr"
        )
    if is_remote(path):
        return objectstore.open_tree(path)
    if not isinstance(version, int):
        raise IncompleteStoreError(f"{path} has the archive layout {version!r}, which is none: write it again")
    check_chunks(path)
    tree = xr.open_datatree(path, engine="zarr", chunks={})
    return tree.drop_nodes("icemap", errors="ignore")


def read_outlines(tree: xr.DataTree) -> gpd.GeoDataFrame:
    """Return the outlines of an opened archive, with the columns and the CRS they were written with."""
    return _read_polygons(tree, "outlines")


def read_glaciers(tree: xr.DataTree) -> gpd.GeoDataFrame:
    """Return the glaciers of an opened archive, with the columns and the CRS they were written with."""
    return _read_polygons(tree, "glaciers")


def _read_polygons(tree: xr.DataTree, node: str) -> gpd.GeoDataFrame:
    crs = tree["maps"].to_dataset()[schema.SPATIAL_REF].attrs["crs_wkt"]
    ds = tree[node].to_dataset() if node in tree.children else xr.Dataset(attrs={"columns": {}})
    try:
        ds = ds.load()
    except Exception as error:  # Zarr, its codecs and the file system have an error of their own each
        raise IncompleteStoreError(
            f"{node} of the archive cannot be read ({error}): open it again if years were appended since it was "
            "opened, else run icemap verify"
        ) from error
    return decode_polygons(ds, crs)


def attributes(tree: xr.DataTree, node: str) -> dict[str, Any]:
    """Return the attributes of a node of an opened archive."""
    return {str(name): value for name, value in tree[node].attrs.items()}


def check_names(path: Path, region: str) -> None:
    """Raise `InputError` unless an archive can have this path and name."""
    if not _REGION.fullmatch(region) or ".." in region:
        raise InputError(
            f"region {region!r} is not allowed: use letters, digits, '_', '-', '.' and spaces, at most 100"
        )
    if path.suffix in ("", ".parquet", ".json"):
        raise InputError(
            f"archive path {str(path)!r} is not allowed: end it in '.zarr'; files of its name go beside it"
        )


def _maps(ds: xr.Dataset, grid: RegionGrid) -> xr.Dataset:
    names = [name for name in LAYERS if name in ds]
    chunks = {schema.YEAR: 1, schema.Y: _CHUNK, schema.X: _CHUNK}
    source = ds[names].reset_coords(drop=True).drop_attrs()
    maps = source.astype(np.float32).chunk(chunks)
    probability = maps[schema.PROBABILITY]
    layers = {
        schema.PROBABILITY: (probability, "glacier probability", np.nan),
        "confidence": (_blockwise(shannon_confidence, probability, "float32"), "1 - Shannon entropy, in bits", np.nan),
        "glacier_class": (_blockwise(_classify, probability, "uint8"), "glacier class", _UNOBSERVED),
    }
    if schema.CALIBRATED in maps:
        layers[schema.CALIBRATED] = (maps[schema.CALIBRATED], "calibrated glacier probability", np.nan)
    crs = {"wkt": CRS(grid.crs).to_wkt()}
    out = xr.Dataset(coords={schema.YEAR: ds[schema.YEAR].values.astype(np.int64), **grid.coords()})
    for name, (array, title, fill) in layers.items():
        # GDAL reads `_CRS`, other readers the grid mapping
        attrs = {"long_name": title, "units": "1", "grid_mapping": schema.SPATIAL_REF, "_CRS": crs}
        out[name] = xr.Variable(array.dims, array.data, attrs, {"fill_value": fill})
    out["glacier_class"].attrs |= {
        "flag_values": [one["value"] for one in CLASSES],
        "flag_meanings": " ".join(one["name"] for one in CLASSES),
    }
    return widely_readable(out)


def _blockwise(function: Any, array: xr.DataArray, dtype: str) -> xr.DataArray:
    return array.copy(data=array.data.map_blocks(function, dtype=dtype, meta=np.empty((0, 0, 0), dtype)))


def _classify(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    check_probabilities(probability, "archive")
    return np.where(np.isnan(probability), _UNOBSERVED, probability > 0.5).astype(np.uint8)


def _plan(ds: xr.Dataset, groups: Mapping[str, xr.Dataset], region: str) -> dict[str, Any]:
    """Return what the archive is made from: the identity of its maps and the content of all else."""
    lineage = {key: value for key, value in groups["lineage"].attrs.items() if key != "software"}
    maps = {name: pixel_identity(ds[name]) for name in LAYERS if name in ds}
    tables = {name: content_hash(groups[name]) for name in _TABLES}
    coords = content_hash(groups["maps"].drop_vars(list(groups["maps"].data_vars)))
    made = {"maps": maps, "grid": coords, "tables": tables, "lineage": store.plan_hash(lineage), "region": region}
    return {"kind": "archive", "version": ARCHIVE_VERSION, "chunk": _CHUNK, **made}


def pixel_identity(array: xr.DataArray) -> str:
    """Return what identifies pixels: the name of the Dask graph that makes them, or their sha256."""
    if array.chunks:
        return str(array.data.name)
    return hashlib.sha256(np.ascontiguousarray(array.values).data).hexdigest()


def content_hash(ds: xr.Dataset) -> str:
    """Return the sha256 of everything in a small dataset."""
    digest = hashlib.sha256(json.dumps(ds.attrs, sort_keys=True, default=str).encode())
    for name in sorted(map(str, ds.variables)):
        var = ds[name].variable
        values = np.asarray(var.values)
        raw = json.dumps(values.tolist(), default=str).encode() if values.dtype.kind == "O" else values.tobytes()
        digest.update(f"{name} {var.dims} {values.dtype} {json.dumps(var.attrs, sort_keys=True, default=str)}".encode())
        digest.update(raw)
    return digest.hexdigest()
