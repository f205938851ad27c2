"""What temporal filters do to noise and to real change, on simulated regions with retreat and a surge.

    python benchmarks/temporal.py --seeds 3000 3001 --years 7

The true ice cover of each year is turned into a noisy probability: noise of single pixels and years, patches of wet
snow that last one year, and a blurred edge. Counted are wrong pixels, and the error of the change from the first to the
last year and over the year of the surge. What a filter takes from real change is found by filtering the truth itself:
the share of the real change, retreat and surge, that the filtered truth has not in its year, and its largest piece.
"""

from __future__ import annotations

import argparse

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, label

from icemap_xr import simulate
from icemap_xr.temporal import filter_years

FILTERS: dict[str, dict[str, object] | None] = {
    "none": None,
    "median, 3 years": {"method": "median"},
    "majority, 3 years": {"method": "majority"},
    "median, 5 years": {"method": "median", "window": 5},
    "hidden Markov model, stay 0.9": {"method": "hmm"},
    "hidden Markov model, stay 0.97": {"method": "hmm", "stay": 0.97},
}


def noisy(truth: NDArray[np.float32], rng: np.random.Generator, noise: float) -> NDArray[np.float32]:
    """Return probabilities of yearly maps with independent errors."""
    blurred = gaussian_filter(truth, (0, 1, 1))
    logit = 6 * (blurred - 0.5) + noise * rng.standard_normal(truth.shape)
    snow = gaussian_filter(rng.standard_normal(truth.shape), (0, 6, 6))
    for i, one in enumerate(snow):
        logit[i][one > np.quantile(one, 1 - rng.uniform(0, 0.06))] += 4
    return (1 / (1 + np.exp(-logit))).astype(np.float32)


def taken(truth: xr.DataArray, options: dict[str, object] | None) -> tuple[float, float]:
    """Return the share of real change that a filter takes or delays, and its largest piece in hectares."""
    ice = truth.values > 0.5
    if options is None:
        return 0.0, 0.0
    sure = xr.Dataset({"probability": truth.copy(data=np.where(ice, 0.99, 0.01).astype(np.float32))})
    wrong = (filter_years(sure, **options)["probability"].values > 0.5) != ice  # type: ignore[arg-type]
    changed = np.abs(np.diff(ice.astype(int), axis=0)).sum()
    largest = max(int(np.bincount(label(one)[0].ravel())[1:].max(initial=0)) for one in wrong)
    return float(wrong.sum() / max(1, changed)), largest * 1e-2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3000, 3001, 3002, 3003])
    parser.add_argument("--years", type=int, default=7)
    parser.add_argument("--size", type=float, default=3.84, help="side of a region, km")
    parser.add_argument("--noise", type=float, default=1.2, help="noise of single pixels, in log-odds")
    arguments = parser.parse_args()
    years = tuple(range(2018, 2018 + arguments.years))
    rows: dict[str, list[list[float]]] = {name: [] for name in FILTERS}
    for seed in arguments.seeds:
        truth = simulate.region(size_km=arguments.size, years=years, seed=seed).truth()["glacier_fraction"].compute()
        p = noisy(truth.values, np.random.default_rng(seed), arguments.noise)
        ds = xr.Dataset({"probability": truth.copy(data=p)})
        ice = truth.values > 0.5
        moved = (np.abs(np.diff(ice.astype(int), axis=0))).any(axis=0)
        for name, options in FILTERS.items():
            out = ds if options is None else filter_years(ds, **options)  # type: ignore[arg-type]
            found = out["probability"].values > 0.5
            area, true = found.sum((1, 2)), ice.sum((1, 2))
            rows[name].append(
                [
                    float(np.mean(found != ice)),
                    float(np.mean((found != ice)[1:-1])),
                    float(np.mean((found != ice)[:, moved])) if moved.any() else np.nan,
                    (area[-1] - area[0] - (true[-1] - true[0])) * 1e-4,
                    (area[1] - area[0] - (true[1] - true[0])) * 1e-4,
                    *taken(truth, options),
                ]
            )
    head = ("filter", "wrong pixels", "wrong, inner years", "wrong where ice moved", "error of change, km2")
    more = ("in surge year, km2", "real change taken", "largest piece, ha")
    print(f"| {' | '.join(head + more)} |\n|{'---|' * len(head + more)}")
    for name, found in rows.items():
        a, b, c, d, e, f, _ = np.nanmean(np.abs(found), axis=0)
        most = np.max(found, axis=0)[-1]
        print(f"| {name} | {a:.2%} | {b:.2%} | {c:.2%} | {d:.4f} | {e:.4f} | {f:.1%} | {most:.2f} |")


if __name__ == "__main__":
    main()
