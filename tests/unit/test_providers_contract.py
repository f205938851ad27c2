"""Each shipped profile over recorded real answers of its catalogue, where there are any; where not, that is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest
import yaml

from icemap_xr import catalog
from icemap_xr.catalog import _complete, search
from icemap_xr.errors import AccessError, AssetMissingError, NotGeocodedError
from icemap_xr.footprints import Area, footprint
from icemap_xr.providers import Provider, known_providers, load_provider
from icemap_xr.scenes import scenes_from_items
from icemap_xr.testing import servers

#: profile, collection, recorded item below data/stac, polarisations it offers; None where no item is recorded
ITEMS = {
    ("planetary-computer", "sentinel-1-rtc"): ("items_real/stac-extensions_sentinel-1/mspc-s1-rtc.json", ("VV", "VH")),
    ("planetary-computer", "sentinel-1-grd"): ("items_real/stac-extensions_sentinel-1/mspc-s1-grd.json", ("VV", "VH")),
    ("copernicus-dataspace", "sentinel-1-grd"): ("items_real/cdse/sentinel-1-grd-item.json", ("VV", "VH")),
    ("creodias", "sentinel-1-grd"): ("items_real/cdse/sentinel-1-grd-item.json", ("VV", "VH")),
    ("earth-search", "sentinel-1-grd"): None,
    ("terrascope", "opera-s1-rtc-v1"): None,
    ("terrascope", "terrascope-s1-slc-coherence-v1"): None,
}
#: recorded description of the assets of a collection
COLLECTIONS = {
    ("planetary-computer", "sentinel-1-rtc"): (
        "planetary_computer_tasks/datasets/sentinel-1-rtc/collection/template.json"
    ),
    ("planetary-computer", "sentinel-1-grd"): (
        "planetary_computer_tasks/datasets/sentinel-1-grd/collection/template.json"
    ),
    ("copernicus-dataspace", "sentinel-1-grd"): "items_real/cdse/sentinel-1-grd-collection.json",
    ("creodias", "sentinel-1-grd"): "items_real/cdse/sentinel-1-grd-collection.json",
}
#: recorded landing page of the catalogue
LANDINGS = {
    "copernicus-dataspace": "cdse_recorded/stac.dataspace.copernicus.eu/v1/index.json",
    "creodias": "cdse_recorded/stac.dataspace.copernicus.eu/v1/index.json",
    "planetary-computer": "pystac_client_data/planetary-computer-root.json",
}
EARTH_SEARCH = "pystac_client_cassettes/test_cli/TestCLICollections.test_collections[inprocess].yaml"


def source(provider: Provider, collection: str) -> Any:
    return next(one for one in provider.sources if one.collection == collection)


def test_every_source_of_every_profile_is_accounted_for() -> None:
    shipped = {(p.name, s.collection) for p in known_providers().values() for s in p.sources if p.name != "local"}
    assert shipped == set(ITEMS)


@pytest.mark.parametrize(("name", "collection"), [key for key, found in ITEMS.items() if found])
def test_a_recorded_item_is_understood(data: Path, name: str, collection: str) -> None:
    found = ITEMS[name, collection]
    assert found is not None
    item = pystac.Item.from_file(str(data / "stac" / found[0]))
    item.collection_id = collection
    provider = load_provider(name)
    mine = source(provider, collection)
    assert _complete(item) is None
    assert mine.polarisations(item) == found[1]
    for polarisation in found[1]:
        provider.access.check(item.assets[mine.asset_key(item, polarisation)].href, local=False, what="it")
    assert item.properties["platform"] in {"sentinel-1a", "sentinel-1d"}
    assert item.properties["sat:relative_orbit"] > 0
    assert item.properties["sat:absolute_orbit"] > 0
    west, south, east, north = footprint(item).bounds
    assert Area.of((west, south, east, north)).touches(footprint(item))
    if mine.geocoded:
        (scene,) = scenes_from_items([item], provider.sources, mine.feature)
        assert (scene.polarisation, scene.values, scene.radiometry) == ("VV", "power", "gamma0")
    else:
        with pytest.raises(NotGeocodedError, match=r"radar geometry.*geocode it first"):
            scenes_from_items([item], provider.sources, mine.feature)


def test_orbits_from_a_name_are_those_of_the_properties(data: Path) -> None:
    from icemap_xr.sentinel1 import product_properties

    folder = data / "stac"
    paths = [
        *folder.glob("items_real/stac-extensions_sentinel-1/*.json"),
        *folder.glob("planetary_computer_tasks/s1*/**/*.json"),
    ]
    assert len(paths) >= 6
    for path in paths:
        item = pystac.Item.from_file(str(path))
        told = product_properties(item.id)
        for key in ("sat:absolute_orbit", "sat:relative_orbit", "sar:instrument_mode"):
            assert told[key] == item.properties[key], path.name
        assert told["platform"] == item.properties["platform"].lower()
        assert sorted(told["sar:polarizations"]) == sorted(item.properties["sar:polarizations"])


@pytest.mark.parametrize(("name", "collection"), list(COLLECTIONS))
def test_assets_are_those_that_the_collection_describes(data: Path, name: str, collection: str) -> None:
    content = json.loads((data / "stac" / COLLECTIONS[name, collection]).read_text())
    mine = source(load_provider(name), collection)
    assert content["id"] == collection
    assert set(mine.assets.values()) <= set(content["item_assets"])


def test_planetary_computer_hosts_and_containers_are_those_of_the_collections(data: Path) -> None:
    access = load_provider("planetary-computer").access
    for collection in ("sentinel-1-rtc", "sentinel-1-grd"):
        content = json.loads((data / "stac" / COLLECTIONS["planetary-computer", collection]).read_text())
        account, container = content["msft:storage_account"], content["msft:container"]
        assert f"{account}.blob.core.windows.net" in access.hosts
        address = access._token_address(f"https://{account}.blob.core.windows.net/{container}/GRD/x.tiff")
        assert address == f"https://planetarycomputer.microsoft.com/api/sas/v1/token/{account}/{container}"


def test_earth_search_describes_its_collection_and_no_item_is_recorded(data: Path) -> None:
    cassette = yaml.safe_load((data / "stac" / EARTH_SEARCH).read_text())
    bodies = [one["response"]["body"]["string"] for one in cassette["interactions"]]
    collections = [c for body in bodies if '"collections"' in body for c in json.loads(body).get("collections", ())]
    described = next(one for one in collections if one["id"] == "sentinel-1-grd")
    provider = load_provider("earth-search")
    assert set(source(provider, "sentinel-1-grd").assets.values()) <= set(described["item_assets"])
    assert provider.access.gdal["AWS_REQUEST_PAYER"] == "requester"
    assert ITEMS["earth-search", "sentinel-1-grd"] is None


def test_the_catalogue_of_the_data_space_is_the_recorded_one(data: Path) -> None:
    landing = json.loads((data / "stac/cdse_recorded/stac.dataspace.copernicus.eu/v1/index.json").read_text())
    answer = json.loads((data / "stac/cdse_recorded/stac.dataspace.copernicus.eu/v1/search_queried.json").read_text())
    for name in ("creodias", "copernicus-dataspace"):
        provider = load_provider(name)
        assert provider.url == next(link["href"] for link in landing["links"] if link["rel"] == "self")
        for item in answer["features"]:
            for asset in item["assets"].values():
                if asset["href"].endswith(".tif") and asset["href"].startswith("s3://"):
                    provider.access.check(asset["href"], local=False, what="it")
    assets = answer["features"][0]["assets"]["B02"]
    assert load_provider("copernicus-dataspace").access.gdal["AWS_S3_ENDPOINT"] in assets["description"]
    assert any("item-search#query" in uri for uri in landing["conformsTo"])


def test_a_source_without_known_assets_says_what_the_items_have(data: Path) -> None:
    item = pystac.Item.from_file(str(data / "stac/items_real/stac-extensions_sentinel-1/mspc-s1-rtc.json"))
    item.collection_id = "terrascope-s1-slc-coherence-v1"
    with pytest.raises(AssetMissingError, match="it has vh, vv"):
        scenes_from_items([item], load_provider("terrascope").sources, "insar")


@pytest.mark.parametrize(
    "name", ["planetary-computer", "copernicus-dataspace", "creodias", "earth-search", "terrascope"]
)
def test_network_profiles_never_open_local_files_or_strange_hosts(name: str) -> None:
    access = load_provider(name).access
    assert access.hosts
    assert "http" not in access.schemes
    for href in ("/etc/passwd", "https://evil.example/a.tif", "s3://other/a.tif", "https://u:p@evil.example/a.tif"):
        for local in (True, False):
            with pytest.raises(AccessError):
                access.check(href, local=local, what="it")


@pytest.mark.parametrize("name", list(LANDINGS))
def test_a_search_goes_through_the_recorded_landing_page_to_the_recorded_items(
    data: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real pages and items, served as they are but for the host of their links."""
    provider = load_provider(name)
    landing = (data / "stac" / LANDINGS[name]).read_text()
    base = next(link["href"] for link in json.loads(landing)["links"] if link["rel"] == "self").rstrip("/")
    items = []
    for (profile, collection), found in ITEMS.items():
        if profile == name and found is not None:
            items.append(json.loads((data / "stac" / found[0]).read_text()) | {"collection": collection})
    asked: list[tuple[str, Any]] = []

    class Recorded(servers.Handler):
        def answer(self) -> None:
            body = json.loads(self.body() or b"null")
            asked.append((f"{self.command} {self.path.split('?')[0]}", body))
            found = {"type": "FeatureCollection", "features": items, "links": []}
            content = landing.replace(base, address) if self.path.strip("/") == "" else json.dumps(found)
            self.send(200, content.encode(), {"Content-Type": "application/json"})

    with servers.serve(Recorded) as address:
        here = {name: replace(provider, url=address)}
        monkeypatch.setattr(catalog, "known_providers", lambda: here)
        for one in items:
            day = str(one["properties"].get("datetime") or one["properties"]["start_datetime"])
            wanted = {source.feature for source in provider.sources if source.collection == one["collection"]}
            result = search(name, tuple(one["bbox"]), int(day[:4]), features=sorted(wanted))
            assert [item.id for item in result] == [one["id"]]
            # addresses come out unsigned, and where they were
            href = one["assets"]["vv"]["href"]
            assert result[0].assets["vv"].href == href
            track = result[0].properties["sat:relative_orbit"]
            assert len(search(name, tuple(one["bbox"]), int(day[:4]), relative_orbit=track)) >= 1
    # filters go where they are known, and the way of asking is one that is offered
    offered = {link.get("method") or "GET" for link in json.loads(landing)["links"] if link["rel"] == "search"}
    searches = [(where, body) for where, body in asked if where.endswith("/search")]
    assert {where.split()[0] for where, _ in searches} == ({"POST"} if "POST" in offered else {"GET"})
    conforms = any("item-search#query" in uri for uri in json.loads(landing)["conformsTo"])
    assert any("query" in (body or {}) for _, body in searches) == (conforms and "POST" in offered)
