"""How wrong a model's maps are on simulated regions of several years that it has never seen: of blocks and of edges."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.edgeerrors import held_out_edge_errors, ice_edge
from icemap_xr.errormodel import held_out_errors
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.predict import predict
from icemap_xr.progress import progress
from icemap_xr.training.sources import Tiles
from icemap_xr.types import Calibrator, Predictor

Float32Array = NDArray[np.float32]
#: quantiles of a distribution that a bundle keeps
_QUANTILES = 801
log = logging.getLogger(__name__)

#: side of the blocks in which the errors of edges are summed: not much larger than glaciers
EDGE_BLOCK = "160m"


def map_regions(predictor: Predictor, data: Tiles, overlap: float) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    """Map the regions that are kept for it in all their years; yield probability and true ice cover `(year, y, x)`."""
    with progress("mapping regions over years", len(data.error_regions)) as advance:
        for region in data.error_regions:
            mapped = predict(region.yearly(), predictor, overlap=overlap)[schema.PROBABILITY].compute()
            yield mapped, region.truth()["glacier_fraction"].compute().assign_coords(mapped.coords)
            advance(1)


def region_errors(
    predictor: Predictor, calibrator: Calibrator, data: Tiles, *, overlap: float, block: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Describe the errors of blocks of calibrated maps, and those of the edges of outlines.

    Parameters
    ----------
    predictor, calibrator
        The model.
    data
        Its tiles; the regions among them are mapped.
    overlap
        Of the windows.
    block
        Side of the blocks of calibrated maps, as text.

    Returns
    -------
    tuple of dict or None
        See `icemap_xr.errormodel.held_out_errors` and `icemap_xr.edgeerrors.held_out_edge_errors`, the latter of
        probability above 0.5 on blocks of `EDGE_BLOCK`. None where there are no such regions, or where a map of one
        has no edge.
    """
    if not data.error_regions:
        return None, None
    pairs = list(map_regions(predictor, data, overlap))
    calibrated = ((mapped.copy(data=calibrator(mapped.values)), truth) for mapped, truth in pairs)
    return held_out_errors(calibrated, block=block), edge_errors(pairs)


def edge_errors(pairs: Iterable[tuple[xr.DataArray, xr.DataArray]], block: str = EDGE_BLOCK) -> dict[str, Any] | None:
    """Describe the errors of the edges of outlines; None, and a line in the log, where that cannot be."""
    try:
        return compact(held_out_edge_errors(pairs, block=block, method="hard"))
    except InputError as error:
        log.warning("no errors of the ice edge: %s", error)
        return None


def compact(errors: Mapping[str, Any]) -> dict[str, Any]:
    """Return errors with fewer quantiles, as a model's bundle is read with every model; their means stay."""
    out = dict(errors)
    for name, values in errors.items():
        if isinstance(values, list) and len(values) > _QUANTILES:
            fewer = np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)
            digits = 3 if name.endswith("_m") else 6
            out[name] = [round(float(one), digits) for one in fewer + np.mean(values) - fewer.mean()]
    return out


def tile_maps(
    pairs: Iterable[tuple[Float32Array, Float32Array]], resolution: float
) -> Iterator[tuple[xr.DataArray, xr.DataArray]]:
    """Yield tiles as maps of a year each, without those whose map has no edge.

    Parameters
    ----------
    pairs
        Probability and true share of glacier `(y, x)`, NaN where unknown, as `Judge.pairs` yields them.
    resolution
        Pixel size, m. Where a tile lies is not known and does not matter: all get the same place.
    """
    for mapped, truth in pairs:
        grid = RegionGrid(GeoBox(mapped.shape, Affine(resolution, 0, 500_000, 0, -resolution, 8_000_000), "EPSG:32633"))
        coords = {schema.YEAR: [0], **grid.coords()}
        maps = [xr.DataArray(one[None], coords, (schema.YEAR, schema.Y, schema.X)) for one in (mapped, truth)]
        if ice_edge(maps[0]).sum() > 0:
            yield maps[0], maps[1]
