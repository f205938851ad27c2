"""What a product was made from, as plain JSON types and without credentials."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from icemap_xr import urls

#: packages whose version decides the numbers in a product
_PACKAGES = ("icemap-xr", "numpy", "scipy", "xarray", "dask", "zarr", "shapely", "geopandas", "keras", "tensorflow")

_SECRET = re.compile(
    r"passw|secret|token|credential|authori[sz]ation|signature|cookie|api_?key|access_?key|account_?key|(^|_)sas($|_)",
    re.IGNORECASE,
)


def scrub(value: Any) -> Any:
    """Return a copy in plain JSON types without credentials.

    URLs lose their user, password, query and fragment wherever they stand in a text; entries whose name says that they
    are secret are dropped. NaN and infinities become None, and what JSON has no type for becomes text.
    """
    if isinstance(value, Mapping):
        return {str(key): scrub(one) for key, one in value.items() if not _SECRET.search(str(key))}
    if isinstance(value, np.ndarray):
        return scrub(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [scrub(one) for one in (sorted(value, key=str) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return urls.scrub(value)


def software() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
