"""Glaciers from complexes: they tile their outlines, keep their ids, and bad input is named."""

from __future__ import annotations

import warnings
from dataclasses import replace

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from icemap_xr.divides import DivideOptions, divide
from icemap_xr.errors import DividesWarning, GridError, InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import rgi7_table, write_table
from icemap_xr.outlines import outlines as draw
from icemap_xr.outlines import simplify
from icemap_xr.testing.rasters import read_raster
from icemap_xr.vectors import as_frame

CRS = "EPSG:32633"
X0, Y0 = 500_000.0, 8_700_000.0
# few pour points: of them all count
OPTIONS = DivideOptions(pixel_size=20, smoothing=3, percentile=0)


def terrain(shape=(150, 200), cell=20.0, crs=CRS):
    """A ridge from north to south in the middle with a slope on each side, 2 km long, and two valleys."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    height = 1500 - 0.35 * cell * np.abs(x - shape[1] / 2) + 0.05 * cell * np.abs(y - shape[0] / 2)
    box = GeoBox(shape, Affine(cell, 0, X0, 0, -cell, Y0), crs)
    coords = {str(name): one for name, one in xr_coords(box).items()}
    return xr.DataArray(height.astype(np.float32), dims=("y", "x"), coords=coords)


def frame(*shapes, crs=CRS, **columns):
    return gpd.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def box(west, south, east, north):
    """A rectangle in km from the upper left corner, southwards negative."""
    return shapely.box(X0 + west * 1e3, Y0 + south * 1e3, X0 + east * 1e3, Y0 + north * 1e3)


COMPLEX = box(0.8, -2.4, 3.2, -0.6)
WEST, EAST = box(0.8, -2.4, 2.0, -0.6), box(2.0, -2.4, 3.2, -0.6)


def test_an_ice_cap_on_a_ridge_is_divided_at_its_crest():
    got = divide(frame(COMPLEX), terrain(), options=OPTIONS)
    assert list(got.columns) == ["glacier_id", "origin", "area_km2", "geometry"]
    assert len(got) == 2
    for truth in (WEST, EAST):
        overlap = max(one.intersection(truth).area / one.union(truth).area for one in got.geometry)
        assert overlap > 0.97
    assert got["area_km2"].sum() == pytest.approx(COMPLEX.area / 1e6, rel=1e-9)
    assert got["glacier_id"].str.fullmatch(r"G\d{6}E\d{5}N").all()
    assert got["glacier_id"].is_unique
    assert (got["origin"] == "new").all()
    assert shapely.coverage_is_valid(got.geometry)


@pytest.mark.parametrize("routing", ["d8", "mfd"])
@pytest.mark.parametrize("conditioning", ["fill", "breach"])
def test_every_routing_and_conditioning_finds_the_crest(routing, conditioning):
    options = replace(OPTIONS, routing=routing, conditioning=conditioning, sort_by="elevation")
    got = divide(frame(COMPLEX), terrain(), options=options)
    assert got["area_km2"].sum() == pytest.approx(COMPLEX.area / 1e6, rel=1e-9)
    largest = got.geometry[got["area_km2"].idxmax()]
    assert min(largest.difference(WEST).area, largest.difference(EAST).area) < 0.02 * COMPLEX.area


def test_all_years_share_ids_and_divides():
    larger, smaller = COMPLEX, COMPLEX.buffer(-200)
    got = divide(frame(smaller, larger, year=[2021, 2019]), terrain(), options=OPTIONS)
    assert got["year"].tolist() == [2019, 2019, 2021, 2021]
    assert got["glacier_id"].tolist()[:2] == got["glacier_id"].tolist()[2:]
    early, late = got[got.year == 2019].geometry.values, got[got.year == 2021].geometry.values
    assert (shapely.area(shapely.difference(late, early)) < 1e-3).all()
    totals = got.groupby("year")["area_km2"].sum()
    assert totals.to_dict() == pytest.approx({2019: larger.area / 1e6, 2021: smaller.area / 1e6}, rel=1e-9)


def test_small_complexes_are_one_glacier_and_slivers_never_stay():
    tiny = box(0.1, -0.2, 0.3, -0.05)
    got = divide(frame(COMPLEX, tiny), terrain(), options=OPTIONS)
    assert len(got) == 3
    assert got["area_km2"].min() == pytest.approx(tiny.area / 1e6)


def test_an_earlier_inventory_keeps_its_ids_and_new_ones_never_collide():
    new, patch, other = box(0.4, -2.4, 0.8, -0.6), box(0.1, -0.5, 0.5, -0.1), box(3.5, -0.5, 3.9, -0.1)
    earlier = frame(WEST, EAST, rgi_id=["RGI-1", "RGI-2"]).to_crs("EPSG:4326")
    grown = frame(COMPLEX.union(new), patch, other)
    first = divide(grown, terrain(), earlier=earlier, options=OPTIONS)
    ids = set(first["glacier_id"])
    assert len(ids) == len(first) == 4
    assert {"RGI-1", "RGI-2"} < ids
    origin = first.set_index("glacier_id")["origin"]
    assert origin[["RGI-1", "RGI-2"]].tolist() == ["earlier", "earlier"]
    assert (origin.drop(["RGI-1", "RGI-2"]) == "new").all()
    by_id = first.set_index("glacier_id").geometry
    assert by_id["RGI-1"].intersection(WEST.union(new)).area > 0.98 * WEST.union(new).area
    # ids of the first round are taken in the second, also where their glaciers are gone
    near = box(0.5, -0.5, 0.55, -0.1)
    taken = frame(*first.geometry, glacier_id=first["glacier_id"])
    second = divide(frame(near), terrain(), earlier=taken[taken.geometry.area > 1e6], options=OPTIONS)
    third = divide(frame(near), terrain(), earlier=taken.assign(geometry=taken.translate(0, 1e5)), options=OPTIONS)
    assert not set(third["glacier_id"]) & ids
    assert len(second) == 1


def piece(x, y, side=6.0):
    """A square that holds no centre of the pixels of 20 m, at the pixel `x` km east and `y` km north of the corner."""
    west, south = X0 + x * 1e3 + 1, Y0 + y * 1e3 + 1
    return shapely.box(west, south, west + side, south + side)


@pytest.mark.parametrize("beside", [False, True])
def test_remnants_without_a_pixel_keep_the_glacier_they_were_part_of(beside):
    """`beside` a larger piece of the first glacier in the same complex, or with nothing else left of it."""
    earlier = frame(WEST, EAST, glacier_id=["w", "e"])
    left, right, border = piece(1.0, -1.0), piece(3.0, -1.0), piece(1.997, -2.0, side=8.0)
    rest = [box(0.8, -2.4, 1.9, -1.4)] if beside else []
    assert border.intersection(EAST).area > border.intersection(WEST).area > 0
    ice = frame(left, right, border, *rest, year=[2019] * (3 + len(rest)))
    both = gpd.GeoDataFrame(pd.concat([ice, ice.assign(year=2020)], ignore_index=True), crs=CRS)
    got = divide(both, terrain(), earlier=earlier, options=OPTIONS).set_index(["glacier_id", "year"])
    assert set(got["origin"]) == {"earlier"}
    for year in (2019, 2020):
        west = shapely.union_all([left, *rest])
        assert got.geometry["w", year].symmetric_difference(west).area == pytest.approx(0, abs=1e-6)
        east = shapely.union_all([right, border])
        assert got.geometry["e", year].symmetric_difference(east).area == pytest.approx(0, abs=1e-6)


def test_a_remnant_that_no_glacier_has_ground_in_common_with():
    """It follows the nearest ice, and the nearest glacier where no ice has a pixel; alone it is new."""
    earlier = frame(box(0.8, -2.4, 1.0, -0.6), box(1.02, -2.4, 1.2, -0.6), glacier_id=["w", "e"])
    outside = piece(1.202, -1.0)
    got = divide(frame(outside), terrain(), earlier=earlier, options=OPTIONS)
    assert got["glacier_id"].tolist() == ["e"]
    got = divide(frame(outside, box(1.02, -2.4, 1.2, -0.7)), terrain(), earlier=earlier, options=OPTIONS)
    assert got["glacier_id"].tolist() == ["e"]
    got = divide(frame(piece(3.0, -1.0)), terrain(), earlier=earlier, options=OPTIONS)
    assert got["origin"].tolist() == ["new"]
    assert got["area_km2"].tolist() == pytest.approx([36e-6])


def test_new_ids_are_none_that_any_column_of_the_inventory_has():
    """Also where the glacier itself is empty, so that nothing of it can be copied."""
    ice = frame(box(0.3, -1.5, 0.6, -0.9))
    alone = divide(ice, terrain(), options=OPTIONS)["glacier_id"].tolist()
    earlier = frame(WEST, shapely.Polygon(), rgi_id=["RGI-1", "RGI-2"], subm_id=[1, 2])
    for column in ("glims_id", "GLIMSId", "name"):
        for values in ([alone[0], None], [None, alone[0]]):
            got = divide(ice, terrain(), earlier=earlier.assign(**{column: values}), options=OPTIONS)
            assert got["origin"].tolist() == ["new"]
            assert got["glacier_id"].tolist() != alone
    assert divide(ice, terrain(), earlier=earlier, options=OPTIONS)["glacier_id"].tolist() == alone


def test_glaciers_that_a_run_wrote_keep_their_ids_in_the_next(tmp_path):
    first = divide(frame(COMPLEX, year=[2019]), terrain(), options=OPTIONS)
    write_table(rgi7_table(first, terrain()), tmp_path / "run.glaciers.parquet")
    later = frame(COMPLEX.buffer(-50), year=[2020])
    got = divide(later, terrain(), earlier=as_frame(tmp_path / "run.glaciers.parquet"), options=OPTIONS)
    assert set(got["glacier_id"]) == set(first["glacier_id"])
    assert set(got["origin"]) == {"earlier"}
    for name, one in got.set_index("glacier_id").geometry.items():
        assert one.difference(first.set_index("glacier_id").geometry[name]).area < 1e-6 * one.area


def test_retreat_leaves_divides_where_they_were():
    earlier = frame(WEST, EAST, glacier_id=["w", "e"])
    got = divide(frame(COMPLEX.buffer(-160)), terrain(), earlier=earlier, options=OPTIONS).set_index("glacier_id")
    for name, old in (("w", WEST), ("e", EAST)):
        kept = old.intersection(COMPLEX.buffer(-160))
        assert got.geometry[name].symmetric_difference(kept).area < 1e-6 * kept.area


def test_ice_between_two_glaciers_is_shared_at_the_valley_when_it_floods_from_above():
    dem = terrain()
    dem = dem.copy(data=3000 - dem.values)  # the ridge becomes a valley
    earlier = frame(box(0.8, -2.4, 1.2, -0.6), box(2.8, -2.4, 3.2, -0.6), glacier_id=["w", "e"])
    got = divide(frame(COMPLEX), dem, earlier=earlier, options=OPTIONS).set_index("glacier_id")
    assert set(got.index) == {"w", "e"}
    assert got.geometry["w"].intersection(WEST).area > 0.97 * WEST.area


def test_a_small_glacier_of_the_inventory_is_not_swallowed_by_its_neighbour():
    small = box(0.8, -0.7, 1.0, -0.6)
    earlier = frame(small, COMPLEX.difference(small), glacier_id=["small", "large"])
    got = divide(frame(COMPLEX), terrain(), earlier=earlier, options=OPTIONS).set_index("glacier_id")
    assert got["area_km2"]["small"] == pytest.approx(small.area / 1e6)


def test_pieces_smaller_than_a_sliver_keep_the_id_they_had_when_the_years_come_again():
    # the west glacier breaks into a tongue beside the east one and a rest, all below the area of a sliver
    late = shapely.union_all([box(1.9, -0.9, 2.0, -0.6), box(0.8, -2.4, 1.0, -1.0), EAST])
    both = frame(COMPLEX, late, year=[2019, 2020])
    first = divide(both, terrain(), options=OPTIONS)
    again = divide(both[both["year"] == 2020], terrain(), earlier=first, options=OPTIONS)
    want = first[first["year"] == 2020].set_index("glacier_id")["area_km2"].to_dict()
    assert again.set_index("glacier_id")["area_km2"].to_dict() == pytest.approx(want, rel=1e-9)
    # new ice is still given away where it is a sliver
    grown = frame(late.union(box(1.96, -0.6, 2.1, -0.5)), year=[2021])
    assert set(divide(grown, terrain(), earlier=first, options=OPTIONS)["glacier_id"]) == set(want)


def test_overlapping_and_invalid_inventory_polygons():
    bow = shapely.Polygon([(X0 + x, Y0 + y) for x, y in [(800, -600), (2000, -2400), (800, -2400), (2000, -600)]])
    assert not bow.is_valid
    got = divide(frame(bow), terrain(), earlier=frame(bow, glacier_id=["bow"]), options=OPTIONS)
    assert got["area_km2"].sum() == pytest.approx(shapely.make_valid(bow).area / 1e6)
    earlier = frame(WEST, COMPLEX, glacier_id=["w", "all"])
    with pytest.warns(DividesWarning, match="overlap on 2.16 km2"):
        got = divide(frame(COMPLEX), terrain(), earlier=earlier, options=OPTIONS)
    assert got.set_index("glacier_id")["area_km2"].to_dict() == pytest.approx({"w": 2.16, "all": 2.16}, rel=1e-6)


def test_the_years_of_an_earlier_result_are_one_inventory():
    two = divide(frame(COMPLEX, COMPLEX.buffer(-100), year=[2019, 2020]), terrain(), options=OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DividesWarning)
        got = divide(frame(COMPLEX.buffer(-200)), terrain(), earlier=two, options=OPTIONS)
    assert set(got["glacier_id"]) == set(two["glacier_id"])


TURNED = GeoBox((220, 220), Affine(20, 0, X0 - 600, 0, -20, Y0 + 300) * Affine.rotation(12), CRS)


def test_a_dem_on_any_grid_gives_nearly_the_same_divide():
    reference = divide(frame(COMPLEX), terrain(), options=OPTIONS)
    for dem in (
        terrain((100, 134), 30.0),
        terrain().odc.reproject("EPSG:4326", resampling="bilinear", dst_nodata=np.nan),
        terrain().chunk({"y": 40, "x": 70}),
        terrain().astype("int16"),
        terrain().odc.reproject(TURNED, resampling="bilinear", dst_nodata=np.nan),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DividesWarning)
            got = divide(frame(COMPLEX), dem, options=OPTIONS)
        for one in reference.geometry:
            assert max(one.intersection(x).area / one.union(x).area for x in got.geometry) > 0.9


def test_voids_are_refused_on_the_ice_and_do_not_matter_far_from_it():
    dem = terrain()
    hole = dem.copy(data=np.where((dem.x > X0 + 1500) & (dem.x < X0 + 1600), np.nan, dem))
    with pytest.raises(InputError, match="voids on"):
        divide(frame(COMPLEX), hole, options=OPTIONS)
    declared = hole.fillna(-9999).assign_attrs(_FillValue=-9999)
    with pytest.raises(InputError, match="voids on"):
        divide(frame(COMPLEX), declared, options=OPTIONS)
    near = dem.where((dem.x > X0 + 790) & (dem.x < X0 + 3300))
    with pytest.warns(DividesWarning, match="within 160 m of the ice"):
        assert divide(frame(COMPLEX), near, options=OPTIONS)["area_km2"].sum() == pytest.approx(COMPLEX.area / 1e6)
    far = dem.where(dem.x < X0 + 3800)
    assert len(divide(frame(COMPLEX), far, options=OPTIONS)) == 2
    with pytest.raises(InputError, match="covers it"):
        divide(frame(shapely.affinity.translate(COMPLEX, 2500)), dem, options=OPTIONS)


def test_outlines_of_maps_are_divided_exactly():
    values = np.zeros((2, 60, 80), np.float32)
    values[0, 10:50, 10:70] = values[1, 12:48, 10:70] = 0.9
    grid = RegionGrid(GeoBox((60, 80), Affine(40.0, 0, X0, 0, -40.0, Y0), CRS))
    coords = {"year": [2019, 2020], **grid.coords()}
    maps = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)
    got = maps.icemap.divide(terrain(), options=DivideOptions(pixel_size=40, smoothing=3))
    pixels = got.geometry.area / 1600
    np.testing.assert_allclose(pixels, pixels.round(), atol=1e-6)
    want = draw(maps).groupby("year")["area_km2"].sum()
    assert got.groupby("year")["area_km2"].sum().to_dict() == pytest.approx(want.to_dict(), rel=1e-12)


def test_neighbours_share_every_corner_so_that_they_can_be_simplified():
    y, x = np.mgrid[:60, :80]
    values = (np.hypot(y - 30, (x - 40) / 1.3) < 25).astype(np.float32)[None]
    grid = RegionGrid(GeoBox((60, 80), Affine(40.0, 0, X0 + 7, 0, -40.0, Y0 - 3), CRS))
    maps = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2019], **grid.coords()})
    thirds = [box(0.4 * k, -2.4, 0.4 * k + 0.4, -1.1 if k % 2 else -1.3) for k in range(8)]
    earlier = frame(*thirds, box(0, -1.1, 3.2, 0), glacier_id=list("abcdefghi"))
    got = divide(draw(maps), terrain(), earlier=earlier, options=replace(OPTIONS, pixel_size=30))
    assert len(got) > 5
    assert shapely.coverage_is_valid(got.geometry.values)
    assert got["area_km2"].sum() == pytest.approx(float(values.sum()) * 1600e-6, rel=1e-9)
    smooth = simplify(got, 60)
    assert shapely.coverage_is_valid(smooth.geometry.values)
    np.testing.assert_allclose(smooth["simplified_km2"], smooth["area_km2"] - got["area_km2"], atol=1e-12)


def test_no_ice_gives_no_rows_with_the_same_columns():
    full = divide(frame(COMPLEX, year=[2019]), terrain(), options=OPTIONS)
    empty = divide(frame(COMPLEX, year=[2019]).iloc[:0], terrain(), options=OPTIONS)
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert (empty.dtypes == full.dtypes).all()
    assert empty.crs == full.crs


@pytest.mark.parametrize(
    "values",
    [{"pixel_size": 0}, {"smoothing": 4}, {"percentile": 1.5}, {"routing": "d16"}, {"buffer1": 40.0}, {"c": np.nan}],
)
def test_options_without_a_meaning_are_refused_by_name(values):
    with pytest.raises(InputError, match=next(iter(values))):
        DivideOptions(**values)


def test_inputs_that_cannot_be_used_are_named():
    with pytest.raises(GridError, match="to_crs"):
        divide(frame(COMPLEX).to_crs("EPSG:4326"), terrain())
    with pytest.raises(GridError, match="no CRS"):
        divide(frame(COMPLEX, crs=None), terrain())
    with pytest.raises(GridError, match="ground here"):
        divide(frame(COMPLEX).to_crs("EPSG:3857"), terrain())
    with pytest.raises(SchemaError, match="assign_crs"):
        divide(frame(COMPLEX), xr.DataArray(np.ones((3, 4)), dims=("y", "x")))
    with pytest.raises(InputError, match="id_column"):
        divide(frame(COMPLEX), terrain(), earlier=frame(COMPLEX, name=["a"]))
    with pytest.raises(InputError, match="rows without"):
        divide(frame(COMPLEX), terrain(), earlier=frame(COMPLEX, rgi_id=[None]))
    with pytest.raises(InputError, match="no CRS"):
        divide(frame(COMPLEX), terrain(), earlier=frame(COMPLEX, rgi_id=["a"], crs=None))


def test_the_pole_and_the_antimeridian():
    for crs, x, y in (("EPSG:3413", 0.0, 0.0), ("EPSG:32660", 704_000.0, 7_700_000.0)):
        dem = terrain(crs=crs)
        dem = dem.assign_coords(x=dem.x - X0 + x - 2000, y=dem.y - Y0 + y + 1500)
        ice = shapely.affinity.translate(COMPLEX, x - X0 - 2000, y - Y0 + 1500)
        got = divide(frame(ice, crs=crs), dem, options=OPTIONS)
        assert len(got) == 2
        assert got["glacier_id"].str.fullmatch(r"G[0-3]\d{5}E\d{5}[NS]").all()


def overlaps(got, truth):
    """Area-weighted IoU of glaciers with the same id."""
    by_id, common, total = got.set_index("glacier_id").geometry, 0.0, 0.0
    for name, shape in zip(truth["rgi_id"], truth.geometry, strict=True):
        one = by_id.get(name, shapely.Polygon())
        common += shape.area * one.intersection(shape).area / one.union(shape).area
        total += shape.area
    return common / total


@pytest.fixture(scope="module")
def oetztal(data):
    folder = data / "ice_divides" / "oetztal"
    dem = read_raster(folder / "srtm_oetztal.tif")
    whole, glaciers = (
        gpd.read_file(folder / f"{name}.shp").to_crs("EPSG:32632") for name in ("rgi7c_hef", "rgi7g_hef_complex")
    )
    return whole, glaciers.assign(geometry=shapely.force_2d(glaciers.geometry.values)), dem


def test_the_oetztal_complex_is_divided_nearly_as_in_the_rgi(oetztal):
    whole, glaciers, dem = oetztal
    got = divide(whole, dem, options=DivideOptions(pixel_size=30))
    assert got["area_km2"].sum() == pytest.approx(whole.area.sum() / 1e6, rel=1e-9)
    best = [max(one.intersection(x).area / one.union(x).area for x in got.geometry) for one in glaciers.geometry]
    assert np.average(best, weights=glaciers.area) > 0.88
    assert (np.array(best) > 0.5).sum() >= 21


def test_rgi_divides_are_copied_onto_the_oetztal_complex_after_a_retreat(oetztal):
    whole, glaciers, dem = oetztal
    eroded = whole.buffer(-60)
    got = divide(gpd.GeoDataFrame(geometry=eroded), dem, earlier=glaciers, options=DivideOptions(pixel_size=30))
    clipped = glaciers.assign(geometry=glaciers.intersection(eroded.union_all()))
    assert overlaps(got, clipped[~clipped.is_empty]) >= 0.97
