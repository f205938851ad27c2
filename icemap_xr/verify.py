"""Check a finished store: every metadata file against the manifest, every chunk against its checksum."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import zarr

from icemap_xr import store
from icemap_xr.progress import progress
from icemap_xr.types import StrPath


def verify(path: StrPath) -> list[str]:
    """Read every chunk of a store written by icemap-xr and return what is wrong, one line each.

    Parameters
    ----------
    path
        A finished store.

    Returns
    -------
    list of str
        Damaged or missing chunks, and a manifest that was changed; empty if the store is whole.

    Raises
    ------
    IncompleteStoreError
        The store is unfinished, or a metadata file is damaged.
    InputError
        There is no store.
    """
    manifest = store.read_manifest(path)
    names = [str(Path(name).parent) for name in manifest["metadata_sha256"]]
    nodes = [(name, zarr.open(str(Path(path) / name), mode="r")) for name in names]
    arrays = [(name, node) for name, node in nodes if isinstance(node, zarr.Array)]
    problems = [] if store.manifest_is_whole(manifest) else [f"{store.MANIFEST}: is damaged (its sha256 differs)"]
    with progress("checking", sum(_count(array) for _, array in arrays)) as advance:
        for name, array in arrays:
            for fault in _faults(Path(path) / name, array):
                if fault:
                    problems.append(f"{name}: {fault}")
                advance(1)
    return problems


def _grid(array: zarr.Array[Any]) -> tuple[tuple[int, ...], list[range]]:
    sides = array.shards or array.chunks
    return sides, [range(-(-size // side)) for size, side in zip(array.shape, sides, strict=True)]


def _count(array: zarr.Array[Any]) -> int:
    count = 1
    for axis in _grid(array)[1]:
        count *= len(axis)
    return count


def _faults(folder: Path, array: zarr.Array[Any]) -> Iterator[str | None]:
    """Yield one entry per chunk: None, or what is wrong with it."""
    sides, axes = _grid(array)
    for index in product(*axes):
        key = "/".join(["c", *map(str, index)])
        if not (folder / key).exists():
            yield f"chunk {key} is missing"
            continue
        try:
            array[tuple(slice(i * side, (i + 1) * side) for i, side in zip(index, sides, strict=True))]
        except Exception as error:  # whatever a codec makes of damaged bytes, it is damage
            yield f"chunk {key} is damaged ({type(error).__name__})"
        else:
            yield None
