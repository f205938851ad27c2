"""From STAC items to scenes: what one satellite saw of a region in one pass, or the coherence of one pair.

Scenes are grouped by platform and absolute orbit, never by solar day: an orbit's slices and bursts are one scene, and
two platforms are never mixed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pystac

from icemap_xr import schema
from icemap_xr.errors import AssetMissingError, InputError
from icemap_xr.providers import Source

#: items of one platform without an orbit number belong to one pass if they lie within this time
_PASS = np.timedelta64(10, "m")


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

    @property
    def baseline_days(self) -> float:
        """Days between the two dates of a pair, rounded to the day; 0 for a single scene."""
        return float(np.round((self.secondary_time - self.reference_time) / np.timedelta64(1, "D")))

    @property
    def item_ids(self) -> str:
        """Ids of the items, separated by spaces."""
        return " ".join(str(item["id"]) for item in self.items)


def scenes_from_items(
    items: Sequence[pystac.Item],
    sources: Sequence[Source],
    feature: str,
    *,
    polarisation: str | None = None,
    baseline_days: float | None = None,
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
        Polarisation to read; by default the first of the source's list that every item offers.
    baseline_days
        Keep pairs of this temporal baseline only.

    Raises
    ------
    AssetMissingError
        An item lacks the polarisation.
    InputError
        Polarisations, tracks, directions or temporal baselines are mixed.
    """
    by_collection = {source.collection: source for source in sources if source.feature == feature}
    mine = [item for item in items if item.collection_id in by_collection]
    if not mine:
        return ()
    chosen = polarisation or _common_polarisation(mine, by_collection)
    single = [_scene(item, by_collection[str(item.collection_id)], chosen) for item in mine]
    if baseline_days is not None:
        single = [scene for scene in single if abs(scene.baseline_days - baseline_days) < 1]
        if not single:
            raise InputError(f"no {feature} pair has a temporal baseline of {baseline_days:g} days: choose another")
    scenes = _merge(sorted(single, key=lambda scene: (scene.time, scene.item_ids)))
    _check_uniform(scenes, feature)
    return tuple(scenes)


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
    seen = sorted({name for _, found in offers for name in found})
    raise InputError(f"no polarisation is in every item (found {', '.join(seen)}): choose one with polarisation=")


def _scene(item: pystac.Item, source: Source, polarisation: str) -> Scene:
    asset = source.asset(item, polarisation)
    properties = item.properties
    time = _moment(item.datetime) if item.datetime else _moment(properties.get("start_datetime"))
    first = second = time
    if schema.feature(source.feature).pair:
        first = _moment(properties.get("insar:reference_datetime") or properties.get("start_datetime"))
        second = _moment(properties.get("insar:secondary_datetime") or properties.get("end_datetime"))
        if np.isnat(first) or np.isnat(second) or not first < second:
            raise InputError(
                f"item {item.id!r} does not say the two dates of its pair: it needs insar:reference_datetime before "
                "insar:secondary_datetime"
            )
        time = first + (second - first) // 2
    if np.isnat(time):
        raise InputError(f"item {item.id!r} has neither datetime nor start_datetime: mend the catalogue")
    key = next(name for name, one in item.assets.items() if one is asset)
    return Scene(
        feature=source.feature,
        polarisation=polarisation,
        values=source.values,
        radiometry=source.radiometry,
        time=time,
        reference_time=first,
        secondary_time=second,
        platform=str(properties.get("platform") or ""),
        absolute_orbit=_number(properties.get("sat:absolute_orbit")),
        relative_orbit=_number(properties.get("sat:relative_orbit")),
        orbit_state=str(properties.get("sat:orbit_state") or ""),
        asset=key,
        items=(_one_asset(item, key),),
    )


def _one_asset(item: pystac.Item, key: str) -> dict[str, Any]:
    content = item.to_dict(include_self_link=False, transform_hrefs=False)
    keep = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "collection")
    slim: dict[str, Any] = {name: content[name] for name in keep if name in content}
    return slim | {"properties": content["properties"], "assets": {key: content["assets"][key]}, "links": []}


def _number(value: Any) -> int:
    return -1 if value is None else int(value)


def _moment(value: datetime | str | None) -> np.datetime64:
    if value is None:
        return np.datetime64("NaT", "ns")
    moment = datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "ns")


def _merge(scenes: Sequence[Scene]) -> list[Scene]:
    """Join the slices or bursts of one pass; the earliest gives the time."""
    merged: list[Scene] = []
    for scene in scenes:
        same = next((i for i, other in enumerate(merged) if _is_same_pass(other, scene)), None)
        if same is None:
            merged.append(scene)
        else:
            fields = merged[same].__dict__ | {"items": merged[same].items + scene.items}
            merged[same] = Scene(**fields)
    return merged


def _is_same_pass(one: Scene, other: Scene) -> bool:
    if one.platform != other.platform or one.baseline_days != other.baseline_days:
        return False
    if one.absolute_orbit >= 0 and other.absolute_orbit >= 0:
        return one.absolute_orbit == other.absolute_orbit and bool(abs(other.time - one.time) < np.timedelta64(1, "D"))
    near = abs(other.time - one.time) <= _PASS
    return bool(near and one.relative_orbit == other.relative_orbit)


def _check_uniform(scenes: Sequence[Scene], feature: str) -> None:
    """One relative orbit, direction and temporal baseline per series: mixing them makes false change."""
    for name, found, remedy in (
        ("relative orbits", {s.relative_orbit for s in scenes}, "search(relative_orbit=)"),
        ("directions", {s.orbit_state for s in scenes}, "search(orbit_state=)"),
        ("radiometries", {s.radiometry for s in scenes}, "a profile with one source"),
        ("temporal baselines (days)", {s.baseline_days for s in scenes}, "build_cube(baseline_days=)"),
    ):
        if len(found) > 1:
            listed = ", ".join(str(value) for value in sorted(found, key=str))
            raise InputError(f"{feature} mixes {name} {listed}: choose one with {remedy}")
