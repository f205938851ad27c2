"""Which scenes make up a year."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.errors import InputError, SchemaError
from icemap_xr.testing.fakes import small_grid, yearly_dataset
from icemap_xr.yearindex import fill_gaps, year_bounds, year_index, year_targets, yearly

DAY = np.timedelta64(1, "D")


def days(*numbers: int, year: int = 2020) -> Any:
    return np.datetime64(f"{year}-01-01", "ns") + np.array(sorted(numbers), "m8[D]")


def index(times: Any, usable: Any = None, years: Any = (2020,), **options: Any) -> list[list[int]]:
    usable = np.ones(len(times), bool) if usable is None else np.asarray(usable, bool)
    table = year_index(times, usable, years, **options)
    assert table.dtype == np.int32
    return [row.tolist() for row in table]


@given(numbers=st.sets(st.integers(0, 365), min_size=15, max_size=15))
def test_as_many_scenes_as_steps_are_each_taken_once_in_order(numbers: set[int]) -> None:
    assert index(days(*numbers)) == [list(range(15))]


@given(numbers=st.sets(st.integers(0, 365), min_size=1, max_size=60), steps=st.integers(1, 15))
def test_scenes_are_taken_at_most_once_and_in_order(numbers: set[int], steps: int) -> None:
    (row,) = index(days(*numbers), steps=steps)
    taken = [k for k in row if k >= 0]
    assert taken == sorted(set(taken))
    assert len(taken) == min(len(numbers), steps)


@settings(max_examples=50)
@given(numbers=st.sets(st.integers(0, 365), min_size=1, max_size=6), steps=st.integers(1, 5))
def test_the_summed_time_difference_is_the_least_possible(numbers: set[int], steps: int) -> None:
    times, targets = days(*numbers), year_targets(2020, steps)
    (row,) = index(times, steps=steps)
    cost = sum(abs(times[k] - targets[step]) / DAY for step, k in enumerate(row) if k >= 0)
    count = min(len(times), steps)
    best = min(
        sum(abs(times[k] - targets[part]) / DAY for k, part in zip(chosen, parts, strict=True))
        for chosen in combinations(range(len(times)), count)
        for parts in combinations(range(steps), count)
    )
    assert cost == pytest.approx(best)


def test_six_winter_scenes_of_fifteen_steps_leave_gaps_where_none_is_near() -> None:
    # steps are 24.4 days long
    (row,) = index(days(3, 27, 52, 300, 325, 350))
    assert row == [0, 1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, 3, 4, 5]


def test_a_year_without_a_scene_has_none() -> None:
    assert index(days(5, 100), years=(2019, 2020, 2021), steps=2) == [[-1, -1], [0, 1], [-1, -1]]


@settings(max_examples=60)
@given(
    numbers=st.sets(st.integers(0, 365), min_size=1, max_size=6),
    steps=st.integers(1, 4),
    tolerance=st.integers(0, 200),
)
def test_within_a_tolerance_as_many_steps_as_can_be_have_a_scene(numbers: set[int], steps: int, tolerance: int) -> None:
    times, targets = days(*numbers), year_targets(2020, steps)
    (row,) = index(times, steps=steps, tolerance_days=tolerance)
    far = [[abs(time - target) / DAY for target in targets] for time in times]
    found = [(k, step) for step, k in enumerate(row) if k >= 0]
    assert all(far[k][step] <= tolerance for k, step in found)
    choices = [
        sum(far[k][part] for k, part in zip(chosen, parts, strict=True))
        for chosen in combinations(range(len(times)), len(found))
        for parts in combinations(range(steps), len(found))
        if all(far[k][part] <= tolerance for k, part in zip(chosen, parts, strict=True))
    ]
    # none fills more steps, and of those that fill as many none is nearer
    more = [
        1
        for chosen in combinations(range(len(times)), len(found) + 1)
        for parts in combinations(range(steps), len(found) + 1)
        if all(far[k][part] <= tolerance for k, part in zip(chosen, parts, strict=True))
    ]
    assert not more
    assert sum(far[k][step] for k, step in found) == pytest.approx(min(choices))


def test_a_scene_near_a_step_is_not_spent_on_a_far_one() -> None:
    # with as many scenes as steps each would be spent on one step, and both would be too far
    assert index(days(1, 80), steps=2) == [[0, 1]]
    assert index(days(1, 80), steps=2, tolerance_days=30) == [[1, -1]]


def test_a_year_may_begin_in_october() -> None:
    times = np.array(["2019-09-30T23:59:59", "2019-10-01", "2020-03-01", "2020-09-30", "2020-10-01"], "M8[ns]")
    assert index(times, years=(2019, 2020), steps=3, year_start="10-01") == [[1, 2, 3], [4, -1, -1]]
    assert year_bounds(2019, "10-01") == (np.datetime64("2019-10-01", "ns"), np.datetime64("2020-10-01", "ns"))


@pytest.mark.parametrize("start", ["13-01", "02-29", "02-30", "some", "2020-01-01"])
def test_a_day_that_not_every_year_has_is_refused(start: str) -> None:
    with pytest.raises(InputError, match=f"{start}.*10-01"):
        [year_bounds(year, start) for year in (2019, 2020)]


def test_unusable_scenes_are_passed_over() -> None:
    assert index(days(10, 100, 200, 300), [True, False, True, True], steps=3) == [[0, 2, 3]]


def test_targets_are_the_middles_of_equal_parts() -> None:
    targets = year_targets(2021, 5)
    np.testing.assert_array_equal((targets - np.datetime64("2021-01-01")) / DAY, [36.5, 109.5, 182.5, 255.5, 328.5])


TABLE = np.array([[-1, 4, -1, -1, 7, -1]], np.int32)


def test_gaps_are_filled_with_the_nearest_scene_the_earlier_on_a_tie() -> None:
    # step 2 is nearer to step 1, step 3 to step 4
    assert fill_gaps(TABLE, "nearest", feature="rtc", years=[2020]).tolist() == [[4, 4, 4, 7, 7, 7]]
    tie = np.array([[1, -1, 2]], np.int32)
    assert fill_gaps(tie, "nearest", feature="rtc", years=[2020]).tolist() == [[1, 1, 2]]
    assert fill_gaps(TABLE, "nodata", feature="rtc", years=[2020]).tolist() == TABLE.tolist()
    assert TABLE.tolist() == [[-1, 4, -1, -1, 7, -1]]


def test_gaps_are_refused_unless_asked_for() -> None:
    with pytest.raises(SchemaError, match=r"2020 has 2 of 6 rtc scenes.*gaps='nearest'"):
        fill_gaps(TABLE, "error", feature="rtc", years=[2020])
    for gaps in ("error", "nearest", "nodata"):
        with pytest.raises(SchemaError, match=r"2020 has no rtc scene.*years="):
            fill_gaps(np.full((1, 3), -1, np.int32), gaps, feature="rtc", years=[2020])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="gaps='some'"):
        fill_gaps(TABLE, "some", feature="rtc", years=[2020])  # type: ignore[arg-type]


def native() -> xr.Dataset:
    times = days(10, 100, 200, 300)
    values = np.arange(4 * 6, dtype=np.float32).reshape(4, 2, 3)
    return xr.Dataset(
        {
            "rtc": (("rtc_time", "y", "x"), values, {"units": "dB"}),
            "rtc_index": (("year", "step"), np.array([[0, 2, 3], [1, -1, 3]], np.int32)),
        },
        coords={
            "rtc_time": times,
            "rtc_platform": ("rtc_time", list("abba")),
            "year": [2020, 2021],
            **small_grid((2, 3)).coords(),
        },
    )


def test_the_model_view_holds_the_indexed_scenes() -> None:
    cube = native()
    view = yearly(cube, years=[2020])
    assert view.rtc.dims == ("year", "step", "y", "x")
    assert view.rtc.attrs["units"] == "dB"
    np.testing.assert_array_equal(view.rtc[0], cube.rtc[[0, 2, 3]])
    filled = yearly(cube, gaps="nearest")
    np.testing.assert_array_equal(filled.rtc[1], cube.rtc[[1, 1, 3]])
    assert filled.year.values.tolist() == [2020, 2021]
    assert filled.odc.geobox == cube.odc.geobox
    empty = yearly(cube, gaps="nodata").rtc[1]
    assert np.isnan(empty[1]).all()
    np.testing.assert_array_equal(empty[[0, 2]], cube.rtc[[1, 3]])
    assert yearly(cube.chunk(x=1), gaps="nodata").rtc.chunks is not None


def test_what_is_no_cube_or_not_in_it_is_refused() -> None:
    with pytest.raises(SchemaError, match="2021 has 2 of 3"):
        yearly(native())
    with pytest.raises(SchemaError, match=r"no grd.*rtc"):
        yearly(native(), features=["grd"])
    with pytest.raises(SchemaError, match=r"1999.*2020, 2021"):
        yearly(native(), years=[1999])
    with pytest.raises(SchemaError, match="no year: keep at least one"):
        yearly(native().isel(year=[]))
    with pytest.raises(SchemaError, match="dims"):
        yearly(yearly_dataset((3, 3)))
