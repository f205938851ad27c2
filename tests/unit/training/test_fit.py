"""Training: reproducible, resumable, best weights kept; what does not fit is refused before it starts."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from icemap_xr.errors import InputError, ModelError, WeightsError
from icemap_xr.models import icemapper
from icemap_xr.models._backend import tf
from icemap_xr.models.icemapper import Architecture
from icemap_xr.training import state, trainer
from icemap_xr.training.fit import FitResult, TrainOptions, best_row, fit, window_iou
from icemap_xr.training.state import EpochRow, Progress
from icemap_xr.training.tiles import Tile


class KilledError(Exception):
    pass


def killed(row: EpochRow) -> None:
    raise KilledError


def curve(result: FitResult) -> list[dict[str, float]]:
    return [{key: value for key, value in asdict(row).items() if key != "seconds"} for row in result.rows]


SCRIPT = """
import sys
import numpy as np
from icemap_xr.models.icemapper import Architecture
from icemap_xr.training.fit import TrainOptions, fit
from icemap_xr.training.tiles import Tile, feature_specs

def make(seed):
    rng = np.random.default_rng(seed)
    glacier = np.add.outer(np.arange(40), np.arange(48)) > 30 + 20 * seed
    scenes = (0.7 - 0.3 * glacier + rng.normal(0, 0.05, (6, 40, 48))).astype(np.float32)
    series, index = {"grd": scenes, "insar": scenes[::-1]}, {"grd": np.arange(1, 5), "insar": np.arange(1, 5)}
    labels = np.stack([~glacier, glacier], -1).astype(np.float32)
    return Tile(f"tile-{seed}", feature_specs(("grd", "insar")), series, index, labels, (slice(0, 40), slice(0, 48)))

def train(folder, on_epoch=None, **change):
    values = dict(epochs=3, restarts=(1, 3), batch_size=2, batches_per_epoch=3, learning_rate=2e-3, dropout=0.2,
                  frozen_epochs=1, overhang=0.5, seed=5)
    options = TrainOptions(**{**values, **change})
    network = Architecture(steps=4, filters=8, window=16)
    return fit(network, [make(0), make(1)], [make(2)], options, folder, on_epoch=on_epoch)

if __name__ == "__main__":
    train(sys.argv[1], lambda row: print("epoch", row.epoch, flush=True))
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    module = ModuleType("script")
    exec(compile(SCRIPT, "script", "exec"), module.__dict__)
    return module


@pytest.fixture(scope="module")
def finished(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """The training of the script, not interrupted."""
    result: FitResult = script.train(tmp_path_factory.mktemp("fit") / "run")
    return result


class Untrainable:
    """A network whose loss is not a number."""

    def __init__(self, architecture: Architecture, options: TrainOptions) -> None:
        pass

    def variables(self) -> list[np.ndarray]:
        return []

    def begin_epoch(self, epoch: int) -> None:
        pass

    def step(self, batch: np.ndarray, labels: np.ndarray, rate: float) -> tuple[float, np.ndarray]:
        return np.nan, labels

    def judge(self, batch: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        return np.nan, labels


def test_a_log_and_the_best_weights_are_kept(finished: FitResult) -> None:
    with (finished.folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[1]["loss"]) == finished.rows[1].loss
    assert finished.best.val_iou == max(row.val_iou for row in finished.rows)
    assert 0 <= finished.best.val_iou <= 1
    assert finished.rows[0].learning_rate == pytest.approx(0.5 * 2e-3 * (1 + np.cos(2 * np.pi / 3)))
    assert finished.rows[2].learning_rate == pytest.approx(0.5 * 2e-3 * (1 + np.cos(5 * np.pi / 6)))
    icemapper.check_tensors(finished.weights(), Architecture(steps=4, filters=8, window=16), "the weights")


def test_a_killed_training_goes_on_to_the_same_curve_and_weights(
    script: ModuleType, finished: FitResult, tmp_path: Path
) -> None:
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    with subprocess.Popen([sys.executable, path, tmp_path / "run"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "epoch 1\n"
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    # threads and logs may be others than before
    again: FitResult = script.train(tmp_path / "run", workers=1, tensorboard=True)
    assert curve(again) == curve(finished)
    weights, expected = again.weights(), finished.weights()
    assert all(weights[name].tobytes() == expected[name].tobytes() for name in expected)
    assert not [one for one in (tmp_path / "run").iterdir() if one.suffix == ".tmp"]
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_a_finished_training_is_not_repeated(script: ModuleType, finished: FitResult) -> None:
    assert script.train(finished.folder, killed).rows == finished.rows


def test_the_distance_penalty_and_half_precision_train(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    call = 'train(sys.argv[1], loss="distance_focal", precision="bfloat16", epochs=1, restarts=(1,), frozen_epochs=0)'
    path.write_text(SCRIPT.split("if __name__")[0] + call)
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0"}
    subprocess.run([sys.executable, path, tmp_path / "run"], env=environment, check=True)
    with (tmp_path / "run" / "log.csv").open() as file:
        assert all(np.isfinite(float(row["val_loss"])) for row in csv.DictReader(file))
    assert all(values.dtype == np.float32 for values in state.load_best(tmp_path / "run").values())


def test_the_log_for_tensorboard_needs_no_tensorboard(tmp_path: Path) -> None:
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("tensorboard"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from pathlib import Path
from icemap_xr.training.state import EpochRow
from icemap_xr.training.trainer import Trainer
Trainer.tensorboard(None, Path(sys.argv[1]), EpochRow(1, 0.5, 0.1, 0.4, 0.2, 1e-3, 3.0))
assert not [name for name in sys.modules if name.split(".")[0] == "tensorboard"]
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "log"], check=True)
    (events,) = (tmp_path / "log").iterdir()
    assert b"val_iou" in events.read_bytes()


def test_half_precision_is_refused_where_it_gives_nan(script: ModuleType, tmp_path: Path) -> None:
    if tf.config.list_physical_devices("GPU") or os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        pytest.skip("half precision works here")
    with pytest.raises(ModelError, match="gives NaN in training on this processor: use 'float32'"):
        script.train(tmp_path / "run", precision="bfloat16")


def test_a_run_with_other_options_is_not_mixed_in(script: ModuleType, finished: FitResult) -> None:
    with pytest.raises(InputError, match="holds a training with other options"):
        script.train(finished.folder, loss="distance_focal")


def test_a_folder_with_other_files_is_refused(
    architecture: Architecture, tiles: list[Tile], options: TrainOptions, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder"):
        fit(architecture, tiles, tiles, options, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_training(
    architecture: Architecture,
    tiles: list[Tile],
    options: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trainer, "Trainer", Untrainable)
    with pytest.raises(ModelError, match="the loss is nan in epoch 1, batch 1: give a learning_rate below"):
        fit(architecture, tiles, tiles, options, tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"no tensors", None])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes | None) -> None:
    arrays = [np.zeros((2, 3), np.float32), np.array(7, np.int64)]
    progress = Progress((EpochRow(1, 0.5, 0.1, 0.4, 0.2, 1e-3, 3.0),))
    state.save_state(tmp_path, arrays, progress)
    loaded = state.load_state(tmp_path, [(2, 3), ()])
    assert loaded is not None
    assert loaded[1] == progress
    path = tmp_path / state.STATE
    path.write_bytes(path.read_bytes()[:-5] if content is None else content)
    with pytest.raises(WeightsError, match="is damaged"):
        state.load_state(tmp_path, [(2, 3), ()])


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    state.save_state(tmp_path, [np.zeros((2, 3), np.float32)], Progress())
    with pytest.raises(WeightsError, match="another network"):
        state.load_state(tmp_path, [(3, 2)])
    assert state.load_state(tmp_path / "nothing", []) is None


def test_the_best_epoch_is_the_first_of_equal_ones() -> None:
    rows = [EpochRow(k, 1.0, 0.0, loss, iou, 1e-3, 1.0) for k, (loss, iou) in enumerate([(3, 0.2), (1, 0.5), (1, 0.5)])]
    rows.append(EpochRow(3, 1.0, 0.0, 2, 0.6, 1e-3, 1.0))
    assert best_row(rows, "val_loss").epoch == 1
    assert best_row(rows, "val_iou").epoch == 3
    assert best_row(rows[:3], "val_iou").epoch == 1


def test_window_iou_is_per_window_and_leaves_unknown_pixels_out() -> None:
    labels = np.zeros((3, 2, 2, 2), np.float32)
    labels[0, :, 0, 1] = labels[0, :, 1, 0] = 1  # left half glacier
    labels[1, ..., 0] = 1  # no glacier
    probability = np.zeros_like(labels)
    probability[0, 0, :, 1] = probability[0, 1, :, 0] = 1  # upper half mapped
    probability[1, ..., 0] = 1
    probability[2, ..., 1] = 1  # mapped where nothing is known
    np.testing.assert_allclose(window_iou(labels, probability, 1), [1 / 3, 1], rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 200}, "the last of restarts 150"),
        ({"restarts": (10, 10), "epochs": 5}, "restarts are"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"loss": "dice"}, "loss is 'dice': allowed are focal, distance_focal"),
        ({"keep": "val_f1"}, "keep is 'val_f1': allowed are val_iou, val_loss"),
        ({"learning_rate": 0.0}, "must be > 0"),
        ({"batches_per_epoch": 0}, "batches_per_epoch is 0"),
    ],
)
def test_bad_options_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainOptions(**values)


@pytest.mark.parametrize(
    ("network", "change", "message"),
    [
        ({"window": None}, {}, "has no window"),
        ({"features": 1}, {}, "the network takes 1"),
        ({}, {"glacier": 2}, "classes 0 to 1"),
        ({"steps": 5}, {}, "has 4 steps of grd, needed are 5"),
        ({}, {"features": ("grd", "rtc")}, "has no rtc"),
        ({"classes": 3}, {}, "labels of 2 classes, needed are 3"),
        ({"window": 48}, {}, "no validation tile holds a whole window"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    architecture: Architecture,
    tiles: list[Tile],
    options: TrainOptions,
    tmp_path: Path,
    network: dict[str, object],
    change: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        fit(replace(architecture, **network), tiles, tiles, replace(options, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tiles_that_teach_nothing_are_refused(
    architecture: Architecture,
    tiles: list[Tile],
    options: TrainOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="there is no validation tile"):
        fit(architecture, tiles, [], options, tmp_path / "run")
    monkeypatch.setattr(trainer, "Trainer", Untrainable)
    monkeypatch.setattr(Untrainable, "step", lambda self, batch, labels, rate: (1.0, labels))
    monkeypatch.setattr(Untrainable, "judge", lambda self, batch, labels: (1.0, labels))
    # one tile among others is enough, and it is named: no label, nothing observed, or never both in one place
    unknown = replace(tiles[1], labels=np.zeros((40, 48, 2), np.float32))
    blank = replace(tiles[1], series={**tiles[1].series, "insar": np.full((6, 40, 48), np.nan, np.float32)})
    half = np.asarray(tiles[1].series["grd"]).copy()
    half[:, :20] = np.nan
    lower = np.asarray(tiles[1].labels).copy()
    lower[20:] = 0
    apart = replace(tiles[1], series={**tiles[1].series, "grd": half}, labels=lower)
    for bad in (unknown, blank, apart):
        for train, validation in (([tiles[0], bad], tiles), (tiles, [tiles[0], bad])):
            with pytest.raises(InputError, match="tile 'tile-1' has no pixel that is both labelled and observed"):
                fit(architecture, train, validation, options, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # a corner that no window meets
    corner = np.zeros((40, 48, 2), np.float32)
    corner[-1, -1, 1] = 1
    hidden = [replace(tile, labels=corner) for tile in tiles]
    for train, validation, what in ((hidden, tiles, "training"), (tiles, hidden, "validation")):
        with pytest.raises(InputError, match=f"no {what} window has a pixel that is both labelled and observed"):
            fit(architecture, train, validation, replace(options, overhang=0), tmp_path / what)
