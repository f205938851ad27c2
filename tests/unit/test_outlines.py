"""What outlines promises besides exactness, which tests/property holds."""

from __future__ import annotations

import json

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from affine import Affine
from click.testing import CliRunner
from geopandas.testing import assert_geodataframe_equal
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from icemap_xr.archive import archive
from icemap_xr.burning import rasterize
from icemap_xr.cli import cli
from icemap_xr.errors import GridError, InputError, SchemaError
from icemap_xr.glacierareas import held_out_edge_errors
from icemap_xr.grid import RegionGrid
from icemap_xr.inventory import source_scenes
from icemap_xr.outlines import outlines, simplify


def dataset(values, **more):
    values = np.asarray(values, np.float32)
    grid = RegionGrid(GeoBox(values.shape[1:], Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633"))
    coords = {"year": 2018 + np.arange(len(values)), **grid.coords()}
    layers = {"probability": values, **more}
    return xr.Dataset({name: (("year", "y", "x"), layer) for name, layer in layers.items()}, coords=coords)


RING = [[[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0.9]]]


def test_columns_types_and_crs():
    got = outlines(dataset(RING))
    assert list(got.columns) == ["year", "area_km2", "mean_probability", "geometry"]
    assert got["year"].tolist() == [2018, 2018]
    assert got["area_km2"].tolist() == pytest.approx([8e-4, 1e-4])
    assert got["mean_probability"].tolist() == pytest.approx([1, 0.9])
    assert len(got.geometry[0].interiors) == 1
    assert got.crs.to_epsg() == 32633


def test_the_threshold_itself_and_nan_are_not_glacier():
    assert len(outlines(dataset([[[0.5, np.nan]]]))) == 0


def test_an_empty_map_gives_no_rows_of_the_same_types():
    full, empty = outlines(dataset(RING)), outlines(dataset(np.zeros((2, 3, 4))))
    assert len(empty) == 0
    assert (empty.dtypes == full.dtypes).all()
    assert empty.crs == full.crs


def test_all_ice_is_one_rectangle():
    (square,) = outlines(dataset(np.ones((1, 5, 7)))).geometry
    assert len(square.exterior.coords) == 5
    assert square.area == 3500


def test_minimum_area_and_connectivity():
    assert len(outlines(dataset(RING), min_area_km2=8e-4)) == 1
    joined = outlines(dataset(RING), connectivity=8)
    assert len(joined) == 1
    assert joined.geometry[0].geom_type == "MultiPolygon"
    assert joined["mean_probability"][0] == pytest.approx(8.9 / 9)


@pytest.mark.parametrize("pixels", [11, 13, 22])
def test_an_outline_of_exactly_the_minimum_area_stays(pixels):
    box = GeoBox((1, pixels), Affine(30, 0, 500_000, 0, -30, 8_700_000), "EPSG:32633")
    coords = {"year": [2020], **RegionGrid(box).coords()}
    row = xr.Dataset({"probability": (("year", "y", "x"), np.full((1, 1, pixels), 0.9))}, coords=coords)
    assert len(outlines(row, min_area_km2=round(pixels * 9) / 1e4)) == 1
    assert len(outlines(row, min_area_km2=round(pixels * 9 + 1) / 1e4)) == 0


def test_small_holes_are_filled_with_what_lies_in_them():
    rows = ["#########", "#..#....#", "#..#.#..#", "####....#", "########.", "........#"]
    values = np.array([[[0.9 if one == "#" else 0.1 for one in row] for row in rows]])
    values[0, 2, 5] = 0.7
    plain = outlines(dataset(values))
    assert [len(one.interiors) for one in plain.geometry] == [2, 0, 0]
    small = outlines(dataset(values), max_hole_km2=4e-4)
    assert [len(one.interiors) for one in small.geometry] == [1, 0, 0]
    assert small["area_km2"].tolist() == pytest.approx([32e-4, 1e-4, 1e-4])
    all_ = outlines(dataset(values), max_hole_km2=13e-4)
    assert all_["area_km2"].tolist() == pytest.approx([44e-4, 1e-4])
    assert all_["mean_probability"][0] == pytest.approx(0.9)
    assert all_.geometry.area.tolist() == pytest.approx((all_["area_km2"] * 1e6).tolist())
    joined = outlines(dataset(values), max_hole_km2=13e-4, connectivity=8)
    assert joined["area_km2"].tolist() == pytest.approx([45e-4])


@pytest.mark.parametrize("chunk", [1, 3, 11])
def test_a_hole_that_ice_encloses_through_corners_alone(chunk):
    y, x = np.mgrid[:11, :11]
    ring = np.abs(y - 5) + np.abs(x - 5) == 4  # a diamond: no two of its pixels share a side
    values = np.where(ring, 0.9, 0.1)[None]
    joined = outlines(dataset(values).chunk(y=chunk, x=chunk), connectivity=8, max_hole_km2=25e-4)
    assert joined["area_km2"].tolist() == pytest.approx([41e-4])
    assert joined["mean_probability"].tolist() == pytest.approx([0.9])
    assert joined.geometry[0].geom_type == "Polygon"
    assert outlines(dataset(values), connectivity=8, max_hole_km2=24e-4)["area_km2"].tolist() == pytest.approx([16e-4])
    assert len(outlines(dataset(values), max_hole_km2=25e-4)) == 16  # through sides nothing is enclosed
    values[0, 5, 7] = np.nan
    assert outlines(dataset(values), connectivity=8, max_hole_km2=1)["area_km2"].tolist() == pytest.approx([16e-4])


@pytest.mark.parametrize("chunk", [1, 2, 9])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_holes_without_an_observation_are_not_filled(chunk, connectivity):
    rows = ["#########", "#..#?.#?#", "#..#..#?#", "#########", "#...#####", "#.#.#..##", "#..?#####", "#########"]
    values = np.array([[[{"#": 0.9, ".": 0.1, "?": np.nan}[one] for one in row] for row in rows]])
    got = outlines(dataset(values).chunk(y=chunk, x=chunk), max_hole_km2=20e-4, connectivity=connectivity)
    ice, hole = np.isfinite(values[0]) & (values[0] > 0.5), np.zeros(values[0].shape, bool)
    hole[1:3, 1:3] = hole[5, 5:7] = True  # the only ones that were observed everywhere
    assert got["area_km2"].sum() == pytest.approx((ice.sum() + hole.sum()) * 1e-4)
    assert got["mean_probability"].tolist() == pytest.approx([0.9] * len(got))
    burnt = rasterize(got.geometry, ice.shape, transform=dataset(values).odc.geobox.transform).astype(bool)
    np.testing.assert_array_equal(burnt, ice | hole)


def test_simplifying_reports_the_change_and_keeps_neighbours_together():
    y, x = np.mgrid[:60, :60]
    disc = (np.hypot(x - 30, y - 30) < 25).astype(float)
    got = outlines(dataset(disc[None]), simplify_m=20)
    plain = outlines(dataset(disc[None]))
    assert len(got.geometry[0].exterior.coords) < 0.5 * len(plain.geometry[0].exterior.coords)
    assert got["area_km2"][0] == pytest.approx(got.geometry[0].area / 1e6)
    assert got["simplified_km2"][0] == pytest.approx(got["area_km2"][0] - plain["area_km2"][0])
    assert abs(got["simplified_km2"][0]) < 0.02 * plain["area_km2"][0]
    # two glaciers with a stepped divide
    left = shapely.union_all([shapely.box(0, 10 * k, 200 + 10 * (k % 3), 10 * k + 10) for k in range(30)])
    right = shapely.box(0, 0, 400, 300).difference(left)
    both = gpd.GeoDataFrame({"year": [1, 1]}, geometry=[left, right], crs="EPSG:32633")
    smooth = simplify(both, 30)
    assert shapely.coverage_is_valid(smooth.geometry.values)
    assert smooth["simplified_km2"].sum() == pytest.approx(0, abs=1e-12)
    assert len(shapely.get_coordinates(smooth.geometry)) < len(shapely.get_coordinates(both.geometry))
    assert "simplified_km2" not in both
    with pytest.raises(InputError, match="overlap"):
        simplify(both.assign(geometry=both.buffer(5)), 30)
    with pytest.raises(InputError, match="simplify_m"):
        simplify(both, -1)


def test_outlines_carry_the_scenes_of_their_year():
    cube = xr.Dataset(
        {"grd": (("grd_time", "y", "x"), np.zeros((3, 2, 2))), "grd_index": (("year", "step"), [[0, 1], [2, -1]])},
        coords={"year": [2018, 2019], "grd_item": ("grd_time", ["a", "b", "c"])},
    )
    scenes = source_scenes(cube)
    assert scenes.values.tolist() == ["a b", "c"]
    got = outlines(dataset(np.ones((2, 3, 3))).assign_coords(source_scenes=scenes))
    assert got["source_scenes"].tolist() == ["a b", "c"]
    with pytest.raises(InputError, match="grd_item"):
        source_scenes(cube.drop_vars("grd_item"))


def disc(radius, side=120):
    y, x = np.mgrid[:side, :side]
    return (np.hypot(x - side / 2 + 0.3, y - side / 2 - 0.2) < radius).astype(float)


HARD = {"errors_m": [0.0], "segment_m": 100.0, "method": "hard", "threshold": 0.5}


def test_intervals_come_from_the_length_of_the_edge():
    ds = dataset([disc(40)])
    plain = outlines(ds)
    exact = outlines(ds, edge_errors=HARD)
    assert list(exact.columns) == [
        "year",
        "area_km2",
        "mean_probability",
        "mapping_low_km2",
        "mapping_high_km2",
        "geometry",
    ]
    assert_geodataframe_equal(exact[plain.columns], plain)
    # the edge is 20 m too far out everywhere: the true circle is smaller
    out = outlines(ds, edge_errors=HARD | {"errors_m": [20.0]})
    smaller = np.pi * 380**2 / 1e6
    assert out["mapping_low_km2"][0] == out["mapping_high_km2"][0]
    assert out["mapping_low_km2"][0] == pytest.approx(smaller, rel=0.02)
    # independent errors of pieces: a mean over the edge / segment pieces, and 1.96 standard deviations
    ragged = outlines(ds, edge_errors=HARD | {"errors_m": [-15.0, 15.0]})
    edge = plain.geometry.length[0] * np.pi / 4
    spread = 1.96 * 15 / np.sqrt(np.ceil(edge / 100)) * edge / 1e6
    half = (ragged["mapping_high_km2"] - ragged["mapping_low_km2"])[0] / 2
    assert half == pytest.approx(spread, rel=0.1)
    # what a year has in common does not average out
    yearly = outlines(ds, edge_errors=HARD | {"year_effect_m": [-15.0, 15.0]})
    assert yearly["mapping_high_km2"][0] - plain["area_km2"][0] == pytest.approx(15 * edge / 1e6)
    assert len(outlines(ds * 0, edge_errors=HARD)) == 0


def test_intervals_take_in_errors_inside_the_ice():
    """Of ice farther from the edge than the errors of the edge reach, by independent pieces of a block."""
    ds = dataset([disc(40), disc(40)])
    inner = outlines(ds).geometry[0].buffer(-100, join_style="mitre").area / 1e6
    near = HARD | {"near_m": 100.0, "block": "100m"}
    lakes = outlines(ds, edge_errors=near | {"inside_errors": [0.1]})
    area = lakes["area_km2"][0]
    assert 0.4 * area < inner < 0.5 * area
    assert lakes["mapping_high_km2"].tolist() == pytest.approx([area - 0.1 * inner] * 2)
    some = outlines(ds, edge_errors=near | {"inside_errors": [0.0, 0.2]})
    half = (some["mapping_high_km2"] - some["mapping_low_km2"])[0] / 2
    assert half == pytest.approx(1.96 * 0.1 * inner / np.sqrt(np.ceil(inner / 0.01)), rel=0.15)
    far = outlines(ds, edge_errors=near | {"inside_errors": [0.0, 0.2], "inside_range_m": 1000.0})
    assert far["mapping_low_km2"][0] == pytest.approx(area - 0.2 * inner)
    shared = outlines(ds, edge_errors=near | {"inside_region_effect": [-0.1, 0.1]})
    assert shared["mapping_low_km2"][0] == pytest.approx(area - 0.1 * inner)
    # what is missed beside glaciers is ground of no outline
    missed = outlines(ds, edge_errors=near | {"away_errors": [-0.5]})
    assert missed["mapping_low_km2"].tolist() == pytest.approx([area] * 2)


def test_lakes_that_a_model_takes_for_ice_are_in_the_intervals_of_its_outlines():
    """The edge is exact, and a sixth of the ground deep inside the ice is none."""

    def region(seed):
        rng = np.random.default_rng(seed)
        mapped, truth = disc(50), disc(50)
        lakes = np.kron(rng.random((12, 12)) < rng.uniform(0, 0.3), np.ones((10, 10)))
        truth[(lakes > 0) & (disc(30) > 0)] = 0
        return dataset([mapped]).probability, dataset([truth]).probability

    errors = held_out_edge_errors((region(seed) for seed in range(40)), block=100, method="hard")
    assert np.mean(errors["inside_errors"]) == pytest.approx(0.1, abs=0.06)
    assert np.abs(errors["errors_m"]).max() == 0
    held = 0
    for seed in range(100, 140):
        mapped, truth = region(seed)
        got = outlines(mapped.to_dataset(), edge_errors=errors)
        held += bool(got["mapping_low_km2"][0] <= float(truth.sum()) * 1e-4 <= got["mapping_high_km2"][0])
    assert 36 <= held <= 40


def test_a_lower_bound_is_no_negative_area():
    got = outlines(dataset([disc(1.5, 12)]), edge_errors=HARD | {"errors_m": [-500.0, 500.0]})
    assert (got["mapping_low_km2"] == 0).all()


@pytest.mark.parametrize("wrong", [{"method": "soft"}, {"threshold": 0.3}, {"errors_m": []}, {"error": 1}])
def test_edge_errors_of_something_else_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        outlines(dataset(RING), edge_errors=HARD | wrong)


def test_intervals_hold_the_area_of_regions_that_were_not_used():
    def region(seed):
        """A hard map whose edge is off by 8 m on average and differently around the ice, and its truth."""
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:120, :120]
        angle = np.arctan2(y - 59.3, x - 60.6)
        lobes = sum(rng.normal(0, 1) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(3, 12))
        radius = rng.uniform(25, 45)
        true, mapped = (np.hypot(y - 59.3, x - 60.6) < radius + off for off in (0, rng.normal(0.8, 0.4) + lobes))
        return dataset([mapped]).probability, dataset([true]).probability

    errors = held_out_edge_errors((region(seed) for seed in range(40)), block=300, method="hard")
    assert errors["method"] == "hard"
    held = 0
    for seed in range(100, 140):
        mapped, truth = region(seed)
        got = outlines(mapped.to_dataset(), edge_errors=errors)
        area = float(truth.sum()) * 1e-4
        held += bool(got["mapping_low_km2"].sum() <= area <= got["mapping_high_km2"].sum())
    assert 36 <= held <= 40
    with pytest.raises(InputError, match="method"):
        held_out_edge_errors([region(0)] * 2, block=300, method="firm")


def test_the_command_takes_the_options(tmp_path):
    dataset(RING).icemap.to_zarr(tmp_path / "maps.zarr")
    plain = ["outlines", str(tmp_path / "maps.zarr"), "--output"]
    (tmp_path / "edges.json").write_text(json.dumps(HARD))
    options = ["--connectivity", "8", "--max-hole-km2", "0.001", "--simplify-m", "1"]
    options += ["--edge-errors", str(tmp_path / "edges.json")]
    done = CliRunner().invoke(cli, [*plain, str(tmp_path / "a.gpkg"), *options])
    assert done.exit_code == 0, done.output
    assert "1 outlines, area changed by +0.0000 km2" in done.output
    written = gpd.read_file(tmp_path / "a.gpkg", layer="outlines")
    assert written["area_km2"].tolist() == pytest.approx([10e-4])
    assert written["mapping_low_km2"].tolist() == pytest.approx([10e-4])
    (tmp_path / "edges.json").write_text("{")
    broken = CliRunner().invoke(cli, [*plain, str(tmp_path / "c.gpkg"), *options])
    assert "edges.json" in str(broken.exception)
    assert CliRunner().invoke(cli, [*plain, str(tmp_path / "b.parquet")]).exit_code == 0
    assert len(gpd.read_parquet(tmp_path / "b.parquet")) == 2


def test_one_pixel_chunks_and_nodata_holes():
    values = np.random.default_rng(3).random((1, 9, 8))
    values[0, 3:5, 2:6] = np.nan
    whole = outlines(dataset(values), max_hole_km2=3e-4)
    assert_geodataframe_equal(outlines(dataset(values).chunk(1), max_hole_km2=3e-4), whole)


def test_calibrated_is_outlined_only_when_asked_for():
    ds = dataset(RING, calibrated=np.zeros((1, 4, 4), np.float32))
    assert len(outlines(ds)) == 2
    assert len(outlines(ds, variable="calibrated")) == 0


def test_each_chunk_is_read_once():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return np.random.default_rng(0).random(block.shape, np.float32)

    ds = dataset(np.zeros((2, 40, 40)))
    lazy = da.zeros((2, 40, 40), chunks=(1, 10, 10), dtype="float32").map_blocks(read, dtype="float32")
    assert len(outlines(ds.assign(probability=(("year", "y", "x"), lazy))))
    assert len(reads) == len(set(reads)) == 32


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 1.0},
        {"threshold": np.nan},
        {"connectivity": 6},
        {"min_area_km2": -1},
        {"min_area_km2": np.inf},
        {"max_hole_km2": -1},
        {"simplify_m": np.nan},
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options):
    with pytest.raises(InputError, match=next(iter(options))):
        outlines(dataset(RING), **options)


def rotated():
    box = GeoBox((6, 8), Affine(10, 0, 500_000, 0, -10, 8_700_000) * Affine.rotation(10), "EPSG:32633")
    coords = {str(name): one for name, one in xr_coords(box, crs_coord_name="spatial_ref").items()}
    values = np.random.default_rng(0).random((1, 6, 8)).astype(np.float32)
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2018], **coords})


def test_a_rotated_grid_is_refused_by_every_stage(tmp_path):
    for call in (
        outlines,
        lambda ds: archive(ds, tmp_path / "a.zarr"),
        lambda ds: ds.icemap.plot(),
        lambda ds: ds.icemap.area(method="hard"),
    ):
        with pytest.raises(GridError, match="north-up"):
            call(rotated())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("side", [1, 3, 50])
def test_a_checkerboard_is_squares_or_one_glacier(side):
    board = dataset((np.indices((8, 10)).sum(axis=0) % 2)[None]).chunk(y=side, x=side)
    squares = outlines(board)
    assert len(squares) == 40
    assert (squares["area_km2"] == 1e-4).all()
    (one,) = outlines(board, connectivity=8).geometry
    assert one.is_valid
    assert len(one.geoms) == 40
    assert one.area == 4000


def test_percent_and_codes_are_refused():
    with pytest.raises(InputError, match=r"outlines got the value 90.*0\.\.1"):
        outlines(dataset([[[0, 90.0], [np.nan, 0]]]))
    with pytest.raises(InputError, match="-9999"):
        outlines(dataset([[[0, 0.9], [-9999, 0]]]).chunk(1))


def test_a_missing_variable_and_grids_without_areas_are_refused():
    with pytest.raises(SchemaError, match="calibrated"):
        outlines(dataset(RING), variable="calibrated")
    geographic = xr.Dataset(
        {"probability": (("year", "y", "x"), np.ones((1, 3, 3), np.float32))},
        coords={"year": [2018], "y": [3.0, 2, 1], "x": [1.0, 2, 3]},
    ).odc.assign_crs("EPSG:4326")
    with pytest.raises(GridError, match="geographic"):
        outlines(geographic)
    with pytest.raises(GridError, match="north-up"):
        outlines(dataset(RING).isel(y=slice(None, None, -1)))
