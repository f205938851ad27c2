"""Speed against the published program's loop, on this machine, in one run.

    python benchmarks/speed.py [--small] [--agreement]

The reference is the published way to apply the network, written plainly here: half-overlapping windows one by one
through `model.predict`, weighted sums in two arrays. The network has the published size and random weights (speed does
not depend on them); each row maps the same scene from memory, after one call that builds the network. Targets, as
ratios to the reference: compatible float32 >= 1.0 with the same output, bfloat16 >= 1.6, overlap 0.25 >= 2.0, both
>= 3.2. How far the maps agree is asked of the demonstration model on a simulated region, as random weights answer
nearly the same everywhere: |dp|, the difference of a pixel's probability from the reference's, and the intersection
over union of each row's glaciers with the reference's, which must be >= 0.995. Beside it stands the one with the
region's exact truth. `--agreement` prints this part alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _harness import print_head, print_row
from numpy.typing import NDArray

import icemap_xr as ix
from icemap_xr import simulate
from icemap_xr.measuring import random_model
from icemap_xr.models import icemapper
from icemap_xr.models.icemapper import Architecture
from icemap_xr.models.predictor import KerasPredictor
from icemap_xr.testing.fakes import yearly_dataset

FEATURES = ("grd", "insar")
WAYS: dict[str, dict[str, Any]] = {
    "compatible, float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "overlap 0.25": {"overlap": 0.25},
    "overlap 0.25, valid edges": {"overlap": 0.25, "edges": "valid"},
    "bfloat16, overlap 0.25": {"precision": "bfloat16", "overlap": 0.25},
}
AGREEMENT = (
    r"largest \|dp\|, demo model",
    r"99th percentile of \|dp\|",
    r"mean \|dp\|",
    "IoU with the reference, demo model",
    "IoU with the truth, demo model",
)
#: largest difference of a probability that the compatible way may have with the network of the published size
SAME = 1e-5
Map = NDArray[np.float32]


def reference(ds: xr.Dataset, model: KerasPredictor) -> Callable[[], Map]:
    """Return the published loop over the first year, ready to run: batch 1, overlap 0.5, `model.predict`."""
    network = icemapper.build(model.recipe.architecture)
    icemapper.assign(network, model.recipe.read())
    layers = []
    for one in model.spec.features:
        values = (ds[one.name].values[0].astype(np.float64) - one.minimum) / (one.maximum - one.minimum)
        values[~np.isfinite(values) | (values > 100)] = 0
        layers.append(values)
    stack = np.stack(layers, axis=-1).astype(np.float32)
    window, stride = model.spec.window, model.spec.window // 2
    axis = np.linspace(-1, 1, window)
    distance = np.sqrt(axis[:, None] ** 2 + axis[None, :] ** 2)
    weights = np.exp(-(distance**2) / (2 * 0.5**2)) / (np.sqrt(2 / np.pi) * 0.5)
    network.predict(np.zeros((1, stack.shape[0], window, window, stack.shape[3]), np.float32), verbose=0)

    def loop() -> Map:
        height, width = stack.shape[1:3]
        padded = np.zeros((stack.shape[0], height + window, width + window, stack.shape[3]), np.float32)
        padded[:, :height, :width] = stack
        total, weight_sum = (np.zeros((height + window, width + window)) for _ in range(2))
        for row in range(0, height, stride):
            for column in range(0, width, stride):
                part = np.s_[row : row + window, column : column + window]
                out = network.predict(padded[:, *part][None], verbose=0)[0, :, :, 1]
                total[part] += weights * out
                weight_sum[part] += weights
        return (total / np.where(weight_sum > 0, weight_sum, 1))[:height, :width].astype(np.float32)

    return loop


def timed(call: Callable[[], Map]) -> tuple[Map, float]:
    """Run a call and return its result and seconds."""
    begun = time.perf_counter()
    return call(), time.perf_counter() - begun


def mapped(ds: xr.Dataset, model: KerasPredictor, **options: Any) -> Callable[[], Map]:
    """Return a call of the toolkit on the first year."""
    return lambda: np.asarray(ds.icemap.predict(model, **options).probability.values[0])


def warm(model: KerasPredictor, precision: str) -> None:
    """Build a network and call it once, as every process does once."""
    spec = model.spec
    batch = np.zeros((1, spec.steps, spec.window, spec.window, len(spec.features)), np.float32)
    (model if precision == "float32" else model.with_precision("bfloat16"))(batch)


def speed(ds: xr.Dataset, model: KerasPredictor, agreement: dict[str, tuple[str, ...]]) -> float:
    """Print the rows of speed; return the seconds of the compatible way."""
    print_head("way", "seconds", "kpx/s", "times the reference", *AGREEMENT)
    loop = reference(ds, model)
    for precision in ("float32", "bfloat16"):
        warm(model, precision)
    expected, base = timed(loop)
    pixels = expected.size / 1e3
    print_row("reference loop", f"{base:.1f}", f"{pixels / base:.1f}", "1.00", *agreement["reference loop"])
    compatible = base
    for name, options in WAYS.items():
        found, seconds = timed(mapped(ds, model, **options))
        if not options:
            compatible = seconds
            difference = float(np.abs(found - expected).max())
            if not difference <= SAME:
                raise SystemExit(f"the compatible map differs from the reference's by {difference:.1e}")
        print_row(name, f"{seconds:.1f}", f"{pixels / seconds:.1f}", f"{base / seconds:.2f}", *agreement[name])
    return compatible


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the intersection over union of two masks."""
    return float((one & other).sum() / (one | other).sum())


def agreements(size_km: float) -> dict[str, tuple[str, ...]]:
    """Return each way's cells of `AGREEMENT`, from the demonstration model on a simulated region."""
    region = simulate.region(size_km=size_km, years=(2020,), seed=7, features=FEATURES)
    ds = region.yearly().load()
    model = ix.load_model("demo_grdinsar")
    assert isinstance(model, KerasPredictor)
    truth = region.truth().glacier_fraction.values[0] > 0.5
    expected = reference(ds, model)()
    out: dict[str, tuple[str, ...]] = {"reference loop": ("", "", "", "", f"{iou(expected > 0.5, truth):.4f}")}
    for name, options in WAYS.items():
        found = mapped(ds, model, **options)()
        difference = np.abs(found - expected)
        figures = (difference.max(), np.quantile(difference, 0.99), difference.mean())
        ious = (iou(found > 0.5, expected > 0.5), iou(found > 0.5, truth))
        out[name] = (*(f"{one:.1e}" for one in figures), *(f"{one:.4f}" for one in ious))
    return out


def masked(ds: xr.Dataset, model: KerasPredictor, full: float) -> None:
    """Print what a mask saves: time against the share of windows it leaves."""
    height, width = ds.sizes["y"], ds.sizes["x"]
    rows, columns = np.mgrid[:height, :width]
    disc = (rows - 0.3 * height) ** 2 + (columns - 0.3 * width) ** 2 < (0.2 * width) ** 2
    mask = xr.DataArray(disc, dims=("y", "x"))
    whole = ds.icemap.predict(model, dry_run=True).windows
    kept = ds.icemap.predict(model, dry_run=True, mask=mask).windows
    _, seconds = timed(mapped(ds, model, mask=mask))
    print("\nWith a mask:\n")
    print_head("windows of all", "share of windows", "share of time", "time / windows (target <= 1.05)")
    share = kept / whole
    print_row(f"{kept} of {whole}", f"{share:.3f}", f"{seconds / full:.3f}", f"{seconds / full / share:.3f}")


def useful(ds: xr.Dataset, model: KerasPredictor, seconds: float) -> None:
    """Print the share of the time that the bare network takes on the same windows."""
    plan = ds.icemap.predict(model, dry_run=True)
    rate = plan.timed().rate
    assert rate is not None
    print("\nBare network against the whole prediction:\n")
    print_head("windows", "bare network s", "prediction s", "share (target >= 0.85)")
    bare = plan.windows / rate
    print_row(plan.windows, f"{bare:.1f}", f"{seconds:.1f}", f"{bare / seconds:.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a tiny network and scene, to see that it works")
    parser.add_argument("--agreement", action="store_true", help="only how far the maps agree; no times")
    arguments = parser.parse_args()
    filters, window, side, size_km = (4, 64, 192, 2.0) if arguments.small else (32, 384, 1152, 6.0)
    agreement = agreements(size_km)
    if arguments.agreement:
        print_head("way", *AGREEMENT)
        for name, cells in agreement.items():
            print_row(name, *cells)
        return
    with tempfile.TemporaryDirectory() as name:
        model = random_model(
            Path(name) / "random", Architecture(features=len(FEATURES), filters=filters, window=window), FEATURES
        )
        ds = yearly_dataset((side, side), steps=15)
        print(f"{side} x {side} px, 15 steps, window {window}, {filters} filters\n")
        compatible = speed(ds, model, agreement)
        masked(ds, model, compatible)
        useful(ds, model, compatible)


if __name__ == "__main__":
    main()
