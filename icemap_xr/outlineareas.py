"""Mapping intervals of the areas of single outlines, from the lengths of their edges."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError
from icemap_xr.glacierareas import read_edge_errors
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
    area_km2: FloatArray,
    perimeter_m: FloatArray,
    years: NDArray[np.int64],
    edge_errors: Mapping[str, Any],
    threshold: float,
) -> NDArray[np.float64]:
    """Return the 95 % mapping interval of the true area of each outline.

    As in `icemap_xr.glacierareas.glacier_area`, errors of the edge's position are drawn for pieces of the edge and
    multiplied with its length; outlines share the effects of region and year. The whole perimeter counts as edge, also
    where the map ends or nothing was observed.

    Parameters
    ----------
    area_km2
        Areas `(row,)`, km2.
    perimeter_m
        Lengths of the outlines along pixel sides, holes included, m.
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
    everywhere = model.region_effect[shared.integers(len(model.region_effect), size=_DRAWS)]
    known, year = np.unique(years, return_inverse=True)
    yearly = model.year_effect[shared.integers(len(model.year_effect), size=(len(known), _DRAWS))]
    edge = perimeter_m * _SMOOTH
    out = np.empty((len(edge), 2))
    for row, length in enumerate(edge):
        rng = generator(_SEED, row + 1, published=False)
        pieces, total = max(1, math.ceil(length / model.segment)), np.zeros(_DRAWS)
        for first in range(0, pieces, _CELLS // _DRAWS):
            count = min(_CELLS // _DRAWS, pieces - first)
            total += model.errors[rng.integers(len(model.errors), size=(count, _DRAWS))].sum(axis=0)
        position = total / pieces + yearly[year[row]] + everywhere
        out[row] = percentile_interval(area_km2[row] - (length * position / 1e6)[None], LEVEL)[0]
    return np.maximum(out, 0.0)
