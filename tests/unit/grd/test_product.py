from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint

from icemap_xr.access import Access
from icemap_xr.errors import AnnotationError, GeolocationError
from icemap_xr.grd.fetch import Fetcher
from icemap_xr.grd.product import Image, annotation_hrefs, load_image, read_header
from icemap_xr.grd.step import open_image
from icemap_xr.testing.radar import RadarScene, write_measurement
from icemap_xr.web import Patience

SMALL = RadarScene(shape=(60, 80))
Edited = Callable[..., Path]


def load(path: Path, **options: bool) -> Image:
    with open_image(str(path)) as src:
        header = read_header(src, path.name)
    return load_image(str(path), header, "VV", Fetcher(Access(), Patience()), **options)


def test_annotation_lies_beside_the_raster() -> None:
    local = annotation_hrefs("a/X.SAFE/measurement/s1a-iw-grd-vv-001.tiff")
    assert local["annotation"] == "a/X.SAFE/annotation/s1a-iw-grd-vv-001.xml"
    assert local["noise"] == "a/X.SAFE/annotation/calibration/noise-s1a-iw-grd-vv-001.xml"
    remote = annotation_hrefs("https://host/p/measurement/iw-vv.tiff?sig=a%2Fb")
    assert remote["calibration"] == "https://host/p/annotation/calibration/calibration-iw-vv.xml?sig=a%2Fb"
    with pytest.raises(AnnotationError, match="folder 'measurement'"):
        annotation_hrefs("somewhere/vv.tif")


def test_real_catalogues_have_that_layout(data: Path) -> None:
    import json

    item = json.loads((data / "stac" / "items_real" / "cdse" / "sentinel-1-grd-item.json").read_text())
    for channel in ("vv", "vh"):
        found = annotation_hrefs(item["assets"][channel]["href"])
        assert found["noise"] == item["assets"][f"schema-noise-{channel}"]["href"]
        assert found["calibration"] == item["assets"][f"schema-calibration-{channel}"]["href"]


def test_a_whole_product_is_taken(tmp_path: Path) -> None:
    one = load(SMALL.write(tmp_path))
    assert one.noise is not None
    assert not one.bordered


def test_noise_that_is_removed_already_is_not_removed_again(edited: Edited) -> None:
    old, new = (f"<thermalNoiseCorrectionPerformed>{value}<" for value in ("false", "true"))
    assert load(edited("annotation", old, new)).noise is None


def test_before_version_290_borders_are_noise(tmp_path: Path) -> None:
    one = load(RadarScene(shape=(60, 80), form="range").write(tmp_path))
    assert one.bordered
    assert one.noise is not None
    assert one.noise.form == "range"


@pytest.mark.parametrize("kind", ["annotation", "calibration", "noise"])
def test_a_missing_file_is_told_by_its_name(kind: str, tmp_path: Path) -> None:
    path = SMALL.write(tmp_path)
    name = f"{path.stem}.xml" if kind == "annotation" else f"calibration/{kind}-{path.stem}.xml"
    (path.parent.parent / "annotation" / name).unlink()
    with pytest.raises(AnnotationError, match=rf"{name} does not exist: a GRD scene needs"):
        load(path)
    if kind == "noise":
        assert load(path, noise=False, border=False).noise is None


@pytest.mark.parametrize("kind", ["calibration", "noise"])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<polarisation>VV<", "<polarisation>VH<"),
        ("<missionId>S1A<", "<missionId>S1B<"),
        ("<absoluteOrbitNumber>36201<", "<absoluteOrbitNumber>36202<"),
        ("<startTime>2021-01-19T03:16:53", "<startTime>2021-01-19T03:17:18"),
    ],
)
def test_a_table_of_another_product_is_refused(kind: str, old: str, new: str, edited: Edited) -> None:
    with pytest.raises(AnnotationError, match=rf"{kind}.* it belongs to another product"):
        load(edited(kind, old, new))


def test_annotation_of_another_orbit_than_the_name_says_is_refused(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path)
    for file in (path.parent.parent / "annotation").rglob("*.xml"):
        file.write_text(file.read_text().replace(">36201<", ">36202<"))
    with pytest.raises(AnnotationError, match=r"orbit 036202.* of another product"):
        load(path)


def test_a_raster_of_another_size_or_polarisation_is_refused(tmp_path: Path) -> None:
    path = SMALL.write(tmp_path)
    with open_image(str(path)) as src:
        header = read_header(src, path.name)
    with pytest.raises(AnnotationError, match="wanted as HH, its annotation is of VV"):
        load_image(str(path), header, "HH", Fetcher(Access(), Patience()))
    write_measurement(path, SMALL.numbers[:50], SMALL.tie_points, version="003.31")
    with pytest.raises(AnnotationError, match=r"50 x 80 pixels, its annotation says 60 x 80"):
        load(path)


def test_a_noise_table_longer_than_the_image_is_refused(edited: Edited) -> None:
    with pytest.raises(AnnotationError, match=r"noise.*reaches to line 9600"):
        load(edited("noise", "<line>600</line>", "<line>9600</line>", scene=RadarScene(shape=(500, 80))))


def test_noise_of_the_earliest_products_is_refused_unless_left_alone(tmp_path: Path) -> None:
    scene = RadarScene(shape=(60, 80), form="range")
    path = scene.write(tmp_path)
    write_measurement(path, scene.numbers, scene.tie_points, version="002.43")
    with pytest.raises(AnnotationError, match=r"version 2\.43 .* before 2\.50.*noise=False, border=False"):
        load(path)
    assert load(path, noise=False, border=False).noise is None


def test_a_raster_that_is_no_measurement_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "float.tif"
    with rasterio.open(path, "w", driver="GTiff", width=9, height=9, count=1, dtype="float32") as out:
        out.write(np.zeros((9, 9), np.float32), 1)
    with open_image(str(path)) as src, pytest.raises(AnnotationError, match="no GRD measurement"):
        read_header(src, path.name)


@pytest.mark.parametrize("kind", ["Area", "Point"])
def test_control_points_count_centres_whatever_the_file_calls_its_pixels(kind: str, tmp_path: Path) -> None:
    path = write_measurement(tmp_path / "a.tiff", SMALL.numbers, None, version="003.31")
    points = SMALL.tie_points
    with rasterio.open(path, "r+") as out:
        out.update_tags(AREA_OR_POINT=kind)
        # GDAL moves the points of the latter while it writes
        off = 0.5 if kind == "Point" else 0.0
        rows = zip(*(points[key] for key in ("line", "pixel", "lon", "lat")), strict=True)
        found = [GroundControlPoint(row=r - off, col=c - off, x=x, y=y, z=0.0) for r, c, x, y in rows]
        out.gcps = (found, rasterio.crs.CRS.from_epsg(4326))
    with rasterio.Env(GTIFF_POINT_GEO_IGNORE=True), open_image(str(path)) as src:
        # what the file holds is as the processor writes it, first and last on the first and last pixel
        assert src.tags()["AREA_OR_POINT"] == kind
        assert {point.row for point in src.gcps[0]} == set(points["line"])
    with open_image(str(path)) as src:
        assert {point.row for point in src.gcps[0]} == {line + off for line in points["line"]}
        header = read_header(src, path.name)
    assert header.points is not None
    np.testing.assert_allclose(header.points.line, points["line"], atol=1e-9)
    np.testing.assert_allclose(header.points.pixel, points["pixel"], atol=1e-9)


def test_control_points_in_another_crs_are_refused(tmp_path: Path) -> None:
    path = write_measurement(tmp_path / "a.tiff", SMALL.numbers, SMALL.tie_points, version="003.31", crs="EPSG:32633")
    with open_image(str(path)) as src, pytest.raises(GeolocationError, match="EPSG:32633, wanted is EPSG:4326"):
        read_header(src, path.name)
