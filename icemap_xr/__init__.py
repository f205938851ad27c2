"""icemap-xr maps glaciers from Sentinel-1 time series, with honest uncertainty.

How data flows; each arrow is one function, and one method of ``ds.icemap``::

    STAC catalogue ──search──▶ items ──build_cube──▶ cube (Zarr) ──open_cube──▶ ds
        ds ──predict(model)──▶ probability ──filter_years──▶ ──calibrate──▶ calibrated probability
            ──area──▶ km² per year, region or block
            ──bootstrap_area──▶ draws and intervals ──trend──▶ km² per year
            ──glacier_area──▶ km² per glacier with intervals ──surges.compare_groups──▶ surging against others
            ──outlines──▶ polygons ──divide(dem)──▶ glaciers
            ──archive──▶ regional Zarr archive + GeoParquet + STAC item ──open_archive──▶ DataTree

>>> import icemap_xr as ix
>>> items = ix.search("catalog.json", region=(15.0, 78.0, 16.0, 78.5), years=range(2020, 2023))  # doctest: +SKIP
>>> cube = ix.build_cube(items, grid, "cube.zarr")  # doctest: +SKIP
>>> maps = cube.icemap.predict(ix.load_model("ICEmapper_tweightedpool_grdinsar"))  # doctest: +SKIP
>>> maps.icemap.bootstrap_area()  # doctest: +SKIP

Stages meet only in `icemap_xr.schema`, so each can start from what another wrote. Importing this package imports no
TensorFlow; loading a model does. Errors are drawn in `icemap_xr.errors`.
"""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from types import ModuleType as _ModuleType

import odc.geo.xr  # noqa: F401  registers ds.odc, by which every stage reads grids

from icemap_xr import errors
from icemap_xr.accessor import IcemapAccessor as _IcemapAccessor  # noqa: F401  registers ds.icemap
from icemap_xr.archive import open_archive
from icemap_xr.calibrate import fit_calibrator, reliability
from icemap_xr.catalog import search
from icemap_xr.cluster import cluster
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.divides import DivideOptions, divide
from icemap_xr.edgeerrors import held_out_edge_errors
from icemap_xr.errormodel import held_out_errors
from icemap_xr.geotiffs import cube_from_geotiffs
from icemap_xr.grid import RegionGrid
from icemap_xr.models import ModelBundle, list_models, load_model
from icemap_xr.stac_items import items_from_files
from icemap_xr.trend import change, trend
from icemap_xr.types import Calibrator, ModelSpec, Predictor

__version__ = _version("icemap-xr")

__all__ = [
    "Calibrator",
    "DivideOptions",
    "ModelBundle",
    "ModelSpec",
    "Predictor",
    "RegionGrid",
    "build_cube",
    "change",
    "cluster",
    "cube_from_geotiffs",
    "divide",
    "errors",
    "figures",
    "fit_calibrator",
    "held_out_edge_errors",
    "held_out_errors",
    "historic",
    "items_from_files",
    "list_models",
    "load_model",
    "open_archive",
    "open_cube",
    "reliability",
    "search",
    "simulate",
    "surges",
    "trend",
]


#: modules that bring what is slow to import (Matplotlib, parts of SciPy), and so are imported when they are asked for
_LATER = ("figures", "historic", "simulate", "surges")


def __getattr__(name: str) -> _ModuleType:
    if name in _LATER:
        return _import_module(f"icemap_xr.{name}")
    raise AttributeError(f"module 'icemap_xr' has no attribute {name!r}")
