"""Contract of every network, and its equality with the published code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from icemap_xr.errors import ModelError, WeightsError
from icemap_xr.models import icemapper
from icemap_xr.models._backend import keras
from icemap_xr.models.icemapper import Architecture
from icemap_xr.models.legacy_h5 import load_legacy_h5, read_legacy_h5

TINY = [
    Architecture("tweightedpool", steps=5, features=2, classes=2, filters=4, window=16),
    Architecture("tweightedpool", steps=1, features=3, classes=4, filters=2, window=8),
    Architecture("maxpool", steps=4, features=1, classes=3, filters=4, window=24),
    Architecture("maxpool", steps=1, features=2, classes=2, filters=4, window=None),
]
GOLDEN = ["tweightedpool_grdinsar_filters8", "maxpool_grd_filters8"]


def batch(architecture: Architecture, count: int = 2) -> np.ndarray:
    side = architecture.window or 16
    shape = (count, architecture.steps, side, side, architecture.features)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("name", GOLDEN)
def test_output_equals_that_of_the_published_code(golden: Path, name: str) -> None:
    reference = np.load(golden / f"{name}.npz")
    model = load_legacy_h5(golden / f"{name}.h5", window=32)
    difference = np.abs(model(reference["x"], training=False).numpy() - reference["y"]).max()
    assert difference < 1e-4, f"largest difference to the published code is {difference:.2e}"


@pytest.mark.parametrize("level", range(icemapper.LEVELS))
def test_the_reference_tells_swapped_poolings_apart(golden: Path, level: int) -> None:
    reference = np.load(golden / "tweightedpool_grdinsar_filters8.npz")
    weights = read_legacy_h5(golden / "tweightedpool_grdinsar_filters8.h5", window=32)
    other = {f"down_{level}": f"skip_{level}", f"skip_{level}": f"down_{level}"}
    swapped = {}
    for path, values in weights.tensors.items():
        layer, rest = path.split("/", 1)
        swapped[f"{other.get(layer, layer)}/{rest}"] = values
    icemapper.check_tensors(swapped, weights.architecture, "swapped")
    model = icemapper.build(weights.architecture)
    icemapper.assign(model, swapped)
    difference = np.abs(model(reference["x"], training=False).numpy() - reference["y"]).max()
    assert difference > 1e-3, f"a swap at level {level} changes the output by only {difference:.2e}"


@pytest.mark.parametrize(
    ("pooling", "features", "parameters", "trainable"),
    [
        ("tweightedpool", 2, 4_686_434, 4_683_170),
        ("tweightedpool", 1, 4_685_538, None),
        ("maxpool", 1, 4_358_850, None),
    ],
)
def test_published_networks_have_the_published_number_of_parameters(
    pooling: icemapper.Pooling, features: int, parameters: int, trainable: int | None
) -> None:
    architecture = Architecture(pooling, features=features, window=32)
    model = icemapper.build(architecture)
    assert model.count_params() == architecture.parameters == parameters
    if trainable:
        assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable


@pytest.mark.parametrize("architecture", TINY, ids=str)
def test_layout_names_every_weight_of_the_network(architecture: Architecture) -> None:
    model = icemapper.build(architecture, dropout=0.1)
    assert {weight.path: tuple(weight.shape) for weight in model.weights} == icemapper.shapes(architecture)


@pytest.mark.parametrize("precision", icemapper.PRECISIONS)
@pytest.mark.parametrize("architecture", TINY, ids=str)
def test_output_is_a_float32_distribution_over_classes(
    architecture: Architecture, precision: icemapper.Precision
) -> None:
    x = batch(architecture)
    out = icemapper.build(architecture, precision=precision)(x, training=False).numpy()
    assert out.shape == (*x.shape[:1], *x.shape[2:4], architecture.classes)
    assert out.dtype == np.float32
    assert np.allclose(out.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("architecture", TINY, ids=str)
def test_half_precision_is_close_to_float32(architecture: Architecture) -> None:
    exact = icemapper.build(architecture)
    half = icemapper.build(architecture, precision="bfloat16")
    icemapper.assign(half, icemapper.extract(exact))
    x = batch(architecture)
    difference = np.abs(exact(x, training=False).numpy() - half(x, training=False).numpy()).mean()
    assert 0 < difference < 0.01


@pytest.mark.parametrize("architecture", TINY, ids=str)
def test_keras_saves_and_loads_the_network_in_safe_mode(architecture: Architecture, tmp_path: Path) -> None:
    model = icemapper.build(architecture, dropout=0.1)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    x = batch(architecture)
    assert np.array_equal(model(x, training=False), again(x, training=False))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", TINY, ids=str)
def test_one_step_of_training_changes_every_trained_weight(
    architecture: Architecture, precision: icemapper.Precision
) -> None:
    keras.utils.set_random_seed(3)
    model = icemapper.build(architecture, dropout=0.1, precision=precision)
    # eagerly: for one step of a tiny network, compiling takes far longer than computing
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(), run_eagerly=True)
    before = icemapper.extract(model)
    x = batch(architecture)
    labels = np.random.default_rng(1).integers(0, architecture.classes, (*x.shape[:1], *x.shape[2:4]))
    loss = model.train_on_batch(x, np.eye(architecture.classes, dtype=np.float32)[labels])
    assert np.isfinite(loss)
    after = icemapper.extract(model)
    # a bias right before a normalisation is cancelled by it: its gradient is zero
    same = [path for path in before if np.array_equal(before[path], after[path]) and "/conv_" not in path]
    assert not same, f"training left {same} as they were"


def test_training_with_dropout_is_random_and_inference_is_not() -> None:
    model = icemapper.build(TINY[0], dropout=0.5)
    x = batch(TINY[0])
    assert not np.allclose(model(x, training=True), model(x, training=True))
    assert np.array_equal(model(x, training=False), model(x, training=False))


def test_an_open_window_gives_the_same_map_as_a_fixed_one() -> None:
    fixed = TINY[0]
    anywhere = Architecture(fixed.pooling, fixed.steps, fixed.features, fixed.classes, fixed.filters, None)
    one, other = icemapper.build(fixed), icemapper.build(anywhere)
    icemapper.assign(other, icemapper.extract(one))
    assert np.array_equal(one(batch(fixed), training=False), other(batch(fixed), training=False))


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"pooling": "meanpool"}, "meanpool"),
        ({"steps": 0}, "0"),
        ({"features": 1.5}, "1.5"),
        ({"classes": 1}, "1"),
        ({"filters": 1}, "1"),
        ({"window": 20}, "20"),
        ({"window": -8}, "-8"),
    ],
)
def test_an_impossible_architecture_is_refused_by_name_and_value(options: dict[str, object], value: str) -> None:
    with pytest.raises(ModelError, match=rf"{next(iter(options))} is .*{value}") as caught:
        Architecture(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"dropout": -0.1}, {"precision": "float64"}])
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(options))):
        icemapper.build(TINY[0], **options)


def test_tensors_are_checked_by_name_shape_and_value(architecture: Architecture, tensors: icemapper.Tensors) -> None:
    icemapper.check_tensors(tensors, architecture, "test")
    name = "head/bias"
    wrong = {
        "missing": {path: values for path, values in tensors.items() if path != name},
        "not part": {**tensors, "head/extra": tensors[name]},
        "shape": {**tensors, name: np.zeros(3, np.float32)},
        "NaN": {**tensors, name: np.array([np.nan, 0], np.float32)},
        "variance": {**tensors, "up_0/norm/moving_variance": -tensors["up_0/norm/moving_variance"]},
    }
    for reason, bad in wrong.items():
        with pytest.raises(WeightsError, match=reason):
            icemapper.check_tensors(bad, architecture, "test")
