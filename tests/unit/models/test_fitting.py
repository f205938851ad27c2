"""Which models fit a cube, and why not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import xarray as xr

from icemap_xr.errors import SchemaError
from icemap_xr.models.fitting import fit_to
from icemap_xr.models.registry import declared, list_models, models_for
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset
from icemap_xr.types import ModelSpec

SPEC = FakePredictor(steps=3).spec


@pytest.fixture
def view() -> xr.Dataset:
    ds = yearly_dataset((8, 8), steps=3)
    ds["grd"].attrs |= {"polarisation": "HH", "radiometry": "sigma0"}
    return ds


def with_grd(**change: str) -> ModelSpec:
    grd, insar = SPEC.features
    return replace(SPEC, inputs=(replace(SPEC.inputs[0], features=(replace(grd, **change), insar)),))


def test_a_model_of_the_cubes_features_and_steps_fits(view: xr.Dataset) -> None:
    assert str(fit_to(SPEC, view)) == "yes"
    assert fit_to(with_grd(polarisation="HH", radiometry="sigma0"), view).doubts == ()


def test_other_polarisation_and_radiometry_are_doubts(view: xr.Dataset) -> None:
    found = fit_to(with_grd(polarisation="VV", radiometry="gamma0"), view)
    assert found.fits
    assert str(found) == (
        "yes, but grd has polarisation HH, it was trained on VV; grd has radiometry sigma0, it was trained on gamma0"
    )


def test_features_units_and_steps_are_faults(view: xr.Dataset) -> None:
    assert str(fit_to(SPEC, view.drop_vars("insar"))) == "no: the cube has no insar"
    assert str(fit_to(replace(SPEC, steps=15), view)) == "no: it needs 15 steps a year, the cube has 3"
    assert str(fit_to(with_grd(units="1"), view)) == "no: grd is in 'dB', needed is '1'"


def test_found_features_allow_models_that_need_no_others() -> None:
    assert {row.name for row in models_for(["insar"])} == {"ICEmapper_tweightedpool_insar"}
    both = {row.name for row in models_for(["rtc", "insar"])}
    assert {"ICEmapper_tweightedpool_rtcinsar", "ICEmapper_tweightedpool_rtc"} <= both
    assert not any("grd" in row.features for row in models_for(["rtc", "insar"]))
    assert models_for(["grd", "rtc", "insar"]) == list_models()
    assert models_for([]) == []
    with pytest.raises(SchemaError, match="unknown feature 'coherence'"):
        models_for(["coherence"])


def test_every_registered_model_declares_itself_without_a_download(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("ICEMAP_CACHE", str(tmp_path))
    monkeypatch.setenv("ICEMAP_WEIGHTS_URL", "http://127.0.0.1:9/weights")
    for row in list_models():
        spec = declared(row.name)
        assert tuple(feature.name for feature in spec.features) == row.features
        assert spec.steps == 15
