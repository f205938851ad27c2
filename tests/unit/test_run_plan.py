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


def test_reading_takes_as_long_as_the_quotas_make_it() -> None:
    quotas = Quotas(connections=4, mb_per_s=100, requests_per_min=60)
    plan = plan_ground(
        1024,
        1000,
        share=1.0,
        years=1,
        scenes={"grd": 30},
        counted=False,
        steps=15,
        overlap=0.5,
        gflops=1.0,
        quotas=quotas,
        tracks=(),
    )
    # 2 x 2 blocks of 30 dates, each three requests to open and nine tiles; a request a second
    assert plan.transfer_hours == pytest.approx(120 * 12 / 3600)
    assert plan.transfer_hours == pytest.approx(120 * quotas.limits("any").seconds((512, 512)) / 4 / 3600)
