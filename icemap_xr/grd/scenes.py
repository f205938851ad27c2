"""One product from its raster: what it is, its backscatter on a grid, and what relief does there."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.access import Access
from icemap_xr.errors import GeolocationError, InputError
from icemap_xr.grd.fetch import Fetcher
from icemap_xr.grd.geometry import GcpGeometry, RangeDoppler
from icemap_xr.grd.options import GrdOptions
from icemap_xr.grd.placing import block_relief
from icemap_xr.grd.product import read_header
from icemap_xr.grd.step import load, open_image, read_block
from icemap_xr.grid import RegionGrid
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub
from icemap_xr.web import Patience


def inspect(path: StrPath) -> dict[str, Any]:
    """Say how well a product's geometry is known, in pixels of its image.

    Parameters
    ----------
    path
        Raster of a GRD product (`measurement/*.tiff`), with its annotation beside it or without.

    Returns
    -------
    dict
        `gcp`: errors at held-back control points of the raster, `rms` with their own heights and `rms_unknown_height`
        with heights between their neighbours. `range_doppler`: error at the annotated grid, where there is annotation.
        `version` of the processor, `shape` of the image.

    Raises
    ------
    GeolocationError
        It has no control points, or in another CRS.
    """
    href = str(path)
    with open_image(href) as src:
        header = read_header(src, scrub(href))
        if header.points is None:
            raise GeolocationError(f"{scrub(href)} has no ground control points: take the product as published")
        found: dict[str, Any] = {
            "shape": header.shape,
            "version": ".".join(f"{part:02d}" for part in header.version) if header.version else None,
            "gcp": GcpGeometry(header.points).residuals(),
        }
        try:
            options = GrdOptions("ellipsoid", noise=False, border=False)
            one = load(src, href, None, options, _fetcher())
        except InputError as error:
            return found | {"annotation": str(error)}
    assert isinstance(one.geometry, RangeDoppler)
    return found | {"annotation": str(one.image.annotation.identity), "range_doppler": one.geometry.residuals()}


def geocode(path: StrPath, grid: RegionGrid, options: GrdOptions, *, chunk: int = 512) -> xr.DataArray:
    """Return the backscatter of one product on a grid, lazy.

    Parameters
    ----------
    path
        Raster of a GRD product, with its annotation beside it.
    grid
        The grid.
    options
        How it is calibrated, cleaned and geocoded.
    chunk
        Side of the blocks, pixels.

    Returns
    -------
    xarray.DataArray
        `(y, x)` float32, dB; NaN where nothing was observed.
    """
    href = str(path)
    with open_image(href) as src:
        polarisation = load(src, href, None, options, _fetcher()).image.annotation.identity.polarisation

    def block(piece: GeoBox) -> NDArray[np.float32]:
        return read_block([(href, href)], polarisation, piece, options, _fetcher())

    attrs = {"units": "dB", "polarisation": polarisation, "grid_mapping": schema.SPATIAL_REF, **options.attributes()}
    data = _blocks(grid, chunk, block, "geocode", href, options)
    return xr.DataArray(data, dims=(schema.Y, schema.X), coords=grid.coords(), attrs=attrs, name="grd")


def relief(path: StrPath, grid: RegionGrid, options: GrdOptions, *, chunk: int = 512) -> xr.Dataset:
    """Return what relief does to a product on a grid, lazy.

    All scenes of one relative orbit see the ground from the same place to 0.01 degrees, so one of them stands for all.

    Parameters
    ----------
    path, grid, chunk
        See `geocode`.
    options
        With a DEM and ``geocoding="terrain"``.

    Returns
    -------
    xarray.Dataset
        `local_incidence_angle (y, x)` float32, degrees, and `layover_shadow (y, x)` uint8: 1 in layover, 2 in shadow,
        3 in both.

    Raises
    ------
    InputError
        The options have no DEM.
    """
    if options.geocoding != "terrain" or options.dem is None:
        raise InputError("relief needs an elevation model: GrdOptions('terrain', dem=...)")
    href, dem = str(path), options.dem

    def block(piece: GeoBox) -> NDArray[np.float32]:
        with open_image(href) as src:
            geometry = load(src, href, None, options, _fetcher()).geometry
        assert isinstance(geometry, RangeDoppler)
        found = block_relief(piece, geometry, dem)
        return np.stack([found.incidence, found.mask]).astype(np.float32)

    both = _blocks(grid, chunk, block, "relief", href, options, layers=2)
    flags = {"flag_masks": np.array([1, 2], np.uint8), "flag_meanings": "layover shadow"}
    mapping = {"grid_mapping": schema.SPATIAL_REF}
    return xr.Dataset(
        {
            "local_incidence_angle": ((schema.Y, schema.X), both[0], {"units": "degree", **mapping}),
            "layover_shadow": ((schema.Y, schema.X), both[1].astype(np.uint8), {**flags, **mapping}),
        },
        coords=grid.coords(),
    )


def _fetcher() -> Fetcher:
    return Fetcher(Access(), Patience())


def _blocks(grid: RegionGrid, side: int, make: Any, *key: Any, layers: int = 0) -> da.Array:
    """Return an array of one task per block."""
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    slices = [[slice(start, min(start + side, size)) for start in range(0, size, side)] for size in grid.shape]
    name = f"icemap-grd-{key[0]}-{tokenize(key[1:], grid.crs, tuple(grid.geobox.transform), grid.shape, side)}"
    front = (0,) if layers else ()
    graph: dict[Any, Any] = {
        (name, *front, i, j): (make, grid.piece(rows, columns))
        for i, rows in enumerate(slices[0])
        for j, columns in enumerate(slices[1])
    }
    sizes = [tuple(part.stop - part.start for part in parts) for parts in slices]
    chunks = ((layers,), *sizes) if layers else tuple(sizes)
    return da.Array(HighLevelGraph.from_collections(name, graph, dependencies=()), name, chunks, dtype=np.float32)
