"""One acquisition counts once, and two never count as one."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest

from icemap_xr.catalog import search
from icemap_xr.duplicates import unique
from icemap_xr.errors import InputError
from icemap_xr.providers import load_provider
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SOURCES = load_provider("local").sources


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "a.tif", np.full((8, 9), 0.1))


def left(*items: pystac.Item) -> list[str]:
    return sorted(item.id for item in unique(items, SOURCES)[0])


def test_passes_whose_orbit_nobody_tells_are_all_found(tmp_path: Path) -> None:
    """Products of a folder whose description is gone; an item made here has its time in no property."""
    for month in (1, 2, 3):
        name = f"S1A_IW_2020{month:02d}05T055038_DVP_RTC30_G_gpuned_AB{month}D_VV.tif"
        write_raster(tmp_path / name, np.full((8, 9), 0.1))
    found = search(tmp_path, (14.9, 78.0, 15.1, 79.0), 2020)
    assert len(found) == 3
    assert found.extra_fields["icemap:search"]["dropped"] == []


def test_a_start_that_is_rounded_over_the_second_is_the_same_start(raster: Path) -> None:
    old = rtc_item(raster, "2020-05-01T06:00:00", orbit=100, name="X_20200501T060000Z_20200601T060000Z_S1A")
    new = rtc_item(raster, "2020-05-01T06:00:00", orbit=100, name="X_20200501T055959Z_20230601T060000Z_S1A")
    new.datetime = datetime(2020, 5, 1, 5, 59, 59, 900_000, tzinfo=UTC)
    assert left(old, new) == [new.id]
    new.datetime = datetime(2020, 5, 1, 5, 59, 59, tzinfo=UTC)
    assert left(old, new) == sorted([old.id, new.id])


def test_one_catalogue_that_does_not_tell_polarisations_is_no_second_acquisition(raster: Path) -> None:
    one, other = (rtc_item(raster, "2020-05-01T06:00:00", orbit=100, name=name) for name in "ab")
    for told, kept in ((["HH", "HV"], 1), ([], 1), (["VV"], 2)):
        other.properties["sar:polarizations"] = told
        assert len(left(one, other)) == kept


def test_pairs_of_the_same_days_of_two_orbits_are_two(raster: Path, tmp_path: Path) -> None:
    again = write_raster(tmp_path / "b.tif", np.full((8, 9), 0.1))
    items = [pair_item(path, "2020-05-01", "2020-05-13", track=track) for path, track in ((raster, 14), (again, 174))]
    assert left(*items) == ["a", "b"]
    items[1].properties["sat:relative_orbit"] = 14
    assert left(*items) == ["b"]
    del items[1].properties["sat:relative_orbit"]
    with pytest.raises(InputError, match=r"'b' and 'a' are of the same dates and place.*sat:relative_orbit"):
        left(*items)
