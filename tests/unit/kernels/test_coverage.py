"""Covered fractions of pixels, against shapely pixel by pixel."""

from typing import Any

import numpy as np
import pytest
import shapely
from numpy.typing import NDArray

from icemap_xr.kernels.coverage import Piece, coverage_sums, pixel_coverage


def rings_of(polygon: shapely.Polygon) -> list[NDArray[np.float64]]:
    oriented = shapely.orient_polygons(polygon, exterior_cw=True)
    return [shapely.get_coordinates(ring) for ring in shapely.get_rings(oriented)]


def by_intersection(polygon: shapely.Polygon, shape: tuple[int, int]) -> NDArray[np.float64]:
    rows, columns = np.indices(shape)
    pixels = shapely.box(columns, rows, columns + 1, rows + 1)
    return np.asarray(shapely.area(shapely.intersection(pixels, polygon)))


POLYGONS: dict[str, Any] = {
    "circle": shapely.Point(6.3, 4.9).buffer(3.7, quad_segs=40),
    "triangle": shapely.Polygon([(0.2, 0.1), (11.9, 3.3), (2.5, 8.8)]),
    "pixel-aligned": shapely.box(2, 1, 7, 5),
    "inside one pixel": shapely.box(3.2, 4.1, 3.3, 4.9),
    "whole window": shapely.box(0, 0, 12, 9),
    "hole": shapely.box(1.5, 1.5, 10.5, 8.5).difference(shapely.Point(6, 5).buffer(2.2)),
    "star": shapely.Polygon(
        [(6, 0.5), (7, 4), (11.5, 4.5), (7.5, 6), (9, 8.9), (6, 6.5), (2, 8.5), (4, 5.5), (0.5, 3)]
    ),
}


@pytest.mark.parametrize("name", POLYGONS)
def test_equals_the_intersection_with_each_pixel(name: str) -> None:
    polygon = POLYGONS[name]
    np.testing.assert_allclose(
        pixel_coverage(rings_of(polygon), (9, 12)), by_intersection(polygon, (9, 12)), atol=1e-11
    )


def test_sums_weight_pixels_and_leave_out_the_unobserved() -> None:
    polygon = POLYGONS["circle"]
    values = np.random.default_rng(1).random((2, 9, 12), dtype=np.float32)
    values[0, 4] = np.nan
    pieces = [Piece(0, tuple(rings_of(polygon))), Piece(7, tuple(rings_of(POLYGONS["hole"])))]
    ice, observed = coverage_sums(values, pieces)
    weight = by_intersection(polygon, (9, 12))
    np.testing.assert_allclose(ice[:, 0], np.nansum(weight * values, axis=(1, 2)), rtol=1e-10)
    np.testing.assert_allclose(observed[:, 0], np.sum(weight * np.isfinite(values), axis=(1, 2)), rtol=1e-10)
    hard = coverage_sums(values, pieces, threshold=0.5)
    np.testing.assert_allclose(hard[0, :, 0], np.sum(weight * (values > 0.5), axis=(1, 2)), rtol=1e-10)
