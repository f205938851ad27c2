"""Calibration: fitting, applying, judging, and what is refused."""

import json
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.calibrate import (
    KernelRidgeCalibrator,
    KnotCalibrator,
    as_calibrator,
    calibrate,
    fit_calibrator,
    reliability,
)
from icemap_xr.errors import CalibrationMismatchWarning, InputError, InSampleWarning
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.types import Calibrator

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_160, 8_600_120), "EPSG:32633", 10, bbox_crs="EPSG:32633")
CURVE = KnotCalibrator((0.0, 0.3, 1.0), (0.0, 0.1, 0.9), "demo", "made up")


def maps(values: Any) -> xr.Dataset:
    coords = {**GRID.coords(), "year": 2016 + np.arange(len(values))}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def overconfident(seed: int, shape: tuple[int, ...] = (3, 12, 16)) -> tuple[Any, Any]:
    """Return probabilities of an over-confident model, and classes that follow P(glacier | p) = clip(0.25 + p / 2)."""
    rng = np.random.default_rng(seed)
    p = rng.random(shape, dtype=np.float32)
    return p, (rng.random(shape) < 0.25 + p / 2).astype(np.float32)


def ece(p: Any, y: Any, bins: int = 100) -> float:
    at = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(p[at == i].sum(dtype=float) - y[at == i].sum(dtype=float)) for i in range(bins)]
    return float(sum(gaps) / p.size)


def test_curve_interpolates_and_keeps_nan() -> None:
    out = CURVE(np.array([[0, 0.15, 0.3, 0.65, 1, np.nan]], np.float32))
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, [[0, 0.05, 0.1, 0.5, 0.9, np.nan]], atol=1e-7)
    assert isinstance(CURVE, Calibrator)


@pytest.mark.parametrize("wrong", [-0.01, 1.5, np.inf])
def test_curve_refuses_what_is_no_probability(wrong: float) -> None:
    with pytest.raises(InputError, match=r"0\.\.1"):
        CURVE(np.array([0.5, wrong]))


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        ((0, 1), (0.5, 0.4), "monotone"),
        ((0, 0), (0, 1), "increase"),
        ((0.5, 0.2), (0, 1), "increase"),
        ((0,), (0,), "at least 2"),
        ((0, 1), (0,), "same number"),
        ((0, 2), (0, 1), "outside"),
        ((0, 1), (0, np.nan), "outside"),
        (("a", "b"), (0, 1), "numbers"),
    ],
)
def test_knots_that_are_no_monotone_curve(x: Any, y: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        KnotCalibrator(x, y)


def test_json_round_trip() -> None:
    content = json.loads(json.dumps(CURVE.to_json()))
    assert KnotCalibrator.from_json(content) == CURVE
    wrong: Any
    for wrong in ({}, {"type": "pickle"}, [], {"type": "monotone-knots", "x": [0, 1]}):
        with pytest.raises(InputError):
            KnotCalibrator.from_json(wrong)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 300))
def test_fit_is_monotone_and_inside_0_1(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.random(200), rng.random(200)
    out = fit_calibrator(p, y, bins=bins)(np.linspace(0, 1, 500))
    assert (np.diff(out) >= 0).all()
    assert out.min() >= 0
    assert out.max() <= 1


def test_calibration_error_falls_on_data_not_used_for_the_fit() -> None:
    curve = fit_calibrator(*overconfident(0, (400, 400)))
    p, y = overconfident(1, (400, 400))
    before, after = ece(p, y), ece(curve(p), y)
    assert before > 0.1
    assert after < 0.015
    np.testing.assert_allclose(curve(np.array([0.2, 0.5, 0.8])), [0.35, 0.5, 0.65], atol=0.03)


def test_reliability_equals_brute_force() -> None:
    p, y = overconfident(2)
    p[0, 0, :3] = np.nan
    seen = np.isfinite(p)
    table = reliability(p, y, bins=20)
    assert table.ece.item() == pytest.approx(ece(p[seen], y[seen], 20), rel=1e-9)
    third = seen & (p >= 0.1) & (p < 0.15)
    assert table.pixels[2] == third.sum()
    assert table.ice_fraction[2] == pytest.approx(y[third].mean())
    assert table.mean_probability[2] == pytest.approx(p[third].mean(dtype=float))
    judged = reliability([(p, y)], bins=20, calibrator=CURVE)
    assert judged.ece.item() == pytest.approx(ece(CURVE(p[seen]), y[seen], 20), rel=1e-6)


def test_tiles_arrays_and_dask_give_the_same_curve() -> None:
    p, y = overconfident(3)
    whole = fit_calibrator(p, y, map_kind="single years")
    assert fit_calibrator(zip(p, y, strict=True), map_kind="single years") == whole
    assert fit_calibrator(maps(p).probability, maps(y).probability) == whole
    lazy = maps(from_array(p, chunks=(1, 5, 7))).probability
    assert fit_calibrator(lazy, maps(y).probability) == whole


def test_reference_may_be_a_fraction_and_have_gaps() -> None:
    p = np.array([0.1, 0.1, 0.9, 0.9, 0.5])
    y = np.array([0.0, 0.5, 0.75, 1.0, np.nan])
    np.testing.assert_allclose(fit_calibrator(p, y)(np.array([0.0, 0.1, 0.9, 1.0])), [0.25, 0.25, 0.875, 0.875])


@pytest.mark.parametrize(
    ("p", "y", "options", "match"),
    [
        ([0.2, 0.8], [1, 1], {}, "100% ice"),
        ([0.2, 0.8], [0, 0], {}, "0% ice"),
        ([0.5, 0.5], [0, 1], {}, "different probabilities"),
        ([np.nan, 0.5], [0, np.nan], {}, "no pixel"),
        ([0.2, 0.8], [0, 2], {}, "reference"),
        ([0.2, 80], [0, 1], {}, "probability"),
        ([0.2, 0.8], [0, 1, 1], {}, "shape"),
        ([0.2, 0.8], [0, 1], {"method": "spline"}, "isotonic, beta, temperature, kernel-ridge"),
        ([0.2, 0.8], [0, 1], {"bins": 1}, "bins"),
        ([], None, {}, "no pixel"),
        ([0.2, 0.8], None, {}, "pair"),
    ],
)
def test_fits_that_are_refused(p: Any, y: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        fit_calibrator(p, y, **options)


def test_years_missing_from_the_reference_are_refused() -> None:
    p, y = overconfident(4)
    with pytest.raises(InputError, match="coordinates"):
        fit_calibrator(maps(p).probability, maps(y).probability.isel(year=[0, 1]))


def test_a_reference_without_years_and_bins_that_are_no_number_are_refused() -> None:
    p, y = overconfident(5)
    with pytest.raises(InputError, match=r"its reference \('y', 'x'\)"):
        fit_calibrator(maps(p).probability, maps(y).probability[0])
    bins: Any
    for bins in (1, 10.5, True, "100"):
        with pytest.raises(InputError, match="bins"):
            fit_calibrator(p, y, bins=bins)


@pytest.mark.parametrize("method", ["isotonic", "kernel-ridge"])
def test_judging_by_the_data_of_the_fit_warns(method: Any) -> None:
    p, y = overconfident(6)
    curve = fit_calibrator(p, y, method=method)
    with pytest.warns(InSampleWarning, match="fitted to these very data") as caught:
        reliability(zip(p, y, strict=True), calibrator=as_calibrator(curve.to_json()))  # in other tiles, read from JSON
    assert [one.filename for one in caught if one.category is InSampleWarning] == [__file__]
    other, truth = overconfident(7)
    reliability(other, truth, calibrator=curve)
    reliability(p, y)  # judged as they are


def test_calibrated_maps_keep_their_filter() -> None:
    ds = maps(overconfident(8)[0])
    ds.probability.attrs |= {"temporal_filter": "median of 3 years", "temporal_filter_effect": "..."}
    assert calibrate(ds, CURVE).calibrated.attrs["temporal_filter"] == "median of 3 years"


def test_calibrate_is_lazy_and_says_by_what(tmp_path: Path) -> None:
    p = overconfident(5)[0]
    p[0, 0, 0] = np.nan
    ds = maps(from_array(p, chunks=(1, 5, 7)))
    path = tmp_path / "curve.json"
    path.write_text(json.dumps(CURVE.to_json()))
    given: Any
    for given in (CURVE, CURVE.to_json(), path, str(path)):
        out = calibrate(ds, given)
        assert out.calibrated.chunks == ds.probability.chunks
        assert out.calibrated.dtype == np.float32
        assert out.calibrated.dims == ("year", "y", "x")
        assert json.loads(out.calibrated.attrs["calibrator"]) == CURVE.to_json()
        xr.testing.assert_identical(out.probability, ds.probability)
        np.testing.assert_array_equal(out.calibrated, CURVE(p))
    np.testing.assert_array_equal(calibrate(maps(p), CURVE).calibrated, CURVE(p))


def test_calibrating_twice_is_refused() -> None:
    once = calibrate(maps(overconfident(6)[0]), CURVE)
    with pytest.raises(InputError, match="already"):
        calibrate(once, CURVE)
    renamed = once.drop_vars("probability").rename(calibrated="probability")
    with pytest.raises(InputError, match="calibrated already"):
        calibrate(renamed, CURVE)
    assert "other" in calibrate(once, CURVE, name="other")


def test_calibrators_that_cannot_be_used(tmp_path: Path) -> None:
    ds = maps(overconfident(7)[0])
    (tmp_path / "broken.json").write_text("{")
    wrong: Any
    for wrong in (tmp_path / "absent.json", tmp_path / "broken.json", {"type": "x"}, 3):
        with pytest.raises(InputError):
            calibrate(ds, wrong)
    with pytest.raises(InputError, match=r"0\.\.1"):
        calibrate(maps(from_array(np.full((1, 12, 16), 255.0), chunks=8)), CURVE).calibrated.compute()


def published(p: Any, y: Any, bins: int = 100) -> tuple[Any, Any]:
    """Return scikit-learn's own regression, and the published calibration of each pixel by it."""
    from sklearn.kernel_ridge import KernelRidge

    confidence, right = shannon_confidence(p.astype(float)), (p >= 0.5) == (y >= 0.5)
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    used = [i for i in range(bins) if (at == i).any()]
    count = np.array([(at == i).sum() for i in used])
    x = np.array([0, *(confidence[at == i].mean() for i in used), 1])
    accuracy = np.array([0, *(right[at == i].mean() for i in used), 1])
    weights = np.concatenate([[1], (count / count.max()) ** 0.1, [1]])
    model = KernelRidge(kernel="laplacian", alpha=1e-2 * (1 - weights)).fit(x[:, None], accuracy)

    def per_pixel(q: Any) -> Any:
        c = np.clip(model.predict(shannon_confidence(q.astype(float)).reshape(-1, 1)), 0, 1).reshape(q.shape)
        return np.where(q <= 1e-8, 0, np.where(q >= 0.5, c, 1 - c))

    return model, per_pixel


@pytest.mark.parametrize("bins", [10, 100])
def test_kernel_ridge_equals_scikit_learn_pixel_by_pixel(bins: int) -> None:
    p, y = overconfident(8, (60, 70))
    _, per_pixel = published(p, y, bins)
    curve = fit_calibrator(p, y, method="kernel-ridge", bins=bins)
    assert isinstance(curve, Calibrator)
    q = np.concatenate([p.ravel(), [0, 1e-9, 1e-7, 0.47, 0.5, 0.53, 1 - 1e-7, 1]]).reshape(2, -1)
    np.testing.assert_allclose(curve(q), per_pixel(q), atol=1e-6)
    # float32, as maps are, goes through a table: every binade of p and of 1 - p, the knots, and what lies beside them
    small = np.geomspace(1e-10, 0.5, 20_001)
    at_knots = np.interp(curve.x, shannon_confidence(small[::-1]), small[::-1])
    near = np.concatenate([at_knots, np.nextafter(at_knots, 1), at_knots + 1e-7, small, np.linspace(0, 1, 50_001)])
    single = np.concatenate([near, 1 - near]).astype(np.float32).clip(0, 1)
    np.testing.assert_allclose(curve(single), per_pixel(single.astype(float)), rtol=0, atol=1e-6)
    assert np.isnan(curve(np.array([np.nan, -np.nan], np.float32))).all()
    assert curve.name == "kernel-ridge"
    # the published anchor at (0, 0) turns probabilities near 0.5 around: kept, as published
    assert curve(np.array([0.49]))[0] > curve(np.array([0.51]))[0]


def test_kernel_ridge_is_plain_knots_and_keeps_nan() -> None:
    p, y = overconfident(9, (80, 80))
    curve = fit_calibrator(p, y, method="kernel-ridge")
    back = as_calibrator(json.loads(json.dumps(curve.to_json())))
    assert back == curve
    assert back.to_json()["type"] == "confidence-kernel-ridge"
    p[3, :5] = np.nan
    out = back(p)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(out), np.isnan(p))
    tiles = fit_calibrator(zip(p, y, strict=True), method="kernel-ridge")
    np.testing.assert_allclose(tiles.y, fit_calibrator(p, y, method="kernel-ridge").y, rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(
        calibrate(maps(from_array(p[None, :12, :16], chunks=5)), back).calibrated, back(p[None, :12, :16])
    )
    with pytest.raises(InputError, match=r"0\.\.1"):
        back(np.array([0.5, 1.2]))


def test_knots_too_near_for_a_table_give_the_same_curve() -> None:
    x, dual = np.array([0.9, 0.2, 0.2 + 1e-9, 0.2]), np.array([0.3, 0.5, -0.2, 0.1])
    curve = KernelRidgeCalibrator.from_support(x, dual)
    p = np.linspace(0.001, 1, 999)
    c = np.clip(np.exp(-np.abs(shannon_confidence(p)[:, None] - x)) @ dual, 0, 1)
    np.testing.assert_allclose(curve(p), np.where(p >= 0.5, c, 1 - c), atol=1e-6)


@pytest.mark.parametrize(
    ("x", "dual"), [([0.5], [1]), ([0.5, 0.5], [1, 1]), ([0, 2], [1, 1]), ([0, 1], [1]), ([0, 1], [np.nan, 1])]
)
def test_supports_that_are_no_regression_of_confidence(x: Any, dual: Any) -> None:
    with pytest.raises(InputError):
        KernelRidgeCalibrator.from_support(x, dual)


@pytest.mark.parametrize("method", ["isotonic", "beta", "temperature"])
def test_every_default_method_is_monotone_and_lowers_the_error_elsewhere(method: Any) -> None:
    def sure(seed: int) -> tuple[Any, Any]:
        rng = np.random.default_rng(seed)
        truth = rng.random((300, 300))
        odds = np.log(truth / (1 - truth))
        return 1 / (1 + np.exp(-2.5 * odds)), (rng.random(truth.shape) < truth).astype(float)

    curve = fit_calibrator(*sure(0), method=method)
    grid = curve(np.linspace(0, 1, 2001))
    assert (np.diff(grid) >= 0).all()
    p, y = sure(1)
    before = float(reliability(p, y).ece)
    assert before > 0.1
    assert float(reliability(p, y, calibrator=curve).ece) < before / 10
    truth = 1 / (1 + np.exp(-np.log(p / (1 - p)) / 2.5))
    assert np.abs(curve(p) - truth).mean() < 0.01
    assert KnotCalibrator.from_json(json.loads(json.dumps(curve.to_json()))) == curve


def test_parametric_curves_are_the_likeliest() -> None:
    rng = np.random.default_rng(3)
    p = rng.random(40_000)
    odds = 0.8 * np.log(p) - 1.7 * np.log1p(-p) - 0.4
    y = rng.random(p.shape) < 1 / (1 + np.exp(-odds))
    found = fit_calibrator(p, y, method="beta")
    inside = (p > 0.02) & (p < 0.98)
    np.testing.assert_allclose(found(p[inside]), 1 / (1 + np.exp(-odds[inside])), atol=0.02)


def test_a_calibrator_says_for_which_maps_it_holds() -> None:
    p, y = overconfident(10)
    filtered = maps(p)
    filtered.probability.attrs["temporal_filter"] = "median of 3 years"
    on_filtered = fit_calibrator(filtered.probability, maps(y).probability)
    assert on_filtered.map_kind == "median of 3 years"
    assert fit_calibrator(maps(p).probability, maps(y).probability).map_kind == "single years"
    assert fit_calibrator(p, y).map_kind == ""
    calibrate(filtered, on_filtered)
    calibrate(maps(p), CURVE)  # nothing is known about its maps
    with pytest.warns(CalibrationMismatchWarning, match="median of 3 years") as caught:
        calibrate(maps(p), on_filtered)
    assert [one.filename for one in caught if one.category is CalibrationMismatchWarning] == [__file__]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_tabulated_curves_stay_inside_0_1_and_close_to_the_exact_one(seed: int, contiguous: bool) -> None:
    rng = np.random.default_rng(seed)
    x = np.unique(np.concatenate([[0, 1], rng.random(rng.integers(1, 60))]))
    curve = KernelRidgeCalibrator(tuple(x.tolist()), tuple(rng.uniform(-0.2, 1.2, x.size).tolist()))
    near = np.concatenate([rng.random(3000), 10 ** rng.uniform(-10, -0.3, 3000), [0, 1e-8, 0.5, 1, 1.000005, -5e-6]])
    p = np.stack([near, 1 - near.clip(0, 1)]).astype(np.float32)
    p = p if contiguous else np.repeat(p, 2, axis=1)[:, ::2]
    found = curve(p)
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found, curve(p.astype(np.float64).clip(0, 1)), rtol=0, atol=1e-6)
    assert (found[p <= 1e-8] == 0).all()
