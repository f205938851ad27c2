"""Zarr stores that are either finished or recognisably not.

A store is written into `<name>.partial` beside its final place: metadata and coordinates first, then whole chunks
(shards), one task each, then the manifest; only then does the folder get its final name. "The chunk exists" means
"done", so the same call made again after a crash writes only what is missing. The manifest holds the plan's hash and
the sha256 of every metadata file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
import zarr
from dask.delayed import Delayed, delayed
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError
from icemap_xr.execute import run_tasks
from icemap_xr.types import StrPath

#: inside a Zarr group of its own, so that listing the store's root shows Zarr nodes only
MANIFEST = "icemap/manifest.json"
_PLAN = "icemap/plan.json"
#: key of the manifest's own hash
_SELF = "sha256"


def partial_path(path: StrPath) -> Path:
    """Return where a store is written before it gets its final name."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Return the sha256 of a plan made of plain JSON types."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()


def check_writable(path: StrPath, plan: Mapping[str, Any]) -> bool:
    """Return whether the store at `path` is already finished from this very plan.

    Raises
    ------
    OutputExistsError
        Something else is there, or an unfinished store of another plan.
    """
    path, digest = Path(path), plan_hash(plan)
    if path.exists():
        if (path / MANIFEST).exists() and _read_json(path / MANIFEST).get("plan_sha256") == digest:
            return True
        raise OutputExistsError(f"{path} exists already and was made from other inputs: choose a new path or delete it")
    unfinished = partial_path(path) / _PLAN
    if unfinished.exists() and _read_json(unfinished).get("sha256") != digest:
        raise OutputExistsError(
            f"{unfinished.parent} is an unfinished store of other inputs or options: "
            "repeat that call to finish it, or delete the folder"
        )
    return False


def write_groups(
    groups: Mapping[str, xr.Dataset], path: StrPath, *, plan: Mapping[str, Any], what: str = "writing"
) -> Path:
    """Write the Dask-backed variables of datasets as whole Zarr chunks into the unfinished store; resumable.

    Each Dask block becomes one Zarr chunk (a shard where `encoding["inner_chunks"]` names smaller inner chunks), so no
    two tasks ever touch the same file. Call `finish` afterwards.

    Parameters
    ----------
    groups
        Dataset for each Zarr group; ``""`` is the root. Dask-backed variables are written block by block, all others
        at once.
    path
        Final path of the store.
    plan
        What the store is made from, as plain JSON types; decides whether an unfinished store is resumed.
    what
        Label of the progress bar.

    Returns
    -------
    Path
        The unfinished store's folder.
    """
    check_writable(path, plan)
    partial = partial_path(path)
    groups = {name: _regular(ds) for name, ds in groups.items()}
    if not (partial / _PLAN).exists():
        _write_templates(groups, partial)
        _write_json(partial / _PLAN, {"sha256": plan_hash(plan), "plan": dict(plan)})
    tasks = [
        task
        for group, ds in groups.items()
        for name, var in ds.data_vars.items()
        if var.chunks
        for task in _missing(partial / group / str(name), var)
    ]
    run_tasks(tasks, what)
    return partial


def save(ds: xr.Dataset, path: StrPath, *, what: str = "writing maps") -> xr.Dataset:
    """Write a dataset to a Zarr store of its own, resumable, and return it opened.

    Made again with the same dataset the call finishes an interrupted store, and returns at once if it is whole.

    Parameters
    ----------
    ds
        Dataset, lazy or not, such as what `predict` returns.
    path
        Zarr store to write.
    what
        Label of the progress bar.

    Raises
    ------
    OutputExistsError
        `path` holds something else.
    """
    variables = {str(name): dask.base.tokenize(var.data) for name, var in ds.variables.items()}
    plan = {"variables": variables, "attributes": ds.attrs}
    if not check_writable(path, plan):
        write_groups({"": ds}, path, plan=plan, what=what)
        finish(path, plan=plan)
    return xr.open_zarr(path, chunks={})


def finish(path: StrPath, *, plan: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Path:
    """Consolidate the metadata, write the manifest and give the store its final name."""
    partial, final = partial_path(path), Path(path)
    with warnings.catch_warnings():
        # plain xr.open_zarr() complains about stores without it, zarr about stores with it; readers matter more
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        warnings.filterwarnings("ignore", message="Object at plan.json", category=UserWarning)
        zarr.consolidate_metadata(str(partial), zarr_format=3)
    metadata = {str(f.relative_to(partial)): _sha256(f) for f in sorted(partial.rglob("zarr.json"))}
    manifest = {
        "plan_sha256": plan_hash(plan),
        "plan": dict(plan),
        "metadata_sha256": metadata,
        "software": {"icemap-xr": version("icemap-xr"), "xarray": xr.__version__, "zarr": zarr.__version__},
        **(facts or {}),
    }
    manifest[_SELF] = _own_hash(manifest)
    _write_json(partial / MANIFEST, manifest)
    (partial / _PLAN).unlink(missing_ok=True)
    os.replace(partial, final)
    return final


def manifest_is_whole(manifest: Mapping[str, Any]) -> bool:
    """Return whether a manifest still says what was written."""
    return bool(manifest.get(_SELF) == _own_hash(manifest))


def read_manifest(path: StrPath) -> dict[str, Any]:
    """Return a finished store's manifest after checking its metadata files against it.

    Raises
    ------
    InputError
        There is no store.
    IncompleteStoreError
        The store is unfinished, or a metadata file has changed.
    """
    path = Path(path)
    if not path.exists():
        if partial_path(path).exists():
            raise IncompleteStoreError(f"{path} is not finished: repeat the call that writes it, it resumes")
        raise InputError(f"{path} does not exist: give the path of a store written by icemap-xr")
    if not (path / MANIFEST).exists():
        raise IncompleteStoreError(f"{path} has no {MANIFEST}: it is no finished icemap-xr store; write it again")
    manifest = _read_json(path / MANIFEST)
    if not {"plan", "plan_sha256", "metadata_sha256"} <= set(manifest):
        raise IncompleteStoreError(f"{path / MANIFEST} is damaged (keys are missing): write the store again")
    for name, digest in manifest["metadata_sha256"].items():
        file = path / name
        if not file.exists() or _sha256(file) != digest:
            raise IncompleteStoreError(
                f"{file} is damaged or missing (its sha256 is not the manifest's): write it again"
            )
    return manifest


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
        The manifest's plan hash: part of the identity, so a rewritten store is another array.
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

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        """Read and decode a slice to float32; nodata becomes NaN."""
        array = _open_array(self.path, self.name, self.digest)
        return decode(np.asarray(array.oindex[key] if _is_fancy(key) else array[key]), dict(array.attrs))

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


@lru_cache(maxsize=256)
def _open_array(path: str, name: str, digest: str) -> zarr.Array[Any]:
    array = zarr.open_group(path, mode="r", use_consolidated=False)[name]
    assert isinstance(array, zarr.Array)
    return array


def _is_fancy(key: Any) -> bool:
    return isinstance(key, tuple) and any(isinstance(k, list | np.ndarray) for k in key)


def _regular(ds: xr.Dataset) -> xr.Dataset:
    """Rechunk lazy variables to equal chunks (the last may be smaller), as Zarr needs them."""
    lazy_vars = {name: var for name, var in ds.data_vars.items() if var.chunks}
    return ds.assign(
        {
            name: var.chunk({dim: sizes[0] for dim, sizes in zip(var.dims, var.chunks or (), strict=True)})
            for name, var in lazy_vars.items()
        }
    )


def _encoding(var: xr.Variable) -> dict[str, Any]:
    out: dict[str, Any] = {"compressors": [ZstdCodec(level=3, checksum=True)]}
    if var.chunks:
        block = tuple(sizes[0] for sizes in var.chunks)
        inner = tuple(min(i, b) for i, b in zip(var.encoding.get("inner_chunks", block), block, strict=True))
        out["chunks"] = inner if all(b % i == 0 for i, b in zip(inner, block, strict=True)) else block
        if out["chunks"] != block:
            out["shards"] = block
        missing = np.nan if np.issubdtype(var.dtype, np.floating) else None
        out["fill_value"] = var.attrs.get("_FillValue", var.encoding.get("fill_value", missing))
    return out


def _write_templates(groups: Mapping[str, xr.Dataset], partial: Path) -> None:
    """Write metadata and in-memory variables; what a crash cut short (no plan file yet) is begun anew."""
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    zarr.create_group(str(partial), zarr_format=3)
    for group, ds in groups.items():
        add_variables(ds, partial, group)
    zarr.create_group(str(partial), path="icemap", zarr_format=3)


def add_variables(ds: xr.Dataset, partial: Path, group: str = "") -> None:
    """Add in-memory variables with their values, and the metadata of lazy ones, to an unfinished store.

    What an interrupted call left of them is begun anew.
    """
    for name in ds.variables:
        shutil.rmtree(partial / group / str(name), ignore_errors=True)
    encoding: dict[Hashable, Any] = {name: _encoding(var) for name, var in ds.variables.items()}
    # a chunk of fill values is written too: what is not there is missing
    with zarr.config.set({"array.write_empty_chunks": True}):
        ds.drop_encoding().to_zarr(
            partial, group=group or None, mode="a", compute=False, zarr_format=3, consolidated=False, encoding=encoding
        )


def _missing(array_path: Path, var: xr.DataArray) -> list[Delayed]:
    """Return a write task for every block whose chunk file does not exist yet."""
    array: da.Array = var.data
    blocks = array.to_delayed()
    starts = [np.cumsum([0, *sizes]) for sizes in array.chunks]
    tasks = []
    for index in product(*(range(n) for n in array.numblocks)):
        if (array_path / "c").joinpath(*map(str, index)).exists():
            continue
        region = tuple(slice(int(s[i]), int(s[i + 1])) for s, i in zip(starts, index, strict=True))
        tasks.append(delayed(_write_block, pure=False)(str(array_path), region, blocks[index]))
    return tasks


def _write_block(path: str, region: Sequence[slice], block: NDArray[Any]) -> None:
    # zarr 3.1 ignores `config=` when it opens an array that is there already
    array = zarr.open_array(path, mode="r+").with_config({"write_empty_chunks": True})
    array[tuple(region)] = block


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name("." + path.name)
    temporary.write_text(json.dumps(content, indent=1, default=str))
    os.replace(temporary, path)


def _own_hash(manifest: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(manifest, default=str))
    return plan_hash({key: value for key, value in as_read.items() if key != _SELF})


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise IncompleteStoreError(f"{path} is damaged ({error}): write the store again") from None
    if not isinstance(content, dict):
        raise IncompleteStoreError(f"{path} is damaged (it holds no mapping): write the store again")
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
