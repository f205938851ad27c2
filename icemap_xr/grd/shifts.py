"""How far the scenes of a cube lie from each other: platforms are geolocated differently, which looks like change."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import GeolocationWarning, SchemaError, warn
from icemap_xr.kernels import phase

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

#: side of a window and how many are looked at
SIDE, WINDOWS = 256, 12
#: pixels from which a shift warns
LIMIT = 0.5
#: peak of a window's correlation from which it counts; of unrelated speckle it stays below 8
_CLEAR = 9.0
#: share of a window that must be observed, and stable if that is given
_OBSERVED = 0.6
_TRIED = 6 * WINDOWS


def estimate_shifts(ds: xr.Dataset, feature: str = "grd", *, stable: xr.DataArray | None = None) -> xr.Dataset:
    """Estimate how far each scene of a cube lies from the mean of the others, by phase correlation.

    The reference is the mean, without the scene itself, of the platform with most scenes. Windows are spread over the
    grid and ranked by texture that stays from scene to scene, as rock and moraine do and sea and snow do not.

    Parameters
    ----------
    ds
        Cube with `<feature> (<feature>_time, y, x)`.
    feature
        Feature to look at.
    stable
        `(y, x)`, true on land that does not change; windows with less than 60 % of it are left out.

    Returns
    -------
    xarray.Dataset
        `<feature>_shift_y`, `<feature>_shift_x (<feature>_time)` in pixels of the grid, rows running south: what to add
        to a place in the reference to find it in the scene; NaN where no window is clear.
        `<feature>_shift_windows`, how many were.

    Raises
    ------
    SchemaError
        The cube has no such feature.

    Warns
    -----
    GeolocationWarning
        A scene lies off by more than half a pixel.
    """
    one = schema.feature(feature)
    if feature not in ds:
        raise SchemaError(f"the cube has no {feature}: estimate the shifts of {', '.join(map(str, ds.data_vars))}")
    series = ds[feature]
    platforms = _platforms(ds, one)
    keys, counts = np.unique(platforms, return_counts=True)
    base = platforms == keys[np.argmax(counts)]
    found: list[Floats] = []
    for rows, columns in _windows(series, stable):
        values = series.isel({schema.Y: rows, schema.X: columns}).transpose(one.time, ...).values
        found.append(_in_window(values, base))
    shifts = np.stack(found, 1) if found else np.full((len(base), 0, 3), np.nan)
    clear = shifts[..., 2] >= _CLEAR
    counted = clear.sum(axis=1).astype(np.int32)
    middle = np.full((len(base), 2), np.nan)
    for t in np.flatnonzero(counted):
        middle[t] = np.median(shifts[t, clear[t], :2], axis=0)
    _warn(feature, middle, platforms)
    against = f"the mean of {keys[np.argmax(counts)] or 'all scenes'}"
    attrs = {"units": "1", "comment": f"against {against}, by phase correlation; median of the clear windows"}
    return xr.Dataset(
        {
            f"{feature}_shift_y": (one.time, middle[:, 0], {"long_name": "shift southwards in pixels", **attrs}),
            f"{feature}_shift_x": (one.time, middle[:, 1], {"long_name": "shift eastwards in pixels", **attrs}),
            f"{feature}_shift_windows": (one.time, counted, {"long_name": "windows with a clear shift", "units": "1"}),
        },
        coords={one.time: ds[one.time]},
    )


def _platforms(ds: xr.Dataset, one: schema.Feature) -> NDArray[np.str_]:
    name = f"{one.name}_platform"
    return np.array([str(value) for value in ds[name].values] if name in ds else [""] * ds.sizes[one.time])


def _in_window(values: NDArray[np.float32], base: Bools) -> Floats:
    """Return `(time, 3)` rows, columns and peak of each scene of a window.

    Scenes that lie off would draw the mean, and so the others, towards them: the second round goes without them.
    """
    first = _against(values, base)
    near = base & (first[:, 2] >= _CLEAR) & (np.hypot(first[:, 0], first[:, 1]) <= LIMIT)
    return first if near.sum() < 2 or (near == base).all() else _against(values, near)


def _against(values: NDArray[np.float32], base: Bools) -> Floats:
    """Return how each scene lies against the mean of the others among some."""
    out = np.full((len(values), 3), np.nan)
    seen = np.isfinite(values)
    total = np.where(seen, values, 0.0)[base].sum(axis=0, dtype=np.float64)
    count = seen[base].sum(axis=0)
    for t, scene in enumerate(values):
        # its own speckle would draw the shift to 0
        others = count - seen[t] if base[t] else count
        rest = total - np.where(seen[t], scene, 0.0) if base[t] else total
        reference = np.where(others > 0, rest / np.maximum(others, 1), np.nan)
        both = np.isfinite(reference) & seen[t]
        if both.mean() >= _OBSERVED:
            out[t] = phase.shift(reference, scene.astype(np.float64))
    return out


def _windows(series: xr.DataArray, stable: xr.DataArray | None) -> Iterator[tuple[slice, slice]]:
    """Yield the windows with the best texture that stays, judged by a few scenes."""
    rows, columns = series.sizes[schema.Y], series.sizes[schema.X]
    tall, wide = min(SIDE, rows), min(SIDE, columns)
    per_side = max(1, int(np.sqrt(_TRIED)))
    tops = np.unique(np.linspace(0, rows - tall, min(per_side, max(1, rows // tall))).astype(int))
    lefts = np.unique(np.linspace(0, columns - wide, min(per_side, max(1, columns // wide))).astype(int))
    judged = series.isel({series.dims[0]: slice(0, series.shape[0], max(1, series.shape[0] // 4))})
    ranked = []
    for top in tops:
        for left in lefts:
            place = (slice(int(top), int(top) + tall), slice(int(left), int(left) + wide))
            if stable is not None and float(stable[place].mean()) < _OBSERVED:
                continue
            values = judged[(slice(None), *place)].values.astype(np.float64)
            score = _texture(values)
            if np.isfinite(score):
                ranked.append((-score, place))
    ranked.sort(key=lambda one: one[0])
    yield from (place for _, place in ranked[:WINDOWS])


def _texture(values: Floats) -> float:
    """Return how much of the variance in a window is the same in all scenes; NaN where too little is observed."""
    seen = np.isfinite(values).all(axis=0)
    if seen.mean() < _OBSERVED:
        return float("nan")
    scenes = values[:, seen]
    scenes = scenes - scenes.mean(axis=1, keepdims=True)
    total = float(scenes.var(axis=1).mean())
    return float(scenes.mean(axis=0).var()) / total if total > 0 else float("nan")


def _warn(feature: str, shifts: Floats, platforms: NDArray[np.str_]) -> None:
    far = np.hypot(shifts[:, 0], shifts[:, 1]) > LIMIT
    if not far.any():
        return
    parts = []
    for name in np.unique(platforms[far]):
        mean = np.nanmedian(shifts[platforms == name], axis=0)
        parts.append(f"{name or 'all'} {mean[0]:+.2f} south {mean[1]:+.2f} east")
    warn(
        f"{int(far.sum())} of {len(far)} {feature} scenes lie more than {LIMIT} pixels off (medians: "
        f"{'; '.join(parts)}): a shift looks like change at edges; geocode with a better elevation model or keep one "
        "platform",
        GeolocationWarning,
    )
