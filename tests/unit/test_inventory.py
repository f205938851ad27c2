"""The inventory: RGI 7 columns with their types, statistics of the terrain, change between years, files."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pytest
import shapely
import xarray as xr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr, xr_coords
from pyproj import Transformer

from icemap_xr.errors import GridError, InputError
from icemap_xr.inventory import RGI7_COLUMNS, area_change, rgi7_table, write_table
from icemap_xr.testing.rasters import read_raster

CRS = "EPSG:32633"


def plane(direction, steepness, crs=CRS, shape=(60, 60), cell=30.0):
    """A plane that falls towards a compass direction; both in degrees."""
    box = GeoBox(shape, Affine(cell, 0, 500_000, 0, -cell, 8_700_000), crs)
    y, x = np.mgrid[: shape[0], : shape[1]] * cell
    along = x * np.sin(np.radians(direction)) - y * np.cos(np.radians(direction))
    coords = {str(name): one for name, one in xr_coords(box).items()}
    return xr.DataArray(1000 - np.tan(np.radians(steepness)) * along, dims=("y", "x"), coords=coords)


def glaciers(**columns):
    shape = shapely.box(500_600, 8_698_800, 501_200, 8_699_400)
    return gpd.GeoDataFrame({"glacier_id": ["G015017E78375N"], **columns}, geometry=[shape], crs=CRS)


def test_all_columns_in_their_types_and_null_where_unknown():
    table = rgi7_table(glaciers(year=[2020], mean_probability=[0.9]))
    assert list(table.columns) == [*RGI7_COLUMNS, "glacier_id", "year", "mean_probability", "geometry"]
    assert {name: str(table[name].dtype) for name in RGI7_COLUMNS} == RGI7_COLUMNS
    known = {name for name in RGI7_COLUMNS if table[name].notna().all()}
    assert known == {"cenlon", "cenlat", "utm_zone", "area_km2"}
    # on the central meridian of a UTM zone the map is smaller than the ground by 0.9996 squared
    assert table["area_km2"].tolist() == pytest.approx([0.36 / 0.9996**2], rel=1e-6)
    assert table["utm_zone"].tolist() == [33]
    assert len(rgi7_table(glaciers().iloc[:0])) == 0


def test_an_rgi_id_stays_one_and_columns_of_the_rgi_are_kept():
    table = rgi7_table(glaciers(surge_type=[2]).assign(glacier_id=["RGI2000-v7.0-G-11-03113"]))
    assert table["rgi_id"].tolist() == ["RGI2000-v7.0-G-11-03113"]
    assert table["surge_type"].tolist() == [2]


@pytest.mark.parametrize(
    ("direction", "sector"), [(0, 1), (45, 2), (80, 3), (135, 4), (190, 5), (225, 6), (270, 7), (300, 8), (340, 1)]
)
def test_slope_and_aspect_are_those_of_a_plane(direction, sector):
    table = rgi7_table(glaciers(), plane(direction, 12.0), dem_source="made up")
    slope = np.degrees(np.arctan(0.9996 * np.tan(np.radians(12.0))))
    assert table["slope_deg"].tolist() == pytest.approx([slope], abs=1e-4)
    # the map's north is 0.04 degrees off the true one here
    assert abs((table["aspect_deg"][0] - direction + 180) % 360 - 180) < 0.05
    assert table["aspect_sec"].tolist() == [sector]
    assert table["dem_source"].tolist() == ["made up"]
    low, high = table["zmin_m"][0], table["zmax_m"][0]
    assert low < table["zmed_m"][0] < high
    assert table["zmean_m"][0] == pytest.approx((low + high) / 2, abs=3)


def test_aspect_counts_from_true_north_wherever_the_map_s_lies():
    # on a polar map around 45 W, north at 16 E points 61 degrees to the side
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3413", always_xy=True).transform(16.0, 78.5)
    box = GeoBox.from_bbox((x - 3000, y - 3000, x + 3000, y + 3000), "EPSG:3413", resolution=50)
    rows = np.arange(box.shape[0], dtype=np.float32)[:, None]
    dem = wrap_xr(np.broadcast_to(100 + 2 * rows, tuple(box.shape)).copy(), box)
    glacier = gpd.GeoDataFrame({"glacier_id": ["a"]}, geometry=[shapely.Point(x, y).buffer(1000)], crs="EPSG:3413")
    assert rgi7_table(glacier, dem)["aspect_deg"][0] == pytest.approx(61.0, abs=0.2)


@pytest.mark.parametrize(
    ("crs", "x", "y", "true"),
    [("EPSG:3413", -1e6, -2.6e6, 96.40), ("EPSG:32633", 950_000, 8.7e6, 99.57), ("EPSG:3574", 1.5e6, -2e6, 100.0)],
)
def test_areas_and_slopes_are_those_of_the_ground(crs, x, y, true):
    square = gpd.GeoDataFrame({"glacier_id": ["a"]}, geometry=[shapely.box(x, y, x + 1e4, y + 1e4)], crs=crs)
    given = square.assign(area_km2=[100.0], mapping_low_km2=[90.0], mapping_high_km2=[110.0])
    # a plane of 10 degrees on the ground: heights on a map that is true around the middle
    lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(x + 5e3, y + 5e3)
    own = f"+proj=laea +lon_0={lon} +lat_0={lat} +ellps=WGS84"
    box = GeoBox.from_bbox((x - 1e3, y - 1e3, x + 1.1e4, y + 1.1e4), crs, resolution=200)
    dem = wrap_xr(np.zeros(tuple(box.shape), np.float64), box)
    mesh = np.meshgrid(dem.x.values, dem.y.values)
    east, north = Transformer.from_crs(crs, own, always_xy=True).transform(*mesh)
    towards = np.radians(120.0)
    fall = np.asarray(east) * np.sin(towards) + np.asarray(north) * np.cos(towards)
    table = rgi7_table(given, dem.copy(data=2000 - np.tan(np.radians(10.0)) * fall))
    assert table["area_km2"][0] == pytest.approx(true, abs=0.01)
    assert table["area_km2"][0] == pytest.approx(square.segmentize(100).to_crs(own).area[0] / 1e6, rel=1e-5)
    bounds = table[["mapping_low_km2", "mapping_high_km2"]].to_numpy()[0]
    np.testing.assert_allclose(bounds, np.array([0.9, 1.1]) * table["area_km2"][0])
    assert table["slope_deg"][0] == pytest.approx(10.0, abs=0.01)
    assert table["aspect_deg"][0] == pytest.approx(120.0, abs=0.1)
    assert_geodataframe_equal(rgi7_table(table), rgi7_table(rgi7_table(table)))
    np.testing.assert_allclose(
        rgi7_table(table)[["mapping_low_km2", "area_km2"]], table[["mapping_low_km2", "area_km2"]]
    )


@pytest.mark.parametrize(("crs", "match"), [("EPSG:3857", "times those on the ground"), ("EPSG:2263", "foot")])
def test_a_crs_whose_areas_are_not_those_on_the_ground_is_refused(crs, match):
    place = gpd.GeoSeries([shapely.Point(16.0, 78.5) if crs == "EPSG:3857" else shapely.Point(-74, 40.7)], crs=4326)
    disc = place.to_crs(crs).buffer(1000)
    with pytest.raises(GridError, match=match):
        rgi7_table(gpd.GeoDataFrame({"glacier_id": ["a"]}, geometry=disc, crs=crs))


@pytest.mark.parametrize("void", [-32768.0, -9999.0, 65535.0])
def test_a_dem_with_voids_that_it_does_not_declare_is_refused(void):
    dem = plane(0, 10)
    dem[3, 4] = void
    with pytest.raises(InputError, match=r"heights.*nodata"):
        rgi7_table(glaciers(), dem)


def test_years_the_wrong_way_round_are_refused():
    table = pd.DataFrame({"glacier_id": ["a", "a"], "year": [2019, 2021], "area_km2": [2.0, 1.0]})
    with pytest.raises(InputError, match="first=2021 is later"):
        area_change(table, 2021, 2019)


def test_a_level_dem_has_no_aspect_and_a_dem_with_voids_no_statistics():
    level = rgi7_table(glaciers(), plane(0, 0))
    assert level["slope_deg"].tolist() == [0]
    assert level["aspect_sec"].isna().all()
    dem = plane(0, 10)
    table = rgi7_table(glaciers(), dem.where(dem.x < 501_000))
    assert table[["zmin_m", "slope_deg", "aspect_sec"]].isna().all(axis=None)


def test_a_dem_in_degrees_gives_the_same_numbers():
    dem = plane(120, 10, shape=(200, 200))
    degrees = dem.odc.reproject("EPSG:4326", resampling="bilinear", dst_nodata=np.nan)
    table = rgi7_table(glaciers(), degrees)
    assert table["slope_deg"][0] == pytest.approx(10, abs=0.2)
    assert table["aspect_deg"][0] == pytest.approx(120, abs=2)


def test_glaciers_in_degrees_or_without_a_crs():
    table = rgi7_table(glaciers().to_crs("EPSG:4326"))
    assert table["area_km2"].isna().all()
    with pytest.raises(InputError, match="to_crs"):
        rgi7_table(glaciers().to_crs("EPSG:4326"), plane(0, 1))
    with pytest.raises(InputError, match="no CRS"):
        rgi7_table(glaciers().set_crs(None, allow_override=True))


def test_a_glacier_across_the_antimeridian_has_its_centre_on_it():
    shape = shapely.box(612_000, 7_700_000, 622_000, 7_706_000)
    frame = gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32660")
    bounds = frame.to_crs("EPSG:4326").total_bounds
    assert bounds[2] - bounds[0] > 180
    table = rgi7_table(frame)
    centre = gpd.GeoSeries(gpd.points_from_xy(table.cenlon, table.cenlat), crs="EPSG:4326").to_crs("EPSG:32660")
    assert shape.contains(centre[0])


def test_statistics_are_close_to_those_of_the_rgi(data):
    folder = data / "ice_divides" / "oetztal"
    given = gpd.read_file(folder / "rgi7g_hef_complex.shp")
    shapes = gpd.GeoDataFrame(given[["rgi_id"]], geometry=shapely.force_2d(given.geometry.values), crs=given.crs)
    dem = read_raster(folder / "srtm_oetztal.tif")
    table = rgi7_table(shapes.to_crs("EPSG:32632"), dem)
    np.testing.assert_allclose(table["cenlon"], given["cenlon"], atol=2e-3)
    np.testing.assert_allclose(table["cenlat"], given["cenlat"], atol=2e-3)
    np.testing.assert_allclose(table["area_km2"], given["area_km2"], rtol=1e-3)
    assert (table["utm_zone"] == given["utm_zone"]).all()
    # another DEM, of coarser resolution
    np.testing.assert_allclose(table["zmed_m"], given["zmed_m"], atol=45)
    np.testing.assert_allclose(table["slope_deg"], given["slope_deg"], atol=3.5)
    turned = (table["aspect_deg"] - given["aspect_deg"] + 180) % 360 - 180
    assert turned.abs().max() < 20
    assert (table["aspect_sec"] == given["aspect_sec"]).sum() >= 20


def series():
    rows = [("a", 2019, 5.0), ("b", 2019, 2.0), ("a", 2021, 4.0), ("c", 2021, 1.0), ("a", 2020, 9.0)]
    return pd.DataFrame(rows, columns=["glacier_id", "year", "area_km2"])


def test_area_change_adds_up_and_says_what_came_and_went():
    change = area_change(series())
    assert change["change_km2"].to_dict() == {"a": -1.0, "b": -2.0, "c": 1.0}
    assert change["status"].to_dict() == {"a": "both", "b": "gone", "c": "new"}
    assert change["change_percent"].tolist()[:2] == [-20.0, -100.0]
    assert change["change_percent"].isna().tolist() == [False, False, True]
    assert change["change_km2"].sum() == 5.0 - 7.0
    assert area_change(series(), 2019, 2020)["change_km2"].to_dict() == {"a": 4.0, "b": -2.0}


def test_area_change_loses_no_area_and_knows_what_it_does_not_know():
    unnamed = series().assign(glacier_id=["a", None, "a", "c", "a"])
    with pytest.raises(InputError, match="1 of 5 rows have no glacier_id"):
        area_change(unnamed)
    with pytest.raises(InputError, match="no year"):
        area_change(series().assign(year=[2019, 2019, np.nan, 2021, 2020]))
    rows = [("a", 2019, 5.0), ("a", 2021, np.nan), ("a", 2021, 1.0), ("b", 2019, 2.0), ("c", 2021, np.nan)]
    rows += [("d", 2019, np.nan), ("e", 2019, 1.0), ("e", 2021, 2.0), ("f", 2020, 1.0)]
    table = pd.DataFrame(rows, columns=["glacier_id", "year", "area_km2"])
    for kind in ("float64", "Float64"):
        change = area_change(table.astype({"area_km2": kind}))
        assert change["status"].to_dict() == {"a": "both", "b": "gone", "c": "new", "d": "gone", "e": "both"}
        assert change["change_km2"].isna().to_dict() == {"a": True, "b": False, "c": True, "d": True, "e": False}
        assert change["change_percent"].isna().to_dict() == {"a": True, "b": False, "c": True, "d": True, "e": False}
        assert change["last_km2"]["a"] != 0
        assert change.loc[["b", "e"], "change_percent"].tolist() == [-100.0, 100.0]


def test_area_change_needs_its_columns_and_years():
    with pytest.raises(InputError, match="glacier_id"):
        area_change(series().drop(columns="glacier_id"))
    with pytest.raises(InputError, match="2018"):
        area_change(series(), 2018)


def test_geoparquet_and_geopackage_make_the_round_trip(tmp_path):
    table = rgi7_table(glaciers(year=[2020]), plane(10, 5))
    parquet = write_table(table, tmp_path / "g.parquet")
    assert_geodataframe_equal(gpd.read_parquet(parquet)[list(table.columns)], table)
    assert b'"version": "1.1.0"' in pq.read_schema(parquet).metadata[b"geo"]
    package = write_table(table, tmp_path / "g.gpkg")
    assert pyogrio.list_layers(package)[:, 0].tolist() == ["g"]
    back = gpd.read_file(package)
    assert back.crs == table.crs
    assert back.geometry.geom_equals(table.geometry).all()
    np.testing.assert_array_equal(back["slope_deg"], table["slope_deg"])
    assert back["rgi_id"].isna().all()
    assert {path.name for path in tmp_path.iterdir()} == {"g.parquet", "g.gpkg"}
    with pytest.raises(InputError, match="gpkg"):
        write_table(table, tmp_path / "g.shp")
