"""Sentinel-1 GRD in radar geometry: calibrated, cleaned and geocoded, a block of the map at a time.

How it is done, what was checked and which choice matches the published weights is in docs/grd.md.

>>> from icemap_xr.grd import Dem, GrdOptions
>>> options = GrdOptions("terrain", dem=Dem("dem.tif", heights="ellipsoid"))
>>> cube = ix.build_cube(items, grid, "cube.zarr", grd=options)  # doctest: +SKIP
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from icemap_xr.grd.dem import Dem, dem_from_items
from icemap_xr.grd.options import GrdOptions

if TYPE_CHECKING:
    from icemap_xr.grd.items import find_dem, items_from_products
    from icemap_xr.grd.scenes import geocode, inspect, relief
    from icemap_xr.grd.shifts import estimate_shifts

__all__ = [
    "Dem",
    "GrdOptions",
    "dem_from_items",
    "estimate_shifts",
    "find_dem",
    "geocode",
    "inspect",
    "items_from_products",
    "relief",
]

#: SciPy's filters are slow to import
_LATER = {
    "estimate_shifts": "shifts",
    "find_dem": "items",
    "geocode": "scenes",
    "inspect": "scenes",
    "items_from_products": "items",
    "relief": "scenes",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(_import_module(f"icemap_xr.grd.{_LATER[name]}"), name)
    raise AttributeError(f"module 'icemap_xr.grd' has no attribute {name!r}")
