"""Rates measured for plans: of the network, and of reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio

from icemap_xr import measuring
from icemap_xr.access import Access
from icemap_xr.errors import AccessError, InputError, ReadError
from icemap_xr.models.cost import flops_per_window
from icemap_xr.models.icemapper import Architecture
from icemap_xr.quotas import BYTES_PER_PIXEL
from icemap_xr.testing.commands import Result
from icemap_xr.testing.rasters import write_raster


def test_operations_are_those_of_the_network_that_was_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def two_a_second(model: measuring.KerasPredictor, batch_size: int) -> float:
        seen.append((model.spec.steps, [one.name for one in model.spec.features], batch_size))
        return 2.0

    monkeypatch.setattr(measuring, "measured_rate", two_a_second)
    found = measuring.network_gflops(["rtc"], steps=3, window=16, batch_size=5)
    assert seen == [(3, ["rtc"], 5)]
    flops = flops_per_window(Architecture(steps=3, features=1, window=16))
    assert found == pytest.approx(2 * flops / 1e9)


def test_a_network_is_run() -> None:
    assert measuring.network_gflops(steps=2, window=16) > 0


def test_pixels_read_count_as_in_plans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((1100, 1100)))
    clock = iter(range(100))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(clock)))
    # nine blocks, one a second, and one more look at the clock
    found = measuring.reading_mb_per_s(str(path), seconds=50)
    assert found == pytest.approx(1100**2 * BYTES_PER_PIXEL / 10 / 1e6)


def test_reading_ends_with_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((2600, 1100)))
    clock = iter(range(100))
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: float(next(clock)))
    # of 2.9 million pixels a million are read in any case, each block in a second
    with rasterio.open(path) as source:
        sizes = np.cumsum([one.width * one.height for one in measuring._blocks(source)])
    blocks = int(np.argmax(sizes >= 2**20)) + 1
    assert 4 <= blocks < len(sizes)
    found = measuring.reading_mb_per_s(str(path), seconds=1.5)
    assert found == pytest.approx(sizes[blocks - 1] * BYTES_PER_PIXEL / (blocks + 1) / 1e6)


def test_blocks_are_read_in_any_order(tmp_path: Path) -> None:
    # the first rows of a tilted scene hold nothing
    with rasterio.open(write_raster(tmp_path / "a.tif", np.ones((4096, 4096)))) as source:
        places = [(one.row_off, one.col_off) for one in measuring._blocks(source)]
    assert len(set(places)) == 64
    assert max(row for row, _ in places[:8]) > 2048


def test_what_cannot_tell_a_rate_is_refused(tmp_path: Path) -> None:
    small = write_raster(tmp_path / "a.tif", np.ones((10, 10)))
    with pytest.raises(InputError, match=r"a\.tif has 100 pixels: give a raster of at least"):
        measuring.reading_mb_per_s(str(small))
    with pytest.raises(ReadError, match="cannot be read"):
        measuring.reading_mb_per_s(str(tmp_path / "none.tif"))
    with pytest.raises(AccessError, match="allowed are https"):
        measuring.reading_mb_per_s(str(small), Access(schemes=("https",)))


def test_the_command_plans_with_what_it_measured(
    icemap: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((1100, 1100)))
    monkeypatch.setattr(measuring, "network_gflops", lambda features, steps: 250.0 * len(features))
    monkeypatch.setattr(measuring, "device", lambda: "the processor, no GPU is seen")
    done = icemap("plan", "svalbard", "--years", 2020, "--measure", "--measure-read", path)
    assert done.code == 0, done.err
    assert "GPU: 500 GFLOP/s sustained (measured here on the processor, no GPU is seen)" in done.out
    assert "(measured here, one connection)" in done.out
    assert "not known" not in done.out.split("ground:")[0]
    both = icemap("plan", "svalbard", "--years", 2020, "--measure", "--gflops", 5)
    assert both.code == 2
    assert "a rate is given or measured" in both.err
