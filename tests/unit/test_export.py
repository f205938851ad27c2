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
from icemap_xr.kernels.halving import halve
from icemap_xr.outlines import outlines
from icemap_xr.overviews import factors
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
    for factor in (2, 4):
        level = tree[f"overviews/{factor}"].to_dataset()
        four = ds["probability"].values.reshape(2, 700 // factor, factor, 1100 // factor, factor)
        known = (~np.isnan(four)).sum((2, 4))
        expected = np.where(known, np.nansum(four, (2, 4)) / np.maximum(known, 1), np.nan)
        np.testing.assert_allclose(level["probability"], expected, rtol=1e-6)
        classes = np.where(np.isnan(expected), 255, level["probability"] > 0.5)
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
    means, counts = halve(values)
    np.testing.assert_allclose(means, [[0.4, nan], [0.5, 0.3]], rtol=1e-6)
    np.testing.assert_array_equal(counts, [[3, 0], [2, 1]])
    # means of means would give each quarter the same weight
    values = np.full((4, 4), 0.9)
    values[:2, :2] = [[0.1, nan], [nan, nan]]
    np.testing.assert_allclose(halve(*halve(values))[0], np.nanmean(values), rtol=1e-6)
    assert factors((512, 512)) == []
    assert factors((513, 10)) == [2]
    assert factors((1, 4096)) == [2, 4, 8]


def test_overviews_of_all_levels_are_means_of_what_was_observed(tmp_path):
    """In the archive and in the COG, over an odd number of pixels with unobserved ones, down to the third level."""
    rng = np.random.default_rng(4)
    values = rng.random((1, 1030, 2050), np.float32)
    values[rng.random(values.shape) < 0.7] = np.nan
    grid = RegionGrid(GeoBox(values.shape[1:], Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633"))
    ds = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2020], **grid.coords()})
    path = archive(ds, tmp_path / "a.zarr")
    padded = np.pad(values[0].astype(float), ((0, -1030 % 8), (0, -2050 % 8)), constant_values=np.nan)
    with np.errstate(invalid="ignore"):
        four = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8)
        truth = np.nansum(four, (1, 3)) / (~np.isnan(four)).sum((1, 3))
    level = open_archive(path)["overviews/8"].to_dataset()
    np.testing.assert_allclose(level["probability"][0], truth, rtol=1e-5)
    assert set(open_archive(path)["overviews"].children) == {"2", "4", "8"}
    assert verify(path) == []
    catalog = pystac.Catalog.from_file(str(export(path, tmp_path / "out", formats=["cog"])))
    (item,) = catalog.get_items()
    name = item.assets["maps"].get_absolute_href()
    with rasterio.open(name) as file, rasterio.open(name, overview_level=2) as coarse:
        assert file.overviews(1) == [2, 4, 8]
        read = dict(zip(file.descriptions, coarse.read(), strict=True))
    np.testing.assert_allclose(read["probability"], truth, rtol=1e-5)
    assert set(np.unique(read["glacier_class"])) <= {0.0, 1.0}
    np.testing.assert_array_equal(read["glacier_class"], read["probability"] > 0.5)


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
