"""Read a raster with the GDAL inside pyogrio, which is newer than rasterio's, through GDAL's C functions.

Run as a program, as two GDALs in one process disturb each other: prints driver, size, geotransform, CRS and the sha256
of the values of all bands as float32.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pyogrio

_RASTER, _READ, _FLOAT32 = 0x02, 0, 6


def read(name: str) -> dict[str, object]:
    """Return what GDAL says of a raster."""
    found = sorted((Path(pyogrio.__file__).parents[1] / "pyogrio.libs").glob("libgdal*"))
    if not found or pyogrio.__gdal_version__ < (3, 12):
        return {"missing": f"pyogrio brings no GDAL 3.12 of its own but {pyogrio.__gdal_version__}"}
    gdal = ctypes.CDLL(str(found[0]))
    gdal.GDALAllRegister()
    for function in (gdal.GDALOpenEx, gdal.GDALGetRasterBand):
        function.restype = ctypes.c_void_p
    for function in (gdal.GDALGetProjectionRef, gdal.CPLGetLastErrorMsg):
        function.restype = ctypes.c_char_p
    data = gdal.GDALOpenEx(name.encode(), _RASTER, None, None, None)
    if not data:
        return {"error": gdal.CPLGetLastErrorMsg().decode()}
    handle = ctypes.c_void_p(data)
    width, height = gdal.GDALGetRasterXSize(handle), gdal.GDALGetRasterYSize(handle)
    bands = gdal.GDALGetRasterCount(handle)
    values = np.empty((bands, height, width), np.float32)
    for number in range(bands):
        band = ctypes.c_void_p(gdal.GDALGetRasterBand(handle, number + 1))
        target = values[number].ctypes.data_as(ctypes.c_void_p)
        failed = gdal.GDALRasterIO(band, _READ, 0, 0, width, height, target, width, height, _FLOAT32, 0, 0)
        if failed:
            return {"error": gdal.CPLGetLastErrorMsg().decode()}
    transform = (ctypes.c_double * 6)()
    gdal.GDALGetGeoTransform(handle, transform)
    return {
        "shape": values.shape,
        "transform": list(transform),
        "crs": gdal.GDALGetProjectionRef(handle).decode(),
        "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
    }


if __name__ == "__main__":
    print(json.dumps(read(sys.argv[1])))
