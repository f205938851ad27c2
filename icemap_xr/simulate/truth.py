"""Exact truth of a block: glacier fraction, class and elevation; outlines with exactly the same area.

A glacier is where a function, given at pixel corners, is positive. Between corners it is linear on the four triangles
that a pixel's corners form with its centre, so fraction and outline follow from one geometry without approximation.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias, cast

import contourpy
import numpy as np
import shapely
from numpy.typing import NDArray

from icemap_xr.simulate.noise import Float32Array, Float64Array, value_noise
from icemap_xr.simulate.parameters import Surface
from icemap_xr.simulate.terrain import Layout

#: what contourpy gives for `FillType.OuterOffset`: per polygon its vertices, and where its rings start
_Filled: TypeAlias = tuple[list[Float64Array], list[NDArray[np.uint32]]]


def pixel_centres(span: slice) -> Float64Array:
    """Return the positions of pixel centres along an axis, in pixels from the grid's corner."""
    return np.arange(span.start, span.stop) + 0.5


def elevation(plan: Layout, rows: slice, columns: slice) -> Float64Array:
    """Return terrain height of a block, m above sea; 0 on the sea."""
    y, x = pixel_centres(rows), pixel_centres(columns)
    metres_y, metres_x = y * plan.resolution, x * plan.resolution
    rough = 7.0 * value_noise(metres_y, metres_x, 110.0, plan.seed + 1009)
    rough += 3.0 * value_noise(metres_y, metres_x, 45.0, plan.seed + 1013)
    # ice is smoother than ground
    ice = plan.sample(plan.ice[0], y, x)
    rough *= np.where(ice > 0, 1.0 / (1.0 + np.maximum(ice, 0) / 15.0), 1.0)
    return np.maximum(plan.sample(plan.elevation, y, x) + rough, 0.0)


def glacier_function(plan: Layout, year: int, rows: slice, columns: slice) -> Float64Array:
    """Return the function that is positive on ice, at the pixel corners of a block: `(rows + 1, columns + 1)`, m."""
    y, x = (np.arange(span.start, span.stop + 1, dtype=np.float64) for span in (rows, columns))
    metres_y, metres_x = y * plan.resolution, x * plan.resolution
    edge = 6.0 * value_noise(metres_y, metres_x, 150.0, plan.seed + 1103)
    edge += 3.0 * value_noise(metres_y, metres_x, 55.0, plan.seed + 1109)
    return plan.sample(plan.ice[year], y, x) + edge


def fraction(function: Float64Array) -> Float32Array:
    """Return the share of each pixel where the function is positive, `(rows, columns)` float32."""
    corners = (function[:-1, :-1], function[:-1, 1:], function[1:, 1:], function[1:, :-1])
    positive = np.sum([c > 0 for c in corners], axis=0)
    out = (positive == 4).astype(np.float64)
    mixed = (positive > 0) & (positive < 4)
    ring = [c[mixed] for c in corners]
    centre = (ring[0] + ring[1] + ring[2] + ring[3]) / 4
    out[mixed] = sum(_triangle(ring[i], ring[(i + 1) % 4], centre) for i in range(4)) / 4
    return np.asarray(out, np.float32)


def _triangle(a: Float64Array, b: Float64Array, c: Float64Array) -> Float64Array:
    """Return the share of a triangle where the linear function with these corner values is positive."""
    low, middle, high = np.sort(np.stack([a, b, c]), axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        tip = high**2 / ((high - low) * (high - middle))
        rest = 1 - low**2 / ((high - low) * (middle - low))
    share = np.where(middle > 0, np.where(low > 0, 1.0, rest), np.where(high > 0, tip, 0.0))
    return np.asarray(np.nan_to_num(share, nan=1.0), np.float64)


def outline(function: Float64Array, transform: tuple[float, ...]) -> shapely.MultiPolygon:
    """Return where the function is positive as polygons in the grid's CRS.

    Parameters
    ----------
    function
        Values at all pixel corners.
    transform
        Affine coefficients of the grid (a, b, c, d, e, f).
    """
    generator = contourpy.contour_generator(
        z=function, name="serial", quad_as_tri=True, fill_type=contourpy.FillType.OuterOffset
    )
    points, offsets = cast(_Filled, generator.filled(0.0, np.inf))
    a, _, c, _, e, f = transform[:6]
    polygons = []
    for vertices, starts in zip(points, offsets, strict=True):
        ring = np.column_stack([c + a * vertices[:, 0], f + e * vertices[:, 1]])
        rings = [ring[i:j] for i, j in pairwise(starts)]
        polygons.append(shapely.Polygon(rings[0], rings[1:]))
    return shapely.MultiPolygon(polygons)


def join(parts: list[shapely.Polygon]) -> shapely.MultiPolygon:
    """Return the polygons of neighbouring blocks as one, without the lines between blocks."""
    whole = shapely.union_all(parts)
    return shapely.MultiPolygon([one for one in shapely.get_parts(whole) if one.geom_type == "Polygon"])


def divides(
    ids: NDArray[np.int32], transform: tuple[float, ...]
) -> tuple[NDArray[np.int32], list[shapely.MultiLineString]]:
    """Return the pairs of glaciers that share an edge, `(pair, 2)`, and the edges of each pair in the grid's CRS."""
    a, _, c, _, e, f = transform[:6]
    found: list[tuple[NDArray[np.int32], NDArray[np.float64]]] = []
    for axis in (0, 1):
        one, other = (ids[:-1], ids[1:]) if axis == 0 else (ids[:, :-1], ids[:, 1:])
        rows, columns = np.nonzero((one != other) & (one > 0) & (other > 0))
        start = np.stack([columns + (axis == 1), rows + (axis == 0)], 1)
        ends = np.stack([start, start + ((1, 0) if axis == 0 else (0, 1))], 1)
        pair = np.sort(np.stack([one[rows, columns], other[rows, columns]], 1), axis=1)
        found.append((pair, ends * (a, e) + (c, f)))
    pairs, edges = (np.concatenate(parts) for parts in zip(*found, strict=True))
    unique, member = np.unique(pairs, axis=0, return_inverse=True)
    lines = [shapely.line_merge(shapely.MultiLineString(list(edges[member == k]))) for k in range(len(unique))]
    return unique, [shapely.MultiLineString(list(shapely.get_parts(line))) for line in lines]


def classes(plan: Layout, year: int, rows: slice, columns: slice) -> NDArray[np.uint8]:
    """Return the class at each pixel's centre, a `Surface` number."""
    y, x = pixel_centres(rows), pixel_centres(columns)
    metres_y, metres_x = y * plan.resolution, x * plan.resolution
    function = glacier_function(plan, year, rows, columns)
    ice = (function[:-1, :-1] + function[:-1, 1:] + function[1:, 1:] + function[1:, :-1]) / 4 > 0
    fine = 0.25 * value_noise(metres_y, metres_x, 70.0, plan.seed + 1201)

    def positive(field: Float32Array, amount: float) -> NDArray[np.bool_]:
        return np.asarray(plan.sample(field, y, x) + amount * fine > 0)

    sea = plan.sample(plan.bed, y, x) <= 0
    steps: list[tuple[NDArray[np.bool_], Surface]] = [
        (positive(plan.outwash, 1.0), Surface.OUTWASH),
        (positive(plan.moraine, 1.0), Surface.MORAINE),
        (positive(plan.snow, 0.4), Surface.SNOW_PATCH),
        (sea, Surface.SEA),
        (sea & positive(plan.melange, 1.0), Surface.MELANGE),
        (positive(plan.lake[year], 0.4), Surface.LAKE),
        (ice, Surface.BARE_ICE),
        (ice & positive(plan.debris, 1.5), Surface.DEBRIS_ICE),
        (ice & positive(plan.firn, 0.6), Surface.FIRN),
    ]
    out = np.full(ice.shape, Surface.ROCK, np.uint8)
    for where, surface in steps:
        out[where] = surface
    return out
