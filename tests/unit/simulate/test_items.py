"""Items, collections and catalogue of a simulated region against STAC, without a network.

The core schemas come with pystac. Those of the extensions do not: what they demand is written here by hand, from their
published schemas (projection 2.0.0, raster 1.1.0, sar 1.0.0, sat 1.0.0, insar 1.0.0), for the fields in use.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import jsonschema
import pystac
import pytest

from icemap_xr import simulate

BASE = "https://stac-extensions.github.io"
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"}
NUMBER, INTEGER, COUNT = {"type": "number"}, {"type": "integer"}, {"type": "integer", "minimum": 1}
CHANNELS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 4,
    "uniqueItems": True,
    "items": {"enum": ["HH", "VV", "HV", "VH"]},
}
#: by extension: the fields of `properties`, and those that must be there
PROPERTIES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "projection/v2.0.0": (
        {
            "proj:code": {"type": ["string", "null"]},
            "proj:wkt2": {"type": ["string", "null"]},
            "proj:shape": {"type": "array", "minItems": 2, "maxItems": 2, "items": INTEGER},
            "proj:transform": {"type": "array", "minItems": 9, "maxItems": 9, "items": NUMBER},
            "proj:bbox": {"type": "array", "minItems": 4, "maxItems": 4, "items": NUMBER},
        },
        ["proj:code"],
    ),
    "sar/v1.0.0": (
        {
            "sar:instrument_mode": {"type": "string", "minLength": 1},
            "sar:frequency_band": {"enum": ["P", "L", "S", "C", "X", "Ku", "K", "Ka"]},
            "sar:center_frequency": NUMBER,
            "sar:polarizations": CHANNELS,
            "sar:product_type": {"type": "string", "minLength": 1},
        },
        ["sar:instrument_mode", "sar:frequency_band", "sar:polarizations", "sar:product_type"],
    ),
    "sat/v1.0.0": (
        {
            "sat:orbit_state": {"enum": ["ascending", "descending", "geostationary"]},
            "sat:absolute_orbit": COUNT,
            "sat:relative_orbit": COUNT,
        },
        ["sat:orbit_state", "sat:absolute_orbit", "sat:relative_orbit"],
    ),
    "insar/v1.0.0": (
        {"insar:temporal_baseline": NUMBER, "insar:reference_datetime": TIME, "insar:secondary_datetime": TIME},
        ["insar:temporal_baseline", "insar:reference_datetime", "insar:secondary_datetime"],
    ),
}
BAND = {
    "type": "object",
    "required": ["data_type", "unit"],
    "properties": {
        "data_type": {"enum": ["float32"]},
        "unit": {"enum": ["dB", "1"]},
        "nodata": {"anyOf": [NUMBER, {"enum": ["nan", "inf", "-inf"]}]},
    },
}
ASSET = {
    "type": "object",
    "required": ["href", "type", "roles", "raster:bands"],
    "properties": {"raster:bands": {"type": "array", "minItems": 1, "items": BAND}, "sar:polarizations": CHANNELS},
}


def schema(item: dict[str, Any]) -> dict[str, Any]:
    """Return what the extensions that an item names demand of it."""
    known: dict[str, Any] = {}
    needed: list[str] = []
    for name, (fields, required) in PROPERTIES.items():
        if f"{BASE}/{name}/schema.json" in item["stac_extensions"]:
            known, needed = known | fields, needed + required
    prefixes = "|".join(("proj", "sar", "sat", "insar", "raster"))
    properties = {
        "type": "object",
        "required": needed,
        "properties": known,
        "patternProperties": {f"^(?!({prefixes}):)": {}},
        # an extension allows no field of its prefix that it does not know
        "additionalProperties": False,
    }
    return {"type": "object", "properties": {"properties": properties, "assets": {"additionalProperties": ASSET}}}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("items") / "made"
    channels = ("VV", "VH")
    features = ("grd", "rtc", "insar")
    region = simulate.region(size_km=0.4, years=(2020, 2022), steps=2, polarisations=channels, features=features)
    return region.write(folder)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a schema was fetched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_everything_is_valid_stac(catalogue: Path) -> None:
    root = pystac.Catalog.from_file(str(catalogue))
    root.validate()
    collections = list(root.get_collections())
    assert len(collections) == 3
    for collection in collections:
        collection.validate()
    items = list(root.get_items(recursive=True))
    assert len(items) == 3 * 2 * 2
    for item in items:
        item.stac_extensions = []
        item.validate()


def test_items_hold_what_their_extensions_demand(catalogue: Path) -> None:
    files = [path for path in catalogue.parent.rglob("*.json") if json.loads(path.read_text())["type"] == "Feature"]
    assert len(files) == 12
    for path in files:
        item = json.loads(path.read_text())
        pair = "insar:temporal_baseline" in item["properties"]
        named = {f"{BASE}/{name}/schema.json" for name in (*PROPERTIES, "raster/v1.1.0")}
        assert set(item["stac_extensions"]) == (named if pair else {one for one in named if "insar" not in one})
        jsonschema.validate(item, schema(item))
        for asset in item["assets"].values():
            assert (path.parent / asset["href"]).resolve().is_file()


@pytest.mark.parametrize(
    ("field", "value"),
    [("sar:polarizations", ["XX"]), ("sat:absolute_orbit", 0), ("proj:shape", [1.5, 2]), ("sar:unknown", 1)],
)
def test_the_schema_finds_faults(catalogue: Path, field: str, value: Any) -> None:
    item = json.loads(next(catalogue.parent.glob("simulated-s1-grd/*/*.json")).read_text())
    item["properties"][field] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(item, schema(item))
