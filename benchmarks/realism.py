"""How real a simulated region looks: its statistics by class and season, and the same of real series.

    python benchmarks/realism.py
    python benchmarks/realism.py --data FOLDER

The first prints backscatter and coherence of each class in frost and in the melt season, then effects whose size is
known from elsewhere. With a folder that holds `sentinel1_rtc` (OPERA RTC-S1 files by burst) and `coherence` (pairs with
both dates in their names), statistics of land and sea, and coherence against temporal baseline, stand beside them.
"""

from __future__ import annotations

import argparse
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from icemap_xr import simulate
from icemap_xr.simulate import Surface

YEAR = 2020
#: scenes of the year in frost and in the melt season
SEASONS = {"frost": slice(0, 4), "melt": slice(7, 10)}
#: bursts of the OPERA series by what they show
BURSTS = {"sea": "T137-292318-IW1", "hills": "T137-292322-IW2", "land": "T137-292325-IW1"}
_PAIR = re.compile(r"(\d{8})-(\d{8})")
Series = NDArray[np.float32]


def table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print a Markdown table."""
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def classes(regions: list[simulate.SimulatedRegion]) -> list[tuple[str, ...]]:
    """Return mean and standard deviation of each class and season."""
    gathered: dict[tuple[str, Surface, str], list[Series]] = defaultdict(list)
    for region in regions:
        surface = region.truth()["surface"].values[-1]
        for name in ("grd", "insar"):
            series = region.year_series(name, YEAR)
            for season, steps in SEASONS.items():
                for one in np.unique(surface):
                    gathered[name, Surface(one), season].append(series[steps, surface == one].ravel())
    rows = []
    for surface in Surface:
        cells = [surface.name.lower().replace("_", " ")]
        for name, digits in (("grd", 1), ("insar", 2)):
            for season in SEASONS:
                parts = gathered[name, surface, season]
                values = np.concatenate(parts).astype(float) if parts else np.array([np.nan])
                cells.append(f"{values.mean():.{digits}f} ± {values.std():.{digits}f}")
        rows.append(tuple(cells))
    return rows


def known(region: simulate.SimulatedRegion) -> list[tuple[str, ...]]:
    """Return effects whose size theory or a published work gives."""
    surface = region.truth()["surface"].values[-1]
    grd, insar = (region.year_series(name, YEAR).astype(float) for name in ("grd", "insar"))
    firn = surface == Surface.FIRN
    drop = grd[SEASONS["melt"]][:, firn].mean() - grd[SEASONS["frost"]][:, firn].mean()
    looks = region.sensor.coherence_looks
    bias = math.gamma(looks) * math.gamma(1.5) / math.gamma(looks + 0.5)
    sea = insar[:, surface == Surface.SEA].mean()
    flat = simulate.region(
        size_km=2.0, seed=1, years=(YEAR,), steps=1, features=("rtc",), landscape=simulate.Landscape(1.0, relief=1.0)
    )
    power = 10 ** (flat.scene("rtc", 0).astype(float) / 10)
    parts = power.reshape(20, 10, 20, 10).swapaxes(1, 2).reshape(400, 100)
    found = float(np.median(parts.mean(1) ** 2 / parts.var(1)))
    return [
        ("firn in melt against frost", f"{drop:.1f} dB", "below -2 dB is mapped as wet snow (Nagler et al. 2015)"),
        ("coherence of open sea", f"{sea:.3f}", f"{bias:.3f}, bias of {looks:.0f} looks (Touzi et al. 1999)"),
        ("equivalent looks within 100 m", f"{found:.1f}", "4.4 (IW GRDH), less what texture takes"),
    ]


def memory(region: simulate.SimulatedRegion) -> list[tuple[str, ...]]:
    """Return correlation of small detail between dates, by class: speckle that repeats, and texture."""
    surface = region.truth()["surface"].values[-1]
    series = region.year_series("rtc", YEAR)[:4].astype(float)
    # the difference of neighbours two resolution cells apart removes what varies slowly
    detail = series[:, :, 6:] - series[:, :, :-6]
    rows = []
    for one in (Surface.ROCK, Surface.OUTWASH, Surface.DEBRIS_ICE, Surface.BARE_ICE, Surface.FIRN):
        both = (surface[:, 6:] == one) & (surface[:, :-6] == one)
        if both.sum() > 1000:
            value = np.corrcoef(detail[:, both])[np.triu_indices(4, 1)].mean()
            rows.append((one.name.lower().replace("_", " "), f"{value:.2f}"))
    return rows


def decay(regions: list[simulate.SimulatedRegion]) -> list[tuple[str, ...]]:
    """Return coherence of rock against temporal baseline, without melt."""
    rows = []
    for region in regions:
        rock = region.truth()["surface"].values[-1] == Surface.ROCK
        mean = region.year_series("insar", YEAR)[:2, rock].mean()
        rows.append((str(region.baseline_days), f"{mean:.2f}"))
    return rows


def opera(folder: Path) -> Iterator[tuple[str, ...]]:
    """Yield statistics of the real series, VV and VH: mean, change of the scene mean, detail, repeated detail."""
    for name, burst in BURSTS.items():
        for channel in ("VV", "VH"):
            dates = sorted((folder / burst).glob(f"*_{channel}.tif"))
            layers = [_power(path) for path in dates]
            db = 10 * np.log10(np.stack([one for one in layers if np.isfinite(one).mean() > 0.9]))
            means = np.nanmean(db, axis=(1, 2))
            detail = (db[:, :, 4:] - db[:, :, :-4]).reshape(len(db), -1)
            detail = detail[:, np.isfinite(detail).all(0)]
            shared = np.corrcoef(detail)[np.triu_indices(len(db), 1)].mean()
            spread = detail.std() / math.sqrt(2)
            yield name, channel, f"{means.mean():.1f}", f"{means.std():.1f}", f"{spread:.1f}", f"{shared:.2f}"


def _power(path: Path) -> Series:
    with rasterio.open(path) as source:
        values = source.read(1)
    return np.where(values > 0, values, np.float32(np.nan))


def pairs(folder: Path) -> list[tuple[str, ...]]:
    """Return mean coherence of the real pairs by temporal baseline."""
    found: dict[int, list[float]] = defaultdict(list)
    for path in sorted(folder.rglob("*_cc.tif")):
        match = _PAIR.search(path.name)
        if match is None:
            continue
        first, second = (datetime.strptime(text, "%Y%m%d") for text in match.groups())
        with rasterio.open(path) as source:
            values = source.read(1)
        found[(second - first).days].append(float(values[values > 0].mean()))
    return [(str(days), f"{np.mean(found[days]):.2f}", str(len(found[days]))) for days in sorted(found)]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 7], help="regions")
    parser.add_argument("--size", type=float, default=6.0, help="side of a region, km")
    parser.add_argument("--data", type=Path, help="folder with real series")
    arguments = parser.parse_args()

    def make(seed: int, **more: object) -> simulate.SimulatedRegion:
        return simulate.region(size_km=arguments.size, years=(YEAR - 1, YEAR), seed=seed, **more)  # type: ignore[arg-type]

    regions = [make(seed) for seed in arguments.seeds]
    head = ("class", "HH frost, dB", "HH melt, dB", "coherence frost", "coherence melt")
    table("Simulated classes (values set by judgement)", head, classes(regions))
    table("Effects of known size", ("effect", "simulated", "expected"), known(regions[0]))
    rtc = make(arguments.seeds[0], features=("rtc",))
    table("Correlation of small detail between winter dates", ("class", "correlation"), memory(rtc))
    aged = [make(arguments.seeds[0], features=("insar",), baseline_days=days) for days in (12, 24, 48, 96)]
    table("Simulated coherence of rock in frost by temporal baseline", ("days", "coherence"), decay(aged))
    if arguments.data is not None:
        head = ("place", "channel", "mean dB", "sd of scene means", "sd of detail", "repeated detail")
        table("Real OPERA RTC-S1 series, 30 m", head, list(opera(arguments.data / "sentinel1_rtc")))
        table("Real coherence, VV", ("days", "coherence", "pairs"), pairs(arguments.data / "coherence"))


if __name__ == "__main__":
    main()
