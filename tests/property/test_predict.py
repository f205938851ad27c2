"""The map is a function of the pixels and the region's grid: chunks, laziness and storage change no bit of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icemap_xr import blockjob
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.testing.fakes import FakePredictor, small_grid, yearly_dataset
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

FEATURES = ("rtc", "insar")
STEPS = 3
PREDICTORS = {window: FakePredictor(window, STEPS, FEATURES) for window in (4, 8, 13)}
#: a store's shape, and the views of it
SHAPE = (23, 29)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a cube of two features and two years, with gaps in it, from GeoTIFFs."""
    folder = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    items = []
    for year in (2020, 2021):
        for month in (2, 6, 10):
            power, coherence = rng.lognormal(-3, 1, SHAPE), rng.random(SHAPE)
            power[rng.random(SHAPE) < 0.1] = np.nan
            coherence[2:5, 3:9] = np.nan
            day = f"{year}-{month:02d}-01"
            items.append(rtc_item(write_raster(folder / f"rtc_{day}.tif", power), day))
            path = write_raster(folder / f"pair_{day}.tif", coherence)
            items.append(pair_item(path, day, f"{year}-{month:02d}-13"))
    path = folder / "cube.zarr"
    build_cube(pystac.ItemCollection(items), small_grid(SHAPE), path, steps=STEPS, chunk=10)
    return path


def cuts(size: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Any cutting of an axis: ragged, one pixel wide, or whole."""
    edges = st.sets(st.integers(1, max(size - 1, 1)), max_size=min(size - 1, 6)) if size > 1 else st.just(set())
    ragged = edges.map(lambda inner: tuple(np.diff([0, *sorted(inner), size]).tolist()))
    return st.one_of(ragged, st.just((size,)), st.just((1,) * min(size, 8) + (size - 8,) * (size > 8)))


def same(one: xr.Dataset, other: xr.Dataset) -> None:
    np.testing.assert_array_equal(one.probability.values, other.probability.values)


options = st.fixed_dictionaries(
    {
        "overlap": st.sampled_from([0.0, 0.25, 0.5, 0.6]),
        "blend": st.sampled_from(["gaussian", "crop"]),
        "edges": st.sampled_from(["published", "valid"]),
        "tta": st.sampled_from([None, None, None, "dihedral"]),
        "batch_size": st.sampled_from([None, 1, 2, 5]),
    }
)
many = settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(data=st.data(), shape=st.tuples(st.integers(1, 20), st.integers(1, 20)), window=st.sampled_from([4, 8, 13]))
def test_any_chunking_of_any_shape_gives_the_same_bits(
    data: st.DataObject, shape: tuple[int, int], window: int
) -> None:
    model = FakePredictor(window, STEPS)
    ds = yearly_dataset(shape, seed=data.draw(st.integers(0, 3)))
    ds["grd"] = ds.grd.where(np.random.default_rng(1).random(ds.grd.shape) > 0.1)
    chosen = data.draw(options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockjob, "BLOCK_TARGET", 10**6)
        whole = ds.icemap.predict(model, **(chosen | {"batch_size": 3}))
        patch.setattr(blockjob, "BLOCK_TARGET", data.draw(st.sampled_from([8, 16])))
        same(ds.icemap.predict(model, **chosen), whole)
        chunks = {"y": data.draw(cuts(shape[0])), "x": data.draw(cuts(shape[1])), "step": data.draw(cuts(STEPS))}
        lazy = ds.chunk(chunks).icemap.predict(model, **chosen)
        assert lazy.probability.chunks is not None
        same(lazy.compute(scheduler="synchronous"), whole)


@settings(many, max_examples=60)
@given(data=st.data(), shape=st.tuples(st.integers(1, 20), st.integers(1, 20)), window=st.sampled_from([4, 8, 13]))
def test_passes_with_dropout_do_not_depend_on_chunks_blocks_or_batches(
    data: st.DataObject, shape: tuple[int, int], window: int
) -> None:
    model, ds = FakePredictor(window, STEPS), yearly_dataset(shape, years=(2020, 2021))
    chosen = data.draw(options) | {"mc_dropout": data.draw(st.sampled_from([2, 9])), "seed": 3, "mc_rate": 0.3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockjob, "BLOCK_TARGET", 10**6)
        whole = ds.icemap.predict(model, **(chosen | {"batch_size": 3}))
        # two passes may by chance drop the same
        assert (whole.probability_std >= 0).all()
        assert chosen["mc_dropout"] == 2 or (whole.probability_std > 0).all()
        patch.setattr(blockjob, "BLOCK_TARGET", data.draw(st.sampled_from([8, 16])))
        chunks = {"y": data.draw(cuts(shape[0])), "x": data.draw(cuts(shape[1]))}
        other = ds.chunk(chunks).icemap.predict(model, **chosen).compute(scheduler="threads")
    same(other, whole)
    np.testing.assert_array_equal(other.probability_std, whole.probability_std)


@settings(many, max_examples=6)
@given(data=st.data(), window=st.sampled_from([8, 13]))
def test_a_store_read_in_any_chunks_changed_or_not_gives_the_same_bits(
    store: Path, data: st.DataObject, window: int
) -> None:
    model = PREDICTORS[window]
    chosen = data.draw(options)
    whole = open_cube(store).icemap.yearly().load().icemap.predict(model, **chosen)
    chunks = data.draw(st.one_of(st.just("auto"), st.tuples(st.just(1), cuts(SHAPE[0]), cuts(SHAPE[1]))))
    cube = open_cube(store, chunks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockjob, "BLOCK_TARGET", data.draw(st.sampled_from([12, 1536])))
        forms: list[Any] = [cube, cube.icemap.yearly(), cube.assign(rtc=cube.rtc + np.float32(0))]
        for form in forms:
            same(form.icemap.predict(model, **chosen).compute(scheduler="synchronous"), whole)


@settings(many, max_examples=12)
@given(data=st.data(), window=st.sampled_from([4, 8, 13]), share=st.sampled_from([0.0, 0.01, 0.3, 1.0]))
def test_a_mask_gives_the_full_map_inside_and_nan_outside(
    store: Path, data: st.DataObject, window: int, share: float
) -> None:
    model, cube = PREDICTORS[window], open_cube(store)
    inside = np.random.default_rng(data.draw(st.integers(0, 9))).random(SHAPE) < share
    mask = xr.DataArray(inside, dims=("y", "x"))
    if data.draw(st.booleans()):
        mask = mask.chunk({"y": data.draw(cuts(SHAPE[0])), "x": data.draw(cuts(SHAPE[1]))})
    chosen = data.draw(options)
    form = data.draw(st.sampled_from([cube, cube.icemap.yearly(), cube.icemap.yearly().load()]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockjob, "BLOCK_TARGET", data.draw(st.sampled_from([12, 1536])))
        full = cube.icemap.predict(model, **chosen).probability.values
        masked = form.icemap.predict(model, mask=mask, **chosen).probability.values
    np.testing.assert_array_equal(masked, np.where(inside, full, np.nan))
