"""A simulated region as files: Cloud-Optimized GeoTIFFs, a static STAC catalogue, and the truth."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray

from icemap_xr.errors import InputError, OutputExistsError, StoreError
from icemap_xr.progress import Advance
from icemap_xr.simulate.acquisitions import Acquisition
from icemap_xr.stac_items import Orbit, Raster, coherence_item, open_header, sar_item, write_catalog

if TYPE_CHECKING:
    from icemap_xr.simulate.region import SimulatedRegion

COLLECTIONS = {"grd": "simulated-s1-grd", "rtc": "simulated-s1-rtc", "insar": "simulated-s1-coherence"}
_PRODUCTS = {"grd": "GRD", "rtc": "RTC"}


def write_region(region: SimulatedRegion, folder: Path, progress: Advance | None) -> Path:
    """Write a region; see `SimulatedRegion.write`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not an empty folder: choose another or remove it")
    title = f"Simulated glacier region, seed {region.seed}"
    with _appear(folder) as draft:
        items = [item for feature in region.features for item in _scenes(region, feature, draft, progress)]
        if not items:
            raise InputError(f"missing={region.missing} left no acquisition at all: nothing to write")
        _truth(region, draft / "truth")
        write_catalog(items, draft, title=title)
    return folder.resolve() / "catalog.json"


@contextmanager
def _appear(folder: Path) -> Iterator[Path]:
    """Give a folder beside the target to write into; it takes the target's name when all went well."""
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield draft
        # mkdtemp makes a folder that only its owner may read
        draft.chmod(0o777 & ~_umask())
        os.replace(draft, target)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise StoreError(f"{folder} could not be written: {error}; check free space and permissions") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _scenes(region: SimulatedRegion, feature: str, folder: Path, progress: Advance | None) -> Iterator[pystac.Item]:
    for year in region.years:
        known = [one for one in region.acquisitions(feature) if one.year == year]
        for one, values in zip(known, region.year_series(feature, year), strict=True):
            if not one.missing:
                yield _scene(region, one, values, folder)
            if progress is not None:
                progress(1)


def _scene(region: SimulatedRegion, one: Acquisition, values: NDArray[np.float32], folder: Path) -> pystac.Item:
    collection = COLLECTIONS[one.feature]
    orbit = Orbit(one.platform, one.relative_orbit, one.absolute_orbit, one.orbit_state, "IW")
    properties = {"title": f"Simulated {one.feature}, seed {region.seed}"}
    name = _name(one)
    file = folder / collection / name / f"{name}.tif"
    raster = _write(region, file, values, _tags(one))
    if one.second_time is not None:
        return coherence_item(
            name,
            raster,
            first=one.time,
            second=one.second_time,
            collection=collection,
            orbit=orbit,
            polarisation=one.polarisation,
            properties=properties,
        )
    return sar_item(
        name,
        {one.polarisation: raster},
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
    return f"sim_S1{unit}_{one.feature}_{one.time:%Y%m%dT%H%M%S}_{one.absolute_orbit:06d}_{one.polarisation}"


def _tags(one: Acquisition) -> dict[str, str]:
    tags = {"PLATFORM": one.platform, "ABSOLUTE_ORBIT": str(one.absolute_orbit), "POLARISATION": one.polarisation}
    if one.second_time is None:
        return tags | {"ACQUISITION_TIME": f"{one.time:%Y-%m-%dT%H:%M:%SZ}", "UNITS": "dB"}
    dates = (("FIRST", one.time), ("SECOND", one.second_time))
    return tags | {f"{k}_DATE": f"{t:%Y-%m-%d}" for k, t in dates} | {f"{k}_TIME": f"{t:%H:%M:%S}" for k, t in dates}


def _write(region: SimulatedRegion, file: Path, values: NDArray[Any], tags: dict[str, str]) -> Raster:
    """Write one band as a Cloud-Optimized GeoTIFF and return its header."""
    floating = np.issubdtype(values.dtype, np.floating)
    file.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {
        "driver": "COG",
        "height": values.shape[0],
        "width": values.shape[1],
        "count": 1,
        "dtype": values.dtype,
        "crs": region.grid.crs,
        "transform": region.grid.geobox.transform,
        "nodata": np.nan if floating else None,
        "compress": "DEFLATE",
        "level": 1,
        "predictor": "FLOATING_POINT" if floating else "STANDARD",
        "blocksize": 256,
        "resampling": "AVERAGE" if floating else "NEAREST",
    }
    with rasterio.open(file, "w", **options) as out:
        out.write(values, 1)
        out.update_tags(**tags)
    return open_header(file)


def _truth(region: SimulatedRegion, folder: Path) -> None:
    """Write the truth: fraction and class of each year, elevation, outlines and areas."""
    truth = region.truth()
    for year in region.years:
        now = truth.sel(year=year)
        _write(region, folder / f"glacier_fraction_{year}.tif", now["glacier_fraction"].values, {"YEAR": str(year)})
        _write(region, folder / f"surface_{year}.tif", now["surface"].values, dict(_legend(truth["surface"].attrs)))
    _write(region, folder / "dem.tif", truth["dem"].values, {"UNITS": "m"})
    outlines = region.outlines()
    outlines.to_parquet(folder / "outlines.parquet")
    outlines[["year", "area_km2"]].to_csv(folder / "areas.csv", index=False)


def _legend(attrs: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for value, meaning in zip(attrs["flag_values"], attrs["flag_meanings"].split(), strict=True):
        yield f"CLASS_{value}", meaning
