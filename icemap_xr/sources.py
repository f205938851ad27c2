"""What the years of an archive come from, also where some were appended to it or several archives were merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def sources(record: Mapping[str, Any], years: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return the lineages that maps of some years come from, each once.

    Parameters
    ----------
    record
        Lineage of an archive. Entries of `appended` hold for their `years` and for none before; entries of `merged` for
        theirs, or for all years where they do not say.
    years
        Years.
    """
    found: list[Mapping[str, Any]] = []
    for year in years:
        found += [one for one in _of_year(record, int(year)) if all(one is not other for other in found)]
    return found


def _of_year(record: Mapping[str, Any], year: int) -> Iterator[Mapping[str, Any]]:
    for entry in _entries(record, "appended"):
        if year in entry.get("years", []):
            yield from _of_year(entry, year)
            return
    parts = _entries(record, "merged")
    if not parts:
        yield record
    for entry in parts:
        if year in entry.get("years", [year]):
            yield from _of_year(entry, year)


def _entries(record: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    found = record.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, Sequence) else []


def model_of(record: Mapping[str, Any], years: Sequence[int]) -> Any:
    """Return the model that made the maps of some years; None where it is not known of all, or several did."""
    models = [one.get("model") for one in sources(record, years)]
    return models[0] if models and all(one == models[0] for one in models) else None


def model_names(record: Mapping[str, Any], years: Sequence[int]) -> str:
    """Return the names of the models of some years as text, with their years where they are several."""
    by_name: dict[str, list[str]] = {}
    for year in years:
        models = [one.get("model") for one in sources(record, [year])]
        names = [str(one.get("name", one) if isinstance(one, Mapping) else one or "not recorded") for one in models]
        by_name.setdefault(" and ".join(dict.fromkeys(names)), []).append(str(int(year)))
    if len(by_name) == 1:
        return next(iter(by_name))
    return "; ".join(f"{name} ({', '.join(of)})" for name, of in by_name.items())


def scene_count(record: Mapping[str, Any], years: Sequence[int]) -> int:
    """Return how many scenes the maps of some years come from, each counted once."""
    return len({str(scene) for one in sources(record, years) for scene in one.get("stac_items") or []})
