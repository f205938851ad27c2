"""Read items from a STAC API, a static catalogue, a saved search or a folder: all of them, or an error.

Every answer comes through `icemap_xr.web`, so static catalogues have the same time-outs, retries and deadline as APIs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import numpy as np
import pystac
import requests

from icemap_xr.errors import CatalogUnavailableError
from icemap_xr.stac_items import items_from_files
from icemap_xr.urls import scrub
from icemap_xr.web import Web

#: a server that says how many items match is held to it up to here; beyond, some only estimate
_EXACT = 10_000
_PAGE = 200


@dataclass(frozen=True)
class Query:
    """What a server may filter by; the caller filters again, so it may do so or not.

    Parameters
    ----------
    collections
        Collection ids.
    boxes
        Boxes (west, south, east, north); each is a search of its own.
    interval
        First moment, and the first one after.
    equals
        Properties that must have a value.
    """

    collections: Sequence[str]
    boxes: Sequence[tuple[float, float, float, float]]
    interval: tuple[np.datetime64, np.datetime64]
    equals: Mapping[str, Any] = field(default_factory=dict)


def read_items(where: str, query: Query, web: Web) -> list[pystac.Item]:
    """Return candidate items.

    Parameters
    ----------
    where
        URL or path.
    query
        What a server may filter by.
    web
        How long to wait.

    Raises
    ------
    CatalogUnavailableError
        The catalogue or a part of it does not answer in time, or what answers is none.
    """
    if "://" not in where:
        path = Path(where)
        if path.is_dir() and not (path / "catalog.json").exists():
            return list(items_from_files(path))
        return list(_walk(str(path / "catalog.json" if path.is_dir() else path), web))
    landing = _json(where, web)
    if not any("item-search" in str(uri) for uri in landing.get("conformsTo") or ()):
        return list(_walk(where, web))
    return _api_search(where, query, web)


def _api_search(where: str, query: Query, web: Web) -> list[pystac.Item]:
    # takes a second to import, which only a search should pay
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    class PatientIO(StacApiIO):
        """pystac-client's requests, sent through `Web`."""

        def request(self, href: str, method: Any = None, headers: Any = None, parameters: Any = None) -> str:
            body = (method or "GET").upper() in ("POST", "PUT", "PATCH")
            content = {"json": parameters} if body else {"params": parameters}
            request = requests.Request((method or "GET").upper(), href, headers=headers, **content)
            # another try may bring JSON where a proxy sent a page of HTML
            text: str = web.send(request, lambda answer: json.dumps(json.loads(answer)))
            return text

    start, end = (np.datetime_as_string(moment, unit="s") + "Z" for moment in query.interval)
    found: list[pystac.Item] = []
    try:
        client = Client.open(where, stac_io=PatientIO(max_retries=None))
        # where a server does not filter by properties, pystac-client would get nothing, silently
        equals = {name: {"eq": value} for name, value in query.equals.items()} if client.conforms_to("QUERY") else {}
        offered = {str(link.extra_fields.get("method") or "GET").upper() for link in client.get_links("search")}
        method = "GET" if offered == {"GET"} else "POST"
        for box in query.boxes:
            search = client.search(
                collections=sorted(query.collections),
                bbox=box,
                datetime=f"{start}/{end}",
                limit=_PAGE,
                query=equals if equals and method == "POST" else None,
                method=method,
            )
            pages = search.pages_as_dicts()
            found += [pystac.Item.from_dict(content) for content in _all_features(pages, where, web)]
    except (APIError, pystac.errors.STACError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unavailable(where, error) from None
    return found


def _all_features(pages: Iterator[dict[str, Any]], where: str, web: Web) -> Iterator[dict[str, Any]]:
    """Return the features of all pages; a page that repeats, or a count that does not fit, is an error."""
    matched, seen = None, set()
    known: set[tuple[Any, str]] = set()
    for page in pages:
        features = page["features"]
        matched = page.get("numberMatched", (page.get("context") or {}).get("matched")) if matched is None else matched
        identity = tuple((one.get("collection"), one["id"]) for one in features)
        if features and identity in seen:
            raise CatalogUnavailableError(
                f"{scrub(where)} sends the same page again and again: the search cannot be completed; tell its keeper"
            )
        seen.add(identity)
        # an item that a second page repeats is no second item: another one may have slipped between the pages
        known.update(identity)
        yield from features
        if web.deadline.left <= 0:
            raise CatalogUnavailableError(
                f"{scrub(where)} did not send all pages within {web.patience.deadline:g} s ({len(known)} items so "
                "far): search fewer years, or give more time with deadline="
            )
    if isinstance(matched, int) and len(known) < matched <= _EXACT:
        raise CatalogUnavailableError(
            f"{scrub(where)} says that {matched} items match and sent {len(known)}: the search is not complete; try "
            "later"
        )


def _walk(href: str, web: Web) -> Iterator[pystac.Item]:
    """Return all items of a static catalogue, a collection, a saved search or a single item; no link is left out."""
    root, waiting, seen = href, [href], set()
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        content = _json(here, web, root)
        kind = content.get("type")
        try:
            if kind == "FeatureCollection":
                yield from (pystac.Item.from_dict(one) for one in content["features"])
            elif kind == "Feature":
                yield pystac.Item.from_dict(content, href=here)
            elif kind in ("Catalog", "Collection"):
                links = [link["href"] for link in content.get("links", ()) if link["rel"] in ("child", "item", "items")]
                waiting += [_target(here, link, root) for link in reversed(links)]
            else:
                raise ValueError(f"type {kind!r}")
        except (pystac.errors.STACError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _unavailable(here, error) from None


def _target(here: str, link: str, root: str) -> str:
    """Return where a link leads; from the network only to the network."""
    if "://" in here or "://" in link:
        target = urljoin(here, link)
        if urlsplit(target).scheme not in ("http", "https"):
            raise ValueError(f"a link to {scrub(link)}")
        return target
    if "://" in root:
        raise ValueError(f"a link to {link}")
    return str((Path(here).parent / link).resolve())


def _json(href: str, web: Web, root: str | None = None) -> dict[str, Any]:
    try:
        if "://" in href:
            request = requests.Request("GET", href, headers={"Accept": "application/json, application/geo+json"})
            content = web.send(request, json.loads)
        else:
            content = json.loads(Path(href).read_text())
    except CatalogUnavailableError as error:
        if root is None or root == href:
            raise
        raise CatalogUnavailableError(f"{scrub(root)} is not complete: {error}") from None
    except (OSError, ValueError) as error:
        part = "" if root is None or root == href else f" (a part of {scrub(root)})"
        raise _unavailable(href, error, part) from None
    if not isinstance(content, dict):
        raise CatalogUnavailableError(f"{scrub(href)} is no STAC catalogue: give a catalogue, a collection or items")
    return content


def _unavailable(where: str, error: Exception, part: str = "") -> CatalogUnavailableError:
    return CatalogUnavailableError(
        f"{scrub(where)}{part} does not answer as a STAC catalogue ({type(error).__name__}: "
        f"{scrub(' '.join(str(error).split()))[:200]}): check the address, or tell its keeper"
    )
