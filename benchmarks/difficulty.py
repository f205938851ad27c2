"""How hard a simulated region is: IoU of simple classifiers on regions they have not seen.

    python benchmarks/difficulty.py --model demo_grdinsar
    python benchmarks/difficulty.py --features rtc --model FOLDER
    python benchmarks/difficulty.py --train 1000 1001 --test 2100 --size 2

Three baselines see the mean and the standard deviation over time of each feature: a logistic regression and a random
forest pixel by pixel, and a random forest that also sees both smoothed at several scales ("with context"), which shows
that neighbours hold what single pixels do not. The first must stay at or below 0.85, else the program ends with 1.
With `--model`, a trained network (a bundle folder or a name of the registry) maps the same test regions.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import icemap_xr as ix
from icemap_xr import simulate
from icemap_xr.types import Predictor

FEATURES = ("grd", "rtc", "insar")
SCALES = (2.0, 5.0, 12.0, 30.0)
#: highest mean IoU of the per-pixel logistic regression: above it the regions are too easy
LIMIT = 0.85
Columns = NDArray[np.float32]


def make(seed: int, shift: float, arguments: argparse.Namespace) -> simulate.SimulatedRegion:
    """Simulate one region of one year."""
    return simulate.region(
        size_km=arguments.size, years=(arguments.year,), seed=seed, shift=shift, features=arguments.features
    )


def statistics(region: simulate.SimulatedRegion) -> tuple[Columns, NDArray[np.bool_]]:
    """Return temporal mean and standard deviation of each feature, smoothed too, `(pixel, column)`; what is glacier."""
    layers = []
    for name in region.features:
        series = region.year_series(name, region.years[0])
        layers += [series.mean(0), series.std(0)]
    layers += [gaussian_filter(layer, scale) for layer in tuple(layers) for scale in SCALES]
    fraction = region.truth()["glacier_fraction"].values[0]
    return np.stack([layer.ravel() for layer in layers], 1), fraction.ravel() > 0.5


def mapped(model: Predictor, region: simulate.SimulatedRegion) -> NDArray[np.bool_]:
    """Return what a network maps as glacier."""
    found = region.yearly().icemap.predict(model)
    return np.asarray(found["probability"].values[0].ravel() > 0.5)


def iou(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return intersection over union."""
    return float((truth & found).sum() / (truth | found).sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=["grd", "insar"])
    parser.add_argument("--train", type=int, nargs="+", default=list(range(1000, 1006)), help="seeds to train on")
    parser.add_argument("--test", type=int, nargs="+", default=list(range(2100, 2104)), help="seeds to test on")
    parser.add_argument("--size", type=float, default=6.0, help="side of a region, km")
    parser.add_argument("--shift", type=float, default=1.0, help="shift of the test regions' class parameters")
    parser.add_argument("--train-shift", type=float, default=0.5, help="shift of the training regions'")
    parser.add_argument("--year", type=int, default=2020)
    parser.add_argument("--pixels", type=int, default=40_000, help="training pixels per region")
    parser.add_argument("--model", help="a trained network to compare")
    arguments = parser.parse_args()
    models = {
        "logistic regression, per pixel": (False, make_pipeline(StandardScaler(), LogisticRegression())),
        "random forest, per pixel": (False, _forest()),
        "random forest, with context": (True, _forest()),
    }
    train = [statistics(make(seed, arguments.train_shift, arguments)) for seed in arguments.train]
    random = np.random.default_rng(0)
    picks = [random.choice(len(y), min(arguments.pixels, len(y)), replace=False) for _, y in train]
    x = np.concatenate([one[pick] for (one, _), pick in zip(train, picks, strict=True)])
    y = np.concatenate([one[pick] for (_, one), pick in zip(train, picks, strict=True)])
    regions = [make(seed, arguments.shift, arguments) for seed in arguments.test]
    tests = [statistics(region) for region in regions]
    print(f"| model, {' and '.join(arguments.features)} | ", end="")
    print(f"{' | '.join(f'seed {s}' for s in arguments.test)} | mean IoU | seconds |")
    print(f"|---|{'---|' * (len(tests) + 2)}")
    reached = {}
    for name, (context, model) in models.items():
        started = time.perf_counter()
        used = slice(None) if context else slice(0, 2 * len(arguments.features))
        model.fit(x[:, used], y)
        reached[name] = report(name, [iou(truth, model.predict(one[:, used])) for one, truth in tests], started)
    if arguments.model:
        started, network = time.perf_counter(), ix.load_model(arguments.model)
        maps = [mapped(network, region) for region in regions]
        report(f"network {arguments.model}", [iou(y, one) for (_, y), one in zip(tests, maps, strict=True)], started)
    simple = next(iter(reached.values()))
    if simple > LIMIT:
        raise SystemExit(f"too easy: per-pixel logistic regression reaches {simple:.3f}, over {LIMIT}")


def report(name: str, scores: list[float], started: float) -> float:
    """Print a row of the table and return the mean."""
    row = " | ".join(f"{score:.3f}" for score in scores)
    print(f"| {name} | {row} | {np.mean(scores):.3f} | {time.perf_counter() - started:.0f} |", flush=True)
    return float(np.mean(scores))


def _forest() -> RandomForestClassifier:
    return RandomForestClassifier(60, min_samples_leaf=20, max_samples=0.3, n_jobs=2, random_state=0)


if __name__ == "__main__":
    main()
