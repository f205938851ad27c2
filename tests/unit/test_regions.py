"""Archives over space: regions are joined, parts taken out."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from geopandas.testing import assert_geodataframe_equal

from icemap_xr.archive import archive, open_archive, read_glaciers, read_outlines
from icemap_xr.errors import GridError, InputError, SchemaError
from icemap_xr.outlines import outlines
from icemap_xr.regions import merge, subset
from icemap_xr.testing.archives import SIDE, X0, Y0, Halve, calibrated, glaciers, maps, tables
from icemap_xr.verify import verify


@pytest.fixture
def old(tmp_path):
    ds = calibrated(maps([2019, 2020]))
    given = tables(ds)
    return ds, given, archive(ds, tmp_path / "a.zarr", lineage={"stac_items": ["s"]}, region="Here", **given)


def pair(tmp_path, **options):
    """Two regions that overlap by ten columns."""
    left, right = maps([2019], **options), maps([2019, 2020], column=30, row=5, seed=2, **options)
    paths = [archive(ds, tmp_path / f"{name}.zarr", region=name) for name, ds in (("left", left), ("right", right))]
    return left["probability"].values, right["probability"].values, paths


def whole(left, right):
    """Both on the common grid, the first year, NaN elsewhere."""
    out = np.full((2, 35, 70), np.nan, np.float32)
    out[0, :30, :40], out[1, 5:, 30:] = left[0], right[0]
    return out


@pytest.mark.parametrize("overlap", ["first", "mean"])
def test_neighbours_are_merged_by_a_rule(tmp_path, overlap):
    left, right, paths = pair(tmp_path)
    path = merge(paths, tmp_path / "both.zarr", region="both", overlap=overlap)
    tree = open_archive(path)
    got = tree["maps"].to_dataset()
    one, other = whole(left, right)
    mean = np.where(np.isnan(one), other, np.where(np.isnan(other), one, (one + other) / 2))
    expected = np.where(np.isnan(one), other, one) if overlap == "first" else mean
    np.testing.assert_allclose(got["probability"][0], expected, rtol=1e-6)
    assert np.isnan(got["probability"][1, :, :30]).all()
    assert_geodataframe_equal(read_outlines(tree), outlines(got[["probability"]]))
    assert [one["region"] for one in tree["lineage"].attrs["merged"]] == ["left", "right"]
    assert verify(path) == []


def test_a_fixed_map_decides_who_owns_the_ground(tmp_path):
    left, right, paths = pair(tmp_path)
    border = X0 + 35 * SIDE
    owners = gpd.GeoDataFrame(
        {"region": ["left", "right"]},
        geometry=[shapely.box(X0, Y0 - 1000, border, Y0), shapely.box(border, Y0 - 1000, X0 + 1000, Y0)],
        crs="EPSG:32633",
    )
    got = open_archive(merge(paths, tmp_path / "both.zarr", region="both", owners=owners))["maps/probability"][0]
    one, other = whole(left, right)
    np.testing.assert_array_equal(got[:, :35], one[:, :35])
    np.testing.assert_array_equal(got[:, 35:], other[:, 35:])
    with pytest.raises(InputError, match="none of the regions"):
        merge(paths, tmp_path / "c.zarr", region="c", owners=owners.assign(region="north"))


@pytest.mark.parametrize("overlap", ["first", "mean"])
def test_archives_of_one_region_keep_its_ground_between_them(tmp_path, overlap):
    """Two parts of a region, both under its name, and a neighbour that mapped all of it too and comes first."""
    left, right = maps([2019]), maps([2019, 2020], column=30, row=5, seed=2)
    paths = [archive(maps([2019], seed=5, shape=(35, 70)), tmp_path / "n.zarr", region="neighbour")]
    paths += [archive(ds, tmp_path / f"{name}.zarr", region="here") for name, ds in (("l", left), ("r", right))]
    everything = shapely.box(X0 - 50, Y0 - 900, X0 + 900, Y0 + 50)
    owners = gpd.GeoDataFrame({"region": ["here"]}, geometry=[everything], crs="EPSG:32633")
    got = merge(paths, tmp_path / "z.zarr", region="z", overlap=overlap, owners=owners)
    one, other = whole(left["probability"].values, right["probability"].values)
    mean = np.where(np.isnan(one), other, np.where(np.isnan(other), one, (one + other) / 2))
    expected = np.where(np.isnan(one), other, one) if overlap == "first" else mean
    np.testing.assert_allclose(open_archive(got)["maps/probability"][0], expected, rtol=1e-6)


def test_overlapping_and_invalid_owners_and_names_that_lead_elsewhere(tmp_path):
    left, right, paths = pair(tmp_path)
    # a bow tie over everything, and a square; both reach over the region's edge
    tie = shapely.Polygon([(X0 - 50, Y0 + 50), (X0 + 900, Y0 - 900), (X0 + 900, Y0 + 50), (X0 - 50, Y0 - 900)])
    square = shapely.box(X0 - 50, Y0 - 900, X0 + 900, Y0 + 50)
    owners = gpd.GeoDataFrame({"region": ["right", "left"]}, geometry=[square, tie], crs="EPSG:32633")
    assert not tie.is_valid
    got = open_archive(merge(paths, tmp_path / "both.zarr", region="both", owners=owners))["maps/probability"][0]
    np.testing.assert_array_equal(got, whole(left, right)[1])  # the first has the ground
    with pytest.raises(InputError, match="no CRS"):
        merge(paths, tmp_path / "c.zarr", region="c", owners=owners.set_crs(None, allow_override=True))
    with pytest.raises(InputError, match="region"):
        merge(paths, tmp_path / "c.zarr", region="../c")
    assert not (tmp_path / "c.zarr").exists()
    assert not (tmp_path.parent / "c.zarr").exists()


def test_a_box_across_the_antimeridian_is_named(old):
    _, _, path = old
    with pytest.raises(InputError, match="west < east"):
        subset(open_archive(path), bbox=(179.0, 70.0, -179.0, 71.0))


def test_regions_that_do_not_fit_are_not_merged(tmp_path):
    a = archive(maps([2019]), tmp_path / "a.zarr", region="a")
    for name, other, match in (
        ("b", maps([2019], crs="EPSG:32632"), "EPSG:32632"),
        ("c", maps([2019], side=20.0), "pixels of"),
        ("d", maps([2019], column=0.5), "parts of a pixel"),
    ):
        with pytest.raises(GridError, match=match):
            merge([a, archive(other, tmp_path / f"{name}.zarr")], tmp_path / "z.zarr", region="z")
    with pytest.raises(InputError, match="at least two"):
        merge([a], tmp_path / "z.zarr", region="z")
    ds = calibrated(maps([2019]))
    b = archive(ds, tmp_path / "e.zarr", calibrator=Halve())
    with pytest.raises(InputError, match="calibrations"):
        merge([a, b], tmp_path / "z.zarr", region="z")
    assert not (tmp_path / "z.zarr").exists()


def test_parts_by_year_box_and_glacier(old):
    ds, _, path = old
    tree = open_archive(path)
    got, shapes, ice = subset(tree, years=[2020])
    np.testing.assert_array_equal(got["probability"][0], ds["probability"][1])
    assert set(shapes["year"]) == set(ice["year"]) == {2020}
    got, shapes, ice = subset(tree, glacier="b")
    assert got.sizes == {"year": 2, "y": 15, "x": 15}
    np.testing.assert_array_equal(got["probability"], ds["probability"][:, 5:20, 15:30])
    assert set(ice["glacier_id"]) == {"b"}
    corner = gpd.GeoSeries([shapely.box(X0 + 105, Y0 - 105, X0 + 195, Y0 - 55)], crs="EPSG:32633")
    got, shapes, ice = subset(tree, bbox=corner)
    np.testing.assert_array_equal(got["probability"], ds["probability"][:, 5:11, 10:20])
    assert shapes.intersects(corner[0]).all()
    with pytest.raises(InputError, match="2018"):
        subset(tree, years=[2018])
    with pytest.raises(InputError, match="no glacier 'c'"):
        subset(tree, glacier="c")
    with pytest.raises(InputError, match="beside"):
        subset(tree, bbox=(0.0, 0.0, 1.0, 1.0))


def test_columns_of_many_types_make_the_round_trip(tmp_path):
    made = glaciers([2019]).assign(
        debris=[True, False],
        surging=pd.array([True, None], dtype="boolean"),
        rank=pd.array([2**40, None], dtype="Int64"),
        code=np.array([1, 2], np.uint8),
        slope=np.array([1.5, np.nan], np.float32),
        name=pd.array(["Ä", None], dtype="string"),
        note=np.array([None, "see map"], object),
        seen=pd.to_datetime(["2019-08-01", None]).to_numpy("datetime64[ns]"),
    )
    path = archive(maps([2019]), tmp_path / "a.zarr", glaciers=made)
    got = read_glaciers(open_archive(path))
    assert_geodataframe_equal(got, made[list(got.columns)])
    beside = gpd.read_parquet(path.with_suffix(".glaciers.parquet"))[list(got.columns)]
    # the columns of the RGI have true areas: on the axis of a UTM zone the map is smaller by 0.9996 squared
    np.testing.assert_allclose(beside["area_km2"], got["area_km2"] / 0.9996**2, rtol=1e-5)
    assert_geodataframe_equal(beside.assign(area_km2=got["area_km2"]), got)


@pytest.mark.parametrize("name", ["x", "y", "node_count", "spatial_ref", "part_node_count", "interior_ring", "outline"])
def test_columns_with_names_of_the_geometries_are_refused(tmp_path, name):
    with pytest.raises(SchemaError, match=rf"column '{name}'.*rename"):
        archive(maps([2019]), tmp_path / "a.zarr", glaciers=glaciers([2019]).assign(**{name: 1}))
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical(["a", "b"]),
        pd.to_datetime(["2019-08-01", "2019-08-02"], utc=True),
        np.array([1, "a"], object),
        np.array([[1], [2, 3]], object),
        np.array([1j, 2]),
        gpd.GeoSeries.from_xy([0, 1], [0, 1]),
        pd.array([2**60, None], dtype="Int64"),
    ],
    ids=lambda column: str(column.dtype),
)
def test_columns_that_would_not_come_back_are_refused(tmp_path, column):
    with pytest.raises(SchemaError, match=r"'odd' of glaciers has .*astype"):
        archive(maps([2019]), tmp_path / "a.zarr", glaciers=glaciers([2019]).assign(odd=column))
    assert not (tmp_path / "a.zarr").exists()


def test_nullable_columns_of_glaciers_make_the_round_trip(tmp_path):
    from icemap_xr.inventory import rgi7_table

    table = rgi7_table(glaciers([2019]).assign(term_type=[1, None], glac_name=["Ä", None]))
    path = archive(maps([2019]), tmp_path / "a.zarr", glaciers=table)
    assert_geodataframe_equal(read_glaciers(open_archive(path)), table)


def test_merged_outlines_are_drawn_with_the_options_of_the_archives(tmp_path):
    west, east = maps([2020]), maps([2020], column=40, seed=2)
    options = {"threshold": 0.3, "min_area_km2": 0.0005}
    paths = [
        archive(ds, tmp_path / f"{name}.zarr", region=name, outlines=outlines(ds, **options))
        for name, ds in (("w", west), ("e", east))
    ]
    tree = open_archive(merge(paths, tmp_path / "both.zarr", region="both"))
    expected = outlines(tree["maps"].to_dataset()[["probability"]], **options)
    assert_geodataframe_equal(read_outlines(tree), expected)
    assert read_outlines(tree).attrs == expected.attrs
    other = archive(maps([2020], column=80), tmp_path / "o.zarr", region="o", outlines=outlines(west))
    with pytest.raises(InputError, match=r"different or unknown options \(threshold 0\.3.*threshold 0\.5"):
        merge([*paths, other], tmp_path / "all.zarr", region="all")
    got = merge([*paths, other], tmp_path / "all.zarr", region="all", outline_options={"threshold": 0.4})
    assert read_outlines(open_archive(got)).attrs["outline_options"]["threshold"] == 0.4


def test_outlines_of_a_glacier_are_cut_to_it(tmp_path):
    """A neighbour that shares a divide touches it, and another outline reaches over its edge."""
    ds = maps([2020])
    own = glaciers([2020])  # a: columns 5 to 15, b: columns 15 to 30, of the same rows
    inside = shapely.box(X0 + 60, Y0 - 100, X0 + 100, Y0 - 60)
    touching = shapely.box(X0 + 150, Y0 - 150, X0 + 200, Y0 - 100)
    across = shapely.box(X0 + 100, Y0 - 200, X0 + 180, Y0 - 150).union(shapely.box(X0 + 150, Y0 - 100, X0 + 180, Y0))
    drawn = gpd.GeoDataFrame(
        {"year": 2020, "mean_probability": 0.9}, geometry=[inside, touching, across], crs=own.crs, index=[0, 1, 2]
    )
    drawn["area_km2"] = drawn.area / 1e6
    tree = open_archive(archive(ds, tmp_path / "a.zarr", outlines=drawn, glaciers=own))
    _, shapes, _ = subset(tree, glacier="a")
    assert len(shapes) == 2
    assert shapes.geometry[0].equals(inside)
    assert shapes.geometry[1].equals(shapely.box(X0 + 100, Y0 - 200, X0 + 150, Y0 - 150))
    np.testing.assert_allclose(shapes["area_km2"], [40 * 40e-6, 50 * 50e-6])
    assert shapes["mean_probability"].isna().tolist() == [False, True]


SQUARE = shapely.box(X0 + 50, Y0 - 200, X0 + 150, Y0 - 50)
LINE, POINT = shapely.LineString([(X0, Y0), (X0 + 50, Y0 - 50)]), shapely.Point(X0 + 20, Y0 - 20)
BOWTIE = shapely.Polygon([(X0, Y0), (X0 + 50, Y0 - 50), (X0 + 50, Y0), (X0, Y0 - 50)])


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ([shapely.GeometryCollection([SQUARE, LINE])], "1 rows that are no polygons .GeometryCollection"),
        ([SQUARE, LINE, POINT], "2 rows that are no polygons .LineString, Point"),
        ([LINE], "no polygons"),
        ([POINT], "no polygons"),
        ([SQUARE, BOWTIE], "1 invalid polygons, the first in row 1 .Self-intersection"),
    ],
)
def test_only_valid_polygons_are_archived(tmp_path, shapes, match):
    frame = gpd.GeoDataFrame(
        {"glacier_id": list("abc")[: len(shapes)], "year": 2019}, geometry=shapes, crs="EPSG:32633"
    )
    for table in ("glaciers", "outlines"):
        with pytest.raises(SchemaError, match=match):
            archive(maps([2019]), tmp_path / "a.zarr", **{table: frame})
    assert not (tmp_path / "a.zarr").exists()
