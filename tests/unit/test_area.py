"""Area of maps and of polygons, against sums over pixels."""

from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
import xarray as xr

from icemap_xr.area import area
from icemap_xr.errors import InputError, SchemaError, UncalibratedWarning
from icemap_xr.grid import RegionGrid

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_300, 8_600_230), "EPSG:32633", 10, bbox_crs="EPSG:32633")
PIXEL = 1e-4


def maps(values: Any, name: str = "calibrated") -> xr.Dataset:
    coords = {**GRID.coords(), "year": 2016 + np.arange(len(values))}
    return xr.Dataset({name: (("year", "y", "x"), values)}, coords=coords)


def values() -> Any:
    rng = np.random.default_rng(5)
    p = rng.random((2, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.1] = np.nan
    return p


def regions(*shapes: Any, crs: str | None = "EPSG:32633", **columns: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


CIRCLE = shapely.Point(500_131.7, 8_600_108.3).buffer(83, quad_segs=32)
PARTLY_OFF = shapely.box(500_255, 8_600_205, 500_345, 8_600_265)


def covered(polygon: Any) -> Any:
    y, x = np.meshgrid(GRID.coords()["y"].values, GRID.coords()["x"].values, indexing="ij")
    return shapely.area(shapely.intersection(shapely.box(x - 5, y - 5, x + 5, y + 5), polygon)) / 100


def test_soft_and_hard_area_of_a_map() -> None:
    p = values()
    soft = area(maps(p))
    np.testing.assert_allclose(soft.area_km2, np.nansum(p.astype(float), axis=(1, 2)) * PIXEL, rtol=1e-12)
    np.testing.assert_allclose(soft.observed_km2, np.isfinite(p).sum(axis=(1, 2)) * PIXEL, rtol=1e-12)
    np.testing.assert_allclose(soft.unobserved_km2, np.isnan(p).sum(axis=(1, 2)) * PIXEL, rtol=1e-9)
    facts = {"area_kind": "planar", "method": "soft", "calibrated": True}
    assert soft.area_km2.attrs == {"units": "km2", "long_name": "area of ice", **facts}
    assert soft.attrs["source"].startswith("icemap-xr ")
    assert soft.area_km2.dims == ("year",)
    hard = area(maps(p), method="hard", threshold=0.7)
    np.testing.assert_allclose(hard.area_km2, (p > 0.7).sum(axis=(1, 2)) * PIXEL, rtol=1e-12)
    assert hard.attrs["threshold"] == 0.7


def test_uncalibrated_soft_area_warns_and_hard_does_not() -> None:
    ds = maps(values(), "probability")
    with pytest.warns(UncalibratedWarning, match="area sums uncalibrated") as caught:
        soft = area(ds)
    assert [one.filename for one in caught if one.category is UncalibratedWarning] == [__file__]
    assert soft.attrs["calibrated"] is False
    assert area(ds, method="hard").attrs["calibrated"] is False


def test_calibrated_is_preferred() -> None:
    p = values()
    ds = maps(p / 2).assign(probability=(("year", "y", "x"), p))
    np.testing.assert_allclose(area(ds).area_km2, area(maps(p / 2)).area_km2)


@pytest.mark.parametrize("chunks", [None, (1, 8, 8), (2, 23, 1), ((1, 1), (22, 1), (3, 27))])
@pytest.mark.parametrize("method", ["soft", "hard"])
def test_polygons_by_covered_fraction(chunks: Any, method: str) -> None:
    p = values()
    hole: Any = CIRCLE.difference(shapely.Point(500_120, 8_600_110).buffer(21))
    by = regions(CIRCLE, PARTLY_OFF, shapely.MultiPolygon([hole, shapely.box(500_250, 8_600_003, 500_257, 8_600_090)]))
    ds = maps(p if chunks is None else from_array(p, chunks=chunks))
    out = area(ds, by=by, method=method)
    assert out.area_km2.dims == ("year", "region")
    assert (out.area_km2.chunks is None) == (chunks is None)
    ice = p.astype(float) if method == "soft" else np.where(np.isnan(p), np.nan, p > 0.5)
    for i, polygon in enumerate(by.geometry):
        weight = covered(polygon)
        observed = np.sum(weight * np.isfinite(p), axis=(1, 2)) * PIXEL
        np.testing.assert_allclose(out.area_km2[:, i], np.nansum(weight * ice, axis=(1, 2)) * PIXEL, rtol=1e-9)
        np.testing.assert_allclose(out.observed_km2[:, i], observed, rtol=1e-9)
        np.testing.assert_allclose(out.unobserved_km2[:, i], polygon.area / 1e6 - observed, rtol=1e-6)


def test_one_task_per_chunk() -> None:
    data = from_array(values(), chunks=(1, 8, 8))
    graph = area(maps(data), by=regions(CIRCLE)).area_km2.data.dask.to_dict()
    assert sum("region-sums-chunk" in str(key) for key in graph) == data.npartitions


def test_regions_in_another_crs_and_their_labels() -> None:
    by = regions(CIRCLE, PARTLY_OFF, name=["a", "b"])
    here, there = area(maps(values()), by=by), area(maps(values()), by=by.to_crs("EPSG:4326"))
    assert there.region.values.tolist() == ["a", "b"]
    # an edge of 90 m that is straight in degrees is curved by a millimetre in the map's CRS
    xr.testing.assert_allclose(here, there, rtol=5e-5)
    by.index = [7, 9]
    assert area(maps(values()), by=by.drop(columns="name")).region.values.tolist() == [7, 9]


def test_whole_polygon_observed_leaves_nothing_unobserved() -> None:
    out = area(maps(np.full((1, *GRID.shape), 0.25, np.float32)), by=regions(CIRCLE))
    assert out.unobserved_km2.item() == 0
    assert out.area_km2.item() == pytest.approx(CIRCLE.area / 4e6, rel=1e-9)


def test_unobserved_is_never_ice_free() -> None:
    p = values()
    p[0] = np.nan
    out = area(maps(p))
    assert np.isnan(out.area_km2[0])
    assert out.observed_km2[0] == 0
    assert out.unobserved_km2[0] == pytest.approx(23 * 30 * PIXEL)
    off = regions(CIRCLE, shapely.box(600_000, 8_600_000, 601_000, 8_601_000))
    by = area(maps(p), by=off)
    assert np.isnan(by.area_km2[:, 1]).all()
    assert by.unobserved_km2[:, 1].values == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("by", "match"),
    [
        (regions(shapely.box(0, 0, 1, 1)), "touches"),
        (regions(CIRCLE, crs=None), "no CRS"),
        (gpd.GeoDataFrame({"name": ["a"]}), "no geometry"),
        (regions(), "no rows"),
        (regions(shapely.Point(500_100, 8_600_100)), "Point"),
        (regions(None), "no polygon"),
        (regions(shapely.Polygon()), "no polygon"),
        (
            regions(
                shapely.Polygon(
                    [(500_000, 8_600_000), (500_100, 8_600_100), (500_100, 8_600_000), (500_000, 8_600_100)]
                )
            ),
            "invalid",
        ),
        (regions(CIRCLE, CIRCLE, name=["a", "a"]), "repeated"),
        (regions(CIRCLE, CIRCLE, name=["a", None]), "missing"),
        ([CIRCLE], "GeoDataFrame"),
    ],
)
def test_regions_that_cannot_be_used(by: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        area(maps(values()), by=by)


def test_wrong_options_and_maps() -> None:
    with pytest.raises(InputError, match="method 'sof'"):
        area(maps(values()), method="sof")
    with pytest.raises(InputError, match="threshold"):
        area(maps(values()), method="hard", threshold=50)
    with pytest.raises(SchemaError, match="probability"):
        area(maps(values(), "p"))
    with pytest.raises(SchemaError, match="duplicate years"):
        area(maps(values()).assign_coords(year=[2016, 2016]))
    with pytest.raises(InputError, match="float"):
        area(maps(np.ones((1, *GRID.shape), np.uint8)))
    with pytest.raises(InputError, match=r"0\.\.1"):
        area(maps(values() * 100))


def scale(x: Any, y: Any, crs: str = "EPSG:32633") -> Any:
    """Map area over ground area, from how far two small steps lead on the ellipsoid."""
    to_lonlat = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = to_lonlat.transform([x - 50, x + 50, x, x], [y, y, y - 50, y + 50])
    geod = pyproj.Geod(ellps="WGS84")
    _, _, wide = geod.inv(lon[0], lat[0], lon[1], lat[1])
    _, _, high = geod.inv(lon[2], lat[2], lon[3], lat[3])
    return 100 * 100 / (wide * high)


@pytest.mark.parametrize("x", [500_000, 750_000, 400_000])
def test_true_area_is_that_on_the_ellipsoid(x: int) -> None:
    """Far from the central meridian, where the projection stretches areas most."""
    extent = (x, 8_600_000, x + 20_000, 8_612_000)
    grid = RegionGrid.from_bbox(extent, "EPSG:32633", 100, bbox_crs="EPSG:32633")
    p = np.ones((1, *grid.shape), np.float32)
    ds = xr.Dataset({"calibrated": (("year", "y", "x"), p)}, coords={**grid.coords(), "year": [2020]})
    true, planar = area(ds, area_kind="true"), area(ds)
    assert planar.area_km2.item() == pytest.approx(240)
    assert true.attrs["area_kind"] == true.area_km2.attrs["area_kind"] == "true"
    lonlat = gpd.GeoSeries([shapely.segmentize(shapely.box(*extent), 100)], crs="EPSG:32633").to_crs("EPSG:4326")
    ground = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(lonlat[0])[0]) / 1e6
    assert true.area_km2.item() == pytest.approx(ground, rel=1e-6)
    assert true.unobserved_km2.item() == 0
    assert ground / 240 == pytest.approx(1 / scale(x + 10_000, 8_606_000), rel=1e-4)


@pytest.mark.parametrize("chunks", [(1, 8, 8), (2, 23, 1), ((1, 1), (22, 1), (3, 27))])
def test_true_area_of_polygons_and_bands_does_not_depend_on_chunks(chunks: Any) -> None:
    p, by, heights = values(), regions(CIRCLE, PARTLY_OFF), dem()
    options: Any
    for options in ({}, {"by": by}, {"by": "elevation", "dem": heights, "band_m": 20}):
        eager = area(maps(p), area_kind="true", **options)
        lazy = area(maps(from_array(p, chunks=chunks)), area_kind="true", **options)
        assert lazy.area_km2.chunks is not None
        xr.testing.assert_allclose(lazy.compute(), eager, rtol=1e-11)
        np.testing.assert_allclose(eager.area_km2 / area(maps(p), **options).area_km2, 1 / 0.9992, rtol=1e-4)
    # what lies off the map is there with its true area too
    both = area(maps(p), by=by, area_kind="true")
    np.testing.assert_allclose((both.observed_km2 + both.unobserved_km2)[0], by.area / 1e6 / 0.9992, rtol=1e-4)


def test_a_crop_has_the_true_area_of_its_region() -> None:
    p = values()
    halves = [maps(p).isel(x=slice(0, 17)), maps(p).isel(x=slice(17, 30))]
    parts = sum(area(half, area_kind="true").area_km2 for half in halves)
    xr.testing.assert_allclose(parts, area(maps(p), area_kind="true").area_km2, rtol=1e-12)


def dem() -> xr.DataArray:
    """Elevation from -12 m at the bottom to 120 m at the top, unknown in one corner."""
    rows, columns = GRID.shape
    heights = np.linspace(120, -12, rows)[:, None] + np.zeros(columns)
    heights[:3, :3] = np.nan
    coords = {axis: GRID.coords()[axis] for axis in ("y", "x")}
    return xr.DataArray(heights, dims=("y", "x"), coords=coords)


@pytest.mark.parametrize("lazy", [False, True])
def test_elevation_bands(lazy: bool) -> None:
    p, heights = values(), dem()
    ds = maps(from_array(p, chunks=(1, 8, 9)) if lazy else p)
    out = area(ds, by="elevation", dem=heights.chunk(7) if lazy else heights, band_m=50)
    assert out.area_km2.dims == ("year", "elevation")
    assert out.elevation.values[:-1].tolist() == [-50, 0, 50, 100]
    assert np.isnan(out.elevation.values[-1])
    for i, low in enumerate([-50, 0, 50, 100]):
        inside = (heights.values >= low) & (heights.values < low + 50)
        np.testing.assert_allclose(out.area_km2[:, i], np.nansum(np.where(inside, p.astype(float), 0), (1, 2)) * PIXEL)
        np.testing.assert_allclose((out.observed_km2 + out.unobserved_km2)[:, i], inside.sum() * PIXEL, rtol=1e-12)
    total = area(maps(p))
    for name in ("area_km2", "observed_km2", "unobserved_km2"):
        np.testing.assert_allclose(out[name].sum("elevation"), total[name], rtol=1e-9)
    known = area(maps(p), by="elevation", dem=heights.fillna(0.0), band_m=1000, method="hard")
    assert known.elevation.values.tolist() == [-1000, 0]


def test_wrong_elevations() -> None:
    ds = maps(values())
    wrong: Any
    for wrong, match in (
        ({"by": "elevation"}, "needs dem="),
        ({"by": "height", "dem": dem()}, "'height'"),
        ({"by": "elevation", "dem": dem().values}, "DataArray"),
        ({"by": "elevation", "dem": dem(), "band_m": 0}, "band_m 0"),
        ({"by": "elevation", "dem": dem()[1:]}, "another grid"),
        ({"by": "elevation", "dem": dem().assign_coords(x=dem().x + 10)}, "another grid"),
        ({"by": "elevation", "dem": dem() * np.nan}, "unknown everywhere"),
        ({"by": "elevation", "dem": dem().fillna(-9999)}, "mask its nodata value to NaN"),
        ({"by": "elevation", "dem": dem().fillna(-3.4e38)}, "mask its nodata value to NaN"),
        ({"threshold": "half"}, "threshold 'half'"),
        ({"area_kind": "geodesic"}, "area_kind 'geodesic'"),
    ):
        with pytest.raises(InputError, match=match):
            area(ds, **wrong)


def test_long_edges_stay_straight_in_their_own_crs() -> None:
    # 24 km along a parallel: a straight line on the map instead would be off by 50 m in its middle
    wide = RegionGrid.from_bbox((400_000, 8_600_000, 460_000, 8_604_000), "EPSG:32633", 40, bbox_crs="EPSG:32633")
    full = np.ones((1, *wide.shape), np.float32)
    ds = xr.Dataset({"calibrated": (("year", "y", "x"), full)}, coords={**wide.coords(), "year": [2020]})
    box = gpd.GeoDataFrame(geometry=[shapely.box(12.0, 77.48, 13.0, 77.49)], crs="EPSG:4326")
    dense = box.set_geometry(box.segmentize(0.001))
    true = abs(pyproj.Geod(ellps="WGS84").geometry_area_perimeter(dense.geometry.iloc[0])[0]) / 1e6
    for by in (box, dense):
        np.testing.assert_allclose(area(ds, by=by, area_kind="true").area_km2, [[true]], rtol=1e-5)
    lower = gpd.GeoDataFrame(geometry=[shapely.box(12.0, 77.4, 13.0, 77.485)], crs="EPSG:4326")
    upper = gpd.GeoDataFrame(geometry=[shapely.box(12.0, 77.485, 13.0, 77.6)], crs="EPSG:4326")
    split = [float(area(ds, by=one).area_km2[0, 0]) for one in (lower, upper)]
    dense_split = [float(area(ds, by=one.set_geometry(one.segmentize(0.001))).area_km2[0, 0]) for one in (lower, upper)]
    np.testing.assert_allclose(split, dense_split, rtol=1e-5)


def test_maps_need_calendar_years() -> None:
    ds = maps(values())
    with pytest.raises(SchemaError, match="assign calendar years"):
        area(ds.drop_vars("year"))
    dates = np.array(["2016-01-01", "2017-01-01"], "datetime64[ns]")
    with pytest.raises(SchemaError, match=r"numbers, not datetime64\[ns\]"):
        area(ds.assign_coords(year=dates))


def test_results_say_how_their_map_was_made() -> None:
    ds = maps(values())
    ds.calibrated.attrs |= {
        "calibrator": '{"name": "isotonic", "fitted_on": "five regions", "x": [0, 1], "y": [0, 1]}',
        "temporal_filter": "median of 3 years",
    }
    found = area(ds).attrs
    assert (found["calibrator"], found["calibrator_fitted_on"]) == ("isotonic", "five regions")
    assert found["temporal_filter"] == "median of 3 years"
