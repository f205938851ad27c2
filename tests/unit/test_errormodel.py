"""Held-out errors: what is put in comes out, and what cannot be used is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.errormodel import held_out_errors, load_block_errors
from icemap_xr.errors import CalibrationMismatchWarning, InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.errorfields import BlockField

SIDE = 16
BLOCK_PX = 4


def region(
    rng: np.random.Generator,
    years: int = 4,
    bias: float = 0.02,
    region_sd: float = 0.03,
    year_sd: float = 0.02,
    length: float = 2.0,
    persistence: float = 0.6,
) -> tuple[xr.DataArray, xr.DataArray]:
    """A map that differs from its reference by block errors of known make."""
    rows, columns = (one.ravel() for one in np.indices((SIDE, SIDE)))
    fields = BlockField(rows, columns, length).draw(rng, years + 1)
    fields = np.sqrt(persistence) * fields[:1] + np.sqrt(1 - persistence) * fields[1:]
    blocks = bias + 0.05 * fields.reshape(years, SIDE, SIDE) + rng.normal(0, region_sd)
    blocks = blocks + rng.normal(0, year_sd, (years, 1, 1))
    error = blocks.repeat(BLOCK_PX, axis=1).repeat(BLOCK_PX, axis=2)
    n = SIDE * BLOCK_PX * 10
    grid = RegionGrid.from_bbox(
        (500_000, 8_600_000, 500_000 + n, 8_600_000 + n), "EPSG:32633", 10, bbox_crs="EPSG:32633"
    )
    coords = {**grid.coords(), "year": 2016 + np.arange(years)}
    truth = xr.DataArray(np.full(error.shape, 0.5), coords=coords, dims=("year", "y", "x"))
    return truth + error, truth


def test_what_is_put_in_comes_out() -> None:
    rng = np.random.default_rng(0)
    found = held_out_errors((region(rng) for _ in range(60)), block=40)
    assert json.loads(json.dumps(found)) == found
    errors, region_effect, year_effect = (np.array(found[k]) for k in ("errors", "region_effect", "year_effect"))
    assert errors.mean() == pytest.approx(0.02, abs=0.012)
    assert errors.std() == pytest.approx(0.05, rel=0.2)
    assert region_effect.std() == pytest.approx(0.03, rel=0.4)
    assert year_effect.std() == pytest.approx(0.02, rel=0.3)
    assert found["range_m"] == pytest.approx(80, rel=0.4)
    assert found["year_correlation"] == pytest.approx(0.6, abs=0.15)
    assert found["block"] == 40


def test_independent_errors_have_no_range() -> None:
    rng = np.random.default_rng(1)
    found = held_out_errors((region(rng, length=0.0, persistence=0.0) for _ in range(10)), block=40)
    assert found["range_m"] < 20
    assert found["year_correlation"] < 0.1


def test_single_years_have_no_region_effect_of_their_own() -> None:
    rng = np.random.default_rng(2)
    found = held_out_errors((region(rng, years=1) for _ in range(8)), block="40m")
    assert "region_effect" not in found
    assert np.std(found["year_effect"]) > 0.01
    assert found["year_correlation"] == 0


def test_bootstrap_takes_them() -> None:
    rng = np.random.default_rng(3)
    errors = held_out_errors((region(rng) for _ in range(20)), block=40)
    mapped, truth = region(rng)
    ds = mapped.clip(0, 1).to_dataset(name="calibrated")
    out = bootstrap_area(ds, block=40, n=300, kind="mapping", block_errors=errors)
    total = float(truth[0].sum()) * 1e-4
    assert (out.interval[:, 0] < total).all()
    assert (out.interval[:, 1] > total).all()
    alone = bootstrap_area(ds, block=40, n=300, kind="mapping", block_errors=errors["errors"])
    assert (out.interval[0, 1] - out.interval[0, 0]) > 1.5 * (alone.interval[0, 1] - alone.interval[0, 0])
    for change in ({"range_m": -1}, {"year_correlation": 2}, {"region_effect": [[0.1]]}, {"range_m": "far"}):
        with pytest.raises(InputError, match=next(iter(change))):
            bootstrap_area(ds, block=40, n=3, kind="mapping", block_errors=errors | change)


def test_maps_that_cannot_be_compared() -> None:
    rng = np.random.default_rng(4)
    mapped, truth = region(rng)
    with pytest.raises(InputError, match="at least 2 regions"):
        held_out_errors([(mapped, truth)], block=40)
    with pytest.raises(InputError, match="different coordinates"):
        held_out_errors([(mapped, truth[:2])], block=40)
    with pytest.raises(InputError, match=r"years \[2017\]"):
        held_out_errors([(mapped.where(mapped.year != 2017), truth)], block=40)
    with pytest.raises(InputError, match="multiple of the pixel size"):
        held_out_errors([(mapped, truth)], block=45)


def any_region(**options: Any) -> tuple[xr.DataArray, xr.DataArray]:
    return region(np.random.default_rng(5), **options)


def test_unknown_pixels_and_slivers_are_left_out() -> None:
    mapped, truth = any_region(years=2)
    gaps = mapped.copy()
    gaps[:, :3, :4] = np.nan  # three quarters of a block unknown
    gaps[:, :4, 4:6] = np.nan  # half of one
    whole = held_out_errors([(mapped, truth)] * 2, block=40)
    found = held_out_errors([(gaps, truth)] * 2, block=40)
    assert len(whole["errors"]) - len(found["errors"]) == 4


def test_errors_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "errors.json").write_text('{"errors": [0.1]}')
    assert load_block_errors(tmp_path / "errors.json") == {"errors": [0.1]}
    (tmp_path / "errors.json").write_text("{")
    for name in ("errors.json", "none.json"):
        with pytest.raises(InputError, match="block errors"):
            load_block_errors(tmp_path / name)


def test_errors_of_a_threshold_are_not_those_of_a_sum() -> None:
    mapped, truth = any_region(years=2)
    classes = mapped.copy(data=(mapped.values > 0.5).astype(float))
    pairs = [(mapped, truth)] * 2
    hard = held_out_errors(pairs, block=40, method="hard")
    assert (hard["method"], hard["threshold"]) == ("hard", 0.5)
    assert hard["errors"] == held_out_errors([(classes, truth)] * 2, block=40)["errors"]
    soft = held_out_errors(pairs, block=40)
    assert soft["errors"] != hard["errors"]
    ds = mapped.clip(0, 1).to_dataset(name="calibrated")
    options: dict[str, Any] = {"block": 40, "n": 3, "kind": "mapping"}
    bootstrap_area(ds, block_errors=hard, method="hard", **options)
    with pytest.raises(InputError, match="of hard areas, not soft"):
        bootstrap_area(ds, block_errors=hard, **options)
    old = {key: value for key, value in soft.items() if key != "method"}
    for errors in (soft, old):  # what does not say is of soft areas, as errors were before they said
        with pytest.raises(InputError, match="of soft areas, not hard"):
            bootstrap_area(ds, block_errors=errors, method="hard", **options)
    with pytest.raises(InputError, match=r"threshold 0\.5, not 0\.7"):
        bootstrap_area(ds, block_errors=hard, method="hard", threshold=0.7, **options)
    for wrong in ({"method": "mean"}, {"method": "hard", "threshold": 2}):
        with pytest.raises(InputError, match=next(reversed(wrong))):
            held_out_errors(pairs, block=40, **wrong)


def test_errors_of_maps_that_are_filtered_otherwise_warn() -> None:
    mapped, truth = any_region(years=2)
    filtered = mapped.assign_attrs(temporal_filter="median of 3 years")
    errors = held_out_errors([(filtered, truth)] * 2, block=40)
    assert errors["map_kind"] == "median of 3 years"
    options: dict[str, Any] = {"block": 40, "n": 3, "kind": "mapping", "block_errors": errors}
    bootstrap_area(filtered.clip(0, 1, keep_attrs=True).to_dataset(name="calibrated"), **options)
    with pytest.warns(CalibrationMismatchWarning, match="'single years'") as caught:
        bootstrap_area(mapped.clip(0, 1).to_dataset(name="calibrated"), **options)
    assert [one.filename for one in caught if one.category is CalibrationMismatchWarning] == [__file__]
    with pytest.raises(InputError, match="several kinds"):
        held_out_errors([(filtered, truth), (mapped, truth)], block=40)
