"""A model card, written from nothing but the numbers in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from icemap_xr.models.bundle import ModelBundle


def model_card(bundle: ModelBundle) -> str:
    """Return the card of a bundle that `icemap_xr.training.recipe.run_recipe` made.

    Parameters
    ----------
    bundle
        The bundle, with its training provenance.

    Returns
    -------
    str
        Markdown.
    """
    training, recipe = bundle.training, bundle.training["recipe"]
    architecture, real = bundle.architecture, training.get("real", False)
    features = ", ".join(
        f"{f.name} ({f.minimum:g} to {f.maximum:g}{'' if f.units == '1' else ' ' + f.units})"
        for f in bundle.inputs[0].features
    )
    warning = (
        ""
        if real
        else (
            " It has never seen a real scene. Use it to try the toolkit, to test an installation, and in lessons; do "
            "not report glacier areas from it."
        )
    )
    note = bundle.note or "a network trained with icemap-xr"
    parts = [
        f"# Model card: {bundle.name}",
        f"**{note[:1].upper()}{note[1:]}.**{warning}",
        "## What it is",
        f"ICEmapper network ({architecture.pooling}) with {architecture.filters} start filters, "
        f"{architecture.parameters:,} weights, {architecture.steps} scenes a year, windows of {architecture.window} "
        f"px. Features, scaled to 0..1 from: {features}. Weights sha256 `{bundle.digest}`.",
        "## Training",
        _training(training, recipe, real),
        "## Figures on ground it has not seen" if real else "## Figures on regions it has not seen",
        *_figures(bundle, real),
        "## Limits",
        _REAL_LIMITS if real else _SIMULATED_LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


_REAL_LIMITS = (
    "The figures hold for ground, years, sensors and scenes such as those it was judged on, and labels count as true. "
    "Judge it on a region and year of your own before you report areas there (`icemap evaluate`)."
)
_SIMULATED_LIMITS = (
    "Simulated speckle, seasons and terrain are simpler than real ones; there is no other satellite, polarisation, "
    "orbit or climate. Where its maps are wrong on simulated regions says little about where they would be on real "
    "ground."
)


def _training(training: Mapping[str, Any], recipe: Mapping[str, Any], real: bool) -> str:
    tiles = training.get("tiles") or {purpose: _count(sets) for purpose, sets in recipe["data"].items()}
    unit = "tiles" if real else "region-years"
    told = (
        f"{training['data'][:1].upper()}{training['data'][1:]}: {tiles['train']} {unit} for training, "
        f"{tiles['validation']} for validation, {tiles['calibration']} for calibration, {tiles['test']} for the "
        "figures below. "
    )
    if not real:
        told += "No seed serves two purposes, and seeds 0 to 99 are in none. "
    return (
        f"{told}{training['seconds'] / 60:.0f} minutes of epochs; best epoch {training['best_epoch']} of "
        f"{recipe['train']['epochs']}, mean IoU of its validation windows {training['validation_iou']:.3f}."
    )


def _figures(bundle: ModelBundle, real: bool) -> list[str]:
    test, recipe = bundle.training["test"], bundle.training["recipe"]
    overall = test["overall"]
    shift = "" if real else ", radar properties of all classes moved at random by region"
    lines = [
        f"* Pooled over all {len(test['iou'])} {'tiles' if real else 'maps'}: IoU {_number(overall['iou'])}, precision "
        f"{_number(overall['precision'])}, recall {_number(overall['recall'])}.",
        f"* Expected calibration error: {test['ece']:.4f} as it is, {test['ece_calibrated']:.4f} calibrated, on "
        f"{'tiles' if real else 'regions'} the calibrator was not fitted on.",
    ]
    if test["blocks"]:
        lines.append(
            f"* Error of the calibrated glacier area in a {recipe['block']} block: mean "
            f"{test['block_error_mean']:+.4f}, standard deviation {test['block_error_std']:.4f} of the block's area "
            f"({test['blocks']} blocks)."
        )
    head = f"Whole {'tiles' if real else 'maps'} with {recipe['overlap']:.0%} overlap{shift}."
    return [head, *([] if real else [_table(bundle)]), "\n".join(lines)]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _count(sets: list[Mapping[str, Any]]) -> int:
    return sum(len(one["seeds"]) * len(one["years"]) for one in sets)


def _table(bundle: ModelBundle) -> str:
    """Return IoU by map, with the simpler classifiers where they were run."""
    recipe, iou = bundle.training["recipe"], bundle.training["test"]["iou"]
    first = recipe["data"]["test"][0]
    names = [f"sim-{seed}_{year}" for seed in first["seeds"] for year in first["years"]]
    # a map without ice, true or mapped, has no IoU
    kept = [k for k, name in enumerate(names) if iou.get(name) is not None]
    columns = [names[k] for k in kept]
    if not columns:
        return "No map of the first set has an IoU: there is no ice in them, true or mapped."
    rows = {bundle.name: [iou[name] for name in columns]}
    rows |= {name: [values[k] for k in kept] for name, values in recipe["baselines"].items()}
    others = [value for name, value in iou.items() if name not in columns and value is not None]
    lines = [f"| IoU | {' | '.join(columns)} | mean |", "|---|" + "---|" * (len(columns) + 1)]
    for name, values in rows.items():
        cells = [f"{value:.3f}" for value in (*values, sum(values) / len(values))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    if recipe["baselines"]:
        table += (
            "\n\nThe simpler classifiers come from `benchmarks/difficulty.py`, trained on six regions whose radar "
            "properties were moved half as far; the network saw many more. They say how hard the maps are, not which "
            "method is best."
        )
    if others:
        mean = sum(others) / len(others)
        table += (
            f"\n\nOn {len(others)} more maps, of other seeds, years and landscapes, the IoU is {min(others):.3f} to "
        )
        table += f"{max(others):.3f}, mean {mean:.3f}."
    return table
