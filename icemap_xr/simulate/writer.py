"""A simulated region as files: Cloud-Optimized GeoTIFFs, a static STAC catalogue, and the truth."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
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
#: how much GDAL may hold before it writes, MB
_CACHE_MB = 64


def write_region(region: SimulatedRegion, folder: Path, progress: Advance | None) -> Path:
    """Write a region; see `SimulatedRegion.write`."""
    title = f"Simulated glacier region, seed {region.seed}"
    with appearing(folder) as draft:
        items = [item for year in region.years for item in _scenes(region, year, draft, progress)]
        if not items:
            raise InputError(f"missing={region.missing} left no acquisition at all: nothing to write")
        _truth(region, draft / "truth")
        write_catalog(items, draft, title=title)
    return folder.resolve() / "catalog.json"


def _scenes(region: SimulatedRegion, year: int, folder: Path, progress: Advance | None) -> Iterator[pystac.Item]:
    """Write all scenes of a year, block by block, and yield their items."""
    known = [one for feature in region.features for one in region.acquisitions(feature) if one.year == year]
    taken = [one for one in known if not one.missing]
    channels = [(one, channel) for one in taken for channel in one.polarisations]
    files = [_file(folder, one, channel) for one, channel in channels]
    with _rasters(region, files, "float32", [_tags(*pair) for pair in channels]) as out:
        for block in region.blocks():
            view = region.view(year, *block)
            for raster, (one, channel) in zip(out, channels, strict=True):
                raster.write(region.look(view, one, channel), 1, window=Window.from_slices(*block))
    for one in known:
        if not one.missing:
            yield _item(region, one, folder)
        if progress is not None:
            progress(1)


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
    region: SimulatedRegion, files: Sequence[Path], dtype: str, tags: Sequence[dict[str, str]]
) -> Iterator[list[Any]]:
    """Give plain rasters to write blocks into; each becomes a Cloud-Optimized GeoTIFF under its name in the end."""
    height, width = region.grid.shape
    floating = dtype == "float32"
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": dtype,
        "crs": region.grid.crs,
        "transform": region.grid.geobox.transform,
        "nodata": np.nan if floating else None,
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
        for draft, file in zip(drafts, files, strict=True):
            _check_whole(draft, height * width * np.dtype(dtype).itemsize)
            rasterio.shutil.copy(
                draft,
                file,
                driver="COG",
                compress="DEFLATE",
                level=1,
                predictor="FLOATING_POINT" if floating else "STANDARD",
                blocksize=256,
                overview_resampling="AVERAGE" if floating else "NEAREST",
            )
            draft.unlink()


def _check_whole(draft: Path, size: int) -> None:
    """GDAL writes the last blocks when it closes a file, and a full disk then is not always an error."""
    found = draft.stat().st_size
    if found < size:
        raise OSError(errno.ENOSPC, f"{draft.name} has {found} of at least {size} bytes", str(draft))


def _truth(region: SimulatedRegion, folder: Path) -> None:
    """Write the truth: fraction and class of each year, glaciers, elevation, outlines, divides and areas."""
    legend = {f"CLASS_{one.value}": one.name.lower() for one in Surface}
    for year in region.years:
        _layer(
            region,
            folder / f"glacier_fraction_{year}.tif",
            "float32",
            {"YEAR": str(year)},
            partial(region.fraction, year),
        )
        _layer(region, folder / f"surface_{year}.tif", "uint8", legend, partial(region.surface, year))
    _layer(region, folder / "glacier_id.tif", "int32", {}, region.glacier_id)
    _layer(region, folder / "dem.tif", "float32", {"UNITS": "m"}, region.dem)
    outlines = region.outlines()
    outlines.to_parquet(folder / "outlines.parquet")
    outlines[["year", "area_km2"]].to_csv(folder / "areas.csv", index=False)
    region.divides().to_parquet(folder / "divides.parquet")
    region.areas(by="glacier").to_csv(folder / "glacier_areas.csv", index=False)


def _layer(
    region: SimulatedRegion,
    file: Path,
    dtype: str,
    tags: dict[str, str],
    values: Callable[[slice, slice], NDArray[Any]],
) -> None:
    with _rasters(region, [file], dtype, [tags]) as (raster,):
        for block in region.blocks():
            raster.write(values(*block), 1, window=Window.from_slices(*block))
