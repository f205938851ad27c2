"""GRD in radar geometry, block by block: time against reading alone, memory by block, share of the look-up tables.

    python benchmarks/grd.py --folder /tmp/grd

A product of made-up numbers is written once: real geometry, annotation of the published form, 4096 x 6144 pixels. All
times are CPU time of one thread, told as ratios to GDAL warping the same raster to the same grid by its ground control
points (order 3), without calibration, noise, borders or heights; each is the best of three rounds, which take turns.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
from _harness import in_new_process, peak_rss, print_head, print_row, run_child
from rasterio.vrt import WarpedVRT

from icemap_xr.access import Access
from icemap_xr.grd import Dem, GrdOptions
from icemap_xr.grd.fetch import Fetcher
from icemap_xr.grd.placing import block_heights, place
from icemap_xr.grd.step import load, open_image, read_power
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels import lut
from icemap_xr.testing.radar import RadarScene, map_of, wavy_terrain
from icemap_xr.web import Patience

SHAPE = (4096, 6144)
SIDE = 2048


def product(folder: Path) -> tuple[Path, Path, RegionGrid]:
    """Return raster, DEM and grid; written if they are not there."""
    scene = RadarScene(shape=SHAPE)
    corners = RadarScene(shape=SHAPE).ground(*np.meshgrid((0.0, SHAPE[0] - 1.0), (0.0, SHAPE[1] - 1.0), indexing="ij"))
    # only their mean and ends are asked for
    scene.__dict__["truth"] = corners[:3]
    grid = map_of(scene, (SIDE, SIDE))
    found = sorted(folder.glob("*.SAFE/measurement/*.tiff"))
    if not found:
        rng = np.random.default_rng(0)
        scene.__dict__["numbers"] = np.sqrt(rng.gamma(4.4, 9e4 / 4.4, SHAPE)).astype(np.uint16)
        found = [scene.write(folder)]
    dem = folder / "dem.tif"
    if not dem.exists():
        rough = RadarScene(shape=SHAPE, terrain=wavy_terrain)
        write_dem_around(dem, rough, grid)
    return found[0], dem, grid


def write_dem_around(path: Path, scene: RadarScene, grid: RegionGrid) -> None:
    """Write 30 m heights around a grid."""
    box = grid.geobox.pad(400)
    coordinates = box.zoom_to(resolution=30.0).coordinates
    x, y = np.meshgrid(coordinates["x"].values, coordinates["y"].values)
    options = {"driver": "GTiff", "dtype": "float32", "count": 1, "height": x.shape[0], "width": x.shape[1]}
    transform = rasterio.transform.from_origin(x[0, 0] - 15, y[0, 0] + 15, 30, 30)
    with rasterio.open(path, "w", crs=scene.crs, transform=transform, tiled=True, **options) as out:
        out.write(scene.terrain(x, y).astype(np.float32), 1)


def blocks(grid: RegionGrid, side: int) -> list[Any]:
    """Return the blocks of a grid."""
    rows, columns = ([slice(a, min(a + side, n)) for a in range(0, n, side)] for n in grid.shape)
    return [grid.piece(r, c) for r in rows for c in columns]


def warp(path: Path, grid: RegionGrid, side: int) -> None:
    """Warp with GDAL, by control points of order 3."""
    with open_image(str(path)) as src:
        for piece in blocks(grid, side):
            to = {
                "crs": str(piece.crs),
                "transform": piece.transform,
                "height": piece.shape[0],
                "width": piece.shape[1],
            }
            bilinear = rasterio.enums.Resampling.bilinear
            with WarpedVRT(src, src_crs=src.gcps[1], resampling=bilinear, MAX_GCP_ORDER=3, **to) as vrt:
                vrt.read(1)


def ours(path: Path, grid: RegionGrid, side: int, options: GrdOptions) -> None:
    """Calibrate, clean and geocode."""
    fetch = Fetcher(Access(), Patience())
    with open_image(str(path)) as src:
        loaded = load(src, str(path), "VV", options, fetch)
        for piece in blocks(grid, side):
            read_power(src, loaded, piece, options)


def places(path: Path, grid: RegionGrid, side: int, options: GrdOptions) -> None:
    """Find image coordinates alone."""
    with open_image(str(path)) as src:
        loaded = load(src, str(path), "VV", options, Fetcher(Access(), Patience()))
    for piece in blocks(grid, side):
        place(piece, loaded.geometry, block_heights(piece, loaded.geometry, options.dem, options.height))


def seconds(call: Callable[[], None]) -> float:
    """Time one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def table_seconds(call: Callable[[], None]) -> float:
    """Return the time that a call spends in look-up tables."""
    spent = 0.0
    kept = lut.RangeVectors.window, lut.NoiseTable.window
    inside = 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any) -> Any:
            nonlocal spent, inside
            start, inside = time.process_time(), inside + 1
            try:
                return function(*arguments)
            finally:
                inside -= 1
                # the noise table calls the other one
                spent += (time.process_time() - start) if inside == 0 else 0.0

        return run

    lut.RangeVectors.window, lut.NoiseTable.window = (timed(one) for one in kept)  # type: ignore[method-assign]
    try:
        call()
    finally:
        lut.RangeVectors.window, lut.NoiseTable.window = kept  # type: ignore[method-assign]
    return spent


def memory(folder: str, side: int, terrain: bool) -> float:
    """Return the peak memory of all blocks of a side beyond that of the libraries, MiB."""
    path, dem, grid = product(Path(folder))
    options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid")) if terrain else GrdOptions("ellipsoid")
    # the libraries and the annotation
    ours(path, RegionGrid(grid.geobox[:16, :16]), 16, options)
    before = peak_rss()
    with rasterio.Env(GDAL_CACHEMAX=64):
        ours(path, grid, side, options)
    return (peak_rss() - before) / 2**20


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the made-up product is written")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    path, dem, grid = product(folder)
    flat, terrain = GrdOptions("ellipsoid"), GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"))
    masked = GrdOptions("terrain", dem=terrain.dem, layover_shadow="nodata")
    ways: dict[str, Callable[[], None]] = {
        "GDAL warp by control points": lambda: warp(path, grid, 512),
        "ellipsoid": lambda: ours(path, grid, 512, flat),
        "ellipsoid, places alone": lambda: places(path, grid, 512, flat),
        "terrain": lambda: ours(path, grid, 512, terrain),
        "terrain, places and DEM alone": lambda: places(path, grid, 512, terrain),
        "terrain, layover and shadow dropped": lambda: ours(path, grid, 512, masked),
    }
    with dask.config.set(scheduler="synchronous"), rasterio.Env(GDAL_CACHEMAX=64):
        best = dict.fromkeys(ways, np.inf)
        for _ in range(3):
            for name, call in ways.items():
                best[name] = min(best[name], seconds(call))
        share = table_seconds(ways["ellipsoid"]) / seconds(ways["ellipsoid"])
    print(f"{SIDE} x {SIDE} pixels of 10 m in blocks of 512, one thread\n")
    print_head("way", "CPU time / GDAL warp", "Mpixel per CPU second")
    reference = best["GDAL warp by control points"]
    for name, took in best.items():
        print_row(name, f"{took / reference:.2f}", f"{SIDE**2 / took / 1e6:.2f}")
    print(f"\nlook-up tables: {share:.1%} of the time of 'ellipsoid'\n")
    print_head("block", "ellipsoid, MiB", "terrain, MiB")
    for side in (256, 512, 1024, 2048):
        used = [in_new_process(__file__, "memory", folder=str(folder), side=side, terrain=t) for t in (False, True)]
        print_row(side, *(f"{one:.0f}" for one in used))


if __name__ == "__main__" and not run_child([memory]):
    main()
