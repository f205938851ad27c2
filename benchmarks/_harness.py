"""What the benchmarks share: cubes to read, peak memory of fresh processes, tables."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema, store
from icemap_xr.cube import open_cube
from icemap_xr.testing.fakes import small_grid

MIB = 2**20


def codes(block_info: Any = None, *, seed: int = 0) -> NDArray[np.int16]:
    """Return one chunk of plausible int16 codes, each scene and chunk another; they compress well."""
    location, shape = block_info[None]["chunk-location"], block_info[None]["chunk-shape"]
    rng = np.random.default_rng((seed, *location))
    coarse = rng.integers(-4000, -1000, (shape[0], -(-shape[1] // 16), -(-shape[2] // 16)), dtype=np.int16)
    return coarse.repeat(16, 1).repeat(16, 2)[:, : shape[1], : shape[2]]


def cube_frame(
    shape: tuple[int, int], *, steps: int, features: Sequence[str], years: Sequence[int] = (2020,)
) -> xr.Dataset:
    """Return what a native cube has beside its series: coordinates, times and the year index."""
    ds = xr.Dataset(coords={schema.YEAR: np.array(years, np.int32), **small_grid(shape).coords()})
    days = np.arange(steps) * np.timedelta64(20, "D")
    times = np.concatenate([np.datetime64(f"{year}-01-01", "ns") + days for year in years])
    for name in features:
        one = schema.feature(name)
        ds = ds.assign_coords({one.time: (one.time, times)})
        ds[one.index] = ((schema.YEAR, schema.STEP), np.arange(times.size, dtype=np.int32).reshape(-1, steps))
    return ds


def series_attrs(name: str) -> dict[str, Any]:
    """Return the attributes of a feature's series on disk."""
    one = schema.feature(name)
    encoding = {"scale_factor": one.step, "add_offset": 0.0, "_FillValue": schema.NODATA_CODE}
    return {"units": one.units, "grid_mapping": schema.SPATIAL_REF, **encoding}


def cube_template(shape: tuple[int, int], *, chunk: int = 512, features: Sequence[str], **frame: Any) -> xr.Dataset:
    """Return a native cube, lazy, laid out on disk as `build_cube` does, of made-up scenes."""
    ds = cube_frame(shape, features=features, **frame)
    for number, name in enumerate(features):
        one = schema.feature(name)
        chunks = ((1,) * ds.sizes[one.time], *(_parts(size, chunk) for size in shape))
        data = da.map_blocks(codes, chunks=chunks, dtype=np.int16, meta=np.empty((0, 0, 0), np.int16), seed=number)
        ds[name] = ((one.time, schema.Y, schema.X), data, series_attrs(name))
    return ds


def write_cube(path: Path, shape: tuple[int, int], **options: Any) -> xr.Dataset:
    """Write a made-up cube to a Zarr store and open it as users do."""
    if not path.exists():
        store.save(cube_template(shape, **options), path, what="made-up cube")
    return open_cube(path)


def _parts(size: int, chunk: int) -> tuple[int, ...]:
    return tuple(min(chunk, size - start) for start in range(0, size, chunk))


def peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this system does not tell a process's peak memory (/proc/self/status): use Linux")


def in_new_process(script: str, name: str, **arguments: Any) -> Any:
    """Run a function of a benchmark in a process of its own, so that its peak memory is its own; return its answer."""
    command = [sys.executable, script, "--child", name, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} {arguments} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def run_child(functions: Sequence[Callable[..., Any]]) -> bool:
    """Answer `in_new_process` if this process was started by it."""
    if sys.argv[1:2] != ["--child"]:
        return False
    name, arguments = sys.argv[2], json.loads(sys.argv[3])
    print(json.dumps({one.__name__: one for one in functions}[name](**arguments)))
    return True


def print_head(*names: str) -> None:
    """Print the head of a markdown table."""
    print(f"| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def print_row(*cells: object) -> None:
    """Print a row of a markdown table."""
    print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)
