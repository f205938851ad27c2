"""What relief does to a radar image: the local incidence angle, layover and shadow.

Layover and shadow are found along the direction in which range grows, on all pixels of a block at once: the block is
turned so that range runs along its columns, and running extremes say whether another place has the same distance
(layover) or stands in the line of sight (shadow).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

LAYOVER, SHADOW = 1, 2
#: distances and angles closer than this are the same: metres and radians
_METRES, _RADIANS = 0.01, 1e-9


def incidence(height: Floats, cell: tuple[float, float], sight: tuple[Floats, Floats, Floats]) -> Floats:
    """Return the angle in degrees between the normal of the ground and the direction to the platform.

    Parameters
    ----------
    height
        `(y, x)` metres; rows run south.
    cell
        Height and width of a pixel on the ground, metres.
    sight
        Components of the unit vector to the platform: east and north of the map, up.
    """
    south, east = np.gradient(height, *cell) if min(height.shape) > 1 else (np.zeros_like(height),) * 2
    # the normal of z(x, y) is (-dz/dx, -dz/dy, 1); dz/dy is minus the slope towards south
    cosine = (-east * sight[0] + south * sight[1] + sight[2]) / np.sqrt(1 + east**2 + south**2)
    out: Floats = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return out


def layover_shadow(distance: Floats, angle: Floats, away: tuple[float, float]) -> Bytes:
    """Return where ground lies in layover (1), in shadow (2), or in both (3).

    Parameters
    ----------
    distance
        `(y, x)` slant range, metres; NaN where the ground is not known.
    angle
        `(y, x)` angle at the platform between its nadir and the line of sight, radians.
    away
        Rows and columns of the step in which range grows fastest.
    """
    length = float(np.hypot(*away))
    down, across = away[0] / length, away[1] / length
    rows, columns = distance.shape
    # a turned grid of one pixel's step that holds the whole block: its columns run away from the radar
    corners = np.array([(r, c) for r in (0, rows - 1) for c in (0, columns - 1)], float)
    along, beside = corners @ (down, across), corners @ (-across, down)
    first, side = np.floor(along.min()), np.floor(beside.min())
    u = np.arange(first, np.ceil(along.max()) + 1)[None, :]
    v = np.arange(side, np.ceil(beside.max()) + 1)[:, None]
    there = [u * down - v * across, u * across + v * down]
    turned, seen = (map_coordinates(one, there, order=1, cval=np.nan, prefilter=False) for one in (distance, angle))
    known = np.isfinite(turned) & np.isfinite(seen)
    nearer = np.maximum.accumulate(np.where(known, turned, -np.inf), axis=1)
    farther = np.minimum.accumulate(np.where(known, turned, np.inf)[:, ::-1], axis=1)[:, ::-1]
    hidden = np.maximum.accumulate(np.where(known, seen, -np.inf), axis=1) > seen + _RADIANS
    folded = (nearer > turned + _METRES) | (farther < turned - _METRES)
    r, c = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    back = [-r * across + c * down - side, r * down + c * across - first]
    out = np.zeros(distance.shape, np.uint8)
    for mask, code in ((folded, LAYOVER), (hidden, SHADOW)):
        found = map_coordinates((mask & known).astype(np.float32), back, order=1, mode="nearest", prefilter=False)
        out |= np.where(found >= 0.5, code, 0).astype(np.uint8)
    return out
