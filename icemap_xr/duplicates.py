"""One acquisition, one item: what was processed again, or is offered twice, counts once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import pystac
import shapely
from shapely.geometry import shape

from icemap_xr.errors import InputError
from icemap_xr.providers import Source

#: where items say when they were processed, best first
_PROCESSED = ("processing:datetime", "s1:processing_datetime", "published", "updated", "created")
_IN_NAME = re.compile(r"_\d{8}T\d{6}Z?_(\d{8}T\d{6}Z?)_S1[ABCD]")
#: two items of one moment are one acquisition if their footprints share this much of the smaller one
_SAME_PLACE = 0.5


def unique(items: Iterable[pystac.Item], sources: Sequence[Source]) -> tuple[list[pystac.Item], list[dict[str, str]]]:
    """Keep one item of each acquisition and feature: the one that was processed last.

    An acquisition is a platform, an absolute orbit, a start (to less than a second, for catalogues round them), a slice
    or burst and a place; a pair has both dates.

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

    Raises
    ------
    InputError
        Two items are of one time and place, and nothing says whether they are one acquisition.
    """
    feature = {source.collection: source.feature for source in sources}
    kept: dict[tuple[Any, ...], list[pystac.Item]] = {}
    seen: set[tuple[str | None, str]] = set()
    dropped: list[dict[str, str]] = []
    for item in items:
        if (item.collection_id, item.id) in seen:
            continue
        seen.add((item.collection_id, item.id))
        key, second = _key(item, feature.get(str(item.collection_id), "")), int(_start(item))
        groups = [kept.get((*key, near), []) for near in (second, second - 1, second + 1)]
        rivals = ((group, i) for group in groups for i, other in enumerate(group) if _same(item, other))
        group, place = next(rivals, (None, -1))
        if group is None:
            kept.setdefault((*key, second), []).append(item)
            continue
        better, worse = sorted((item, group[place]), key=_age, reverse=True)
        _check_known(better, worse)
        group[place] = better
        dropped.append({"kept": better.id, "dropped": worse.id, "because": _reason(better, worse)})
    return [item for group in kept.values() for item in group], dropped


def _key(item: pystac.Item, feature: str) -> tuple[Any, ...]:
    properties = item.properties
    return (
        feature,
        str(properties.get("platform") or "").lower(),
        properties.get("sat:absolute_orbit"),
        _seconds(properties.get("insar:reference_datetime")),
        _seconds(
            properties.get("insar:secondary_datetime") or (properties.get("end_datetime") if feature == "insar" else "")
        ),
        properties.get("opera:burst_id"),
        str(properties.get("s1:slice_number") or ""),
    )


def _start(item: pystac.Item) -> float:
    # an item that was made here has its time in the attribute alone
    return _seconds(item.properties.get("start_datetime") or item.datetime)


def _seconds(time: Any) -> float:
    """Return seconds since 1970, or -1 where there is no time."""
    try:
        moment = time if isinstance(time, datetime) else datetime.fromisoformat(str(time).replace("Z", "+00:00"))
    except ValueError:
        return -1
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def _same(one: pystac.Item, other: pystac.Item) -> bool:
    """Whether two items of one moment are one acquisition: of one place, and not of other orbits or polarisations."""
    if abs(_start(one) - _start(other)) >= 1:
        return False
    for name in ("sat:relative_orbit", "sat:orbit_state"):
        told = [item.properties.get(name) for item in (one, other)]
        if None not in told and told[0] != told[1]:
            return False
    mine, theirs = (set(item.properties.get("sar:polarizations") or ()) for item in (one, other))
    if mine and theirs and not (mine <= theirs or theirs <= mine):
        return False
    if one.geometry is None or other.geometry is None:
        return one.geometry is other.geometry
    a, b = (shapely.make_valid(shape(item.geometry)) for item in (one, other) if item.geometry)
    smaller = min(a.area, b.area)
    return bool(a.equals(b) if smaller == 0 else a.intersection(b).area / smaller > _SAME_PLACE)


def _check_known(better: pystac.Item, worse: pystac.Item) -> None:
    """Refuse to choose between items of which only date and place are known: they may be of two orbits."""
    told = any(item.properties.get(key) for item in (better, worse) for key in ("platform", "sat:absolute_orbit"))
    if told or _age(better)[0] != _age(worse)[0]:
        return
    tracks = [item.properties.get("sat:relative_orbit") for item in (better, worse)]
    if tracks[0] is not None and tracks[0] == tracks[1]:
        return
    raise InputError(
        f"items {better.id!r} and {worse.id!r} are of the same dates and place, and nothing says which satellite and "
        "orbit they are of: keep one, or add sat:relative_orbit, sat:absolute_orbit or platform to both"
    )


def _age(item: pystac.Item) -> tuple[str, str]:
    """Return when an item was processed, as comparable digits; the id decides where nothing is known."""
    named = _IN_NAME.search(item.id)
    stated = (str(item.properties[key]) for key in _PROCESSED if item.properties.get(key))
    text = named.group(1) if named else next(stated, "")
    return re.sub(r"\D", "", text)[:14].ljust(14, "0") if text else "", item.id


def _reason(better: pystac.Item, worse: pystac.Item) -> str:
    new, old = _age(better)[0], _age(worse)[0]
    return f"processed {new} after {old or 'an unknown time'}" if new != old else "the same acquisition; by name"
