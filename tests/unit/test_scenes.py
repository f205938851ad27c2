"""Items become scenes: one pass of one satellite each, and one uniform series per feature."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from icemap_xr.errors import AssetMissingError, InputError
from icemap_xr.providers import Source, load_provider
from icemap_xr.scenes import Scene, one_orbit, scenes_from_items, single_scenes
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SOURCES = load_provider("local").sources


@pytest.fixture
def raster(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "a.tif", np.ones((4, 4)))


def scenes(items: list[pystac.Item], feature: str = "rtc", **options: Any) -> tuple[Scene, ...]:
    return scenes_from_items(items, SOURCES, feature, **options)


def test_two_satellites_are_never_one_scene(raster: Path) -> None:
    items = [
        rtc_item(raster, "2020-05-01T06:00:00", platform=f"sentinel-1{unit}", orbit=orbit, name=unit)
        for unit, orbit in (("a", 100), ("b", 100))
    ]
    assert [scene.platform for scene in scenes(items)] == ["sentinel-1a", "sentinel-1b"]
    for item in items:
        del item.properties["sat:absolute_orbit"]
    assert len(scenes(items)) == 2


def test_slices_of_one_orbit_are_one_scene_at_the_time_of_the_first(raster: Path) -> None:
    items = [rtc_item(raster, f"2020-05-01T06:00:{s:02d}", orbit=100, name=f"slice{s}") for s in (50, 0, 25)]
    (scene,) = scenes(items)
    assert scene.item_ids == "slice0 slice25 slice50"
    assert scene.time == np.datetime64("2020-05-01T06:00:00")
    assert scene.baseline_days == 0


def test_slices_across_midnight_are_one_scene(raster: Path) -> None:
    days = ("2020-05-01T23:59:50", "2020-05-02T00:00:15")
    for orbit in (100, None):
        items = [rtc_item(raster, day, orbit=orbit, name=str(i)) for i, day in enumerate(days)]
        assert len(scenes(items)) == 1


def test_passes_are_kept_apart(raster: Path) -> None:
    repeat = [rtc_item(raster, f"2020-05-{d:02d}", orbit=100 + d, name=str(d)) for d in (1, 13, 25)]
    assert len(scenes(repeat)) == 3
    without_orbit = [rtc_item(raster, f"2020-05-01T0{h}:00:00", name=str(h)) for h in (1, 3)]
    assert len(scenes(without_orbit)) == 2


def test_unknown_orbits_may_be_null(raster: Path) -> None:
    item = rtc_item(raster, "2020-05-01")
    item.properties |= {"sat:absolute_orbit": None, "sat:relative_orbit": None}
    (scene,) = scenes([item])
    assert (scene.absolute_orbit, scene.relative_orbit) == (-1, -1)


def test_order_of_items_does_not_matter_and_other_collections_are_passed_over(raster: Path) -> None:
    items = [rtc_item(raster, f"2020-0{m}-01", orbit=m * 175, name=str(m)) for m in (1, 2, 3)]
    other = rtc_item(raster, "2020-01-15", collection="other", name="x")
    assert scenes([other, *items[::-1]]) == scenes(items)
    assert scenes([other]) == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"track": 88}, r"relative orbits 14, 88.*relative_orbit="),
        ({"state": "ascending"}, r"directions ascending, descending.*orbit_state="),
    ],
)
def test_mixed_series_are_refused(raster: Path, change: dict[str, Any], match: str) -> None:
    items = [rtc_item(raster, "2020-05-01", name="a"), rtc_item(raster, "2020-05-05", name="b", **change)]
    with pytest.raises(InputError, match=match):
        scenes(items)


def test_baselines_are_refused_when_mixed_and_can_be_chosen(raster: Path, tmp_path: Path) -> None:
    pairs = []
    for first, second in (("2020-05-01", "2020-05-13"), ("2020-05-13", "2020-05-25"), ("2020-05-01", "2020-05-25")):
        path = write_raster(tmp_path / f"{first}_{second}.tif", np.ones((4, 4)))
        pairs.append(pair_item(path, first, second))
    with pytest.raises(InputError, match=r"baselines \(days\) 12\.0, 24\.0.*baseline_days="):
        scenes(pairs, "insar")
    chosen = scenes(pairs, "insar", baseline_days=12)
    assert [scene.baseline_days for scene in chosen] == [12, 12]
    assert chosen[0].time == np.datetime64("2020-05-07")
    assert (chosen[0].reference_time, chosen[0].secondary_time) == (
        np.datetime64("2020-05-01"),
        np.datetime64("2020-05-13"),
    )
    with pytest.raises(InputError, match="6 days"):
        scenes(pairs, "insar", baseline_days=6)


def test_a_pair_without_its_dates_or_a_scene_without_a_time_is_refused(raster: Path) -> None:
    pair = pair_item(raster, "2020-05-01", "2020-05-13")
    for name in [name for name in pair.properties if "datetime" in name]:
        del pair.properties[name]
    with pytest.raises(InputError, match="two dates of its pair"):
        scenes([pair], "insar")
    single = rtc_item(raster, "2020-05-01")
    single.datetime = None
    with pytest.raises(InputError, match="neither datetime nor start_datetime"):
        scenes([single])
    single.properties["start_datetime"] = "2020-05-01T02:00:00+02:00"
    assert scenes([single])[0].time == np.datetime64("2020-05-01")


def test_the_polarisation_is_the_first_that_all_have(raster: Path) -> None:
    items = [rtc_item(raster, f"2020-0{i}-01", polarisation="VV", name=str(i)) for i in (1, 2)]
    items[0].assets["HH"] = items[0].assets["VV"].clone()
    del items[0].properties["sar:polarizations"]
    assert scenes(items)[0].polarisation == "VV"
    assert [scene.asset for scene in scenes(items[:1])] == ["HH"]
    with pytest.raises(AssetMissingError, match=r"item '2' has no asset 'HH'.*it has VV"):
        scenes(items, polarisation="HH")
    mixed = [items[1], rtc_item(raster, "2020-03-01", polarisation="VH", name="3")]
    with pytest.raises(InputError, match=r"no polarisation is in every item.*VH, VV"):
        scenes(mixed)


def test_an_item_without_the_asset_is_named(raster: Path) -> None:
    item = rtc_item(raster, "2020-05-01", name="S1A_x")
    item.assets = {"thumbnail": item.assets["HH"]}
    with pytest.raises(AssetMissingError, match=r"'S1A_x'.*HH, VV, HV, VH.*it has thumbnail"):
        scenes([item])


def test_radiometries_are_not_mixed(raster: Path) -> None:
    sources = [Source("rtc", name, {"HH": "HH"}, "power", name) for name in ("gamma0", "sigma0")]
    items = [rtc_item(raster, f"2020-0{i}-01", collection=s.collection, name=str(i)) for i, s in enumerate(sources, 1)]
    with pytest.raises(InputError, match="radiometries gamma0, sigma0"):
        scenes_from_items(items, sources, "rtc")


def test_features_of_two_orbits_make_no_cube(raster: Path, tmp_path: Path) -> None:
    """Each series is of one orbit, and so is the cube."""
    rtc = scenes_from_items([rtc_item(raster, "2020-05-01", orbit=100)], SOURCES, "rtc")
    pairs = {
        track: scenes_from_items([pair_item(raster, "2020-05-01", "2020-05-13", track=track)], SOURCES, "insar")
        for track in (None, 14, 174)
    }
    assert one_orbit({"rtc": rtc, "insar": pairs[None]}) == (14, "descending")
    assert one_orbit({"insar": pairs[None]}) == (-1, "")
    assert one_orbit({"insar": pairs[14], "rtc": rtc}) == (14, "descending")
    with pytest.raises(InputError, match=r"several relative orbits \(rtc 14, insar 174\)"):
        one_orbit({"rtc": rtc, "insar": pairs[174]})


def test_slices_of_one_pass_come_in_one_form(raster: Path) -> None:
    """Only the first says how a scene is read: the amplitude of the other would be taken for power."""
    power, amplitude = (f"hyp3-rtc-gamma0-{form}" for form in ("power", "amplitude"))
    one = rtc_item(raster, "2020-05-01T06:00:00", orbit=100, collection=power, name="one")
    other = rtc_item(raster, "2020-05-01T06:00:25", orbit=100, collection=amplitude, name="other")
    with pytest.raises(
        InputError, match=r"'one' and 'other' are of one pass and differ in values \(power, amplitude\)"
    ):
        scenes([one, other])
    other = rtc_item(raster, "2020-05-01T06:00:25", orbit=100, collection="hyp3-rtc-sigma0-power", name="other")
    with pytest.raises(InputError, match="radiometries gamma0, sigma0"):
        scenes([one, other])


def test_an_orbit_that_sees_a_place_twice_is_not_one_scene(raster: Path) -> None:
    """Near 80 N on its way up and, half an hour later, on its way down."""
    items = [
        rtc_item(raster, f"2020-05-01T06:{minute}:00", orbit=100, state=state, name=state)
        for minute, state in (("00", "ascending"), ("25", "descending"))
    ]
    with pytest.raises(InputError, match="directions ascending, descending"):
        scenes(items)
    assert [one.orbit_state for one in single_scenes(items, SOURCES, "rtc")] == ["ascending", "descending"]


def test_a_polarisation_that_nothing_tells_is_not_made_up(raster: Path, tmp_path: Path) -> None:
    unknown = pair_item(raster, "2020-05-01", "2020-05-13")
    assert [one.polarisation for one in scenes([unknown], "insar")] == [""]
    assert [one.polarisation for one in scenes([unknown], "insar", polarisation="VV")] == ["VV"]
    told = pair_item(write_raster(tmp_path / "b.tif", np.ones((4, 4))), "2020-05-13", "2020-05-25")
    told.properties["sar:polarizations"] = ["VH"]
    with pytest.raises(InputError, match=r"no polarisation is in every item .found VH, unknown"):
        scenes([unknown, told], "insar")
    # one asset stands for all polarisations, and this one is of another
    with pytest.raises(AssetMissingError, match="item 'b' is of VH, not VV"):
        scenes([unknown, told], "insar", polarisation="VV")


def test_products_of_two_makers_are_not_one_series(raster: Path) -> None:
    items = [
        rtc_item(raster, "2020-05-01", orbit=100, name="opera"),
        rtc_item(raster, "2020-05-13", orbit=275, collection="hyp3-rtc-gamma0-power", name="hyp3"),
    ]
    items[1].properties["icemap:processing"] = "HyP3 RTC30, no speckle filter"
    with pytest.raises(InputError, match="mixes products processed as HyP3 RTC30, no speckle filter, something else"):
        scenes(items)
