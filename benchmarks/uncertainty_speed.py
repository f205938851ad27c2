"""How fast areas and their intervals are, against the published way written plainly, in one run on one raster.

    python benchmarks/uncertainty_speed.py --blocks 73 --draws 10000

The published way: the calibrated probability of every pixel of a block by scikit-learn's kernel ridge regression, the
sum of each block, then draw after draw the sum of blocks taken with replacement. Both are fed the same raster and the
same regression, with the published one's 55 knots (more knots slow the plain way only), and must give the same block
sums and the same draws. The default is as large as the published map of Svalbard: 5329 blocks of 3.2 km, 2.2 GB. This
package's way is timed before and after the published one, and its mean counts, so that other work on the machine, which
comes and goes, is in both. Processor time is that of all threads. The last line is the calibration alone, on one core,
without Dask.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.kernel_ridge import KernelRidge

from icemap_xr.blocktable import block_table
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.calibrate import calibrate
from icemap_xr.calibrators import KernelRidgeCalibrator
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.confidence import shannon_confidence
from icemap_xr.kernels.draws import resampled_areas

SIDE = 320


#: the published calibration at some confidences; its knots are the bins up to 0.53, and the anchors 0 and 1
PUBLISHED = (
    (0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
    (0, 0.8351, 0.9242, 0.9999, 1, 1, 0.9855, 0.9745, 0.9732, 0.9817, 0.9896, 0.9977, 1),
)


def regression() -> KernelRidge:
    """Return a regression of as many knots as the published one, and much like it."""
    x = np.concatenate([[0.0], (np.arange(53) + 0.5) / 100, [1.0]])
    return KernelRidge(kernel="laplacian", alpha=0.0).fit(x[:, None], np.interp(x, *PUBLISHED))


def raster(blocks: int, seed: int = 0) -> NDArray[np.float32]:
    """Return the probability `(y, x)` of a region of `blocks` x `blocks` blocks."""
    rng = np.random.default_rng(seed)
    coarse = gaussian_filter(rng.standard_normal((blocks * SIDE // 8,) * 2).astype(np.float32), 8)
    coarse /= coarse.std()
    out = np.empty((blocks * SIDE,) * 2, np.float32)
    for row in range(blocks):  # one row of blocks after the other: the whole is large
        rows = slice(row * SIDE, (row + 1) * SIDE)
        surface = np.kron(coarse[row * SIDE // 8 : (row + 1) * SIDE // 8], np.ones((8, 8), np.float32))
        out[rows] = 1 / (1 + np.exp(-5 * surface - 0.5 * rng.standard_normal(surface.shape, np.float32)))
    return out


def plain_block(p: NDArray[np.float32], model: KernelRidge) -> float:
    """Return the area of one block, km2, as published."""
    confidence = shannon_confidence(p.astype(np.float64)).reshape(-1, 1)
    c = np.clip(model.predict(confidence), 0, 1).reshape(p.shape)
    calibrated = np.where(p >= 0.5, c, 1 - c)
    calibrated[p <= 1e-8] = 0
    return float(calibrated.sum() * 10 * 10 / 1e6)


def plain_calibration(p: NDArray[np.float32], model: KernelRidge) -> None:
    """Predict pixel by pixel, block by block, without the sums."""
    for i, j in np.ndindex(len(p) // SIDE, p.shape[1] // SIDE):
        one = p[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE]
        model.predict(shannon_confidence(one.astype(np.float64)).reshape(-1, 1))


def plain_draws(areas: NDArray[np.float64], n: int, seed: int) -> list[float]:
    """Return the published bootstrap: one draw after the other."""
    found = []
    for k in range(n):
        rng = np.random.default_rng(seed * (k + 1))
        sample = rng.choice(areas, size=len(areas), replace=True)
        found.append(float(np.sum(sample)))
    return found


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=73, help="blocks of 3.2 km along a side")
    parser.add_argument("--draws", type=int, default=10_000)
    arguments = parser.parse_args()
    p, model = raster(arguments.blocks), regression()
    curve = KernelRidgeCalibrator.from_support(model.X_fit_, model.dual_coef_)
    side = 10 * len(p)
    grid = RegionGrid.from_bbox(
        (500_000, 8_000_000, 500_000 + side, 8_000_000 + side), "EPSG:32633", 10, bbox_crs="EPSG:32633"
    )
    ds = xr.Dataset({"probability": (("year", "y", "x"), p[None])}, coords={**grid.coords(), "year": [2020]})
    ds = ds.chunk(y=1600, x=1600)
    blocks = [
        p[i * SIDE : (i + 1) * SIDE, j * SIDE : (j + 1) * SIDE]
        for i, j in np.ndindex(arguments.blocks, arguments.blocks)
    ]
    draw: dict[str, Any] = {"block": "3.2km", "estimator": "sum"}
    # loads what is loaded once
    bootstrap_area(calibrate(ds.isel(y=slice(0, 320), x=slice(0, 640)), curve), n=2, **draw)
    plain_block(blocks[0], model)

    def all_of_it() -> xr.Dataset:
        return bootstrap_area(calibrate(ds, curve), n=arguments.draws, **draw)

    def sums_of_blocks() -> xr.Dataset:
        return block_table(calibrate(ds, curve)["calibrated"], grid, SIDE).compute()

    (ours, before), (sums, sums_before) = timed(all_of_it), timed(sums_of_blocks)
    plain, calibrating = timed(lambda: np.array([plain_block(one, model) for one in blocks]))
    draws, drawing = timed(lambda: plain_draws(plain, arguments.draws, 42))
    took = (before + timed(all_of_it)[1]) / 2
    summing = (sums_before + timed(sums_of_blocks)[1]) / 2
    areas = sums["ice_km2"].values.reshape(-1, 1)
    ours_drawing = timed(lambda: resampled_areas(areas, np.ones_like(areas), arguments.draws, 42, ratio=False))[1]
    np.testing.assert_allclose(sums["ice_km2"].values.ravel(), plain, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(ours["draws"].values[0], draws, rtol=1e-6)

    some = np.ascontiguousarray(p[: 5 * SIDE, : 5 * SIDE])
    alone = min((timed(lambda: curve(some))[1] for _ in range(3)), key=lambda one: float(one[1]))
    theirs = min((timed(lambda: plain_calibration(some, model))[1] for _ in range(2)), key=lambda one: float(one[1]))
    print(f"{p.size / 1e6:.1f} Mpx, {len(blocks)} blocks, {arguments.draws} draws, {len(curve.x)} knots")
    print("| step | published way, s | icemap-xr, s | ratio | ratio of processor times |\n|---|---|---|---|---|")
    rows = {
        "calibrate and sum blocks": (calibrating, summing),
        "draws": (drawing, ours_drawing),
        "end to end": (calibrating + drawing, took),
        f"calibrate {some.size / 1e6:.1f} Mpx on one core": (theirs, alone),
    }
    for name, (reference, mine) in rows.items():
        ratio, processor = reference / np.maximum(mine, 1e-9)
        print(f"| {name} | {reference[0]:.2f} | {mine[0]:.3f} | {ratio:.1f} | {processor:.1f} |")
    print("(both gave the same block sums, to 1e-6 and 0.1 m2, and the same draws, to 1e-6)")


def timed(work: Callable[[], Any]) -> tuple[Any, NDArray[np.float64]]:
    """Return what the work gives, and the wall and the processor time it took, s."""
    begun = time.perf_counter(), time.process_time()
    found = work()
    return found, np.array([time.perf_counter() - begun[0], time.process_time() - begun[1]])


if __name__ == "__main__":
    main()
