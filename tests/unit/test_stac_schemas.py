"""STAC files are valid against the published schemas, which lie in tests/stac_schemas, and open wherever they lie."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pystac
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from icemap_xr.archive import archive
from icemap_xr.export import export
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines

SCHEMAS = Path(__file__).parents[1] / "stac_schemas"
EXTENSIONS = {"projection", "raster", "classification", "mlm", "datacube"}
MODEL = {"name": "demo", "sha256": "ab" * 32, "features": ["grd", "insar"], "steps": 15, "window": 64}
SVALBARD = (Affine(10.0, 0, 500_000, 0, -10.0, 8_700_000), "EPSG:32633")
ANTIMERIDIAN = (Affine(20_000.0, 0, 550_000, 0, -20_000.0, 7_700_000), "EPSG:32660")
POLE = (Affine(20_000.0, 0, -200_000, 0, -20_000.0, 260_000), "EPSG:3413")
# equal areas around a point of its own, which no authority lists
NAMELESS = (Affine(10.0, 0, -200, 0, -10.0, 200), "+proj=laea +lat_0=78 +lon_0=15 +datum=WGS84 +units=m +type=crs")


class Offline(JsonSchemaSTACValidator):
    """The validator of pystac with the schemas of this repository, and with no others."""

    def __init__(self) -> None:
        super().__init__()
        for file in SCHEMAS.glob("*.json"):
            name, version = file.stem.split("-")
            home = "https://proj.org/schemas/{1}/{0}.schema.json"
            extension = "https://stac-extensions.github.io/{0}/{1}/schema.json"
            self.schema_cache[(home if name == "projjson" else extension).format(name, version)] = json.loads(
                file.read_text()
            )
        two = self.schema_cache["https://stac-extensions.github.io/classification/v2.0.0/schema.json"]
        one = "https://stac-extensions.github.io/classification/v1.1.0/schema.json"
        self.schema_cache[one] = {**two, "$id": one}

    def _get_schema(self, schema_uri):
        assert schema_uri in self.schema_cache, f"{schema_uri} is not in {SCHEMAS}"
        return self.schema_cache[schema_uri]


def checked(item: pystac.Item | pystac.Catalog) -> set[str]:
    """Validate, and return the names of the extensions that were checked."""
    item.validate(validator=Offline())
    return {uri.split("/")[3] for uri in item.stac_extensions}


def made(folder: Path, place=SVALBARD, lineage=None, region="demo region") -> tuple[Path, Path]:
    """An archive of two years, and the catalogue of its export."""
    transform, crs = place
    grid = RegionGrid(GeoBox((20, 30), transform, crs))
    values = np.random.default_rng(1).random((2, 20, 30)).astype(np.float32)
    values[0, :4] = np.nan
    ds = xr.Dataset({"probability": (("year", "y", "x"), values)}, coords={"year": [2019, 2020], **grid.coords()})
    given = {"outlines": outlines(ds), "lineage": {"model": MODEL} if lineage is None else lineage, "region": region}
    path = archive(ds, folder / "a.zarr", **given)
    return path, export(path, folder / "out")


@pytest.mark.parametrize("place", [SVALBARD, ANTIMERIDIAN, POLE, NAMELESS], ids=["utm", "180 degrees", "pole", "wkt"])
def test_items_are_valid_and_declare_what_they_use(tmp_path, place):
    path, catalogue = made(tmp_path, place)
    beside = pystac.Item.from_file(path.with_suffix(".json"))
    assert checked(beside) == EXTENSIONS - {"raster"}  # the maps of an archive are one Zarr group without bands
    catalog = pystac.Catalog.from_file(catalogue)
    checked(catalog)
    items = list(catalog.get_items())
    assert [item.id for item in items] == ["demo_region_2019", "demo_region_2020"]
    for item in items:
        assert checked(item) == EXTENSIONS


def test_without_a_model_the_extension_is_not_declared(tmp_path):
    _, catalogue = made(tmp_path, lineage={})
    for item in pystac.Catalog.from_file(catalogue).get_items():
        assert checked(item) == EXTENSIONS - {"mlm"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("proj:shape", [1, 2, 3]),
        ("proj:transform", [1.0]),
        ("cube:dimensions", {"x": {"type": "spatial"}}),
        ("mlm:input", [{"name": "no shape"}]),
        ("start_datetime", "last summer"),
    ],
)
def test_the_schemas_find_what_is_wrong(tmp_path, field, value):
    _, catalogue = made(tmp_path)
    item = next(pystac.Catalog.from_file(catalogue).get_items())
    item.properties[field] = value
    with pytest.raises(pystac.STACValidationError):
        checked(item)


def test_a_wrong_class_or_band_is_found(tmp_path):
    _, catalogue = made(tmp_path)
    item = next(pystac.Catalog.from_file(catalogue).get_items())
    (band,) = [one for one in item.assets["maps"].extra_fields["raster:bands"] if one["name"] == "glacier_class"]
    assert [one["name"] for one in band["classification:classes"]] == ["not_glacier", "glacier"]
    band["data_type"] = "float33"
    with pytest.raises(pystac.STACValidationError):
        checked(item)
    path = catalogue.parents[1] / "a.json"
    beside = pystac.Item.from_file(path)
    del beside.assets["maps"].extra_fields["classification:classes"][0]["value"]
    with pytest.raises(pystac.STACValidationError):
        checked(beside)


def test_the_catalogue_opens_wherever_it_lies(tmp_path):
    _, catalogue = made(tmp_path)
    catalogue.parent.rename(tmp_path / "elsewhere")
    catalogue = tmp_path / "elsewhere" / "catalog.json"
    for file in catalogue.parent.glob("*.json"):
        text = file.read_text()
        assert str(tmp_path) not in text
        for link in json.loads(text)["links"]:
            assert link["rel"] != "self"
            assert link["href"].startswith("./")
            assert (catalogue.parent / link["href"]).is_file()
    catalog = pystac.Catalog.from_file(catalogue)
    assert catalog.catalog_type == pystac.CatalogType.SELF_CONTAINED
    checked(catalog)
    for item in catalog.get_items(recursive=True):
        checked(item)
        assert item.get_root() is catalog
        for name, asset in item.assets.items():
            if name != "model":
                assert Path(asset.get_absolute_href()).is_file()


def test_a_model_is_named_by_its_address_or_by_its_digest(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _, catalogue = made(tmp_path / "a")
    model = next(pystac.Catalog.from_file(catalogue).get_items()).assets["model"]
    # RFC 6920: the bytes ab ab ... in base64url
    assert model.href == "ni:///sha-256;q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"
    address = "https://example.org/weights.h5"
    _, catalogue = made(tmp_path / "b", lineage={"model": {**MODEL, "href": address}})
    assert next(pystac.Catalog.from_file(catalogue).get_items()).assets["model"].href == address
