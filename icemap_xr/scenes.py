"""From STAC items to scenes: what one satellite saw of a region in one pass, or the coherence of one pair.

Scenes are grouped by platform and absolute orbit, never by solar day: an orbit's slices and bursts are one scene, and
two platforms are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac

from icemap_xr import schema
from icemap_xr.errors import AssetMissingError, InputError, NotGeocodedError
from icemap_xr.providers import Source
from icemap_xr.stac_build import PROCESSING

#: items of one platform without an orbit number belong to one pass if they lie within this time
_PASS = np.timedelta64(10, "m")
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Scene:
    """One time step of a feature; picklable, and small enough to travel in a task.

    Parameters
    ----------
    feature, polarisation, values, radiometry
        What is read, and in what form it comes.
    time
        Acquisition time; for a pair the middle of its two dates.
    reference_time, secondary_time
        The two dates of a pair; both equal `time` otherwise.
    platform
        Such as ``"sentinel-1a"``; for a pair as the item says, or empty.
    absolute_orbit, relative_orbit
        Orbit numbers; -1 where the items do not say.
    orbit_state
        ``"ascending"``, ``"descending"`` or empty.
    asset
        Asset key.
    items
        The items, as plain JSON with this one asset.
    band
        Band of the asset, from 1; None where it has but one.
    nodata
        Value that stands for "no observation" where the raster declares none.
    geocoded
        Whether it lies on a map grid; a scene in radar geometry is calibrated and geocoded while it is read.
    """

    feature: str
    polarisation: str
    values: str
    radiometry: str | None
    time: np.datetime64
    reference_time: np.datetime64
    secondary_time: np.datetime64
    platform: str
    absolute_orbit: int
    relative_orbit: int
    orbit_state: str
    asset: str
    items: tuple[dict[str, Any], ...]
    band: int | None = None
    nodata: float | None = None
    geocoded: bool = True

    @property
    def baseline_days(self) -> float:
        """Days between the two dates of a pair, rounded to the day; 0 for a single scene."""
        return float(np.round((self.secondary_time - self.reference_time) / np.timedelta64(1, "D")))

    @property
    def item_ids(self) -> str:
        """Ids of the items, separated by spaces."""
        return " ".join(str(item["id"]) for item in self.items)

    @property
    def slices(self) -> str:
        """Slice numbers or burst names of the items, separated by spaces; empty where they do not say."""
        names = ("s1:slice_number", "opera:burst_id")
        found = [next((str(i["properties"][n]) for n in names if i["properties"].get(n)), "") for i in self.items]
        return " ".join(dict.fromkeys(name for name in found if name))


def scenes_from_items(
    items: Sequence[pystac.Item],
    sources: Sequence[Source],
    feature: str,
    *,
    polarisation: str | None = None,
    baseline_days: float | None = None,
    radar_geometry: bool = False,
) -> tuple[Scene, ...]:
    """Group a feature's items into scenes, sorted by time.

    Parameters
    ----------
    items
        Items of any feature; others are passed over.
    sources
        Which collection holds which feature.
    feature
        Feature name.
    polarisation
        Polarisation to read; by default the first of the source's list that every item offers. A raster of which
        nothing tells the polarisation has none (``""``), and is taken for this one where it is given.
    baseline_days
        Keep pairs of this temporal baseline only.
    radar_geometry
        Whether scenes in radar geometry are taken: they need to be calibrated and geocoded.

    Raises
    ------
    AssetMissingError
        An item lacks the polarisation.
    NotGeocodedError
        The collection is in radar geometry.
    InputError
        Polarisations, modes, ways of processing, tracks, directions or temporal baselines are mixed, or the slices of
        one pass come in different forms.
    """
    by_collection = {source.collection: source for source in sources if source.feature == feature}
    mine = [item for item in items if item.collection_id in by_collection]
    if not mine:
        return ()
    if not radar_geometry:
        _check_geocoded(mine, by_collection)
    _check_alike(mine, feature, "sar:instrument_mode", "the instrument modes")
    _check_alike(mine, feature, PROCESSING, "products processed as", unsaid="something else")
    chosen = polarisation or _common_polarisation(mine, by_collection)
    single = []
    for item in mine:
        source = by_collection[str(item.collection_id)]
        single.append(_scene(item, source, chosen, source.asset_key(item, chosen)))
    if baseline_days is not None:
        single = [scene for scene in single if abs(scene.baseline_days - baseline_days) < 1]
        if not single:
            raise InputError(f"no {feature} pair has a temporal baseline of {baseline_days:g} days: choose another")
    # before slices are joined, for a scene has the form and the orbit of its first slice
    _check_uniform(single, feature)
    single.sort(key=lambda scene: (scene.time, scene.item_ids))
    return tuple(_merge(single, forms=True))


def one_orbit(series: Mapping[str, Sequence[Scene]]) -> tuple[int, str]:
    """Return the relative orbit and direction of a cube's features; -1 or empty where no item says.

    Raises
    ------
    InputError
        Features are of different orbits: they would see the ground from different sides.
    """
    firsts = {name: scenes[0] for name, scenes in series.items()}
    for what, found in (
        ("relative orbits", {name: str(s.relative_orbit) for name, s in firsts.items() if s.relative_orbit > 0}),
        ("directions", {name: s.orbit_state for name, s in firsts.items() if s.orbit_state}),
    ):
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} {value}" for name, value in found.items())
            raise InputError(f"the features are of several {what} ({listed}): build one cube for each")
    orbit = next((s.relative_orbit for s in firsts.values() if s.relative_orbit > 0), -1)
    return orbit, next((s.orbit_state for s in firsts.values() if s.orbit_state), "")


def single_scenes(items: Sequence[pystac.Item], sources: Sequence[Source], feature: str) -> tuple[Scene, ...]:
    """Group a feature's items into scenes without choosing among polarisations, orbits or baselines; for counting.

    The polarisation of each is all that its items offer, joined by ``+``.
    """
    by_collection = {source.collection: source for source in sources if source.feature == feature}
    found = []
    for item in items:
        source = by_collection.get(str(item.collection_id))
        if source is not None:
            offers = source.polarisations(item)
            key = source.asset_key(item, offers[0]) if offers else ""
            found.append(_scene(item, source, "+".join(offers), key))
    return tuple(_merge(sorted(found, key=lambda scene: (scene.time, scene.item_ids))))


def _check_geocoded(items: Sequence[pystac.Item], sources: Mapping[str, Source]) -> None:
    raw = [item for item in items if not sources[str(item.collection_id)].geocoded]
    if raw:
        raise NotGeocodedError(
            f"item {raw[0].id!r} of {raw[0].collection_id} is in radar geometry ({len(raw)} items are): calibrate and "
            "geocode it first, say how in build_cube(grd=), or search for terrain-corrected scenes (rtc)"
        )


def _check_alike(items: Sequence[pystac.Item], feature: str, key: str, what: str, unsaid: str = "") -> None:
    found = sorted({str(value) for item in items if (value := item.properties.get(key) or unsaid)})
    if len(found) > 1:
        raise InputError(f"{feature} mixes {what} {', '.join(found)}: keep the items of one")


def _common_polarisation(items: Sequence[pystac.Item], sources: dict[str, Source]) -> str:
    offers = [(item, sources[str(item.collection_id)].polarisations(item)) for item in items]
    for item, found in offers:
        if not found:
            source = sources[str(item.collection_id)]
            raise AssetMissingError(
                f"item {item.id!r} has no asset for {source.feature} ({', '.join(source.assets.values())}); it has "
                f"{', '.join(item.assets) or 'none'}: leave the item out or mend the provider profile"
            )
    for candidate in offers[0][1]:
        if all(candidate in found for _, found in offers):
            return candidate
    seen = sorted({name or "unknown" for _, found in offers for name in found})
    raise InputError(f"no polarisation is in every item (found {', '.join(seen)}): choose one with polarisation=")


def _scene(item: pystac.Item, source: Source, polarisation: str, key: str) -> Scene:
    properties = item.properties
    pair = schema.feature(source.feature).pair
    first, second = _dates(item, pair)
    if pair and not first < second:
        raise InputError(
            f"item {item.id!r} does not say the two dates of its pair: it needs insar:reference_datetime before "
            "insar:secondary_datetime"
        )
    time = scene_time(item, pair=pair)
    return Scene(
        feature=source.feature,
        polarisation=polarisation,
        values=source.values,
        radiometry=source.radiometry,
        time=time,
        reference_time=first,
        secondary_time=second,
        platform=str(properties.get("platform") or "").lower(),
        absolute_orbit=_number(properties.get("sat:absolute_orbit")),
        relative_orbit=_number(properties.get("sat:relative_orbit")),
        orbit_state=str(properties.get("sat:orbit_state") or ""),
        asset=key,
        items=(_one_asset(item, key),),
        band=source.bands.get(polarisation),
        nodata=source.nodata,
        geocoded=source.geocoded,
    )


def scene_time(item: pystac.Item, *, pair: bool) -> np.datetime64:
    """Return the time by which an item belongs to a year: of a pair the middle of its dates, whatever its own says.

    Raises
    ------
    InputError
        It has none.
    """
    first, second = _dates(item, pair)
    time = first + (second - first) // 2 if pair and first < second else _dates(item, pair=False)[0]
    if np.isnat(time):
        raise InputError(f"item {item.id!r} has neither datetime nor start_datetime: mend the catalogue")
    return time


def _dates(item: pystac.Item, pair: bool) -> tuple[np.datetime64, np.datetime64]:
    """Return the two dates of a pair, or its time twice; NaT where they are not said."""
    properties = item.properties
    if not pair:
        time = _moment(item.datetime or properties.get("start_datetime"))
        return time, time
    first = _moment(properties.get("insar:reference_datetime") or properties.get("start_datetime"))
    return first, _moment(properties.get("insar:secondary_datetime") or properties.get("end_datetime"))


def _one_asset(item: pystac.Item, key: str) -> dict[str, Any]:
    content = item.to_dict(include_self_link=False, transform_hrefs=False)
    keep = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "collection")
    slim: dict[str, Any] = {name: content[name] for name in keep if name in content}
    assets = {key: content["assets"][key]} if key else {}
    return slim | {"properties": content["properties"], "assets": assets, "links": []}


def _number(value: Any) -> int:
    return -1 if value is None else int(value)


def _moment(value: datetime | str | None) -> np.datetime64:
    if value is None:
        return np.datetime64("NaT", "ns")
    moment = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")


def _merge(scenes: Sequence[Scene], *, forms: bool = False) -> list[Scene]:
    """Join the slices or bursts of one pass; the earliest gives the time. The scenes come sorted by time.

    With `forms` it is an error if they are not read in the same way: only the first one says how.
    """
    merged: list[Scene] = []
    for scene in scenes:
        same = None
        for i in range(len(merged) - 1, -1, -1):
            if scene.time - merged[i].time >= _DAY:
                break
            if _is_same_pass(merged[i], scene):
                same = i
                break
        if same is None:
            merged.append(scene)
        else:
            if forms:
                _check_form(merged[same], scene)
            fields = merged[same].__dict__ | {"items": merged[same].items + scene.items}
            merged[same] = Scene(**fields)
    return merged


def _check_form(one: Scene, other: Scene) -> None:
    for name in ("values", "radiometry", "asset", "band", "nodata", "geocoded"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if mine != theirs:
            raise InputError(
                f"items {one.item_ids!r} and {other.item_ids!r} are of one pass and differ in {name} ({mine}, "
                f"{theirs}): keep the items of one collection"
            )


def _is_same_pass(one: Scene, other: Scene) -> bool:
    if (one.platform, one.polarisation) != (other.platform, other.polarisation):
        return False
    if one.baseline_days != other.baseline_days:
        return False
    # at high latitudes one orbit may see a place on its way up and on its way down
    if one.orbit_state and other.orbit_state and one.orbit_state != other.orbit_state:
        return False
    if one.absolute_orbit >= 0 and other.absolute_orbit >= 0:
        return one.absolute_orbit == other.absolute_orbit and bool(abs(other.time - one.time) < _DAY)
    near = abs(other.time - one.time) <= _PASS
    return bool(near and one.relative_orbit == other.relative_orbit)


def _check_uniform(scenes: Sequence[Scene], feature: str) -> None:
    """One orbit, direction, way of processing and temporal baseline per series: mixing them makes false change."""
    for name, found, remedy in (
        ("relative orbits", {s.relative_orbit for s in scenes}, "search(relative_orbit=)"),
        ("directions", {s.orbit_state for s in scenes}, "search(orbit_state=)"),
        ("radiometries", {s.radiometry for s in scenes}, "a profile with one source"),
        ("temporal baselines (days)", {s.baseline_days for s in scenes}, "build_cube(baseline_days=)"),
    ):
        if len(found) > 1:
            listed = ", ".join(str(value) for value in sorted(found, key=str))
            raise InputError(f"{feature} mixes {name} {listed}: choose one with {remedy}")
