"""Given tiles and declared domains: each pixel once, the same for any chunking."""

from pathlib import Path
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from icemap_xr.blocktable import block_table
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.domain import tile_table, within_domain
from icemap_xr.errors import InputError, OutsideBlocksWarning
from icemap_xr.grid import RegionGrid

#: Dask carries no types for it
from_array: Any = da.from_array

GRID = RegionGrid.from_bbox((500_000, 8_600_000, 500_300, 8_600_230), "EPSG:32633", 10, bbox_crs="EPSG:32633")
PIXEL = 1e-4


def maps(values: Any, grid: RegionGrid = GRID) -> xr.Dataset:
    coords = {**grid.coords(), "year": 2016 + np.arange(len(values))}
    return xr.Dataset({"calibrated": (("year", "y", "x"), values)}, coords=coords)


def values() -> Any:
    rng = np.random.default_rng(5)
    p = rng.random((2, *GRID.shape), dtype=np.float32)
    p[rng.random(p.shape) < 0.1] = np.nan
    return p


def squares(side: float, x0: float = 500_000, y1: float = 8_600_230, rows: int = 3, columns: int = 4) -> Any:
    shapes, names = [], []
    for row in range(rows):
        for column in range(columns):
            x, y = x0 + column * side, y1 - row * side
            shapes.append(shapely.box(x, y - side, x + side, y))
            names.append(f"T-{row}-{column}")
    return gpd.GeoDataFrame({"codename": names}, geometry=shapes, crs="EPSG:32633")


@pytest.mark.parametrize("chunks", [None, (1, 8, 8), (2, 23, 1), ((1, 1), (22, 1), (3, 27))])
def test_tiles_on_the_block_grid_are_its_blocks(chunks: Any) -> None:
    p = values()
    array = maps(p if chunks is None else from_array(p, chunks=chunks)).calibrated
    table = tile_table(array, GRID, squares(80))
    blocks = block_table(maps(p).calibrated, GRID, 8)
    assert (table.ice_km2.chunks is None) == (chunks is None)
    for name in ("ice_km2", "observed_km2"):
        np.testing.assert_allclose(table[name], blocks[name].values.reshape(2, -1), rtol=1e-12)
    assert table.outside_observed_km2.values.tolist() == [0, 0]
    assert table.block.values[5] == "T-1-1"
    assert table.attrs["block_m"] == pytest.approx(80)


@settings(max_examples=40, deadline=None)
@given(
    side=st.floats(21, 130),
    x=st.floats(-60, 60),
    y=st.floats(-60, 60),
    overlap=st.floats(0.8, 1.2),
    rows=st.integers(1, 22),
    columns=st.integers(1, 29),
)
def test_blocks_and_outside_add_up_to_the_map(
    side: float, x: float, y: float, overlap: float, rows: int, columns: int
) -> None:
    tiles = squares(side, 500_000 + x, 8_600_230 + y)
    tiles["geometry"] = tiles.scale(overlap, overlap)
    p = values()
    chunks = ((2,), (rows, 23 - rows), (columns, 30 - columns))
    eager = tile_table(maps(p).calibrated, GRID, tiles)
    lazy = tile_table(maps(from_array(p, chunks=chunks)).calibrated, GRID, tiles).compute()
    xr.testing.assert_allclose(lazy, eager, rtol=1e-12)
    for name, whole in (("ice", np.nansum(p.astype(float), (1, 2))), ("observed", np.isfinite(p).sum((1, 2)))):
        total = eager[f"{name}_km2"].sum("block") + eager[f"outside_{name}_km2"]
        np.testing.assert_allclose(total, whole * PIXEL, rtol=1e-12)


def test_a_pixel_goes_to_the_first_tile_that_holds_its_centre() -> None:
    p = np.ones((1, *GRID.shape), np.float32)
    both = gpd.GeoDataFrame(
        {"codename": ["first", "second"]},
        geometry=[
            shapely.box(500_000, 8_600_000, 500_104, 8_600_230),
            shapely.box(500_000, 8_600_000, 500_200, 8_600_230),
        ],
        crs="EPSG:32633",
    )
    table = tile_table(maps(p).calibrated, GRID, both)
    np.testing.assert_allclose(table.ice_km2[0], [10 * 23 * PIXEL, 10 * 23 * PIXEL])
    np.testing.assert_allclose(table.outside_ice_km2, [10 * 23 * PIXEL])


def test_tiles_in_another_crs_off_the_map_and_bad_ones() -> None:
    array = maps(values()).calibrated
    tiles = squares(80, columns=9)  # the last ones lie off the map, or only touch it
    assert tile_table(array, GRID, tiles).sizes["block"] == 12
    there = tile_table(array, GRID, tiles.to_crs("EPSG:4326"))
    np.testing.assert_allclose(there.observed_km2, tile_table(array, GRID, tiles).observed_km2, atol=3 * PIXEL)
    for wrong, match in (
        (tiles.iloc[:0], "no rows"),
        (squares(80, 600_000), "no tile"),
        (tiles.set_crs(None, allow_override=True), "no CRS"),
        (tiles.assign(codename="a"), "repeated"),
    ):
        with pytest.raises(InputError, match=match):
            tile_table(array, GRID, wrong)


def test_bootstrap_of_tiles_draws_every_tile_as_published() -> None:
    p = values()
    p[:, :, :8] = np.nan
    ds, tiles = maps(p), squares(80)
    out = bootstrap_area(ds, block=tiles, n=20, seed=42, estimator="sum")
    ice = tile_table(ds.calibrated, GRID, tiles).ice_km2.values
    assert out.attrs["n_blocks"] == 12
    draws = [ice[:, np.random.default_rng(42 * (k + 1)).choice(12, 12)].sum(axis=1) for k in range(20)]
    np.testing.assert_allclose(out.draws, np.transpose(draws), rtol=1e-12)
    assert bootstrap_area(ds, block=tiles, n=5).attrs["n_blocks"] == 9
    with pytest.warns(OutsideBlocksWarning, match="lies in no tile"):
        bootstrap_area(ds, block=tiles.iloc[:-1], n=5)
    with pytest.raises(InputError, match="the tiles leave 1"):
        bootstrap_area(ds, block=squares(300, rows=1, columns=1), n=5)


@pytest.mark.parametrize("chunks", [None, (1, 8, 8)])
def test_a_domain_leaves_out_what_lies_outside(chunks: Any) -> None:
    p = values()
    ds = maps(p if chunks is None else from_array(p, chunks=chunks))
    land = gpd.GeoDataFrame(geometry=[shapely.box(500_000, 8_600_000, 500_200, 8_600_230)] * 2, crs="EPSG:32633")
    mask = xr.DataArray(np.arange(30) < 20, dims="x").expand_dims(y=23)
    mask = mask.assign_coords({axis: ds[axis] for axis in ("y", "x")})
    inside = p[:, :, :20]
    for domain in (land, mask, mask.T):
        out = within_domain(ds.calibrated, GRID, domain)
        assert (out.chunks is None) == (chunks is None)
        np.testing.assert_array_equal(out[:, :, :20], inside)
        assert np.isnan(out[:, :, 20:]).all()
        areas = bootstrap_area(ds, block=50, n=10, domain=domain)
        np.testing.assert_allclose(areas.observed_km2, np.isfinite(inside).sum((1, 2)) * PIXEL)
        assert areas.attrs["domain"] == ("polygons" if domain is land else "mask")
    for wrong, match in (
        (mask.astype(int), "boolean"),
        (mask[1:], "another grid"),
        (land.iloc[:0], "no rows"),
        (shapely.box(0, 0, 1, 1), "GeoDataFrame"),
    ):
        with pytest.raises(InputError, match=match):
            bootstrap_area(ds, block=50, n=10, domain=wrong)
    with pytest.raises(InputError, match="a domain that meets it"):
        bootstrap_area(ds, block=50, n=10, domain=land.translate(9000, 0).to_frame("geometry"))


def island(before: int, after: int) -> tuple[xr.Dataset, Any]:
    """A round island with uneven ice in a sea mapped as ice-free, `before` pixels from the origin; and the island."""
    y, x = np.indices((200, 200))
    radius = np.hypot(y - 100, x - 100)
    ice = 0.5 + 0.5 * np.sin(x / 17) * np.cos(y / 23)
    p = np.pad(np.where(radius < 90, ice, 0).astype(np.float32), ((before, after), (before, after)))
    side = 10 * len(p)
    grid = RegionGrid.from_bbox(
        (500_000, 8_600_000, 500_000 + side, 8_600_000 + side), "EPSG:32633", 10, bbox_crs="EPSG:32633"
    )
    middle = (500_000 + 10 * (before + 100.5), 8_600_000 + side - 10 * (before + 100.5))
    land = gpd.GeoDataFrame(geometry=[shapely.Point(middle).buffer(900, quad_segs=64)], crs="EPSG:32633")
    return maps(p[None], grid), land


def test_a_declared_domain_makes_the_width_independent_of_anchor_and_sea() -> None:
    def width(before: int, after: int, declared: bool) -> float:
        ds, land = island(before, after)
        out = bootstrap_area(ds, block=200, n=1500, domain=land if declared else None)
        return float(out.interval[0, 1] - out.interval[0, 0])

    base = width(0, 0, True)
    for before, after in ((7, 5), (13, 0), (100, 140)):
        assert abs(width(before, after, True) / base - 1) < 0.3
    assert width(100, 140, False) > 1.5 * base


def test_the_published_tiles_of_svalbard(data: Path) -> None:
    tiles = gpd.read_file(data / "svalbard" / "blockbootstrapping_tiles_3-2km_utm33n.shp")
    grid = RegionGrid.from_bbox((403_700, 8_501_600, 752_600, 8_962_500), "EPSG:32633", 100, bbox_crs="EPSG:32633")
    y, x = (np.linspace(0, 1, n, dtype=np.float32) for n in grid.shape)
    ice = from_array(np.stack([y[:, None] * x, np.sqrt(y)[:, None] * x]), chunks=(1, 1000, 1300))
    ds = maps(ice, grid)
    table = tile_table(ds.calibrated, grid, tiles).compute()
    assert table.sizes["block"] == 5330
    assert list(table["block"].values[:3]) == list(tiles["codename"][:3])
    assert table.attrs["block_m"] == pytest.approx(3200, rel=1e-6)
    # tiles are 32 pixels wide; their corners lie between pixel centres, never on them
    np.testing.assert_allclose(table.observed_km2, 10.24, rtol=1e-12)
    for name in ("ice_km2", "observed_km2"):
        whole = (ds.calibrated if name == "ice_km2" else xr.ones_like(ds.calibrated)).sum(("y", "x"), dtype=float)
        parts = table[name].sum("block") + table[f"outside_{name}"]
        np.testing.assert_allclose(parts, whole * 0.01, rtol=1e-9)
    with pytest.warns(OutsideBlocksWarning):  # sea around the tiles
        out = bootstrap_area(ds, block=tiles, n=20, estimator="sum")
    blocks = table.ice_km2.values
    draws = [blocks[:, np.random.default_rng(42 * (k + 1)).choice(5330, 5330)].sum(axis=1) for k in range(20)]
    np.testing.assert_allclose(out.draws, np.transpose(draws), rtol=1e-12)
