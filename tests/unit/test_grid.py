"""The region's grid: extents, pieces, lengths, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer

from icemap_xr import schema
from icemap_xr.errors import GridError
from icemap_xr.grid import RegionGrid, parse_metres
from icemap_xr.testing.fakes import small_grid, yearly_dataset

UTM = "EPSG:32633"


@pytest.mark.parametrize("bbox", [(12.0, 78.0, 18.0, 78.5), (14.9, 78.0, 15.1, 78.01), (10.0, 60.0, 11.0, 60.5)])
@pytest.mark.parametrize("resolution", [10.0, 30.0])
def test_a_grid_covers_all_of_its_box(bbox: tuple[float, float, float, float], resolution: float) -> None:
    west, south, east, north = bbox
    lon, lat = np.linspace(west, east, 1001), np.linspace(south, north, 1001)
    edges = (
        np.concatenate([np.stack([lon, 0 * lon + south]), np.stack([lon, 0 * lon + north])], axis=1),
        np.concatenate([np.stack([0 * lat + west, lat]), np.stack([0 * lat + east, lat])], axis=1),
    )
    x, y = Transformer.from_crs(4326, UTM, always_xy=True).transform(*np.concatenate(edges, axis=1))
    box = RegionGrid.from_bbox(bbox, UTM, resolution).geobox.boundingbox
    # a tenth of a pixel: the box's edges are followed by straight pieces
    slack = resolution / 10
    assert box.left <= x.min() + slack
    assert box.bottom <= y.min() + slack
    assert box.right >= x.max() - slack
    assert box.top >= y.max() - slack
    assert box.left > x.min() - 2 * resolution
    assert box.top < y.max() + 2 * resolution
    assert box.left % resolution == box.bottom % resolution == 0


def test_bounds_on_the_grid_are_kept_exactly_and_others_are_snapped_outwards() -> None:
    exact = RegionGrid.from_bbox((500_000, 8_600_000, 500_090, 8_600_070), UTM, 10, bbox_crs=UTM)
    assert exact.shape == (7, 9)
    assert exact.geobox.boundingbox.bbox == (500_000, 8_600_000, 500_090, 8_600_070)
    wide = RegionGrid.from_bbox((500_001, 8_600_001, 500_089, 8_600_069), UTM, 10, bbox_crs=UTM)
    assert wide == exact


@pytest.mark.parametrize(
    ("bbox", "crs", "resolution", "match"),
    [
        ((15, 78, 14, 79), UTM, 10, "empty"),
        ((15, 78, 16, 78), UTM, 10, "empty"),
        ((15, 78, 16, 79), UTM, 0, "resolution 0"),
        ((15, 78, 16, 79), UTM, float("nan"), "resolution nan"),
        ((15, 78, 16, 79), "EPSG:4326", 0.1, "geographic.*UTM"),
        ((15, 78, 16, 79), "EPSG:999999", 10, "'EPSG:999999'.*EPSG:32633"),
        ((15, 78, 16, 79), "nonsense", 10, "'nonsense'"),
    ],
)
def test_boxes_that_make_no_grid(bbox: Any, crs: str, resolution: float, match: str) -> None:
    with pytest.raises(GridError, match=match):
        RegionGrid.from_bbox(bbox, crs, resolution)


@pytest.mark.parametrize(
    ("transform", "crs", "match"),
    [
        (Affine(10, 0, 0, 0, 10, 0), UTM, "north-up"),
        (Affine(-10, 0, 0, 0, -10, 0), UTM, "north-up"),
        (Affine(10, 1, 0, 1, -10, 0), UTM, "north-up"),
        (Affine(10, 0, 0, 0, -20, 0), UTM, "square"),
        (Affine(10, 0, 0, 0, -10, 0), None, "CRS"),
    ],
)
def test_grids_on_which_windows_would_be_wrong_are_refused(transform: Affine, crs: str | None, match: str) -> None:
    with pytest.raises(GridError, match=match):
        RegionGrid(GeoBox((4, 5), transform, crs))


def test_an_empty_grid_is_refused() -> None:
    with pytest.raises(GridError, match="at least one pixel"):
        small_grid((0, 5))


@pytest.mark.parametrize("shape", [(7, 9), (1, 9), (7, 1), (1, 1)])
def test_a_dataset_gives_its_grid_back(shape: tuple[int, int]) -> None:
    assert RegionGrid.from_dataset(yearly_dataset(shape)).geobox == small_grid(shape).geobox


def test_a_piece_knows_where_it_lies() -> None:
    ds = yearly_dataset((20, 30))
    whole = RegionGrid.from_dataset(ds)
    assert not whole.is_cropped
    piece = RegionGrid.from_dataset(ds.isel(y=slice(3, 9), x=slice(4, 5)))
    assert (piece.offset, piece.shape, piece.region_shape) == ((3, 4), (6, 1), (20, 30))
    assert piece.is_cropped
    again = RegionGrid.from_dataset(xr.Dataset(coords=piece.coords()))
    assert again == piece
    assert piece.geobox == whole.piece(slice(3, 9), slice(4, 5))


def test_a_dataset_that_left_its_region_is_refused() -> None:
    ds = yearly_dataset((6, 8))
    east = ds.assign_coords(x=ds.x + 80)
    for wrong in (east, xr.concat([ds, east], "x", data_vars="all"), ds.assign_coords(y=ds.y + 10)):
        with pytest.raises(GridError, match="beyond their region"):
            RegionGrid.from_dataset(wrong)
    with pytest.raises(GridError, match=r"0\.500.*icemap_grid"):
        RegionGrid.from_dataset(ds.assign_coords(x=ds.x + 5))


def test_a_dataset_without_regular_coordinates_is_refused() -> None:
    ds = yearly_dataset((4, 4))
    with pytest.raises(GridError, match="'x' is not regular"):
        RegionGrid.from_dataset(ds.assign_coords(x=ds.x + np.array([0, 0, 5, 0])))
    with pytest.raises(GridError, match="'y' is not regular"):
        RegionGrid.from_dataset(ds.assign_coords(y=ds.y + np.array([0, -1, 0, 0])))
    with pytest.raises(GridError, match="no regular"):
        RegionGrid.from_dataset(xr.Dataset({"a": ("z", [1.0])}))


@pytest.mark.parametrize(("length", "metres"), [(640, 640), ("640 m", 640), ("3.2km", 3200), ("1e3", 1000), (2.5, 2.5)])
def test_lengths(length: str | float, metres: float) -> None:
    assert parse_metres(length) == metres


def test_lengths_in_pixels() -> None:
    grid = small_grid((4, 4))
    assert grid.pixels("0.32km") == 32
    assert grid.pixel_area_km2 == pytest.approx(1e-4)
    for bad in ("15m", 0, -10, "some", True, "inf", "nan"):
        with pytest.raises(GridError):
            grid.pixels(bad)


def test_coords_are_those_of_pixel_centres_and_record_the_origin() -> None:
    coords = small_grid((3, 4)).coords()
    assert coords["x"].values.tolist() == [500_005, 500_015, 500_025, 500_035]
    assert coords["y"].values.tolist() == [8_699_995, 8_699_985, 8_699_975]
    assert coords[schema.SPATIAL_REF].attrs[schema.GRID_ORIGIN] == [500_000, 8_700_000]
    assert coords[schema.SPATIAL_REF].attrs[schema.GRID_SHAPE] == [3, 4]


@pytest.mark.parametrize(
    ("crs", "origin", "says"),
    [("EPSG:2229", (1_900_000, 500_000), "foot"), ("EPSG:3857", (1_670_000, 14_200_000), "times those on the ground")],
)
def test_a_crs_whose_pixels_are_no_metres_on_the_ground_is_refused(
    crs: str, origin: tuple[float, float], says: str
) -> None:
    with pytest.raises(GridError, match=says):
        RegionGrid(GeoBox((10, 10), Affine(10, 0, origin[0], 0, -10, origin[1]), crs))


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031", "EPSG:32633", "EPSG:3575"])
def test_polar_and_utm_grids_are_taken(crs: str) -> None:
    x, y = {"EPSG:32633": (500_000, 8_700_000)}.get(crs, (600_000, -1_000_000))
    assert RegionGrid(GeoBox((10, 10), Affine(10, 0, x, 0, -10, y), crs)).resolution == 10
