"""One array of a finished store as a small, picklable array-like, and the 16-bit encoding of its values."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from icemap_xr.errors import DamagedChunkError, IncompleteStoreError, InputError
from icemap_xr.manifest import MANIFEST, load_manifest


@dataclass(frozen=True)
class StoreArray:
    """One variable of a finished store as a small, picklable array-like that decodes what it reads.

    It carries a path, never pixels; each process opens the store once. Dask arrays made of it are recognised by
    `untouched`, so that a task may read its own slice straight from the store.

    Parameters
    ----------
    path
        Folder of the store.
    name
        Variable name.
    shape
        Shape of the variable.
    digest
        The manifest's hash of all files: part of the identity, so a store with other content is another array.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    digest: str

    dtype = np.dtype("float32")

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def chunk_rows(self) -> int:
        """Rows along y that are decoded together; reading fewer costs as much."""
        return int(_open_array(self.path, self.name, self.digest).chunks[-2])

    @property
    def stored(self) -> tuple[tuple[int, ...], int]:
        """Shape of the smallest piece that is read, and bytes of one stored value."""
        array = _open_array(self.path, self.name, self.digest)
        return tuple(map(int, array.chunks)), array.dtype.itemsize

    @property
    def blocks(self) -> tuple[int, ...]:
        """Shape of the pieces that were written by one task each: chunks, or shards where there are."""
        array = _open_array(self.path, self.name, self.digest)
        return tuple(map(int, array.shards or array.chunks))

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read and decode a slice to float32; nodata becomes NaN."""
        array = _open_array(self.path, self.name, self.digest)
        if _stamp(self.path) != _stamp_when_opened(self.path, self.digest):
            _open_array.cache_clear()
            _stamp_when_opened.cache_clear()
            array = _open_array(self.path, self.name, self.digest)
        try:
            raw = np.asarray(array.oindex[key] if _is_fancy(key) else array[key])
        except (RuntimeError, ValueError) as error:  # what zarr's codecs raise
            raise DamagedChunkError(
                f"{self.name} of {self.path} cannot be decoded at {key} ({' '.join(str(error).split())}): run icemap "
                f"verify {shlex.quote(self.path)}, which finds the damage and says how to repair it"
            ) from error
        return decode(raw, dict(array.attrs))

    def __dask_tokenize__(self) -> tuple[str, ...]:
        """Return a deterministic identity."""
        return ("icemap_xr.StoreArray", self.path, self.name, self.digest)


def decode(raw: NDArray[Any], attrs: Mapping[str, Any]) -> NDArray[np.float32]:
    """Decode int16 codes with CF attributes to float32; floats pass through."""
    if not np.issubdtype(raw.dtype, np.integer):
        return np.asarray(raw, np.float32)
    values = raw.astype(np.float32) * np.float32(attrs["scale_factor"]) + np.float32(attrs.get("add_offset", 0.0))
    values[raw == attrs["_FillValue"]] = np.nan
    return values


def encode(values: NDArray[Any], step: float, nodata: int) -> NDArray[np.int16]:
    """Encode values as multiples of `step`; NaN becomes `nodata`.

    Raises
    ------
    InputError
        A finite value does not fit in 16 bits.
    """
    codes = np.rint(np.asarray(values, np.float64) / step)
    valid = np.isfinite(values)
    if valid.any() and np.abs(codes[valid]).max() > 32767:
        worst = np.asarray(values)[valid][np.abs(codes[valid]).argmax()]
        raise InputError(f"value {worst:g} does not fit in steps of {step:g} (at most {32767 * step:g}): wrong units?")
    return np.where(valid, codes, nodata).astype(np.int16)


def untouched(array: Any) -> StoreArray | None:
    """Return the store array behind a Dask array on which nothing was done since it was opened, else None."""
    if not isinstance(array, da.Array):
        return None
    layer = array.dask.layers.get(f"original-{array.name}")
    source = next(iter(layer.values()), None) if layer is not None else None
    return source if isinstance(source, StoreArray) else None


def lazy(source: StoreArray, chunks: Any) -> da.Array:
    """Return a Dask array over a store array."""
    name = f"icemap-{source.name}-{dask.base.tokenize(source, chunks)}"
    return da.from_array(source, chunks=chunks, name=name, asarray=False, meta=np.empty((0,) * source.ndim, np.float32))


class _StrictStore(LocalStore):
    """A store in which a chunk that is not there is damage, not a chunk of fill values: every chunk was written."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file's content; raises `DamagedChunkError` if it is a missing chunk."""
        found = await super().get(key, prototype, byte_range)
        if found is None and not key.endswith(("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")):
            raise DamagedChunkError(
                f"chunk {key} of {self.root} is missing: run icemap verify {shlex.quote(str(self.root))}, "
                "which says how to repair it"
            )
        return found


def _stamp(path: str) -> tuple[int, int] | None:
    """Return what changes when a store is written anew; None in a bucket."""
    if path.startswith("s3://"):
        return None
    try:
        found = os.stat(Path(path) / MANIFEST)
    except OSError:
        raise IncompleteStoreError(f"{path} is gone or has lost its manifest since it was opened") from None
    return found.st_mtime_ns, found.st_ino


@lru_cache(maxsize=256)
def _stamp_when_opened(path: str, digest: str) -> tuple[int, int] | None:
    return _stamp(path)


@lru_cache(maxsize=256)
def _open_array(path: str, name: str, digest: str) -> zarr.Array[Any]:
    _stamp_when_opened(path, digest)
    if not path.startswith("s3://") and load_manifest(path).get("files_sha256") != digest:
        raise IncompleteStoreError(f"{path} was written anew since it was opened: open it again")
    store: Any = _StrictStore(path, read_only=True)
    if path.startswith("s3://"):
        # takes a moment to import, which only stores in buckets should pay
        from icemap_xr.objectstore import files_digest, zarr_store

        if files_digest(path) != digest:
            raise IncompleteStoreError(f"{path} was published anew since it was opened: open it again")
        store = zarr_store(path)
    array = zarr.open_group(store, mode="r", use_consolidated=False)[name]
    assert isinstance(array, zarr.Array)
    return array


def _is_fancy(key: Any) -> bool:
    return isinstance(key, tuple) and any(isinstance(k, list | np.ndarray) for k in key)
