"""Peak memory: what is predicted before a run against what is measured, and how it grows with the region.

    python benchmarks/memory.py [--small]

Every figure is the peak of a fresh process (VmHWM). Three tables:

1. configurations: measured must not be above predicted, and predicted at most 1.5 times measured;
2. growth: 10^2 to 10^4 windows with a cheap model, from a Zarr cube to a Zarr map: the peak must stay flat (1.15);
3. a region of 100,000 x 100,000 pixels, planned whole and 1 % of it mapped through `aoi`, against that 1 % as a region
   of its own. Its blocks are generated when they are read, so nothing of it lies on a disk.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import shapely
import xarray as xr
from _harness import MIB, in_new_process, peak_rss, print_head, print_row, run_child, write_cube
from numpy.typing import NDArray

import icemap_xr as ix
from icemap_xr import schema
from icemap_xr.testing.fakes import FakePredictor, small_grid

FEATURES = ("grd", "insar")


def mapped(
    cube: str, output: str, *, window: int, steps: int, features: list[str], threads: int, form: str, **options: Any
) -> dict[str, Any]:
    """Map a cube to a store and return predicted and measured peak; `form` is store, lazy or memory."""
    model = ix.load_model("demo_grdinsar") if window == 0 else FakePredictor(window, steps, tuple(features))
    with dask.config.set(num_workers=threads):
        ds = ix.open_cube(cube)
        if form == "lazy":
            ds = ds.icemap.yearly()
        elif form == "memory":
            ds = in_memory(ds.icemap.yearly())
        plan = ds.icemap.predict(model, dry_run=True, **options)
        ds.icemap.predict(model, **options).icemap.to_zarr(output)
    return plan.to_dict() | {"peak": peak_rss()}


def in_memory(ds: xr.Dataset) -> xr.Dataset:
    """Load a dataset piece by piece: `load` holds everything twice for a moment, before a prediction begins."""
    for name, var in ds.data_vars.items():
        target = np.empty(var.shape, var.dtype)
        da.store(var.data, target)
        ds[name] = var.copy(data=target)
    return ds


def scene(block_info: Any = None) -> NDArray[np.float32]:
    """Return one chunk of a region that exists only while it is read."""
    location, shape = block_info[None]["chunk-location"], block_info[None]["chunk-shape"]
    ramp = np.linspace(-20, -5, shape[-1], dtype=np.float32)
    return np.broadcast_to(ramp - np.float32(sum(location) % 7), shape).copy()


def generated(side: int, chunk: int = 1024, steps: int = 3) -> xr.Dataset:
    """Return a lazy model view of a square region whose chunks are made when they are read."""
    sizes = tuple(min(chunk, side - start) for start in range(0, side, chunk))
    chunks = ((1,), (steps,), sizes, sizes)
    data = da.map_blocks(scene, chunks=chunks, dtype=np.float32, meta=np.empty((0,) * 4, np.float32))
    ds = xr.Dataset(coords={schema.YEAR: [2020], **small_grid((side, side)).coords()})
    ds["grd"] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), data, {"units": "dB"})
    return ds


def corner_of_region(side: int, part: int) -> dict[str, Any]:
    """Plan a region, map `part` x `part` pixels in its middle, and count them."""
    model = FakePredictor(384, 3, ("grd",))
    ds = generated(side)
    plan = ds.icemap.predict(model, dry_run=True)
    planned = peak_rss()
    aoi = None
    if part < side:
        begin = (side - part) // 2
        west, north = float(ds.x[begin]) - 5, float(ds.y[begin]) + 5
        frame = shapely.box(west, north - 10 * part, west + 10 * part, north)
        import geopandas as gpd

        aoi = gpd.GeoSeries([frame], crs="EPSG:32633")
    maps = ds.icemap.predict(model, aoi=aoi).probability.data
    with dask.config.set(num_workers=2):
        count = int(da.isfinite(maps).sum().compute())
    return {"windows": plan.windows, "planned": planned, "pixels": count, "peak": peak_rss()}


def configurations(folder: Path, small: bool) -> None:
    # two blocks of a prediction
    shape = (1536, 768) if small else (6144, 3072)
    print("Predicted against measured:\n")
    print_head("model", "source", "threads", "predicted MiB", "measured MiB", "predicted / measured")
    cases: list[tuple[str, dict[str, Any]]] = [
        ("cheap, 384 px, 15 steps", {"window": 384, "steps": 15, "threads": 1, "form": "store"}),
        ("cheap, 384 px, 15 steps", {"window": 384, "steps": 15, "threads": 4, "form": "store"}),
        ("cheap, 128 px, 15 steps", {"window": 128, "steps": 15, "threads": 2, "form": "store"}),
        ("cheap, 384 px, 15 steps", {"window": 384, "steps": 15, "threads": 1, "form": "lazy"}),
        ("cheap, 384 px, 15 steps", {"window": 384, "steps": 15, "threads": 1, "form": "memory"}),
        ("demo_grdinsar", {"window": 0, "steps": 15, "threads": 1, "form": "store", "overlap": 0.0}),
    ]
    cube = folder / "cube.zarr"
    write_cube(cube, shape, steps=15, features=FEATURES)
    for number, (name, case) in enumerate(cases):
        output = str(folder / f"maps{number}.zarr")
        found = in_new_process(__file__, "mapped", cube=str(cube), output=output, features=FEATURES, **case)
        predicted, peak = found["memory"]["total"] / MIB, found["peak"] / MIB
        ratio = f"{predicted / peak:.2f}"
        print_row(name, case["form"], case["threads"], f"{predicted:.0f}", f"{peak:.0f}", ratio)


def growth(folder: Path, small: bool) -> None:
    print("\nGrowth with the region, cheap model, windows of 384 px, from store to store, 2 threads:\n")
    print_head("windows", "region px", "peak MiB", "ratio to the first")
    first = 0.0
    for across in (10, 20) if small else (10, 32, 100):
        side = across * 192
        cube = folder / f"growth{side}.zarr"
        write_cube(cube, (side, side), steps=3, features=FEATURES[:1])
        case = {"window": 384, "steps": 3, "features": FEATURES[:1], "threads": 2, "form": "store"}
        found = in_new_process(__file__, "mapped", cube=str(cube), output=str(folder / f"g{side}.zarr"), **case)
        peak = found["peak"] / MIB
        first = first or peak
        print_row(across**2, f"{side} x {side}", f"{peak:.0f}", f"{peak / first:.2f}")


def large(small: bool) -> None:
    side, part = (20_000, 2_000) if small else (100_000, 10_000)
    print(f"\n{side:,} x {side:,} pixels planned whole, {part:,} x {part:,} of them mapped:\n")
    print_head("region px", "windows planned", "pixels mapped", "peak after planning MiB", "peak MiB", "ratio")
    own = in_new_process(__file__, "corner_of_region", side=part, part=part)
    whole = in_new_process(__file__, "corner_of_region", side=side, part=part)
    for length, found in ((part, own), (side, whole)):
        sizes = f"{found['planned'] / MIB:.0f}", f"{found['peak'] / MIB:.0f}"
        ratio = f"{found['peak'] / own['peak']:.2f}"
        print_row(f"{length} x {length}", f"{found['windows']:,}", f"{found['pixels']:,}", *sizes, ratio)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny form, to see that it works")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        configurations(Path(name), arguments.small)
        growth(Path(name), arguments.small)
    large(arguments.small)


if __name__ == "__main__" and not run_child((mapped, corner_of_region)):
    main()
