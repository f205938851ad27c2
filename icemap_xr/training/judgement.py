"""What an evaluation leaves behind: JSON, a table, pictures, and a bundle that knows how wrong its maps are."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.predictor import KerasPredictor
from icemap_xr.training.scores import Evaluation, Reliability
from icemap_xr.types import Calibrator, StrPath

#: key of a calibrator's file under which the places stand that it was fitted on
PLACES = "places"
COLUMNS = ("tile", "tp", "tn", "fp", "fn", "accuracy", "precision", "recall", "f1", "iou", "block_error_mean")


def score_rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    """Yield one row per tile with `COLUMNS`, and one for all pixels together, called ``all``."""
    everything = [error for errors in found.block_errors.values() for error in errors]
    for name, scores in found.tiles.items():
        yield {"tile": name, **scores.to_json(), "block_error_mean": _mean(found.block_errors.get(name, ()))}
    yield {"tile": "all", **found.overall.to_json(), "block_error_mean": _mean(everything)}


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None


def write_evaluation(found: Evaluation, folder: Path) -> None:
    """Write ``evaluation.json``, ``tiles.csv``, ``reliability.png`` and ``iou.png`` into a folder."""
    from icemap_xr.figures import reliability_figure
    from icemap_xr.plot import save_figure

    (folder / "evaluation.json").write_text(json.dumps(found.to_json(), indent=1, allow_nan=False), encoding="utf-8")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(score_rows(found))
    (folder / "tiles.csv").write_text(text.getvalue(), encoding="utf-8")
    tables = {"as predicted": _table(found.reliability)}
    if found.calibrated is not None:
        tables["calibrated"] = _table(found.calibrated)
    save_figure(reliability_figure(tables), folder / "reliability.png")
    save_figure(iou_figure(found), folder / "iou.png")


def _table(reliability: Reliability) -> xr.Dataset:
    names = ("pixels", "mean_probability", "ice_fraction")
    columns = {name: ("bin", np.array(getattr(reliability, name), float)) for name in names}
    return xr.Dataset({**columns, "ece": ((), reliability.ece)})


def iou_figure(found: Evaluation) -> Any:
    """Draw how the IoU spreads over the tiles; tiles without ice, true or mapped, have none."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    values = [scores.iou for scores in found.tiles.values() if scores.iou is not None]
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.hist(values, bins=20, range=(0, 1), color="#0072B2")
    if found.overall.iou is not None:
        ax.axvline(found.overall.iou, color="#D55E00", label=f"all pixels together: {found.overall.iou:.3f}")
        ax.legend(frameon=False, loc="upper left")
    ax.set(xlabel="IoU", ylabel="tiles", xlim=(0, 1), title=f"{found.model}: {len(values)} tiles")
    return figure


def write_calibrator(calibrator: Calibrator, places: set[str], path: Path) -> None:
    """Write a calibrator's JSON with the places it was fitted on.

    Raises
    ------
    OutputExistsError
        The file exists.
    """
    content = calibrator.to_json() | {PLACES: sorted(places)}
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=1))
    except FileExistsError:
        raise OutputExistsError(f"{path} exists already: give another file or remove it") from None


def check_unseen(path: Path, places: set[str]) -> None:
    """Raise `InputError` where a calibrator's file was fitted on a place that is to be judged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # who reads the calibrator says what is wrong with it
    seen = content.get(PLACES, []) if isinstance(content, dict) else []
    both = sorted(set(map(str, seen)) & places) if isinstance(seen, list) else []
    if both:
        raise InputError(
            f"{path} was fitted on {len(both)} of the places that are to be judged, such as {both[0]!r}: its figures "
            "would flatter; judge on other tiles"
        )


def judged_bundle(
    predictor: KerasPredictor,
    folder: StrPath,
    *,
    calibrator: Calibrator | None,
    errors: Mapping[str, Any] | None,
    edges: Mapping[str, Any] | None = None,
    judged: Mapping[str, Any],
) -> ModelBundle:
    """Save the model as a new bundle that brings a calibration and its block errors.

    Parameters
    ----------
    predictor
        The model, from a bundle or a weight file.
    folder
        Where to; must not exist.
    calibrator
        The calibration with which the block errors were found; None for none.
    errors
        Block errors as `bootstrap_area` takes them, or None.
    edges
        Errors of the ice edge as `outlines` takes them, or None.
    judged
        What it was judged on and the figures; kept under ``judged`` in what the bundle says about its training.

    Raises
    ------
    OutputExistsError
        Something is there already.
    """
    spec, bundle = predictor.spec, predictor.bundle
    training = {} if bundle is None else dict(bundle.training)
    made = ModelBundle(
        spec.name,
        predictor.recipe.architecture,
        spec.inputs,
        spec.classes,
        spec.glacier_class,
        note=spec.note,
        calibration=None if calibrator is None else calibrator.to_json(),
        block_errors=None if errors is None else dict(errors),
        edge_errors=None if edges is None else dict(edges),
        training=training | {"judged": {**judged, "date": time.strftime("%Y-%m-%d", time.gmtime())}},
    )
    return made.save(folder, predictor.recipe.read())


def places_of(names: Any, place: Callable[[str], str]) -> set[str]:
    """Return the places of tiles, by their names."""
    return {place(name) for name in names}
