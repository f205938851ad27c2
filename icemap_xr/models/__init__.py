"""Models: networks, their files, and loading them as predictors.

Importing this package imports no TensorFlow; building a network does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from icemap_xr.models.bundle import ModelBundle
    from icemap_xr.models.registry import list_models, load_model

__all__ = ["ModelBundle", "list_models", "load_model"]

_HOME = {
    "ModelBundle": "icemap_xr.models.bundle",
    "list_models": "icemap_xr.models.registry",
    "load_model": "icemap_xr.models.registry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
