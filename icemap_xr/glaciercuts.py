"""Outlines cut into glaciers along the borders of zones, and what is too small for a zone of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.features import shapes
from scipy.ndimage import distance_transform_edt

from icemap_xr.burning import rasterize
from icemap_xr.complexes import polygons_of


def burn(shape: Any, box: GeoBox, values: Sequence[int] | None = None) -> NDArray[np.int32]:
    """Return the number of the geometry at each pixel's centre, 0 for none; the first of several has the pixel."""
    numbers = range(1, len(shape) + 1) if values is None else values
    pairs = list(zip(shape, numbers, strict=True))[::-1]
    return np.asarray(rasterize(pairs, box.shape, transform=box.transform, dtype="int32"), np.int32)


def zones_of(labels: NDArray[np.int32], box: GeoBox) -> dict[int, Any]:
    """Return the ground that is nearest to each number as a geometry: zones that tile the window.

    Without any number all of the window is zone 1.
    """
    if not labels.any():
        labels = np.ones_like(labels)
    nearest = distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    everywhere = labels[tuple(nearest)]
    parts: dict[int, list[Any]] = {}
    for one, number in shapes(everywhere, connectivity=4, transform=box.transform):
        parts.setdefault(int(number), []).append(shapely.geometry.shape(one))
    return {number: shapely.make_valid(shapely.MultiPolygon(parts[number])) for number in sorted(parts)}


class Remnants(NamedTuple):
    """Pieces of ice without the centre of a pixel, and the number of the earlier glacier that each belongs to."""

    pieces: NDArray[np.object_]
    numbers: NDArray[np.intp]


def remnants(whole: Any, old: gpd.GeoDataFrame, box: GeoBox, labels: NDArray[np.int32]) -> Remnants:
    """Find pieces of a complex that have no pixel, so that the pixels around them would say whose they are.

    Such a piece belongs to the earlier glacier that it has most ground in common with. One that has none in common with
    any follows the nearest ice that has pixels, and is not returned; where nothing of the complex has a pixel it
    belongs to the nearest earlier glacier.

    Parameters
    ----------
    whole
        The ice of all years.
    old
        Earlier glaciers of the complex, numbered from 1.
    box
        The pixels.
    labels
        Numbers of the glaciers `(y, x)`, 0 for none.
    """
    pieces = shapely.get_parts(polygons_of(whole))
    pieces = pieces[~np.isin(np.arange(1, len(pieces) + 1), burn(pieces, box))]
    shape = old.geometry.to_numpy()
    number = np.zeros(len(pieces), np.intp)
    if len(pieces) and len(shape):
        tree = shapely.STRtree(shape)
        piece, glacier = tree.query(pieces, predicate="intersects")
        common = shapely.area(shapely.intersection(pieces[piece], shape[glacier]))
        # from the least to the most, the last entry stays; of equals the first glacier
        for one in np.lexsort((-glacier, common)):
            number[piece[one]] = glacier[one] + 1 if common[one] > 0 else 0
        if not labels.any():
            alone = np.flatnonzero(number == 0)
            found = tree.query_nearest(pieces[alone], all_matches=False)
            number[alone[found[0]]] = found[1] + 1
    return Remnants(pieces[number > 0], number[number > 0])


def cut(
    ice: gpd.GeoDataFrame, zones: dict[int, Any], names: dict[int, tuple[str, str]], small: Remnants
) -> list[dict[str, Any]]:
    """Return the part of each year's outlines in each zone, with the remnants that belong to its glacier."""
    found = []
    for year, rows in ice.groupby("year"):
        for number, part in _by_number(rows.geometry.union_all(), zones, small).items():
            name, origin = names[number]
            found.append({"glacier_id": name, "year": year, "origin": origin, "geometry": part})
    return found


def _by_number(whole: Any, zones: dict[int, Any], small: Remnants) -> dict[int, Any]:
    """Return what of a year's ice has each number."""
    pieces = shapely.get_parts(polygons_of(whole))
    piece, remnant = shapely.STRtree(small.pieces).query(shapely.point_on_surface(pieces), predicate="within")
    if not len(piece):
        return _faces(whole, zones)
    rest = np.delete(pieces, piece)
    out = {number: [part] for number, part in _faces(shapely.multipolygons(rest), zones).items()} if len(rest) else {}
    for number, one in zip(small.numbers[remnant].tolist(), pieces[piece], strict=True):
        out.setdefault(number, []).append(one)
    return {number: polygons_of(shapely.geometrycollections(out[number])) for number in sorted(out)}


def _faces(whole: Any, zones: dict[int, Any]) -> dict[int, Any]:
    """Return what of a geometry lies in each zone, so that neighbours have every corner of their border in common.

    Intersections would not: where three zones meet along a straight side of one, that one would lack the corner.
    """
    if len(zones) == 1:
        return dict.fromkeys(zones, whole)
    shape = np.array(list(zones.values()), object)
    lines = shapely.union_all([whole.boundary, *shapely.boundary(shape)])
    faces = shapely.get_parts(shapely.polygonize(shapely.get_parts(lines)))
    points = shapely.point_on_surface(faces)
    shapely.prepare(whole)
    inside = shapely.contains(whole, points)
    faces, points = faces[inside], points[inside]
    face, zone = shapely.STRtree(shape).query(points, predicate="within")
    numbers = list(zones)
    return {numbers[one]: polygons_of(shapely.coverage_union_all(faces[face[zone == one]])) for one in np.unique(zone)}
