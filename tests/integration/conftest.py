"""Real parts for integration tests: the OPERA series, its grid, and a STAC API over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import icemap_xr as ix
from icemap_xr.loopback import serve_catalog


@pytest.fixture(scope="session")
def opera(data: Path) -> Path:
    """Folder of the 21 real dates of one burst, VV and VH."""
    return data / "sentinel1_rtc" / "T137-292322-IW2"


@pytest.fixture(scope="session")
def opera_grid() -> ix.RegionGrid:
    """The burst's own grid: 100 x 100 pixels of 30 m."""
    bounds = (236430.0, 3869070.0, 239430.0, 3872070.0)
    return ix.RegionGrid.from_bbox(bounds, "EPSG:32611", 30, bbox_crs="EPSG:32611")


@pytest.fixture(scope="session")
def opera_api(opera: Path) -> Iterator[str]:
    """Address of a STAC API (rustac) over the burst, its rasters served over HTTP."""
    with serve_catalog(ix.items_from_files(opera), opera) as address:
        yield address
