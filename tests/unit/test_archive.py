"""The archive: nodes, readers, resuming, refusals, and the files beside it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from odc.geo.geobox import GeoBox
from pyproj import CRS

from icemap_xr import archive as module
from icemap_xr import store
from icemap_xr.archive import NODES, archive, open_archive, read_outlines
from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError
from icemap_xr.export import export
from icemap_xr.grid import RegionGrid
from icemap_xr.lineage import scrub
from icemap_xr.outlines import outlines
from icemap_xr.sidecars import RGI7_COLUMNS, stac_item, utm_zone
from icemap_xr.verify import verify

LINEAGE = {
    "stac_items": ["S1A_2019", "S1A_2020"],
    "model": {"name": "demo small", "sha256": "ab12", "features": ["grd"], "steps": 15, "window": 64},
    "catalogue": "https://user:hunter2@stac.example.org/api?token=s3cr3t",
    "api_key": "s3cr3t",
}


class Halve:
    def __call__(self, probability):
        return probability / 2

    def to_json(self):
        return {"kind": "knots", "x": [0.0, 1.0], "y": [0.0, 0.5]}


def dataset():
    grid = RegionGrid(GeoBox((30, 40), Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633"))
    values = np.random.default_rng(1).random((2, 30, 40)).astype(np.float32)
    values[0, :4] = np.nan
    coords = {"year": [2019, 2020], **grid.coords()}
    return xr.Dataset({"probability": (("year", "y", "x"), values)}, coords=coords)


def areas():
    rng = np.random.default_rng(2)
    names = {"year": [2019, 2020], "bound": ["low", "high"], "draw": np.arange(20)}
    return xr.Dataset(
        {
            "area_km2": ("year", [0.05, 0.06], {"units": "km2"}),
            "interval": (("year", "bound"), [[0.04, 0.06], [0.05, 0.07]]),
            "draws": (("year", "draw"), rng.random((2, 20))),
        },
        coords=names,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    ds = dataset()
    ds["calibrated"] = ds["probability"] / 2
    path = tmp_path_factory.mktemp("archive") / "demo.zarr"
    given = {"areas": areas(), "outlines": outlines(ds), "calibrator": Halve(), "lineage": LINEAGE, "region": "Demo 1"}
    assert archive(ds.chunk({"year": 1, "y": 7, "x": 11}), path, **given) == path
    return ds, given, path


def test_the_nodes_hold_what_was_given(made):
    ds, given, path = made
    tree = open_archive(path)
    assert set(tree.children) == set(NODES)
    maps = tree["maps"].to_dataset()
    assert maps["probability"].chunks is not None
    assert {name: str(var.dtype) for name, var in maps.data_vars.items()} == {
        "probability": "float32",
        "calibrated": "float32",
        "confidence": "float32",
        "glacier_class": "uint8",
    }
    np.testing.assert_array_equal(maps["probability"], ds["probability"])
    np.testing.assert_array_equal(maps["calibrated"], ds["calibrated"])
    glacier = ds["probability"].values > 0.5
    expected = np.where(np.isnan(ds["probability"]), 255, glacier)
    np.testing.assert_array_equal(maps["glacier_class"], expected)
    assert maps.odc.geobox == ds.odc.geobox
    np.testing.assert_array_equal(tree["draws/draws"], given["areas"]["draws"])
    assert tree["areas/bound"].values.tolist() == ["low", "high"]
    assert "draw" not in tree["areas"].to_dataset().variables
    assert tree["calibration"].attrs["y"] == [0.0, 0.5]
    assert tree["lineage"].attrs["model"]["sha256"] == "ab12"
    assert "xarray" in tree["lineage"].attrs["software"]


def test_outlines_make_the_round_trip_through_archive_and_geoparquet(made):
    _, given, path = made
    assert_geodataframe_equal(read_outlines(open_archive(path)), given["outlines"])
    table = gpd.read_parquet(path.with_suffix(".parquet"))
    assert list(table.columns)[: len(RGI7_COLUMNS)] == list(RGI7_COLUMNS)
    assert {name: str(table[name].dtype) for name in RGI7_COLUMNS} == RGI7_COLUMNS
    beside = table[list(given["outlines"].columns)]
    # the columns of the RGI have true areas: on the axis of a UTM zone the map is smaller by 0.9996 squared
    np.testing.assert_allclose(beside["area_km2"], given["outlines"]["area_km2"] / 0.9996**2, rtol=1e-5)
    assert_geodataframe_equal(beside.assign(area_km2=given["outlines"]["area_km2"]), given["outlines"])
    assert (table["utm_zone"] == 33).all()
    assert table["cenlon"].between(15, 15.1).all()
    assert table["rgi_id"].isna().all()


def test_areas_in_the_store_say_of_which_kind_they_are(made, tmp_path):
    ds, given, path = made
    facts = open_archive(path)["outlines/area_km2"].attrs
    assert (facts["units"], facts["area_kind"]) == ("km2", "planar")
    true = given["outlines"].assign(area_km2=given["outlines"]["area_km2"] / 0.9996**2)
    other = archive(ds.chunk(), tmp_path / "true.zarr", outlines=true)
    assert open_archive(other)["outlines/area_km2"].attrs["area_kind"] == "as given, not planar"


def test_plain_xarray_and_zarr_open_it(made):
    ds, _, path = made
    with xr.open_datatree(path, engine="zarr") as tree:
        np.testing.assert_array_equal(tree["maps/probability"], ds["probability"])
    raw = zarr.open_group(path, mode="r")["maps/glacier_class"]
    assert raw.dtype == np.uint8
    assert raw.fill_value == 255


def test_gdal_opens_the_maps(made):
    ds, _, path = made
    with rasterio.Env() as env:
        if "Zarr" not in env.drivers():
            pytest.skip("this rasterio's GDAL is built without the Zarr driver")
    try:
        file = rasterio.open(f'ZARR:"{path}":/maps/probability')
    except rasterio.errors.RasterioIOError as error:
        if "Unsupported codec" not in str(error):
            raise
        pytest.skip(f"GDAL {rasterio.__gdal_version__} does not read Zarr v3 as it was published ({error})")
    with file:
        assert file.crs.to_epsg() == 32633
        assert file.transform == ds.odc.geobox.transform
        np.testing.assert_array_equal(file.read(), ds["probability"])


def test_a_newer_gdal_opens_maps_in_their_place(made):
    ds, _, path = made
    reader = Path(__file__).with_name("gdal_reader.py")
    for name in ("probability", "glacier_class"):
        command = [sys.executable, str(reader), f'ZARR:"{path}":/maps/{name}']
        got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        if "missing" in got:
            pytest.skip(got["missing"])
        assert "error" not in got, got
        assert got["transform"] == [500_000, 10, 0, 8_700_000, 0, -10]
        assert CRS.from_wkt(got["crs"]).to_epsg() == 32633
        values = ds["probability"].values
        expected = values if name == "probability" else np.where(np.isnan(values), 255, values > 0.5)
        assert got["sha256"] == hashlib.sha256(np.ascontiguousarray(expected, np.float32).tobytes()).hexdigest()


def test_no_credentials_are_kept(made):
    _, _, path = made
    for file in [*path.rglob("*.json"), path.with_suffix(".json")]:
        assert "hunter2" not in file.read_text()
        assert "s3cr3t" not in file.read_text()
    assert open_archive(path)["lineage"].attrs["catalogue"] == "https://stac.example.org/api"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/vsicurl/https://u:p@h/x.tif?sig=1#f", "/vsicurl/https://h/x.tif"),
        ("see s3://bucket/key and http://h/a?b=c now", "see s3://bucket/key and http://h/a now"),
        ({"AWS_SECRET_ACCESS_KEY": "x", "a": (1, np.float32(2), np.nan)}, {"a": [1, 2.0, None]}),
        ({"b": {"Authorization": "x", "c": np.array([1, 2])}}, {"b": {"c": [1, 2]}}),
        ("mail@example.org", "mail@example.org"),
    ],
)
def test_scrub(given, kept):
    assert scrub(given) == kept


def test_the_stac_item_has_its_required_fields(made):
    ds, _, path = made
    text = path.with_suffix(".json").read_text()
    item = pystac.Item.from_dict(json.loads(text))
    assert item.id == "Demo 1"
    assert item.properties["proj:code"] == "EPSG:32633"
    assert item.properties["proj:shape"] == [30, 40]
    assert item.properties["mlm:name"] == "demo small"
    assert item.properties["cube:dimensions"]["x"]["extent"] == [float(ds.x.min()), float(ds.x.max())]
    assert set(item.properties["cube:variables"]) >= {"probability", "confidence", "glacier_class", "calibrated"}
    assert [one["value"] for one in item.assets["maps"].extra_fields["classification:classes"]] == [0, 1, 255]
    assert {name: one.href for name, one in item.assets.items()} == {
        "maps": "./demo.zarr",
        "outlines": "./demo.parquet",
    }
    assert str(path.parent) not in text
    # the MLM extension wants the model among the assets, so it is declared only with one
    assert not any("/mlm/" in uri for uri in item.stac_extensions)


def test_a_model_with_an_address_declares_the_mlm_extension():
    grid = RegionGrid.from_dataset(dataset())
    lineage = {"model": {"name": "demo small", "href": "https://example.org/w.safetensors"}}
    item = stac_item("demo", grid, [2019], {"probability": "1"}, "demo.zarr", None, lineage)
    assert any("/mlm/" in uri for uri in item.stac_extensions)
    assert item.assets["model"].roles == ["mlm:model"]
    assert "outlines" not in item.assets


def test_a_region_across_the_antimeridian_has_two_footprints_and_a_bbox_from_west_to_east():
    grid = RegionGrid(GeoBox((10, 10), Affine(20_000.0, 0, 550_000, 0, -20_000.0, 7_700_000), "EPSG:32660"))
    item = stac_item("demo", grid, [2019], {"probability": "1"}, "demo.zarr", None, {})
    assert item.geometry["type"] == "MultiPolygon"
    west, _, east, _ = item.bbox
    assert west > 0 > east


def test_a_region_around_a_pole_has_all_longitudes():
    grid = RegionGrid(GeoBox((10, 10), Affine(20_000.0, 0, -50_000, 0, -20_000.0, 60_000), "EPSG:3413"))
    item = stac_item("demo", grid, [2019], {"probability": "1"}, "demo.zarr", None, {})
    west, south, east, north = item.bbox
    assert (west, east, north) == (-180, 180, 90)
    assert 88 < south < 90


def test_utm_zones_are_those_of_the_rgi():
    # glaciers of RGI 7 on Svalbard and its neighbours: longitude, latitude, zone
    lon, lat = np.array([10.74, 8.9, 24.1, -38.0, 6.1, 86.9]), np.array([79.55, 78.6, 79.8, 70.0, 61.7, 28.0])
    assert utm_zone(lon, lat).tolist() == [33, 31, 35, 24, 32, 45]


def test_the_same_call_again_changes_nothing_and_another_is_refused(made, tmp_path):
    ds, _, _ = made
    path = archive(ds, tmp_path / "a.zarr")
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    archive(ds, path)
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    with pytest.raises(OutputExistsError, match=r"a\.zarr"):
        archive(ds * 0.5, path)


def test_an_interrupted_write_resumes_and_is_no_archive_meanwhile(made, tmp_path, monkeypatch):
    ds, given, _ = made
    path = tmp_path / "a.zarr"
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            archive(ds, path, **given)
    assert not path.exists()
    with pytest.raises(IncompleteStoreError, match="not finished"):
        open_archive(path)
    lost = store.partial_path(path) / "maps" / "probability" / "c" / "1" / "0" / "0"
    lost.unlink()
    archive(ds, path, **given)
    np.testing.assert_array_equal(open_archive(path)["maps/probability"], ds["probability"])


def test_every_chunk_is_written_even_when_empty(tmp_path):
    path = archive(dataset() * np.nan, tmp_path / "a.zarr")
    for name in ("probability", "confidence", "glacier_class"):
        assert len([one for one in (path / "maps" / name / "c").rglob("*") if one.is_file()]) == 2


def test_no_outlines_and_none_given(tmp_path):
    ds = dataset() * 0
    empty = outlines(ds)
    with_none = open_archive(archive(ds, tmp_path / "a.zarr", outlines=empty))
    assert_geodataframe_equal(read_outlines(with_none), empty)
    assert len(gpd.read_parquet(tmp_path / "a.parquet")) == 0
    assert len(read_outlines(open_archive(archive(ds, tmp_path / "b.zarr")))) == 0
    assert not (tmp_path / "b.parquet").exists()


@pytest.mark.parametrize("region", ["../up", "a/b", "a\\b", "..", ".hidden", "", "a..b", "new\nline", "x" * 101])
def test_region_names_that_lead_elsewhere_are_refused(tmp_path, region):
    with pytest.raises(InputError, match="region"):
        archive(dataset(), tmp_path / "a.zarr", region=region)
    assert not list(tmp_path.iterdir())


def test_foreign_files_are_not_overwritten_and_names_must_not_collide(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"a\.json"):
        archive(dataset(), tmp_path / "a.zarr")
    assert (tmp_path / "a.json").read_text() == "mine"
    with pytest.raises(InputError, match="zarr"):
        archive(dataset(), tmp_path / "b.json")


def test_outlines_in_another_crs_are_refused(tmp_path):
    ds = dataset()
    with pytest.raises(InputError, match="reproject"):
        archive(ds, tmp_path / "a.zarr", outlines=outlines(ds).to_crs("EPSG:32635"))


def test_damaged_newer_and_other_stores_are_refused(made, tmp_path):
    _, _, path = made
    copies = [tmp_path / f"{number}.zarr" for number in range(4)]
    for copy in copies:
        shutil.copytree(path, copy)
    manifest = json.loads((path / store.MANIFEST).read_text())
    newer, other, cut, changed = copies
    manifest["plan"]["version"] = module.ARCHIVE_VERSION + 1
    (newer / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="upgrade"):
        open_archive(newer)
    manifest["plan"]["kind"] = "cube"
    (other / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="cube"):
        open_archive(other)
    (cut / store.MANIFEST).write_text((path / store.MANIFEST).read_text()[:100])
    with pytest.raises(IncompleteStoreError, match="damaged"):
        open_archive(cut)
    (changed / "maps" / "zarr.json").write_text("{}")
    with pytest.raises(IncompleteStoreError, match="sha256"):
        open_archive(changed)
    with pytest.raises(InputError, match="does not exist"):
        open_archive(tmp_path / "none.zarr")


def test_a_chunk_that_is_cut_gives_an_error_and_no_numbers(made, tmp_path):
    _, _, path = made
    copy = tmp_path / "cut.zarr"
    shutil.copytree(path, copy)
    chunk = copy / "maps" / "probability" / "c" / "1" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-20])
    with pytest.raises(Exception, match=r"ended before|CRC|invalid"):
        open_archive(copy)["maps/probability"].values.sum()
    with pytest.raises(IncompleteStoreError, match="icemap verify"):
        export(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert verify(copy) == ["maps/probability: chunk c/1/0/0 is damaged"]
    table = copy / "outlines" / "x" / "c" / "0"
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(IncompleteStoreError, match="outlines of the archive cannot be read"):
        read_outlines(open_archive(copy))
    table.write_bytes(b"")
    with pytest.raises(IncompleteStoreError, match="lacks 1 chunks, such as outlines/x/c/0"):
        open_archive(copy)
    (copy / "zarr.json").write_text((copy / "zarr.json").read_text()[:500])
    with pytest.raises(IncompleteStoreError, match=r"zarr\.json"):
        open_archive(copy)


@pytest.mark.parametrize("version", ["2", None, [1]])
def test_a_layout_that_is_no_number_is_refused(made, tmp_path, version):
    _, _, path = made
    copy = tmp_path / "a.zarr"
    shutil.copytree(path, copy)
    manifest = json.loads((path / store.MANIFEST).read_text())
    manifest["plan"]["version"] = version
    (copy / store.MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(IncompleteStoreError, match="layout"):
        open_archive(copy)


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_maps_without_any_edge_are_archived_and_exported(tmp_path, value):
    ds = dataset()
    ds["probability"] = ds["probability"] * 0 + value
    ds["probability"] = ds["probability"].fillna(value)
    shapes = outlines(ds)
    assert len(shapes) == (2 if value == 1 else 0)
    path = archive(ds.chunk(year=1, y=1, x=1), tmp_path / "a.zarr", outlines=shapes)
    assert_geodataframe_equal(read_outlines(open_archive(path)), shapes)
    np.testing.assert_array_equal(open_archive(path)["maps/probability"], ds["probability"])
    assert len(gpd.read_parquet(export(path, tmp_path / "out").parent / "region_outlines.parquet")) == len(shapes)


def test_values_that_are_no_probabilities_are_not_archived(tmp_path):
    ds = dataset()
    with pytest.raises(InputError, match=r"archive got the value .*0\.\.1"):
        archive(ds * 100, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
