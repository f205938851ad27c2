"""`icemap search`, `cube`, `cube-info`, `export-tiles` and `run --dry-run`: what they print, write and return."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import h5py
import numpy as np
import pystac
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from shapely.geometry import box

from icemap_xr.catalog import load_items, search
from icemap_xr.cli import cli, console
from icemap_xr.config import OrbitsSection, read_config
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.run_plan import BYTES_PER_PIXEL, plan_run
from icemap_xr.stac_items import write_catalog
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (20, 24)
GRID = small_grid(SHAPE)
REGION = "14.99,78.3,15.01,78.4"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    items = []
    for number, day in enumerate(("2020-01-10", "2020-05-01", "2020-09-01")):
        values = np.random.default_rng(number).lognormal(-3, 1, SHAPE)
        items.append(rtc_item(write_raster(folder / f"rtc{number}.tif", values), day, orbit=100 + 175 * number))
    items.append(rtc_item(folder / "rtc0.tif", "2020-06-01", orbit=901, track=88, state="ascending", name="other"))
    return write_catalog(items, folder / "catalog", title="test")


def icemap(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Result:
    runner = CliRunner()
    monkeypatch.setattr(console, "start_logging", lambda verbose: None)
    with monkeypatch.context() as patch:
        # the console writes to the stream that the runner captures
        patch.setattr(console, "OUT", _Late())
        return runner.invoke(cli, [str(one) for one in arguments])


class _Late:
    def print(self, *objects: Any, **options: Any) -> None:
        Console(width=160).print(*objects, **options)


def test_a_search_prints_what_it_covers_and_draws_it(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, picture = tmp_path / "items.json", tmp_path / "found.png"
    options = ("--region", REGION, "--years", "2019-2020", "--output", saved, "--plot", picture)
    result = icemap(monkeypatch, "search", catalog, *options)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    found = [[cell for cell in line if cell != "│"] for line in lines if "rtc" in line]
    assert ["rtc", "2019", "14", "descending", "sentinel-1a", "HH", "0", "365"] in found
    assert any(row[:7] == ["rtc", "2020", "14", "descending", "sentinel-1a", "HH", "3"] for row in found)
    assert "ICEmapper_tweightedpool_rtc" in result.output
    assert "ICEmapper_tweightedpool_grdinsar" not in result.output
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(load_items(saved)) == 4


def test_the_best_orbit_is_chosen_and_the_others_are_said(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--region", REGION, "--years", "2020", "--relative-orbit", "best")
    result = icemap(monkeypatch, "search", catalog, *options)
    assert result.exit_code == 0, result.output
    assert "orbit 14 descending" in result.output
    assert "88 ascending" in result.output
    wrong = icemap(monkeypatch, "search", catalog, *options[:-1], "up")
    assert isinstance(wrong.exception, InputError)


def cube(monkeypatch: pytest.MonkeyPatch, saved: Path, output: Path, *more: str) -> Result:
    west, south, east, north = GRID.geobox.extent.to_crs("EPSG:4326").boundingbox.bbox
    where = ("--region", f"{west},{south},{east},{north}", "--crs", "EPSG:32633", "--steps", "3")
    return icemap(monkeypatch, "cube", saved, *where, "--output", output, *more)


def test_a_cube_with_a_hole_has_an_exit_code_of_its_own(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "items.json"
    options = ("--region", REGION, "--years", "2020", "--relative-orbit", "14")
    icemap(monkeypatch, "search", catalog, *options, "--output", saved)
    whole = cube(monkeypatch, saved, tmp_path / "whole.zarr")
    assert whole.exit_code == 0, whole.output
    info = icemap(monkeypatch, "cube-info", tmp_path / "whole.zarr")
    assert info.exit_code == 0
    assert "3 of 3" in info.output
    content = json.loads(saved.read_text())
    content["features"][1]["assets"]["HH"]["href"] = str(tmp_path / "gone.tif")
    saved.write_text(json.dumps(content))
    broken = cube(monkeypatch, saved, tmp_path / "broken.zarr", "--on-error", "hole")
    assert broken.exit_code == 3, broken.output
    assert "rtc1" in broken.output
    info = icemap(monkeypatch, "cube-info", tmp_path / "broken.zarr", "--json")
    assert info.exit_code == 3
    found = json.loads(info.output)
    assert [hole["item"] for hole in found["missing"]] == ["rtc1"]
    assert found["features"]["rtc"]["years"] == [
        {"year": 2020, "steps": 3, "filled": 2, "longest_gap_days": pytest.approx(235, abs=1)}
    ]
    assert found["features"]["rtc"]["empty"] == ["rtc1"]
    failed = cube(monkeypatch, saved, tmp_path / "failed.zarr")
    assert failed.exit_code != 0
    assert not (tmp_path / "failed.zarr").exists()


def test_tiles_are_exported_in_the_published_layout(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = tmp_path / "items.json"
    options = ("--region", REGION, "--years", "2020", "--relative-orbit", "14", "--output", saved)
    icemap(monkeypatch, "search", catalog, *options)
    assert cube(monkeypatch, saved, tmp_path / "cube.zarr").exit_code == 0
    outlines = tmp_path / "ice.gpkg"
    gpd.GeoDataFrame(geometry=[box(*GRID.geobox.boundingbox.bbox)], crs=GRID.crs).to_file(outlines)
    result = icemap(
        monkeypatch, "export-tiles", tmp_path / "cube.zarr", outlines, "--output", tmp_path / "t.hdf5", "--name", "SVAL"
    )
    assert result.exit_code == 0, (result.output, result.exception)
    with h5py.File(tmp_path / "t.hdf5") as file:
        assert list(file) == ["SVAL-0-0_2020_ro14"]
        assert file["SVAL-0-0_2020_ro14"].attrs["rtc_base_time_idx"].tolist() == [0, 1, 2]


def test_the_plan_of_a_region_follows_from_its_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "pipelines" / "svalbard.yaml"
    config = read_config(path)
    plan = plan_run(config, gflops=500)
    assert (plan.rows, plan.columns, plan.years) == (50132, 38287, 9)
    # each of two orbits, and the joined map
    assert plan.scenes == {"grd": 2 * 274, "insar": 2 * 273}
    assert plan.cube_bytes == 2 * 547 * 50132 * 38287 * 2
    assert plan.transfer_bytes == 2 * 547 * 98 * 75 * 9 * 256**2 * BYTES_PER_PIXEL
    assert plan.map_bytes == 3 * 9 * 50132 * 38287 * 4
    assert plan.compute_hours == pytest.approx(plan.flops / 5e11 / 3600)
    assert plan.transfer_hours is None
    assert plan.tracks == (14, 174)
    alone = replace(config, orbits=OrbitsSection(), search=replace(config.search, relative_orbit=14))
    assert 2 * plan_run(alone, gflops=500).flops == pytest.approx(plan.flops)
    result = icemap(monkeypatch, "run", path, "--dry-run")
    assert result.exit_code == 0, result.exception
    assert "assumed: one platform" in result.output
    assert "relative orbit 14 and 174" in result.output
    # the land is the user's to give: what is counted without it is said
    assert "svalbard-land.gpkg is not there yet: all is counted, sea too" in " ".join(result.output.split())
    assert icemap(monkeypatch, "run", path).exit_code == 2


@pytest.mark.parametrize("kind", ["vector", "raster"])
def test_a_mask_halves_what_is_mapped(kind: str, tmp_path: Path) -> None:
    config = read_config(ROOT / "pipelines" / "svalbard.yaml")
    assert config.grid.bounds is not None
    west, south, east, north = config.grid.bounds
    land = tmp_path / ("land.gpkg" if kind == "vector" else "land.tif")
    if kind == "vector":
        half = gpd.GeoDataFrame(geometry=[box(west, south, (west + east) / 2, north)], crs=config.grid.crs)
        half.to_file(land)
    else:
        grid = RegionGrid.from_bbox(config.grid.bounds, config.grid.crs, 10_000, bbox_crs=config.grid.crs)
        west_half = np.broadcast_to(np.arange(grid.shape[1]) < grid.shape[1] / 2, grid.shape)
        write_raster(land, west_half, grid=grid, nodata=None)
    masked = replace(config, predict=replace(config.predict, aoi=str(land)))
    assert plan_run(masked).share == pytest.approx(0.5, abs=0.02)
    assert plan_run(masked).flops == pytest.approx(plan_run(config).flops / 2, rel=0.04)


def test_scenes_of_a_plan_are_counted_where_items_are_given(catalog: Path) -> None:
    config = read_config(ROOT / "pipelines" / "opera_rtc.yaml")
    items = search(catalog, (14.99, 78.3, 15.01, 78.4), [2020], relative_orbit=14)
    assert isinstance(items, pystac.ItemCollection)
    plan = plan_run(config, items=items)
    assert plan.counted
    assert plan.scenes == {"rtc": 0}
    assert "counted from the items" in plan.lines()[1]


def geocoded_later(folder: Path) -> Path:
    """A catalogue of scenes in radar geometry, and of pairs of two temporal baselines."""
    raster = write_raster(folder / "grd.tif", np.full(SHAPE, 0.1))
    items = [rtc_item(raster, "2021-03-05", orbit=100, collection="sentinel-1-grd", name="g")]
    items[0].assets = {"hh": items[0].assets["HH"]}
    for number, (first, second) in enumerate(
        (("2021-11-03", "2021-11-09"), ("2021-11-09", "2021-11-15"), ("2021-12-03", "2021-12-15"))
    ):
        pair = write_raster(folder / f"p{number}.tif", np.full(SHAPE, 0.5))
        items.append(pair_item(pair, first, second, track=14))
    return write_catalog(items, folder / "catalog", title="radar")


def test_a_search_tells_baselines_apart_counts_raw_scenes_and_names_what_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = geocoded_later(tmp_path)
    options = ("--region", REGION, "--years", "2021")
    result = icemap(
        monkeypatch, "search", found, *options, "--feature", "grd", "--feature", "insar", "--feature", "rtc"
    )
    assert result.exit_code == 0, result.output
    # after December 2021 one of two satellites was left
    assert re.search(r"insar, 6 days .*\b2 ", result.output)
    assert re.search(r"insar, 12 days .*\b1 ", result.output)
    assert "rtc: nothing found" in result.output
    assert "ICEmapper_tweightedpool_grd (with --grd)" in result.output
    assert "ICEmapper_tweightedpool_grdinsar (with --grd)" in result.output
    assert result.output.rstrip().endswith("ICEmapper_tweightedpool_insar")
    config = read_config(ROOT / "pipelines" / "svalbard.yaml")
    items = search(found, (14.99, 78.3, 15.01, 78.4), [2021])
    both = replace(config, years=(2021,))
    assert config.cube.baseline_days == 12
    # the cube keeps pairs of one baseline, and so does its plan
    assert plan_run(both, items=items).scenes == {"grd": 1, "insar": 1}
    assert plan_run(replace(both, cube=replace(both.cube, baseline_days=None)), items=items).scenes["insar"] == 3


def test_a_search_says_how_many_items_do_not_tell_their_orbit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raster = write_raster(tmp_path / "a.tif", np.full(SHAPE, 0.1))
    items = [rtc_item(raster, "2020-05-01", name="a"), rtc_item(raster, "2020-06-01", name="b", track=None)]
    found = write_catalog(items, tmp_path / "catalog", title="some")
    options = ("--region", REGION, "--years", "2020", "--relative-orbit", "14")
    result = icemap(monkeypatch, "search", found, *options)
    assert result.exit_code == 0, result.output
    assert "left out 1 items of opera-s1-rtc: they do not say the orbit" in result.output


def test_a_year_is_added_from_the_command_line(catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, start in (("old", "01-01"), ("new", "04-01")):
        options = ("--region", REGION, "--years", "2019-2020", "--relative-orbit", "14", "--year-start", start)
        assert icemap(monkeypatch, "search", catalog, *options, "--output", tmp_path / f"{name}.json").exit_code == 0
    assert cube(monkeypatch, tmp_path / "old.json", tmp_path / "old.zarr", "--years", "2020").exit_code == 0
    part = cube(monkeypatch, tmp_path / "old.json", tmp_path / "part.zarr", "--year-start", "04-01")
    assert "of which the search left out a part" in str(part.exception)
    more = ("--reuse", str(tmp_path / "old.zarr"), "--feature", "rtc", "--tolerance-days", "60")
    added = cube(monkeypatch, tmp_path / "new.json", tmp_path / "new.zarr", *more)
    assert added.exit_code == 0, added.output
    info = icemap(monkeypatch, "cube", "info", tmp_path / "new.zarr", "--json")
    assert info.exit_code == 0, info.output
    years = json.loads(info.output)["features"]["rtc"]["years"]
    # of a year from April the scene of January belongs to the one before
    assert [(one["year"], one["filled"]) for one in years] == [(2019, 1), (2020, 2)]


def test_files_that_do_not_tell_their_orbit_are_told_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pairs"
    write_raster(folder / "x_20200105-20200117_VV_cc.tif", np.full(SHAPE, 0.5))
    stated = ("--relative-orbit", "14", "--orbit-state", "descending", "--output", tmp_path / "catalog")
    assert icemap(monkeypatch, "stac-from-files", folder, *stated).exit_code == 0
    found = search(tmp_path / "catalog" / "catalog.json", (14.99, 78.3, 15.01, 78.4), 2020, relative_orbit=14)
    assert [item.properties["sat:orbit_state"] for item in found] == ["descending"]
    opera = folder / "OPERA_L2_RTC-S1_T137-292318-IW1_20200105T010101Z_20200106T010101Z_S1A_30_v1.0_VV.tif"
    write_raster(opera, np.full(SHAPE, 0.1))
    wrong = icemap(monkeypatch, "stac-from-files", folder, *stated[:2], "--output", tmp_path / "other")
    assert "says sat:relative_orbit 137, not 14" in str(wrong.exception)
    assert not (tmp_path / "other").exists()
