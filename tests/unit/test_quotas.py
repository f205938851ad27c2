"""Quotas: how long a slot is kept, and which quotas are refused."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from icemap_xr import quotas
from icemap_xr.errors import ConfigError
from icemap_xr.providers import Quotas, known_providers, parse_provider
from icemap_xr.quotas import BYTES_PER_PIXEL, OPENING, Limits, Slot
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import write_raster


def test_a_slot_is_kept_for_its_part_of_the_requests() -> None:
    # 512 px touch at most 3 x 3 internal tiles of 256 px
    limits = Limits("a", connections=4, requests_per_min=600)
    assert limits.seconds((512, 512)) == pytest.approx((OPENING + 9) * 4 * 60 / 600)
    assert limits.seconds((512, 512), rasters=2) == pytest.approx(2 * limits.seconds((512, 512)))


def test_a_slot_is_kept_for_its_bytes() -> None:
    limits = Limits("a", connections=4, mb_per_s=20)
    assert limits.seconds((512, 512)) == pytest.approx(9 * 256 * 256 * BYTES_PER_PIXEL / 20e6)
    both = Limits("a", connections=4, requests_per_min=600, mb_per_s=20)
    assert both.seconds((512, 512)) == max(limits.seconds((512, 512)), (OPENING + 9) * 4 * 60 / 600)
    assert Limits("a", connections=4).seconds((512, 512)) == 0


@pytest.mark.parametrize(
    ("resolution", "levels", "expected"),
    [
        (10.0, [], (64, 64)),
        # 64 px of 40 m are 256 px of 10 m
        (40.0, [], (256, 256)),
        (40.0, [2], (128, 128)),
        (40.0, [2, 4, 8], (64, 64)),
        # no more than there is
        (160.0, [], (512, 512)),
        # each pixel of the grid may be asked for by itself
        (5.0, [], (64, 64)),
    ],
)
def test_a_slot_sees_how_much_of_a_raster_a_block_takes(
    resolution: float, levels: list[int], expected: tuple[int, int], tmp_path: Path
) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((512, 512)))
    if levels:
        with rasterio.open(path, "r+") as target:
            target.build_overviews(levels)
    slot = Slot((64, 64))
    with rasterio.open(path) as source:
        slot.see(source, small_grid((64, 64), resolution=resolution).geobox)
    assert slot.shape == expected


def test_a_block_in_another_projection_is_bounded(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((512, 512)), grid=small_grid((512, 512), crs="EPSG:32632"))
    slot = Slot((64, 64))
    with rasterio.open(path) as source:
        slot.see(source, small_grid((64, 64), resolution=40.0).geobox)
    # turned by 6 degrees x sin(78 N), and stretched a little
    assert 256 < slot.shape[0] < 320
    assert 256 < slot.shape[1] < 320


def test_no_more_than_the_connections_are_in_a_slot_and_a_fault_gives_it_back() -> None:
    limits, inside, most = Limits("test", connections=2), 0, 0
    lock = threading.Lock()

    def work(number: int) -> None:
        nonlocal inside, most
        try:
            with limits.slot((1, 1)):
                with lock:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.01)
                with lock:
                    inside -= 1
                if number % 3 == 0:
                    raise OSError("gone")
        except OSError:
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert (inside, most) == (0, 2)


@pytest.mark.parametrize(
    ("quotas", "match"),
    [
        ({"connections": 0}, "quotas.connections=0 allows nothing"),
        ({"connections": 4, "mb_per_s": 0}, "quotas.mb_per_s=0.* allows nothing"),
        ({"connections": 4, "requests_per_min": -1}, "quotas.requests_per_min=-1.* allows nothing"),
        ({"mb_per_s": 20}, "need quotas.connections"),
    ],
)
def test_quotas_of_nothing_are_refused(quotas: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Quotas(**quotas)
    with pytest.raises(ConfigError, match=match):
        parse_provider({"name": "a", "title": "a", "url": None, "sources": [], "quotas": quotas}, "a.yaml")


def test_the_recorded_quotas_become_limits() -> None:
    one = known_providers()["copernicus-dataspace"]
    assert one.quotas.limits(one.name) == Limits("copernicus-dataspace", 4, None, 20)


def test_windows_of_a_raster_in_strips_count_as_whole_strips(tmp_path: Path) -> None:
    path = tmp_path / "strips.tif"
    shape = {"height": 300, "width": 1000, "count": 1, "dtype": "uint16", "blockysize": 1, "tiled": False}
    with rasterio.open(path, "w", driver="GTiff", transform=rasterio.Affine(10, 0, 0, 0, -10, 0), **shape) as target:
        target.write(np.ones((1, 300, 1000), np.uint16))
    slot = Slot((1, 1))
    with rasterio.open(path) as source:
        assert source.block_shapes == [(1, 1000)]
        slot.take_window(source, slice(10, 110), slice(500, 510))
        assert slot.taken == 100 * 1000 * 2
        slot.take_window(source, slice(0, 300), slice(0, 1000))
    assert slot.taken == 400 * 1000 * 2
    # 800 kB, in tiles of 256 px with the bytes of a compressed pixel
    assert slot.tiles == 5


def test_what_was_taken_beside_a_block_keeps_its_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(quotas.time, "sleep", slept.append)
    limits = Limits("strips", connections=1, mb_per_s=1)
    with limits.slot((1, 1)) as slot:
        slot.take(10_000_000)
    assert slept[0] == pytest.approx(10 + limits.seconds((1, 1)), abs=0.5)


def test_a_request_of_a_catalogue_has_a_slot_for_its_part_of_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(quotas.time, "sleep", slept.append)
    with Limits("calls", connections=2, requests_per_min=60).call():
        pass
    assert slept[0] == pytest.approx(2.0, abs=0.1)
    with Limits("calls").call():
        pass
    assert len(slept) == 1
