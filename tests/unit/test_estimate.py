"""Plans: what is counted against what is run, memory against what a process really takes, and refusals."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from numpy.typing import NDArray
from rich.console import Console

from icemap_xr import blockjob, schema
from icemap_xr.cli import console
from icemap_xr.cli.mapping import predict as command
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.errors import InputError
from icemap_xr.estimate import Machine, Memory, Plan
from icemap_xr.storearray import StoreArray
from icemap_xr.testing.fakes import CountingPredictor, FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SHAPE = (53, 70)
MODEL = FakePredictor(8, 3)
STORED = FakePredictor(8, 3, ("rtc", "insar"))
PARTS = Memory(interpreter=100, data=0, model=50, computing=400, batches=100, rows=30, blocks=20)


class Costed(CountingPredictor):
    """Also says what a window costs."""

    flops_per_window = 1000


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cube")
    rng = np.random.default_rng(0)
    items = []
    for year in (2020, 2021):
        for month in (2, 6, 10):
            raster = write_raster(folder / f"rtc{year}{month}.tif", rng.lognormal(-3, 1, SHAPE))
            items.append(rtc_item(raster, f"{year}-{month:02d}-01"))
            pair = write_raster(folder / f"pair{year}{month}.tif", rng.random(SHAPE))
            items.append(pair_item(pair, f"{year}-{month:02d}-01", f"{year}-{month:02d}-13"))
    build_cube(pystac.ItemCollection(items), small_grid(SHAPE), folder / "cube.zarr", steps=3, chunk=16)
    return folder / "cube.zarr"


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 24)


def some_mask(kind: str) -> xr.DataArray | None:
    if kind == "none":
        return None
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    chosen = {
        "disc": (rows - 30) ** 2 + (columns - 40) ** 2 < 81,
        "pixel": (rows == 25) & (columns == 47),
        "nothing": rows < 0,
    }[kind]
    return xr.DataArray(chosen, dims=("y", "x"))


@pytest.mark.parametrize("kind", ["none", "disc", "pixel", "nothing"])
@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"overlap": 0.0}, {"overlap": 0.75, "blend": "crop"}, {"edges": "valid"}, {"blend": "crop"}]
)
def test_the_windows_planned_are_the_windows_run(kind: str, lazy: bool, options: dict[str, Any]) -> None:
    counter, mask = Costed(MODEL), some_mask(kind)
    ds = yearly_dataset(SHAPE, years=(2020, 2021))
    ds = ds.chunk(y=20) if lazy else ds
    if mask is not None and lazy:
        mask = mask.chunk(y=13)
    plan = ds.icemap.predict(counter, dry_run=True, mask=mask, **options)
    assert counter.batches == []
    with dask.config.set(scheduler="synchronous"):
        ds.icemap.predict(counter, mask=mask, **options).load()
    assert sum(counter.batches) == plan.windows
    assert plan.flops == 1000 * plan.windows
    assert plan.years == 2
    assert plan.blocks == 2 * 3 * 3
    assert (plan.windows == 0) == (kind == "nothing")


def test_an_area_of_interest_is_counted_as_it_is_run() -> None:
    import geopandas as gpd
    import shapely

    ds, counter = yearly_dataset(SHAPE), Costed(MODEL)
    aoi = gpd.GeoSeries([shapely.Point(500_330, 8_699_700).buffer(100)], crs="EPSG:32633")
    plan = ds.icemap.predict(counter, aoi=aoi, dry_run=True)
    ds.icemap.predict(counter, aoi=aoi)
    assert 0 < plan.windows == sum(counter.batches) < ds.icemap.predict(counter, dry_run=True).windows


def test_symmetries_count_eight_times() -> None:
    ds, counter = yearly_dataset(SHAPE), Costed(MODEL)
    plan = ds.icemap.predict(counter, tta="dihedral", dry_run=True)
    ds.icemap.predict(counter, tta="dihedral")
    assert plan.model_calls == 8
    assert sum(counter.batches) == 8 * plan.windows
    assert plan.flops == 8000 * plan.windows


def test_bytes_read_are_those_of_the_chunks_that_are_decoded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0
    original = StoreArray.__getitem__

    def noted(self: StoreArray, key: Any) -> NDArray[np.float32]:
        nonlocal decoded
        array = zarr.open_group(self.path, mode="r")[self.name]
        assert isinstance(array, zarr.Array)
        chunk = array.chunks
        touched = [-(-s.stop // c) - s.start // c for s, c in zip(key[1:], chunk[1:], strict=True)]
        decoded += int(np.prod(touched)) * int(np.prod(chunk)) * array.dtype.itemsize
        return original(self, key)

    cube = open_cube(path)
    mask = some_mask("disc")
    for options in ({}, {"mask": mask}, {"years": [2021]}):
        plan = cube.icemap.predict(STORED, dry_run=True, **options)
        decoded = 0
        with monkeypatch.context() as patch, dask.config.set(scheduler="synchronous"):
            patch.setattr(StoreArray, "__getitem__", noted)
            cube.icemap.predict(STORED, **options).load()
        assert plan.read_from == "store"
        assert plan.read_bytes == decoded > 0


def test_where_the_data_come_from(path: Path) -> None:
    cube, ds = open_cube(path), yearly_dataset(SHAPE)
    assert cube.icemap.predict(STORED, dry_run=True).read_from == "store"
    assert cube.icemap.yearly().icemap.predict(STORED, dry_run=True).read_from == "lazy arrays"
    plan = ds.icemap.predict(MODEL, dry_run=True)
    assert plan.read_from == "memory"
    assert plan.memory.data == ds.grd.nbytes + ds.insar.nbytes + 2 * 4 * SHAPE[0] * SHAPE[1]


# --- the plan itself


def test_a_plan_is_a_table_and_plain_json() -> None:
    plan = yearly_dataset(SHAPE).icemap.predict(Costed(MODEL), dry_run=True)
    text = str(plan)
    for part in (f"{plan.windows:,}", "GFLOP", "from memory", "interpreter", "not asked for"):
        assert part in text
    found = json.loads(json.dumps(plan.to_dict()))
    assert found["windows"] == plan.windows
    assert found["memory"]["total"] == plan.memory.total == sum(v for k, v in found["memory"].items() if k != "total")
    assert found["seconds"] is None
    unknown = yearly_dataset(SHAPE).icemap.predict(MODEL, dry_run=True)
    assert unknown.flops is None
    assert "not known" in str(unknown)


def test_time_comes_from_a_rate_and_says_which() -> None:
    counter = Costed(MODEL)
    plan = yearly_dataset(SHAPE).icemap.predict(counter, tta="dihedral", dry_run=True, batch_size=5)
    given = plan.timed(100)
    assert given.seconds == plan.windows * 8 / 100
    assert "given" in str(given)
    measured = plan.timed()
    assert measured.rate is not None
    assert measured.rate > 0
    assert measured.rate_source == "measured here"
    assert set(counter.batches) == {5}
    assert len(counter.batches) >= 3
    with pytest.raises(InputError, match="rate=0"):
        plan.timed(0)
    with pytest.raises(InputError, match="rate="):
        replace(plan, _model=None).timed()


def test_the_command_line_prints_the_plan(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(console, "OUT", Console(file=out, width=200))
    monkeypatch.setattr("icemap_xr.models.load_model", lambda name: STORED, raising=False)
    plan = open_cube(path).icemap.predict(STORED, dry_run=True).timed(50)
    done = CliRunner().invoke(command, [str(path), "--model", "any", "--dry-run", "--rate", "50"])
    assert done.exit_code == 0, done.output
    assert str(plan) in out.getvalue()
    refused = CliRunner().invoke(command, [str(path), "--model", "any"])
    assert refused.exit_code == 2
    assert "--output" in refused.output


# --- memory


@pytest.mark.parametrize(
    ("parts", "machine", "match"),
    [
        (PARTS, Machine(1, 1, 400, "test"), r"batch_size=3 or less \(now 8\)"),
        (PARTS, Machine(1, 1, 140, "test"), "no option helps"),
        (replace(PARTS, rows=2000), Machine(1, 4, 1000, "test"), "fewer threads.*now 4"),
        (replace(PARTS, rows=2000), Machine(1, 1, 1000, "test"), r"smaller window= \(now 16\)"),
        (replace(PARTS, data=2000), Machine(1, 1, 1000, "test"), "open_cube"),
    ],
)
def test_a_refusal_names_what_to_change(parts: Memory, machine: Machine, match: str) -> None:
    import re

    text = parts.refusal(machine, batch_size=8, window=16)
    assert text is not None
    assert re.search(match, text)


def test_what_fits_is_not_refused() -> None:
    assert PARTS.refusal(Machine(1, 1, PARTS.total, "test"), batch_size=8, window=16) is None
    assert PARTS.refusal(Machine(1, 1, None, "test"), batch_size=8, window=16) is None
    smaller = replace(PARTS, computing=150, batches=38)  # batch_size=3 of 8, rounded up
    assert smaller.refusal(Machine(1, 1, 400, "test"), batch_size=3, window=16) is None


def test_a_prediction_over_the_limit_is_refused_before_it_runs() -> None:
    ds, counter = yearly_dataset(SHAPE), Costed(MODEL)
    needed = ds.icemap.predict(counter, dry_run=True, batch_size=400).memory.total
    assert ds.icemap.predict(counter, batch_size=400, memory_limit=needed).sizes["y"] == SHAPE[0]
    counter.batches.clear()
    with pytest.raises(InputError, match=r"limit is .*memory_limit=.*batch_size=\d+ or less"):
        ds.icemap.predict(counter, batch_size=400, memory_limit=needed - 1)
    assert counter.batches == []
    plan = ds.icemap.predict(counter, batch_size=400, memory_limit=needed - 1, dry_run=True)
    assert "does not fit" in str(plan)


@pytest.mark.parametrize("bad", ["much", -1, 0, "0 GB"])
def test_limits_that_are_none_are_refused(bad: Any) -> None:
    with pytest.raises(InputError, match="memory_limit="):
        yearly_dataset(SHAPE).icemap.predict(MODEL, memory_limit=bad)


def test_memory_does_not_grow_with_the_region() -> None:
    def rows(side: int) -> Plan:
        ds = yearly_dataset((side, side)).chunk()
        plan: Plan = ds.icemap.predict(MODEL, dry_run=True)
        return plan

    small, large = rows(80), rows(160)
    assert large.windows > 3 * small.windows
    assert large.memory == small.memory


def test_limits_and_threads_are_those_of_the_cluster(path: Path) -> None:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=3, processes=False, memory_limit="1GiB", dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster),
    ):
        plan = open_cube(path).icemap.predict(STORED, dry_run=True)
        assert plan.machine == Machine(1, 3, 2**30, "the Dask worker's limit")
        assert open_cube(path).icemap.predict(STORED, dry_run=True, memory_limit=5 * 2**30).machine.limit == 5 * 2**30
        with pytest.raises(InputError, match="Dask worker"):
            open_cube(path).icemap.predict(STORED, batch_size=1_000_000)


CHILD = """
import sys
import dask
import icemap_xr as ix
from icemap_xr.testing.fakes import FakePredictor
from pathlib import Path

cube, window, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with dask.config.set(num_workers=threads):
    ds = ix.open_cube(cube)
    model = FakePredictor(window, 6, ("rtc", "insar"))
    plan = ds.icemap.predict(model, dry_run=True)
    ds.icemap.predict(model).icemap.to_zarr(sys.argv[4])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(plan.memory.total, int(peak.split()[1]) * 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see a process's peak memory")
@pytest.mark.parametrize(("window", "threads"), [(128, 1), (256, 3)])
def test_a_process_takes_what_was_predicted(tmp_path: Path, window: int, threads: int) -> None:
    """Measured is at most predicted, and predicted at most 1.5 times measured."""
    side = 1100
    rng = np.random.default_rng(0)
    items = []
    for month in range(1, 7):
        raster = write_raster(tmp_path / f"rtc{month}.tif", rng.lognormal(-3, 1, (side, side)))
        items.append(rtc_item(raster, f"2020-{month:02d}-01"))
        pair = write_raster(tmp_path / f"pair{month}.tif", rng.random((side, side)))
        items.append(pair_item(pair, f"2020-{month:02d}-01", f"2020-{month:02d}-13"))
    build_cube(pystac.ItemCollection(items), small_grid((side, side)), tmp_path / "cube.zarr", steps=6)
    child = [sys.executable, "-c", CHILD, tmp_path / "cube.zarr", str(window), str(threads), tmp_path / "maps.zarr"]
    done = subprocess.run(child, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    predicted, measured = map(int, done.stdout.split())
    assert measured <= predicted <= 1.5 * measured


def test_years_of_the_index_are_told_apart(path: Path) -> None:
    cube = open_cube(path)
    both = cube.icemap.predict(STORED, dry_run=True)
    one = cube.icemap.predict(STORED, dry_run=True, years=[2020])
    assert both.read_bytes == 2 * one.read_bytes
    repeated = cube.assign({schema.feature("rtc").index: cube.rtc_index * 0})
    assert repeated.icemap.predict(STORED, dry_run=True).read_bytes < both.read_bytes
