"""Read one block of one scene from its rasters, in the units of the cube. A fault is an error, never nodata.

A fault that another try may mend is tried again until the tries or the deadline are over, with GDAL's cache of failures
passed by and short-lived tokens renewed. What stays is an error, or, where asked for, a recorded hole.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import pystac
import rasterio
import zarr
from dask.system import CPU_COUNT
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.env import setenv
from rasterio.errors import RasterioError

from icemap_xr import schema
from icemap_xr.access import Access
from icemap_xr.errors import InputError, ReadError
from icemap_xr.grd.options import GrdOptions
from icemap_xr.logscrub import scrub_logs
from icemap_xr.metrics import count
from icemap_xr.quotas import Limits, Slot
from icemap_xr.rastercheck import check_raster
from icemap_xr.readfault import ReadFault, diagnose, record
from icemap_xr.scenes import Scene
from icemap_xr.store import encode
from icemap_xr.units import to_units
from icemap_xr.urls import scrub
from icemap_xr.web import TRANSIENT, Deadline, Patience

Loader = Literal["odc", "stackstac"]
LOADERS: tuple[Loader, ...] = ("odc", "stackstac")

#: a stalled socket would hang for ever without the time-outs; the tries are ours, because GDAL keeps failures in mind
GDAL_OPTIONS = {
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_MAX_RETRY": "0",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "100",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "CPL_VSIL_CURL_AUTHORIZATION_HEADER_ALLOWED_IF_REDIRECT": "NO",
    "VSI_CACHE": "TRUE",
}
#: rasterio wants these set within an environment, not given to it
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
#: threads that read over a network at least
_WAITING = 16


@dataclass(frozen=True)
class Reading:
    """How rasters are read.

    Parameters
    ----------
    loader
        ``"odc"`` (odc-stac) or ``"stackstac"``.
    resampling
        GDAL resampling where the raster lies on another grid, such as ``"bilinear"``.
    access
        Which addresses may be opened, and with which credentials.
    local
        Whether the items are the user's own, so that they may name local files.
    patience
        Tries and deadline of one block.
    grd
        How scenes in radar geometry are calibrated and geocoded; without it they are refused.
    limits
        What the provider allows all workers together.
    """

    loader: Loader = "odc"
    resampling: str = "nearest"
    access: Access = field(default_factory=Access)
    local: bool = True
    patience: Patience = field(default_factory=Patience)
    grd: GrdOptions | None = None
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class BlockRead:
    """Reads one block of one scene as int16 codes `(1, y, x)` when called; a task of its own.

    Parameters
    ----------
    scene, geobox, reading
        What is read, and how.
    hole
        File in which a block that cannot be read is recorded, to be left empty in the cube; without it, an error.
    """

    scene: Scene
    geobox: GeoBox
    reading: Reading = field(default_factory=Reading)
    hole: str | None = None

    def __call__(self) -> NDArray[np.int16]:
        """Read, convert and encode."""
        one = schema.feature(self.scene.feature)
        # waiting for a slot is no part of the patience with faults
        with _slot(self.scene, self.geobox, self.reading) as slot:
            found = _try_block(self.scene, self.geobox, self.reading, slot)
        if isinstance(found, ReadFault):
            if self.hole is None:
                raise _error(found, self.scene)
            record(found, self.scene, self.hole)
            count("holes")
            found = np.full(self.geobox.shape, np.nan, np.float32)
        elif self.hole is not None:
            # of an interrupted call
            Path(self.hole).unlink(missing_ok=True)
        count("read_bytes", found.nbytes)
        try:
            return encode(found, one.step, schema.NODATA_CODE)[None]
        except InputError as error:
            raise InputError(f"item {self.scene.item_ids!r}: {error}") from None


@dataclass(frozen=True)
class BlockCopy:
    """Takes one block of one scene from another cube as it is stored, int16 codes `(1, y, x)`; a task of its own.

    Parameters
    ----------
    path
        Zarr array.
    position
        Place of the scene in the series.
    rows, columns
        The block.
    """

    path: str
    position: int
    rows: slice
    columns: slice

    def __call__(self) -> NDArray[np.int16]:
        """Read the codes."""
        array = zarr.open_array(self.path, mode="r")
        return np.asarray(array[self.position : self.position + 1, self.rows, self.columns], np.int16)


def reading_threads(scenes: Iterable[Scene], connections: int | None) -> dict[str, int]:
    """Return Dask's option for the threads of this process that read scenes: most of them only wait for a network.

    No more than the provider's quota of connections; what the user has set, or local files, change nothing.
    """
    remote = any("://" in str(item["assets"][s.asset]["href"]) for s in scenes for item in s.items[:1])
    if not remote or dask.config.get("num_workers", None) is not None:
        return {}
    return {"num_workers": min(max(_WAITING, CPU_COUNT), connections or 10**6)}


def read_block(
    scene: Scene,
    geobox: GeoBox,
    loader: Loader = "odc",
    resampling: str = "nearest",
    *,
    access: Access | None = None,
    local: bool = True,
    patience: Patience | None = None,
) -> NDArray[np.float32]:
    """Read a scene on a grid, in the feature's units.

    Parameters
    ----------
    scene
        Scene to read; where its items overlap the first valid pixel counts.
    geobox
        Grid of the block.
    loader, resampling, access, local, patience
        See `Reading`.

    Returns
    -------
    numpy.ndarray
        `(y, x)` float32; NaN = nodata.

    Raises
    ------
    ReadError
        A raster could not be opened or read within the tries and the deadline.
    AccessError
        An address is not allowed.
    NotGeocodedError
        A raster is in radar geometry.
    InputError
        The values cannot be what the provider profile says.
    """
    found = _try_block(scene, geobox, Reading(loader, resampling, access or Access(), local, patience or Patience()))
    if isinstance(found, ReadFault):
        raise _error(found, scene)
    return found


def _error(fault: ReadFault, scene: Scene) -> ReadError:
    error = ReadError(f"{fault}: check that it exists and is a raster; run again to resume")
    # a local file was tried once; over a network the deadline has been used
    error.given_up = any(_is_remote(str(item["assets"][scene.asset]["href"])) for item in scene.items)
    return error


def _slot(scene: Scene, geobox: GeoBox, reading: Reading) -> AbstractContextManager[Slot | None]:
    """Return the provider's slot for a block; local files need none."""
    hrefs = [str(item["assets"][scene.asset]["href"]) for item in scene.items]
    if not any(_is_remote(href) for href in hrefs):
        return nullcontext()
    return reading.limits.slot(geobox.shape, len(hrefs))


def _is_remote(href: str) -> bool:
    return "://" in href and not href.startswith("file:")


def _try_block(
    scene: Scene, geobox: GeoBox, reading: Reading, slot: Slot | None = None
) -> NDArray[np.float32] | ReadFault:
    """Read until it goes well, cannot, or the time is over."""
    patience, deadline = reading.patience, Deadline(reading.patience.deadline)
    hrefs = [str(item["assets"][scene.asset]["href"]) for item in scene.items]
    for href in hrefs:
        reading.access.check(href, local=reading.local, what=f"item {scene.item_ids!r}, asset {scene.asset!r}")
    remote = any(_is_remote(href) for href in hrefs)
    tries = 0
    while True:
        tries += 1
        try:
            return to_units(_read_once(scene, geobox, reading, deadline.left, slot, fresh=tries > 1), scene)
        except (OSError, RuntimeError, RasterioError) as error:
            status, cause = diagnose(error)
        # the first failure may be an old one that GDAL remembers
        again = remote and (tries == 1 or status is None or status in TRANSIENT)
        # GDAL does not always tell the status of a token that ended between two requests
        if status in (None, 401, 403):
            again = sum(reading.access.renew(href) for href in hrefs) > 0 or again
        pause = patience.pause(tries - 1)
        if not again or tries >= patience.tries or pause >= deadline.left:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            return ReadFault(scene.item_ids, scene.asset, scrub(" ".join(hrefs)), status, cause, tries, now)
        count("read_retries")
        time.sleep(pause)


def _read_once(
    scene: Scene, geobox: GeoBox, reading: Reading, left: float, slot: Slot | None, *, fresh: bool
) -> NDArray[Any]:
    scrub_logs()
    # odc-stac logs its errors; ours say the same
    logging.getLogger("odc.loader").setLevel(logging.CRITICAL)
    items = [pystac.Item.from_dict(content) for content in scene.items]
    options = dict(GDAL_OPTIONS)
    for item in items:
        asset = item.assets[scene.asset]
        options |= reading.access.options(asset.href, reading.patience)
        asset.href = reading.access.signed(asset.href, reading.patience)
    options["GDAL_HTTP_TIMEOUT"] = f"{max(1.0, min(reading.patience.timeout, left)):.0f}"
    if fresh:
        # GDAL remembers a failed opening; this makes it ask again
        options["CPL_VSIL_CURL_NON_CACHED"] = "/vsicurl/:/vsis3/"
    keys = {name: options.pop(name) for name in KEYS if name in options}
    if not scene.geocoded and reading.grd is not None:
        return _read_radar(scene, geobox, reading, options | keys, slot)
    # slow to import, and needed only where rasters are read
    from icemap_xr.loaders import read_odc, read_stackstac

    assets = [item.assets[scene.asset] for item in items]
    with rasterio.Env(**options):
        setenv(**keys)
        seen = None if slot is None else partial(slot.see, geobox=geobox)
        nodata = [check_raster(asset, item.id, scene, seen=seen) for item, asset in zip(items, assets, strict=True)]
        if reading.loader == "stackstac":
            if scene.band is not None or any(value is not None for value in nodata):
                raise InputError(
                    "loader='stackstac' reads neither one band of several nor nodata that the raster does not declare "
                    f"(item {scene.item_ids!r}): choose loader='odc'"
                )
            return read_stackstac(items, scene.asset, geobox, reading.resampling, options)
        rasters = [(asset.href, value) for asset, value in zip(assets, nodata, strict=True)]
        return read_odc(rasters, scene.band or 1, geobox, reading.resampling)


def _read_radar(
    scene: Scene, geobox: GeoBox, reading: Reading, options: dict[str, str], slot: Slot | None
) -> NDArray[Any]:
    """Read a scene in radar geometry: calibrated, cleaned and geocoded, in dB."""
    from icemap_xr.grd.fetch import Fetcher
    from icemap_xr.grd.step import read_block as read_grd

    assert reading.grd is not None
    keys = {name: options.pop(name) for name in KEYS if name in options}
    hrefs = [str(item["assets"][scene.asset]["href"]) for item in scene.items]
    rasters = [(href, reading.access.signed(href, reading.patience)) for href in hrefs]
    fetch = Fetcher(reading.access, reading.patience, None if slot is None else slot.take)
    took = None if slot is None else slot.take_window
    with rasterio.Env(**options):
        setenv(**keys)
        return read_grd(rasters, scene.polarisation, geobox, reading.grd, fetch, took)
