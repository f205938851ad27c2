"""A predictor is loaded once per process, travels as a recipe, and keeps its contract."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dask.base import tokenize

from icemap_xr.errors import DeviceMemoryError, ModelMismatchError, UnknownModelError, WeightsError
from icemap_xr.models import icemapper, predictor
from icemap_xr.models.bundle import WEIGHTS, ModelBundle
from icemap_xr.models.icemapper import Tensors
from icemap_xr.models.predictor import KerasPredictor
from icemap_xr.models.registry import load_model
from icemap_xr.testing.fakes import yearly_dataset
from icemap_xr.types import Predictor, SamplingPredictor


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts as a process that has loaded nothing."""
    monkeypatch.setattr(predictor, "_known", {})


@pytest.fixture
def model(saved: ModelBundle) -> KerasPredictor:
    return load_model(saved.folder)


def in_a_new_process(model: KerasPredictor, monkeypatch: pytest.MonkeyPatch) -> KerasPredictor:
    data = pickle.dumps(model)
    monkeypatch.setattr(predictor, "_known", {})
    return pickle.loads(data)


def test_it_is_a_predictor(model: KerasPredictor, windows: np.ndarray) -> None:
    assert isinstance(model, Predictor)
    out = model(windows)
    assert out.shape == (3, 16, 16, 2)
    assert out.dtype == np.float32
    assert np.allclose(out.sum(-1), 1, atol=1e-5)


def test_it_computes_what_the_network_computes(model: KerasPredictor, tensors: Tensors, windows: np.ndarray) -> None:
    network = icemapper.build(model.recipe.architecture)
    icemapper.assign(network, tensors)
    difference = np.abs(model(windows) - network(windows, training=False).numpy()).max()
    assert difference < 1e-5, f"largest difference to the network is {difference:.2e}"


@pytest.mark.parametrize("name", ["tweightedpool_grdinsar_filters8", "maxpool_grd_filters8"])
def test_it_equals_the_published_code(golden: Path, name: str) -> None:
    reference = np.load(golden / f"{name}.npz")
    difference = np.abs(load_model(golden / f"{name}.h5", window=32)(reference["x"]) - reference["y"]).max()
    print(f"{name}: largest difference to the published code {difference:.1e}")
    assert difference < 1e-4, f"largest difference to the published code is {difference:.2e}"


def test_the_answer_does_not_depend_on_the_batch(model: KerasPredictor, windows: np.ndarray) -> None:
    together = model(windows)
    alone = np.concatenate([model(windows[i : i + 1]) for i in range(len(windows))])
    assert np.allclose(together, alone, rtol=0, atol=1e-5)
    assert np.array_equal(model(windows), together)


def test_with_a_window_of_64_pixels_the_batch_changes_no_bit(golden: Path) -> None:
    model = load_model(golden / "tweightedpool_grdinsar_filters8.h5", window=64)
    windows = np.random.default_rng(0).random((3, 15, 64, 64, 2), dtype=np.float32)
    alone = np.concatenate([model(windows[i : i + 1]) for i in range(len(windows))])
    assert np.array_equal(model(windows), alone)


def test_named_inputs_and_plain_arrays_give_the_same(model: KerasPredictor, windows: np.ndarray) -> None:
    assert np.array_equal(model({"sar": windows}), model(windows))
    assert np.array_equal(model(windows.astype(np.float64)), model(windows))
    assert np.array_equal(model(windows[::-1]), model(np.ascontiguousarray(windows[::-1])))


def test_an_empty_batch_gives_an_empty_answer_of_the_right_shape(model: KerasPredictor, windows: np.ndarray) -> None:
    assert model(windows[:0]).shape == (0, 16, 16, 2)


def test_batches_the_model_does_not_take_are_refused(model: KerasPredictor, windows: np.ndarray) -> None:
    for wrong in (windows[:, :2], windows[:, :, :8], windows[..., :1], windows[0], {"optical": windows}, {}):
        with pytest.raises(ModelMismatchError, match="tiny") as caught:
            model(wrong)
        assert "\n" not in str(caught.value)


def test_it_pickles_to_a_small_recipe_that_gives_the_same_answer(
    model: KerasPredictor, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model(windows)
    assert len(pickle.dumps(model)) < 2000
    again = in_a_new_process(model, monkeypatch)
    assert again is not model
    assert again.spec == model.spec
    assert np.array_equal(again(windows), before)


def test_it_unpickles_to_the_one_of_its_process(model: KerasPredictor) -> None:
    assert pickle.loads(pickle.dumps(model)) is model
    assert load_model(model.recipe.path) is model
    assert load_model(model.recipe.path, precision="bfloat16") is not model


def test_threads_share_one_load(model: KerasPredictor, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = []
    original = predictor.compiled
    data = pickle.dumps(model)
    monkeypatch.setattr(predictor, "_known", {})
    monkeypatch.setattr(predictor, "compiled", lambda *args: loads.append(args) or original(*args))
    start = threading.Barrier(8)

    def work(_: int) -> np.ndarray:
        start.wait()
        return pickle.loads(data)(windows)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(8)))
    assert len(loads) == 1
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


def test_changed_weights_are_noticed_by_a_worker(
    tmp_path: Path, bundle: ModelBundle, saved: ModelBundle, tensors: Tensors, windows: np.ndarray
) -> None:
    model = load_model(saved.folder)
    other = bundle.save(tmp_path / "other", {path: values * 0.5 for path, values in tensors.items()})
    (saved.folder / WEIGHTS).unlink()
    saved.folder.rename(tmp_path / "away")
    other.folder.rename(saved.folder)
    with pytest.raises(WeightsError, match="changed since"):
        model(windows)


def test_a_changed_h5_is_noticed_by_a_worker(h5_file: Path, windows: np.ndarray) -> None:
    model = load_model(h5_file, window=16, steps=3)
    h5_file.write_bytes(h5_file.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="changed since"):
        model(windows)
    h5_file.unlink()
    with pytest.raises(UnknownModelError):
        model(windows)


def test_tokens_follow_content_and_options_only(
    tmp_path: Path, bundle: ModelBundle, saved: ModelBundle, tensors: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(saved.folder)
    same = load_model(bundle.save(tmp_path / "copy", tensors).folder)
    other = load_model(bundle.save(tmp_path / "other", {p: v * 0.5 for p, v in tensors.items()}).folder)
    assert tokenize(model) == tokenize(same) == tokenize(in_a_new_process(model, monkeypatch))
    different = [other, load_model(saved.folder, window=24), load_model(saved.folder, precision="bfloat16")]
    assert len({tokenize(one) for one in [model, *different]}) == 4


def test_half_precision_is_close_and_still_float32(saved: ModelBundle, windows: np.ndarray) -> None:
    half = load_model(saved.folder, precision="bfloat16")(windows)
    assert half.dtype == np.float32
    difference = np.abs(half - load_model(saved.folder)(windows)).mean()
    assert 0 < difference < 0.01


def test_window_and_steps_can_be_others_than_in_training(saved: ModelBundle) -> None:
    model = load_model(saved.folder, window=24, steps=5)
    assert (model.spec.window, model.spec.steps) == (24, 5)
    assert model(np.zeros((1, 5, 24, 24, 2), np.float32)).shape == (1, 24, 24, 2)


def test_it_says_what_it_is(model: KerasPredictor, saved: ModelBundle, h5_file: Path) -> None:
    assert repr(model) == "<KerasPredictor tiny: grd, insar; 3 steps, 16 px; random weights>"
    assert model.bundle == saved
    assert load_model(h5_file, window=16, steps=3).bundle is None


def test_precision_changes_the_identity_and_not_the_weights(golden: Path) -> None:
    model = load_model(golden / "tweightedpool_grdinsar_filters8.h5", window=32)
    fast = model.with_precision("bfloat16")
    assert fast.spec == model.spec
    assert tokenize(fast) != tokenize(model)
    assert fast.with_precision("float32") is model


# --- windows, dropout, memory


def test_another_window_is_the_model_loaded_with_it(model: KerasPredictor, saved: ModelBundle) -> None:
    wide = model.with_window(24)
    assert wide.spec.window == wide.recipe.architecture.window == 24
    assert wide is load_model(saved.folder, window=24)
    assert tokenize(wide) != tokenize(model)


def test_dropped_channels_depend_on_the_windows_seed_alone(model: KerasPredictor, windows: np.ndarray) -> None:
    assert isinstance(model, SamplingPredictor)
    seeds = np.array([11, 12, 13], np.uint64)
    together = model.sample(windows, seeds, 0.3)
    assert together.shape == (3, 16, 16, 2)
    alone = np.concatenate([model.sample(windows[i : i + 1], seeds[i : i + 1], 0.3) for i in range(3)])
    assert np.allclose(together, alone, rtol=0, atol=1e-5)
    assert np.array_equal(model.sample({"sar": windows}, seeds, 0.3), together)
    other = model.sample(windows, seeds + np.uint64(100), 0.3)
    assert (np.abs(other - together).max(axis=(1, 2, 3)) > 1e-3).all()
    # a rate at which nothing is dropped leaves the network as it is
    assert np.allclose(model.sample(windows, seeds, 1e-9), model(windows), rtol=0, atol=1e-5)
    assert model.sample(windows[:0], seeds[:0], 0.3).shape == (0, 16, 16, 2)
    with pytest.raises(ModelMismatchError, match="2 seeds for 3 windows"):
        model.sample(windows, seeds[:2], 0.3)


def test_the_share_of_dropped_channels_is_the_rate_and_the_rest_is_scaled_up(
    model: KerasPredictor, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def network(batch: np.ndarray, factors: np.ndarray) -> np.ndarray:
        seen.append(factors)
        return np.zeros((len(batch), 16, 16, 2), np.float32)

    monkeypatch.setattr(predictor, "compiled", lambda *args: network)
    model.sample(np.repeat(windows, 100, axis=0), np.arange(300, dtype=np.uint64), 0.25)
    (factors,) = seen
    # filters 4, 8, 16, 32 down and 16, 8, 4 up
    assert factors.shape == (300, 88)
    assert set(np.unique(factors)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (factors == 0).mean() == pytest.approx(0.25, abs=0.01)


def test_factors_reach_the_channels_of_every_block(model: KerasPredictor, windows: np.ndarray) -> None:
    network = predictor.compiled(model.recipe.architecture, model.recipe.read(), "float32", True)
    ones = np.ones((3, 88), np.float32)
    plain = network(windows, ones)
    assert np.allclose(plain, model(windows), rtol=0, atol=1e-5)
    for begin, end in pairwise((0, 4, 12, 28, 60, 76, 84, 88)):
        dropped = ones.copy()
        dropped[1, begin:end] = 0
        change = np.abs(network(windows, dropped) - plain).max(axis=(1, 2, 3))
        assert change[1] > 1e-3
        assert change[[0, 2]].max() < 1e-5


def limited(limit: int, sizes: list[int]) -> Callable[..., np.ndarray]:
    """Answer with each window's mean, and run out of memory with more windows than the limit."""
    from icemap_xr.models._backend import tf

    def network(batch: np.ndarray, *_: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        if len(batch) > limit:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return np.broadcast_to(batch.mean(axis=(1, 2, 3, 4))[:, None, None, None], (len(batch), 16, 16, 2))

    return network


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_a_batch_that_does_not_fit_in_memory_is_halved_and_the_size_remembered(
    model: KerasPredictor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(predictor, "compiled", lambda *args: limited(limit, sizes))
    windows = np.random.default_rng(0).random((8, 3, 16, 16, 2), np.float32)
    out = model(windows)
    np.testing.assert_array_equal(out[:, 0, 0, 0], windows.mean(axis=(1, 2, 3, 4)))
    assert "do not fit in memory" in caplog.text
    sizes.clear()
    model.sample(windows, np.arange(8, dtype=np.uint64), 0.1)
    assert max(sizes) <= limit, "the size that fits was forgotten"
    assert sum(sizes) == 8


def test_a_single_window_that_does_not_fit_says_what_to_do(
    model: KerasPredictor, windows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "compiled", lambda *args: limited(0, []))
    with pytest.raises(DeviceMemoryError, match=r"16 px \(batch_size=1\).*window="):
        model(windows)


def test_memory_of_a_gpu_grows_as_needed() -> None:
    from icemap_xr.models import _backend  # noqa: F401  sets it before TensorFlow is imported

    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_a_map_of_passes_does_not_depend_on_batches_or_chunks(golden: Path) -> None:
    # with fewer channels or smaller windows TensorFlow's sums depend on the batch, see above
    model = load_model(golden / "tweightedpool_grdinsar_filters8.h5", window=64)
    ds = yearly_dataset((100, 64), steps=15)
    options: dict[str, Any] = {"mc_dropout": 3, "mc_rate": 0.2, "seed": 4}
    alone = ds.icemap.predict(model, batch_size=1, **options)
    four = ds.icemap.predict(model, batch_size=4, **options)
    chunked = [
        ds.chunk(chunks).icemap.predict(model, batch_size=4, **options).load() for chunks in ({"y": 7}, {"x": 5})
    ]
    for name in ("probability", "probability_std"):
        np.testing.assert_allclose(alone[name], four[name], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(chunked[0][name], chunked[1][name])
        np.testing.assert_allclose(chunked[0][name], four[name], rtol=0, atol=1e-6)
    assert float(alone.probability_std.min()) > 0
