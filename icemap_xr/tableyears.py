"""The years of what goes into one archive: maps and tables of the same ones, in ascending order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import xarray as xr

from icemap_xr import schema
from icemap_xr.errors import InputError


def in_order(ds: xr.Dataset) -> xr.Dataset:
    """Return a dataset with its years ascending; as it is where they are, or where it has no dim `year`."""
    if schema.YEAR not in ds.dims or schema.YEAR not in ds.coords:
        return ds
    years = ds[schema.YEAR].values
    return ds if (years[1:] > years[:-1]).all() else ds.sortby(schema.YEAR)


def check_years(years: Sequence[int], tables: Mapping[str, xr.Dataset | gpd.GeoDataFrame | None]) -> None:
    """Raise `InputError` where a table is of other years than the maps.

    Parameters
    ----------
    years
        Years of the maps.
    tables
        By name. A dataset with a dim `year` must have each year of the maps once; a GeoDataFrame with a column `year`
        may lack some, as a year can be without a glacier. A table without years is of no year and passes.
    """
    for what, table in tables.items():
        if table is None or schema.YEAR not in (table.columns if isinstance(table, pd.DataFrame) else table.variables):
            continue
        found = np.atleast_1d(np.asarray(table[schema.YEAR]))
        if pd.isna(found).any():
            raise InputError(f"{what} have {int(pd.isna(found).sum())} rows without a year: drop them or date them")
        whole = isinstance(table, xr.Dataset) and schema.YEAR in table.dims
        same = sorted(found.tolist()) == sorted(years) if whole else set(found.tolist()) <= set(years)
        if not same:
            raise InputError(
                f"{what} are of the years {_listed(found)}, the maps of {_listed(years)}: "
                f"{'give' if whole else 'keep'} those of the maps"
            )


def _listed(years: Any) -> str:
    """Return years as text, each as often as it is there up to once."""
    return ", ".join(str(int(one) if float(one).is_integer() else one) for one in np.unique(years)) or "none"
