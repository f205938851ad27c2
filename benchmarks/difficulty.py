"""How hard a simulated region is: IoU of simple classifiers on regions they have not seen.

    python benchmarks/difficulty.py --train 1000 1001 1002 --test 2000 2001 --shift 1 --model demo_grdinsar

Three baselines see the mean and the standard deviation over time of each feature: a logistic regression and a random
forest pixel by pixel, and a random forest that also sees both smoothed at several scales ("with context"), which shows
that neighbours hold what single pixels do not. The first must stay at or below 0.85. With `--model`, a trained network
(a bundle folder or a name of the registry) maps the same test regions.
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

FEATURES = ("grd", "insar")
SCALES = (2.0, 5.0, 12.0, 30.0)
Columns = NDArray[np.float32]


def statistics(seed: int, shift: float, size_km: float, year: int, context: bool) -> tuple[Columns, NDArray[np.bool_]]:
    """Return temporal mean and standard deviation of each feature `(pixel, column)`, and what is glacier."""
    region = simulate.region(size_km=size_km, years=(year,), seed=seed, shift=shift, features=FEATURES)
    layers = []
    for name in FEATURES:
        series = region.year_series(name, year)
        layers += [series.mean(0), series.std(0)]
    if context:
        layers += [gaussian_filter(layer, scale) for layer in layers[: 2 * len(FEATURES)] for scale in SCALES]
    fraction = region.truth()["glacier_fraction"].values[0]
    return np.stack([layer.ravel() for layer in layers], 1), fraction.ravel() > 0.5


def mapped(model: Predictor, seed: int, shift: float, size_km: float, year: int) -> NDArray[np.bool_]:
    """Return what a network maps as glacier."""
    region = simulate.region(size_km=size_km, years=(year,), seed=seed, shift=shift, features=FEATURES)
    found = region.yearly().icemap.predict(model)
    return np.asarray(found["probability"].values[0].ravel() > 0.5)


def iou(truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> float:
    """Return intersection over union."""
    return float((truth & found).sum() / (truth | found).sum())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, nargs="+", default=list(range(1000, 1006)), help="seeds to train on")
    parser.add_argument("--test", type=int, nargs="+", default=list(range(2000, 2004)), help="seeds to test on")
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
    columns = 2 * len(FEATURES)
    train = [statistics(s, arguments.train_shift, arguments.size, arguments.year, True) for s in arguments.train]
    random = np.random.default_rng(0)
    picks = [random.choice(len(y), min(arguments.pixels, len(y)), replace=False) for _, y in train]
    x = np.concatenate([one[pick] for (one, _), pick in zip(train, picks, strict=True)])
    y = np.concatenate([one[pick] for (_, one), pick in zip(train, picks, strict=True)])
    tests = [statistics(s, arguments.shift, arguments.size, arguments.year, True) for s in arguments.test]
    print(f"| model | {' | '.join(f'seed {s}' for s in arguments.test)} | mean IoU | seconds |")
    print(f"|---|{'---|' * (len(tests) + 2)}")
    for name, (context, model) in models.items():
        started = time.perf_counter()
        used = slice(None) if context else slice(0, columns)
        model.fit(x[:, used], y)
        scores = [iou(truth, model.predict(one[:, used])) for one, truth in tests]
        report(name, scores, started)
    if arguments.model:
        started, network = time.perf_counter(), ix.load_model(arguments.model)
        maps = [mapped(network, s, arguments.shift, arguments.size, arguments.year) for s in arguments.test]
        report(f"network {arguments.model}", [iou(y, one) for (_, y), one in zip(tests, maps, strict=True)], started)


def report(name: str, scores: list[float], started: float) -> None:
    """Print a row of the table."""
    row = " | ".join(f"{score:.3f}" for score in scores)
    print(f"| {name} | {row} | {np.mean(scores):.3f} | {time.perf_counter() - started:.0f} |", flush=True)


def _forest() -> RandomForestClassifier:
    return RandomForestClassifier(60, min_samples_leaf=20, max_samples=0.3, n_jobs=2, random_state=0)


if __name__ == "__main__":
    main()
