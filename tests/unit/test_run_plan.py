"""Plans of runs: windows are counted as they are run."""

from __future__ import annotations

import dask.array as da
import pytest
import xarray as xr

import icemap_xr as ix  # noqa: F401  the accessor
from icemap_xr import schema
from icemap_xr.providers import Quotas
from icemap_xr.run_plan import plan_ground, window_flops
from icemap_xr.testing.fakes import FakePredictor, small_grid


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("shape", [(100, 3071), (3073, 9999), (20_000, 384)])
def test_windows_are_those_that_a_prediction_runs(shape: tuple[int, int], overlap: float) -> None:
    ds = xr.Dataset(coords={schema.YEAR: [2020, 2021], **small_grid(shape).coords()})
    data = da.zeros((2, 15, *shape), chunks=(1, 15, 2048, 2048), dtype="f4")
    ds["grd"] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), data, {"units": "dB"})
    run = ds.icemap.predict(FakePredictor(384, 15, ("grd",)), overlap=overlap, dry_run=True)
    planned = plan_ground(
        *shape,
        share=1.0,
        years=2,
        scenes={"grd": 60},
        counted=False,
        steps=15,
        overlap=overlap,
        gflops=1.0,
        quotas=Quotas(),
        tracks=(),
    )
    assert planned.flops == run.windows * window_flops(15, 1)
