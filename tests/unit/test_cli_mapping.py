"""`icemap predict`: its options are those of `predict`."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import click
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

import icemap_xr.models as models
from icemap_xr import cli
from icemap_xr.cube import open_cube
from icemap_xr.predict import predict
from icemap_xr.testing.published import STORED

#: what Python takes and a command has no use for: the data, and all classes beside the glacier
NO_OPTION = {"ds", "classes"}
AREA = shapely.box(500_050, 8_699_700, 500_300, 8_699_900)


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "load_model", lambda name: STORED)


def test_each_option_of_predict_is_one_of_the_command() -> None:
    command: Any = cli.cli.get_command(click.Context(cli.cli), "predict")
    words = {option.removeprefix("--").replace("-", "_") for one in command.params for option in one.opts}
    assert set(inspect.signature(predict).parameters) - NO_OPTION <= words


def test_the_options_reach_the_map(icemap: Any, rtc_cube: Path, tmp_path: Path) -> None:
    gpd.GeoDataFrame(geometry=[AREA], crs="EPSG:32633").to_file(tmp_path / "area.gpkg")
    gpd.GeoDataFrame(geometry=[AREA.buffer(-60)], crs="EPSG:32633").to_file(tmp_path / "mask.gpkg")
    files = ("--aoi", tmp_path / "area.gpkg", "--mask", tmp_path / "mask.gpkg")
    numbers = ("--sigma", 0.4, "--mc-dropout", 2, "--mc-rate", 0.3, "--years", "2020", "--memory-limit", "8GiB")
    command = ("predict", rtc_cube, "--model", "fake", *files, *numbers, "--output", tmp_path / "maps.zarr")
    for _ in ("written", "there already"):
        done = icemap(*command)
        assert done.code == 0, done.err
    found, cube = xr.open_zarr(tmp_path / "maps.zarr"), open_cube(rtc_cube)
    expected = cube.icemap.predict(STORED, sigma=0.4, mc_dropout=2, mc_rate=0.3)
    x, y = cube.x.values[None, :], cube.y.values[:, None]
    west, south, east, north = AREA.buffer(-60).bounds
    inside = (x > west) & (x < east) & (y > south) & (y < north)
    for name in ("probability", "probability_std"):
        np.testing.assert_array_equal(found[name].values, np.where(inside, expected[name].values, np.nan))
        assert np.isfinite(found[name].values).any()


def test_years_an_area_and_a_limit_are_planned_for(icemap: Any, rtc_cube: Path, tmp_path: Path) -> None:
    command = ("predict", rtc_cube, "--model", "fake", "--dry-run", "--rate", "1")
    whole = icemap(*command)
    assert "limit              123.00 MiB (memory_limit=)" in icemap(*command, "--memory-limit", "123MiB").out
    part = icemap(*command, "--aoi", "15.0,78.37,15.005,78.4")
    assert part.code == 0, part.err
    windows = [int(one.out.split("windows")[1].split()[0].replace(",", "")) for one in (whole, part)]
    assert 0 < windows[1] < windows[0]
    refused = {("--years", "1999"): "1999", ("--years", "2021-2020"): "years=()", ("--aoi", "0,0,1,1"): "outside"}
    for options, word in refused.items():
        done = icemap(*command, *options)
        assert done.code != 0
        assert word in done.err
    tight = icemap("predict", rtc_cube, "--model", "fake", "--output", tmp_path / "o.zarr", "--memory-limit", "1MiB")
    assert "memory_limit= sets another limit" in tight.err
