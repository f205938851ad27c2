"""A simulated region as files: Cloud-Optimized GeoTIFFs, a static STAC catalogue, and the truth."""

from __future__ import annotations

import errno
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pystac
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from icemap_xr.errors import InputError
from icemap_xr.folders import appearing
from icemap_xr.progress import Advance
from icemap_xr.simulate.acquisitions import Acquisition
from icemap_xr.simulate.parameters import Surface
from icemap_xr.stac_items import Orbit, coherence_item, open_header, sar_item, write_catalog

if TYPE_CHECKING:
    from icemap_xr.simulate.simulated import SimulatedRegion

COLLECTIONS = {"grd": "simulated-s1-grd", "rtc": "simulated-s1-rtc", "insar": "simulated-s1-coherence"}
_PRODUCTS = {"grd": "GRD", "rtc": "RTC"}
#: how much GDAL may hold before it writes, MB; side of the tiles in the files, pixels
_CACHE_MB, _TILE = 64, 256
_T = TypeVar("_T")


class _Crew:
    """Threads that simulate and compress: NumPy, SciPy and GDAL let others run while they work."""

    def __init__(self, pool: ThreadPoolExecutor, workers: int) -> None:
        self._pool, self._ahead = pool, workers + 1

    def start(self, job: Callable[[], _T]) -> Future[_T]:
        """Begin a job."""
        return self._pool.submit(job)

    def results(self, jobs: Iterable[Callable[[], _T]]) -> Iterator[_T]:
        """Yield the results in order; few jobs are under way at a time, so that memory is bounded."""
        begun: deque[Future[_T]] = deque()
        for job in jobs:
            begun.append(self._pool.submit(job))
            if len(begun) > self._ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def write_region(region: SimulatedRegion, folder: Path, progress: Advance | None, workers: int) -> Path:
    """Write a region; see `SimulatedRegion.write`."""
    if workers < 1:
        raise InputError(f"workers {workers} is not allowed: give 1 or more threads")
    title = f"Simulated glacier region, seed {region.seed}"
    with appearing(folder) as draft, ThreadPoolExecutor(workers) as pool:
        crew = _Crew(pool, workers)
        items = [item for year in region.years for item in _scenes(region, year, draft, progress, crew)]
        if not items:
            raise InputError(f"missing={region.missing} left no acquisition at all: nothing to write")
        _truth(region, draft / "truth", crew)
        write_catalog(items, draft, title=title)
    return folder.resolve() / "catalog.json"


def _scenes(
    region: SimulatedRegion, year: int, folder: Path, progress: Advance | None, crew: _Crew
) -> Iterator[pystac.Item]:
    """Write all scenes of a year, block by block, and yield their items."""
    known = [one for feature in region.features for one in region.acquisitions(feature) if one.year == year]
    taken = [one for one in known if not one.missing]
    channels = [(one, channel) for one in taken for channel in one.polarisations]
    files = [_file(folder, one, channel) for one, channel in channels]
    blocks = list(region.blocks())
    told = 0
    with _rasters(region, files, "float32", [_tags(*pair) for pair in channels], crew) as out:
        coming = crew.start(partial(region.view, year, *blocks[0]))
        for number, block in enumerate(blocks, start=1):
            view = coming.result()
            if number < len(blocks):
                coming = crew.start(partial(region.view, year, *blocks[number]))
            looks = crew.results(partial(region.look, view, *pair) for pair in channels)
            for raster, values in zip(out, looks, strict=True):
                raster.write(values, 1, window=Window.from_slices(*block))
            done = len(known) * number // len(blocks)
            if progress is not None:
                progress(done - told)
            told = done
    for one in taken:
        yield _item(region, one, folder)


def _file(folder: Path, one: Acquisition, channel: str) -> Path:
    name = _name(one)
    unit = f"{name}_{channel}" if one.second_time is None else name
    return folder / COLLECTIONS[one.feature] / name / f"{unit}.tif"


def _item(region: SimulatedRegion, one: Acquisition, folder: Path) -> pystac.Item:
    collection = COLLECTIONS[one.feature]
    orbit = Orbit(one.platform, one.relative_orbit, one.absolute_orbit, one.orbit_state, "IW")
    properties = {"title": f"Simulated {one.feature}, seed {region.seed}"}
    rasters = {channel: open_header(_file(folder, one, channel)) for channel in one.polarisations}
    if one.second_time is not None:
        return coherence_item(
            _name(one),
            rasters[one.polarisation],
            first=one.time,
            second=one.second_time,
            collection=collection,
            orbit=orbit,
            polarisation=one.polarisation,
            properties=properties,
        )
    return sar_item(
        _name(one),
        rasters,
        time=one.time,
        collection=collection,
        product_type=_PRODUCTS[one.feature],
        unit="dB",
        orbit=orbit,
        properties=properties,
    )


def _name(one: Acquisition) -> str:
    if one.second_time is not None:
        return f"sim_{one.time:%Y%m%d}-{one.second_time:%Y%m%d}_{one.polarisation}_cc"
    unit = one.platform[-1].upper()
    return f"sim_S1{unit}_{one.feature}_{one.time:%Y%m%dT%H%M%S}_{one.absolute_orbit:06d}"


def _tags(one: Acquisition, channel: str) -> dict[str, str]:
    tags = {"PLATFORM": one.platform, "ABSOLUTE_ORBIT": str(one.absolute_orbit), "POLARISATION": channel}
    if one.second_time is None:
        return tags | {"ACQUISITION_TIME": f"{one.time:%Y-%m-%dT%H:%M:%SZ}", "UNITS": "dB"}
    dates = (("FIRST", one.time), ("SECOND", one.second_time))
    return tags | {f"{k}_DATE": f"{t:%Y-%m-%d}" for k, t in dates} | {f"{k}_TIME": f"{t:%H:%M:%S}" for k, t in dates}


@contextmanager
def _rasters(
    region: SimulatedRegion, files: Sequence[Path], dtype: str, tags: Sequence[dict[str, str]], crew: _Crew
) -> Iterator[list[Any]]:
    """Give plain rasters to write blocks into; each becomes a Cloud-Optimized GeoTIFF under its name in the end."""
    height, width = region.grid.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": dtype,
        "crs": region.grid.crs,
        "transform": region.grid.geobox.transform,
        "nodata": np.nan if dtype == "float32" else None,
        "bigtiff": "IF_SAFER",
    }
    drafts = [file.with_suffix(".draft.tif") for file in files]
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        with ExitStack() as stack:
            opened = []
            for draft, named in zip(drafts, tags, strict=True):
                draft.parent.mkdir(parents=True, exist_ok=True)
                opened.append(stack.enter_context(rasterio.open(draft, "w", **profile)))
                opened[-1].update_tags(**named)
            yield opened
        jobs = (
            partial(_finish, draft, file, (height, width), dtype) for draft, file in zip(drafts, files, strict=True)
        )
        for _ in crew.results(jobs):
            pass


def _finish(draft: Path, file: Path, shape: tuple[int, int], dtype: str) -> None:
    """Make a Cloud-Optimized GeoTIFF of a plain raster.

    The overviews are made in the uncompressed draft: GDAL would compress those that it makes itself twice.
    """
    floating, size = dtype == "float32", np.dtype(dtype).itemsize
    _check_whole(draft, math.prod(shape) * size)
    factors: list[int] = []
    while max(shape) // 2 ** len(factors) > _TILE:
        factors.append(2 ** (len(factors) + 1))
    options = {"compress": "DEFLATE", "level": 1, "blocksize": _TILE, "overviews": "FORCE_USE_EXISTING"}
    try:
        if factors:
            with rasterio.open(draft, "r+") as source:
                source.build_overviews(factors, Resampling.average if floating else Resampling.nearest)
            _check_whole(draft, sum(math.prod(math.ceil(n / f) for n in shape) for f in (1, *factors)) * size)
        predictor = "FLOATING_POINT" if floating else "STANDARD"
        rasterio.shutil.copy(draft, file, driver="COG", predictor=predictor, **options)
    except CPLE_BaseError as error:
        raise RasterioIOError(f"{file.name}: {error}") from error
    draft.unlink()


def _check_whole(draft: Path, size: int) -> None:
    """GDAL writes the last blocks when it closes a file, and a full disk then is not always an error."""
    found = draft.stat().st_size
    if found < size:
        raise OSError(errno.ENOSPC, f"{draft.name} has {found} of at least {size} bytes", str(draft))


def _truth(region: SimulatedRegion, folder: Path, crew: _Crew) -> None:
    """Write the truth: fraction and class of each year, glaciers, elevation, outlines, divides and areas."""
    legend = {f"CLASS_{one.value}": one.name.lower() for one in Surface}

    def layer(name: str, dtype: str, tags: dict[str, str], values: Callable[[slice, slice], NDArray[Any]]) -> None:
        blocks = list(region.blocks())
        with _rasters(region, [folder / f"{name}.tif"], dtype, [tags], crew) as (raster,):
            made = crew.results(partial(values, *block) for block in blocks)
            for block, part in zip(blocks, made, strict=True):
                raster.write(part, 1, window=Window.from_slices(*block))

    for year in region.years:
        layer(f"glacier_fraction_{year}", "float32", {"YEAR": str(year)}, partial(region.fraction, year))
        layer(f"surface_{year}", "uint8", legend, partial(region.surface, year))
    layer("glacier_id", "int32", {}, region.glacier_id)
    layer("dem", "float32", {"UNITS": "m"}, region.dem)
    outlines = region.outlines()
    outlines.to_parquet(folder / "outlines.parquet")
    outlines[["year", "area_km2"]].to_csv(folder / "areas.csv", index=False)
    region.divides().to_parquet(folder / "divides.parquet")
    region.areas(by="glacier").to_csv(folder / "glacier_areas.csv", index=False)
