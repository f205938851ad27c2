"""Find scenes: ``search(provider, region, years) -> pystac.ItemCollection``, complete or an error.

A provider is the name of a profile, the URL of a STAC API or static catalogue, a `catalog.json`, or a folder of
rasters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import requests
from shapely.geometry import shape
from shapely.geometry.base import BaseGeometry

from icemap_xr import schema
from icemap_xr.errors import CatalogUnavailableError, EmptySearchError, InputError
from icemap_xr.providers import PROVENANCE, Provider, Source, known_providers, load_provider
from icemap_xr.stac_items import items_from_files
from icemap_xr.urls import scrub
from icemap_xr.vectors import union_in_crs
from icemap_xr.yearindex import year_bounds


def search(
    provider: str | Path,
    region: Any,
    years: int | Iterable[int],
    *,
    features: Sequence[str] | None = None,
    orbit_state: str | None = None,
    relative_orbit: int | None = None,
    platforms: Sequence[str] | None = None,
    year_start: str = "01-01",
    profile: str = "local",
    timeout: float = 30.0,
) -> pystac.ItemCollection:
    """Find the scenes of a region and some years.

    Parameters
    ----------
    provider
        Name of a profile, URL of a STAC API or static catalogue, path of a `catalog.json`, or a folder of rasters that
        `items_from_files` knows.
    region
        (west, south, east, north) in lon/lat, a geometry in lon/lat, a GeoDataFrame or a vector file.
    years
        One year or several; a year is named after the calendar year it starts in.
    features
        Features wanted, of grd, rtc, insar; all that the profile knows by default.
    orbit_state
        ``"ascending"`` or ``"descending"``; both by default.
    relative_orbit
        Relative orbit (track) number; all by default.
    platforms
        Such as ``["sentinel-1a"]``; all by default.
    year_start
        Month and day on which a year begins.
    profile
        Profile that says what the collections hold, where `provider` is a URL or path.
    timeout
        Seconds to wait for an answer of the catalogue.

    Returns
    -------
    pystac.ItemCollection
        Items sorted by time, asset links absolute; `extra_fields["icemap:search"]` records the request.

    Raises
    ------
    CatalogUnavailableError
        The catalogue does not answer.
    EmptySearchError
        It answers, and nothing fits.
    InputError
        A parameter cannot be used.
    """
    wanted_years = _years(years)
    known = _provider(str(provider), profile)
    sources = _sources(known, features)
    area = union_in_crs(region, "EPSG:4326")
    start, end = year_bounds(wanted_years[0], year_start)[0], year_bounds(wanted_years[-1], year_start)[1]
    where = known.url or str(provider)
    items = _fetch(where, sources, area.bounds, (start, end), _equals(orbit_state, relative_orbit), timeout)
    bounds = [year_bounds(year, year_start) for year in wanted_years]
    chosen = [
        item
        for item in items
        if _in_years(item, bounds)
        and _footprint(item).intersects(area)
        and _has(item, orbit_state, relative_orbit, platforms)
        and item.collection_id in {source.collection for source in sources}
    ]
    if not chosen:
        raise EmptySearchError(
            f"{scrub(where)} has no scene of {', '.join(sorted({s.collection for s in sources}))} in "
            f"{_box(area.bounds)} for {_span(wanted_years)}: check region, years and filters"
        )
    chosen.sort(key=lambda item: (_time(item), item.id))
    for item in chosen:
        item.make_asset_hrefs_absolute()
    provenance = {
        "provider": known.name,
        "url": scrub(where),
        "bounds": list(area.bounds),
        "years": list(wanted_years),
        "year_start": year_start,
        "orbit_state": orbit_state,
        "relative_orbit": relative_orbit,
        "platforms": list(platforms) if platforms else None,
        "searched": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": known.to_dict()["sources"],
    }
    return pystac.ItemCollection(chosen, extra_fields={PROVENANCE: provenance})


def _years(years: int | Iterable[int]) -> tuple[int, ...]:
    found = tuple(sorted({years} if isinstance(years, int | np.integer) else {int(year) for year in years}))
    if not found:
        raise InputError("years is empty: give at least one year")
    if found[0] < 2014:
        raise InputError(f"year {found[0]} is before Sentinel-1: give years from 2014 on")
    return tuple(int(year) for year in found)


def _provider(name: str, profile: str) -> Provider:
    if name in known_providers():
        found = known_providers()[name]
        if found.url is None:
            raise InputError(f"provider {name!r} has no address of its own: give a URL, a catalog.json or a folder")
        return found
    if "://" in name or Path(name).exists():
        return load_provider(profile)
    if "/" in name or name.endswith(".json"):
        raise CatalogUnavailableError(f"{name} does not exist: give a URL, a catalog.json or a folder of rasters")
    return load_provider(name)


def _sources(provider: Provider, features: Sequence[str] | None) -> tuple[Source, ...]:
    for name in features or ():
        schema.feature(name)
    found = tuple(source for source in provider.sources if features is None or source.feature in features)
    if not found:
        raise InputError(f"provider {provider.name!r} has no {', '.join(features or ())}")
    return found


def _fetch(
    where: str,
    sources: Sequence[Source],
    bounds: tuple[float, ...],
    interval: tuple[np.datetime64, np.datetime64],
    equals: dict[str, Any],
    timeout: float,
) -> list[pystac.Item]:
    """Return candidate items; the caller filters again, so a server may filter or not."""
    if "://" not in where:
        path = Path(where)
        if path.is_dir() and not (path / "catalog.json").exists():
            return list(items_from_files(path))
        return _walk(str(path / "catalog.json" if path.is_dir() else path))
    try:
        answer = requests.get(where, timeout=timeout, headers={"Accept": "application/json"})
        answer.raise_for_status()
        landing = answer.json()
    except (requests.RequestException, json.JSONDecodeError) as error:
        raise _unavailable(where, error) from None
    if not isinstance(landing, dict):
        raise CatalogUnavailableError(f"{scrub(where)} is no STAC catalogue: give a catalogue, a collection or items")
    if not any("item-search" in str(uri) for uri in landing.get("conformsTo") or ()):
        return _walk(where)
    return _api_search(where, sources, bounds, interval, equals, timeout)


def _api_search(
    where: str,
    sources: Sequence[Source],
    bounds: tuple[float, ...],
    interval: tuple[np.datetime64, np.datetime64],
    equals: dict[str, Any],
    timeout: float,
) -> list[pystac.Item]:
    # takes a second to import, which only a search should pay
    from pystac_client import Client
    from pystac_client.exceptions import APIError
    from pystac_client.stac_api_io import StacApiIO

    start, end = (np.datetime_as_string(moment, unit="s") + "Z" for moment in interval)
    try:
        client = Client.open(where, stac_io=StacApiIO(max_retries=3, timeout=timeout))
        # where a server does not filter by properties, pystac-client would get nothing, silently
        query = {name: {"eq": value} for name, value in equals.items()} if client.conforms_to("QUERY") else {}
        found = client.search(
            collections=sorted({source.collection for source in sources}),
            bbox=bounds,
            datetime=f"{start}/{end}",
            limit=200,
            query=query or None,
        )
        return list(found.items())
    except (APIError, requests.RequestException) as error:
        raise _unavailable(where, error) from None


def _walk(href: str) -> list[pystac.Item]:
    """Return all items of a static catalogue, a collection, a saved search or a single item."""
    try:
        content = pystac.StacIO.default().read_json(href)
        if content.get("type") == "FeatureCollection":
            return list(pystac.ItemCollection.from_dict(content))
        found = pystac.read_file(href)
        if isinstance(found, pystac.Catalog):
            return list(found.get_items(recursive=True))
    except Exception as error:  # pystac raises bare Exception for an unreachable address
        raise _unavailable(href, error) from None
    if isinstance(found, pystac.Item):
        return [found]
    raise CatalogUnavailableError(f"{scrub(href)} is no STAC catalogue: give a catalogue, a collection or items")


def _unavailable(where: str, error: Exception) -> CatalogUnavailableError:
    status = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "status_code", None)
    cause = f"status {status}" if status else type(error).__name__
    return CatalogUnavailableError(
        f"{scrub(where)} does not answer as a STAC catalogue ({cause}): check the address and the network, or try later"
    )


def _equals(orbit_state: str | None, relative_orbit: int | None) -> dict[str, Any]:
    if orbit_state not in (None, "ascending", "descending"):
        raise InputError(f"orbit_state={orbit_state!r} is not allowed: choose 'ascending' or 'descending'")
    both = {"sat:orbit_state": orbit_state, "sat:relative_orbit": relative_orbit}
    return {name: value for name, value in both.items() if value is not None}


def _has(
    item: pystac.Item, orbit_state: str | None, relative_orbit: int | None, platforms: Sequence[str] | None
) -> bool:
    properties = item.properties
    wanted = _equals(orbit_state, relative_orbit)
    if any(properties.get(name) != value for name, value in wanted.items()):
        return False
    return not platforms or str(properties.get("platform", "")).lower() in {name.lower() for name in platforms}


def _time(item: pystac.Item) -> np.datetime64:
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        raise InputError(f"item {item.id!r} has neither datetime nor start_datetime: mend the catalogue")
    return np.datetime64(moment.astimezone(UTC).replace(tzinfo=None), "ns")


def _footprint(item: pystac.Item) -> BaseGeometry:
    if item.geometry is None:
        raise InputError(f"item {item.id!r} has no geometry: mend the catalogue")
    return shape(item.geometry)


def _in_years(item: pystac.Item, bounds: Sequence[tuple[np.datetime64, np.datetime64]]) -> bool:
    time = _time(item)
    return any(start <= time < end for start, end in bounds)


def _box(bounds: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in bounds) + ")"


def _span(years: Sequence[int]) -> str:
    return str(years[0]) if len(years) == 1 else f"{years[0]}-{years[-1]}"
