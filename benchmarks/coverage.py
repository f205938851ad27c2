"""How often intervals hold the truth: on simulated regions whose maps have emulated errors.

    python benchmarks/coverage.py --replicates 200 --figure docs/images/coverage.svg

The truth of every region is a simulated one, with retreating glaciers and a surge. A map is made from it by an error
field emulator: the ice edge is moved by a field that is correlated in space and from year to year, by an offset of the
region and one of the year, and blurred; patches of snow are taken for ice in some years. Errors are learned from
held-out regions by `held_out_errors` and `held_out_edge_errors`; other regions are mapped in the same way, and counted
is how many 95 % mapping intervals hold the true area and the true change. The sampling interval, which promises no such
thing, stands beside. Held-out errors are drawn afresh for every 20 replicates, so that a lucky set does not decide.

Every second replicate is also a region of four times the area, with the errors of the small held-out regions, and one
with twice the error of the edge and four times the snow of the held-out regions, where intervals must fail.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy.ndimage import distance_transform_edt, gaussian_filter, zoom

from icemap_xr import change, simulate
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.errormodel import held_out_errors
from icemap_xr.figures import COLORS
from icemap_xr.glacierareas import glacier_area, held_out_edge_errors
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.draws import percentile_interval
from icemap_xr.kernels.errorfields import BlockField
from icemap_xr.plot import save_figure

#: sizes of the emulated errors of the edge, in pixels of 10 m
REGION_PX, YEAR_PX, FIELD_PX, BLUR_PX = 0.7, 0.5, 3.0, 2.0
#: correlation of the edge's error: distance in metres, and from year to year
RANGE_M, PERSISTENCE = 400.0, 0.7
#: share of the ice-free ground that is taken for ice in a bad year
SNOW = 0.01
COARSE = 8
#: ground around a glacier that belongs to it, in pixels
MARGIN_PX = 20
#: classes of glaciers by their area, km2
SIZES = (
    (0.0, 0.1, "glaciers up to 0.1 km2"),
    (0.1, 1.0, "glaciers of 0.1 to 1 km2"),
    (1.0, np.inf, "glaciers above 1 km2"),
)


def truths(seeds: Sequence[int], size_km: float, years: tuple[int, ...]) -> list[xr.Dataset]:
    """Return what is really there in simulated regions: ice cover `(year, y, x)` and glaciers `(y, x)`."""
    found = []
    for i, seed in enumerate(seeds):
        print(f"\rregion {i + 1} of {len(seeds)}", end="", file=sys.stderr, flush=True)
        truth = simulate.region(size_km=size_km, years=years, seed=seed).truth()
        found.append(truth[["glacier_fraction", "glacier_id"]].compute())
    print(file=sys.stderr)
    return [one for one in found if ((one["glacier_fraction"] > 0.5).mean(("y", "x")) > 0.02).all()]


def smooth_fields(rng: np.random.Generator, count: int, shape: tuple[int, int], range_m: float) -> NDArray[np.float64]:
    """Return correlated normal fields, `(count, y, x)`."""
    rows, columns = (-(-n // COARSE) for n in shape)
    places = np.indices((rows, columns)).reshape(2, -1)
    coarse = BlockField(places[0], places[1], range_m / (10 * COARSE)).draw(rng, count).reshape(count, rows, columns)
    return np.stack([zoom(one, COARSE, order=1, mode="nearest", grid_mode=True) for one in coarse])[
        :, : shape[0], : shape[1]
    ]


def emulate(truth: xr.DataArray, rng: np.random.Generator, worse: float = 1.0) -> xr.DataArray:
    """Return a map of the region with errors of the emulator's make; `worse` multiplies those of the edge."""
    years, shape = truth.sizes["year"], (truth.sizes["y"], truth.sizes["x"])
    fields = smooth_fields(rng, years + 1, shape, RANGE_M)
    fields = np.sqrt(PERSISTENCE) * fields[:1] + np.sqrt(1 - PERSISTENCE) * fields[1:]
    snow = smooth_fields(rng, years, shape, RANGE_M / 2)
    region = rng.normal(0, REGION_PX)
    maps = np.empty(truth.shape, np.float32)
    for i in range(years):
        ice = truth.values[i] > 0.5
        if ice.all() or not ice.any():
            distance = np.where(ice, 99.0, -99.0)
        else:
            distance = np.where(ice, distance_transform_edt(ice) - 0.5, 0.5 - distance_transform_edt(~ice))
        moved = distance + worse * (region + rng.normal(0, YEAR_PX) + FIELD_PX * fields[i])
        p = 1 / (1 + np.exp(-moved / BLUR_PX))
        patches = snow[i] > np.quantile(snow[i], 1 - SNOW * worse**2 * rng.uniform(0, 2))
        maps[i] = np.where(patches & ~ice, np.maximum(p, 0.8), p)
    maps = gaussian_filter(maps, (0, 0.7, 0.7))
    # "calibrated": its bias is part of the errors that the intervals must account for
    return truth.copy(data=maps).rename("calibrated")


def glaciers(truth: xr.Dataset) -> gpd.GeoDataFrame:
    """Return the ground of each glacier: its pixels, and all that are nearer than `MARGIN_PX` to it and to no other."""
    ids = truth["glacier_id"].values
    distance, (rows, columns) = distance_transform_edt(ids == 0, return_indices=True)
    ground = np.where(distance <= MARGIN_PX, ids[rows, columns], 0).astype(np.int32)
    transform = RegionGrid.from_dataset(truth["glacier_fraction"]).geobox.transform
    parts = list(shapes(ground, mask=ground > 0, transform=transform))
    frame = gpd.GeoDataFrame(
        {"name": [int(number) for _, number in parts]},
        geometry=[shapely.geometry.shape(part) for part, _ in parts],
        crs=RegionGrid.from_dataset(truth["glacier_fraction"]).crs,
    )
    frame = frame.dissolve("name").reset_index()
    numbers = np.searchsorted(frame["name"].to_numpy(), ground)
    sums = [
        np.bincount(numbers[ground > 0], year[ground > 0], minlength=len(frame)) * 1e-4
        for year in truth["glacier_fraction"].values
    ]
    return frame.assign(**{f"true_{i}": one for i, one in enumerate(sums)})


class Counts:
    """Which intervals held the truth, and how wide they were, by name; each a list of one replicate after the other."""

    def __init__(self) -> None:
        self.held: dict[str, list[NDArray[np.bool_]]] = defaultdict(list)
        self.widths: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, name: str, bounds: NDArray[np.float64], true: NDArray[np.float64]) -> None:
        """Count intervals `(..., 2)`."""
        inside = (bounds[..., 0] <= true) & (true <= bounds[..., 1])
        self.held[name].append(np.atleast_1d(inside).ravel())
        self.widths[name].append(np.atleast_1d(bounds[..., 1] - bounds[..., 0]).ravel())

    def summary(self) -> dict[str, dict[str, float]]:
        """Return share, its standard error over replicates, number of intervals, replicates and mean width."""
        found = {}
        for name, held in self.held.items():
            # the intervals of a replicate share their errors: replicates are what is independent
            shares, weights = np.array([one.mean() for one in held]), np.array([one.size for one in held])
            share = float(np.average(shares, weights=weights))
            spread = float(np.sqrt(np.average((shares - share) ** 2, weights=weights) / max(1, len(held) - 1)))
            found[name] = {
                "share": share,
                "error": spread,
                "intervals": int(weights.sum()),
                "replicates": len(held),
                "width_km2": float(np.concatenate(self.widths[name]).mean()),
            }
        return found


def count_region(
    truth: xr.Dataset, rng: np.random.Generator, learned: dict[str, Any], options: argparse.Namespace, counts: Counts
) -> None:
    """Map a region and count what the intervals of its area, its change and its glaciers hold."""
    cover = truth["glacier_fraction"]
    ds = emulate(cover, rng).to_dataset()
    true = cover.sum(("y", "x")).values * 1e-4
    seed = int(rng.integers(2**31))
    for kind, given in (("mapping", {"block_errors": learned["blocks"]}), ("sampling", {})):
        out = bootstrap_area(ds, block=options.block, n=options.draws, seed=seed, kind=kind, **given)  # type: ignore[arg-type]
        counts.add(f"{kind}: area", out["interval"].values, true)
        counts.add(f"{kind}: change", change(out)["interval"].values, true[-1] - true[0])
    frame = glaciers(truth)
    single = glacier_area(ds, frame, edge_errors=learned["edges"], n=options.draws, seed=seed)
    areas = frame[[f"true_{i}" for i in range(len(true))]].to_numpy().T
    moved = single["draws"].values[-1] - single["draws"].values[0]
    for low, high, name in SIZES:
        kept = (areas[0] > low) & (areas[0] <= high)
        if kept.any():
            counts.add(f"mapping, {name}: area", single["interval"].values[:, kept], areas[:, kept])
            bounds = percentile_interval(moved[kept], 0.95)
            counts.add(f"mapping, {name}: change", bounds, (areas[-1] - areas[0])[kept])


def count_total(
    name: str,
    truth: xr.Dataset,
    mapped: xr.DataArray,
    learned: dict[str, Any],
    options: argparse.Namespace,
    counts: Counts,
) -> None:
    """Count what the mapping intervals of a map's area and change hold."""
    true = truth["glacier_fraction"].sum(("y", "x")).values * 1e-4
    errors = learned["blocks"]
    out = bootstrap_area(mapped.to_dataset(), block=options.block, n=options.draws, kind="mapping", block_errors=errors)
    counts.add(f"mapping, {name}: area", out["interval"].values, true)
    counts.add(f"mapping, {name}: change", change(out)["interval"].values, true[-1] - true[0])


def coverage_figure(found: dict[str, dict[str, float]]) -> Figure:
    """Draw the share of intervals that hold the truth, with two standard errors, over the band 90 to 98 %."""
    figure = Figure(figsize=(8.0, 0.36 * len(found) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax = figure.subplots()
    at = -np.arange(len(found))
    ax.axvspan(90, 98, color=COLORS[2], alpha=0.15, lw=0, label="90 to 98 %")
    ax.axvline(95, color=COLORS[2], lw=1)
    for area, color in ((True, COLORS[0]), (False, COLORS[3])):
        these = [i for i, name in enumerate(found) if name.endswith("area") == area]
        one = [found[name] for i, name in enumerate(found) if i in these]
        ax.errorbar(
            [100 * row["share"] for row in one],
            at[these],
            xerr=[200 * row["error"] for row in one],
            fmt="o",
            color=color,
            capsize=3,
            label="area" if area else "change",
        )
    ax.set_yticks(at, list(found), fontsize=8)
    ax.set(xlabel="95 % intervals that hold the truth [%]", xlim=(None, 101))
    ax.grid(axis="x", color="#DDDDDD")
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.3, 1.1), ncols=3)
    return figure


def main() -> None:
    """Print the shares of intervals that hold the truth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--pool", type=int, default=60, help="simulated regions; a third of them are held-out ones")
    parser.add_argument("--size", type=float, default=3.84, help="side of a region, km")
    parser.add_argument("--block", default="320m")
    parser.add_argument("--edge-block", default="160m", help="block of the errors of single glaciers")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="draw the shares, as .png, .svg or .pdf")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    begun = time.perf_counter(), time.process_time()
    years = (2020, 2021, 2022)
    rng = np.random.default_rng(options.seed)
    pool = truths(range(5000, 5000 + options.pool), options.size, years)
    held_out, targets = pool[: len(pool) // 3], pool[len(pool) // 3 :]
    large = truths(range(6000, 6000 + max(2, options.pool // 10)), 2 * options.size, years)
    counts, learned = Counts(), {}
    for k in range(options.replicates):
        if k % 20 == 0:
            covers = [one["glacier_fraction"] for one in held_out]
            pairs = [(emulate(one, rng), one) for one in covers]
            learned = {
                "blocks": held_out_errors(pairs, block=options.block),
                "edges": held_out_edge_errors(pairs, block=options.edge_block),
            }
        count_region(targets[k % len(targets)], rng, learned, options, counts)
        if k % 2 == 0:
            wide = large[k // 2 % len(large)]
            mapped = emulate(wide["glacier_fraction"], rng)
            count_total("four times the area", wide, mapped, learned, options, counts)
            other = targets[(k + 1) % len(targets)]
            worse = emulate(other["glacier_fraction"], rng, worse=2.0)
            count_total("errors unlike the held-out ones", other, worse, learned, options, counts)
        print(f"\rreplicate {k + 1}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(f"{options.replicates} replicates, {len(held_out)} held-out regions, {len(targets)} other regions")
    print(
        "| 95 % interval | holds the truth | +- | intervals | replicates | mean width, km2 |\n|---|---|---|---|---|---|"
    )
    found = counts.summary()
    for name, row in found.items():
        cells = (f"{row['share']:.1%}", f"{row['error']:.1%}", row["intervals"], row["replicates"])
        print(f"| {name} | {' | '.join(map(str, cells))} | {row['width_km2']:.3f} |")
    took = time.perf_counter() - begun[0], time.process_time() - begun[1]
    print(f"{took[0]:.0f} s, {took[1]:.0f} s of processor time")
    if options.figure:
        save_figure(coverage_figure(found), options.figure)
    if options.output:
        options.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
