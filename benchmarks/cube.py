"""Is `build_cube` as fast as loading with odc-stac and writing, and does latency hide behind work?

    python benchmarks/cube.py [--size 2048] [--scenes 12] [--latency 0.05] [--repeats 2]

Cloud-optimised GeoTIFFs are served over HTTP by a process of its own. The same items are brought onto the same grid in
one run, in three ways: `odc.stac.load(...)` with chunks and `to_zarr`, `build_cube`, and that again from a server that
waits `--latency` seconds before each answer. Each way has fresh processes; the fastest of `--repeats` counts, and they
take turns. Targets: build_cube <= 1.0 of direct loading, latency <= 1.2 of none, peak memory that follows the blocks in
flight and not the cube (it is told for half the scenes, too).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pystac
from _harness import MIB, in_new_process, peak_rss, print_head, print_row, run_child

CHUNK = 512


def serve(folder: str, latency: float) -> None:
    """Serve a folder with range requests; each answer begins after `latency` seconds."""
    import socket

    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    files = StaticFiles(directory=folder)

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(latency)
        await files(scope, receive, send)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        app = Starlette(routes=[Mount("/", late)])
        uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off")).run(sockets=[listener])


@contextmanager
def server(folder: Path, latency: float) -> Iterator[str]:
    """Run `serve` in a process of its own; yields its address."""
    command = [sys.executable, __file__, "--serve", str(folder), str(latency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def make_items(folder: Path, scenes: int, size: int) -> pystac.ItemCollection:
    """Write scenes of linear power as cloud-optimised GeoTIFFs and return their items."""
    import rasterio

    from icemap_xr.testing.fakes import small_grid
    from icemap_xr.testing.rasters import rtc_item

    box = small_grid((size, size)).geobox
    profile = {"driver": "COG", "height": size, "width": size, "count": 1, "dtype": "float32", "crs": str(box.crs)}
    items = []
    for number in range(scenes):
        path = folder / f"s{number:03d}.tif"
        values = np.random.default_rng(number).lognormal(-3, 1, (size, size)).astype(np.float32)
        options = {"compress": "DEFLATE", "blocksize": 512, "nodata": float("nan"), "transform": box.transform}
        with rasterio.open(path, "w", **profile, **options) as out:
            out.write(values, 1)
        day = np.datetime64("2020-01-05") + 12 * number
        items.append(rtc_item(path, str(day), orbit=100 + 175 * number))
    return pystac.ItemCollection(items)


def ours(items: str, address: str, size: int, folder: str) -> list[float]:
    """Build a cube; return seconds and peak memory."""
    import icemap_xr as ix
    from icemap_xr.testing.fakes import small_grid

    found = _served(items, address)
    ix.build_cube(found[:1], small_grid((size, size)), Path(folder) / "warm.zarr", steps=1, chunk=CHUNK)
    start = time.perf_counter()
    ix.build_cube(found, small_grid((size, size)), Path(folder) / "cube.zarr", steps=15, chunk=CHUNK)
    return [time.perf_counter() - start, peak_rss()]


def direct(items: str, address: str, size: int, folder: str) -> list[float]:
    """Load with odc-stac and write; return seconds and peak memory."""
    import odc.stac

    from icemap_xr.reading import GDAL_OPTIONS
    from icemap_xr.testing.fakes import small_grid

    found = list(_served(items, address))
    odc.stac.configure_rio(**GDAL_OPTIONS)
    options: dict[str, Any] = {
        "bands": ["HH"],
        "geobox": small_grid((size, size)).geobox,
        "chunks": {"x": CHUNK, "y": CHUNK},
        "groupby": "id",
        "dtype": "float32",
        "nodata": float("nan"),
        "resampling": "bilinear",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        odc.stac.load(found[:1], **options).to_zarr(Path(folder) / "warm.zarr", zarr_format=3)
        start = time.perf_counter()
        odc.stac.load(found, **options).to_zarr(Path(folder) / "cube.zarr", zarr_format=3)
        return [time.perf_counter() - start, peak_rss()]


def _served(items: str, address: str) -> Any:
    found = pystac.ItemCollection.from_file(items)
    for item in found:
        for asset in item.assets.values():
            asset.href = f"{address}/{Path(asset.href).name}"
    return _Sliced(found.items, extra_fields=found.extra_fields)


class _Sliced(pystac.ItemCollection):
    def __getitem__(self, key: Any) -> Any:
        picked = self.items[key]
        return pystac.ItemCollection(picked) if isinstance(key, slice) else picked


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=2048, help="side of the region in pixels")
    parser.add_argument("--scenes", type=int, default=12)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds before each answer of the slow server")
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        items = make_items(folder, options.scenes, options.size)
        whole, half = folder / "items.json", folder / "half.json"
        items.save_object(str(whole))
        pystac.ItemCollection(items.items[: options.scenes // 2]).save_object(str(half))
        with server(folder, 0.0) as fast, server(folder, options.latency) as slow:
            ways = {
                "odc-stac and to_zarr": ("direct", fast, whole),
                "build_cube": ("ours", fast, whole),
                f"build_cube, {1000 * options.latency:.0f} ms per request": ("ours", slow, whole),
                "build_cube, half the scenes": ("ours", fast, half),
            }
            best: dict[str, list[float]] = {}
            for turn in range(options.repeats):
                for name, (function, address, path) in ways.items():
                    out = folder / f"{function}-{turn}-{len(name)}"
                    out.mkdir()
                    arguments = {"items": str(path), "address": address, "size": options.size, "folder": str(out)}
                    seconds, memory = in_new_process(__file__, function, **arguments)
                    known = best.get(name, [np.inf, np.inf])
                    best[name] = [min(known[0], seconds), min(known[1], memory)]
    times = {name: found[0] for name, found in best.items()}
    reference, plain, late = list(times.values())[:3]
    print(f"{options.scenes} scenes of {options.size} x {options.size} px, chunks of {CHUNK} px, {os.cpu_count()} CPUs")
    print_head("way", "s", "ratio", "target", "peak memory, MiB")
    ratios = {
        0: ("1", ""),
        1: (f"{plain / reference:.2f} of direct", "<= 1.0"),
        2: (f"{late / plain:.2f} of none", "<= 1.2"),
    }
    for number, (name, (seconds, memory)) in enumerate(best.items()):
        print_row(name, f"{seconds:.1f}", *ratios.get(number, ("", "")), f"{memory / MIB:.0f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], float(sys.argv[3]))
    elif not run_child([ours, direct]):
        main()
