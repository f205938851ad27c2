"""What a cube is made of: the series of each feature, the profile by which it is read, and the years of its index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pystac

from icemap_xr import schema
from icemap_xr.duplicates import unique
from icemap_xr.errors import InputError
from icemap_xr.footprints import Area, footprint
from icemap_xr.grid import RegionGrid
from icemap_xr.providers import Provider, Source, known_providers, load_provider
from icemap_xr.scenes import Scene, scenes_from_items
from icemap_xr.yearindex import year_bounds


def cube_series(
    items: Sequence[pystac.Item],
    asked: Mapping[str, Any],
    features: Sequence[str] | None,
    polarisation: str | None,
    baseline_days: float | None,
    radar_geometry: bool = False,
) -> tuple[dict[str, tuple[Scene, ...]], list[dict[str, str]]]:
    """Return the scenes of each feature, and what was dropped because it was processed again.

    Parameters
    ----------
    items
        Items of any collections; of an acquisition that is there twice the newest counts.
    asked
        What `search` recorded: the sources of its profile; without it the `local` profile says what items hold.
    features, polarisation, baseline_days, radar_geometry
        See `icemap_xr.build_cube` and `icemap_xr.scenes.scenes_from_items`.

    Raises
    ------
    InputError
        No item holds a feature, or the items make no series.
    """
    sources = tuple(Source(**one) for one in asked.get("sources", ())) or load_provider("local").sources
    mine = {source.collection for source in sources}
    kept, dropped = unique([item for item in items if item.collection_id in mine], sources)
    for name in features or ():
        schema.feature(name)
    series = {}
    wanted: dict[str, Any] = {"polarisation": polarisation, "radar_geometry": radar_geometry}
    for name in features or schema.FEATURES:
        days = baseline_days if schema.feature(name).pair else None
        scenes = scenes_from_items(kept, sources, name, baseline_days=days, **wanted)
        if scenes:
            series[name] = scenes
        elif features:
            unknown = "".join(f"; {count} items of {one} were left out" for one, count in _unknown(asked))
            raise InputError(f"no item holds {name}: leave it out, or search for its collection{unknown}")
    if not series:
        found = sorted({str(item.collection_id) for item in items})
        raise InputError(
            f"no item holds a feature; their collections are {', '.join(found) or 'none'}, known are "
            f"{', '.join(sorted(source.collection for source in sources))}"
        )
    return series, dropped


def reading_profile(asked: Mapping[str, Any], profile: str | None) -> Provider:
    """Return the profile for reading: never one that only the items tell of, for it says where credentials go."""
    if profile is not None:
        return load_provider(profile)
    return known_providers().get(str(asked.get("provider")), load_provider("local"))


def check_overlap(series: Mapping[str, Sequence[Scene]], grid: RegionGrid) -> None:
    """Notice a grid elsewhere before anything is read; footprints that cannot be used do not count against it."""
    area = Area.of(grid.geobox.extent.to_crs("EPSG:4326", grid.resolution * max(grid.shape) / 20).geom)
    for name, scenes in series.items():
        items = [pystac.Item.from_dict(content) for scene in scenes for content in scene.items]
        try:
            apart = not any(area.touches(footprint(item)) for item in items)
        except InputError:
            continue
        if apart:
            raise InputError(
                f"no {name} scene lies on the grid: grid and scenes do not overlap; the grid is at "
                f"{', '.join(f'{value:.3f}' for value in area.lonlat.bounds)} (lon/lat), item {items[0].id!r} at "
                f"{', '.join(f'{value:.3f}' for value in footprint(items[0]).bounds)}"
            )


def year_labels(years: Any, series: Mapping[str, Sequence[Scene]], year_start: str) -> list[int]:
    """Return the given years in order, or all in which a scene lies."""
    if years is not None:
        return sorted({int(year) for year in years})
    times = np.concatenate([[scene.time for scene in scenes] for scenes in series.values()])
    calendar = times.astype("M8[Y]").astype(int) + 1970
    candidates = range(int(calendar.min()) - 1, int(calendar.max()) + 1)
    bounds = {year: year_bounds(year, year_start) for year in candidates}
    return [year for year, (start, end) in bounds.items() if ((times >= start) & (times < end)).any()]


def check_years(asked: Mapping[str, Any], years: Sequence[int], year_start: str) -> None:
    """Refuse years of which only a part was searched: the scenes of the rest would be missing, silently.

    Raises
    ------
    InputError
        A year reaches beyond what was asked of the catalogue.
    """
    searched = [year_bounds(int(year), str(asked.get("year_start", "01-01"))) for year in asked.get("years") or ()]
    for year in years if searched else ():
        at, end = year_bounds(year, year_start)
        for begin, stop in sorted(searched):
            at = stop if begin <= at < stop else at
        if at < end:
            raise InputError(
                f"year {year} goes from {year_start} to {end.astype('M8[D]')}, of which the search left out a part: "
                f"search again with these years and year_start={year_start!r}"
            )


def _unknown(asked: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return how many items of a collection a search left out because they do not say what was asked for."""
    return list(dict(asked.get("unknown") or {}).items())
