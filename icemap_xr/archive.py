"""One Zarr store per region with everything a product is, and the files beside it that other programs read."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cf_xarray.geometry
import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS

from icemap_xr import schema, store
from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.lineage import scrub, software
from icemap_xr.sidecars import CLASSES, sidecar_paths, stac_item, write_geoparquet, write_item
from icemap_xr.types import Calibrator, StrPath

#: version of the layout below; a reader refuses newer ones
ARCHIVE_VERSION = 1

#: nodes of every archive; one without content is an empty group
NODES = ("maps", "outlines", "areas", "draws", "calibration", "lineage")

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
) -> Path:
    """Write the archive of a region: one Zarr v3 store, a GeoParquet file and a STAC item.

    ::

        <name>.zarr             attributes: region, Conventions, icemap_archive_version
        ├── maps                (year, y, x): probability float32; calibrated float32 where `ds` has it;
        │                       confidence float32 (1 - Shannon entropy of probability, bits);
        │                       glacier_class uint8 (1 glacier: probability > 0.5, 0 not, 255 unobserved)
        ├── outlines            CF geometry (node_count, part_node_count, interior_ring, x, y), year, area_km2, ...
        ├── areas               what `areas` holds without a dim "draw"
        ├── draws               what `areas` holds with a dim "draw"
        ├── calibration         the calibrator as attributes
        └── lineage             what it was made from, as attributes, without credentials
        <name>.parquet          the outlines as GeoParquet 1.1 with the RGI 7 columns (only with `outlines`)
        <name>.json             a STAC item (projection, classification, datacube and MLM fields)

    Nothing half-written gets the store's name: the same call made again resumes where a killed one stopped, and is a
    no-op where it had finished.

    Parameters
    ----------
    ds
        Dataset with `probability (year, y, x)` and, if calibrated, `calibrated (year, y, x)`, 0..1, NaN where
        unobserved, and a CRS. NumPy or Dask.
    path
        The store, for example ``"svalbard.zarr"``.
    areas
        Areas in km2 and their draws, of any dims.
    outlines
        Outlines with `year`, `area_km2` and `geometry`, in the CRS of `ds`.
    calibrator
        What made `calibrated`.
    lineage
        Where it comes from: STAC item ids (`stac_items`), `model` (`name`, `sha256`, ...). URLs lose passwords and
        query strings. Software versions and the attributes of `ds` are added.
    region
        Name of the region: letters, digits, ``_ . -`` and spaces.

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
    _check_names(path, region)
    schema.validate_maps(ds, "archive")
    grid = RegionGrid.from_dataset(ds[[schema.PROBABILITY]])
    if outlines is not None and outlines.crs != CRS(grid.crs):
        raise InputError(f"outlines are in {outlines.crs}, the maps in {grid.crs}: reproject with outlines.to_crs()")
    record = {"software": software(), "attributes": scrub(ds.attrs), **scrub(lineage or {})}
    groups = _groups(ds, grid, areas, outlines, calibrator, record, region)
    plan = _plan(ds, groups, region)
    table, item = sidecar_paths(path)
    if not store.check_writable(path, plan):
        for beside in (table, item):
            if beside.exists() and not path.exists():
                raise OutputExistsError(
                    f"{beside} exists already and belongs to no archive: move it or choose a new path"
                )
        store.write_groups(groups, path, plan=plan, what="archive")
        store.finish(path, plan=plan, facts={"region": region})
    if outlines is not None:
        write_geoparquet(outlines, table)
    units = {str(name): "1" for name in groups["maps"].data_vars}
    years = [int(year) for year in ds[schema.YEAR].values]
    name = table.name if outlines is not None else None
    write_item(stac_item(region, grid, years, units, path.name, name, record), item)
    return path


def open_archive(path: StrPath) -> xr.DataTree:
    """Open an archive lazily (Dask-backed) with the nodes that `archive` documents.

    Raises
    ------
    IncompleteStoreError
        The archive is unfinished or damaged.
    InputError
        There is none, it is another kind of store, or its layout is newer than this version of icemap-xr.
    """
    try:
        manifest = store.read_manifest(path)
        plan = manifest["plan"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise IncompleteStoreError(
            f"{Path(path) / store.MANIFEST} is damaged ({error}): write the archive again"
        ) from None
    if plan.get("kind") != "archive":
        raise InputError(f"{path} holds no archive but {plan.get('kind', 'another store')!r}: open it as what it is")
    if plan.get("version", 0) > ARCHIVE_VERSION:
        raise InputError(
            f"{path} has archive layout {plan['version']}, this program reads {ARCHIVE_VERSION}: upgrade icemap-xr"
        )
    tree = xr.open_datatree(path, engine="zarr", chunks={})
    return tree.drop_nodes("icemap", errors="ignore")


def read_outlines(tree: xr.DataTree) -> gpd.GeoDataFrame:
    """Return the outlines of an opened archive, with the columns and the CRS they were written with."""
    ds = tree["outlines"].to_dataset().load()
    crs = tree["maps"].to_dataset()[schema.SPATIAL_REF].attrs["crs_wkt"]
    names = tree["outlines"].attrs["columns"]
    if not ds.data_vars:
        empty = {name: np.empty(0, kind) for name, kind in names.items()}
        return gpd.GeoDataFrame(empty, geometry=gpd.GeoSeries([], crs=crs))
    geometry = cf_xarray.geometry.decode_geometries(ds)["geometry"].values
    return gpd.GeoDataFrame({name: ds[name].values for name in names}, geometry=geometry, crs=crs)


def _check_names(path: Path, region: str) -> None:
    if not _REGION.fullmatch(region) or ".." in region:
        raise InputError(
            f"region {region!r} is not allowed: use letters, digits, '_', '-', '.' and spaces, at most 100"
        )
    if path.suffix in ("", ".parquet", ".json"):
        raise InputError(
            f"archive path {str(path)!r} is not allowed: end it in '.zarr'; files of its name go beside it"
        )


def _groups(
    ds: xr.Dataset,
    grid: RegionGrid,
    areas: xr.Dataset | None,
    outlines: gpd.GeoDataFrame | None,
    calibrator: Calibrator | None,
    record: Mapping[str, Any],
    region: str,
) -> dict[str, xr.Dataset]:
    tables = _plain(areas) if areas is not None else xr.Dataset()
    draws = [name for name, var in tables.data_vars.items() if "draw" in var.dims]
    root = {"Conventions": "CF-1.11", "region": region, "icemap_archive_version": ARCHIVE_VERSION}
    return {
        "": xr.Dataset(attrs=root),
        "maps": _maps(ds, grid),
        "outlines": _cf_outlines(outlines, grid),
        # coordinates along "draw" alone have no place among the areas
        "areas": tables.drop_vars(draws).drop_dims("draw", errors="ignore"),
        "draws": tables[draws],
        "calibration": xr.Dataset(attrs=scrub(calibrator.to_json()) if calibrator is not None else {}),
        "lineage": xr.Dataset(attrs=dict(record)),
    }


def _maps(ds: xr.Dataset, grid: RegionGrid) -> xr.Dataset:
    names = [name for name in (schema.PROBABILITY, schema.CALIBRATED) if name in ds]
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
    return out


def _blockwise(function: Any, array: xr.DataArray, dtype: str) -> xr.DataArray:
    return array.copy(data=array.data.map_blocks(function, dtype=dtype, meta=np.empty((0, 0, 0), dtype)))


def _classify(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.where(np.isnan(probability), _UNOBSERVED, probability > 0.5).astype(np.uint8)


def _cf_outlines(outlines: gpd.GeoDataFrame | None, grid: RegionGrid) -> xr.Dataset:
    """Encode outlines as CF geometries; none at all give an empty group, as CF cannot encode an empty set."""
    if outlines is None:
        return xr.Dataset(attrs={"columns": {}, "count": 0})
    table = outlines.drop(columns=outlines.geometry.name)
    attrs = {"columns": {str(name): str(kind) for name, kind in table.dtypes.items()}, "count": len(outlines)}
    if not len(outlines):
        return xr.Dataset(attrs=attrs)
    bad = outlines.geometry.isna() | outlines.geometry.is_empty
    if bad.any():
        raise SchemaError(f"outlines have {int(bad.sum())} rows without a geometry: drop them before archiving")
    columns = {str(name): ("outline", table[name].to_numpy()) for name in table}
    geometry = ("outline", outlines.geometry.to_numpy())
    encoded = cf_xarray.geometry.encode_geometries(xr.Dataset(columns, coords={"geometry": geometry}))
    encoded["geometry_container"].attrs["grid_mapping"] = schema.SPATIAL_REF
    return _plain(encoded.assign_attrs(attrs).assign_coords({schema.SPATIAL_REF: grid.coords()[schema.SPATIAL_REF]}))


def _plain(ds: xr.Dataset) -> xr.Dataset:
    """Return a small dataset in memory, in types that the Zarr v3 specification has, with plain attributes."""
    out = ds.compute().drop_encoding()
    for name, var in out.variables.items():
        if var.dtype.kind == "U":  # fixed-length text has no Zarr v3 data type
            out[name] = (var.dims, var.values.astype(object), var.attrs)
        out[name].attrs = {str(key): scrub(value) for key, value in out[name].attrs.items()}
    out.attrs = scrub(out.attrs)
    return out


def _plan(ds: xr.Dataset, groups: Mapping[str, xr.Dataset], region: str) -> dict[str, Any]:
    """Return what the archive is made from: the identity of its maps and the content of all else."""
    lineage = {key: value for key, value in groups["lineage"].attrs.items() if key != "software"}
    maps = {name: _identity(ds[name]) for name in (schema.PROBABILITY, schema.CALIBRATED) if name in ds}
    tables = {name: _content(groups[name]) for name in ("outlines", "areas", "draws", "calibration")}
    coords = _content(groups["maps"].drop_vars(list(groups["maps"].data_vars)))
    made = {"maps": maps, "grid": coords, "tables": tables, "lineage": store.plan_hash(lineage), "region": region}
    return {"kind": "archive", "version": ARCHIVE_VERSION, "chunk": _CHUNK, **made}


def _identity(array: xr.DataArray) -> str:
    """Return what identifies pixels: the name of the Dask graph that makes them, or their sha256."""
    if array.chunks:
        return str(array.data.name)
    return hashlib.sha256(np.ascontiguousarray(array.values).data).hexdigest()


def _content(ds: xr.Dataset) -> str:
    digest = hashlib.sha256(json.dumps(ds.attrs, sort_keys=True, default=str).encode())
    for name in sorted(map(str, ds.variables)):
        var = ds[name].variable
        values = np.asarray(var.values)
        raw = json.dumps(values.tolist(), default=str).encode() if values.dtype.kind == "O" else values.tobytes()
        digest.update(f"{name} {var.dims} {values.dtype} {json.dumps(var.attrs, sort_keys=True, default=str)}".encode())
        digest.update(raw)
    return digest.hexdigest()
