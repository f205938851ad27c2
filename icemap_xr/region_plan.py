"""What whole regions would take, up to the globe: scenes, bytes, GPU hours, storage and wall time (docs/planning.md).

The arithmetic is that of `icemap_xr.run_plan`; here only the ground comes from inventoried glacier areas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from icemap_xr.access import Access
from icemap_xr.errors import InputError, did_you_mean
from icemap_xr.providers import Quotas, load_provider
from icemap_xr.run_plan import STRIPS_LINE, RunPlan, assumed, plan_ground

#: glacier area in km2 of the first-order regions, Randolph Glacier Inventory 7.0 (RGI 7.0 Consortium, 2023,
#: doi:10.5067/f6jmovy5navz): the table of areas by region in the inventory's user guide, where they add up to 706,744.
#: Of the glaciers of the first-order region 20, the Antarctic mainland, the inventory has none.
RGI_KM2 = {
    "01 Alaska": 86_708,
    "02 Western Canada and USA": 14_521,
    "03 Arctic Canada North": 105_370,
    "04 Arctic Canada South": 40_538,
    "05 Greenland Periphery": 90_482,
    "06 Iceland": 11_060,
    "07 Svalbard and Jan Mayen": 33_959,
    "08 Scandinavia": 2_948,
    "09 Russian Arctic": 51_595,
    "10 North Asia": 2_643,
    "11 Central Europe": 2_124,
    "12 Caucasus and Middle East": 1_407,
    "13 Central Asia": 50_344,
    "14 South Asia West": 33_075,
    "15 South Asia East": 16_049,
    "16 Low Latitudes": 1_929,
    "17 Southern Andes": 27_674,
    "18 New Zealand": 886,
    "19 Subantarctic and Antarctic Islands": 133_432,
}
_RESOLUTION = 10.0
#: km2 of one Sentinel-1 IW slice as it is distributed: 250 km across the swath, 170 km along it (Copernicus, Sentinel-1
#: Product Definition)
SLICE_KM2 = 250 * 170
#: relative orbits of Sentinel-1; no place is seen from more
_ORBITS = 175
_MOST = 1_000_000
Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Rates:
    """What is assumed, and printed with every plan.

    Parameters
    ----------
    gflops
        Sustained speed of one GPU (or machine), 1e9 operations per second; multiply windows per second of
        `predict(dry_run=True).timed()` by the operations of a window.
    gpus
        How many there are.
    ground
        Mapped ground per glacier area: the tiles that hold ice hold other ground, too.
    tracks
        Relative orbits that see each place and are mapped.
    overlap
        Overlap of windows.
    steps
        Scenes per year and feature that the network takes.
    connections, mb_per_s
        Connections at a time, and megabytes (1e6) per second of each; of these and the provider's quotas the lower ones
        hold.
    gflops_source, reading_source
        Where the rates come from, for the printed assumptions.
    """

    gflops: float = 1000.0
    gpus: int = 1
    ground: float = 2.0
    tracks: int = 1
    overlap: float = 0.5
    steps: int = 15
    connections: int | None = None
    mb_per_s: float | None = None
    gflops_source: str = "--gflops"
    reading_source: str = "--mb-per-s"

    @classmethod
    def measured(
        cls,
        features: Sequence[str] = ("grd", "insar"),
        *,
        raster: str | None = None,
        access: Access | None = None,
        **given: Any,
    ) -> Rates:
        """Measure the network's speed on this machine and, with a raster, how fast one connection reads.

        Takes some 10 s for the network on a GPU, longer on a processor, and 5 s for the raster.

        Parameters
        ----------
        features
            Features of the network.
        raster
            Path or address of a raster such as the provider's.
        access
            How it is opened.
        **given
            The other rates.

        Raises
        ------
        ReadError, AccessError, InputError
            The raster cannot be read, may not be, or is too small.
        """
        # TensorFlow is slow to import
        from icemap_xr.measuring import device, network_gflops, reading_mb_per_s

        if raster is not None:
            rate = reading_mb_per_s(raster, access)
            given |= {"mb_per_s": rate, "reading_source": "measured here, one connection"}
        gflops = network_gflops(features, steps=given.get("steps", cls.steps))
        return cls(**given | {"gflops": gflops, "gflops_source": f"measured here on {device()}"})

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        for name, most in (("gpus", _MOST), ("tracks", _ORBITS), ("steps", _MOST)):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= most:
                raise InputError(f"{name}={value!r} is not allowed: give a whole number from 1 to {most}")
        for name, low, high in (("gflops", 1e-3, 1e12), ("ground", 1, 1000)):
            # NaN is in no range
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name}={getattr(self, name)} is not allowed: give {low:g} to {high:g}")
        if self.connections is not None and (type(self.connections) is not int or not 1 <= self.connections <= _MOST):
            raise InputError(f"connections={self.connections!r} is not allowed: give a whole number from 1 to {_MOST}")
        if self.mb_per_s is not None and not 1e-3 <= self.mb_per_s <= 1e9:
            raise InputError(f"mb_per_s={self.mb_per_s} is not allowed: give 0.001 to 1e+09")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap} is not allowed: give 0 to below 1")


@dataclass(frozen=True)
class RegionPlan:
    """What a region would take.

    Parameters
    ----------
    name
        Region.
    plan
        The numbers.
    gpus
        GPUs that share the computing.
    scenes
        Scenes, as slices: passes x the slices that the ground fills; at least so many, as glaciers lie scattered.
    """

    name: str
    plan: RunPlan
    gpus: int
    scenes: int

    @property
    def passes(self) -> int:
        """Dates of all features and relative orbits, over all years."""
        return sum(self.plan.scenes.values())

    @property
    def gpu_hours(self) -> float:
        """Hours of one GPU."""
        return self.plan.compute_hours

    @property
    def wall_hours(self) -> float | None:
        """Hours from beginning to end: reading and computing overlap, so the longer one; None without a quota."""
        reading = self.plan.transfer_hours
        return None if reading is None else max(reading, self.gpu_hours / self.gpus)

    @property
    def storage_tb(self) -> float:
        """Cube and maps in terabytes (1e12), uncompressed."""
        return (self.plan.cube_bytes + self.plan.map_bytes) / 1e12


def plan_regions(
    regions: Sequence[str] = (),
    *,
    years: int,
    features: tuple[str, ...] = ("grd", "insar"),
    rates: Rates | None = None,
    provider: str | None = None,
) -> list[RegionPlan]:
    """Work out what RGI first-order regions would take, and all of them together.

    Parameters
    ----------
    regions
        Numbers or parts of names, such as ``"07"`` or ``"svalbard"``; all by default, and then the globe, too.
    years
        Number of years.
    features
        Features that are read.
    rates
        Assumptions.
    provider
        Profile whose quotas bound reading; none by default, and then wall time is not known.

    Raises
    ------
    InputError
        A region or provider is unknown, or a rate is none.
    """
    rates = rates or Rates()
    if years < 1 or not features:
        raise InputError(f"years={years}, features={list(features)} are not allowed: give at least one of each")
    quotas = load_provider(provider).quotas if provider else Quotas()
    quotas = replace(
        quotas,
        connections=_lower(quotas.connections, rates.connections) or (1 if rates.mb_per_s is not None else None),
        mb_per_s=_lower(quotas.mb_per_s, rates.mb_per_s),
    )
    names = [_known(one) for one in regions] or list(RGI_KM2)
    ground = {name: RGI_KM2[name] for name in names}
    plans = [_region(name, km2, years, features, rates, quotas) for name, km2 in ground.items()]
    if not regions:
        globe = _region("the globe", sum(RGI_KM2.values()), years, features, rates, quotas)
        # slices of one region show no other
        plans.append(replace(globe, scenes=sum(one.scenes for one in plans)))
    return plans


def _lower(quota: Number | None, own: Number | None) -> Number | None:
    return min((one for one in (quota, own) if one is not None), default=None)


def _region(name: str, km2: float, years: int, features: tuple[str, ...], rates: Rates, quotas: Quotas) -> RegionPlan:
    plan = _plan(km2, years, features, rates, quotas)
    return RegionPlan(name, plan, rates.gpus, sum(plan.scenes.values()) * math.ceil(km2 * rates.ground / SLICE_KM2))


def _known(text: str) -> str:
    found = [name for name in RGI_KM2 if text.lower() in name.lower()]
    if len(found) != 1:
        raise InputError(
            f"region {text!r} names {len(found)} of the regions{did_you_mean(text, RGI_KM2)}; known are "
            f"{', '.join(RGI_KM2)}"
        )
    return found[0]


def _plan(km2: float, years: int, features: tuple[str, ...], rates: Rates, quotas: Quotas) -> RunPlan:
    side = math.ceil(math.sqrt(km2 * rates.ground * 1e6) / _RESOLUTION)
    return plan_ground(
        side,
        side,
        share=1.0,
        years=years,
        scenes=assumed(features, years, rates.tracks),
        counted=False,
        steps=rates.steps,
        overlap=rates.overlap,
        gflops=rates.gflops,
        quotas=quotas,
        tracks=tuple(range(1, rates.tracks + 1)),
    )


def assumptions(rates: Rates, features: Sequence[str], provider: str | None) -> list[str]:
    """Return what the numbers rest on, one line each."""
    return [
        f"ground: {rates.ground:g} times the glacier area of RGI 7.0, at {_RESOLUTION:g} m",
        f"dates: {rates.tracks} relative orbit(s), one platform, a pass every 12 days; features {', '.join(features)}",
        f"scenes: at least dates x ground / {SLICE_KM2:,} km2 (an IW slice), rounded up in each region",
        "to read: every date over all of the ground, one polarisation, bytes per pixel as a recorded scene; of blocks "
        f"of 512 px the internal tiles of 256 px that they touch; {STRIPS_LINE}",
        "storage: cube with 2 bytes per pixel and scene, maps with 4 per pixel and year, uncompressed",
        f"GPU: {rates.gflops:,.4g} GFLOP/s sustained ({rates.gflops_source}), {rates.gpus} of them; windows overlap by "
        f"{rates.overlap:g}, {rates.steps} steps",
        *_reading(rates),
        f"wall time: the longer of reading (quotas of {provider or 'no provider'} or --connections x --mb-per-s, "
        "whichever is lower; without any not known) and computing, without queues and faults; months: of the "
        "provider's monthly transfer",
    ]


def _reading(rates: Rates) -> list[str]:
    if rates.mb_per_s is None:
        return []
    return [f"reading: {rates.connections or 1} connection(s) of {rates.mb_per_s:,.4g} MB/s ({rates.reading_source})"]
