"""A cube of products in radar geometry, built as users do it."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pystac
import pytest
import shapely
import xarray as xr
from shapely.geometry import mapping

import icemap_xr as ix
from icemap_xr.errors import (
    AnnotationError,
    AssetMissingError,
    ElevationError,
    GeolocationWarning,
    InputError,
    NotGeocodedError,
    OutputExistsError,
)
from icemap_xr.grd import Dem, GrdOptions, dem_from_items, estimate_shifts, find_dem, items_from_products
from icemap_xr.testing.radar import RadarScene, map_of, wavy_terrain, write_dem

_RNG = np.random.default_rng(5)
_WAVES = _RNG.normal(size=(80, 2))
_WAVES *= (2 * np.pi / _RNG.uniform(50, 500, 80) / np.hypot(*_WAVES.T))[:, None]
_PHASES = _RNG.uniform(0, 2 * np.pi, 80)


def rock(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Backscatter with texture of 5 pixels and more, the same in every scene."""
    rough = np.zeros(np.shape(x))
    for (u, v), phase in zip(_WAVES, _PHASES, strict=True):
        rough += np.cos(u * x + v * y + phase)
    return 10 ** ((-9 + 0.4 * rough) / 10)


SCENE = RadarScene(shape=(360, 460), terrain=wavy_terrain, backscatter=rock, looks=5)


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four passes of one orbit."""
    folder = tmp_path_factory.mktemp("products")
    for cycle in range(4):
        replace(SCENE, cycle=cycle, seed=cycle).write(folder)
    return folder


@pytest.fixture(scope="module")
def dem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dem(tmp_path_factory.mktemp("dem") / "dem.tif", SCENE, margin=9000.0)


@pytest.fixture(scope="module")
def grid() -> ix.RegionGrid:
    return map_of(SCENE, (200, 220))


def test_a_cube_of_products_is_calibrated_and_geocoded(
    products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path
) -> None:
    items = items_from_products(products)
    assert len(items) == 4
    assert {item.properties["sat:relative_orbit"] for item in items} == {(36201 - 73) % 175 + 1}
    options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"))
    with warnings.catch_warnings():
        # scenes that lie on each other do not warn
        warnings.simplefilter("error", GeolocationWarning)
        cube = ix.build_cube(items, grid, tmp_path / "cube.zarr", grd=options, chunk=128, steps=4)
    attrs = cube["grd"].attrs
    assert attrs["radiometry"] == "sigma0"
    assert attrs["geocoding"] == "range-Doppler with an elevation model"
    assert attrs["thermal_noise"] == "removed with the product's table"
    assert attrs["border_noise"] == "nodata"
    assert attrs["polarisation"] == "VV"
    power = (10 ** (cube["grd"] / 10)).mean("grd_time").values
    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    assert np.isfinite(power).all()
    ratio = 10 * np.log10(power / rock(x, y))
    # 20 looks of speckle have 1 dB, their mean over the grid a thousandth of it
    assert abs(10 * np.log10((power / rock(x, y)).mean())) < 0.1
    assert ratio.std() < 1.2
    assert (np.hypot(cube["grd_shift_x"], cube["grd_shift_y"]) < 0.25).all()
    assert (cube["grd_index"].values == [[0, 1, 2, 3]]).all()
    # the same call finds it whole, other options are another cube
    assert ix.build_cube(items, grid, tmp_path / "cube.zarr", grd=options, chunk=128, steps=4).identical(cube)
    with pytest.raises(OutputExistsError):
        ix.build_cube(items, grid, tmp_path / "cube.zarr", grd=replace(options, noise=False), chunk=128, steps=4)


def test_chunks_do_not_change_what_is_read(products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"))
    items = items_from_products(sorted(products.iterdir())[:1])
    cubes = [
        ix.build_cube(items, grid, tmp_path / f"{chunk}.zarr", grd=options, chunk=chunk)["grd"].values
        for chunk in (512, 70)
    ]
    # one step of the encoding
    np.testing.assert_allclose(cubes[0], cubes[1], atol=0.0051)


def test_without_a_word_on_how_it_is_refused(products: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    with pytest.raises(NotGeocodedError, match=r"radar geometry.*build_cube\(grd=\)"):
        ix.build_cube(items_from_products(products), grid, tmp_path / "cube.zarr")


def test_a_reused_cube_must_be_made_alike(products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    items = items_from_products(products)
    options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"))
    some = pystac.ItemCollection(items.items[:2])
    ix.build_cube(some, grid, tmp_path / "some.zarr", grd=options)
    whole = ix.build_cube(items, grid, tmp_path / "all.zarr", grd=options, reuse=tmp_path / "some.zarr")
    assert whole.sizes["grd_time"] == 4
    other = replace(options, radiometry="gamma0")
    with pytest.raises(InputError, match="cannot be reused"):
        ix.build_cube(items, grid, tmp_path / "other.zarr", grd=other, reuse=tmp_path / "some.zarr")


def test_a_shift_of_a_scene_is_found_and_warns(products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    folder = tmp_path / "products"
    folder.mkdir()
    for product in products.iterdir():
        (folder / product.name).symlink_to(product)
    # 8 m west and 6 m north of where the others lie
    replace(SCENE, cycle=4, seed=9, offset=(-8.0, 6.0)).write(folder)
    found = [Path(path) for path in folder.iterdir()]
    with pytest.warns(GeolocationWarning, match="1 of 5 grd scenes lie more than 0.5 pixels off"):
        cube = ix.build_cube(
            items_from_products(found),
            grid,
            tmp_path / "cube.zarr",
            grd=GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid")),
            steps=5,
        )
    # rows run south
    assert float(cube["grd_shift_x"][4]) == pytest.approx(-0.8, abs=0.1)
    assert float(cube["grd_shift_y"][4]) == pytest.approx(-0.6, abs=0.1)
    assert (np.hypot(cube["grd_shift_x"][:4], cube["grd_shift_y"][:4]) < 0.25).all()
    assert (cube["grd_shift_windows"] > 0).all()


def test_shifts_are_looked_for_on_stable_land_only(
    products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path
) -> None:
    options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"))
    cube = ix.build_cube(items_from_products(products), grid, tmp_path / "cube.zarr", grd=options)
    nowhere = xr.zeros_like(cube["grd"].isel(grd_time=0), dtype=bool)
    found = estimate_shifts(cube, stable=nowhere)
    assert np.isnan(found["grd_shift_x"]).all()
    assert (found["grd_shift_windows"] == 0).all()
    assert (estimate_shifts(cube, stable=~nowhere)["grd_shift_windows"] > 0).all()


def test_a_cube_looks_for_shifts_on_the_stable_land_of_a_file(
    products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path
) -> None:
    import geopandas as gpd

    box = grid.geobox.boundingbox
    items = items_from_products(products)
    corner = shapely.box(box.left, box.bottom, box.left + 300, box.bottom + 300)
    for name, ground, looked in (("corner", corner, False), ("all", shapely.box(*box.bbox), True)):
        stable = tmp_path / f"{name}.gpkg"
        gpd.GeoDataFrame(geometry=[ground], crs=grid.crs).to_file(stable)
        options = GrdOptions("terrain", dem=Dem(str(dem), "ellipsoid"), stable=str(stable))
        cube = ix.build_cube(items, grid, tmp_path / f"{name}.zarr", grd=options)
        assert ((cube["grd_shift_windows"] > 0) == looked).all()
    missing = replace(options, stable=str(tmp_path / "nowhere.gpkg"))
    with pytest.raises(InputError, match="nowhere"):
        ix.build_cube(items, grid, tmp_path / "missing.zarr", grd=missing)


def test_a_large_error_of_places_is_told_and_warns(
    products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path
) -> None:
    items = items_from_products(sorted(products.iterdir())[:1])
    with pytest.warns(
        GeolocationWarning, match=r"error of 0\.\d+ pixels.*height between neighbours.*GrdOptions\('terrain'"
    ):
        cube = ix.build_cube(items, grid, tmp_path / "rough.zarr", grd=GrdOptions("ellipsoid"))
    assert cube["grd"].attrs["geolocation_residual_pixels"] > 0.5
    with pytest.warns(GeolocationWarning, match="control points held back, at 3000 m above WGS 84"):
        high = ix.build_cube(items, grid, tmp_path / "high.zarr", grd=GrdOptions("gcp", height=3000.0))
    # hills of 150 to 650 m lie 2600 m lower, and a metre of height is 1 / tan(38) m in range
    assert high["grd"].attrs["geolocation_residual_pixels"] == pytest.approx(
        2600 / np.tan(np.radians(38)) / 10, rel=0.1
    )
    for geocoding in ("terrain", "gcp"):
        options = GrdOptions(geocoding, dem=Dem(str(dem), "ellipsoid"))  # type: ignore[arg-type]
        attrs = ix.build_cube(items, grid, tmp_path / f"{geocoding}.zarr", grd=options)["grd"].attrs
        assert attrs["geolocation_residual_pixels"] < 0.05
        assert "own heights" in attrs["geolocation_residual_of"]


def test_the_command_line_geocodes_too(products: Path, dem: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from icemap_xr.catalog import save_items
    from icemap_xr.cli import cli

    save_items(items_from_products(sorted(products.iterdir())[:1]), tmp_path / "items.json")
    box = grid.geobox.extent.to_crs("EPSG:4326").boundingbox
    middle, half = ((box.left + box.right) / 2, (box.bottom + box.top) / 2), 0.004
    region = ",".join(
        f"{value:.6f}" for value in (middle[0] - 4 * half, middle[1] - half, middle[0] + 4 * half, middle[1] + half)
    )
    where = ["cube", str(tmp_path / "items.json"), "--crs", "EPSG:32633", "--region", region, "--steps", "1"]
    plain = CliRunner().invoke(cli, [*where, "--output", str(tmp_path / "plain.zarr")])
    assert isinstance(plain.exception, NotGeocodedError) or "radar geometry" in plain.output
    # the same ground as above the ellipsoid
    how = ["--grd", "terrain", "--dem", str(dem), "--dem-heights", "egm2008", "--geoid", "0", "--radiometry", "gamma0"]
    done = CliRunner().invoke(cli, [*where, *how, "--output", str(tmp_path / "cube.zarr")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    cube = ix.open_cube(tmp_path / "cube.zarr")
    assert cube["grd"].attrs["radiometry"] == "gamma0"
    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    power = 10 ** (cube["grd"].values[0] / 10)
    # the simulated gain of gamma0 is 0.9 times that of sigma0
    assert 10 * np.log10((power * 0.9**2 / rock(x, y)).mean()) == pytest.approx(0, abs=0.2)


def test_slices_of_one_pass_are_joined_without_a_gap(grid: ix.RegionGrid, tmp_path: Path) -> None:
    """The platform flies on: the second slice begins where the first ends."""
    rate = np.degrees(np.sqrt(3.986004418e14 / 7.071e6**3))
    flat = replace(SCENE, shape=(240, 460), terrain=lambda x, y: 0 * x, looks=0)
    seconds = flat.shape[0] * flat.interval
    ahead = replace(
        flat, latitude_argument=flat.latitude_argument + rate * seconds, node=flat.node - 15.041 / 3600 * seconds
    )
    for name, scene in (("a", flat), ("b", ahead)):
        scene.write(tmp_path / name)
    items = items_from_products(tmp_path / "a").items + items_from_products(tmp_path / "b").items
    for number, item in enumerate(items):
        item.id += f"_{number}"
    xs, ys = (
        np.concatenate([one.ravel(), other.ravel()]) for one, other in zip(flat.truth[:2], ahead.truth[:2], strict=True)
    )
    middle = [round(float(one.mean()) / 10) * 10 for one in (xs, ys)]
    box = type(grid.geobox)(
        (100, 100), type(grid.geobox.transform)(10, 0, middle[0] - 500, 0, -10, middle[1] + 500), flat.crs
    )
    cube = ix.build_cube(
        pystac.ItemCollection(items), ix.RegionGrid(box), tmp_path / "cube.zarr", grd=GrdOptions("ellipsoid")
    )
    assert cube.sizes["grd_time"] == 1
    values = cube["grd"].values[0]
    assert np.isfinite(values).all()
    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    assert np.abs(values - 10 * np.log10(rock(x, y))).max() < 1.5
    assert np.sqrt(((values - 10 * np.log10(rock(x, y))) ** 2).mean()) < 0.2


@pytest.mark.parametrize("kind", ["annotation", "calibration", "noise"])
def test_a_missing_file_stops_the_cube_and_names_it(kind: str, grid: ix.RegionGrid, tmp_path: Path) -> None:
    path = replace(SCENE, shape=(60, 80)).write(tmp_path / "p")
    items = items_from_products(tmp_path / "p")
    name = f"{path.stem}.xml" if kind == "annotation" else f"calibration/{kind}-{path.stem}.xml"
    (path.parent.parent / "annotation" / name).unlink()
    with pytest.raises(Exception, match=name) as caught:
        ix.build_cube(items, map_of(SCENE, (20, 20)), tmp_path / "c.zarr", grd=GrdOptions("ellipsoid"), on_error="hole")
    assert isinstance(caught.value, AnnotationError) or isinstance(caught.value.__cause__, AnnotationError)


def test_a_polarisation_that_is_not_there_is_told(products: Path, grid: ix.RegionGrid, tmp_path: Path) -> None:
    with pytest.raises(AssetMissingError, match="hh"):
        ix.build_cube(
            items_from_products(products), grid, tmp_path / "c.zarr", grd=GrdOptions("ellipsoid"), polarisation="HH"
        )


def test_options_for_scenes_on_a_map_are_refused(grid: ix.RegionGrid, tmp_path: Path) -> None:
    from icemap_xr.testing.rasters import rtc_item, write_raster

    path = write_raster(tmp_path / "a.tif", np.full((20, 20), 0.1), grid=map_of(SCENE, (20, 20)))
    items = pystac.ItemCollection([rtc_item(path, "2021-01-01")])
    with pytest.raises(InputError, match="no scene of rtc is in radar geometry"):
        ix.build_cube(items, map_of(SCENE, (20, 20)), tmp_path / "c.zarr", grd=GrdOptions("ellipsoid"))


def test_a_grid_elsewhere_is_refused_before_anything_is_read(
    products: Path, grid: ix.RegionGrid, tmp_path: Path
) -> None:
    away = ix.RegionGrid(grid.geobox.translate_pix(90000, 0))
    with pytest.raises(InputError, match="do not overlap"):
        ix.build_cube(items_from_products(products), away, tmp_path / "c.zarr", grd=GrdOptions("ellipsoid"))


def test_a_folder_without_products_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no product"):
        items_from_products(tmp_path)


def test_an_elevation_model_comes_from_a_catalogue(
    dem: Path, grid: ix.RegionGrid, products: Path, tmp_path: Path
) -> None:
    from datetime import UTC, datetime

    catalog = pystac.Catalog("dem", "tiles")
    collection = pystac.Collection(
        "cop-dem-glo-30",
        "tiles",
        pystac.Extent(pystac.SpatialExtent([[-180, -90, 180, 90]]), pystac.TemporalExtent([[None, None]])),
    )
    catalog.add_child(collection)
    for name, box, href in (("here", [13, 76, 17, 78], str(dem)), ("far", [100, 10, 101, 11], "nowhere.tif")):
        item = pystac.Item(name, mapping(shapely.box(*box)), box, datetime(2021, 4, 22, tzinfo=UTC), {})
        item.add_asset("data", pystac.Asset(href))
        collection.add_item(item)
    catalog.normalize_and_save(str(tmp_path / "catalog"), pystac.CatalogType.SELF_CONTAINED)
    found = find_dem(str(tmp_path / "catalog" / "catalog.json"), grid, geoid=0.0)
    assert len(found.tiles) == 1
    assert found.heights == "egm2008"
    one = items_from_products(sorted(products.iterdir())[:1])
    small = map_of(SCENE, (40, 40))
    cube = ix.build_cube(one, small, tmp_path / "c.zarr", grd=GrdOptions("terrain", dem=found))
    assert np.isfinite(cube["grd"]).all()
    with pytest.raises(ElevationError, match="no item of srtm"):
        find_dem(str(tmp_path / "catalog" / "catalog.json"), grid, collection="srtm")
    with pytest.raises(ElevationError, match="no tile"):
        dem_from_items([next(collection.get_items("far"))]).near(grid.geobox)
