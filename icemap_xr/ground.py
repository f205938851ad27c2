"""Where ice is looked for: land without the sea, say, from a vector or a raster file; lazy, on a region's grid.

The one way in which a file's mask enters a run: it skips windows (`predict(mask=)`), and it states the domain of areas
and intervals (`bootstrap_area(domain=)`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import rasterio
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from icemap_xr import schema
from icemap_xr.domain import polygon_labels
from icemap_xr.errors import InputError, ReadError
from icemap_xr.grid import RegionGrid
from icemap_xr.regionsums import checked_polygons, to_pixels
from icemap_xr.types import StrPath
from icemap_xr.vectors import as_frame

_RASTERS = (".tif", ".tiff", ".vrt", ".img")


def ground_mask(source: StrPath | gpd.GeoDataFrame, grid: RegionGrid, *, chunk: int = 1024) -> xr.DataArray:
    """Return which pixels of a grid a file marks.

    Parameters
    ----------
    source
        A vector file or GeoDataFrame: a pixel is inside if its centre lies in a polygon. Or a raster file (.tif, .tiff,
        .vrt, .img): a pixel is inside if the raster's nearest pixel (band 1) is neither 0 nor nodata; beyond the raster
        is outside.
    grid
        The region's grid.
    chunk
        Side of the Dask chunks in pixels.

    Returns
    -------
    xarray.DataArray
        `(y, x)` bool, lazy, True inside.

    Raises
    ------
    InputError
        The file does not exist, has no CRS, or holds no usable polygons.
    """
    rows, columns = grid.shape
    if isinstance(source, gpd.GeoDataFrame) or Path(source).suffix.lower() not in _RASTERS:
        frame = as_frame(source).reset_index(drop=True)
        _, shapes = checked_polygons(frame.to_crs(grid.crs), grid, "mask", "")
        like = xr.DataArray(da.empty((1, rows, columns), chunks=(1, chunk, chunk)), dims=("year", schema.Y, schema.X))
        data: Any = polygon_labels(to_pixels(shapes, grid), like) < len(shapes)
    else:
        raster = _RasterMask(str(Path(source).resolve()), grid.geobox)
        raster.check()
        name = f"icemap-mask-{tokenize(raster)}"
        data = da.from_array(raster, chunks=chunk, name=name, asarray=False, fancy=False, meta=np.empty((0, 0), bool))
    coords = {name: coord for name, coord in grid.coords().items() if name in (schema.Y, schema.X)}
    return xr.DataArray(data, dims=(schema.Y, schema.X), coords=coords, attrs={"long_name": "inside the mask"})


def marked_km2(mask: xr.DataArray, grid: RegionGrid) -> float:
    """Return the planar area of a mask in km2.

    Raises
    ------
    InputError
        Nothing is inside.
    """
    count = int(mask.sum().compute())
    if not count:
        raise InputError("the mask marks no pixel of the grid: check its extent, its CRS and, of a raster, its values")
    return count * grid.pixel_area_km2


@dataclass(frozen=True)
class _RasterMask:
    """A raster as a picklable, boolean array-like on a grid; it opens the file for each read."""

    path: str
    geobox: GeoBox

    dtype = np.dtype(bool)
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return (int(self.geobox.shape[0]), int(self.geobox.shape[1]))

    def check(self) -> None:
        if not Path(self.path).exists():
            raise InputError(f"mask {self.path} does not exist: give a vector or raster file")
        try:
            with rasterio.open(self.path) as src:
                crs = src.crs
        except RasterioError as error:
            raise InputError(f"mask {self.path} cannot be read as a raster ({error})") from None
        if crs is None:
            raise InputError(f"mask {self.path} has no CRS: set one")

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.bool_]:
        block = self.geobox[key]
        try:
            with rasterio.open(self.path) as src:
                nodata = 0 if src.nodata is None else src.nodata
                grid = {"crs": str(block.crs), "transform": block.transform}
                size = {"height": block.shape[0], "width": block.shape[1]}
                with WarpedVRT(src, resampling=Resampling.nearest, nodata=nodata, **grid, **size) as warped:
                    values = warped.read(1, masked=True)
        except RasterioError as error:
            fault = str(error).splitlines()[0]
        else:
            return np.asarray((values.filled(0) != 0) & np.isfinite(values.filled(0)))
        # raised out here, because GDAL's own error in its context could not travel from a worker
        raise ReadError(f"mask {self.path} could not be read ({fault}): check that it is whole")

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        status = Path(self.path).stat() if Path(self.path).exists() else None
        stamp = (status.st_size, status.st_mtime_ns) if status else (0, 0)
        box = (str(self.geobox.crs), tuple(self.geobox.transform), tuple(self.geobox.shape))
        return ("icemap_xr.RasterMask", self.path, stamp, box)
