"""How far off is the ice edge of a model's maps? Learns it on simulated regions, and puts it into a bundle.

    python benchmarks/edge_errors.py pipelines/train_demo.yaml catalogs/models/demo_grdinsar NEW_FOLDER

Maps the regions of the recipe's section `errors`, which served no other purpose, with the bundle as it is, describes
the errors of their outlines, and writes the bundle with them to NEW_FOLDER; nothing is trained. Also says how often the
95 % intervals of outlines hold on a region whose errors were left out: the true area of an outline is that of the true
ice nearest to it, up to the distance up to which errors count as those of the edge. Minutes on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from rich.console import Console
from scipy.ndimage import distance_transform_edt

from icemap_xr.burning import rasterize
from icemap_xr.edgeerrors import held_out_edge_errors
from icemap_xr.grid import RegionGrid
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.registry import load_model
from icemap_xr.outlines import outlines
from icemap_xr.training.recipe import read_recipe
from icemap_xr.training.regionerrors import EDGE_BLOCK, edge_errors, map_regions

Pairs = Sequence[tuple[xr.DataArray, xr.DataArray]]
#: outlines below this are counted apart: where they lie there is often no glacier at all, which no interval says, km2
LEAST_KM2 = 0.2


def true_areas(shapes: NDArray[np.object_], truth: xr.DataArray, near_m: float) -> NDArray[np.float64]:
    """Return the true ice nearest to each outline `(row,)`, km2; `truth (y, x)`."""
    grid = RegionGrid.from_dataset(truth)
    pairs = [(shape, number) for number, shape in enumerate(shapes, start=1)]
    labels = rasterize(pairs, grid.shape, transform=grid.geobox.transform, dtype="int32")
    distance, nearest = distance_transform_edt(labels == 0, return_indices=True)
    owner = np.where(distance * grid.resolution <= near_m, labels[tuple(nearest)], 0)
    sums = np.bincount(owner.ravel(), np.nan_to_num(truth.values).ravel(), len(shapes) + 1)
    return np.asarray(sums[1:] * grid.pixel_area_km2, np.float64)


def held(pairs: Pairs) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]:
    """Return whether the interval of each outline holds its area, its mapped and its true area; one region left out."""
    inside, areas, true = [], [], []
    for left_out, (mapped, truth) in enumerate(pairs):
        others = [pair for number, pair in enumerate(pairs) if number != left_out]
        errors = held_out_edge_errors(others, block=EDGE_BLOCK, method="hard")
        found = outlines(mapped.to_dataset(name="probability"), edge_errors=errors)
        for year, rows in found.groupby("year"):
            area = true_areas(rows.geometry.to_numpy(), truth.sel(year=year), errors["near_m"])
            inside.append(((rows["mapping_low_km2"] <= area) & (area <= rows["mapping_high_km2"])).to_numpy())
            areas.append(rows["area_km2"].to_numpy())
            true.append(area)
    return np.concatenate(inside), np.concatenate(areas), np.concatenate(true)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    console, recipe = Console(), read_recipe(args.recipe)
    predictor = load_model(args.bundle)
    with recipe.data.open(recipe.features, recipe.model.steps, args.recipe.parent) as data:
        pairs = list(map_regions(predictor, data, recipe.overlap))
    errors = edge_errors(pairs)
    bundle = ModelBundle.load(args.bundle)
    saved = replace(bundle, edge_errors=errors).save(args.output, bundle.read_weights())
    inside, areas, true = held(pairs)
    for name, these in (("at least", areas >= LEAST_KM2), ("below", areas < LEAST_KM2)):
        share, none = (f"{one[these].mean():.1%}" if these.any() else "-" for one in (inside, true < 0.1 * areas))
        text = f"{these.sum()} outlines of {name} {LEAST_KM2} km2: the 95 % interval holds {share}"
        console.print(f"{text}; {none} have less than a tenth of their area of true ice")
    print_errors(console, saved.edge_errors or {})
    console.print(f"{saved.folder}: bundle with edge errors")


def print_errors(console: Console, errors: dict[str, object]) -> None:
    """Print mean and spread of what was found."""
    for name in ("errors_m", "region_effect_m", "year_effect_m", "away_errors", "inside_errors"):
        values = np.asarray(errors.get(name, [0.0]), np.float64)
        console.print(f"{name}: mean {values.mean():+.4f}, standard deviation {values.std():.4f}, {len(values)} values")
    console.print(", ".join(f"{name} {errors.get(name)}" for name in ("segment_m", "range_m", "inside_range_m")))


if __name__ == "__main__":
    main()
