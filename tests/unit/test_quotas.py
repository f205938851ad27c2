"""Quotas: how long a slot is kept, and which quotas are refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
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


SIDE = 2048


def layout(folder: Path, block: int, *, levels: Sequence[int] = (), **how: Any) -> Path:
    """A raster of float32 in internal tiles, or in strips of one line where their side is 0."""
    path, grid = folder / "a.tif", small_grid((SIDE, SIDE))
    tiles = {"tiled": True, "blockxsize": block, "blockysize": block} if block else {"tiled": False, "blockysize": 1}
    frame = {"height": SIDE, "width": SIDE, "count": 1, "crs": grid.crs, "transform": grid.geobox.transform}
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", **frame, **tiles, **how) as target:
        target.write(np.ones((1, SIDE, SIDE), np.float32))
    if levels:
        with rasterio.open(path, "r+") as target, rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=str(block)):
            target.build_overviews(levels)
    return path


@pytest.mark.parametrize(
    ("resolution", "block", "levels", "blocks"),
    [
        # 64 px lie in two tiles of 256 px
        (10.0, 256, [], (2, 2)),
        (10.0, 64, [], (2, 2)),
        (10.0, 1024, [], (2, 2)),
        # 64 px of 80 m are 512 px of 10 m
        (80.0, 256, [], (3, 3)),
        (80.0, 256, [2], (2, 2)),
        # no more than there is
        (640.0, 256, [], (8, 8)),
        (320.0, 256, [2, 4, 8, 16, 32], (1, 1)),
        # each pixel of the grid may be asked for by itself
        (5.0, 256, [], (2, 2)),
    ],
)
def test_a_slot_sees_which_tiles_of_a_raster_a_block_takes(
    resolution: float, block: int, levels: list[int], blocks: tuple[int, int], tmp_path: Path
) -> None:
    slot = Slot()
    with rasterio.open(layout(tmp_path, block, levels=levels)) as source:
        slot.see(source, small_grid((64, 64), resolution=resolution).geobox)
    assert slot.size == blocks[0] * blocks[1] * block**2 * 4
    assert slot.requests == OPENING + blocks[0] * blocks[1]


def test_strips_are_read_whole_and_compressed_tiles_have_the_bytes_of_a_recorded_scene(tmp_path: Path) -> None:
    strips, packed = Slot(), Slot()
    with rasterio.open(layout(tmp_path, 0)) as source:
        strips.see(source, small_grid((64, 64)).geobox)
    assert strips.size == 65 * SIDE * 4
    with rasterio.open(layout(tmp_path, 512, compress="deflate")) as source:
        packed.see(source, small_grid((64, 64)).geobox)
    assert packed.size == pytest.approx(4 * 512**2 * BYTES_PER_PIXEL)


def test_a_block_in_another_projection_is_bounded(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "a.tif", np.ones((512, 512)), grid=small_grid((512, 512), crs="EPSG:32632"))
    slot = Slot()
    with rasterio.open(path) as source:
        down, across = source.block_shapes[0]
        pixel = 4 if source.compression is None else BYTES_PER_PIXEL
        slot.see(source, small_grid((64, 64), resolution=40.0).geobox)
    # turned by 6 degrees x sin(78 N), and stretched a little
    assert 256**2 * pixel < slot.size < (320 + 2 * down) * (320 + 2 * across) * pixel


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
    slot = Slot()
    with rasterio.open(layout(tmp_path, 0)) as source:
        assert source.block_shapes == [(1, SIDE)]
        slot.take_window(source, slice(10, 110), slice(500, 510))
        assert slot.size == 100 * SIDE * 4
        slot.take_window(source, slice(0, 300), slice(0, 1000))
    assert slot.size == 400 * SIDE * 4
    # 820 kB and 2.5 MB, in tiles of 256 px with the bytes of a compressed pixel
    assert slot.requests == 5 + 14


def test_what_was_taken_keeps_the_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(quotas.time, "sleep", slept.append)
    limits = Limits("strips", connections=1, mb_per_s=1)
    with limits.slot((1, 1)) as slot:
        slot.take(10_000_000)
    assert slept[0] == pytest.approx(10, abs=0.5)


def test_a_request_of_a_catalogue_has_a_slot_for_its_part_of_the_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(quotas.time, "sleep", slept.append)
    with Limits("calls", connections=2, requests_per_min=60).call():
        pass
    assert slept[0] == pytest.approx(2.0, abs=0.1)
    with Limits("calls").call():
        pass
    assert len(slept) == 1


def test_a_slot_of_which_nothing_was_learnt_is_kept_for_usual_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(quotas.time, "sleep", slept.append)
    limits = Limits("unknown", connections=1, mb_per_s=1)
    with limits.slot((512, 512), 2):
        pass
    assert slept[0] == pytest.approx(limits.seconds((512, 512), 2), abs=0.1)
