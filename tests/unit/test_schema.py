"""What a dataset must be for a stage, checked without looking at pixels."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import SchemaError
from icemap_xr.testing.fakes import small_grid, yearly_dataset

from_delayed: Any = da.map_blocks


def native(**changes: Any) -> xr.Dataset:
    parts: dict[str, Any] = {
        "rtc": (("rtc_time", "y", "x"), np.zeros((2, 3, 4), np.float32), {"units": "dB"}),
        "rtc_index": (("year", "step"), np.zeros((1, 2), np.int32)),
    } | changes
    return xr.Dataset({k: v for k, v in parts.items() if v is not None}, coords=small_grid((3, 4)).coords())


def test_a_cube_gives_its_features() -> None:
    assert schema.validate_cube(native()) == ("rtc",)
    assert schema.is_native(native())
    assert not schema.is_native(yearly_dataset((3, 3)))


@pytest.mark.parametrize(
    ("ds", "match"),
    [
        (native(rtc=None), "no feature.*grd, rtc, insar.*rtc_index"),
        (native(rtc_index=None), "'rtc_index'"),
        (native(rtc=(("time", "y", "x"), np.zeros((2, 3, 4)))), r"dims \('time'.*\('rtc_time'"),
        (native(rtc=(("rtc_time", "y", "x"), np.zeros((2, 3, 4)), {"units": "1"})), "units '1'.*'dB'"),
        (native(rtc_index=(("step", "year"), np.zeros((2, 1)))), "dims"),
        (native().drop_vars("y"), "coordinate 'y'"),
        (xr.Dataset(), "no feature.*none"),
    ],
)
def test_what_is_no_cube_is_refused_in_one_line(ds: xr.Dataset, match: str) -> None:
    with pytest.raises(SchemaError, match=match) as caught:
        schema.validate_cube(ds)
    assert "\n" not in str(caught.value)


def test_checks_compute_nothing() -> None:
    def fail(block: Any) -> Any:
        raise AssertionError("computed")

    ds = yearly_dataset((3, 3)).chunk()
    for name in ("grd", "insar"):
        lazy = from_delayed(fail, ds[name].data, dtype="f4", meta=np.empty((0,) * 4, np.float32))
        ds[name] = ds[name].copy(data=lazy)
    schema.validate_yearly(ds, ("grd", "insar"))
    cube = native()
    cube["rtc"] = cube.rtc.copy(data=from_delayed(fail, cube.rtc.chunk().data, dtype="f4", meta=np.empty((0,) * 3)))
    schema.validate_cube(cube)


def test_unknown_features_name_the_nearest() -> None:
    with pytest.raises(SchemaError, match=r"'insr'.*grd, rtc, insar.*'insar'"):
        schema.feature("insr")


@pytest.mark.parametrize("one", schema.FEATURES.values(), ids=schema.FEATURES)
def test_the_published_range_fits_in_the_encoding(one: schema.Feature) -> None:
    for value in (one.minimum, one.maximum):
        assert abs(value / one.step) < 32767
    assert one.encoding_error == one.step / 2


def test_maps() -> None:
    ds = xr.Dataset(
        {"probability": (("year", "y", "x"), np.zeros((2, 3, 4)))},
        coords={"year": [2020, 2021], **small_grid((3, 4)).coords()},
    )
    assert schema.validate_maps(ds, "area") is not None
    with pytest.raises(SchemaError, match=r"area got duplicate years \[2020, 2020\]"):
        schema.validate_maps(ds.assign_coords(year=[2020, 2020]), "area")
    with pytest.raises(SchemaError, match=r"area needs the variable 'probability'.*'probabilty'"):
        schema.validate_maps(ds.rename(probability="probabilty"), "area")
    with pytest.raises(SchemaError, match="transpose"):
        schema.validate_maps(ds.transpose("y", "x", "year"), "area")
