"""Maps and tables of small archives, for tests of what is done with archives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

from icemap_xr.blocktable import block_table
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines

#: upper left corner and pixel side of the lattice of all these maps, m
X0, Y0, SIDE = 500_000, 8_700_000, 10.0


@dataclass(frozen=True)
class Halve:
    """A calibrator that halves."""

    def __call__(self, probability: Any, /) -> Any:
        """Return half of it."""
        return probability / 2

    def to_json(self) -> dict[str, Any]:
        """Return it as knots."""
        return {"kind": "knots", "x": [0.0, 1.0], "y": [0.0, 0.5]}


def maps(
    years: Sequence[int],
    shape: tuple[int, int] = (30, 40),
    *,
    row: float = 0,
    column: float = 0,
    seed: int = 1,
    crs: str = "EPSG:32633",
    side: float = SIDE,
) -> xr.Dataset:
    """Return random probability from a row and a column of the lattice on; unobserved at the first year's top."""
    grid = RegionGrid(GeoBox(shape, Affine(side, 0, X0 + column * side, 0, -side, Y0 - row * side), crs))
    values = np.random.default_rng(seed).random((len(years), *shape)).astype(np.float32)
    values[0, :3] = np.nan
    coords = {"year": list(years), **grid.coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def calibrated(ds: xr.Dataset) -> xr.Dataset:
    """Return maps with what `Halve` makes of them."""
    return ds.assign(calibrated=ds["probability"] / 2)


def areas(years: Sequence[int], draws: int = 20) -> xr.Dataset:
    """Return made-up areas with draws."""
    rng = np.random.default_rng(sum(years))
    columns = {
        "area_km2": ("year", rng.random(len(years))),
        "draws": (("year", "draw"), rng.random((len(years), draws))),
    }
    return xr.Dataset(columns, coords={"year": list(years), "draw": np.arange(draws)})


def glaciers(years: Sequence[int]) -> gpd.GeoDataFrame:
    """Return two glaciers for each year."""
    shapes = [shapely.box(X0 + 50, Y0 - 200, X0 + 150, Y0 - 50), shapely.box(X0 + 150, Y0 - 200, X0 + 300, Y0 - 50)]
    rows = [(name, year, shape) for year in years for name, shape in zip("ab", shapes, strict=True)]
    frame = gpd.GeoDataFrame(rows, columns=["glacier_id", "year", "geometry"], crs="EPSG:32633")
    frame["area_km2"] = frame.area / 1e6
    return frame


def tables(ds: xr.Dataset) -> dict[str, Any]:
    """Return everything that an archive of calibrated maps can be given."""
    years = [int(year) for year in ds["year"].values]
    return {
        "areas": areas(years),
        "outlines": outlines(ds),
        "glaciers": glaciers(years),
        "blocks": block_table(ds["calibrated"], RegionGrid.from_dataset(ds), 10),
        "calibrator": Halve(),
    }
