"""The accessor offers each stage under its own name with the stage's own parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from icemap_xr import (
    accessor,
    archive,
    area,
    bootstrap,
    calibrate,
    divides,
    glacierareas,
    outlines,
    plot,
    predict,
    store,
    temporal,
    variogram,
    yearindex,
)
from icemap_xr.testing.fakes import FakePredictor, yearly_dataset

STAGES: dict[str, Callable[..., Any]] = {
    "yearly": yearindex.yearly,
    "predict": predict.predict,
    "filter_years": temporal.filter_years,
    "calibrate": calibrate.calibrate,
    "area": area.area,
    "bootstrap_area": bootstrap.bootstrap_area,
    "glacier_area": glacierareas.glacier_area,
    "variogram": variogram.variogram,
    "outlines": outlines.outlines,
    "divide": divides.divide,
    "archive": archive.archive,
    "plot": plot.plot,
}


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    _, *rest = inspect.signature(function).parameters.values()
    return [(one.name, one.kind, one.default) for one in rest]


@pytest.mark.parametrize("name", STAGES)
def test_parameters_and_defaults_are_the_stages(name: str) -> None:
    left_out = {"calibrate": {"name"}}.get(name, set())
    wanted = [one for one in parameters(STAGES[name]) if one[0] not in left_out]
    assert parameters(getattr(accessor.IcemapAccessor, name)) == wanted


def test_every_method_is_a_stage() -> None:
    public = {name for name in vars(accessor.IcemapAccessor) if not name.startswith("_")}
    assert public == {*STAGES, "to_zarr"}


def test_methods_give_what_the_stages_give(tmp_path: Path) -> None:
    ds, model = yearly_dataset((20, 20), years=(2019, 2020, 2021)), FakePredictor()
    maps = ds.icemap.predict(model, overlap=0.25, years=[2020, 2021, 2019])
    expected = predict.predict(ds, model, overlap=0.25, years=[2020, 2021, 2019])
    assert maps.identical(expected)
    assert maps.icemap.filter_years().identical(temporal.filter_years(expected))
    assert maps.icemap.area(method="hard").identical(area.area(expected, method="hard"))
    written = maps.icemap.to_zarr(tmp_path / "maps.zarr")
    np.testing.assert_array_equal(written.probability, maps.probability)
    assert written.identical(store.save(maps, tmp_path / "maps.zarr"))
