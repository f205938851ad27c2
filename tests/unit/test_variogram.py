"""Spatial correlation of a map, against all pairs and against fields of known range."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr

from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.errorfields import BlockField
from icemap_xr.kernels.semivariance import fit_exponential, semivariance
from icemap_xr.variogram import variogram

#: Dask carries no types for it
from_array: Any = da.from_array


def maps(values: Any) -> xr.Dataset:
    _, rows, columns = values.shape
    extent = (500_000, 8_600_000, 500_000 + 10 * columns, 8_600_000 + 10 * rows)
    grid = RegionGrid.from_bbox(extent, "EPSG:32633", 10, bbox_crs="EPSG:32633")
    return xr.Dataset(
        {"probability": (("year", "y", "x"), values)}, coords={**grid.coords(), "year": 2016 + np.arange(len(values))}
    )


def test_semivariance_equals_all_pairs() -> None:
    field = np.random.default_rng(0).random((9, 13)) + 100
    field[np.random.default_rng(1).random(field.shape) < 0.3] = np.nan
    gamma, pairs = semivariance(field, 6)
    y, x = np.nonzero(np.isfinite(field))
    first, second = np.triu_indices(len(y), 1)
    distance = np.rint(np.hypot(y[first] - y[second], x[first] - x[second])).astype(int)
    squares = (field[y, x][first] - field[y, x][second]) ** 2 / 2
    for lag in range(1, 7):
        assert pairs[lag] == (distance == lag).sum()
        assert gamma[lag] == pytest.approx(squares[distance == lag].mean())


def test_fit_finds_the_range_or_none() -> None:
    lag = np.arange(1.0, 40)
    found = fit_exponential(lag, 0.1 + 0.9 * (1 - np.exp(-lag / 6)), np.ones(39))
    np.testing.assert_allclose(found, (0.1, 0.9, 6), rtol=1e-3)
    assert fit_exponential(lag, np.full(39, 0.5), np.ones(39)).length == 0
    assert fit_exponential(lag, np.zeros(39), np.ones(39)).length == 0


def field(length: float, side: int = 256, seed: int = 0) -> Any:
    rows, columns = (one.ravel() for one in np.indices((side, side)))
    values = BlockField(rows, columns, length).draw(np.random.default_rng(seed), 1).reshape(1, side, side)
    return (1 / (1 + np.exp(-values))).astype(np.float32)


@pytest.mark.parametrize("chunks", [None, (1, 50, 70)])
def test_the_range_of_a_map_and_the_block_that_follows(chunks: Any) -> None:
    p = field(8.0)
    out = variogram(maps(p if chunks is None else from_array(p, chunks=chunks)))
    assert out.attrs["range_m"] == pytest.approx(80, rel=0.35)
    assert 3 * out.attrs["range_m"] <= out.attrs["suggested_block_m"] < 3 * out.attrs["range_m"] + 10
    assert out.attrs["suggested_block_m"] % 10 == 0
    np.testing.assert_allclose(out.model, out.semivariance, rtol=0.35)
    assert out.lag.attrs["units"] == "m"
    assert out.attrs["year"] == 2016


def test_a_map_too_small_for_its_correlation_says_so() -> None:
    out = variogram(maps(field(60.0)))
    assert out.attrs["suggested_block_m"] == 640
    assert "too narrow" in out.attrs["suggestion"]


def test_large_maps_are_summed_to_cells() -> None:
    coarse = field(5.0)[:, :200, :200].repeat(6, axis=1).repeat(6, axis=2)
    out = variogram(maps(coarse), method="hard")
    assert out.attrs["cell_m"] == 30
    assert out.attrs["range_m"] == pytest.approx(300, rel=0.5)


def test_bad_input() -> None:
    ds = maps(field(3.0, 32))
    for options, match in (
        ({"method": "mean"}, "method"),
        ({"year": 1999}, "1999"),
        ({"max_lag": 20}, "cells"),
    ):
        with pytest.raises(InputError, match=match):
            variogram(ds, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="years as numbers"):
        variogram(ds.assign_coords(year=np.array(["2016"] * ds.sizes["year"], "datetime64[ns]")))
    with pytest.raises(InputError, match="fewer than 10"):
        variogram(ds * np.nan)
