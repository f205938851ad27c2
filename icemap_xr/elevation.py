"""Elevation models as files: the part of one that a region needs."""

from __future__ import annotations

import math

import numpy as np
import rasterio
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr
from rasterio.errors import RasterioError
from rasterio.warp import transform_bounds
from rasterio.windows import Window, from_bounds

from icemap_xr.errors import GridError, InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.types import StrPath


def read_dem(path: StrPath, grid: RegionGrid, *, margin: float = 1000.0) -> xr.DataArray:
    """Read the part of a raster of elevations that covers a grid, on the raster's own pixels.

    Parameters
    ----------
    path
        What GDAL opens; the first band is read. North-up, with a CRS.
    grid
        Grid to cover.
    margin
        How far to read beyond it, m.

    Returns
    -------
    xarray.DataArray
        Elevations `(y, x)` in the raster's own scale and offset, float32 or wider, NaN in voids, with the raster's CRS.

    Raises
    ------
    InputError
        The file cannot be read, has no CRS, or lies elsewhere.
    GridError
        The raster is rotated or south-up, or in degrees while the region crosses the antimeridian.
    """
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    around = left - margin, bottom - margin, right + margin, top + margin
    try:
        with rasterio.open(path) as source:
            if source.crs is None:
                raise InputError(f"the DEM {path} has no CRS: assign one, for example with gdal_edit.py -a_srs")
            _check_grid(source, path)
            bounds = transform_bounds(grid.crs, source.crs, *around)
            if bounds[0] > bounds[2]:  # longitudes from one side of the antimeridian to the other
                raise GridError(
                    f"the region crosses the antimeridian, at which the DEM {path} in degrees is cut: warp it to "
                    "the region's CRS first, with gdalwarp -t_srs"
                )
            (top, bottom), (left, right) = from_bounds(*bounds, transform=source.transform).toranges()
            rows = max(math.floor(top), 0), min(math.ceil(bottom), source.height)
            columns = max(math.floor(left), 0), min(math.ceil(right), source.width)
            if rows[0] >= rows[1] or columns[0] >= columns[1]:
                hint = "; its longitudes go beyond 180, count them from -180 to 180" if _beyond_180(source) else ""
                raise InputError(f"the DEM {path} lies beside the region: give one that covers it{hint}")
            window = Window.from_slices(rows, columns)
            values = source.read(1, window=window, masked=True)
            scale, offset = source.scales[0], source.offsets[0]
            box = GeoBox(values.shape, source.window_transform(window), source.crs.to_wkt())
    except RasterioError as error:
        raise InputError(f"the DEM {path} cannot be read ({' '.join(str(error).split())}): give a raster") from None
    kind = np.result_type(values.dtype, np.float32)
    heights = values.astype(kind).filled(np.nan)
    return wrap_xr(heights if (scale, offset) == (1.0, 0.0) else heights * scale + offset, box)


def _check_grid(source: rasterio.DatasetReader, path: StrPath) -> None:
    if source.transform.b or source.transform.d:
        raise GridError(f"the DEM {path} is rotated: warp it to a north-up grid first, with gdalwarp")
    if source.transform.e > 0 or source.transform.a < 0:
        raise GridError(
            f"the DEM {path} is not north-up, its pixels are {source.transform.a:g} by {source.transform.e:g}: "
            "flip it first, with gdalwarp"
        )


def _beyond_180(source: rasterio.DatasetReader) -> bool:
    return bool(source.crs.is_geographic and source.bounds.right > 180 + source.transform.a)
