"""One acquisition, one item: what was processed again, or is offered twice, counts once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pystac
import shapely
from shapely.geometry import shape

from icemap_xr.providers import Source

#: where items say when they were processed, best first
_PROCESSED = ("processing:datetime", "s1:processing_datetime", "published", "updated", "created")
_IN_NAME = re.compile(r"_\d{8}T\d{6}Z?_(\d{8}T\d{6}Z?)_S1[ABCD]")
#: two items of one moment are one acquisition if their footprints share this much of the smaller one
_SAME_PLACE = 0.5


def unique(items: Iterable[pystac.Item], sources: Sequence[Source]) -> tuple[list[pystac.Item], list[dict[str, str]]]:
    """Keep one item of each acquisition and feature: the one that was processed last.

    An acquisition is a platform, an absolute orbit, a start, a slice or burst and a place; a pair has both dates.

    Parameters
    ----------
    items
        Items, also of several collections or searches.
    sources
        Which collection holds which feature.

    Returns
    -------
    tuple
        The items that are left; and for each dropped one what was kept and why. The same item found
        twice is not worth a line.
    """
    feature = {source.collection: source.feature for source in sources}
    kept: dict[tuple[Any, ...], list[pystac.Item]] = {}
    seen: set[tuple[str | None, str]] = set()
    dropped: list[dict[str, str]] = []
    for item in items:
        if (item.collection_id, item.id) in seen:
            continue
        seen.add((item.collection_id, item.id))
        group = kept.setdefault(_key(item, feature.get(str(item.collection_id), "")), [])
        rival = next((i for i, other in enumerate(group) if _same_place(item, other)), None)
        if rival is None:
            group.append(item)
            continue
        other = group[rival]
        better, worse = (item, other) if _age(item) > _age(other) else (other, item)
        group[rival] = better
        dropped.append({"kept": better.id, "dropped": worse.id, "because": _reason(better, worse)})
    return [item for group in kept.values() for item in group], dropped


def _key(item: pystac.Item, feature: str) -> tuple[Any, ...]:
    properties = item.properties
    start = properties.get("start_datetime") or properties.get("datetime") or ""
    return (
        feature,
        str(properties.get("platform") or "").lower(),
        properties.get("sat:absolute_orbit"),
        # to the second: catalogues round differently
        re.sub(r"\D", "", str(start))[:14],
        properties.get("insar:reference_datetime"),
        properties.get("insar:secondary_datetime") or (properties.get("end_datetime") if feature == "insar" else None),
        properties.get("opera:burst_id"),
        str(properties.get("s1:slice_number") or ""),
        tuple(sorted(properties.get("sar:polarizations") or ())),
    )


def _same_place(one: pystac.Item, other: pystac.Item) -> bool:
    if one.geometry is None or other.geometry is None:
        return one.geometry is other.geometry
    a, b = (shapely.make_valid(shape(item.geometry)) for item in (one, other) if item.geometry)
    smaller = min(a.area, b.area)
    return bool(a.equals(b) if smaller == 0 else a.intersection(b).area / smaller > _SAME_PLACE)


def _age(item: pystac.Item) -> tuple[str, str]:
    """Return when an item was processed, as comparable digits; the id decides where nothing is known."""
    named = _IN_NAME.search(item.id)
    stated = (str(item.properties[key]) for key in _PROCESSED if item.properties.get(key))
    text = named.group(1) if named else next(stated, "")
    return re.sub(r"\D", "", text)[:14].ljust(14, "0") if text else "", item.id


def _reason(better: pystac.Item, worse: pystac.Item) -> str:
    new, old = _age(better)[0], _age(worse)[0]
    return f"processed {new} after {old or 'an unknown time'}" if new != old else "the same acquisition; by name"
