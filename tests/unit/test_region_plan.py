"""Plans of regions: sums by hand, what scales with what, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyogrio
import pytest

from icemap_xr.errors import InputError
from icemap_xr.quotas import BYTES_PER_PIXEL
from icemap_xr.region_plan import RGI_KM2, Rates, plan_regions
from icemap_xr.run_plan import window_flops
from icemap_xr.testing.commands import Result


def test_areas_add_up_to_the_inventory() -> None:
    assert sum(RGI_KM2.values()) == 706_744
    assert [name[:2] for name in RGI_KM2] == [f"{number:02d}" for number in range(1, 20)]


def test_svalbard_is_the_sum_of_its_inventoried_glaciers(data: Path) -> None:
    table = pyogrio.read_dataframe(data / "svalbard" / "rgi7_svalbard_attributes.dbf", read_geometry=False)
    assert RGI_KM2["07 Svalbard and Jan Mayen"] == round(table["area_km2"].sum())


def test_svalbard_by_hand() -> None:
    (one,) = plan_regions(["svalbard"], years=9, rates=Rates(gflops=5000, gpus=4), provider="copernicus-dataspace")
    pixels = 33_959 * 2 * 1e6 / 100
    scenes = round(9 * 365.25 / 12)
    assert one.plan.scenes == {"grd": scenes, "insar": scenes - 1}
    # 67,918 km2 fill one slice of 42,500 km2 and a part of another one
    assert (scenes, one.passes, one.scenes) == (274, 547, 2 * 547)
    # of each block of 512 px nine internal tiles of 256 px are read, where four would hold it
    read = pixels * BYTES_PER_PIXEL * 9 / 4
    assert one.plan.transfer_bytes == pytest.approx((2 * scenes - 1) * read, rel=0.01)
    assert one.storage_tb == pytest.approx(((2 * scenes - 1) * 2 + 9 * 4) * pixels / 1e12, rel=1e-3)
    # of 17 windows along a block of 16 strides one belongs to the block before it, too
    windows = pixels / 192**2 * 9 * (17 / 16) ** 2
    assert one.gpu_hours == pytest.approx(windows * window_flops(15, 2) / 5e12 / 3600, rel=0.02)
    reading = one.plan.transfer_bytes / (4 * 20e6) / 3600
    assert one.wall_hours == pytest.approx(max(reading, one.gpu_hours / 4))


def test_the_globe_is_the_sum_of_its_regions() -> None:
    *parts, globe = plan_regions(years=2)
    assert globe.name == "the globe"
    assert len(parts) == 19
    assert globe.plan.transfer_bytes == pytest.approx(sum(one.plan.transfer_bytes for one in parts), rel=1e-2)
    assert globe.gpu_hours == pytest.approx(sum(one.gpu_hours for one in parts), rel=0.03)
    assert globe.wall_hours is None
    # 61 dates of scenes and 60 of pairs, times slices of 42,500 km2 by region:
    # 173,416 29,042 210,740 81,076 180,964 22,120 67,918 5,896 103,190 5,286 4,248 2,814 100,688 66,150 32,098 3,858
    # 55,348 1,772 266,864 km2
    slices = [5, 1, 5, 2, 5, 1, 2, 1, 3, 1, 1, 1, 3, 2, 1, 1, 2, 1, 7]
    assert [one.scenes for one in parts] == [121 * number for number in slices]
    assert globe.scenes == 121 * 45


def test_a_rate_of_reading_makes_wall_time_known_and_a_quota_comes_first() -> None:
    own = Rates(gflops=1e6, connections=8, mb_per_s=50)
    (one,) = plan_regions(["18"], years=1, rates=own)
    # 1,772 km2 at 10 m are 9 x 9 blocks; 30 dates of scenes and 29 of pairs, at 400 MB/s
    assert one.wall_hours == pytest.approx(59 * 81 * 9 * 256**2 * BYTES_PER_PIXEL / 400e6 / 3600)
    (bound,) = plan_regions(["18"], years=1, rates=own, provider="copernicus-dataspace")
    assert bound.wall_hours == pytest.approx(one.wall_hours * 400 / 80)
    (single,) = plan_regions(["18"], years=1, rates=Rates(gflops=1e6, mb_per_s=50))
    assert single.wall_hours == pytest.approx(one.wall_hours * 8)


def test_what_doubles() -> None:
    (one,) = plan_regions(["11"], years=1)
    (more,) = plan_regions(["11"], years=1, rates=Rates(tracks=2))
    assert more.plan.transfer_bytes == pytest.approx(2 * one.plan.transfer_bytes)
    assert more.plan.flops == pytest.approx(2 * one.plan.flops)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"regions": ["atlantis"]}, "'atlantis' names 0 of the regions"),
        ({"regions": ["south"]}, "'south' names 4 of the regions"),
        ({"years": 0}, "years=0"),
        ({"provider": "nobody"}, "unknown provider 'nobody'"),
    ],
)
def test_what_is_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        plan_regions(**({"years": 1} | options))


@pytest.mark.parametrize(
    "rates",
    [
        {"gflops": 0},
        {"gflops": float("nan")},
        {"gpus": 0},
        {"gpus": 1.5},
        {"ground": 0.5},
        {"ground": float("inf")},
        {"ground": float("nan")},
        {"tracks": 0},
        {"tracks": 176},
        {"steps": True},
        {"overlap": 1},
        {"connections": 0},
        {"mb_per_s": float("inf")},
        {"mb_per_s": 0},
    ],
)
def test_rates_that_are_none(rates: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="not allowed"):
        Rates(**rates)


def test_the_command_prints_numbers_and_assumptions(icemap: Callable[..., Result]) -> None:
    done = icemap("plan", "svalbard", "--years", "2016-2024", "--provider", "copernicus-dataspace")
    assert done.code == 0, done.err
    assert "07 Svalbard" in done.out
    assert "67,9" in done.out
    assert "2 times the glacier area of RGI 7.0" in done.out
    assert "1,094" in done.out
    endless = icemap("plan", "svalbard", "--years", "2020", "--ground", "inf")
    assert endless.code == 1
    assert "ground=inf is not allowed" in endless.err
    refused = icemap("plan", "atlantis", "--years", "2020")
    assert refused.code == 1
    assert "names 0 of the regions" in refused.err
