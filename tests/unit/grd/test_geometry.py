"""Geometry is compared with the annotated grids of real products, and with a simulated scene solved the other way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from rasterio.windows import Window
from scipy.ndimage import uniform_filter1d

from icemap_xr.errors import GeolocationError
from icemap_xr.grd.annotation import Annotation, TiePoints, read_annotation
from icemap_xr.grd.geometry import GcpGeometry, RangeDoppler
from icemap_xr.grd.placing import block_heights, place
from icemap_xr.grd.product import read_header
from icemap_xr.grd.step import open_image, resample
from icemap_xr.grid import RegionGrid
from icemap_xr.testing.radar import RadarScene, wavy_terrain


@pytest.fixture(scope="module")
def ew(polar: Path) -> Annotation:
    return read_annotation((polar / "ew-hh.xml").read_bytes(), "ew-hh.xml")


@pytest.fixture(scope="module")
def iw(iw_annotation: Path) -> Annotation:
    file = next(iw_annotation.glob("*-vv-*.xml"))
    return read_annotation(file.read_bytes(), file.name)


def nearest(one: Annotation) -> RangeDoppler:
    return RangeDoppler(replace(one, ground_range=replace(one.ground_range, between="nearest")))


@pytest.mark.parametrize("name", ["ew", "iw"])
def test_range_doppler_comes_to_the_annotated_grid(name: str, request: pytest.FixtureRequest) -> None:
    one = request.getfixturevalue(name)
    # the processor computes its grid with the nearest polynomial: so the whole chain can be checked to a thousandth
    assert nearest(one).residuals()["rms"] < 0.001
    # the image itself is made with polynomials interpolated in time
    assert RangeDoppler(one).residuals()["rms"] < 0.2


def test_a_fit_comes_to_points_held_back_of_the_polar_product(ew: Annotation) -> None:
    assert ew.points.lat.max() > 81.9
    found = GcpGeometry(ew.points).residuals()
    assert found["rms"] <= 0.5
    # without heights it cannot: this is what a fit in the plane alone is worth
    assert found["rms_unknown_height"] > 2


def test_a_fit_comes_to_points_held_back_of_the_real_scene(real_iw: Path) -> None:
    with rasterio.open(real_iw) as src:
        header = read_header(src, "iw-vv.tiff")
    assert header.shape == (837, 1280)
    assert header.version == (2, 91)
    assert header.points is not None
    found = GcpGeometry(header.points).residuals()
    assert found["rms"] < 0.01
    assert found["rms_unknown_height"] < 0.1


def test_points_of_an_overview_are_counted_from_pixel_centres(real_iw: Path) -> None:
    with rasterio.open(real_iw) as src:
        points, last = read_header(src, "iw-vv.tiff").points, src.gcps[0][-1]
    assert points is not None
    # 25613 samples were made 1280: the first centre of them lies 0.475 pixels before the first centre here
    assert points.pixel[0] == pytest.approx(0.5 * 1280 / 25613 - 0.5, abs=1e-3)
    assert points.pixel[-1] == pytest.approx(1279.5 - 0.5 * 1280 / 25613, abs=1e-3)
    assert last.col == pytest.approx(1279.95, abs=1e-3)


@pytest.mark.parametrize("argument", [77.0, 84.5, 90.0, 103.0])
def test_a_simulated_scene_is_solved_back_at_all_latitudes(argument: float, tmp_path: Path) -> None:
    scene = RadarScene(shape=(80, 120), latitude_argument=argument, terrain=wavy_terrain, crs="EPSG:3995")
    lines, pixels = np.meshgrid([0.0, 39.5, 79.0], [0.0, 60.25, 119.0], indexing="ij")
    _, _, height, lon, lat = scene.ground(lines, pixels)
    path = scene.write(tmp_path)
    file = path.parent.parent / "annotation" / f"{path.stem}.xml"
    geometry = RangeDoppler(read_annotation(file.read_bytes(), file.name))
    with rasterio.open(path) as src:
        points = read_header(src, path.name).points
    assert points is not None
    for one, most in ((geometry, 0.001), (GcpGeometry(points), 0.01)):
        found = one.locate(lon, lat, height)
        np.testing.assert_allclose(found[0], lines, atol=most)
        np.testing.assert_allclose(found[1], pixels, atol=most)
    assert lat.max() > {77.0: 76, 84.5: 82, 90.0: 86, 103.0: 76}[argument]


def test_a_latitude_of_84_degrees_is_among_them() -> None:
    scene = RadarScene(shape=(20, 20), latitude_argument=86.3, crs="EPSG:3995")
    assert abs(scene.ground(np.array(10.0), np.array(10.0))[4] - 84) < 1.5


def test_neither_the_date_line_nor_the_pole_is_special_to_a_fit(ew: Annotation) -> None:
    lon = (ew.points.lon + 95.0 + 180) % 360 - 180
    assert lon.min() < -170
    assert lon.max() > 170
    turned = GcpGeometry(replace(ew.points, lon=lon))
    assert turned.residuals()["rms"] == pytest.approx(GcpGeometry(ew.points).residuals()["rms"], rel=1e-3)


def test_heights_matter_as_geometry_says(iw: Annotation) -> None:
    """A point 100 m higher lies 100 / tan(incidence) nearer to the radar."""
    points = iw.points
    middle = np.array([np.argmin(np.abs(points.pixel - 12965) + np.abs(points.line - 8092))])
    lon, lat, height = points.lon[middle], points.lat[middle], points.height[middle]
    for geometry in (RangeDoppler(iw), GcpGeometry(points)):
        low, high = (geometry.locate(lon, lat, height + h)[1][0] for h in (0.0, 100.0))
        # incidence in the middle of IW is 39 degrees
        assert (low - high) * 10.0 == pytest.approx(100 / np.tan(np.radians(39)), rel=0.05)


def test_on_the_other_side_of_the_earth_nothing_is_seen(ew: Annotation) -> None:
    far = [np.array([-90.0]), np.array([-79.0]), np.array([0.0])]
    assert np.isnan(RangeDoppler(ew).locate(*far)).all()
    assert np.isnan(GcpGeometry(ew.points).locate(*far)).all()


def test_left_of_the_track_nothing_is_seen(ew: Annotation) -> None:
    """A place as far away on the left has the same time and distance, and is in no image."""
    position = ew.orbit.at(np.array([30.0]))[0][0]
    lon0, lat0, _ = pyproj.Transformer.from_crs("EPSG:4978", "EPSG:4979", always_xy=True).transform(*position)
    geod = pyproj.Geod(ellps="WGS84")
    points = ew.points
    k = int(np.argmin(np.abs(points.line - 5000) + np.abs(points.pixel - 5000)))
    azimuth, _, distance = geod.inv(lon0, lat0, points.lon[k], points.lat[k])
    lon, lat, _ = geod.fwd(lon0, lat0, azimuth + 180, distance)
    assert np.isnan(RangeDoppler(ew).locate(np.array([lon]), np.array([lat]), np.zeros(1))[0]).all()


def test_too_few_points_or_points_on_a_line_are_refused(ew: Annotation) -> None:
    some = np.arange(20)
    few = TiePoints(*(getattr(ew.points, name)[some] for name in ("line", "pixel", "lon", "lat", "height")))
    with pytest.raises(GeolocationError, match="20 ground control points are not enough"):
        GcpGeometry(few)
    n = ew.points.line.size
    with pytest.raises(GeolocationError, match="on one line"):
        GcpGeometry(replace(ew.points, lon=np.full(n, 95.0), lat=np.linspace(77, 80, n)))


@pytest.mark.parametrize(("lon", "lat"), [(76.1783, 10.1416), (76.2996, 9.5996)])
def test_the_coast_of_the_real_scene_is_where_the_coast_is(lon: float, lat: float, real_iw: Path) -> None:
    """The beaches of Cherai and Mararikulam: from west to east the sea ends within three pixels of them."""
    grid = RegionGrid.from_bbox((lon - 0.15, lat - 0.02, lon + 0.15, lat + 0.02), "EPSG:32643", 200)
    with open_image(str(real_iw)) as src:
        header = read_header(src, "iw-vv.tiff")
        assert header.points is not None
        geometry = GcpGeometry(header.points)
        lines, pixels = place(grid.geobox, geometry, block_heights(grid.geobox, geometry, None, None))
        found = resample(
            lines,
            pixels,
            header.shape,
            lambda r, c: src.read(1, window=Window.from_slices(r, c)).astype(np.float32),
            looks=(1, 1),
        )
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32643", always_xy=True).transform(lon, lat)
    transform = grid.geobox.transform
    column, row = round((x - transform.c) / transform.a), int((y - transform.f) / transform.e)
    profile = uniform_filter1d(np.log(np.maximum(found[row - 2 : row + 3], 1)).mean(axis=0), 3)
    sea, land = profile[column - 40 : column - 15].mean(), profile[column + 8 : column + 30].mean()
    assert land > sea + 0.3
    level = (sea + land) / 2
    shore = [k for k in range(column - 8, column + 8) if profile[k] < level <= profile[k + 1]]
    assert len(shore) == 1
    assert abs(shore[0] + 1 - column) <= 3
