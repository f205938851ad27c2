"""`icemap run` in processes: the whole chain on real backscatter, faults, interruption and resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pystac
import pytest
import xarray as xr
import yaml

import icemap_xr as ix
from icemap_xr.loopback import serve_catalog, serve_files
from icemap_xr.stac_items import items_from_files
from icemap_xr.store import partial_path
from icemap_xr.testing.rasters import write_raster

ROOT = Path(__file__).resolve().parents[2]
ICEMAP = Path(sys.executable).parent / "icemap"


def icemap(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(ICEMAP), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=240)


def opera_config(golden: Path, provider: str, folder: Path, **changes: Any) -> Path:
    """The shipped OPERA pipeline with reference weights of one feature, for the given source, on one worker process."""
    content = yaml.safe_load((ROOT / "pipelines" / "opera_rtc.yaml").read_text())
    content["search"]["provider"] = provider
    content["model"] = {"name": str(golden / "maxpool_grd_filters8.h5"), "features": ["rtc"], "window": 32}
    content["cluster"] = {"kind": "local", "workers": 1}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All chunk files below a store."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(name): (folder / name).read_bytes() for name in files if "c" in name.parts}


def test_the_whole_chain_runs_on_the_real_series_over_http(
    golden: Path, opera: Path, opera_api: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    grid = ix.RegionGrid.from_bbox((236_000, 3_868_500, 240_000, 3_872_500), "EPSG:32611", 50, bbox_crs="EPSG:32611")
    write_raster(tmp_path / "dem.tif", 1000 + np.add.outer(np.arange(80.0), np.arange(80.0)), grid=grid)
    errors = {"errors_m": [-10.0, 10.0], "segment_m": 500.0, "method": "hard", "threshold": 0.5}
    (tmp_path / "edges.json").write_text(json.dumps(errors))
    more = {
        "outlines": {"edge_errors": "edges.json"},
        "glaciers": {"dem": "dem.tif", "pixel_size": 30},
        "cluster": {"kind": "local", "workers": 2},
    }
    done = icemap("run", opera_config(golden, opera_api, tmp_path, **more), "--output", out)
    assert done.returncode == 0, done.stderr
    assert "weights: maxpool_grd_filters8: weights read from maxpool_grd_filters8.h5" in done.stdout
    assert "not verified as a published file" in done.stdout
    # how it goes on a cluster: where to watch, what is loaded where, how far it is, and Dask's report
    for told in ("dashboard: http://127.0.0.1:", "is loaded on 2 of 2 workers", "(100 %)", "predicting: "):
        assert told in done.stderr
    assert "bokeh" in (out / "performance.html").read_text().lower()
    cube = ix.open_cube(out / "cube.zarr")
    assert cube.sizes == {"rtc_time": 21, "y": 100, "x": 100, "year": 4, "step": 15}
    maps = xr.open_zarr(out / "probability.zarr")
    assert np.isfinite(maps["probability"]).all()
    assert maps.attrs["model"] == "maxpool_grd_filters8"
    model = ix.load_model(golden / "maxpool_grd_filters8.h5", features=["rtc"], window=32)
    here = cube.load().icemap.predict(model, gaps="nearest")
    np.testing.assert_allclose(maps["probability"].values, here["probability"].values, atol=1e-6)
    archive = ix.open_archive(out / "opera-rtc.zarr")
    np.testing.assert_array_equal(archive["maps/probability"].values, maps["probability"].values)
    outlines = gpd.read_parquet(out / "opera-rtc.parquet")
    summary = json.loads((out / "summary.json").read_text())
    assert [row["year"] for row in summary["years"]] == [2021, 2022, 2023, 2025]
    for row in summary["years"]:
        assert row["low_km2"] <= row["area_km2"] <= row["high_km2"]
        assert row["unobserved_km2"] == pytest.approx(0, abs=1e-9)
        hard = float((maps["probability"].sel(year=row["year"]) > 0.5).sum()) * 0.0009
        assert row["area_km2"] == pytest.approx(hard)
        of_year = outlines[outlines["year"] == row["year"]]
        assert of_year.geometry.area.sum() / 1e6 == pytest.approx(hard)
        # the file has the columns of the RGI: true areas
        assert of_year["area_km2"].sum() == pytest.approx(hard, rel=0.003)
    assert (outlines["mapping_low_km2"] <= outlines["area_km2"]).all()
    assert (outlines["area_km2"] <= outlines["mapping_high_km2"]).all()
    for year in (2021, 2022, 2023, 2025):
        used = np.unique(cube["rtc_index"].sel(year=year))
        names = " ".join(cube["rtc_item"].values[used[used >= 0]])
        assert set(outlines["source_scenes"][outlines["year"] == year]) == {names}
        assert archive["lineage"].attrs["scenes_by_year"][str(year)] == names.split()
    item = pystac.Item.from_file(out / "opera-rtc.json")
    assert item.assets["model"].href.startswith("ni:///sha-256;")
    assert item.properties["mlm:name"] == "maxpool_grd_filters8"
    glaciers = gpd.read_parquet(out / "opera-rtc.glaciers.parquet")
    assert glaciers["area_km2"].sum() == pytest.approx(outlines["area_km2"].sum())
    assert glaciers["zmed_m"].between(1000, 1160).all()
    assert set(glaciers["dem_source"]) == {"dem"}
    blocks = archive["blocks"].to_dataset()["ice_km2"].sum(("block_y", "block_x"))
    np.testing.assert_allclose(blocks, [row["area_km2"] for row in summary["years"]])
    assert (out / "overview.png").read_bytes().startswith(b"\x89PNG")
    assert not list(out.glob("*.partial"))
    again = icemap("run", opera_config(golden, opera_api, tmp_path, **more), "--output", out)
    assert again.returncode == 0, again.stderr
    assert json.loads((out / "summary.json").read_text()) == summary


def test_interrupted_run_leaves_nothing_half_written_and_resumes(golden: Path, opera: Path, tmp_path: Path) -> None:
    config = opera_config(golden, str(opera), tmp_path, cube={"chunk": 16, "polarisation": "VV"}, years=[2021])
    out, whole = tmp_path / "out", tmp_path / "whole"
    process = subprocess.Popen(
        [str(ICEMAP), "run", str(config), "--output", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # what a background job of a shell starts ignores Ctrl-C, tests included
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    chunks = partial_path(out / "cube.zarr") / "rtc" / "c"
    deadline = time.monotonic() + 120
    while not list(chunks.rglob("*/*/*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert stderr.strip().splitlines()[-1].startswith("error: interrupted")
    assert "Traceback" not in stderr
    assert not (out / "cube.zarr").exists()
    for target in (out, whole):
        done = icemap("run", config, "--output", target)
        assert done.returncode == 0, done.stderr
    assert tree(out / "cube.zarr") == tree(whole / "cube.zarr")
    assert tree(out / "probability.zarr") == tree(whole / "probability.zarr")


def test_missing_raster_is_a_one_line_error_and_the_run_resumes(golden: Path, opera: Path, tmp_path: Path) -> None:
    copies = tmp_path / "rasters"
    copies.mkdir()
    for path in opera.glob("*_2021*_VV.tif"):
        (copies / path.name).write_bytes(path.read_bytes())
    items = items_from_files(copies)
    lost = sorted(copies.glob("*.tif"))[2]
    content = lost.read_bytes()
    lost.unlink()
    with serve_catalog(items, copies) as address:
        config = opera_config(golden, address, tmp_path, years=[2021])
        out = tmp_path / "out"
        failed = icemap("run", config, "--output", out)
        assert failed.returncode == 1
        last = failed.stderr.strip().splitlines()[-1]
        assert last.startswith("error: item"), failed.stderr
        assert lost.name in last
        assert "Traceback" not in failed.stderr
        assert not (out / "cube.zarr").exists()
        holes = tmp_path / "holes"
        holes.mkdir()
        accepted = opera_config(golden, address, holes, years=[2021], cube={"on_error": "hole"})
        full = icemap("run", accepted, "--output", holes / "out")
        lost.write_bytes(content)
        done = icemap("run", config, "--output", out)
        assert done.returncode == 0, done.stderr
    assert full.returncode == 3, full.stderr
    assert "blocks could not be read" in full.stdout
    assert json.loads((holes / "out" / "summary.json").read_text())["holes"] > 0


def test_credentials_in_addresses_are_used_and_recorded_nowhere(golden: Path, opera: Path, tmp_path: Path) -> None:
    items = items_from_files(opera)
    with serve_files(opera) as address:
        for item in items:
            item.add_link(pystac.Link("via", "http://user:PLANTED-PASSWORD@127.0.0.1/?sig=PLANTED"))
            for asset in item.assets.values():
                asset.href = f"{address}/{Path(asset.href).name}?sig=PLANTED-SECRET".replace(
                    "//", "//user:PLANTED-PASSWORD@", 1
                )
        catalogue = tmp_path / "items.json"
        catalogue.write_text(json.dumps(items.to_dict()))
        config = opera_config(golden, str(catalogue), tmp_path, years=[2021])
        out = tmp_path / "out"
        done = [icemap("-v", "run", config, "--output", out) for _ in range(2)]
    for one in done:
        assert one.returncode == 0, one.stderr
        assert "PLANTED" not in one.stdout + one.stderr
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if b"PLANTED" in path.read_bytes()] == []
