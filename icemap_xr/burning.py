"""Polygons drawn into pixels, by any number of threads."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock
from typing import Any

from numpy.typing import NDArray
from rasterio import features

_LOCK = Lock()


def rasterize(shapes: Any, shape: Iterable[int], **options: Any) -> NDArray[Any]:
    """Return `rasterio.features.rasterize`, one call at a time.

    rasterio silences a warning of its own in a way that threads undo for each other: at worst the warnings of a whole
    process are lost, or its filters stay changed.

    Parameters
    ----------
    shapes
        Geometries, or pairs of geometry and value.
    shape
        Rows and columns.
    **options
        `transform`, `fill`, `dtype`, `all_touched`.
    """
    with _LOCK:
        burnt: NDArray[Any] = features.rasterize(shapes, tuple(shape), **options)
    return burnt
