"""A predictor is loaded once per process, travels as a recipe, and keeps its contract."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dask.base import tokenize

from icemap_xr.errors import ModelMismatchError, UnknownModelError, WeightsError
from icemap_xr.models import icemapper, predictor
from icemap_xr.models.bundle import WEIGHTS, ModelBundle
from icemap_xr.models.icemapper import Tensors
from icemap_xr.models.predictor import KerasPredictor
from icemap_xr.models.registry import load_model
from icemap_xr.types import Predictor


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
