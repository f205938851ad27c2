"""Datasets and options that `predict` refuses, and what it warns of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import xarray as xr

from icemap_xr.errors import (
    GridError,
    IcemapError,
    InputError,
    ModelMismatchError,
    ModelMismatchWarning,
    SchemaError,
)
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.testing.published import MODEL, STORED, probability
from icemap_xr.types import InputSpec, ModelSpec

SHAPE = (37, 45)


def without_crs(ds: xr.Dataset) -> xr.Dataset:
    return ds.drop_vars("spatial_ref").assign_coords(y=ds.y.values, x=ds.x.values)


def in_degrees(ds: xr.Dataset) -> xr.Dataset:
    size = {axis: ds.sizes[axis] for axis in ("y", "x")}
    plain = without_crs(ds).assign_coords(y=78 - 1e-4 * np.arange(size["y"]), x=15 + 1e-4 * np.arange(size["x"]))
    found: xr.Dataset = plain.odc.assign_crs("EPSG:4326")
    return found


def in_units(ds: xr.Dataset) -> xr.Dataset:
    return ds.assign(grd=ds.grd.assign_attrs(units="1"))


REFUSED: list[tuple[Any, type[IcemapError], str]] = [
    (lambda ds: ds.drop_vars("insar"), SchemaError, "'insar'.*grd"),
    (lambda ds: ds.rename(insar="insr"), SchemaError, "'insar'.*'insr'"),
    (lambda ds: ds.transpose("step", "year", "y", "x"), SchemaError, "dims.*transpose"),
    (lambda ds: ds.isel(step=0), SchemaError, "dims"),
    (lambda ds: ds.isel(step=slice(2)), ModelMismatchError, "2 steps.*needs 3"),
    (without_crs, SchemaError, "CRS.*assign"),
    (in_degrees, GridError, "geographic.*projected"),
    (in_units, SchemaError, "'1'.*'dB'.*convert"),
    (lambda ds: ds.assign(grd=ds.grd.astype("int16")), SchemaError, "int16.*float"),
    (lambda ds: ds.drop_vars("x"), SchemaError, "coordinate 'x'"),
    (lambda ds: ds.isel(y=slice(None, None, -1)), GridError, "north-up"),
    (lambda ds: ds.isel(y=slice(None, None, 2), x=slice(None, None, 2)), GridError, "resampled"),
    (lambda ds: ds.isel(x=slice(None, None, 2)), GridError, "square|resampled"),
    (lambda ds: ds.isel(y=slice(36), x=slice(44)).coarsen(y=2, x=2).mean(), GridError, "20.0 wide, the region's 10.0"),
    (lambda ds: xr.concat([ds, ds], "year"), SchemaError, r"\[2020, 2020\].*twice"),
]


@pytest.mark.parametrize(("change", "kind", "match"), REFUSED)
def test_datasets_that_do_not_fit_are_refused_in_one_line(change: Any, kind: type[IcemapError], match: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        probability(change(yearly_dataset(SHAPE)))
    assert "\n" not in str(caught.value)


def test_a_native_cube_without_the_feature_names_what_it_has(cube: xr.Dataset) -> None:
    with pytest.raises(ModelMismatchError, match=r"grd, insar.*rtc, insar"):
        cube.icemap.predict(MODEL)
    with pytest.raises(ModelMismatchError, match=r"3 steps.*needs 15.*steps=15"):
        cube.icemap.predict(replace(STORED, steps=15))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"overlap": 1.0}, "overlap=1.0"),
        ({"overlap": -0.1}, "overlap=-0.1"),
        ({"sigma": 0}, "sigma=0"),
        ({"blend": "mean"}, "blend='mean'.*'gaussian' or 'crop'"),
        ({"edges": "far"}, "edges='far'.*'published' or 'valid'"),
        ({"tta": "flips"}, "tta='flips'.*'dihedral'"),
        ({"window": 12}, "window=12.*multiple of 8"),
        ({"window": 0}, "window=0.*multiple of 8"),
        ({"window": 8.5}, "window=8.5.*multiple of 8"),
        ({"mc_dropout": 1}, "mc_dropout=1.*2 or more"),
        ({"mc_dropout": 3, "mc_rate": 1.0}, "mc_rate=1.0"),
        ({"mc_dropout": 3, "seed": -1}, "seed=-1"),
        ({"classes": "some"}, "classes='some'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": "2"}, "batch_size='2'"),
        ({"overlap": "0.5"}, "overlap='0.5'"),
        ({"sigma": "0.5"}, "sigma='0.5'"),
        ({"sigma": 0.05}, "sigma=0.05.*0.11"),
        ({"sigma": np.inf}, "sigma=inf"),
        ({"sigma": 1e200}, "sigma=1e.200.*0.11 to 100"),
        ({"sigma": True}, "sigma=True"),
        ({"batch_size": True}, "batch_size=True"),
        ({"years": []}, r"years=\[\] is not allowed.*\[2020\]"),
        ({"years": [], "dry_run": True}, r"years=\[\]"),
        ({"years": "2020"}, "years='2020'.*list"),
        ({"years": np.array([[2020]])}, r"years=array.*list"),
        ({"years": [[2020], [2019, 2020]]}, "years=.*list"),
        ({"window": np.nan}, "window=nan"),
        ({"mc_dropout": 3, "seed": np.nan}, "seed=nan"),
        ({"years": 2020}, r"years=2020.*\[2020\]"),
        ({"years": [2020, 2020]}, "twice"),
        ({"mask": np.ones(SHAPE, bool)}, "ndarray"),
        ({"aoi": shapely.box(5e5, 8.69e6, 5.1e5, 8.7e6)}, "no degrees"),
        ({"precision": "float16"}, "precision='float16'"),
        ({"years": [2020, 1999]}, "1999.*2020"),
        ({"gaps": "some", "years": [2020]}, "gaps='some'"),
        ({"aoi": (0, 0, 0, 0)}, "box"),
    ],
)
def test_options_out_of_range_are_refused(cube: xr.Dataset, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        cube.icemap.predict(STORED, **options)


def test_a_model_without_a_precision_says_so() -> None:
    with pytest.raises(ModelMismatchError, match=r"bfloat16.*float32"):
        probability(yearly_dataset(SHAPE), precision="bfloat16")


def test_another_polarisation_than_the_models_warns() -> None:
    @dataclass(frozen=True)
    class Trained(FakePredictor):
        @property
        def spec(self) -> ModelSpec:
            plain = super().spec
            grd, insar = plain.features
            return replace(plain, inputs=(InputSpec("inputs", (replace(grd, polarisation="HH"), insar)),))

    ds = yearly_dataset((9, 9))
    probability(ds, Trained(8, 3))
    ds.grd.attrs["polarisation"] = "HH"
    probability(ds, Trained(8, 3))
    ds.grd.attrs["polarisation"] = "VV"
    with pytest.warns(ModelMismatchWarning, match="VV.*HH") as caught:
        probability(ds, Trained(8, 3))
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "change",
    [
        lambda ds: ds.drop_isel(rtc_time=1),
        lambda ds: ds.isel(rtc_time=slice(2, None)),
        lambda ds: ds.sortby("rtc_time", ascending=False),
        lambda ds: ds.assign_coords(insar_time=ds.insar_time + np.timedelta64(12, "D")),
    ],
)
@pytest.mark.parametrize("form", ["predict", "yearly"])
def test_scenes_dropped_after_the_index_was_made_are_refused(cube: xr.Dataset, change: Any, form: str) -> None:
    with pytest.raises(SchemaError, match=r"counts scenes of another.*years="):
        change(cube).icemap.predict(STORED) if form == "predict" else change(cube).icemap.yearly()


def test_codes_of_a_cube_that_were_not_decoded_are_refused(rtc_cube: Path) -> None:
    with pytest.raises(SchemaError, match=r"int16.*float"):
        xr.open_zarr(rtc_cube, mask_and_scale=False).icemap.predict(STORED)


def test_units_that_are_not_told_are_warned_of() -> None:
    ds = yearly_dataset((9, 9))
    del ds.grd.attrs["units"]
    with pytest.warns(ModelMismatchWarning, match="'dB' is taken for granted"):
        probability(ds)
