"""What a cube holds and what it lacks: scenes, valid pixels, holes and their causes, steps of each year."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from icemap_xr import objectstore, schema, store
from icemap_xr.cube import open_cube
from icemap_xr.types import StrPath
from icemap_xr.urls import is_remote

#: share of a scene's observed pixels at the floor from which it is worth a look: calm sea, or undeclared nodata
_AT_FLOOR = 0.05


def cube_info(path: StrPath) -> dict[str, Any]:
    """Describe a finished cube from its coordinates, counts and manifest; no pixel is read.

    Parameters
    ----------
    path
        Zarr store written by `build_cube`, or the address where one was published.

    Returns
    -------
    dict
        Plain JSON types: ``grid``, ``relative_orbit``, ``orbit_state``, ``features`` (per feature: ``scenes``,
        ``first``, ``last``, ``platforms``, ``polarisation``, ``radiometry``, ``valid_share`` of the pixels of all
        scenes, ``floor_share`` of those (no power or coherence at all) and ``at_floor``, the scenes with many,
        ``empty`` scenes, and ``years`` with filled steps, the longest gap in days and scenes), and ``missing``: the
        record of each block that could not be read, and ``notes``.

    Raises
    ------
    InputError, IncompleteStoreError, SchemaError
        As `open_cube`.
    """
    manifest = objectstore.read_manifest(path) if is_remote(path) else store.read_manifest(path)
    ds = open_cube(path)
    rows, columns = ds.sizes[schema.Y], ds.sizes[schema.X]
    features: dict[str, dict[str, Any]] = {}
    for name in (one for one in schema.FEATURES if one in ds):
        one = schema.feature(name)
        times = ds[one.time].values
        valid = ds[f"{name}_valid_pixels"].values
        floor = np.array(manifest.get("floor_pixels", {}).get(name, np.zeros(valid.size, np.int64)))
        features[name] = {
            "scenes": int(times.size),
            "first": str(times.min())[:19],
            "last": str(times.max())[:19],
            "platforms": sorted({str(value) for value in ds[f"{name}_platform"].values} - {""}),
            "polarisation": str(ds[name].attrs.get("polarisation", "")),
            "radiometry": str(ds[name].attrs.get("radiometry", "")),
            "valid_share": float(valid.sum() / (times.size * rows * columns)),
            "floor_share": float(floor.sum() / max(1, valid.sum())),
            "at_floor": [str(item) for item in ds[f"{name}_item"].values[floor > _AT_FLOOR * valid]],
            "empty": [str(item) for item in ds[f"{name}_item"].values[valid == 0]],
            "years": [
                _year(ds[one.index].values[row], times, int(year)) for row, year in enumerate(ds[schema.YEAR].values)
            ],
        }
    return {
        "grid": {"crs": _crs_name(ds.odc.crs), "rows": rows, "columns": columns},
        "relative_orbit": int(ds.attrs.get("relative_orbit", -1)),
        "orbit_state": str(ds.attrs.get("orbit_state", "")),
        "features": features,
        "missing": list(manifest.get("missing", [])),
        "notes": [
            note for note in (*_platform_notes(features), *_floor_notes(features), _orbit_note(ds.attrs)) if note
        ],
    }


def _crs_name(crs: Any) -> str:
    """Return the short name of a CRS where it has one, not pages of WKT."""
    return f"EPSG:{crs.epsg}" if crs.epsg else str(crs)


def _floor_notes(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Zeros outside an image, which a raster does not declare to be nodata, look like water or changed ground."""
    return [
        f"{name}: in {len(one['at_floor'])} of {one['scenes']} scenes more than {_AT_FLOOR:.0%} of what counts as "
        f"observed is zero, the first is {one['at_floor'][0]!r}: if that lies outside the image, name the value as "
        "nodata in a provider profile and build the cube again"
        for name, one in features.items()
        if one["at_floor"]
    ]


def _orbit_note(attrs: Mapping[str, Any]) -> str:
    """Where items do not say their orbit, nothing kept scenes of several orbits apart."""
    if int(attrs.get("relative_orbit", -1)) > 0:
        return ""
    return "the items do not say their relative orbit: see to it that all scenes are of one; years differ otherwise"


def _platform_notes(features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [_platform_note(name, one["platforms"]) for name, one in features.items()]


def _platform_note(name: str, platforms: list[str]) -> str:
    """Sentinel-1A/B and 1C/D were geolocated differently in some archives, which looks like change."""
    units = {platform[-1:] for platform in platforms}
    if not (units & set("ab") and units & set("cd")):
        return ""
    return f"{name} mixes {', '.join(platforms)}: their geolocation differs in some archives; compare years with care"


def _year(index: Any, times: Any, year: int) -> dict[str, Any]:
    chosen = np.sort(times[index[index >= 0]])
    gap = float(np.diff(chosen).max() / np.timedelta64(1, "D")) if chosen.size > 1 else None
    return {"year": year, "steps": int(index.size), "filled": int(chosen.size), "longest_gap_days": gap}
