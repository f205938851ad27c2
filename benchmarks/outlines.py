"""Outlines chunk by chunk against polygons of the whole raster by GDAL (`rasterio.features.shapes`).

    python benchmarks/outlines.py --size 16384

A made-up map of that side (patches of ice over several scales, with holes and a ragged edge) lies in a Zarr store. Each
way runs in a process of its own on one thread and ends with shapely geometries: `outlines` from the store chunk by
chunk, GDAL from the whole raster in memory. Peak memory is counted above that of a process with all imports done.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import rasterio.features
import shapely.geometry
import xarray as xr
from _harness import MIB, in_new_process, peak_rss, print_head, print_row, run_child
from numpy.typing import NDArray
from scipy.ndimage import zoom

from icemap_xr import store
from icemap_xr.outlines import outlines
from icemap_xr.testing.fakes import small_grid

_CHUNK = 1024


def patch(block_info: Any = None, *, size: int = 0) -> NDArray[np.float32]:
    """Return one chunk of a map that is the same function of place in all chunks."""
    (_, _), (top, bottom), (left, right) = block_info[None]["array-location"]
    out = np.zeros((bottom - top, right - left), np.float32)
    for octave, side in enumerate((2048, 512, 128, 32, 8)):
        rng = np.random.default_rng(octave)
        coarse = rng.normal(0, side**0.7, (size // side + 3,) * 2).astype(np.float32)
        rows, columns = slice(top // side, bottom // side + 2), slice(left // side, right // side + 2)
        fine = zoom(coarse[rows, columns], side, order=0)
        out += fine[top % side :, left % side :][: bottom - top, : right - left]
    return (1 / (1 + np.exp(-out / 60)))[None].astype(np.float32)


def make(path: Path, size: int) -> None:
    """Write the map."""
    sides = tuple(min(_CHUNK, size - start) for start in range(0, size, _CHUNK))
    values = da.map_blocks(
        patch, chunks=((1,), sides, sides), dtype=np.float32, meta=np.empty((0, 0, 0), np.float32), size=size
    )
    ds = xr.Dataset(
        {"probability": (("year", "y", "x"), values)}, coords={"year": [2020], **small_grid((size, size)).coords()}
    )
    store.save(ds, path, what="made-up map")


def answer(start: float, before: int, count: int, area: float) -> dict[str, float]:
    """Return seconds, peak memory above the start in MiB, polygons and their area in km2."""
    return {"s": time.perf_counter() - start, "MiB": (peak_rss() - before) / MIB, "polygons": count, "km2": area}


def chunked(path: str) -> dict[str, float]:
    """Outline chunk by chunk."""
    ds, before = xr.open_zarr(path, chunks={}), peak_rss()
    start = time.perf_counter()
    with dask.config.set(scheduler="synchronous"):
        frame = outlines(ds)
    return answer(start, before, len(frame), float(frame.geometry.area.sum() / 1e6))


def whole(path: str) -> dict[str, float]:
    """Let GDAL polygonise the raster in memory."""
    ds, before = xr.open_zarr(path, chunks=None), peak_rss()
    start = time.perf_counter()
    mask = ds["probability"].values[0] > 0.5
    found = rasterio.features.shapes(mask.view(np.uint8), mask, 4, ds.odc.geobox.transform)
    shapes = [shapely.geometry.shape(one) for one, _ in found]
    return answer(start, before, len(shapes), float(sum(shapely.area(shapes)) / 1e6))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[16384], help="side of the map, pixels")
    print_head(
        "side", "polygons", "outlines, s", "GDAL, s", "time ratio", "outlines, MiB", "GDAL, MiB", "memory fraction"
    )
    for size in parser.parse_args().size:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "map.zarr"
            make(path, size)
            ours, gdal = (in_new_process(__file__, name, path=str(path)) for name in ("chunked", "whole"))
        if ours["polygons"] != gdal["polygons"] or abs(ours["km2"] - gdal["km2"]) > 1e-6 * gdal["km2"]:
            raise SystemExit(f"the polygons differ: {ours} and {gdal}")
        numbers = (f"{ours['s']:.1f}", f"{gdal['s']:.1f}", f"{ours['s'] / gdal['s']:.2f}")
        memory = (f"{ours['MiB']:.0f}", f"{gdal['MiB']:.0f}", f"{ours['MiB'] / gdal['MiB']:.2f}")
        print_row(size, ours["polygons"], *numbers, *memory)


if __name__ == "__main__":
    if not run_child([chunked, whole]):
        main()
