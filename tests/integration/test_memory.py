"""Peak memory of a map from store to store: the same for a hundred windows and for ten thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest

from icemap_xr.cube import build_cube
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

PEAK = """
import sys
from pathlib import Path

import dask

import icemap_xr as ix
from icemap_xr import blockjob
from icemap_xr.testing.fakes import FakePredictor

blockjob.BLOCK_TARGET = 256
dask.config.set(num_workers=2)
cube = ix.open_cube(sys.argv[1])
maps = cube.icemap.predict(FakePredictor(64, 3, ("rtc", "insar")))
maps.icemap.to_zarr(Path(sys.argv[1]).with_name("maps.zarr"))
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mb(folder: Path, side: int) -> float:
    """Map a cube of `side` x `side` pixels in a process of its own, in blocks of 256 pixels; return its peak."""
    folder.mkdir()
    rng, shape, items = np.random.default_rng(0), (side, side), []
    for month in (2, 6, 10):
        tile = rng.lognormal(-3, 1, (64, 64)).astype(np.float32)
        values = np.tile(tile, (side // 64, side // 64))
        items.append(rtc_item(write_raster(folder / f"rtc{month}.tif", values), f"2020-{month:02d}-01"))
        pair = write_raster(folder / f"pair{month}.tif", np.clip(values, 0, 1))
        items.append(pair_item(pair, f"2020-{month:02d}-01", f"2020-{month:02d}-13"))
    build_cube(pystac.ItemCollection(items), small_grid(shape), folder / "cube.zarr", steps=3, chunk=256)
    command = [sys.executable, "-c", PEAK, str(folder / "cube.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


@pytest.mark.timeout(600)
def test_memory_is_flat_from_a_hundred_to_ten_thousand_windows(tmp_path: Path) -> None:
    small, large = peak_mb(tmp_path / "small", 320), peak_mb(tmp_path / "large", 3200)
    # the large map alone is 41 MB, its six scenes are 246 MB as floats
    assert large < 1.15 * small, f"{small:.0f} MB for 100 windows, {large:.0f} MB for 10,000"
