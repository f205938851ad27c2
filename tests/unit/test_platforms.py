"""Offsets between satellites: found over stable ground alone, told with their error, taken away only when asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import xarray as xr
from shapely.geometry import box

import icemap_xr as ix
from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.platforms import harmonise, platform_offsets
from icemap_xr.storearray import untouched
from icemap_xr.testing.commands import Result
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster

SHAPE = (30, 40)
GRID = small_grid(SHAPE)
#: dB that each satellite adds
TRUE = {"sentinel-1a": 0.0, "sentinel-1b": 0.35, "sentinel-1c": -0.2}
BOUNDS = GRID.geobox.boundingbox
ROCK = box(BOUNDS.left, BOUNDS.bottom, BOUNDS.left + 150, BOUNDS.top)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> xr.Dataset:
    """A year in which A and B take turns every six days, and three scenes of C long after; ice beside the rock."""
    folder, rng, items = tmp_path_factory.mktemp("cube"), np.random.default_rng(3), []
    texture = rng.normal(-12, 2, SHAPE)
    days = [(6 * n, "sentinel-1b" if n % 2 else "sentinel-1a") for n in range(30)]
    days += [(900 + 6 * n, "sentinel-1c") for n in range(3)]
    for number, (day, platform) in enumerate(days):
        # the same wet or dry ground for both, and something else on the ice
        level = texture + 1.5 * np.sin(day / 40) + rng.normal(0, 0.8, SHAPE) + TRUE[platform]
        level[:, 15:] += 6 if platform == "sentinel-1b" else 0
        level[:3] = np.nan
        path = write_raster(folder / f"{number}.tif", 10 ** (level / 10))
        when = str(np.datetime64("2020-01-05") + day)
        items.append(rtc_item(path, when, platform=platform, orbit=100 + number))
    return ix.build_cube(pystac.ItemCollection(items), GRID, folder / "cube.zarr", steps=5)


def rock() -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame(geometry=[ROCK], crs=GRID.crs)


def test_offsets_over_stable_ground_are_found_with_their_error(cube: xr.Dataset) -> None:
    b, c = platform_offsets(cube, rock())
    assert (b.feature, b.platform, b.reference, b.scenes, b.pairs) == ("rtc", "sentinel-1b", "sentinel-1a", 15, 15)
    assert b.offset_db == pytest.approx(0.35, abs=4 * b.standard_error_db)
    assert 0.001 < b.standard_error_db < 0.05
    # over the ice it would be another number
    ice = gpd.GeoDataFrame(geometry=[box(*BOUNDS.bbox).difference(ROCK)], crs=GRID.crs)
    assert platform_offsets(cube, ice)[0].offset_db > 6
    # no scene of the reference is near
    assert (c.platform, c.pairs, c.scenes) == ("sentinel-1c", 0, 3)
    assert np.isnan(c.offset_db)


def test_another_reference_turns_the_sign_around(cube: xr.Dataset) -> None:
    a = platform_offsets(cube, rock(), reference="sentinel-1b")[0]
    assert (a.platform, a.reference) == ("sentinel-1a", "sentinel-1b")
    assert a.offset_db == pytest.approx(-platform_offsets(cube, rock())[0].offset_db, abs=0.02)


def test_a_harmonised_cube_has_no_offset_left_and_the_stored_one_is_untouched(cube: xr.Dataset) -> None:
    before = cube.rtc.values.copy()
    measured, unknown = platform_offsets(cube, rock())
    # known from elsewhere, say
    offsets = [measured, replace(unknown, offset_db=TRUE["sentinel-1c"])]
    even = harmonise(cube, offsets)
    assert platform_offsets(even, rock())[0].offset_db == pytest.approx(0, abs=1e-5)
    assert even.rtc.dtype == np.float32
    assert even.rtc.chunks is not None
    platforms = cube.rtc_platform.values.astype(object)
    for platform, offset in (("sentinel-1a", 0.0), ("sentinel-1b", measured.offset_db), ("sentinel-1c", -0.2)):
        expected = before[platforms == platform] - np.float32(offset)
        np.testing.assert_allclose(even.rtc.values[platforms == platform], expected, rtol=1e-6)
    assert set(even.rtc.attrs["platform_offsets_db"]) == set(TRUE)
    assert len(schema.validate_cube(even)) == 1
    assert even.icemap.yearly(gaps="nearest").rtc.sizes["step"] == 5
    assert "platform_offsets_db" not in cube.rtc.attrs
    np.testing.assert_array_equal(cube.rtc.values, before)


def test_an_offset_that_is_not_known_is_not_guessed(cube: xr.Dataset) -> None:
    with pytest.raises(InputError, match="offset of sentinel-1c is not known"):
        harmonise(cube, platform_offsets(cube, rock()))


def test_what_cannot_be_compared(cube: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no rtc scene is of sentinel-1d: its platforms are sentinel-1a"):
        platform_offsets(cube, rock(), reference="sentinel-1d")
    away = gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=GRID.crs)
    with pytest.raises(InputError, match="marks no pixel"):
        platform_offsets(cube, away)
    with pytest.raises(InputError, match="give a boolean"):
        platform_offsets(cube, xr.DataArray(np.ones((2, 2), bool), dims=("y", "x")))


def test_the_command_tells_the_offsets(cube: xr.Dataset, tmp_path: Path, icemap: Callable[..., Result]) -> None:
    rock().to_file(tmp_path / "rock.gpkg")
    source = untouched(cube.rtc.data)
    assert source is not None
    told = icemap("cube-info", source.path, "--stable", tmp_path / "rock.gpkg")
    assert told.code == 0, told
    assert "sentinel-1b minus sentinel-1a over stable ground: +0.3" in told.out
    assert "sentinel-1c minus sentinel-1a over stable ground: unknown, too few pairs" in told.out
