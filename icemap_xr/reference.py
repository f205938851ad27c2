"""What is really there, on the grid and in the years of a map: from outlines, or from a store of ice cover.

Below the stages: calibration and held-out errors start here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.domain import polygon_labels
from icemap_xr.errors import InputError
from icemap_xr.grid import RegionGrid
from icemap_xr.regionsums import checked_polygons, to_pixels
from icemap_xr.types import StrPath
from icemap_xr.vectors import as_frame

#: name of the share of a pixel that is glacier, in a store
FRACTION = "glacier_fraction"


def read_reference(path: StrPath, maps: xr.Dataset) -> xr.DataArray:
    """Return the true ice cover `(year, y, x)` for a dataset of maps, lazy where the maps are.

    Parameters
    ----------
    path
        Zarr store with `glacier_fraction (year, y, x)` on the maps' grid. Or a vector file of outlines: a pixel is ice
        where an outline of its year holds its centre; without a column `year`, outlines hold for every year.
    maps
        Dataset with `probability (year, y, x)` and a CRS.

    Raises
    ------
    InputError
        The reference is on another grid, lacks a year, or cannot be used.
    """
    like = schema.validate_maps(maps, "reading a reference")
    years = [int(one) for one in like[schema.YEAR].values]
    if Path(path).is_dir():
        found = xr.open_zarr(path, chunks={}, consolidated=False)
        if FRACTION not in found or schema.YEAR not in found.coords:
            raise InputError(f"{str(path)!r} has no {FRACTION!r} (year, y, x): give such a store, or outlines")
        missing = sorted(set(years) - {int(one) for one in found[schema.YEAR].values})
        if missing:
            raise InputError(f"the reference {str(path)!r} lacks the years {missing}: leave them out of the maps")
        return found[FRACTION].sel({schema.YEAR: years})
    frame, grid = as_frame(path), RegionGrid.from_dataset(maps)
    if "year" in frame and not set(years) <= set(frame["year"].astype(int)):
        missing = sorted(set(years) - set(frame["year"].astype(int)))
        raise InputError(f"the outlines in {str(path)!r} lack the years {missing}: leave them out of the maps")
    parts = []
    for year in years:
        chosen = frame[frame["year"].astype(int) == year] if "year" in frame else frame
        _, shapes = checked_polygons(chosen.reset_index(drop=True), grid, "the reference", "")
        labels = polygon_labels(to_pixels(shapes, grid), like)
        parts.append(xr.DataArray(labels < len(shapes), dims=(schema.Y, schema.X)).astype(np.float32))
    return xr.concat(parts, schema.YEAR).assign_coords(like.coords).transpose(*like.dims)
