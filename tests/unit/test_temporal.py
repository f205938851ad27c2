"""Temporal median of yearly maps: what it keeps, what it removes."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.errors import InputError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.temporal import filter_years

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_090, 8_600_070), "EPSG:32633", 10, bbox_crs="EPSG:32633")


def maps(values: Any, years: Any = None) -> xr.Dataset:
    years = 2016 + np.arange(len(values)) if years is None else years
    coords = {**GRID.coords(), "year": years}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def series(*values: float) -> xr.Dataset:
    return maps(np.broadcast_to(np.asarray(values, np.float32)[:, None, None], (len(values), *GRID.shape)).copy())


def filtered(*values: float, window: int = 3) -> list[float]:
    return [float(v) for v in filter_years(series(*values), window=window).probability[:, 0, 0]]


def brute_force(p: Any, years: list[int], window: int) -> Any:
    out = np.full_like(p, np.nan)
    for i, row, column in np.ndindex(*p.shape):
        found = [p[i, row, column]]
        for distance in range(1, window // 2 + 1):
            pair = [p[years.index(y), row, column] for y in (years[i] - distance, years[i] + distance) if y in years]
            if len(pair) == 2 and np.isfinite(pair).all():
                found += pair
        if np.isfinite(found[0]):
            out[i, row, column] = np.median(found)
    return out


@pytest.mark.parametrize("window", [3, 5, 7])
@pytest.mark.parametrize(
    "years", [[2016, 2017, 2018, 2019, 2020], [2016, 2018, 2019, 2020, 2021], [2020, 2016, 2018, 2017, 2019]]
)
@pytest.mark.parametrize("chunks", [None, (1, 3, 4), (5, 7, 1)])
def test_equals_the_median_pixel_by_pixel(window: int, years: list[int], chunks: Any) -> None:
    rng = np.random.default_rng(2)
    p = rng.random((5, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.2] = np.nan
    ds = maps(p if chunks is None else from_array(p, chunks=chunks), years)
    out = filter_years(ds, window=window)
    assert (out.probability.chunks is None) == (chunks is None)
    assert out.probability.dtype == np.float32
    np.testing.assert_array_equal(out.probability, brute_force(p, years, window))


def test_removes_one_odd_year_and_keeps_ends() -> None:
    assert filtered(1, 1, 0, 1, 1) == [1, 1, 1, 1, 1]
    assert filtered(0, 1, 1, 1, 0) == [0, 1, 1, 1, 0]
    assert filtered(1, 1, 0, 0, 1, 1) == [1, 1, 0, 0, 1, 1]
    assert filtered(1, 1, 1, 0, 0, 1, 1, 1, window=5) == [1] * 8


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), st.sampled_from([3, 5, 7, 99]), st.booleans())
def test_lasting_change_is_returned_unchanged(values: list[float], window: int, advance: bool) -> None:
    lasting = sorted(values, reverse=not advance)
    assert filtered(*lasting, window=window) == [float(np.float32(v)) for v in lasting]


def test_keeps_other_variables_and_says_what_it_did() -> None:
    ds = series(1, 0, 1).assign(count=("year", [1, 2, 3]))
    out = filter_years(ds)
    xr.testing.assert_identical(out["count"], ds["count"])
    assert out.probability.attrs["temporal_filter"] == "median of 3 years"
    assert "temporal_filter" not in ds.probability.attrs


def test_space_is_not_rechunked() -> None:
    ds = maps(from_array(np.zeros((4, *GRID.shape), np.float32), chunks=(1, (3, 4), (1, 8))))
    assert filter_years(ds).probability.chunks == ((4,), (3, 4), (1, 8))


def test_bad_input() -> None:
    ds = series(1, 0, 1)
    window: Any
    for window in (0, 1, 2, 4, -3, 3.0, True):
        with pytest.raises(InputError, match="odd number"):
            filter_years(ds, window=window)
    with pytest.raises(InputError, match="median"):
        filter_years(ds, method="mean")
    with pytest.raises(InputError, match="filter first"):
        filter_years(ds.assign(calibrated=ds.probability))
    with pytest.raises(InputError, match="calendar years"):
        filter_years(ds.assign_coords(year=[2016.5, 2017.5, 2018.5]))
    with pytest.raises(InputError, match="float"):
        filter_years(ds.assign(probability=ds.probability.astype(np.uint8)))
    with pytest.raises(SchemaError, match="duplicate"):
        filter_years(ds.assign_coords(year=[2016, 2016, 2017]))
