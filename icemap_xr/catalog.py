"""Find scenes: ``search(provider, region, years) -> pystac.ItemCollection``, complete or an error.

A provider is the name of a profile, the URL of a STAC API or static catalogue, a `catalog.json`, or a folder of
rasters.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pystac

from icemap_xr import schema
from icemap_xr.coverage import choose_orbit
from icemap_xr.duplicates import unique
from icemap_xr.errors import AccessError, CatalogUnavailableError, EmptySearchError, InputError
from icemap_xr.footprints import Area, footprint, mend_footprint
from icemap_xr.lineage import scrub as scrub_all
from icemap_xr.providers import PROVENANCE, Provider, Source, known_providers, load_provider
from icemap_xr.scenes import scene_time
from icemap_xr.sentinel1 import product_properties
from icemap_xr.stac_read import Query, read_items
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub
from icemap_xr.web import Patience, Web
from icemap_xr.yearindex import year_bounds

logger = logging.getLogger("icemap_xr")

#: a pair belongs to the year of its middle; a server may file it under one of its dates, so far away at most
_PAIR_REACH = np.timedelta64(60, "D")


def search(
    provider: str | Path,
    region: Any,
    years: int | Iterable[int],
    *,
    features: Sequence[str] | None = None,
    orbit_state: str | None = None,
    relative_orbit: int | Literal["best"] | None = None,
    platforms: Sequence[str] | None = None,
    year_start: str = "01-01",
    profile: str = "local",
    timeout: float = 30.0,
    deadline: float = 600.0,
) -> pystac.ItemCollection:
    """Find the scenes of a region and some years.

    Of an acquisition that was processed again only the newest item is kept; what was dropped is recorded. Addresses of
    assets stay as the catalogue gives them, without signatures: those are made while reading.

    Parameters
    ----------
    provider
        Name of a profile, URL of a STAC API or static catalogue, path of a `catalog.json`, or a folder of rasters that
        `items_from_files` knows.
    region
        (west, south, east, north) in lon/lat (west > east lies over the antimeridian), a geometry in lon/lat, a
        GeoDataFrame or a vector file.
    years
        One year or several; a year is named after the calendar year it starts in.
    features
        Features wanted, of grd, rtc, insar; all that the profile knows by default.
    orbit_state
        ``"ascending"`` or ``"descending"``; both by default.
    relative_orbit
        Relative orbit (track) number, or ``"best"`` for the one that observes the region best in its worst year; all
        by default.
    platforms
        Such as ``["sentinel-1a"]``; all by default.
    year_start
        Month and day on which a year begins.
    profile
        Profile that says what the collections hold, where `provider` is a URL or path: a name or a `.yaml` file.
    timeout
        Seconds to wait for one answer of the catalogue.
    deadline
        Seconds for the whole search, its retries and waits included.

    Returns
    -------
    pystac.ItemCollection
        Items sorted by time, asset links absolute; `extra_fields["icemap:search"]` records the request, what was
        dropped or mended, the orbit chosen, and how many items of a collection were left out because they do not say
        what was asked for (``unknown``).

    Raises
    ------
    CatalogUnavailableError
        The catalogue does not answer, or not completely.
    EmptySearchError
        It answers, and nothing fits.
    AccessError
        An item points to where its profile does not allow, such as a local file.
    InputError
        A parameter or an item cannot be used.
    """
    wanted_years = _years(years)
    known = _provider(str(provider), profile)
    sources = _sources(known, features)
    area = Area.of(region)
    bounds = [year_bounds(year, year_start) for year in wanted_years]
    where = known.url or str(provider)
    track = None if relative_orbit == "best" else relative_orbit
    wanted = _equals(orbit_state, track)
    collections = {source.collection for source in sources}
    pairs = {source.collection for source in sources if schema.feature(source.feature).pair}
    reach = _PAIR_REACH if pairs else np.timedelta64(0, "D")
    query = Query(sorted(collections), area.boxes, (bounds[0][0] - reach, bounds[-1][1] + reach), wanted)
    web = Web(Patience(timeout=timeout, deadline=deadline), known.quotas.limits(known.name))
    items = read_items(where, query, web)
    items = [item for item in items if item.collection_id in collections]
    mended = [_complete(item) for item in items]
    times = {id(item): scene_time(item, pair=item.collection_id in pairs) for item in items}
    found = [item for item in items if _in_years(times[id(item)], bounds) and area.touches(footprint(item))]
    chosen = [item for item in found if _has(item, wanted, platforms)]
    asked = [*wanted, *(["platform"] if platforms else []), *(["sat:relative_orbit"] * (relative_orbit == "best"))]
    unknown = Counter(str(item.collection_id) for item in found if _lacks(item, asked))
    chosen, dropped = unique(chosen, sources)
    best = None
    if relative_orbit == "best" and chosen:
        best = choose_orbit(chosen, sources, area, wanted_years, year_start)
        chosen = [item for item in chosen if best.holds(item)]
    if not chosen:
        raise EmptySearchError(
            f"{scrub(where)} has no scene of {', '.join(sorted(collections))} in {_boxes(area)} for "
            f"{_span(wanted_years)}{_unknown(unknown, asked)}: check region, years and filters"
        )
    chosen.sort(key=lambda item: (times[id(item)], item.id))
    for item in chosen:
        _make_absolute(item)
        _check_addresses(item, sources, known, local="://" not in where)
    if dropped:
        logger.info("left out %d items of acquisitions that were processed again", len(dropped))
    provenance = {
        "provider": known.name,
        "url": scrub(where),
        "bounds": list(area.lonlat.bounds),
        "years": list(wanted_years),
        "year_start": year_start,
        "orbit_state": orbit_state,
        "relative_orbit": relative_orbit,
        "platforms": list(platforms) if platforms else None,
        "searched": datetime.now(UTC).isoformat(timespec="seconds"),
        "sources": known.to_dict()["sources"],
        "dropped": dropped,
        "mended": [note for note in mended if note],
        "unknown": dict(sorted(unknown.items())),
    }
    if best is not None:
        provenance["chosen_orbit"] = best.to_dict()
    return pystac.ItemCollection(chosen, extra_fields={PROVENANCE: provenance})


def save_items(items: pystac.ItemCollection, path: StrPath) -> None:
    """Write items to a JSON file that holds no signatures or credentials; `load_items` reads it.

    Parameters
    ----------
    items
        What `search` returned. Addresses lose their query (signatures), user and password; entries whose names say
        that they are secret are left out.
    path
        File to write; it appears whole.
    """
    from icemap_xr.folders import write_text

    slim = items.clone()
    for item in slim:
        item.clear_links()
    write_text(Path(path), json.dumps(scrub_all(slim.to_dict()), indent=1))


def load_items(path: StrPath) -> pystac.ItemCollection:
    """Read items that `save_items` or `icemap search --output` wrote.

    Raises
    ------
    InputError
        The file cannot be read as items.
    """
    try:
        return pystac.ItemCollection.from_file(str(path))
    except (OSError, ValueError, KeyError, TypeError, pystac.errors.STACError) as error:
        raise InputError(
            f"{path} cannot be read as items ({type(error).__name__}): write it with icemap search --output"
        ) from None


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
    if name.endswith((".yaml", ".yml")) and Path(name).exists():
        found = load_provider(name)
        if found.url is None:
            raise InputError(f"profile {name!r} has no url: give it as profile= beside a URL or path")
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


def _complete(item: pystac.Item) -> str | None:
    """Give an item what its product's name tells and its properties do not; returns what was mended, if anything."""
    for name, value in product_properties(item.id).items():
        if item.properties.get(name) is None:
            item.properties[name] = value
    for name in ("platform", "sat:orbit_state"):
        if item.properties.get(name):
            item.properties[name] = str(item.properties[name]).lower()
    for name in ("sat:relative_orbit", "sat:absolute_orbit"):
        # some catalogues write numbers as text, and 14 is not "14"
        if str(item.properties.get(name)).isdigit():
            item.properties[name] = int(item.properties[name])
    return mend_footprint(item)


def _make_absolute(item: pystac.Item) -> None:
    try:
        item.make_asset_hrefs_absolute()
    except pystac.errors.STACError:
        raise AccessError(
            f"item {item.id!r} has relative addresses of assets and none of its own: mend the catalogue"
        ) from None


def _check_addresses(item: pystac.Item, sources: Sequence[Source], provider: Provider, *, local: bool) -> None:
    keys = {key for s in sources if s.collection == item.collection_id for key in s.assets.values()}
    for key in keys & set(item.assets):
        provider.access.check(item.assets[key].href, local=local, what=f"item {item.id!r}, asset {key!r}")


def _equals(orbit_state: str | None, relative_orbit: int | None) -> dict[str, Any]:
    if orbit_state not in (None, "ascending", "descending"):
        raise InputError(f"orbit_state={orbit_state!r} is not allowed: choose 'ascending' or 'descending'")
    if relative_orbit is not None and not (isinstance(relative_orbit, int) and 1 <= relative_orbit <= 175):
        raise InputError(f"relative_orbit={relative_orbit!r} is not allowed: give 1 to 175, or 'best'")
    both = {"sat:orbit_state": orbit_state, "sat:relative_orbit": relative_orbit}
    return {name: value for name, value in both.items() if value is not None}


def _has(item: pystac.Item, wanted: dict[str, Any], platforms: Sequence[str] | None) -> bool:
    properties = item.properties
    if any(properties.get(name) != value for name, value in wanted.items()):
        return False
    return not platforms or str(properties.get("platform", "")).lower() in {name.lower() for name in platforms}


def _lacks(item: pystac.Item, asked: Sequence[str]) -> bool:
    """Whether an item was left out because it does not say what was asked for; it may be what was wanted."""
    return any(item.properties.get(name) is None for name in asked)


def _unknown(found: Mapping[str, int], asked: Sequence[str]) -> str:
    """Return a part of a sentence about items that do not say what was asked for."""
    if not found:
        return ""
    counts = ", ".join(f"{count} of {name}" for name, count in found.items())
    return f" ({counts} do not say {' and '.join(dict.fromkeys(asked))})"


def _in_years(time: np.datetime64, bounds: Sequence[tuple[np.datetime64, np.datetime64]]) -> bool:
    return any(start <= time < end for start, end in bounds)


def _boxes(area: Area) -> str:
    return " and ".join("(" + ", ".join(f"{value:.3f}" for value in box) + ")" for box in area.boxes)


def _span(years: Sequence[int]) -> str:
    return str(years[0]) if len(years) == 1 else f"{years[0]}-{years[-1]}"
