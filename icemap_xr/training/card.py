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
    training, test = bundle.training, bundle.training["test"]
    recipe, architecture = training["recipe"], bundle.architecture
    maps = {purpose: _count(sets) for purpose, sets in recipe["data"].items()}
    features = ", ".join(
        f"{f.name} ({f.minimum:g} to {f.maximum:g}{'' if f.units == '1' else ' ' + f.units})"
        for f in bundle.inputs[0].features
    )
    parts = [
        f"# Model card: {bundle.name}",
        f"**{bundle.note[:1].upper()}{bundle.note[1:]}.** It has never seen a real scene. Use it to try the toolkit, "
        "to test an installation, and in lessons; do not report glacier areas from it.",
        "## What it is",
        f"ICEmapper network ({architecture.pooling}) with {architecture.filters} start filters, "
        f"{architecture.parameters:,} weights, {architecture.steps} scenes a year, windows of {architecture.window} "
        f"px. Features, scaled to 0..1 from: {features}. Weights sha256 `{bundle.digest}`.",
        "## Training",
        f"{training['data'][:1].upper()}{training['data'][1:]}. Recipe `pipelines/train_demo.yaml`: "
        f"{maps['train']} region-years for training, {maps['validation']} for validation, {maps['calibration']} for "
        f"calibration, {maps['test']} for the figures below; no seed serves two purposes, and seeds 0 to 99 are in "
        f"none. {training['seconds'] / 60:.0f} "
        f"minutes on a shared 2-core CPU; best epoch {training['best_epoch']} of {recipe['train']['epochs']}.",
        "## Figures on regions it has not seen",
        f"Whole maps with {recipe['overlap']:.0%} overlap, radar properties of all classes moved at random by region.",
        _table(bundle),
        f"* Pooled over all {len(test['iou'])} maps: IoU {test['overall']['iou']:.3f}, precision "
        f"{test['overall']['precision']:.3f}, recall {test['overall']['recall']:.3f}.",
        f"* Expected calibration error: {test['ece']:.4f} as it is, {test['ece_calibrated']:.4f} calibrated, on "
        "regions the calibrator was not fitted on.",
        f"* Error of the calibrated glacier area in a {recipe['block']} block: mean {test['block_error_mean']:+.4f}, "
        f"standard deviation {test['block_error_std']:.4f} of the block's area ({test['blocks']} blocks).",
        "## Limits",
        "How long to train and which weights to keep was decided after a look at earlier figures of some of these "
        "regions, so the figures flatter a little. The weights come from one training in three stages; the recipe as "
        "it stands asks for the same epochs but was not run from the start. Regions with little ice, and maps "
        "narrower than 4 km, come out worse.",
        "Simulated speckle, seasons and terrain are simpler than real ones; there is no other satellite, polarisation, "
        "orbit or climate. Where its maps are wrong on simulated regions says little about where they would be on real "
        "ground.",
    ]
    return "\n\n".join(parts) + "\n"


def _count(sets: list[Mapping[str, Any]]) -> int:
    return sum(len(one["seeds"]) * len(one["years"]) for one in sets)


def _table(bundle: ModelBundle) -> str:
    """Return IoU by map, with the simpler classifiers where they were run."""
    recipe, iou = bundle.training["recipe"], bundle.training["test"]["iou"]
    first = recipe["data"]["test"][0]
    columns = [f"sim-{seed}_{year}" for seed in first["seeds"] for year in first["years"]]
    rows = {f"{bundle.name}": [iou[name] for name in columns], **recipe["baselines"]}
    others = [value for name, value in iou.items() if name not in columns]
    lines = [f"| IoU | {' | '.join(columns)} | mean |", "|---|" + "---|" * (len(columns) + 1)]
    for name, values in rows.items():
        cells = [f"{value:.3f}" for value in (*values, sum(values) / len(values))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    table = "\n".join(lines)
    if recipe["baselines"]:
        mean = sum(others) / len(others)
        table += (
            f"\n\nOn {len(others)} more maps, of other seeds, years and landscapes, the IoU is {min(others):.3f} to "
        )
        table += f"{max(others):.3f}, mean {mean:.3f}."
    return table
