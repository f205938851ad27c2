"""What a whole run would take: scenes, bytes, hours and storage, from the configuration and stated assumptions.

No network is used and nothing is written. Each number has a formula of its own; what is assumed is printed with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pystac

from icemap_xr import schema
from icemap_xr.blockjob import block_side
from icemap_xr.config import RunConfig
from icemap_xr.coverage import coverage
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask, marked_km2
from icemap_xr.models.cost import flops_per_window
from icemap_xr.models.icemapper import PUBLISHED_WINDOW, Architecture
from icemap_xr.models.registry import declared
from icemap_xr.providers import Quotas, known_providers
from icemap_xr.quotas import BYTES_PER_PIXEL, TILE_BYTES, tiles_touched
from icemap_xr.run import region_grid
from icemap_xr.sentinel1 import CYCLE

#: bytes of one pixel in the cube (int16) and in a map (float32), uncompressed
_CUBE_BYTES, _MAP_BYTES = 2, 4
#: blocks in which scenes are read: the cube's chunks, pixels
_BLOCK = (512, 512)
#: bytes of a block of a scene: whole internal tiles
_BLOCK_BYTES = tiles_touched(_BLOCK) * TILE_BYTES
#: how many times these bytes a block takes of an image in strips of whole lines: 25,000 samples of an IW slice, uint16
_STRIPS = _BLOCK[0] * 25_000 * 2 / _BLOCK_BYTES


#: what such images mean for plans
STRIPS_LINE = (
    "images in radar geometry that lie in strips of whole lines, as GRD products do that are no COGs, take "
    f"{_STRIPS:.0f} times as much"
)


@dataclass(frozen=True)
class RunPlan:
    """What a run would take.

    Parameters
    ----------
    rows, columns
        Grid of the region.
    share
        Share of the grid that is mapped (`predict.aoi`), 0..1.
    scenes
        Scenes by feature, over all years: passes over the region, the slices of one pass counted once.
    counted
        Whether they were counted from items rather than assumed.
    blocks
        Blocks of scenes that are read.
    cube_bytes, map_bytes
        Storage before compression.
    flops
        Operations of the network.
    gflops
        Assumed speed, 1e9 operations per second.
    quotas
        Quotas of the provider.
    tracks
        Relative orbits of the run; none named = any. Of several, each is read and mapped over the whole grid.
    mask
        What is mapped, in words.
    """

    rows: int
    columns: int
    share: float
    years: int
    scenes: dict[str, int]
    counted: bool
    blocks: int
    cube_bytes: float
    map_bytes: float
    flops: float
    gflops: float
    quotas: Quotas
    tracks: tuple[int, ...]
    mask: str = ""

    @property
    def transfer_bytes(self) -> float:
        """Bytes to read: the internal tiles that each block touches at most; none is kept for a neighbour."""
        return self.blocks * _BLOCK_BYTES

    @property
    def compute_hours(self) -> float:
        """Hours of the network at the assumed speed."""
        return self.flops / (self.gflops * 1e9) / 3600

    @property
    def transfer_hours(self) -> float | None:
        """Hours of reading at the provider's quotas, as they are held to; None where there are none on record."""
        if self.quotas.connections is None:
            return None
        slot = self.quotas.limits("planned").seconds(_BLOCK)
        return self.blocks * slot / self.quotas.connections / 3600 if slot else None

    def lines(self) -> list[str]:
        """Return the plan with its assumptions, one line each."""
        how = (
            "counted from the items"
            if self.counted
            else (f"assumed: one platform, a pass every {CYCLE.days} days on each relative orbit")
        )
        reading = self.transfer_hours
        hours = "no quota on record: unknown" if reading is None else f"{reading:.1f} h at the provider's quota"
        per_month = self.quotas.tb_per_month
        months = "" if per_month is None else f", {self.transfer_bytes / per_month / 1e12:.1f} of a month's transfer"
        scenes = ", ".join(f"{count} {name}" for name, count in self.scenes.items())
        return [
            f"grid: {self.rows} x {self.columns} px, {self.share:.1%} of it mapped{self.mask}, {self.years} years, "
            f"relative orbit {' and '.join(map(str, self.tracks)) or 'any'}",
            f"scenes: {scenes} (passes over the region, of any number of slices; {how})",
            f"to read: {self.transfer_bytes / 1e12:.2f} TB (each scene over the whole grid, one polarisation, at the "
            f"grid's pixel size; {BYTES_PER_PIXEL:.2f} bytes per pixel, as a recorded 10 m terrain-corrected scene; "
            f"of blocks of {_BLOCK[0]} px the internal tiles that they touch, {tiles_touched(_BLOCK)} for 4; "
            f"{STRIPS_LINE})",
            f"reading: {hours}{months}",
            f"storage: cube at most {self.cube_bytes / 1e12:.2f} TB (2 bytes per pixel and scene, uncompressed), maps "
            f"at most {self.map_bytes / 1e9:.1f} GB (4 bytes per pixel and year, uncompressed)",
            f"network: {self.flops / 1e15:.2f} PFLOP (windows of {PUBLISHED_WINDOW} px over what is mapped, counted "
            f"from the layers), {self.compute_hours:.1f} h at an assumed {self.gflops:g} GFLOP/s (--gflops)",
        ]


def plan_run(config: RunConfig, *, items: pystac.ItemCollection | None = None, gflops: float = 1000.0) -> RunPlan:
    """Work out what a configuration would take.

    Parameters
    ----------
    config
        The run.
    items
        Items of a search, to count scenes rather than assume them.
    gflops
        Sustained speed of the machines together, 1e9 operations per second.

    Raises
    ------
    InputError, GridError, UnknownModelError
        The configuration cannot be run.
    """
    grid = region_grid(config)
    spec = declared(config.model.name)
    names = tuple(config.model.features or (feature.name for feature in spec.features))
    years = len(config.years)
    one = config.search.relative_orbit
    tracks = config.orbits.relative or (() if one is None else (one,))
    known = known_providers().get(config.search.provider)
    share, mask = _share(config, grid)
    return plan_ground(
        *grid.shape,
        share=share,
        years=years,
        scenes=_counted(items, names, config) if items is not None else assumed(names, years, max(1, len(tracks))),
        counted=items is not None,
        steps=config.cube.steps,
        overlap=config.predict.overlap,
        gflops=gflops,
        quotas=known.quotas if known else Quotas(),
        tracks=tracks,
        mask=f" ({mask})",
    )


def plan_ground(
    rows: int,
    columns: int,
    *,
    share: float,
    years: int,
    scenes: dict[str, int],
    counted: bool,
    steps: int,
    overlap: float,
    gflops: float,
    quotas: Quotas,
    tracks: tuple[int, ...],
    mask: str = "",
) -> RunPlan:
    """Work out what some ground would take; the parameters are those of `RunPlan`, with steps per year and overlap."""
    passes, pixels = max(1, len(tracks)), rows * columns
    # in what the mask leaves, windows overlap as everywhere
    windows = _windows(rows, overlap) * _windows(columns, overlap) * share * years * passes
    return RunPlan(
        rows=rows,
        columns=columns,
        share=share,
        years=years,
        scenes=scenes,
        counted=counted,
        blocks=sum(scenes.values()) * math.prod(math.ceil(side / _BLOCK[0]) for side in (rows, columns)),
        cube_bytes=float(sum(scenes.values()) * pixels * _CUBE_BYTES),
        # the joined map, too
        map_bytes=float(years * pixels * _MAP_BYTES * (passes + (passes > 1))),
        flops=float(windows * window_flops(steps, len(scenes))),
        gflops=gflops,
        quotas=quotas,
        tracks=tracks,
        mask=mask,
    )


def _windows(size: int, overlap: float) -> int:
    """Return the windows of the published size along one side of a region, as `predict` runs them.

    A window that reaches into two output blocks is run for each.
    """
    stride = max(1, round(PUBLISHED_WINDOW * (1 - overlap)))
    borders = math.ceil(size / block_side(stride)) - 1
    return math.ceil(size / stride) + borders * (math.ceil(PUBLISHED_WINDOW / stride) - 1)


def window_flops(steps: int, features: int) -> int:
    """Return the operations of one window of the published size."""
    return flops_per_window(Architecture(steps=steps, features=features, window=PUBLISHED_WINDOW))


def assumed(names: tuple[str, ...], years: int, tracks: int) -> dict[str, int]:
    """Return scenes by feature of one platform: a pass of each relative orbit every cycle, and pairs of neighbours."""
    passes = round(years * 365.25 / CYCLE.days)
    return {name: tracks * (passes - 1 if schema.feature(name).pair else passes) for name in names}


def _counted(items: pystac.ItemCollection, names: tuple[str, ...], config: RunConfig) -> dict[str, int]:
    rows = coverage(items, years=config.years, year_start=config.year_start)
    days = config.cube.baseline_days
    # the cube keeps pairs of one baseline
    kept = [row for row in rows if days is None or not row.baseline_days or abs(row.baseline_days - days) < 1]
    return {name: sum(row.scenes for row in kept if row.feature == name) for name in names}


def _share(config: RunConfig, grid: RegionGrid) -> tuple[float, str]:
    """Return the share of the grid that is mapped, as seen on about 2000 x 2000 points, and what decides it."""
    aoi = config.predict.aoi
    if aoi is None:
        return 1.0, "no predict.aoi: sea is mapped, too"
    if not Path(aoi).exists():
        return 1.0, f"predict.aoi {aoi} is not there yet: all is counted, sea too; the run does not start without it"
    coarse = grid.resolution * max(1, math.ceil(max(grid.shape) / 2000))
    points = RegionGrid.from_bbox(grid.geobox.boundingbox.bbox, grid.crs, coarse, bbox_crs=grid.crs)
    marked = marked_km2(ground_mask(aoi, points), points)
    return marked / (points.shape[0] * points.shape[1] * points.pixel_area_km2), "predict.aoi"
