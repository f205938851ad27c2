"""`icemap run` over two relative orbits with a land mask: one cube each, one map, one fixed share of the ground."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
import yaml
from shapely.geometry import box

import icemap_xr as ix
from icemap_xr.stac_items import write_catalog
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster

ICEMAP = Path(sys.executable).parent / "icemap"
GRID = small_grid((64, 96))
#: columns that each orbit sees
SEEN = {14: slice(0, 60), 174: slice(40, 96)}


def catalog(folder: Path) -> Path:
    items = []
    for track, columns in SEEN.items():
        for year in (2020, 2021):
            for month in (2, 6, 10):
                values = np.full(GRID.shape, np.nan)
                values[:, columns] = np.random.default_rng(100 * track + month).lognormal(-3, 1, GRID.shape)[:, columns]
                path = write_raster(folder / f"{track}-{year}-{month:02d}.tif", values, grid=GRID)
                items.append(
                    rtc_item(path, f"{year}-{month:02d}-05", orbit=1000 * track + 12 * year + month, track=track)
                )
    return write_catalog(items, folder / "catalog", title="two orbits")


def test_two_orbits_become_one_map_over_the_land(golden: Path, tmp_path: Path) -> None:
    bounds = GRID.geobox.boundingbox
    land = gpd.GeoDataFrame(geometry=[box(bounds.left, bounds.bottom, bounds.right, bounds.top - 160)], crs=GRID.crs)
    land.to_file(tmp_path / "land.gpkg")
    config = {
        "name": "two",
        "region": [14.9, 78.2, 15.2, 78.5],
        "years": [2020, 2021],
        "search": {"provider": str(catalog(tmp_path)), "features": ["rtc"]},
        "orbits": {"relative": [14, 174]},
        "grid": {"crs": GRID.crs, "resolution": GRID.resolution, "bounds": list(bounds.bbox)},
        "cube": {"steps": 15, "chunk": 32},
        "model": {"name": str(golden / "maxpool_grd_filters8.h5"), "features": ["rtc"], "window": 32},
        "predict": {"aoi": "land.gpkg", "gaps": "nearest"},
        "area": {"block": "160m", "draws": 100, "method": "hard"},
        "cluster": {"kind": "local", "workers": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    out = tmp_path / "out"
    command = [str(ICEMAP), "run", str(tmp_path / "config.yaml"), "--output", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    cubes = {track: ix.open_cube(out / f"orbit-{track:03d}" / "cube.zarr") for track in SEEN}
    assert [cube.attrs["relative_orbit"] for cube in cubes.values()] == [14, 174]
    maps = xr.open_zarr(out / "probability.zarr")
    single = {track: xr.open_zarr(out / f"orbit-{track:03d}" / "probability.zarr") for track in SEEN}
    orbit = maps["relative_orbit"].values
    assert set(np.unique(orbit)) <= {0, 14, 174}
    for track, ds in single.items():
        mine = np.broadcast_to(orbit == track, ds["probability"].shape)
        assert mine.any()
        np.testing.assert_array_equal(maps["probability"].values[mine], ds["probability"].values[mine])
    assert np.isnan(maps["probability"].values[:, :16]).all()
    archive = ix.open_archive(out / "two.zarr")
    np.testing.assert_array_equal(archive["maps/probability"].values, maps["probability"].values)
    names = archive["lineage"].attrs["scenes_by_year"]["2020"]
    assert sorted({name.split("-")[0] for name in names}) == ["14", "174"]
    assert len(archive["lineage"].attrs["stac_items"]) == 12
    # the sea is not missing: it was never asked for
    summary = json.loads((out / "summary.json").read_text())
    for row in summary["years"]:
        observed = np.isfinite(maps["probability"].sel(year=row["year"]).values).sum() * 1e-4
        assert row["observed_km2"] == pytest.approx(observed)
        assert row["unobserved_km2"] == pytest.approx(48 * 96 * 1e-4 - observed, abs=1e-9)
    before = (out / "probability.zarr" / "icemap" / "manifest.json").read_bytes()
    (out / "summary.json").unlink()
    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "probability.zarr" / "icemap" / "manifest.json").read_bytes() == before
