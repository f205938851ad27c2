"""Exports: files that other programs open, and a catalogue whose links hold."""

from __future__ import annotations

import json

import geopandas as gpd
import numpy as np
import pystac
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from affine import Affine
from click.testing import CliRunner
from geopandas.testing import assert_geodataframe_equal
from odc.geo.geobox import GeoBox

from icemap_xr.archive import archive, open_archive, read_outlines
from icemap_xr.cli import cli
from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.export import export
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines
from icemap_xr.overviews import average, factors
from icemap_xr.sidecars import footprint
from icemap_xr.verify import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    shape = (700, 1100)
    grid = RegionGrid(GeoBox(shape, Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633"))
    coarse = np.random.default_rng(0).random((2, 7, 11), np.float32)
    values = np.kron(coarse, np.ones((1, 100, 100), np.float32))
    values[0, :51] = np.nan
    ds = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2019, 2020], **grid.coords()})
    ice = gpd.GeoDataFrame(
        {"glacier_id": ["g"], "year": [2020]}, geometry=[shapely.box(502_000, 8_695_000, 504_000, 8_697_000)], crs=32633
    )
    lineage = {"model": {"name": "demo", "features": ["grd"], "steps": 15, "window": 64}}
    path = tmp_path_factory.mktemp("export") / "a.zarr"
    return ds, archive(ds, path, outlines=outlines(ds), glaciers=ice, lineage=lineage, region="North 1")


def follow_the_multiscales_convention(tree, box):
    """Version 1: paths lead downwards from the group to groups that exist, scales count from `derived_from`."""
    names = {one["name"] for one in tree.attrs["zarr_conventions"]}
    assert names == {"multiscales"}
    layout = tree.attrs["multiscales"]["layout"]
    assert [one["asset"] for one in layout] == ["maps", "overviews/2", "overviews/4"]
    transforms = {None: box.transform}
    for one in layout:
        assert ("derived_from" in one) == (one is not layout[0])
        (down, across), (south, east) = one["transform"]["scale"], one["transform"]["translation"]
        step = Affine.translation(east, south) * Affine.scale(across, down)
        transforms[one["asset"]] = transforms[one.get("derived_from")] * step
        assert tree[one["asset"]].to_dataset().odc.geobox.transform == transforms[one["asset"]]
    assert "multiscales" not in tree["overviews"].attrs


def test_overviews_are_averages_and_belong_to_the_store(made):
    ds, path = made
    tree = open_archive(path)
    assert set(tree["overviews"].children) == {"2", "4"}
    expected = ds["probability"].values
    for factor in (2, 4):
        level = tree[f"overviews/{factor}"].to_dataset()
        expected = np.stack([average(one) for one in expected])
        np.testing.assert_array_equal(level["probability"], expected)
        classes = np.where(np.isnan(expected), 255, expected > 0.5)
        np.testing.assert_array_equal(level["glacier_class"], classes)
        assert level.odc.geobox.transform == ds.odc.geobox.transform * Affine.scale(factor)
    follow_the_multiscales_convention(tree, ds.odc.geobox)
    assert verify(path) == []
    raw = zarr.open_group(path, mode="r")["overviews/4/glacier_class"]
    assert raw.dtype == np.uint8
    chunk = next(one for one in (path / "overviews" / "2" / "confidence" / "c").rglob("*") if one.is_file())
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert any("overviews/2/confidence" in one for one in verify(path))
    chunk.write_bytes(whole)


def test_averages_count_what_was_observed():
    nan = np.nan
    values = np.array([[0.2, 0.4, nan], [0.6, nan, nan], [1.0, 0.0, 0.3]])
    np.testing.assert_allclose(average(values), [[0.4, nan], [0.5, 0.3]], rtol=1e-6)
    assert factors((512, 512)) == []
    assert factors((513, 10)) == [2]
    assert factors((1, 4096)) == [2, 4, 8]


def test_gdal_and_pystac_open_an_export(made, tmp_path):
    ds, path = made
    catalog = pystac.Catalog.from_file(str(export(path, tmp_path / "out")))
    items = list(catalog.get_items())
    assert [item.id for item in items] == ["North_1_2019", "North_1_2020"]
    for year, item in zip((2019, 2020), items, strict=True):
        assert item.properties["start_datetime"].startswith(str(year))
        assert item.properties["mlm:name"] == "demo"
        assert item.properties["proj:shape"] == [700, 1100]
        assert "cube:variables" in item.properties
        bands = item.assets["maps"].extra_fields["raster:bands"]
        with rasterio.open(item.assets["maps"].get_absolute_href()) as file:
            assert file.overviews(1)
            assert file.profile["tiled"]
            assert list(file.descriptions) == [band["name"] for band in bands]
            values = file.read(list(file.descriptions).index("probability") + 1)
            classes = file.read(list(file.descriptions).index("glacier_class") + 1)
        truth = ds["probability"].sel(year=year).values
        np.testing.assert_array_equal(values, truth)
        np.testing.assert_array_equal(classes, np.where(np.isnan(truth), np.nan, truth > 0.5))
        for name, asset in item.assets.items():
            assert not asset.href.startswith("/"), name
    for suffix, read in (("parquet", gpd.read_parquet), ("gpkg", gpd.read_file)):
        assert len(read(tmp_path / "out" / f"North_1_outlines.{suffix}")) == len(outlines(ds))
        assert read(tmp_path / "out" / f"North_1_glaciers.{suffix}")["glacier_id"].tolist() == ["g"]
    links = json.loads((tmp_path / "out" / "catalog.json").read_text())["links"]
    assert {link["href"] for link in links if link["rel"] == "item"} == {"./North_1_2019.json", "./North_1_2020.json"}
    assert str(tmp_path) not in (tmp_path / "out" / "catalog.json").read_text()


def test_a_part_and_one_format(made, tmp_path):
    _, path = made
    export(path, tmp_path / "out", formats=["parquet"], glacier="g", years=[2020])
    names = {one.name for one in (tmp_path / "out").iterdir()}
    assert names == {"catalog.json", "North_1_2020.json", "North_1_outlines.parquet", "North_1_glaciers.parquet"}
    with pytest.raises(OutputExistsError, match="not empty"):
        export(path, tmp_path / "out")
    with pytest.raises(InputError, match="shapefile"):
        export(path, tmp_path / "new", formats=["shapefile"])
    with pytest.raises(InputError, match="2001"):
        export(path, tmp_path / "new", years=[2001])
    assert not (tmp_path / "new").exists()


def test_a_region_name_that_leads_elsewhere_is_refused_also_from_a_foreign_archive(made, tmp_path, monkeypatch):
    _, path = made
    tree = open_archive(path)
    tree.attrs["region"] = "../../up"
    monkeypatch.setattr("icemap_xr.export.open_archive", lambda _: tree)
    with pytest.raises(InputError, match="region"):
        export(path, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_the_commands(made, tmp_path):
    _, path = made
    run = CliRunner()
    shown = run.invoke(cli, ["archive", "info", str(path)])
    assert shown.exit_code == 0, shown.output
    for text in ("North 1", "2019, 2020", "700 x 1100", "EPSG:32633", "1:2, 1:4", "demo", "in degrees"):
        assert text in shown.output
    west, south, east, north = footprint(RegionGrid.from_dataset(open_archive(path)["maps"].to_dataset()))[1]
    assert f"{west:.3f}, {south:.3f}, {east:.3f}, {north:.3f}" in shown.output
    done = run.invoke(
        cli, ["archive", "export", str(path), str(tmp_path / "out"), "--format", "gpkg", "--years", "2020"]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "North_1_glaciers.gpkg").exists()
    drawn = run.invoke(cli, ["outlines", str(path), "--output", str(tmp_path / "again.parquet")])
    assert drawn.exit_code == 0, drawn.output
    assert_geodataframe_equal(gpd.read_parquet(tmp_path / "again.parquet"), read_outlines(open_archive(path)))
    merged = ["archive", "merge", str(path), str(path), "--output", str(tmp_path / "b.zarr"), "--region", "b"]
    assert run.invoke(cli, merged).exit_code == 0
    assert open_archive(tmp_path / "b.zarr").attrs["region"] == "b"
