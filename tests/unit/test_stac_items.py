"""STAC items from files: real OPERA and coherence rasters, and made-up ones for what can go wrong."""

from __future__ import annotations

import json
import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from affine import Affine

from icemap_xr.errors import EmptySearchError, InputError, ReadError
from icemap_xr.stac_items import Orbit, items_from_files, open_header, sar_item, write_catalog

BURST = "T137-292322-IW2"
OPERA = "OPERA_L2_RTC-S1_{burst}_{start}_{processed}_S1A_30_v1.0_{pol}.tif"


def raster(path: Path, *, crs: str | None = "EPSG:32633", tags: dict[str, str] | None = None, x: float = 5e5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    transform = Affine(30.0, 0, x, 0, -30.0, 8.7e6)
    options = {"driver": "GTiff", "height": 4, "width": 6, "count": 1, "dtype": "float32", "nodata": np.nan}
    with rasterio.open(path, "w", crs=crs, transform=transform, **options) as out:
        out.write(np.ones((4, 6), np.float32), 1)
        out.update_tags(**(tags or {}))
    return path


def opera(folder: Path, start: str = "20211119T015906Z", processed: str = "20250830T120333Z", pol: str = "VV") -> Path:
    return raster(folder / OPERA.format(burst=BURST, start=start, processed=processed, pol=pol))


def assert_complete(item: pystac.Item) -> None:
    """Check what every item must have, without fetching schemas."""
    as_json = item.to_dict()
    json.dumps(as_json, allow_nan=False)
    assert as_json["type"] == "Feature"
    assert as_json["stac_version"] == "1.1.0"
    assert {"id", "geometry", "bbox", "properties", "links", "assets", "collection"} <= set(as_json)
    assert {"datetime", "proj:code", "proj:shape", "proj:transform", "proj:bbox"} <= set(as_json["properties"])
    west, south, east, north = as_json["bbox"]
    assert -180 <= west < east <= 180
    assert -90 <= south < north <= 90
    for asset in as_json["assets"].values():
        assert Path(asset["href"]).is_absolute()
        assert asset["type"].startswith("image/tiff")
        assert {"data_type", "unit"} <= set(asset["raster:bands"][0])


def test_real_opera_files(data: Path) -> None:
    items = list(items_from_files(data / "sentinel1_rtc"))
    assert len(items) == 4 * 21
    assert [item.datetime for item in items] == sorted(item.datetime for item in items)
    for item in items:
        assert_complete(item)
        assert set(item.assets) == {"VV", "VH"}
        assert item.collection_id == "opera-s1-rtc"
        assert item.properties["sat:orbit_state"] == "ascending"
        offset = {"sentinel-1a": 73, "sentinel-1b": 27}[item.properties["platform"]]
        assert (
            (item.properties["sat:absolute_orbit"] - offset) % 175 + 1 == item.properties["sat:relative_orbit"] == 137
        )
    first = next(item for item in items if BURST in item.id)
    assert first.datetime == datetime(2021, 11, 19, 1, 59, 6, tzinfo=UTC)
    assert first.properties["proj:code"] == "EPSG:32611"
    assert first.properties["proj:shape"] == [100, 100]
    assert first.properties["proj:transform"][:6] == [30.0, 0.0, 236430.0, 0.0, -30.0, 3872070.0]
    assert first.bbox[0] == pytest.approx(-119.88, abs=0.02)
    assert first.bbox[1] == pytest.approx(34.93, abs=0.02)
    assert first.assets["VV"].extra_fields["raster:bands"] == [{"data_type": "float32", "unit": "1", "nodata": "nan"}]


def test_real_coherence_files(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        items = list(items_from_files(data / "coherence"))
    assert len(items) == len(list((data / "coherence").glob("*_cc.tif")))
    assert "cropA_T005A_dem.tif" in caplog.text
    for item in items:
        assert_complete(item)
        assert item.properties["sar:polarizations"] == ["VV"]
    item = next(item for item in items if "20180106-20180130" in item.id)
    assert item.properties["insar:temporal_baseline"] == 24.0
    assert item.properties["insar:reference_datetime"] == "2018-01-06T00:40:21Z"
    assert item.properties["end_datetime"] == item.properties["insar:secondary_datetime"] == "2018-01-30T00:40:21Z"
    assert item.datetime == datetime(2018, 1, 18, 0, 40, 21, tzinfo=UTC)
    assert item.assets["coherence"].extra_fields["raster:bands"][0]["nodata"] == 0.0


def test_newest_processing_wins(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    old, new = opera(tmp_path, processed="20240101T000000Z"), opera(tmp_path, processed="20250101T000000Z")
    with caplog.at_level(logging.INFO):
        (item,) = items_from_files(tmp_path)
    assert item.assets["VV"].href == str(new)
    assert old.name in caplog.text


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    shutil.copytree(opera(tmp_path / "a").parent, tmp_path / "b")
    with pytest.raises(InputError, match="hold the same acquisition: remove one"):
        items_from_files(tmp_path)


def test_name_and_tags_must_agree(tmp_path: Path) -> None:
    dates = {"FIRST_DATE": "2018-01-06", "SECOND_DATE": "2018-01-31"}
    raster(tmp_path / "x_20180106-20180130_VV_8rlks_cc.tif", tags=dates)
    with pytest.raises(InputError, match="tagged 2018-01-06 to 2018-01-31: correct the name or the tags"):
        items_from_files(tmp_path)


def test_dates_from_tags_or_from_the_name_alone(tmp_path: Path) -> None:
    tags = {
        "FIRST_DATE": "2018-01-06",
        "FIRST_TIME": "06:00:00",
        "SECOND_DATE": "2018-01-18",
        "SECOND_TIME": "06:00:01",
    }
    raster(tmp_path / "pair.tif", tags=tags)
    raster(tmp_path / "x_20180206-20180218_HH_cc.tif")
    tagged, named = items_from_files(tmp_path)
    assert tagged.properties["insar:secondary_datetime"] == "2018-01-18T06:00:01Z"
    assert "sar:polarizations" not in tagged.properties
    assert named.properties["insar:reference_datetime"] == "2018-02-06T00:00:00Z"
    assert named.properties["sar:polarizations"] == ["HH"]


@pytest.mark.parametrize(
    ("name", "tags", "message"),
    [
        ("x_20181306-20180130_VV_cc.tif", {}, "20181306"),
        ("x_20180130-20180106_VV_cc.tif", {}, "not after the first"),
        ("x.tif", {"FIRST_DATE": "soon", "SECOND_DATE": "later"}, "must be YYYY-MM-DD"),
    ],
)
def test_bad_dates(tmp_path: Path, name: str, tags: dict[str, str], message: str) -> None:
    raster(tmp_path / name, tags=tags)
    with pytest.raises(InputError, match=message):
        items_from_files(tmp_path)


def test_nothing_recognised(tmp_path: Path) -> None:
    raster(tmp_path / "dem.tif")
    with pytest.raises(EmptySearchError, match=r"no recognised raster among 1 \.tif files in .*OPERA_L2_RTC"):
        items_from_files(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        items_from_files(tmp_path / "absent")


def test_unreadable_and_ungeoreferenced_files(tmp_path: Path) -> None:
    (tmp_path / "broken.tif").write_bytes(b"no raster")
    with pytest.raises(ReadError, match=r"broken\.tif cannot be read"):
        open_header(tmp_path / "broken.tif")
    with pytest.raises(InputError, match="has no CRS"):
        open_header(raster(tmp_path / "bare.tif", crs=None))


def test_one_item_lies_on_one_grid(tmp_path: Path) -> None:
    assets = {pol: open_header(raster(tmp_path / f"{pol}.tif", x=x)) for pol, x in (("VV", 5e5), ("VH", 6e5))}
    time = datetime(2020, 1, 1, tzinfo=UTC)
    with pytest.raises(InputError, match="lie on different grids"):
        sar_item("x", assets, time=time, collection="c", product_type="RTC", unit="1", orbit=Orbit())


def test_catalog_is_self_contained(tmp_path: Path) -> None:
    folder = tmp_path / "made.v1"
    opera(folder / "rtc")
    raster(folder / "coh" / "x_20180206-20180218_HH_cc.tif")
    path = write_catalog(items_from_files(folder), folder, title="Two scenes")
    assert path == folder / "catalog.json"
    shutil.move(folder, tmp_path / "moved")
    catalog = pystac.Catalog.from_file(str(tmp_path / "moved" / "catalog.json"))
    assert sorted(child.id for child in catalog.get_children()) == ["coherence", "opera-s1-rtc"]
    items = list(catalog.get_items(recursive=True))
    assert len(items) == 2
    for item in items:
        (asset,) = item.assets.values()
        assert str(tmp_path) not in asset.href
        assert Path(asset.get_absolute_href() or "").is_file()


def test_catalog_refuses_bad_items(tmp_path: Path) -> None:
    opera(tmp_path)
    (item,) = items_from_files(tmp_path)
    with pytest.raises(InputError, match="two items are named"):
        write_catalog([item, item], tmp_path / "c", title="x")
    with pytest.raises(InputError, match="at least one item"):
        write_catalog([], tmp_path / "c", title="x")
    item.collection_id = None
    with pytest.raises(InputError, match="names no collection"):
        write_catalog([item], tmp_path / "c", title="x")
