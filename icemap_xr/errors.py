"""Every error icemap-xr raises on purpose.

::

    IcemapError
    ├── InputError (ValueError)         an argument or a file the user gave
    │   ├── SchemaError                 a dataset does not fit what the stage needs
    │   ├── GridError                   a CRS, an extent or a resolution does not fit
    │   ├── ConfigError                 a run configuration does not fit its schema
    │   ├── NotGeocodedError            a raster or collection is in radar geometry
    │   ├── AnnotationError             a product's annotation is missing, damaged or of another product
    │   ├── GeolocationError            a scene in radar geometry cannot be placed on the map
    │   ├── ElevationError              an elevation model does not cover the ground, or has voids
    │   └── UnsafeFileError             a file holds what could run code
    ├── CatalogError                    searching for scenes
    │   ├── CatalogUnavailableError     the catalogue does not answer, or is none
    │   ├── EmptySearchError            the catalogue answers, and nothing fits
    │   ├── AssetMissingError           an item lacks the asset a feature is read from
    │   └── AccessError                 an asset's address is not allowed, or its credentials are not set
    ├── ReadError (OSError)             a raster could not be read
    ├── ModelError
    │   ├── UnknownModelError           no such model name or path
    │   ├── WeightsError                a weight file is not what it claims to be
    │   ├── ModelMismatchError          model and cube do not belong together
    │   └── DeviceMemoryError           not even one window fits in the memory of the GPU or machine
    ├── ClusterError                     a Dask cluster does not start, or cannot be used
    │   └── VersionMismatchError        client, scheduler and workers have different packages
    ├── PlanError                        a plan of tiles is not the one that was asked for, or damaged
    ├── StoreError
    │   ├── OutputExistsError           the output is already there
    │   ├── StoreBusyError              another process is writing the store
    │   ├── IncompleteStoreError        a store whose writing has not finished
    │   │   └── DamagedChunkError       one chunk of a finished store is missing or cannot be decoded
    │   └── IncompleteRunError          some blocks failed, the others are written
    │       └── IncompleteReadError     ... because rasters could not be read (also a ReadError)
    └── MissingExtraError (ImportError) an optional dependency is not installed

    IcemapWarning (UserWarning)
    ├── CroppedCubeWarning              the cube is a piece of its region
    ├── ModelMismatchWarning            polarisation or radiometry are not the model's
    ├── UnequalGroundWarning            years are compared that saw different ground
    ├── CalibrationMismatchWarning      a calibrator was fitted on another kind of map
    ├── InSampleWarning                 a calibrator is judged by the data it was fitted to
    ├── OutsideBlocksWarning            mapped ground lies in no block
    ├── DividesWarning                  glaciers overlap, or ice belongs to no flowshed
    ├── GeolocationWarning              a scene lies off its place by more than its pixels allow
    └── UncalibratedWarning             uncalibrated probabilities are summed to an area

Each message is one line: the value, what is allowed, and what to do.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
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


class UnsafeFileError(InputError):
    """A file holds what could run code when it is loaded; nothing of it was run."""


class NotGeocodedError(InputError):
    """A raster or a collection is in radar geometry: calibrate and geocode it first."""


class AnnotationError(InputError):
    """A product's annotation is missing, cannot be read, or belongs to another product."""


class GeolocationError(InputError):
    """A scene in radar geometry lacks what places it on the map."""


class ElevationError(InputError):
    """An elevation model does not cover the ground, has voids, or its heights are not known to be ellipsoidal."""


class NothingObservedError(InputError):
    """A map without a single observed pixel has no area to tell."""


class CatalogError(IcemapError):
    """Scenes could not be found."""


class CatalogUnavailableError(CatalogError):
    """The catalogue does not answer, or what answers is no STAC catalogue."""


class EmptySearchError(CatalogError):
    """The catalogue answers, and no scene fits the request."""


class AssetMissingError(CatalogError):
    """An item lacks the asset a feature is read from."""


class AccessError(CatalogError):
    """The profile does not allow the address of an asset, or credentials that it names are not set."""


class ReadError(IcemapError, OSError):
    """A raster could not be read.

    `given_up` says that the reader's own tries and deadline are over, so that nobody else shall try again.
    """

    given_up = False


class ModelError(IcemapError):
    """A model could not be loaded or used."""


class UnknownModelError(ModelError):
    """No model of that name or at that path."""


class WeightsError(ModelError):
    """A weight file is damaged, unsafe, or belongs to another architecture."""


class ModelMismatchError(ModelError):
    """The cube does not offer what the model needs."""


class DeviceMemoryError(ModelError):
    """Not even one window fits in the memory of the device that computes."""


class ClusterError(IcemapError):
    """A Dask cluster does not start, gives no workers, or cannot be used."""


class VersionMismatchError(ClusterError):
    """Client, scheduler and workers have different versions of packages."""


class PlanError(IcemapError):
    """A plan of tiles was made by another version or with other options, is damaged, or is not there."""


class StoreError(IcemapError):
    """A Zarr store could not be written or read."""


class OutputExistsError(StoreError):
    """The output exists already and would be overwritten."""


class IncompleteStoreError(StoreError):
    """A store whose writing has not finished, or that is damaged."""


class DamagedChunkError(IncompleteStoreError):
    """One chunk of a finished store is missing or cannot be decoded; the others may well be whole."""


class StoreBusyError(StoreError):
    """Another process, or another thread of this one, is writing the store."""


@dataclass(frozen=True)
class Failure:
    """A block of a store that could not be made.

    Parameters
    ----------
    array
        Array of the store.
    block
        Position of the block along each dimension.
    tries
        How often it was tried.
    cause
        The last error, without credentials.
    """

    array: str
    block: tuple[int, ...]
    tries: int
    cause: str


class IncompleteRunError(StoreError):
    """Blocks failed and were set aside, or the scheduler was lost; what is written stays, and the call resumes.

    Parameters
    ----------
    message
        One line.
    failures
        The blocks that are missing because they failed.
    """

    def __init__(self, message: str, failures: Iterable[Failure] = ()) -> None:
        super().__init__(message)
        self.failures = tuple(failures)


class IncompleteReadError(IncompleteRunError, ReadError):
    """Blocks are missing because their rasters could not be read."""


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


class CalibrationMismatchWarning(IcemapWarning):
    """A calibrator is applied to another kind of map than it was fitted on."""


class InSampleWarning(IcemapWarning):
    """A calibrator is judged by the data it was fitted to."""


class OutsideBlocksWarning(IcemapWarning):
    """Some mapped ground lies in none of the blocks, and is not in their sums."""


class DividesWarning(IcemapWarning):
    """Glaciers of an inventory overlap, or ice could not be given to a flowshed."""


class GeolocationWarning(IcemapWarning):
    """Scenes lie off their place by more than half a pixel, so that a shift may look like change."""


class UncalibratedWarning(IcemapWarning):
    """Probabilities are summed to an area although they were never calibrated."""


def warn(message: str, category: type[IcemapWarning]) -> None:
    """Warn at the first caller outside this package, whether it came through the accessor or not."""
    here = str(Path(__file__).parent)
    level, frame = 1, sys._getframe()
    while frame.f_code.co_filename.startswith(here) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
