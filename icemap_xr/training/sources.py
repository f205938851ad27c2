"""Where the tiles of a training come from: what every source offers, and simulated regions.

Each source is a section of a recipe that shares its ground out to four purposes; no place serves two of them. Files of
tiles and cubes are in `icemap_xr.training.real_sources`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from pydantic import ConfigDict

from icemap_xr import simulate
from icemap_xr.errors import InputError
from icemap_xr.simulate.parameters import Landscape
from icemap_xr.training.tiles import Tile, simulated_tiles
from icemap_xr.types import FeatureSpec

Purpose: TypeAlias = Literal["train", "validation", "calibration", "test"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)

#: seeds of regions that users see in demonstrations, documentation and tests: no model may have learnt from them
RESERVED_SEEDS = range(100)

#: pixel size of simulated regions, m
RESOLUTION = 10.0

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Tiles:
    """Tiles of a recipe, as long as what they are read from is open.

    Parameters
    ----------
    origin
        In words, what they come from.
    real
        Whether they show real ground.
    resolution
        Pixel size, m.
    counts
        Tiles by purpose.
    read
        Gives the tiles of a purpose, one after the other.
    unit_of
        What a tile shares its errors with: the name of a region in a year, by the tile's name.
    identity
        What the data are known by, as JSON: a training is only taken up again with the same.
    error_regions
        Simulated regions whose maps tell apart what a region has in common from what a year has.
    features
        The recipe's features with their polarisation and radiometry, where the source says them; else empty.
    """

    origin: str
    real: bool
    resolution: float
    counts: Mapping[Purpose, int]
    read: Callable[[Purpose], Iterator[Tile]]
    unit_of: Callable[[str], str]
    identity: Mapping[str, Any] = field(default_factory=dict)
    error_regions: Sequence[simulate.SimulatedRegion] = ()
    features: tuple[FeatureSpec, ...] = ()


@dataclass(frozen=True)
class RegionSet:
    """Simulated regions: each seed in each year.

    Parameters
    ----------
    seeds
        Seeds, 100 or more.
    years
        Years.
    size_km
        Side of a region, km.
    shift
        How far the radar properties of the classes are moved, see `icemap_xr.simulate.region`.
    landscapes
        ``"default"``, or ``"varied"``: ice, debris, snow patches and relief drawn by seed.
    """

    __pydantic_config__ = _STRICT

    seeds: tuple[int, ...]
    years: tuple[int, ...] = (2020,)
    size_km: float = 4.0
    shift: float = 1.0
    landscapes: Literal["default", "varied"] = "default"

    def regions(self, features: Sequence[str], steps: int) -> Iterator[simulate.SimulatedRegion]:
        """Yield the regions."""
        for seed in self.seeds:
            yield simulate.region(
                size_km=self.size_km,
                years=self.years,
                seed=seed,
                steps=steps,
                resolution=RESOLUTION,
                features=features,
                shift=self.shift,
                landscape=varied_landscape(seed) if self.landscapes == "varied" else None,
            )


@dataclass(frozen=True)
class DataSection:
    """Simulated regions for each purpose; no seed serves two.

    Parameters
    ----------
    train, validation, calibration, test
        What the network learns from, what decides which weights are kept, and so on.
    errors
        Regions of several years each: from their maps come the block errors of the bundle. Without them block errors
        come from the test maps, where the effect of a region and of a year cannot be told apart.
    """

    __pydantic_config__ = _STRICT

    train: tuple[RegionSet, ...]
    validation: tuple[RegionSet, ...]
    calibration: tuple[RegionSet, ...]
    test: tuple[RegionSet, ...]
    errors: tuple[RegionSet, ...] = ()

    def __post_init__(self) -> None:
        seen: dict[int, str] = {}
        for purpose in (*PURPOSES, "errors"):
            seeds = {seed for one in getattr(self, purpose) for seed in one.seeds}
            for seed in sorted(seeds):
                if seed in RESERVED_SEEDS:
                    raise InputError(f"seed {seed} of {purpose} is kept for users: give {RESERVED_SEEDS.stop} or more")
                if seed in seen:
                    raise InputError(f"seed {seed} serves {seen[seed]} and {purpose}: use each for one purpose")
                seen[seed] = purpose

    @contextmanager
    def open(self, features: Sequence[FeatureSpec], steps: int, base: Path) -> Iterator[Tiles]:
        """Yield the tiles; regions are simulated when asked for, one at a time."""
        names = [feature.name for feature in features]

        def read(purpose: Purpose) -> Iterator[Tile]:
            for one in getattr(self, purpose):
                for region in one.regions(names, steps):
                    yield from simulated_tiles(region, features)

        counts = {purpose: _region_years(getattr(self, purpose)) for purpose in PURPOSES}
        origin = "simulated regions (icemap_xr.simulate), no real scene"
        regions = [region for one in self.errors for region in one.regions(names, steps)]
        yield Tiles(origin, False, RESOLUTION, counts, read, lambda name: name, error_regions=regions)


def _region_years(sets: Sequence[RegionSet]) -> int:
    return sum(len(one.seeds) * len(one.years) for one in sets)


def varied_landscape(seed: int) -> Landscape:
    """Return a landscape drawn by seed."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1,)))
    return Landscape(
        ice_cover=float(rng.uniform(0.15, 0.65)),
        debris_cover=float(rng.uniform(0.1, 0.4)),
        snow_patch_cover=float(rng.uniform(0.03, 0.14)),
        relief=float(rng.uniform(600, 1400)),
    )
