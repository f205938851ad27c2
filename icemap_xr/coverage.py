"""What the found scenes cover: how many a year, by orbit, platform and polarisation, and the longest gap in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.footprints import Area, footprint
from icemap_xr.providers import PROVENANCE, Source, load_provider
from icemap_xr.scenes import Scene, single_scenes
from icemap_xr.yearindex import year_bounds

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class CoverageRow:
    """One feature, orbit, platform and polarisation in one year.

    Parameters
    ----------
    feature, year, relative_orbit, orbit_state, platform, polarisations
        What is counted; -1 or empty where the items do not say.
    scenes
        Passes (slices and bursts of one pass are one scene), or pairs.
    share
        Mean share of the region that a scene covers, 0..1; NaN without a region.
    longest_gap_days
        Longest time without a scene, from the start of the year to its end.
    baseline_days
        Days between the two dates of the pairs that are counted; 0 for single scenes.
    """

    feature: str
    year: int
    relative_orbit: int
    orbit_state: str
    platform: str
    polarisations: str
    scenes: int
    share: float
    longest_gap_days: float
    baseline_days: float = 0.0


@dataclass(frozen=True)
class OrbitChoice:
    """A relative orbit and direction, and how it came to be chosen.

    Parameters
    ----------
    relative_orbit, orbit_state
        The orbit.
    score
        Scenes in its worst year, each counted by the share of the region that it covers; with several features the
        least of them.
    others
        The scores of the other orbits, by name.
    """

    relative_orbit: int
    orbit_state: str
    score: float
    others: dict[str, float]

    def holds(self, item: pystac.Item) -> bool:
        """Whether an item is of this orbit."""
        return _orbit(item) == (self.relative_orbit, self.orbit_state)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return asdict(self)


def coverage(
    items: pystac.ItemCollection,
    region: Any = None,
    *,
    years: Sequence[int] | None = None,
    year_start: str | None = None,
) -> list[CoverageRow]:
    """Count the scenes of a search.

    Parameters
    ----------
    items
        What `icemap_xr.search` returned.
    region
        Region whose covered share is wanted, as in `icemap_xr.search`.
    years, year_start
        Those of the search by default.

    Returns
    -------
    list of CoverageRow
        By feature, orbit, direction, platform, polarisations, temporal baseline and year. A year without a scene has a
        row with 0.
    """
    asked = items.extra_fields.get(PROVENANCE, {})
    sources = tuple(Source(**one) for one in asked.get("sources", ())) or load_provider("local").sources
    begins = year_start or str(asked.get("year_start", "01-01"))
    labels = years if years is not None else asked.get("years")
    if labels is None:
        labels = sorted({moment.year for item in items if (moment := _moment(item)) is not None})
    area = None if region is None else Area.of(region)
    return _rows(list(items), sources, area, [int(year) for year in labels], begins)


def choose_orbit(
    items: Sequence[pystac.Item], sources: Sequence[Source], area: Area, years: Sequence[int], year_start: str
) -> OrbitChoice:
    """Choose the relative orbit and direction that observes a region best in its worst year and feature.

    Items that do not say their orbit (coherence, often) count for no orbit.

    Raises
    ------
    InputError
        No item says its relative orbit.
    """
    groups: dict[tuple[int, str], list[pystac.Item]] = {}
    for item in items:
        groups.setdefault(_orbit(item), []).append(item)
    known = {orbit: group for orbit, group in groups.items() if orbit[0] > 0}
    if not known:
        raise InputError("no item says its relative orbit: leave relative_orbit='best' out")
    collections = {item.collection_id for group in known.values() for item in group}
    features = {source.feature for source in sources if source.collection in collections}
    scores = {}
    for orbit, group in known.items():
        totals = {(feature, year): 0.0 for feature in features for year in years}
        for row in _rows(group, sources, area, years, year_start):
            totals[row.feature, row.year] += row.scenes * (0.0 if math.isnan(row.share) else row.share)
        scores[orbit] = min(totals.values())
    best = max(scores, key=lambda orbit: (scores[orbit], -orbit[0]))
    others = {f"{orbit[0]} {orbit[1]}".strip(): round(score, 2) for orbit, score in scores.items() if orbit != best}
    return OrbitChoice(best[0], best[1], round(scores[best], 2), others)


def coverage_figure(items: pystac.ItemCollection, rows: Sequence[CoverageRow]) -> Figure:
    """Draw when each orbit and feature was observed: one line each, one mark per scene.

    Parameters
    ----------
    items
        The items that were counted.
    rows
        What `coverage` returned.
    """
    from matplotlib.figure import Figure

    asked = items.extra_fields.get(PROVENANCE, {})
    sources = tuple(Source(**one) for one in asked.get("sources", ())) or load_provider("local").sources
    lines: dict[str, list[Scene]] = {}
    for feature in sorted({row.feature for row in rows}):
        for scene in single_scenes(list(items), sources, feature):
            name = f"{feature} {scene.relative_orbit if scene.relative_orbit > 0 else ''} {scene.orbit_state}".strip()
            lines.setdefault(f"{name} {scene.platform}".strip(), []).append(scene)
    figure = Figure(figsize=(10, 1.2 + 0.35 * len(lines)), layout="constrained")
    axes = figure.subplots()
    names = sorted(lines)
    for height, name in enumerate(names):
        times = np.array([scene.time for scene in lines[name]])
        axes.plot(times, np.full(len(times), height), "|", markersize=10, label=name)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(f"{len(items)} items: {asked.get('provider', 'items')}", loc="left", fontsize="medium")
    return figure


def _rows(
    items: Sequence[pystac.Item],
    sources: Sequence[Source],
    area: Area | None,
    years: Sequence[int],
    year_start: str,
) -> list[CoverageRow]:
    shares = {(item.collection_id, item.id): footprint(item) for item in items} if area is not None else {}
    rows = []
    for feature in schema.FEATURES:
        groups: dict[tuple[int, str, str, str, float], list[Scene]] = {}
        for scene in single_scenes(items, sources, feature):
            orbit = (scene.relative_orbit, scene.orbit_state, scene.platform)
            key = (*orbit, scene.polarisation, scene.baseline_days)
            groups.setdefault(key, []).append(scene)
        for (track, state, platform, polarisations, baseline), scenes in sorted(groups.items()):
            times = np.array([scene.time for scene in scenes])
            for year in years:
                start, end = year_bounds(year, year_start)
                inside = np.flatnonzero((times >= start) & (times < end))
                moments = np.sort(np.concatenate([[start], times[inside], [end]]))
                gap = float(np.diff(moments).max() / np.timedelta64(1, "D"))
                share = math.nan
                if area is not None and inside.size:
                    covered = [
                        area.share([shares[i["collection"], str(i["id"])] for i in scenes[k].items]) for k in inside
                    ]
                    share = float(np.mean(covered))
                row = (feature, year, track, state, platform, polarisations, int(inside.size), share, round(gap, 1))
                rows.append(CoverageRow(*row, baseline_days=baseline))
    return rows


def _orbit(item: pystac.Item) -> tuple[int, str]:
    track = item.properties.get("sat:relative_orbit")
    return -1 if track is None else int(track), str(item.properties.get("sat:orbit_state") or "")


def _moment(item: pystac.Item) -> Any:
    return item.datetime or item.common_metadata.start_datetime
