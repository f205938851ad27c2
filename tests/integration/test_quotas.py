"""A provider's quotas hold for all worker processes of a cluster together, as a counting server sees it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
import yaml

from icemap_xr.catalog import search
from icemap_xr.cluster import cluster
from icemap_xr.cube import build_cube
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.counting import CountingServer, serve_counting
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster

SHAPE = (64, 64)
SCENES = 18
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CountingServer]:
    rng = np.random.default_rng(0)
    for number in range(SCENES):
        write_raster(tmp_path / "rasters" / f"{number}.tif", rng.lognormal(-3, 1, SHAPE))
    with serve_counting(tmp_path / "rasters") as running:
        yield running


def profile(folder: Path, **quotas: Any) -> str:
    """The local profile with quotas and remote addresses."""
    content = yaml.safe_load((ROOT / "catalogs" / "providers" / "local.yaml").read_text())
    path = folder / "profile.yaml"
    path.write_text(yaml.safe_dump(content | {"name": "counted", "quotas": quotas}))
    return str(path)


def read(server: CountingServer, folder: Path, grid: RegionGrid | None = None, **quotas: Any) -> xr.Dataset:
    items = []
    for number in range(len(list(server.folder.glob("*.tif")))):
        item = rtc_item(server.folder / f"{number}.tif", f"2020-{1 + number // 2:02d}-{1 + 14 * (number % 2):02d}")
        for asset in item.assets.values():
            asset.href = f"{server.address}/{Path(asset.href).name}"
        items.append(item)
    path, chosen = folder / "cube.zarr", grid or small_grid(SHAPE)
    return build_cube(pystac.ItemCollection(items), chosen, path, steps=3, profile=profile(folder, **quotas))


def test_without_quotas_workers_read_at_once(server: CountingServer, tmp_path: Path) -> None:
    with cluster("local", workers=3, threads=2):
        read(server, tmp_path)
    assert server.most > 2, "the test of quotas would prove nothing"


def test_connections_and_requests_hold_over_three_processes(server: CountingServer, tmp_path: Path) -> None:
    with cluster("local", workers=3, threads=2):
        cube = read(server, tmp_path, connections=2, requests_per_min=1800)
    assert np.isfinite(cube["rtc"].isel(y=slice(1, -1), x=slice(1, -1))).all()
    assert server.most <= 2
    # 30 a second; what each of the two slots may take for a block at once comes on top
    requests, _ = server.busiest(2.0)
    assert requests <= 60 + 2 * 7
    assert len(server.answers) >= 2 * SCENES


def test_bytes_hold_over_processes(server: CountingServer, tmp_path: Path) -> None:
    # 0.5 MB/s of each of two connections
    with cluster("local", workers=2, threads=2):
        read(server, tmp_path, connections=2, mb_per_s=0.5)
    _, size = server.busiest(2.0)
    assert size <= 2 * 2 * 0.5e6
    assert server.most <= 2


@pytest.mark.parametrize("block", [0, 512, 1024])
def test_bytes_hold_for_rasters_in_large_tiles_or_strips(block: int, tmp_path: Path) -> None:
    side, rate, at = 2048, 16.0, 700
    values = np.random.default_rng(0).lognormal(-3, 1, (1, side, side)).astype(np.float32)
    grid = small_grid((side, side))
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {"tiled": False, "blockysize": 1}
    frame = {"height": side, "width": side, "count": 1, "crs": grid.crs, "transform": grid.geobox.transform}
    (tmp_path / "rasters").mkdir()
    for number in range(2):
        path = tmp_path / "rasters" / f"{number}.tif"
        with rasterio.open(path, "w", driver="GTiff", dtype="float32", **frame, **tiles) as target:
            target.write(values)
    # begins within a tile
    part = RegionGrid(grid.geobox[at : at + 512, at : at + 512])
    with serve_counting(tmp_path / "rasters", pause=0) as server:
        read(server, tmp_path, part, connections=1, mb_per_s=rate)
    most = 4 * 512 * side if not block else 4 * (2 * block) ** 2
    assert sum(size for _, size in server.answers) > most, "the test would prove nothing"
    # what the slot may take for a block at once comes on top
    _, size = server.busiest(1.0)
    assert size <= 1.05 * most + rate * 1e6


def test_threads_of_one_process_share_them_too(server: CountingServer, tmp_path: Path) -> None:
    read(server, tmp_path, connections=1, requests_per_min=6000)
    assert server.most == 1


def test_bytes_hold_on_a_grid_coarser_than_the_rasters(tmp_path: Path) -> None:
    # 4.2 MB each, of which the grid of 40 m keeps a sixteenth of the pixels
    rng, side, rate = np.random.default_rng(0), 1024, 8.0
    for number in range(6):
        write_raster(tmp_path / "rasters" / f"{number}.tif", rng.lognormal(-3, 1, (side, side)))
    coarse = small_grid((side // 4, side // 4), resolution=40.0)
    with serve_counting(tmp_path / "rasters", pause=0) as server:
        read(server, tmp_path, coarse, connections=1, mb_per_s=rate)
    assert sum(size for _, size in server.answers) > 6 * 4e6, "the test would prove nothing"
    # what the slot may take for a block at once comes on top
    _, size = server.busiest(1.0)
    assert size <= rate * 1e6 + 4.7e6


def test_searches_of_a_cluster_s_clients_share_its_slots(tmp_path: Path) -> None:
    catalogue = pystac.Catalog("counted", "scenes on a server")
    rasters = tmp_path / "rasters"
    for number in range(4):
        path = write_raster(rasters / f"{number}.tif", np.ones(SHAPE))
        catalogue.add_item(rtc_item(path, f"2020-0{1 + number}-01"))
    catalogue.normalize_and_save(str(rasters), pystac.CatalogType.SELF_CONTAINED)
    where = profile(tmp_path, connections=1, requests_per_min=600)
    region = small_grid(SHAPE).geobox.extent.to_crs("EPSG:4326").boundingbox.bbox

    def find(server: CountingServer) -> list[str]:
        found = search(f"{server.address}/catalog.json", region, 2020, features=["rtc"], profile=where, deadline=2)
        return [item.id for item in found]

    with serve_counting(rasters) as server, cluster("local", workers=1) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(find, [server] * 8))
        slots = client.run_on_scheduler(lambda dask_scheduler: dict(dask_scheduler.extensions["semaphores"].max_leases))
    assert [len(one) for one in found] == [4] * 8, "waiting for a slot is no fault of the server"
    assert slots == {"icemap-quota-counted-1": 1}
    assert server.most == 1
    # eight searches of catalogue and items, ten requests a second
    assert len(server.answers) >= 40
    requests, _ = server.busiest(1.0)
    assert requests <= 11
