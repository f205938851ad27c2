"""Regions over 180 degrees and at the pole: from a catalogue on a server, with rasters of several zones, to a cube."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from pyproj import Transformer

import icemap_xr as ix
from icemap_xr.config import GridSection, ModelSection, RunConfig, SearchSection
from icemap_xr.loopback import serve_catalog
from icemap_xr.run import region_grid
from icemap_xr.testing.commands import Result
from icemap_xr.testing.rasters import rtc_item

#: over the antimeridian, and around the pole
DATELINE = (179.9, 70.40, -179.9, 70.45)
POLE = (-180.0, 89.9, 180.0, 90.0)


def cog(path: Path, geobox: GeoBox, crs: str) -> Path:
    """Write linear power that says where on Earth each pixel is: 0.1 + 0.01 x degrees north of 70, NaN on an edge."""
    ys, xs = (geobox.coordinates[name].values for name in geobox.dimensions)
    there = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    _, lat = there.transform(*np.meshgrid(xs, ys))
    values = (0.1 + 0.01 * (np.asarray(lat) - 70)).astype(np.float32)
    values[0] = np.nan
    options = {"driver": "COG", "height": geobox.shape[0], "width": geobox.shape[1], "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", crs=crs, transform=geobox.transform, nodata=float("nan"), **options) as out:
        out.write(values, 1)
    return path


def covering(region: tuple[float, ...], crs: str, side: float) -> GeoBox:
    """Return a grid in a CRS that covers a region with some room around it."""
    return ix.RegionGrid.from_bbox(tuple(_bounds(region, crs)), crs, side, bbox_crs=crs).geobox.pad(4)


def _bounds(region: tuple[float, ...], crs: str) -> tuple[float, float, float, float]:
    from icemap_xr.footprints import Area

    return Area.of(region).bounds_in(crs)


def expected(ds: Any, crs: str) -> Any:
    there = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    _, lat = there.transform(*np.meshgrid(ds.x.values, ds.y.values))
    return 10 * np.log10(0.1 + 0.01 * (np.asarray(lat) - 70))


def within(ds: Any, crs: str, region: tuple[float, ...]) -> Any:
    """Which pixels of the grid lie in the region itself; the grid is the rectangle around it."""
    there = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = (np.asarray(one) for one in there.transform(*np.meshgrid(ds.x.values, ds.y.values)))
    west, south, east, north = region
    span = (east - west) % 360 or 360
    return (south <= lat) & (lat <= north) & ((lon - west) % 360 <= span)


@pytest.mark.parametrize(
    ("region", "target", "others"),
    [
        (DATELINE, "EPSG:32601", ("EPSG:32660", "EPSG:32601")),
        (DATELINE, "EPSG:32660", ("EPSG:32601", "EPSG:3413")),
        (POLE, "EPSG:3413", ("EPSG:3413", "EPSG:3995")),
    ],
)
def test_from_a_search_to_a_cube(
    tmp_path: Path, icemap: Callable[..., Result], region: tuple[float, ...], target: str, others: tuple[str, ...]
) -> None:
    folder = tmp_path / "rasters"
    folder.mkdir()
    items = [
        rtc_item(cog(folder / f"{number}.tif", covering(region, crs, 100), crs), day, orbit=100 + 175 * number)
        for number, (crs, day) in enumerate(zip(others, ("2020-05-01", "2020-05-13"), strict=True))
    ]
    away = rtc_item(
        cog(folder / "away.tif", covering((15.0, 78.0, 15.1, 78.05), "EPSG:32633", 100), "EPSG:32633"),
        "2020-05-25",
        orbit=450,
    )
    text = ",".join(map(str, region))
    with serve_catalog(pystac.ItemCollection([*items, away]), folder) as address:
        found = icemap("search", address, f"--region={text}", "--years", "2020", "--output", tmp_path / "items.json")
        assert found.code == 0, found
        assert "2 items" in found.out
        assert " 100 " in found.out, "each scene covers the whole region"
        built = icemap(
            *("cube", tmp_path / "items.json", f"--region={text}", "--crs", target, "--resolution", 100, "--steps", 2),
            *("--output", tmp_path / "cube.zarr"),
        )
        assert built.code == 0, built
    ds = ix.open_cube(tmp_path / "cube.zarr")
    assert ds.rtc.shape[1] < 600
    assert ds.rtc.shape[2] < 600
    right, inside = expected(ds, target), within(ds, target, region)
    assert inside.sum() > 1000
    assert [str(name) for name in ds.rtc_item.values] == ["0", "1"]
    for scene in ds.rtc.values:
        assert np.isfinite(scene[inside]).all()
        seen = np.isfinite(scene)
        # a hundred metres are 0.0009 degrees, or 0.0004 dB
        np.testing.assert_allclose(scene[seen], right[seen], atol=0.0035)


@pytest.mark.parametrize(("region", "crs"), [(DATELINE, "EPSG:32601"), (POLE, "EPSG:3413")])
def test_a_run_has_the_grid_of_the_command(region: tuple[float, float, float, float], crs: str) -> None:
    config = RunConfig(
        name="far",
        region=region,
        years=(2020,),
        search=SearchSection("catalog.json"),
        grid=GridSection(crs, 100),
        model=ModelSection("demo_rtc"),
    )
    grid = region_grid(config)
    assert max(grid.shape) < 600
    west, south, east, north = _bounds(region, crs)
    box = grid.geobox.boundingbox
    assert (box.left, box.bottom) == pytest.approx((west, south), abs=100)
    assert (box.right, box.top) == pytest.approx((east, north), abs=100)
