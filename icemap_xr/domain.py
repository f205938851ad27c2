"""Which pixels a layer of polygons covers, and the declared domain of a region, chunk by chunk.

Below the stages. A pixel belongs to a polygon if its centre does, so it belongs to one polygon of a layer at most.
"""

from __future__ import annotations

from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from dask.delayed import delayed
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.arealscale import GroundWeights
from icemap_xr.blocktable import BLOCK
from icemap_xr.burning import rasterize
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.regionsums import checked_polygons, extent_in_words, same_grid, sums_by_label, to_pixels


def polygon_labels(polygons: NDArray[Any], like: xr.DataArray) -> Any:
    """Return the number of the first polygon that holds each pixel's centre, `(y, x)` int32; their count for none.

    Parameters
    ----------
    polygons
        In pixels from the upper left corner of `like`, rows downwards.
    like
        Map `(year, y, x)`; the labels are lazy, with its chunks, where it is.
    """
    tree = shapely.STRtree(polygons)
    if not isinstance(like.data, da.Array):
        return _burn((0, 0), (like.shape[1], like.shape[2]), tree)
    rows, columns = like.data.chunks[1:]
    starts = [np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int).tolist() for sizes in (rows, columns)]
    blocks = [
        [
            da.from_delayed(_delayed((y, x), (height, width), tree), (height, width), np.int32)
            for x, width in zip(starts[1], columns, strict=True)
        ]
        for y, height in zip(starts[0], rows, strict=True)
    ]
    return da.block(blocks)


def _delayed(at: tuple[int, int], shape: tuple[int, int], tree: shapely.STRtree) -> Any:
    found = np.sort(tree.query(shapely.box(at[1], at[0], at[1] + shape[1], at[0] + shape[0])))
    # only the polygons of the chunk go into its task
    return delayed(_burn_some, pure=True)(at, shape, tree.geometries[found], found, len(tree.geometries))


def _burn(at: tuple[int, int], shape: tuple[int, int], tree: shapely.STRtree) -> NDArray[np.int32]:
    return _burn_some(at, shape, tree.geometries, np.arange(len(tree.geometries)), len(tree.geometries))


def _burn_some(
    at: tuple[int, int], shape: tuple[int, int], polygons: NDArray[Any], numbers: NDArray[np.intp], count: int
) -> NDArray[np.int32]:
    if not len(polygons):
        return np.full(shape, count, np.int32)
    # the last one burnt wins: turned around, that is the first of the layer
    shapes = [(polygon, int(number)) for polygon, number in zip(polygons[::-1], numbers[::-1], strict=True)]
    transform = Affine(1, 0, at[1], 0, 1, at[0])
    burnt = rasterize(shapes, shape, fill=count, transform=transform, dtype="int32")
    return np.asarray(burnt, np.int32)


def tile_table(
    probability: xr.DataArray,
    grid: RegionGrid,
    tiles: gpd.GeoDataFrame,
    *,
    threshold: float | None = None,
    weights: GroundWeights | None = None,
) -> xr.Dataset:
    """Sum ice and observed area per tile of a given layer and year; each pixel counts in one tile at most.

    Parameters
    ----------
    probability
        `(year, y, x)` floating, 0..1, NaN where nothing was observed.
    grid
        The array's grid.
    tiles
        Polygons with a CRS, labelled by the column `codename` or else the index. A pixel belongs to the first tile
        that holds its centre; tiles off the map are left out.
    threshold, weights
        As in `icemap_xr.blocktable.block_table`.

    Returns
    -------
    xarray.Dataset
        `ice_km2` and `observed_km2` `(year, block)` float64, km2, in the order of `tiles`; `outside_ice_km2` and
        `outside_observed_km2` `(year)`: what lies in no tile, so that blocks and outside add up to the map. Lazy for
        Dask input, equal to 1e-12 for any chunking. `centre_x` and `centre_y` `(block)` in the map's CRS.

    Raises
    ------
    InputError
        `tiles` is empty, has no CRS, invalid or no polygons, repeated labels, or lies wholly off the map.
    """
    labels, shapes = checked_polygons(tiles, grid, "block", "codename")
    polygons = to_pixels(shapes, grid)
    rows, columns = grid.shape
    here = shapely.intersects(polygons, shapely.box(0, 0, columns, rows))
    # a tile that only touches the map's edge holds none of its pixels
    here &= ~shapely.touches(polygons, shapely.box(0, 0, columns, rows))
    if not here.any():
        raise InputError(f"no tile of block lies on the map ({extent_in_words(grid)}): check its CRS")
    polygons, labels, shapes = polygons[here], labels[here], shapes[here]
    where = polygon_labels(polygons, probability)
    sums = sums_by_label(probability, where, len(polygons), threshold, weights) * grid.pixel_area_km2
    dims = (schema.YEAR, BLOCK)
    units = {"units": "km2"}
    centres = shapely.centroid(shapes)
    return xr.Dataset(
        {
            "ice_km2": (dims, sums[0, :, :-1], {**units, "long_name": "ice area in the block"}),
            "observed_km2": (dims, sums[1, :, :-1], {**units, "long_name": "observed area in the block"}),
            "outside_ice_km2": (schema.YEAR, sums[0, :, -1], {**units, "long_name": "ice area in no block"}),
            "outside_observed_km2": (schema.YEAR, sums[1, :, -1], {**units, "long_name": "observed area in no block"}),
        },
        coords={
            schema.YEAR: probability[schema.YEAR].variable,
            BLOCK: labels,
            "centre_x": (BLOCK, shapely.get_x(centres), {"units": "m"}),
            "centre_y": (BLOCK, shapely.get_y(centres), {"units": "m"}),
        },
        attrs={
            "block_m": float(np.sqrt(np.median(shapely.area(shapes)))),
            "area_kind": "planar" if weights is None else "true",
        },
    )


def within_domain(array: xr.DataArray, grid: RegionGrid, domain: xr.DataArray | gpd.GeoDataFrame) -> xr.DataArray:
    """Return a map with everything outside the domain unobserved.

    Parameters
    ----------
    array
        Map `(year, y, x)`.
    grid
        Its grid.
    domain
        True inside, `(y, x)` on the map's grid, or polygons with a CRS, to which a pixel belongs by its centre.

    Raises
    ------
    InputError
        The mask is no boolean `(y, x)` on the map's grid, the polygons cannot be used, or nothing is inside.
    """
    if isinstance(domain, xr.DataArray):
        if set(domain.dims) != {schema.Y, schema.X} or domain.dtype != np.bool_:
            raise InputError(f"domain is {domain.dtype} {tuple(domain.dims)}: give a boolean (y, x), True inside")
        domain = domain.transpose(schema.Y, schema.X)
        if not same_grid(domain, array):
            raise InputError("domain is on another grid than the map: reproject it first, or give polygons")
        inside = domain.data
    else:
        if isinstance(domain, gpd.GeoDataFrame):
            domain = domain.reset_index(drop=True)  # what the polygons are called does not matter here
        _, shapes = checked_polygons(domain, grid, "domain", "")
        labels = polygon_labels(to_pixels(shapes, grid), array)
        inside = labels < len(shapes)
    return array.where(xr.DataArray(inside, dims=(schema.Y, schema.X)))
