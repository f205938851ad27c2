"""Tiles of a cube and outlines, from memory and from a store."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from rasterio.features import rasterize
from shapely import box

from icemap_xr import simulate
from icemap_xr.errors import InputError, SchemaError
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor
from icemap_xr.training.cube_tiles import cube_tiles
from icemap_xr.training.evaluate import predict_tile
from icemap_xr.training.tiles import feature_specs

FEATURES = feature_specs(("grd", "insar"))
NAMES = ("grd", "insar")


@pytest.fixture(scope="module")
def region() -> simulate.SimulatedRegion:
    return simulate.region(size_km=0.5, years=(2020, 2021), seed=71, steps=4)


@pytest.fixture(scope="module")
def view(region: simulate.SimulatedRegion) -> xr.Dataset:
    return region.yearly()


@pytest.fixture(scope="module")
def native(view: xr.Dataset) -> xr.Dataset:
    """The same as a native cube with a series of both years."""
    cube = xr.Dataset(coords={"year": [2020, 2021], "y": view.y, "x": view.x, "spatial_ref": view.spatial_ref})
    for name in NAMES:
        values = view[name].values.reshape(-1, *view[name].shape[2:])
        cube[name] = ((f"{name}_time", "y", "x"), values, view[name].attrs)
        cube[f"{name}_index"] = (("year", "step"), np.arange(8, dtype=np.int32).reshape(2, 4))
    return cube


def test_tiles_hold_scaled_scenes_and_the_outlines_of_their_year(
    view: xr.Dataset, region: simulate.SimulatedRegion
) -> None:
    tiles = cube_tiles(view, region.outlines(), FEATURES, side=20, name="demo")
    assert [tile.name for tile in tiles[:5]] == [
        "demo-0-0_2020",
        "demo-0-1_2020",
        "demo-1-0_2020",
        "demo-1-1_2020",
        "demo-0-0_2021",
    ]
    block = slice(3, 9), slice(0, 20)
    values = tiles[5].scenes(NAMES, *block)
    expected = FEATURES[1].scale(view["insar"].values[1, :, 3:9, 20:40])
    np.testing.assert_array_equal(values[..., 1], expected)
    share = region.truth()["glacier_fraction"].values[1, 3:9, 20:40]
    found = tiles[5].shares(*block)
    np.testing.assert_array_equal(found[..., 1][(share == 0) | (share == 1)], share[(share == 0) | (share == 1)])
    assert (found.sum(-1) == 1).all()


def test_a_native_cube_offers_its_whole_series(
    native: xr.Dataset, view: xr.Dataset, region: simulate.SimulatedRegion
) -> None:
    for cube in (native, native.chunk(y=17)):
        tile = cube_tiles(cube, region.outlines(), FEATURES, years=[2021])[0]
        assert tile.series["grd"].shape == (8, 50, 50)
        assert tile.index["grd"].tolist() == [4, 5, 6, 7]
        whole = slice(0, 50), slice(0, 50)
        expected = FEATURES[0].scale(view["grd"].values[1])
        np.testing.assert_array_equal(tile.scenes(("grd",), *whole)[..., 0], expected)


def test_a_tile_of_everything_is_mapped_as_the_cube(view: xr.Dataset, region: simulate.SimulatedRegion) -> None:
    model = FakePredictor(window=16, steps=4)
    tiles = cube_tiles(view, region.outlines(), FEATURES)
    expected = predict(view, model)["probability"].values
    for tile, one in zip(tiles, expected, strict=True):
        np.testing.assert_array_equal(predict_tile(model, tile)[0][1], one)


def test_outlines_without_year_serve_all_years_in_any_crs(view: xr.Dataset) -> None:
    west, _, _, north = view.odc.geobox.boundingbox.bbox
    outlines = gpd.GeoDataFrame(geometry=[box(west, north - 100, west + 200, north)], crs="EPSG:32633")
    for tile in cube_tiles(view, outlines.to_crs("EPSG:4326"), FEATURES):
        ice = tile.shares(slice(0, 50), slice(0, 50))[..., 1]
        assert ice.sum() == 10 * 20
        assert ice[:10, :20].all()


def test_no_raster_of_labels_is_kept(
    view: xr.Dataset, region: simulate.SimulatedRegion, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def counted(shapes: Any, out_shape: tuple[int, int], **options: Any) -> Any:
        drawn.append(out_shape)
        return rasterize(shapes, out_shape, **options)

    monkeypatch.setattr("icemap_xr.training.cube_tiles.rasterize", counted)
    outlines = region.outlines()
    tiles = cube_tiles(view, outlines, FEATURES, side=20)
    assert drawn == [], "labels are drawn when they are read"
    transform = view.odc.geobox.transform
    for tile in tiles:
        row, column = (20 * int(part) for part in tile.name.partition("_")[0].split("-")[1:])
        shapes = list(outlines[outlines.year == int(tile.name[-4:])].geometry)
        whole = rasterize(shapes, (50, 50), transform=transform, dtype="uint8")[row : row + 20, column : column + 20]
        np.testing.assert_array_equal(tile.shares(slice(0, 20), slice(0, 20))[..., 1], whole)
        np.testing.assert_array_equal(tile.shares(slice(3, 9), slice(11, 18))[..., 1], whole[3:9, 11:18])
    assert set(drawn) == {(20, 20), (6, 7)}, "never more than what is read"


def test_what_does_not_fit_is_refused(view: xr.Dataset, native: xr.Dataset, region: simulate.SimulatedRegion) -> None:
    outlines = region.outlines()
    with pytest.raises(InputError, match="no polygon of 2021, they have 2020"):
        cube_tiles(view, outlines[outlines.year == 2020], FEATURES)
    with pytest.raises(InputError, match="a tile of 60 px does not fit"):
        cube_tiles(view, outlines, FEATURES, side=60)
    with pytest.raises(InputError, match="no GeoDataFrame with a CRS"):
        cube_tiles(view, gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]), FEATURES)
    with pytest.raises(InputError, match="the cube has no rtc"):
        cube_tiles(native, outlines, feature_specs(("rtc",)))
    with pytest.raises(SchemaError, match="rtc"):
        cube_tiles(view, outlines, feature_specs(("rtc",)))
    gappy = native.assign(grd_index=native["grd_index"].where(native["grd_index"] != 2, -1))
    with pytest.raises(SchemaError, match="2020 has 3 of 4 grd scenes"):
        cube_tiles(gappy, outlines, FEATURES)
    tile = cube_tiles(gappy, outlines, FEATURES, gaps="nodata")[0]
    assert np.isnan(tile.scenes(NAMES, slice(0, 9), slice(0, 9))[2, ..., 0]).all()
