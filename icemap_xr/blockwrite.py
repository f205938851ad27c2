"""Blocks of lazy arrays as whole chunks of a store: which are missing, their tasks, and the writing itself.

A chunk file appears complete or not at all, and never changes once it is there; so "the chunk exists" means "done",
whoever is killed, and a task that runs twice does no harm.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.array.optimization import optimize
from dask.base import tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from icemap_xr import manifest as files
from icemap_xr.errors import IncompleteStoreError, StoreError

#: what a disk says that takes no more
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


@dataclass(frozen=True)
class Block:
    """One chunk of one array of a store, by its position along each dimension."""

    array: str
    index: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.array}{list(self.index)}"


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Raise `StoreError` where a disk takes no more."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StoreError(
            f"{path} could not be written ({error.strerror}): free space on its disk and repeat the call; it resumes"
        ) from error


def encoding(var: xr.Variable) -> dict[str, Any]:
    """Return the chunks, checksummed compression and fill value that a variable is stored with."""
    out: dict[str, Any] = {"compressors": var.encoding.get("compressors", [ZstdCodec(level=3, checksum=True)])}
    if var.chunks:
        block = tuple(sizes[0] for sizes in var.chunks)
        inner = tuple(min(i, b) for i, b in zip(var.encoding.get("inner_chunks", block), block, strict=True))
        out["chunks"] = inner if all(b % i == 0 for i, b in zip(inner, block, strict=True)) else block
        if out["chunks"] != block:
            out["shards"] = block
        missing = np.nan if np.issubdtype(var.dtype, np.floating) else None
        out["fill_value"] = var.attrs.get("_FillValue", var.encoding.get("fill_value", missing))
    return out


def write_templates(groups: Mapping[str, xr.Dataset], partial: Path) -> None:
    """Write metadata and in-memory variables; what a crash cut short (no plan file yet) is begun anew."""
    partial.mkdir(parents=True, exist_ok=True)
    own = Path(files.LOCK).parent
    for entry in [*partial.iterdir(), *(partial / own).glob("*")]:
        # the lock stays, or another writer could take it
        if entry not in (partial / own, partial / files.LOCK):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    zarr.create_group(str(partial), zarr_format=3)
    zarr.create_group(str(partial), path=str(own), zarr_format=3)
    for group, ds in groups.items():
        add_variables(ds, partial, group)
    for name in files.store_files(partial):
        files.flush(partial / name)


def add_variables(ds: xr.Dataset, partial: Path, group: str = "") -> None:
    """Add in-memory variables with their values, and the metadata of lazy ones, to an unfinished store.

    What an interrupted call left of them is begun anew.
    """
    for name in ds.variables:
        shutil.rmtree(partial / group / str(name), ignore_errors=True)
    encodings: dict[Hashable, Any] = {name: encoding(var) for name, var in ds.variables.items()}
    # a chunk of fill values is written too: what is not there is missing
    with zarr.config.set({"array.write_empty_chunks": True}):
        ds.drop_encoding().to_zarr(
            partial, group=group or None, mode="a", compute=False, zarr_format=3, consolidated=False, encoding=encodings
        )


def restore_templates(groups: Mapping[str, xr.Dataset], arrays: Iterable[str], partial: Path) -> None:
    """Write again all of an unfinished store but its lazy arrays: metadata of groups and in-memory variables.

    They are small, and nothing else would tell that they were changed or lost while nobody was writing. Lazy arrays
    stay: their metadata are checked (`check_metadata`), and a task left over from an earlier call may read them.

    Parameters
    ----------
    groups
        Dataset for each Zarr group.
    arrays
        Lazy arrays by their path in the store.
    partial
        Folder of the unfinished store.
    """
    draft = partial / files.DRAFT
    write_templates(groups, draft)
    for group, ds in groups.items():
        for name in (name for name, var in ds.variables.items() if not var.chunks):
            shutil.rmtree(partial / group / str(name), ignore_errors=True)
    lazy = tuple(f"{name}/" for name in arrays)
    for file in list(files.store_files(draft)):
        if not file.startswith(lazy):
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft / file, partial / file)
    shutil.rmtree(draft)
    # after a repair the log knows the old bytes; gzip writes the time into new ones
    logged = files.read_table(partial / files.LOG)
    files.write_table(partial / files.LOG, {name: logged[name] for name in logged if name.startswith(lazy)})


def array_metadata(arrays: Iterable[str], partial: Path) -> dict[str, str]:
    """Return the sha256 of the metadata of arrays, by their path in the store."""
    return {name: files.file_hash(partial / name / "zarr.json") for name in arrays}


def check_metadata(arrays: Iterable[str], partial: Path) -> None:
    """Raise `IncompleteStoreError` where the metadata of lazy arrays are not those their blocks were made for."""
    known = files.read_json(partial / files.PLAN, f"delete {partial} and repeat").get("metadata_sha256", {})
    for name in arrays:
        file = partial / name / "zarr.json"
        if not file.exists() or files.file_hash(file) != known.get(name):
            raise IncompleteStoreError(f"{file} was changed or lost since it was written: delete {partial} and repeat")


def remove_spoilt(arrays: Iterable[str], partial: Path) -> None:
    """Remove chunks that cannot be decoded, of those whose hash was not noted: a power cut may leave a part of one."""
    logged = files.read_table(partial / files.LOG)
    for name in arrays:
        array = zarr.open_array(str(partial / name), mode="r")
        for key in files.chunk_keys(files.read_json(partial / name / "zarr.json")):
            chunk = files.chunk_file(key)
            if f"{name}/{chunk}" in logged or not files.is_written(partial / name / chunk):
                continue
            try:
                array[_region(array, key)]
            except (RuntimeError, ValueError):  # what zarr's codecs raise
                (partial / name / chunk).unlink()


def _region(array: Any, index: tuple[int, ...]) -> tuple[slice, ...]:
    """Return where a chunk (shard) lies."""
    sides = array.shards or array.chunks
    edges = zip(index, sides, array.shape, strict=True)
    return tuple(slice(i * side, min((i + 1) * side, size)) for i, side, size in edges)


def missing_blocks(arrays: Mapping[str, xr.DataArray], partial: Path) -> list[Block]:
    """Return the blocks whose chunk is not there, those of the same place in several arrays side by side.

    So what arrays share is computed once, although blocks are computed in batches.
    """
    dims = list(dict.fromkeys(dim for var in arrays.values() for dim in var.dims))
    placed = []
    for order, (name, var) in enumerate(arrays.items()):
        edges = {dim: np.cumsum([0, *sizes]) for dim, sizes in zip(var.dims, var.data.chunks, strict=True)}
        for index in np.ndindex(*var.data.numblocks):
            if not files.is_written(partial / name / files.chunk_file(index)):
                place = dict(zip(var.dims, index, strict=True))
                corner = [int(edges[dim][place[dim]]) if dim in place else -1 for dim in dims]
                placed.append((corner, order, Block(name, index)))
    return [block for _, _, block in sorted(placed, key=lambda one: one[:2])]


@dataclass(frozen=True)
class BlockTasks:
    """Makes the tasks of a batch of blocks, so that no graph ever holds all of them.

    Parameters
    ----------
    arrays
        The lazy arrays by name.
    partial
        Folder of the unfinished store.
    plan
        Hash of what the store is made from: a task left over from another plan writes nothing.
    token, counter
        Make the names of tasks unique.
    """

    arrays: Mapping[str, da.Array]
    partial: Path
    plan: str
    token: str = field(default_factory=lambda: uuid4().hex)
    counter: Iterator[int] = field(default_factory=count)

    def __call__(self, blocks: Sequence[Block]) -> list[Delayed]:
        """Return one task per block; its result is the sha256 of the chunk's file.

        Computing and writing a block become one task wherever nothing else needs the block, so that a killed worker
        loses what it was computing and nothing that waited to be written.
        """
        written = {name: self._written(name) for name in dict.fromkeys(block.array for block in blocks)}
        keys: list[Any] = [(written[block.array].name, *block.index) for block in blocks]
        graph = HighLevelGraph.merge(*(array.dask for array in written.values()))
        # all arrays together: what two of them share stays one task
        layer = f"icemap-batch-{tokenize(keys)}"
        batch = HighLevelGraph.from_collections(layer, optimize(graph, keys), dependencies=())
        return [Delayed(key, batch, layer=layer) for key in keys]

    def _written(self, name: str) -> da.Array:
        array = self.arrays[name]
        return da.map_blocks(
            _write_block,
            array,
            partial=str(self.partial),
            plan=self.plan,
            array=name,
            chunks=tuple((1,) * number for number in array.numblocks),
            dtype=object,
            meta=np.empty((0,) * array.ndim, object),
            # another try is another task; names of one length keep the order of the blocks
            name=f"icemap-write-{self.token}-{next(self.counter):06d}",
        )


def _write_block(values: NDArray[Any], partial: str, plan: str, array: str, block_id: tuple[int, ...]) -> str:
    return write_chunk(partial, plan, Block(array, tuple(map(int, block_id))), values)


def write_chunk(partial: str, plan: str, block: Block, values: NDArray[Any]) -> str:
    """Write one whole chunk and return the sha256 of its file; a chunk that is there already stays as it is.

    Raises
    ------
    IncompleteStoreError
        The store is no longer being written from this plan: this task was left over from a call that has ended.
    StoreError
        The disk is full.
    """
    folder, key = Path(partial), files.chunk_file(block.index)
    with disk_errors(folder):
        content = _encoded(folder / block.array, block.index, values)
        if not (folder / files.PLAN).exists() or files.read_json(folder / files.PLAN).get("sha256") != plan:
            raise IncompleteStoreError(f"{folder} is not being written from this plan any more: nothing was written")
        if _publish(content, folder / block.array, key):
            return hashlib.sha256(content).hexdigest()
        return files.file_hash(folder / block.array / key)


def _encoded(array_path: Path, index: tuple[int, ...], values: NDArray[Any]) -> bytes:
    """Return the bytes of a chunk, shard and checksums included, as Zarr writes them."""
    make = default_buffer_prototype().buffer.from_bytes
    memory: dict[str, Buffer] = {"zarr.json": make((array_path / "zarr.json").read_bytes())}
    # zarr 3.1 ignores `config=` when it opens an array that is there already
    array = zarr.open_array(MemoryStore(memory), mode="r+").with_config({"write_empty_chunks": True})
    array[_region(array, index)] = values
    return memory[files.chunk_file(index)].to_bytes()


def _publish(content: bytes, array_path: Path, key: str) -> bool:
    """Give a chunk its name once it is whole; of two who write the same chunk the first wins, which is returned."""
    target = array_path / key
    if files.is_written(target):
        return False
    # no folder above the array is made: a store that was finished meanwhile must not begin anew
    folder = array_path
    for part in Path(key).parent.parts:
        folder = folder / part
        folder.mkdir(exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid4().hex}{files.TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            # the name must not outlive the content in a power cut
            file.flush()
            os.fsync(file.fileno())
        return _named(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _named(temporary: Path, target: Path) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        if files.is_written(target):
            return False
        os.replace(temporary, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without hard links
        os.replace(temporary, target)
    return True
