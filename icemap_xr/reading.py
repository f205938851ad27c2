"""Read one block of one scene from its rasters, in the units of the cube. A fault is an error, never nodata."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.errors import InputError, ReadError
from icemap_xr.scenes import Scene
from icemap_xr.store import encode
from icemap_xr.urls import scrub

Loader = Literal["odc", "stackstac"]
LOADERS: tuple[Loader, ...] = ("odc", "stackstac")

#: far below what the removal of thermal noise leaves
_LEAST_POWER = -1.0

#: a stalled socket would hang for ever without the time-outs; transient server errors are worth another try
GDAL_OPTIONS = {
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_MAX_RETRY": "3",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "VSI_CACHE": "TRUE",
}


@dataclass(frozen=True)
class BlockRead:
    """Reads one block of one scene as int16 codes `(1, y, x)` when called; a task of its own."""

    scene: Scene
    geobox: GeoBox
    loader: Loader
    resampling: str

    def __call__(self) -> NDArray[np.int16]:
        """Read, convert and encode."""
        one = schema.feature(self.scene.feature)
        return encode(read_block(self.scene, self.geobox, self.loader, self.resampling), one.step, schema.NODATA_CODE)[
            None
        ]


def read_block(
    scene: Scene, geobox: GeoBox, loader: Loader = "odc", resampling: str = "nearest"
) -> NDArray[np.float32]:
    """Read a scene on a grid, in the feature's units.

    Parameters
    ----------
    scene
        Scene to read; where its items overlap the first valid pixel counts.
    geobox
        Grid of the block.
    loader
        ``"odc"`` (odc-stac) or ``"stackstac"``.
    resampling
        GDAL resampling where the raster lies on another grid, such as ``"bilinear"``.

    Returns
    -------
    numpy.ndarray
        `(y, x)` float32; NaN = nodata.

    Raises
    ------
    ReadError
        A raster could not be opened or read.
    InputError
        The values cannot be what the provider profile says.
    """
    read = {"odc": _read_odc, "stackstac": _read_stackstac}[loader]
    items = [pystac.Item.from_dict(content) for content in scene.items]
    # odc-stac logs addresses as they are, signatures included; the error below says the same without
    logging.getLogger("odc.loader").setLevel(logging.CRITICAL)
    try:
        with rasterio.Env(**GDAL_OPTIONS):
            return to_units(read(items, scene.asset, geobox, resampling), scene)
    except (OSError, RuntimeError, rasterio.errors.RasterioError) as error:
        fault = f"{type(error).__name__}: {_first_line(error)}"
    # raised out here, because GDAL's own error in its context could not travel from a worker
    href = scrub(scene.items[0]["assets"][scene.asset]["href"])
    raise ReadError(
        f"item {scene.item_ids!r}, asset {scene.asset!r} at {href} could not be read ({fault}): "
        "check that it exists and is a raster; run again to resume"
    )


def to_units(raw: NDArray[Any], scene: Scene) -> NDArray[np.float32]:
    """Convert raw values to the feature's units: power to dB, dB and coherence as they are.

    Zero or negative power (below the noise floor) becomes the feature's minimum, where the published scaling gives 0;
    it is an observation, not nodata, and never -inf.
    """
    values = np.asarray(raw, np.float32)
    one = schema.feature(scene.feature)
    if scene.values == "coherence":
        worst = values[np.isfinite(values)]
        if worst.size and (worst.min() < -1e-3 or worst.max() > 1 + 1e-3):
            raise InputError(
                f"item {scene.item_ids!r} has coherence {worst.min():g}..{worst.max():g}, allowed is 0..1: "
                "the asset is not coherence, or it is scaled"
            )
        return np.where(np.isfinite(values), np.clip(values, 0, 1), np.float32(np.nan))
    if scene.values == "power":
        _check_power(values, scene)
        positive = np.where(values > 0, values, np.float32(1e-30))
        values = np.where(np.isfinite(values), 10 * np.log10(positive), np.float32(np.nan))
    else:
        values = np.where(np.isposinf(values), np.float32(np.nan), values)
    floored: NDArray[np.float32] = np.where(np.isnan(values), np.float32(np.nan), np.maximum(values, one.minimum))
    return floored.astype(np.float32)


def _check_power(values: NDArray[np.float32], scene: Scene) -> None:
    """Refuse what cannot be linear power: noise removal leaves small negative values at most, and few."""
    known = values[np.isfinite(values)]
    if known.size and (known.min() < _LEAST_POWER or np.count_nonzero(known < 0) > known.size / 2):
        raise InputError(
            f"item {scene.item_ids!r} has values down to {known.min():g}, which is no linear power: the raster is in "
            "dB, or has a fill value that it does not declare; mend the provider profile or the raster"
        )


def _read_odc(items: list[pystac.Item], asset: str, geobox: GeoBox, resampling: str) -> NDArray[Any]:
    import odc.stac

    ds = odc.stac.load(
        items,
        bands=[asset],
        geobox=geobox,
        groupby=lambda *_: "pass",
        dtype="float32",
        nodata=float("nan"),
        resampling=resampling,
        fail_on_error=True,
    )
    values: NDArray[Any] = ds[asset].values
    return values[0]


def _read_stackstac(items: list[pystac.Item], asset: str, geobox: GeoBox, resampling: str) -> NDArray[Any]:
    import stackstac

    for item in items:
        code = str(item.properties.get("proj:code") or "")
        if code.upper().startswith("EPSG:"):
            # stackstac reads proj:epsg only, and without it silently invents a grid
            item.properties["proj:epsg"] = int(code.split(":")[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=PendingDeprecationWarning)
        stack = stackstac.stack(
            items,
            assets=[asset],
            epsg=geobox.crs.epsg if geobox.crs else None,
            bounds=tuple(geobox.boundingbox),
            resolution=float(geobox.transform.a),
            resampling=rasterio.enums.Resampling[resampling],
            dtype=np.dtype("float32"),
            fill_value=np.float32("nan"),
            rescale=False,
            xy_coords="center",
            errors_as_nodata=(),
            gdal_env=stackstac.rio_env.LayeredEnv(always=GDAL_OPTIONS),
        )
        layers: NDArray[Any] = stack.isel(band=0).compute(scheduler="synchronous").values
    out = layers[0].copy()
    for layer in layers[1:]:
        out = np.where(np.isnan(out), layer, out)
    return out


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return scrub(text[0]) if text else "no message"
