"""Prediction: the published formula, edges, windows, symmetries, passes, nodata and graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import blockjob, schema
from icemap_xr.cube import open_cube
from icemap_xr.errors import (
    ModelMismatchError,
    ModelMismatchWarning,
)
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.fakes import CountingPredictor, FakePredictor, yearly_dataset
from icemap_xr.testing.published import MODEL, STORED, probability, published
from icemap_xr.types import Batch, InputSpec, ModelSpec

SHAPE = (37, 45)


@pytest.mark.parametrize("shape", [(37, 45), (33, 16), (16, 16), (17, 61), (5, 3), (1, 1), (1, 40)])
def test_equals_the_published_formula(shape: tuple[int, int]) -> None:
    model = FakePredictor(16, 4)
    ds = yearly_dataset(shape, steps=4)
    rng = np.random.default_rng(3)
    for bad in (np.nan, np.inf, -np.inf, 1e6):
        for name in ("grd", "insar"):
            # not in the first step, so that each pixel is observed
            ds[name].values[0, 1:][rng.random((3, *shape)) < 0.03] = bad
    np.testing.assert_allclose(probability(ds, model)[0], published(ds, model), atol=1e-6)


def test_the_formula_at_its_published_size() -> None:
    model = FakePredictor(384, 2)
    ds = yearly_dataset((391, 577), steps=2)
    np.testing.assert_allclose(probability(ds, model)[0], published(ds, model), atol=1e-6)


def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch, cube: xr.Dataset) -> None:
    expected = probability(cube, STORED)
    for target in (8, 24):
        monkeypatch.setattr(blockjob, "BLOCK_TARGET", target)
        result = cube.icemap.predict(STORED).probability
        assert max(result.chunks[1]) <= target
        np.testing.assert_array_equal(result.values, expected)


def test_the_result_says_what_it_is(cube: xr.Dataset) -> None:
    maps = cube.icemap.predict(STORED, overlap=0.25)
    array = schema.validate_maps(maps, "test")
    assert array.dtype == np.float32
    assert maps.odc.geobox == cube.odc.geobox
    assert maps.attrs["stride"] == 6
    assert maps.attrs["model_sha256"] == STORED.spec.digest
    assert RegionGrid.from_dataset(maps) == RegionGrid.from_dataset(cube)
    assert 0 <= float(maps.probability.min()) <= float(maps.probability.max()) <= 1


def test_all_classes(cube: xr.Dataset) -> None:
    for ds in (cube, cube.icemap.yearly(), cube.icemap.yearly().load()):
        maps = ds.icemap.predict(STORED, classes="all").load()
        assert maps.class_probability.dims == ("year", "class", "y", "x")
        assert maps["class"].values.tolist() == ["not_glacier", "glacier"]
        np.testing.assert_array_equal(maps.class_probability.sel({"class": "glacier"}), maps.probability)
        np.testing.assert_array_equal(maps.probability, probability(cube, STORED))
        np.testing.assert_allclose(maps.class_probability.sum("class"), 1, atol=1e-6)


def test_named_inputs_are_given_by_name() -> None:
    class Named:
        @property
        def spec(self) -> ModelSpec:
            grd, insar = MODEL.spec.features
            return replace(MODEL.spec, inputs=(InputSpec("a", (insar,)), InputSpec("b", (grd,))))

        def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
            assert not isinstance(batch, np.ndarray)
            assert set(batch) == {"a", "b"}
            return MODEL(np.concatenate([batch["b"], batch["a"]], axis=-1))

    ds = yearly_dataset(SHAPE)
    np.testing.assert_array_equal(probability(ds, Named()), probability(ds))


# --- edges, windows, symmetries, passes


def test_valid_edges_are_symmetric_and_published_edges_are_not() -> None:
    ds = yearly_dataset((28, 20))
    turned = ds.copy(data={name: ds[name].values[..., ::-1, ::-1].copy() for name in ("grd", "insar")})

    class Symmetric(FakePredictor):
        def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
            assert isinstance(batch, np.ndarray)
            both = super().__call__(batch) + super().__call__(batch[:, :, ::-1, ::-1].copy())[:, ::-1, ::-1]
            return both / np.float32(2)

    model = Symmetric(8, 3)
    # the last windows of both axes end at the edge by themselves
    for edges, same in (("valid", True), ("published", False)):
        one, other = (probability(form, model, edges=edges) for form in (ds, turned))
        assert np.allclose(one, other[:, ::-1, ::-1], atol=1e-6) is same


def test_with_the_whole_region_in_one_window_valid_edges_give_the_bare_model() -> None:
    ds = yearly_dataset((8, 8))
    one = MODEL.spec.features
    scaled = np.stack([feature.scale(ds[feature.name].values[0]) for feature in one], axis=-1)
    np.testing.assert_allclose(probability(ds, edges="valid")[0], MODEL(scaled[None])[0, :, :, 1], atol=1e-6)


def test_another_window_is_the_same_as_the_model_of_that_window_and_warns(cube: xr.Dataset) -> None:
    with pytest.warns(ModelMismatchWarning, match=r"8 px.*run with 16"):
        out = cube.icemap.predict(STORED, window=16)
    assert out.attrs["window"] == 16
    np.testing.assert_array_equal(out.probability, probability(cube, replace(STORED, window=16)))
    np.testing.assert_array_equal(probability(cube, STORED, window=8), probability(cube, STORED))


def test_what_a_model_cannot_do_is_refused_with_a_remedy() -> None:
    plain = CountingPredictor(MODEL)
    with pytest.raises(ModelMismatchError, match=r"windows of 8 px only.*window=16 out.*with_window"):
        probability(yearly_dataset(SHAPE), plain, window=16)
    with pytest.raises(ModelMismatchError, match="mc_dropout=0"):
        probability(yearly_dataset(SHAPE), plain, mc_dropout=4)


def turned(ds: xr.Dataset, turns: int, mirrored: bool) -> xr.Dataset:
    def turn(values: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.rot90(values, turns, axes=(-2, -1))
        return (out[..., ::-1] if mirrored else out).copy()

    return ds.copy(data={name: turn(ds[name].values) for name in ("grd", "insar")})


def test_tta_is_the_mean_of_the_maps_of_eight_turned_regions_turned_back() -> None:
    # on a square whose windows end at its edges, the windows of a turned region are the turned windows
    ds = yearly_dataset((24, 24))
    maps = []
    for turns in range(4):
        for mirrored in (False, True):
            out = probability(turned(ds, turns, mirrored), edges="valid")
            maps.append(np.rot90(out[..., ::-1] if mirrored else out, -turns, axes=(-2, -1)))
    with_tta = ds.icemap.predict(MODEL, edges="valid", tta="dihedral")
    np.testing.assert_allclose(with_tta.probability, np.mean(maps, axis=0), atol=1e-6)
    assert with_tta.attrs["tta"] == "dihedral"
    assert np.abs(with_tta.probability - maps[0]).max() > 0.01


def test_passes_give_mean_and_spread_which_follow_the_seed(cube: xr.Dataset) -> None:
    maps = cube.icemap.predict(STORED, mc_dropout=4, mc_rate=0.3, seed=5)
    assert maps.probability_std.dims == ("year", "y", "x")
    assert maps.probability_std.dtype == np.float32
    assert (maps.attrs["mc_dropout"], maps.attrs["mc_rate"], maps.attrs["seed"]) == (4, 0.3, 5)
    assert float(maps.probability_std.min()) > 0
    again = cube.icemap.yearly().load().icemap.predict(STORED, mc_dropout=4, mc_rate=0.3, seed=5, classes="all")
    np.testing.assert_array_equal(maps.probability, again.probability)
    np.testing.assert_array_equal(maps.probability_std, again.probability_std)
    np.testing.assert_allclose(again.class_probability.sum("class"), 1, atol=1e-6)
    other = cube.icemap.predict(STORED, mc_dropout=4, mc_rate=0.3, seed=6)
    assert not np.array_equal(maps.probability, other.probability)
    assert "probability_std" not in cube.icemap.predict(STORED)


def test_mean_and_spread_are_written_from_one_computation(cube: xr.Dataset, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Sampling(CountingPredictor):
        def sample(self, batch: Batch, seeds: NDArray[np.uint64], rate: float, /) -> NDArray[np.float32]:
            self.batches.append(len(batch))
            return self.model.sample(batch, seeds, rate)

    counter = Sampling(STORED)
    with dask.config.set(scheduler="threads"):
        written = cube.icemap.predict(counter, mc_dropout=3).icemap.to_zarr(tmp_path / "maps.zarr")
    assert {"probability", "probability_std"} <= set(written.data_vars)
    assert sum(counter.batches) == 3 * 10 * 12


# --- nodata


def test_what_was_never_observed_is_nan() -> None:
    ds = yearly_dataset(SHAPE, years=(2020, 2021))
    ds.grd.values[0, :, 4, 5] = np.nan
    ds.insar.values[0, :, 6, 7] = np.inf
    ds.grd.values[0, 0, 8, 9] = np.nan
    ds.insar.values[1] = np.nan
    for form in (ds, ds.chunk(y=9)):
        out = probability(form)
        assert np.isnan(out[1]).all()
        assert sorted(zip(*np.nonzero(np.isnan(out[0])), strict=True)) == [(4, 5), (6, 7)]


# --- graphs


def count(array: Any) -> int:
    (optimised,) = dask.optimize(array)
    return len(dict(optimised.__dask_graph__()))


def test_an_untouched_store_costs_at_most_1_1_tasks_per_block(
    cube: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockjob, "BLOCK_TARGET", 8)
    maps = cube.icemap.predict(STORED).probability.data
    assert np.prod(maps.numblocks) == 30
    assert count(maps) <= 1.1 * 30


def test_graphs_have_the_same_names_for_the_same_and_others_for_other_inputs(rtc_cube: Path) -> None:
    def name(ds: xr.Dataset | None = None, model: Any = STORED, **options: Any) -> set[str]:
        ds = open_cube(rtc_cube) if ds is None else ds
        array = ds.icemap.predict(model, **options).probability.data
        return {str(key) for key in dask.core.flatten(array.__dask_keys__())}

    cube = open_cube(rtc_cube)
    mask = xr.DataArray(np.ones(SHAPE, bool), dims=("y", "x"))
    aoi = (15.0, 78.0, 15.001, 78.4)
    moved = cube.assign_coords(x=cube.x + 20)
    moved.spatial_ref.attrs.pop(schema.GRID_ORIGIN)
    names = [
        name(),
        name(overlap=0.25),
        name(blend="crop"),
        name(sigma=0.4),
        name(edges="valid"),
        name(tta="dihedral"),
        name(mc_dropout=2),
        name(mc_dropout=2, seed=1),
        name(mc_dropout=2, mc_rate=0.1),
        name(mask=mask),
        name(mask=~mask),
        name(aoi=aoi),
        name(moved, aoi=aoi),
        name(model=replace(STORED, window=16)),
        name(cube.icemap.yearly()),
        name(cube.assign(rtc=cube.rtc + np.float32(0), insar=cube.insar + np.float32(0))),
    ]
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert not one & other
    assert name() == names[0]
    assert name(mask=mask) == names[9]
    assert name(open_cube(rtc_cube).icemap.yearly()) == names[14]


def test_years_are_chosen_and_kept_apart() -> None:
    ds = yearly_dataset(SHAPE, years=(2019, 2020, 2021))
    full = probability(ds)
    np.testing.assert_array_equal(probability(ds, years=[2021, 2019]), full[[2, 0]])
    for same in (ds.year, ds.year.values, range(2019, 2022), (2019, 2020, 2021)):
        np.testing.assert_array_equal(probability(ds, years=same), full)
    for row in range(3):
        np.testing.assert_allclose(full[row], published(ds.isel(year=[row]), MODEL), atol=1e-6)
