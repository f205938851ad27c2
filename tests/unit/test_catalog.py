"""Search: complete, filtered in time and space, or an error that says what to do."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest

from icemap_xr import loopback
from icemap_xr.catalog import search
from icemap_xr.errors import CatalogUnavailableError, EmptySearchError, InputError, SchemaError
from icemap_xr.providers import PROVENANCE
from icemap_xr.stac_items import write_catalog
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster
from icemap_xr.vectors import lonlat_bounds

REGION = (14.9, 78.0, 15.1, 79.0)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")

    def raster(name: str) -> Path:
        return write_raster(folder / f"{name}.tif", np.ones((4, 4)))

    items = [
        rtc_item(raster("last"), "2020-12-31T23:59:59"),
        rtc_item(raster("first"), "2020-01-01"),
        rtc_item(raster("before"), "2019-12-31T23:59:59"),
        rtc_item(raster("after"), "2021-01-01"),
        rtc_item(raster("b"), "2020-05-01", platform="sentinel-1b"),
        rtc_item(raster("up"), "2020-06-01", state="ascending", track=88),
        rtc_item(raster("other"), "2020-06-01", collection="other"),
        pair_item(raster("pair"), "2020-05-01", "2020-05-13"),
    ]
    return write_catalog(items, folder / "catalog", title="test")


def ids(found: pystac.ItemCollection) -> list[str]:
    return [item.id for item in found]


def test_items_are_those_of_the_years_by_time(catalog: Path) -> None:
    assert ids(search(catalog, REGION, 2020)) == ["first", "b", "pair", "up", "last"]
    assert ids(search(catalog.parent, REGION, [2021, 2019])) == ["before", "after"]
    assert ids(search(catalog, REGION, np.int64(2021))) == ["after"]
    # a year that begins in June goes on into the next
    assert ids(search(catalog, REGION, 2019, year_start="06-01")) == ["before", "first", "b", "pair"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"features": ["insar"]}, ["pair"]),
        ({"features": ["rtc"]}, ["first", "b", "up", "last"]),
        ({"orbit_state": "ascending"}, ["up"]),
        ({"relative_orbit": 14}, ["first", "b", "last"]),
        ({"platforms": ["Sentinel-1B"]}, ["b"]),
    ],
)
def test_filters(catalog: Path, options: dict[str, Any], expected: list[str]) -> None:
    assert ids(search(catalog, REGION, 2020, **options)) == expected


def test_links_are_absolute_and_the_request_is_recorded(catalog: Path) -> None:
    found = search(catalog, REGION, [2020, 2021], features=["rtc"])
    for item in found:
        for asset in item.assets.values():
            assert Path(asset.href).is_file()
    record = found.extra_fields[PROVENANCE]
    assert record["years"] == [2020, 2021]
    assert record["bounds"] == list(lonlat_bounds(REGION))
    again = pystac.ItemCollection.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.extra_fields[PROVENANCE] == record


@pytest.mark.parametrize(
    ("region", "years", "options"),
    [
        ((14.9, 60.0, 15.1, 61.0), 2020, {}),
        (REGION, 2024, {}),
        (REGION, 2020, {"relative_orbit": 99}),
        (REGION, 2020, {"features": ["grd"]}),
    ],
)
def test_an_empty_search_says_where_and_when(catalog: Path, region: Any, years: int, options: Any) -> None:
    with pytest.raises(EmptySearchError, match=rf"catalog\.json.*{years}.*check region, years") as caught:
        search(catalog, region, years, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"years": []}, InputError, "years is empty"),
        ({"years": 2010}, InputError, "2010.*2014"),
        ({"features": ["rct"]}, SchemaError, "'rct'.*'rtc'"),
        ({"orbit_state": "up"}, InputError, "'up'.*'ascending'"),
        ({"region": (0, 0, 0, 0)}, InputError, "box"),
        ({"year_start": "x"}, InputError, "'x'"),
        ({"profile": "lokal"}, InputError, "'lokal'.*'local'"),
        ({"provider": "lokal"}, InputError, "'lokal'.*'local'"),
        ({"provider": "local"}, InputError, "no address"),
        ({"provider": "none/catalog.json"}, CatalogUnavailableError, "none/catalog.json does not exist"),
    ],
)
def test_parameters_that_cannot_be_used(catalog: Path, options: dict[str, Any], kind: Any, match: str) -> None:
    given: dict[str, Any] = {"provider": catalog, "region": REGION, "years": 2020} | options
    with pytest.raises(kind, match=match) as caught:
        search(given.pop("provider"), given.pop("region"), given.pop("years"), **given)
    assert "\n" not in str(caught.value)


def test_a_static_catalogue_over_http_is_the_same(catalog: Path) -> None:
    with loopback.serve_files(catalog.parent) as address:
        found = search(f"{address}/catalog.json", REGION, 2020)
        assert ids(found) == ids(search(catalog, REGION, 2020))


def test_what_does_not_answer_is_named_without_credentials(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "text.json").write_text("nonsense")
    (tmp_path / "object.json").write_text('{"conformsTo": null}')
    with loopback.serve_files(tmp_path) as address:
        secret = address.replace("://", "://user:hunter2@")
        for name in ("none.json", "list.json", "text.json", "object.json"):
            with pytest.raises(CatalogUnavailableError, match=name) as caught:
                search(f"{secret}/{name}?token=hunter2", REGION, 2020, deadline=0.5)
            assert "hunter2" not in str(caught.value)
            assert "\n" not in str(caught.value)
        with pytest.raises(CatalogUnavailableError, match="status 404"):
            search(f"{address}/none.json", REGION, 2020)
    with pytest.raises(CatalogUnavailableError, match=r"127\.0\.0\.1:1/.*ConnectionError"):
        search("http://127.0.0.1:1/", REGION, 2020, deadline=0.5)


def test_a_catalogue_with_a_broken_link_is_an_error_not_half_a_result(catalog: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(catalog.parent, copy)
    next(copy.rglob("up.json")).unlink()
    with pytest.raises(CatalogUnavailableError, match=r"catalog\.json"):
        search(copy / "catalog.json", REGION, 2020)


def test_what_is_json_and_no_catalogue(tmp_path: Path) -> None:
    for content in ("{}", "[]", "nonsense"):
        (tmp_path / "a.json").write_text(content)
        with pytest.raises(CatalogUnavailableError, match=r"a\.json"):
            search(tmp_path / "a.json", REGION, 2020)


def test_a_pair_belongs_to_the_year_of_its_middle(tmp_path: Path) -> None:
    """Whatever date its item has: the cube puts it into that year, too."""
    items = []
    for name, first, second, dated in (
        ("old", "2019-12-20", "2020-01-01", "2020-01-01"),
        ("new", "2019-12-28", "2020-01-09", "2019-12-28"),
    ):
        item = pair_item(write_raster(tmp_path / f"{name}.tif", np.ones((4, 4))), first, second)
        item.datetime = datetime.fromisoformat(dated).replace(tzinfo=UTC)
        items.append(item)
    found = write_catalog(items, tmp_path / "catalog", title="pairs")
    assert ids(search(found, REGION, 2019)) == ["old"]
    assert ids(search(found, REGION, 2020)) == ["new"]
    with loopback.serve_catalog(pystac.ItemCollection(items), tmp_path) as address:
        assert ids(search(address, REGION, 2020)) == ["new"]


def test_items_that_do_not_say_their_orbit_are_counted_where_one_is_asked_for(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "a.tif", np.ones((4, 4)))
    items = [rtc_item(raster, "2020-05-01", name="a"), rtc_item(raster, "2020-06-01", name="b", track=None)]
    items += [rtc_item(raster, "2020-07-01", name="c", track=88), pair_item(raster, "2020-05-01", "2020-05-13")]
    # some catalogues write numbers as text and names in capitals
    items[0].properties |= {"sat:relative_orbit": "14", "sat:orbit_state": "DESCENDING"}
    found = write_catalog(items, tmp_path / "catalog", title="some")
    for wanted in (14, "best"):
        one = search(found, REGION, 2020, relative_orbit=wanted, orbit_state="descending")  # type: ignore[arg-type]
        assert ids(one) == ["a"]
        assert one.extra_fields[PROVENANCE]["unknown"] == {"coherence": 1, "opera-s1-rtc": 1}
    with pytest.raises(EmptySearchError, match=r"1 of coherence, 1 of opera-s1-rtc do not say sat:relative_orbit"):
        search(found, REGION, 2020, relative_orbit=99)
    assert search(found, REGION, 2020).extra_fields[PROVENANCE]["unknown"] == {}
