"""Files of a training run, each written whole or not at all: best weights, state to resume from, log."""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from icemap_xr.errors import InputError, WeightsError

STATE, BEST, LOG, OPTIONS = "state.safetensors", "best.safetensors", "log.csv", "options.json"


@dataclass(frozen=True)
class EpochRow:
    """What the log says about one epoch: epoch from 1, losses, IoUs (0..1), last learning rate, seconds."""

    epoch: int
    loss: float
    iou: float
    val_loss: float
    val_iou: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """How far a training run has come: the rows of its log."""

    rows: tuple[EpochRow, ...] = ()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that after a crash the old one or the new one is there, never half of it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def claim(folder: Path, options: Mapping[str, Any]) -> None:
    """Take a folder for a run with these options, or take it up again.

    Raises
    ------
    InputError
        The folder holds a run with other options, or other files.
    """
    path = folder / OPTIONS
    text = json.dumps(options, indent=1, sort_keys=True)
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise InputError(f"{folder} holds a training with other options: give its options or another folder")
        return
    if folder.exists() and (not folder.is_dir() or any(not one.name.startswith(".") for one in folder.iterdir())):
        raise InputError(f"{folder} is not an empty folder: give another one")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def save_state(folder: Path, variables: Sequence[NDArray[Any]], progress: Progress) -> None:
    """Write the state after an epoch, then the log that follows from it.

    Parameters
    ----------
    folder
        The run's folder.
    variables
        All variables of the network and its optimizer, random states included, in order.
    progress
        How far training has come.
    """
    # ascontiguousarray would give a scalar a dimension
    arrays = {f"{k:05d}": np.asarray(values, order="C") for k, values in enumerate(variables)}
    rows = [asdict(row) for row in progress.rows]
    write_whole(folder / STATE, safetensors.numpy.save(arrays, {"rows": json.dumps(rows)}))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochRow.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(folder / LOG, text.getvalue().encode())


def load_state(folder: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[list[NDArray[Any]], Progress] | None:
    """Read what `save_state` wrote; None where nothing has been written yet.

    Raises
    ------
    WeightsError
        The file is damaged or belongs to another network.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    remedy = "remove the folder and train again"
    try:
        with safetensors.safe_open(path, "numpy") as file:
            rows = json.loads(file.metadata()["rows"])
            arrays = [file.get_tensor(name) for name in sorted(file.keys())]
        progress = Progress(tuple(EpochRow(**row) for row in rows))
    except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is damaged ({type(error).__name__}): {remedy}") from None
    if [one.shape for one in arrays] != list(shapes):
        raise WeightsError(f"{path} holds another network's state: {remedy}")
    return arrays, progress


def save_best(folder: Path, tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the best weights so far."""
    arrays = {path: np.ascontiguousarray(values) for path, values in tensors.items()}
    write_whole(folder / BEST, safetensors.numpy.save(arrays))


def load_best(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Read the best weights of a run.

    Raises
    ------
    WeightsError
        There are none, or the file is damaged.
    """
    path = folder / BEST
    try:
        return safetensors.numpy.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}): finish or repeat the training") from None
