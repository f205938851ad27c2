"""Searches over servers that page, refuse, stall, cut short and repeat: complete within a deadline, or an error."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac
import pytest
from shapely.geometry import box, mapping

from icemap_xr.catalog import load_items, save_items, search
from icemap_xr.coverage import coverage, coverage_figure
from icemap_xr.errors import CatalogUnavailableError, EmptySearchError, InputError
from icemap_xr.providers import PROVENANCE
from icemap_xr.testing import servers
from icemap_xr.web import retry_after

CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
REGION = (15.0, 78.0, 15.5, 78.2)

Answer = tuple[int, dict[str, str], bytes]


def item(
    name: str, day: str, bounds: tuple[float, float, float, float] = (14.0, 77.5, 16.5, 78.5), **properties: Any
) -> dict[str, Any]:
    """An item of the `local` profile's collection."""
    given = {"platform": "sentinel-1a", "sat:relative_orbit": 14, "sat:orbit_state": "descending"}
    time = datetime.fromisoformat(f"{day}T06:00:00+00:00")
    made = pystac.Item(name, mapping(box(*bounds)), list(bounds), time, given | properties)
    made.add_asset("HH", pystac.Asset("https://data.example.org/a.tif", roles=["data"]))
    return made.to_dict() | {"collection": "opera-s1-rtc"}


class Api:
    """A STAC API that pages by token, with a hook before each answer of the search."""

    def __init__(self, items: list[dict[str, Any]], page: int = 3) -> None:
        self.items, self.page = items, page
        self.searches: list[dict[str, Any]] = []
        self.hook: Callable[[int, dict[str, Any]], Answer | None] = lambda count, body: None
        self.address = ""
        self.matched: int | None = None

    def landing(self) -> dict[str, Any]:
        links = [
            {"rel": "self", "href": self.address},
            {"rel": "root", "href": self.address},
            {"rel": "search", "href": f"{self.address}/search", "method": "POST", "type": "application/geo+json"},
            {"rel": "data", "href": f"{self.address}/collections"},
        ]
        kind = {"type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "api"}
        return kind | {"conformsTo": CONFORMS, "links": links}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        start = int(body.get("token", 0))
        links = []
        if start + self.page < len(self.items):
            next_body = {**body, "token": str(start + self.page)}
            links = [{"rel": "next", "href": f"{self.address}/search", "method": "POST", "body": next_body}]
        found: dict[str, Any] = {"type": "FeatureCollection", "links": links}
        if self.matched is not None:
            found["numberMatched"] = self.matched
        return found | {"features": self.items[start : start + self.page]}


@contextmanager
def serve(api: Api) -> Iterator[str]:
    class Answers(servers.Handler):
        def answer(self) -> None:
            odd: Answer | None = None
            if self.command == "GET":
                found = api.landing()
            else:
                body = json.loads(self.body())
                api.searches.append(body)
                odd = api.hook(len(api.searches), body)
                found = api.answer(body)
            status, headers, content = odd or (200, {}, json.dumps(found).encode())
            self.send(status, content, {"Content-Type": "application/json", **headers})

    with servers.serve(Answers) as api.address:
        yield api.address


def many(count: int) -> list[dict[str, Any]]:
    return [
        item(f"i{n:02d}", f"2020-{n % 12 + 1:02d}-{n // 12 + 1:02d}", **{"sat:absolute_orbit": 1000 + n})
        for n in range(count)
    ]


def ids(found: pystac.ItemCollection) -> list[str]:
    return sorted(one.id for one in found)


def test_all_pages_are_read() -> None:
    api = Api(many(10))
    with serve(api) as address:
        assert ids(search(address, REGION, 2020)) == [f"i{n:02d}" for n in range(10)]
    assert len(api.searches) == 4


TOO_MANY: Answer = (429, {"Retry-After": "0.2"}, json.dumps({"message": "slow down"}).encode())


@pytest.mark.parametrize(
    "odd",
    [
        TOO_MANY,
        (503, {}, b"busy"),
        (500, {}, b"{}"),
        (200, {}, b"<html>please sign in</html>"),
        (200, {"Content-Length": "500"}, b'{"type": '),
    ],
    ids=["429", "503", "500", "html", "cut"],
)
def test_a_page_that_fails_once_is_asked_for_again(odd: Answer) -> None:
    api = Api(many(7))
    api.hook = lambda count, body: odd if count == 2 else None
    with serve(api) as address:
        assert len(search(address, REGION, 2020, timeout=1.0)) == 7


def test_what_the_server_asks_for_is_waited_and_no_longer_than_the_deadline() -> None:
    api = Api(many(7))
    api.hook = lambda count, body: (429, {"Retry-After": "3600"}, b"{}")
    begin = time.monotonic()
    with serve(api) as address, pytest.raises(CatalogUnavailableError, match="status 429"):
        search(address, REGION, 2020, deadline=5.0)
    assert time.monotonic() - begin < 5.0
    assert len(api.searches) == 1
    assert retry_after("120") == 120
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("soon") is None


@pytest.mark.parametrize(
    ("odd", "match"),
    [
        ((503, {}, b"{}"), "status 503"),
        ((400, {}, b"{}"), "status 400"),
        ((200, {}, b"[]"), "AttributeError|TypeError"),
    ],
)
def test_a_search_that_keeps_failing_is_an_error_within_the_deadline(odd: Answer, match: str) -> None:
    api = Api(many(7))
    api.hook = lambda count, body: odd if count >= 2 else None
    with serve(api) as address, pytest.raises(CatalogUnavailableError, match=match) as caught:
        search(address, REGION, 2020, deadline=3.0)
    assert "\n" not in str(caught.value)


def test_pages_that_repeat_or_do_not_end_are_an_error() -> None:
    api = Api(many(7))

    def again(count: int, body: dict[str, Any]) -> Answer:
        return 200, {}, json.dumps(api.answer({**body, "token": "0"})).encode()

    api.hook = again
    with serve(api) as address, pytest.raises(CatalogUnavailableError, match="same page again"):
        search(address, REGION, 2020)


def test_fewer_items_than_promised_are_an_error() -> None:
    api = Api(many(7))
    api.matched = 9
    with serve(api) as address, pytest.raises(CatalogUnavailableError, match="9 items match and sent 7"):
        search(address, REGION, 2020)
    api.matched = 7
    with serve(api) as address:
        assert len(search(address, REGION, 2020)) == 7
    # between two pages the order changed: one item comes twice and another never
    api.items[6] = api.items[0]
    with serve(api) as address, pytest.raises(CatalogUnavailableError, match="7 items match and sent 6"):
        search(address, REGION, 2020)


def test_a_region_over_the_antimeridian_is_two_searches_and_one_answer() -> None:
    items = [
        item("west", "2020-01-01", (178.0, 70.0, 179.9, 72.0), **{"sat:absolute_orbit": 1}),
        item("east", "2020-01-13", (-179.9, 70.0, -178.0, 72.0), **{"sat:absolute_orbit": 2}),
        item("far", "2020-01-25", (-10.0, 70.0, 10.0, 72.0), **{"sat:absolute_orbit": 3}),
    ]
    across = item("across", "2020-02-06", **{"sat:absolute_orbit": 4})
    ring = [[178.5, 70.5], [-178.5, 70.5], [-178.5, 71.5], [178.5, 71.5], [178.5, 70.5]]
    across["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    beyond = item("beyond", "2020-02-18", (179.0, 70.5, 183.0, 71.5), **{"sat:absolute_orbit": 5})
    api = Api([*items, across, beyond], page=10)
    with serve(api) as address:
        found = search(address, (179.0, 70.0, -179.0, 72.0), 2020)
    assert ids(found) == ["across", "beyond", "east", "west"]
    assert [body["bbox"] for body in api.searches] == [[179.0, 70.0, 180.0, 72.0], [-180.0, 70.0, -179.0, 72.0]]
    # what spans 178.5 to -178.5 the short way is not beside Greenwich
    with serve(Api([across])) as address, pytest.raises(EmptySearchError):
        search(address, (-5.0, 70.0, 5.0, 72.0), 2020)


def test_near_the_pole_footprints_are_compared_on_a_plane() -> None:
    over = item("over", "2020-01-01")
    ring = [[0.0, 86.0], [90.0, 86.0], [180.0, 86.0], [-90.0, 86.0], [0.0, 86.0]]
    over["geometry"] = {"type": "Polygon", "coordinates": [ring]}
    beside = item("beside", "2020-01-13", (100.0, 84.5, 140.0, 86.0))
    with serve(Api([over, beside])) as address:
        assert ids(search(address, (-40.0, 88.0, -20.0, 89.0), 2020)) == ["over"]


def test_items_in_metres_are_mended_by_their_own_crs(data: Path) -> None:
    """Real items whose bbox and geometry are in UTM metres."""
    folder = data / "stac" / "planetary_computer_tasks" / "s1-rtc_raw_pipeline_items"
    raw = [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]
    assert raw
    for one in raw:
        assert max(map(abs, one["bbox"])) > 1000
        one["collection"] = "opera-s1-rtc"
        one["assets"] = {"HH": {"href": "https://data.example.org/a.tif"}}
    with serve(Api(raw, page=100)) as address:
        # over Baffin Bay, in the zone of EPSG:32620
        found = search(address, (-66.0, 69.0, -62.0, 72.0), 2019)
    assert len(found) == 3
    for one in found:
        west, south, east, north = one.bbox or ()
        assert -75 < west < east < -55
        assert 65 < south < north < 75
    assert len(found.extra_fields[PROVENANCE]["mended"]) == len(raw)
    bad = [dict(raw[0], properties={k: v for k, v in raw[0]["properties"].items() if not k.startswith("proj:")})]
    with serve(Api(bad)) as address, pytest.raises(InputError, match="neither in degrees"):
        search(address, (-66.0, 69.0, -62.0, 72.0), 2019)


def test_of_an_acquisition_the_newest_processing_is_kept_and_the_rest_recorded() -> None:
    name = "S1A_IW_GRDH_1SDH_20200105T055038_20200105T055103_030658_038366"
    first = item(f"{name}_AAAA", "2020-01-05", **{"processing:datetime": "2020-01-05T09:00:00Z"})
    again = item(f"{name}_0000", "2020-01-05", **{"processing:datetime": "2023-06-01T09:00:00Z"})
    other_slice = item(f"{name.replace('055038', '055103')}_BBBB", "2020-01-05")
    other_unit = item(f"{name.replace('S1A', 'S1B')}_AAAA", "2020-01-05", platform="SENTINEL-1B")
    elsewhere = item(f"{name}_CCCC", "2020-01-05", (15.2, 60.0, 16.0, 78.15))
    for one in (first, again, other_slice, other_unit, elsewhere):
        one["properties"].pop("datetime")
        one["properties"]["datetime"] = None
        one["properties"]["start_datetime"] = "2020-01-05T05:50:38.1Z"
        one["properties"]["end_datetime"] = "2020-01-05T05:51:03Z"
    other_slice["properties"]["start_datetime"] = "2020-01-05T05:51:03.1Z"
    with serve(Api([first, again, again, other_slice, other_unit, elsewhere], page=10)) as address:
        found = search(address, REGION, 2020)
    assert f"{name}_AAAA" not in ids(found)
    assert ids(found) == sorted([again["id"], other_slice["id"], other_unit["id"], elsewhere["id"]])
    (dropped,) = found.extra_fields[PROVENANCE]["dropped"]
    assert (dropped["kept"], dropped["dropped"]) == (again["id"], first["id"])
    assert dropped["because"] == "processed 20230601090000 after 20200105090000"


def test_the_best_orbit_is_the_one_that_sees_the_region_in_its_worst_year(tmp_path: Path) -> None:
    inside, half = (14.0, 77.5, 16.5, 78.5), (14.0, 77.5, 15.25, 78.5)

    def pass_(name: str, day: str, track: int, state: str, where: Any, orbit: int) -> dict[str, Any]:
        extra = {"sat:relative_orbit": track, "sat:orbit_state": state, "sat:absolute_orbit": orbit}
        return item(name, day, where, **extra)

    items = [
        pass_(f"a{y}{m}", f"{y}-{m:02d}-01", 14, "descending", inside, y * 100 + m)
        for y in (2020, 2021)
        for m in range(1, 6)
    ]
    # more scenes, of half the region
    items += [
        pass_(f"b{y}{m}", f"{y}-{m:02d}-02", 88, "ascending", half, y * 200 + m)
        for y in (2020, 2021)
        for m in range(1, 8)
    ]
    # more scenes in one year, none in the other
    items += [pass_(f"c{m}", f"2020-{m:02d}-03", 60, "descending", inside, 900 + m) for m in range(1, 13)]
    with serve(Api(items, page=100)) as address:
        found = search(address, REGION, [2020, 2021], relative_orbit="best")
    chosen = found.extra_fields[PROVENANCE]["chosen_orbit"]
    assert (chosen["relative_orbit"], chosen["orbit_state"], chosen["score"]) == (14, "descending", 5.0)
    assert chosen["others"]["60 descending"] == 0
    assert chosen["others"]["88 ascending"] == pytest.approx(3.5, abs=0.1)
    assert len(found) == 10
    rows = coverage(found, REGION)
    assert [(row.year, row.scenes, round(row.share, 3)) for row in rows] == [(2020, 5, 1.0), (2021, 5, 1.0)]
    assert rows[0].longest_gap_days == pytest.approx(245, abs=1)
    assert coverage_figure(found, rows).axes[0].lines
    save_items(found, tmp_path / "items.json")
    assert ids(load_items(tmp_path / "items.json")) == ids(found)


def test_a_year_without_a_scene_has_a_row() -> None:
    with serve(Api([item("a", "2020-05-01"), item("b", "2022-05-01")])) as address:
        found = search(address, REGION, [2020, 2021, 2022])
    rows = coverage(found)
    assert [(row.year, row.scenes) for row in rows] == [(2020, 1), (2021, 0), (2022, 1)]
    assert rows[1].longest_gap_days == 365


def test_a_static_catalogue_in_a_circle_ends(tmp_path: Path) -> None:
    from icemap_xr.testing.faults import Fault, serve_faults

    head = {"type": "Catalog", "id": "c", "description": "c", "stac_version": "1.0.0"}
    links = {"a": ["b.json"], "b": ["a.json", "item.json"]}
    for name, targets in links.items():
        content = head | {"links": [{"rel": "child" if "item" not in t else "item", "href": t} for t in targets]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    (tmp_path / "item.json").write_text(json.dumps(item("one", "2020-05-01")))
    assert ids(search(tmp_path / "a.json", REGION, 2020)) == ["one"]
    faults = {"flaky": Fault("status", 1, status=503), "stalled": Fault("stall")}
    with serve_faults(tmp_path, faults) as server:
        assert ids(search(server.url("flaky", "a.json"), REGION, 2020)) == ["one"]
        begin = time.monotonic()
        with pytest.raises(CatalogUnavailableError, match=r"stalled/a\.json"):
            search(server.url("stalled", "a.json"), REGION, 2020, timeout=0.3, deadline=2.0)
        assert time.monotonic() - begin < 10


def test_filters_reach_a_server_that_can_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.CONFORMS", [*CONFORMS, "https://api.stacspec.org/v1.0.0/item-search#query"])
    api = Api(many(3))
    with serve(api) as address:
        search(address, REGION, 2020, relative_orbit=14)
    assert api.searches[0]["query"] == {"sat:relative_orbit": {"eq": 14}}
