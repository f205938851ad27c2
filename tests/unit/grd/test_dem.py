from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.transform import from_origin

from icemap_xr.errors import ElevationError, ReadError
from icemap_xr.grd import Dem, dem_from_items
from icemap_xr.grd.dem import Tile

BOX = GeoBox((40, 50), from_origin(500000, 8500000, 10, 10), "EPSG:32633")


def tile(path: Path, left: float, top: float, shape: tuple[int, int] = (60, 60), *, base: float = 100.0) -> str:
    """A plane that rises by 1 m per pixel of 10 m eastwards, wherever it is cut."""
    x = left + (np.arange(shape[1]) + 0.5) * 10
    values = np.tile(base + (x - 500000) / 10, (shape[0], 1)).astype(np.float32)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="float32",
        count=1,
        height=shape[0],
        width=shape[1],
        crs="EPSG:32633",
        transform=from_origin(left, top, 10, 10),
        nodata=-9999.0,
    ) as out:
        out.write(values, 1)
    return str(path)


def plane() -> np.ndarray:
    return np.tile(100.5 + np.arange(50), (40, 1))


def test_heights_above_the_ellipsoid_are_taken_as_they_are(tmp_path: Path) -> None:
    dem = Dem(tile(tmp_path / "a.tif", 499900, 8500100), "ellipsoid")
    np.testing.assert_allclose(dem.read(BOX), plane(), atol=1e-3)


def test_tiles_are_joined_without_a_seam(tmp_path: Path) -> None:
    parts = [tile(tmp_path / f"{x}.tif", x, 8500100, (60, 30)) for x in (499900, 500200, 500500)]
    np.testing.assert_allclose(Dem(parts, "ellipsoid").read(BOX), plane(), atol=0.51)


def test_ground_without_a_tile_is_an_error_or_sea(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", 499900, 8500100, (60, 35))
    with pytest.raises(ElevationError, match=r"does not cover 50.0% of the block at 15\.0"):
        Dem(path, "ellipsoid").read(BOX)
    found = Dem(path, "ellipsoid", geoid=30.0, missing="sea").read(BOX)
    assert (found[:, 26:] == 30).all()
    np.testing.assert_allclose(found[:, :24], plane()[:, :24], atol=1e-3)


def test_the_sea_is_not_taken_to_lie_on_the_ellipsoid() -> None:
    with pytest.raises(ElevationError, match="the sea lies on the geoid"):
        Dem("a.tif", "ellipsoid", missing="sea")


def test_the_sea_lies_on_the_geoid(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", 499900, 8500100, (60, 35))
    found = Dem(path, "egm2008", geoid=30.0, missing="sea").read(BOX)
    assert (found[:, 26:] == 30).all()
    np.testing.assert_allclose(found[:, :24], plane()[:, :24] + 30, atol=1e-3)


def test_voids_are_an_error_or_nodata_and_never_sea(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", 499900, 8500100)
    with rasterio.open(path, "r+") as src:
        values = src.read(1)
        values[20:30, 20:30] = -9999
        src.write(values, 1)
    with pytest.raises(ElevationError, match="has voids in 5"):
        Dem(path, "ellipsoid", geoid=0.0, missing="sea").read(BOX)
    found = Dem(path, "ellipsoid", geoid=0.0, voids="nodata", missing="sea").read(BOX)
    assert np.isnan(found[10:20, 10:20]).all()
    assert np.isfinite(found).mean() > 0.9


def test_a_void_is_filled_by_another_tile(tmp_path: Path) -> None:
    path = tile(tmp_path / "a.tif", 499900, 8500100)
    with rasterio.open(path, "r+") as src:
        values = src.read(1)
        values[20:30, 20:30] = -9999
        src.write(values, 1)
    found = Dem([path, tile(tmp_path / "b.tif", 499900, 8500100)], "ellipsoid").read(BOX)
    np.testing.assert_allclose(found, plane(), atol=1.1)


def test_without_the_geoid_heights_above_it_are_refused(tmp_path: Path) -> None:
    """PROJ takes them for heights above the ellipsoid and says nothing, which moves pixels by 40 m."""
    path = tile(tmp_path / "a.tif", 499900, 8500100)
    import pyproj

    if any(name.startswith("us_nga_egm") for name in map(str, Path(pyproj.datadir.get_data_dir()).glob("*.tif"))):
        pytest.skip("the geoid is installed")
    for datum in ("egm2008", "egm96"):
        with pytest.raises(ElevationError, match=f"geoid {datum} is not installed: get it with pyproj sync"):
            Dem(path, datum).read(BOX)  # type: ignore[arg-type]


def test_a_geoid_raster_is_added(tmp_path: Path) -> None:
    path, geoid = tile(tmp_path / "a.tif", 499900, 8500100), tile(tmp_path / "g.tif", 499900, 8500100, base=20.0)
    np.testing.assert_allclose(Dem(path, "egm2008", geoid=geoid).read(BOX), 2 * plane() - 80, atol=1e-3)


def test_what_heights_refer_to_must_be_told() -> None:
    with pytest.raises(TypeError):
        Dem("a.tif")  # type: ignore[call-arg]
    for options in ({"heights": "sea"}, {"heights": "egm96", "missing": "zero"}, {"heights": "egm96", "voids": "sea"}):
        with pytest.raises(ElevationError, match="is not allowed: choose one of"):
            Dem("a.tif", **options)  # type: ignore[arg-type]
    with pytest.raises(ElevationError, match="no tiles"):
        Dem((), "ellipsoid")


def test_unreadable_tiles_and_rasters_without_a_place_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"nowhere\.tif could not be read"):
        Dem(str(tmp_path / "nowhere.tif"), "ellipsoid").read(BOX)
    path = tmp_path / "plain.tif"
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="float32") as out:
        out.write(np.zeros((9, 9), np.float32), 1)
    with pytest.raises(ElevationError, match="no CRS"):
        Dem(str(path), "ellipsoid").read(BOX)


def item(name: str, href: str, bbox: list[float]) -> pystac.Item:
    from datetime import UTC, datetime

    one = pystac.Item(name, None, bbox, datetime(2021, 4, 22, tzinfo=UTC), {})
    one.add_asset("data", pystac.Asset(href))
    return one


def test_items_of_a_collection_are_tiles_and_only_near_ones_are_opened(tmp_path: Path) -> None:
    near = item("near", tile(tmp_path / "a.tif", 499900, 8500100), [14.9, 76.5, 15.1, 76.6])
    far = item("far", "https://nowhere.invalid/far.tif", [100.0, 10.0, 101.0, 11.0])
    dem = dem_from_items([far, near], "egm2008", geoid=0.0)
    np.testing.assert_allclose(dem.read(BOX), plane(), atol=1e-3)
    assert [one.href for one in dem.near(BOX).tiles] == [near.assets["data"].href]
    with pytest.raises(ElevationError, match="no tile of the elevation model lies at"):
        dem_from_items([far]).near(BOX)
    with pytest.raises(ElevationError, match="no asset 'dem'"):
        dem_from_items([near], asset="dem")


def test_tiles_beyond_the_date_line_are_found() -> None:
    box = GeoBox((100, 100), from_origin(-1000, -2000000, 20, 20), "+proj=laea +lat_0=90 +lon_0=180")
    near, far = Tile("a", (-180.0, 70.0, -179.0, 75.0)), Tile("b", (0.0, 70.0, 1.0, 75.0))
    assert Dem((near, far), "ellipsoid").near(box).tiles == (near,)
