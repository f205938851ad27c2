"""An interactive map for Jupyter: a layer of maps and outlines for each year, of which one is chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
import xarray as xr
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from icemap_xr import schema
from icemap_xr.errors import GridError, InputError, MissingExtraError
from icemap_xr.grid import RegionGrid
from icemap_xr.sidecars import footprint

if TYPE_CHECKING:
    import folium

#: longest side of a layer's picture, pixels
_MAX_PIXELS = 1000
#: beyond this latitude web maps have no ground
_MERCATOR_LIMIT = 85.0
_WEB, _DEGREES = "EPSG:3857", "EPSG:4326"
#: what is told of an outline under the pointer, where it is known
_TOLD = (
    "year",
    "glacier_id",
    "rgi_id",
    "glac_name",
    "area_km2",
    "mapping_low_km2",
    "mapping_high_km2",
    "mean_probability",
)


def explore(
    ds: xr.Dataset,
    *,
    outlines: gpd.GeoDataFrame | None = None,
    variable: str = schema.PROBABILITY,
    years: Sequence[int] | None = None,
    opacity: float = 0.7,
    tiles: Any = "OpenStreetMap",
) -> folium.Map:
    """Return a folium map that Jupyter shows: maps and outlines over a base map, one year at a time.

    The picture is for looking: large maps are thinned out to 1000 pixels a side and warped to Web Mercator, outlines
    are simplified to a pixel of it. Save it with ``.save("map.html")``; the page needs a network for scripts and tiles.

    Parameters
    ----------
    ds
        Dataset with `variable` `(year, y, x)`, 0..1, NaN where unobserved, and a CRS; NumPy or Dask. Of a large one
        every chunk is read for a few pixels; `tree["overviews/8"].to_dataset()` of an archive is faster.
    outlines
        Outlines or glaciers in any CRS; with a column `year` they are shown with their year, else with each.
    variable
        ``"probability"`` or ``"calibrated"``.
    years
        Which years; all by default. The last is shown first.
    opacity
        Of the maps, 0..1.
    tiles
        Base map: a name or address that folium knows; None for none.

    Raises
    ------
    MissingExtraError
        folium is not installed.
    InputError
        A year is not in the dataset, or the opacity is not in 0..1.
    GridError
        The region lies beyond 85 degrees north or south, or across the antimeridian: web maps cannot show it.
    SchemaError
        The dataset is no map.
    """
    try:
        import folium
        from folium.plugins import GroupedLayerControl
    except ImportError:
        raise MissingExtraError("an interactive map needs folium: pip install 'icemap-xr[map]'") from None
    if not 0 <= opacity <= 1:
        raise InputError(f"opacity {opacity!r} is not allowed: give a number from 0 to 1")
    array = schema.validate_maps(ds, "explore", variable)
    chosen = _years(array, years)
    box = _web_box(RegionGrid.from_dataset(ds[[variable]]))
    bounds = _bounds(box)
    shapes = None if outlines is None else _for_web(outlines, float(box.resolution.x))
    page = folium.Map(tiles=tiles, control_scale=True)
    layers = []
    for year in chosen:
        layer = folium.FeatureGroup(name=str(year), show=year == chosen[-1])
        picture = _picture(array.sel({schema.YEAR: year}), box)
        folium.raster_layers.ImageOverlay(picture, bounds, opacity=opacity, mercator_project=False).add_to(layer)
        if shapes is not None:
            of_year = shapes[shapes["year"] == year] if "year" in shapes else shapes
            if len(of_year):
                _lines(folium, of_year).add_to(layer)
        layer.add_to(page)
        layers.append(layer)
    control: Any = GroupedLayerControl
    control({"year": layers}, exclusive_groups=True, collapsed=False).add_to(page)
    _legend(f"{variable} of glacier").add_to(page)
    page.fit_bounds(bounds)
    return page


def _years(array: xr.DataArray, years: Sequence[int] | None) -> list[int]:
    known = sorted(int(year) for year in array[schema.YEAR].values)
    if years is not None and not len(years):
        raise InputError(f"no year is chosen: the dataset has {', '.join(map(str, known))}")
    for year in years or ():
        if year not in known:
            raise InputError(f"year {year} is not in the dataset: it has {', '.join(map(str, known))}")
    return known if years is None else sorted({int(year) for year in years})


def _web_box(grid: RegionGrid) -> GeoBox:
    """Return the pixels of the pictures: Web Mercator, at most 1000 a side, no finer than the maps."""
    west, south, east, north = footprint(grid)[1]
    if max(-south, north) > _MERCATOR_LIMIT:
        raise GridError("the region reaches beyond 85 degrees of latitude, where web maps end: use ds.icemap.plot()")
    if west > east:
        raise GridError("the region lies across the antimeridian, where web maps are cut: use ds.icemap.plot()")
    full = grid.geobox.to_crs(_WEB)
    step = max(1.0, max(full.shape) / _MAX_PIXELS)
    return full.zoom_out(step) if step > 1 else full


def _bounds(box: GeoBox) -> list[list[float]]:
    """Return south-west and north-east corner, latitude first."""
    left, bottom, right, top = box.boundingbox.bbox
    (west, east), (south, north) = Transformer.from_crs(_WEB, _DEGREES, always_xy=True).transform(
        [left, right], [bottom, top]
    )
    return [[south, west], [north, east]]


def _picture(array: xr.DataArray, box: GeoBox) -> NDArray[np.uint8]:
    """Return a year's map as colours `(y, x, 4)`, transparent where nothing was observed."""
    import matplotlib

    step = max(1, math.floor(max(array.shape) / _MAX_PIXELS))
    thin = array[::step, ::step].astype(np.float32).compute()
    warped = thin.odc.reproject(box, resampling="nearest", dst_nodata=np.nan).values
    colours = matplotlib.colormaps["cividis"](np.nan_to_num(warped), bytes=True)
    colours[..., 3] = np.where(np.isnan(warped), 0, 255)
    return np.asarray(colours, np.uint8)


def _for_web(outlines: gpd.GeoDataFrame, pixel: float) -> gpd.GeoDataFrame:
    """Return outlines in degrees with few corners and the columns that are told."""
    if outlines.crs is None:
        raise InputError("the outlines have no CRS: set one with set_crs()")
    columns = [name for name in _TOLD if name in outlines]
    frame = outlines[[*columns, outlines.geometry.name]].to_crs(_WEB)
    frame = frame.set_geometry(frame.geometry.simplify(pixel / 2)).to_crs(_DEGREES)
    for name in columns:
        numbers = np.issubdtype(getattr(frame[name].dtype, "numpy_dtype", frame[name].dtype), np.floating)
        frame[name] = frame[name].round(4) if numbers else frame[name]
    return frame[~frame.geometry.is_empty]


def _lines(folium: Any, frame: gpd.GeoDataFrame) -> Any:
    told = [name for name in frame.columns if name != frame.geometry.name]
    tooltip = folium.GeoJsonTooltip(told) if told else None
    style = {"color": "#D55E00", "weight": 2, "fillOpacity": 0}
    return folium.GeoJson(frame.to_json(), style_function=lambda _: style, tooltip=tooltip)


def _legend(title: str) -> Any:
    import branca.colormap
    import matplotlib

    colours = [matplotlib.colors.to_hex(matplotlib.colormaps["cividis"](part)) for part in np.linspace(0, 1, 6)]
    return branca.colormap.LinearColormap(colours, vmin=0, vmax=1, caption=title)
