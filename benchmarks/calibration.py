"""Which calibration is best on regions that it was not fitted on: isotonic, beta, temperature, the published one, none.

    python benchmarks/calibration.py --fit 3000 3001 3002 --test 3100 3101 3102 --figure calibration.svg

Every region is simulated and mapped with a trained network; the reference is its true ice cover. Each method is fitted
to all pixels of the fitting regions and judged on the others: expected calibration error (100 bins), Brier score, and
the error of soft area, for each region and on average. The default of `fit_calibrator` was chosen by this table.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import icemap_xr as ix
from icemap_xr import simulate
from icemap_xr.calibrate import fit_calibrator, reliability
from icemap_xr.figures import reliability_figure
from icemap_xr.plot import save_figure
from icemap_xr.types import Calibrator, Predictor

METHODS = ("isotonic", "beta", "temperature", "kernel-ridge")
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def mapped(model: Predictor, seed: int, size_km: float, shift: float, years: tuple[int, ...]) -> Pair:
    """Map a simulated region; return probability and true ice cover `(year, y, x)`."""
    region = simulate.region(size_km=size_km, years=years, seed=seed, shift=shift, features=("grd", "insar"))
    found = region.yearly().icemap.predict(model)["probability"].compute().values
    return found, region.truth()["glacier_fraction"].compute().values


def judge(curve: Calibrator | None, pair: Pair) -> dict[str, float]:
    """Return the scores of one region."""
    p, y = pair
    q = p if curve is None else curve(p)
    seen = np.isfinite(p)
    return {
        "ece": float(reliability(p, y, calibrator=curve)["ece"]),
        "brier": float(np.mean((q[seen] - y[seen]) ** 2)),
        "area_error": float((q[seen].sum(dtype=float) - y[seen].sum(dtype=float)) / max(y[seen].sum(dtype=float), 1)),
    }


def main() -> None:
    """Print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=int, nargs="+", default=list(range(3000, 3008)), help="seeds to fit on")
    parser.add_argument("--test", type=int, nargs="+", default=list(range(3100, 3108)), help="seeds to judge on")
    parser.add_argument("--size", type=float, default=3.84, help="side of a region, km")
    parser.add_argument("--shift", type=float, default=1.0, help="shift of the regions' class parameters")
    parser.add_argument("--years", type=int, nargs="+", default=[2020])
    parser.add_argument("--model", default="demo_grdinsar")
    parser.add_argument("--figure", type=Path, help="reliability of the test regions, as .png, .svg or .pdf")
    parser.add_argument("--output", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if set(arguments.fit) & set(arguments.test):
        parser.error("a region serves both fit and test: give different seeds")
    model = ix.load_model(arguments.model)
    options = (arguments.size, arguments.shift, tuple(arguments.years))
    fitting = [mapped(model, seed, *options) for seed in arguments.fit]
    testing = [mapped(model, seed, *options) for seed in arguments.test]
    curves: dict[str, Calibrator | None] = {"as predicted": None}
    for method in METHODS:
        curves[method] = fit_calibrator(fitting, method=method, map_kind="single years")  # type: ignore[call-overload]
    print(f"{len(fitting)} regions to fit, {len(testing)} to judge, {arguments.size:g} km, shift {arguments.shift:g}")
    print("| calibration | ECE, pooled | ECE, mean of regions | Brier | area error, mean | area error, rms |")
    print("|---|---|---|---|---|---|")
    found, tables = {}, {}
    for name, curve in curves.items():
        scores = [judge(curve, pair) for pair in testing]
        tables[name] = reliability(testing, calibrator=curve, bins=20)
        pooled = float(reliability(testing, calibrator=curve)["ece"])
        errors = np.array([one["area_error"] for one in scores])
        mean = {key: float(np.mean([one[key] for one in scores])) for key in scores[0]}
        rms = float(np.sqrt(np.mean(errors**2)))
        found[name] = {"pooled_ece": pooled, **mean, "area_error_rms": rms, "regions": scores}
        ece, brier, bias = (mean[key] for key in ("ece", "brier", "area_error"))
        print(f"| {name} | {pooled:.4f} | {ece:.4f} | {brier:.4f} | {bias:+.2%} | {rms:.2%} |")
    if arguments.figure:
        save_figure(reliability_figure(tables), arguments.figure)
    if arguments.output:
        arguments.output.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
