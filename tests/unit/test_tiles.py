"""Plans of tiles: what is cut, how it is read back, what is refused, and that tiles fit without a seam."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from shapely import box, union_all

from icemap_xr import tilerun
from icemap_xr import tiles as tiles_module
from icemap_xr.cluster import ClusterOptions
from icemap_xr.config import GridSection, ModelSection, PredictSection, RunConfig, SearchSection
from icemap_xr.errors import InputError, NothingObservedError, OutputExistsError, PlanError
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.tilequeue import run_tiles
from icemap_xr.tilerun import tile_config
from icemap_xr.tiles import TilePlan, make_plan, read_plan

CRS = "EPSG:32633"
WINDOW = 16


def config(**changes: Any) -> RunConfig:
    bounds = (500_000.0, 8_700_000.0, 501_000.0, 8_700_700.0)
    plain = RunConfig(
        name="here",
        region=(15, 78, 16, 79),
        years=(2020,),
        search=SearchSection("nowhere"),
        grid=GridSection(CRS, 10.0, bounds),
        model=ModelSection("demo_rtc"),
    )
    return replace(plain, **changes)


def layer(**columns: Any) -> gpd.GeoDataFrame:
    shapes = [box(500_000, 8_700_000, 500_900, 8_700_500), box(501_300, 8_700_000, 501_500, 8_700_100)]
    return gpd.GeoDataFrame({"region": ["north/east", "b"]} | columns, geometry=shapes, crs=CRS)


@pytest.fixture
def plan(tmp_path: Path) -> TilePlan:
    return make_plan(config(), tmp_path / "plan", tile_km=0.3, window=WINDOW)


def test_tiles_cover_the_region_and_lie_on_one_grid_of_strides(plan: TilePlan) -> None:
    # stride of 8 px of 10 m: 300 m is 3.75 strides, rounded up to 4
    assert {(tile.east - tile.west, tile.north - tile.south) for tile in plan.tiles} == {(320.0, 320.0)}
    assert all(edge % 320 == 0 for tile in plan.tiles for edge in tile.bounds)
    assert plan.halo_m == WINDOW * 10
    bounds = plan.config.grid.bounds
    assert bounds is not None
    covered = union_all([box(*tile.bounds) for tile in plan.tiles])
    assert covered.covers(box(*bounds))
    assert covered.area == pytest.approx(plan.km2 * 1e6)
    assert len({tile.name for tile in plan.tiles}) == len(plan.tiles)


def test_a_plan_is_read_back_as_it_was_made(plan: TilePlan) -> None:
    again = read_plan(plan.folder)
    assert again.tiles == plan.tiles
    assert again.config.digest == plan.config.digest
    drawn = gpd.read_file(plan.folder / "tiles.geojson")
    assert drawn["name"].tolist() == [tile.name for tile in plan.tiles]
    assert drawn.crs == "EPSG:4326"


def test_regions_of_a_layer_have_their_own_tiles_and_crs(tmp_path: Path) -> None:
    plan = make_plan(config(), tmp_path / "plan", regions=layer(crs=[CRS, "EPSG:32634"]), tile_km=0.3, window=WINDOW)
    assert {(tile.region, tile.crs) for tile in plan.tiles} == {("north-east", CRS), ("b", "EPSG:32634")}
    assert [tile.index for tile in plan.tiles] == list(range(len(plan.tiles)))


def test_selections(plan: TilePlan) -> None:
    assert plan.select(index=2) == plan.tiles[2:3]
    assert plan.select(part="1:3") == plan.tiles[1:3]
    assert plan.select(part="5:") == plan.tiles[5:]
    shards = [plan.select(shard=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(tile.index for shard in shards for tile in shard) == list(range(len(plan.tiles)))


@pytest.mark.parametrize(
    ("chosen", "match"),
    [
        ({"index": 99}, "tile 99 is not in the plan: give 0 to"),
        ({"part": "3"}, "slice '3' is not allowed"),
        ({"part": "9:5"}, "slice '9:5' holds no tile"),
        ({"part": "-2:"}, "slice '-2:' is not allowed"),
        ({"shard": "4/3"}, "shard '4/3' is not allowed"),
        ({"shard": "0/3"}, "shard '0/3' is not allowed"),
        ({"shard": "1/1", "index": 1}, "exclude each other"),
    ],
)
def test_selections_that_cannot_be(plan: TilePlan, chosen: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        plan.select(**chosen)


def test_a_plan_of_another_version_is_refused(plan: TilePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles_module, "version", lambda name: "99.0")
    with pytest.raises(PlanError, match=r"made by icemap-xr .*, this is 99.0.*make a new plan"):
        read_plan(plan.folder)


def test_other_options_are_refused_and_named_but_another_cluster_is_not(plan: TilePlan) -> None:
    other = config(predict=PredictSection(overlap=0.75), years=(2021,))
    with pytest.raises(PlanError, match=r"other options than this configuration \(years, predict\)"):
        read_plan(plan.folder, other)
    elsewhere = config(cluster=ClusterOptions(kind="threads"))
    assert read_plan(plan.folder, elsewhere).config.cluster.kind == "threads"


@pytest.mark.parametrize("damage", ["table", "head", "option", "nothing there"])
def test_a_damaged_plan_is_refused(plan: TilePlan, damage: str) -> None:
    head, table = plan.folder / "plan.json", plan.folder / "tiles.csv"
    if damage == "table":
        table.write_text(table.read_text().replace("500", "400"))
    elif damage == "head":
        head.write_text(head.read_text()[:-20])
    elif damage == "option":
        content = json.loads(head.read_text())
        content["config"]["years"] = [1999]
        head.write_text(json.dumps(content))
    else:
        head.unlink()
    match = {"table": "was changed", "head": "cannot be read", "option": "was changed", "nothing there": "no plan"}
    with pytest.raises(PlanError, match=match[damage]):
        read_plan(plan.folder)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile_km": 0}, "tile size 0 km"),
        ({"tile_km": 1, "regions": layer().drop(columns="region")}, "no column region or name.*it has geometry"),
        ({"tile_km": 1, "regions": layer(), "name": "title"}, "no column title"),
        ({"tile_km": 1, "regions": layer(crs=[CRS, "EPSG:4326"])}, "EPSG:4326 is geographic"),
        ({"tile_km": 1, "regions": layer(region=["a", "a"], crs=[CRS, "EPSG:32634"])}, "'a' has several CRS"),
        ({"tile_km": 1, "regions": layer(region=["N/S", "N-S"]).set_geometry([box(0, 0, 9, 9)] * 2)}, "named 'N-S'"),
        ({"tile_km": 1, "regions": layer(region=["N/S", "N-S"])}, "named 'N-S'"),
        ({"tile_km": 1, "regions": layer(region=["Ice", "ICE"])}, "capitals do not count"),
        ({"tile_km": 1, "config": config(search=SearchSection("https://me:hunter2@host/"))}, "holds credentials"),
    ],
)
def test_what_cannot_be_planned(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    given = {"config": config(), "window": WINDOW} | options
    with pytest.raises(InputError, match=match):
        make_plan(given.pop("config"), tmp_path / "plan", **given)
    assert not (tmp_path / "plan").exists()


def test_a_folder_with_other_things_is_left_alone(plan: TilePlan) -> None:
    before = sorted(os.listdir(plan.folder))
    with pytest.raises(OutputExistsError, match="not empty"):
        make_plan(config(), plan.folder, tile_km=1, window=WINDOW)
    assert sorted(os.listdir(plan.folder)) == before


def part(whole: xr.Dataset, grid: RegionGrid) -> xr.Dataset:
    """What is observed of a region on the grid of one tile, as a run of the tile reads it."""
    values = whole.drop_vars("spatial_ref").reindex(x=grid.coords()["x"], y=grid.coords()["y"])
    return values.assign_coords(grid.coords())


@pytest.mark.parametrize("overlap", [0.5, 0.75, 0.0])
def test_maps_of_tiles_are_the_map_of_the_region(tmp_path: Path, overlap: float) -> None:
    whole = yearly_dataset((112, 128))
    region = RegionGrid.from_dataset(whole)
    west, south, east, north = region.geobox.boundingbox.bbox
    # the ground that every tile can see was observed; the region's corner is on the grid of the tiles
    inner = (west + 320, south + 160, east - 480, north - 320)
    one = config(grid=GridSection(CRS, 10.0, inner), predict=PredictSection(overlap=overlap))
    model = FakePredictor(window=WINDOW)
    plan = make_plan(one, tmp_path / "plan", tile_km=0.16, window=WINDOW)
    assert west % 160 == north % 160 == 0
    expected = predict(whole, model, overlap=overlap).probability.compute()
    assert len(plan.tiles) >= 6
    for tile in plan.tiles:
        own = tile_config(plan, tile)
        assert own is not None
        assert own.grid.bounds is not None
        assert own.predict.aoi is not None
        grid = RegionGrid.from_bbox(own.grid.bounds, CRS, 10.0, bbox_crs=CRS)
        mask = ground_mask(own.predict.aoi, grid)
        found = predict(part(whole, grid), model, overlap=overlap, mask=mask).probability.compute()
        inside = found.where(mask.compute(), drop=True)
        assert inside.sizes["x"] * inside.sizes["y"] * 1e-4 == pytest.approx(tile.km2)
        np.testing.assert_array_equal(inside.values, expected.sel(x=inside.x, y=inside.y).values)
        assert np.isnan(found.where(~mask.compute()).values).all()


def test_a_tile_beyond_the_area_of_interest_is_not_run(tmp_path: Path) -> None:
    land = gpd.GeoDataFrame(geometry=[box(500_000, 8_700_000, 500_100, 8_700_100)], crs=CRS)
    land.to_file(tmp_path / "land.gpkg")
    one = config(predict=PredictSection(aoi=str(tmp_path / "land.gpkg")))
    plan = make_plan(one, tmp_path / "plan", tile_km=0.3, window=WINDOW)
    found = [own for own in (tile_config(plan, tile) for tile in plan.tiles) if own is not None]
    assert 0 < len(found) < len(plan.tiles)
    assert found[0].predict.aoi is not None
    assert gpd.read_file(found[0].predict.aoi).area.sum() <= land.area.sum()


def test_regions_that_share_a_tile_share_its_ground(tmp_path: Path) -> None:
    halves = [box(499_000, 8_700_000, 500_150, 8_700_300), box(500_150, 8_700_000, 501_000, 8_700_300)]
    regions = gpd.GeoDataFrame({"region": ["west", "east"]}, geometry=halves, crs=CRS)
    plan = make_plan(config(), tmp_path / "plan", regions=regions, tile_km=0.3, window=WINDOW)
    areas = {"west": 0.0, "east": 0.0}
    for tile in read_plan(plan.folder).tiles:
        own = tile_config(plan, tile)
        assert own is not None
        assert own.predict.aoi is not None
        areas[tile.region] += gpd.read_file(own.predict.aoi).area.sum()
    (plan.folder / "regions" / "west.gpkg").unlink()
    with pytest.raises(PlanError, match=r"west.gpkg is missing"):
        tile_config(plan, plan.tiles[[tile.region for tile in plan.tiles].index("west")])
    assert areas == {"west": pytest.approx(halves[0].area), "east": pytest.approx(halves[1].area)}


def test_weights_and_land_that_change_under_a_plan_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    land = tmp_path / "land.gpkg"
    gpd.GeoDataFrame(geometry=[box(500_000, 8_700_000, 500_500, 8_700_500)], crs=CRS).to_file(land)
    model = FakePredictor(window=WINDOW)
    monkeypatch.setattr(tilerun, "_model", lambda _: model)
    plan = tilerun.plan_tiles(config(predict=PredictSection(aoi=str(land))), tmp_path / "plan", tile_km=0.3)
    tilerun.check_inputs(read_plan(plan.folder))
    monkeypatch.setattr(tilerun, "_model", lambda _: SimpleNamespace(spec=replace(model.spec, digest="f" * 64)))
    with pytest.raises(PlanError, match="weights changed since the plan"):
        tilerun.check_inputs(plan)
    gpd.GeoDataFrame(geometry=[box(500_000, 8_700_000, 500_400, 8_700_500)], crs=CRS).to_file(land)
    with pytest.raises(PlanError, match="weights and aoi changed"):
        tilerun.check_inputs(plan)


def test_a_tile_without_an_observed_pixel_is_done(plan: TilePlan, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: Any) -> None:
        raise NothingObservedError("the map has no observed pixel")

    monkeypatch.setattr(tilerun, "run", nothing)
    outcome = run_tiles(plan, partial(tilerun.run_tile, plan))
    assert outcome.done == len(plan.tiles)
