"""Every error icemap-xr raises on purpose.

::

    IcemapError
    ├── InputError (ValueError)         an argument or a file the user gave
    │   ├── SchemaError                 a dataset does not fit what the stage needs
    │   ├── GridError                   a CRS, an extent or a resolution does not fit
    │   └── ConfigError                 a run configuration does not fit its schema
    ├── CatalogError                    searching for scenes
    │   ├── CatalogUnavailableError     the catalogue does not answer, or is none
    │   ├── EmptySearchError            the catalogue answers, and nothing fits
    │   └── AssetMissingError           an item lacks the asset a feature is read from
    ├── ReadError (OSError)             a raster could not be read
    ├── ModelError
    │   ├── UnknownModelError           no such model name or path
    │   ├── WeightsError                a weight file is not what it claims to be
    │   └── ModelMismatchError          model and cube do not belong together
    ├── StoreError
    │   ├── OutputExistsError           the output is already there
    │   └── IncompleteStoreError        a store whose writing has not finished
    └── MissingExtraError (ImportError) an optional dependency is not installed

    IcemapWarning (UserWarning)
    ├── CroppedCubeWarning              the cube is a piece of its region
    ├── ModelMismatchWarning            polarisation or radiometry are not the model's
    ├── UnequalGroundWarning            years are compared that saw different ground
    └── UncalibratedWarning             uncalibrated probabilities are summed to an area

Each message is one line: the value, what is allowed, and what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path


class IcemapError(Exception):
    """Base of all errors raised on purpose by icemap-xr."""


class InputError(IcemapError, ValueError):
    """An argument or a file given by the user cannot be used."""


class SchemaError(InputError):
    """A dataset lacks a variable, dimension, unit or CRS that a stage needs."""


class GridError(InputError):
    """A grid, region or CRS cannot be used."""


class ConfigError(InputError):
    """A run configuration does not fit its schema."""


class CatalogError(IcemapError):
    """Scenes could not be found."""


class CatalogUnavailableError(CatalogError):
    """The catalogue does not answer, or what answers is no STAC catalogue."""


class EmptySearchError(CatalogError):
    """The catalogue answers, and no scene fits the request."""


class AssetMissingError(CatalogError):
    """An item lacks the asset a feature is read from."""


class ReadError(IcemapError, OSError):
    """A raster could not be read."""


class ModelError(IcemapError):
    """A model could not be loaded or used."""


class UnknownModelError(ModelError):
    """No model of that name or at that path."""


class WeightsError(ModelError):
    """A weight file is damaged, unsafe, or belongs to another architecture."""


class ModelMismatchError(ModelError):
    """The cube does not offer what the model needs."""


class StoreError(IcemapError):
    """A Zarr store could not be written or read."""


class OutputExistsError(StoreError):
    """The output exists already and would be overwritten."""


class IncompleteStoreError(StoreError):
    """A store whose writing has not finished, or that is damaged."""


class MissingExtraError(IcemapError, ImportError):
    """An optional dependency is not installed."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return `` (did you mean 'x'?)`` for the nearest known name, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


class IcemapWarning(UserWarning):
    """Base of all warnings: the result is what was asked for, and may not be what was meant."""


class CroppedCubeWarning(IcemapWarning):
    """The cube is a piece of its region; near the cut, a map differs from the region's."""


class ModelMismatchWarning(IcemapWarning):
    """The cube's polarisation or radiometry is not what the model was trained on."""


class UnequalGroundWarning(IcemapWarning):
    """Years are compared of which not the same ground was observed."""


class UncalibratedWarning(IcemapWarning):
    """Probabilities are summed to an area although they were never calibrated."""


def warn(message: str, category: type[IcemapWarning]) -> None:
    """Warn at the first caller outside this package, whether it came through the accessor or not."""
    here = str(Path(__file__).parent)
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(here) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
