"""Mapping intervals of the areas of single outlines, from the lengths of their edges."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from icemap_xr.edgeerrors import EdgeErrors, PlaceErrors, read_edge_errors
from icemap_xr.errors import InputError
from icemap_xr.kernels.draws import generator, percentile_interval
from icemap_xr.types import FloatArray, StrPath

#: the columns say which interval they are; its level and seed are fixed, so that they need not be kept beside it
LEVEL, _SEED, _DRAWS = 0.95, 42, 1000
#: pixel sides are this much longer than a smooth edge of any direction (Cauchy and Crofton), as in kernels/edges.py
_SMOOTH = math.pi / 4
#: draws times pieces of edge held at once
_CELLS = 2**20


def load_edge_errors(path: StrPath) -> dict[str, Any]:
    """Return the edge errors in a JSON file; they are checked where they are used.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"edge errors {str(path)!r} cannot be read ({error}): give a JSON file") from None
    return content


def outline_intervals(
    geometry: NDArray[np.object_],
    area_km2: FloatArray,
    years: NDArray[np.int64],
    edge_errors: Mapping[str, Any],
    threshold: float,
) -> NDArray[np.float64]:
    """Return the 95 % mapping interval of the true area of each outline.

    As in `icemap_xr.glacierareas.glacier_area`, errors of the edge's position are drawn for pieces of the edge and
    multiplied with its length; outlines share the effects of region and year. The whole perimeter counts as edge, also
    where the map ends or nothing was observed. Errors of mapped ice that is farther from the edge than `near_m`, such
    as a lake that was taken for ice (`inside_errors`), are drawn likewise, one for each block of it. What else is wrong
    away from the edge, glaciers that were missed (`away_errors`), is ground of no outline and in no interval; and an
    interval says nothing about whether there is a glacier at all.

    Parameters
    ----------
    geometry
        Outlines `(row,)` along pixel sides, in metres.
    area_km2
        Their areas, km2.
    years
        Year of each.
    edge_errors
        What `icemap_xr.glacierareas.held_out_edge_errors` makes with ``method="hard"``.
    threshold
        Threshold of the outlines.

    Returns
    -------
    ndarray
        `(row, 2)` float64, km2: low, high; not below 0.

    Raises
    ------
    InputError
        The errors cannot be used, or are of another method or threshold.
    """
    model = read_edge_errors(edge_errors, method="hard", threshold=threshold)
    shared = generator(_SEED, 0, published=False)
    known, year = np.unique(years, return_inverse=True)
    edge_common, inside_common = (_common(shared, one, len(known)) for one in (model.edge, model.inside))
    edge = shapely.length(geometry) * _SMOOTH
    inside, piece_km2 = _inside_km2(geometry, model), _piece_km2(model)
    out = np.empty((len(edge), 2))
    for row, length in enumerate(edge):
        rng = generator(_SEED, row + 1, published=False)
        position = _mean_of_pieces(rng, model.errors, length / model.segment) + edge_common[year[row]]
        errors = length * position / 1e6
        if inside[row] > 0:
            share = _mean_of_pieces(rng, model.inside.errors, inside[row] / piece_km2) + inside_common[year[row]]
            errors += inside[row] * share
        out[row] = percentile_interval((area_km2[row] - errors)[None], LEVEL)[0]
    return np.maximum(out, 0.0)


def _common(rng: np.random.Generator, place: PlaceErrors, years: int) -> FloatArray:
    """Return what all outlines share, `(year, draw)`."""
    everywhere = place.region[rng.integers(len(place.region), size=_DRAWS)]
    return everywhere + place.year[rng.integers(len(place.year), size=(years, _DRAWS))]


def _mean_of_pieces(rng: np.random.Generator, errors: FloatArray, pieces: float) -> FloatArray:
    """Return draws `(draw,)` of the mean of so many independent errors, at least one."""
    count, total = max(1, math.ceil(pieces)), np.zeros(_DRAWS)
    for first in range(0, count, _CELLS // _DRAWS):
        some = min(_CELLS // _DRAWS, count - first)
        total += errors[rng.integers(len(errors), size=(some, _DRAWS))].sum(axis=0)
    return total / count


def _inside_km2(geometry: NDArray[np.object_], model: EdgeErrors) -> FloatArray:
    """Return how much of each outline is farther from its edge than the errors of the edge reach, km2."""
    if not any(np.any(one) for one in model.inside[:3]):
        return np.zeros(len(geometry))
    # along pixel sides a mitred border is that of the square by which distance is measured in the fit
    core = shapely.buffer(geometry, -model.near, join_style="mitre")
    return np.asarray(shapely.area(core) / 1e6, np.float64)


def _piece_km2(model: EdgeErrors) -> float:
    """Return how much ground away from the edge counts as one independent piece, km2."""
    # the integral of exp(-d / reach) over the plane
    apart = 2 * math.pi * model.inside.reach_m**2
    return max(apart, 0.0 if math.isnan(model.block) else model.block**2, 1.0) / 1e6
