"""Zarr stores that are either finished or recognisably not.

A store is written into `<name>.partial` beside its final place: metadata and coordinates first, then whole chunks
(shards), one task each, then the manifest; only then does the folder get its final name. "The chunk exists" means
"done", so the same call made again after a crash writes only what is missing. See docs/resume.md.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import xarray as xr
import zarr

from icemap_xr import manifest as files
from icemap_xr.blockwrite import (
    Block,
    BlockTasks,
    add_variables,
    array_metadata,
    check_metadata,
    disk_errors,
    missing_blocks,
    remove_spoilt,
    restore_templates,
    write_templates,
)
from icemap_xr.errors import (
    Failure,
    IncompleteReadError,
    IncompleteRunError,
    IncompleteStoreError,
    OutputExistsError,
    ReadError,
)
from icemap_xr.execute import Outcome, Trouble, run_blocks
from icemap_xr.manifest import MANIFEST, manifest_is_whole, partial_path, plan_hash, read_manifest
from icemap_xr.placing import kind_of
from icemap_xr.storearray import StoreArray, decode, encode, lazy, untouched
from icemap_xr.storelock import exclusive
from icemap_xr.types import StrPath
from icemap_xr.urls import scrub
from icemap_xr.verify import file_faults

__all__ = [
    "MANIFEST",
    "StoreArray",
    "add_variables",
    "check_writable",
    "decode",
    "encode",
    "exclusive",
    "finish",
    "lazy",
    "manifest_is_whole",
    "partial_path",
    "plan_hash",
    "read_manifest",
    "save",
    "untouched",
    "write",
    "write_groups",
]


def check_writable(path: StrPath, plan: Mapping[str, Any]) -> bool:
    """Return whether the store at `path` is already finished from this very plan.

    Raises
    ------
    OutputExistsError
        Something else is there, or an unfinished store of another plan.
    IncompleteStoreError
        The manifest or the plan of what is there cannot be read; the message says what to do.
    """
    path, digest = Path(path), plan_hash(plan)
    if path.exists():
        if (path / MANIFEST).exists() and files.load_manifest(path)["plan_sha256"] == digest:
            return True
        raise OutputExistsError(f"{path} exists already and was made from other inputs: choose a new path or delete it")
    # the manifest is already there if only the final name is missing
    for name, key in ((files.PLAN, "sha256"), (MANIFEST, "plan_sha256")):
        unfinished = partial_path(path) / name
        remedy = f"delete {partial_path(path)} and repeat the call"
        if unfinished.exists() and files.read_json(unfinished, remedy).get(key) != digest:
            raise OutputExistsError(
                f"{partial_path(path)} is an unfinished store of other inputs or options: "
                "repeat that call to finish it, or delete the folder"
            )
    return False


def write(
    groups: Mapping[str, xr.Dataset],
    path: StrPath,
    *,
    plan: Mapping[str, Any],
    call: str,
    what: str = "writing",
    facts: Mapping[str, Any] | None = None,
    last: Callable[[Path], Mapping[str, Any]] | None = None,
) -> Path:
    """Write a store from beginning to end, alone and resumable; one that is finished already is left as it is.

    Parameters
    ----------
    groups, path, plan, what
        See `write_groups`.
    call
        The Python call that does this, for messages and the manifest.
    facts
        Further entries of the manifest.
    last
        Called with the unfinished store's folder when its blocks are written; may add variables. What it returns goes
        into the manifest.

    Returns
    -------
    Path
        The store.

    Raises
    ------
    StoreBusyError
        Another process is writing this store.
    IncompleteStoreError
        The store was finished, and has lost chunks since.
    OutputExistsError, IncompleteRunError, StoreError
        See `check_writable` and `write_groups`.
    """
    if check_writable(path, plan):
        read_manifest(path)
        files.check_chunks(path)
        return Path(path)
    with disk_errors(partial_path(path)), exclusive(path):
        # whoever held the lock until now may have finished it
        if not check_writable(path, plan):
            if not _is_complete(partial_path(path), plan):
                partial = write_groups(groups, path, plan=plan, what=what, call=call)
                more = last(partial) if last else {}
                return finish(path, plan=plan, facts={**(facts or {}), **more})
            _take_name(path)
    return Path(path)


def write_groups(
    groups: Mapping[str, xr.Dataset],
    path: StrPath,
    *,
    plan: Mapping[str, Any],
    what: str = "writing",
    call: str = "the call that wrote it",
) -> Path:
    """Write the Dask-backed variables of datasets as whole Zarr chunks into the unfinished store; resumable.

    Each Dask block becomes one Zarr chunk (a shard where `encoding["inner_chunks"]` names smaller inner chunks), so no
    two tasks ever touch the same file. Call `finish` afterwards; `write` does both, and keeps other writers away.

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
    call
        The Python call that does this, for messages and the manifest.

    Returns
    -------
    Path
        The unfinished store's folder.

    Raises
    ------
    IncompleteRunError
        Blocks kept failing; all others are written, and the same call tries only these again. It is an
        `IncompleteReadError`, which is a `ReadError`, if rasters could not be read.
    """
    check_writable(path, plan)
    partial = partial_path(path)
    groups = {name: _regular(ds) for name, ds in groups.items()}
    arrays = _lazy(groups)
    if (partial / files.PLAN).exists():
        files.remove_leftovers(partial)
        check_metadata(arrays, partial)
        restore_templates(groups, arrays, partial)
        remove_spoilt(arrays, partial)
    else:
        write_templates(groups, partial)
        made = {"sha256": plan_hash(plan), **_written_by(call, path), "plan": dict(plan)}
        files.write_json(partial / files.PLAN, made | {"metadata_sha256": array_metadata(arrays, partial)})
    blocks = missing_blocks(arrays, partial)
    make = BlockTasks({name: var.data for name, var in arrays.items()}, partial, plan_hash(plan))
    with (partial / files.LOG).open("a", buffering=1) as log:

        def record(block: Block, digest: str) -> None:
            with disk_errors(partial):
                log.write(files.table_line(f"{block.array}/{files.chunk_file(block.index)}", digest))

        kind = kind_of(layer for var in arrays.values() for layer in var.data.dask.layers)
        outcome = run_blocks(blocks, make, what, done=record, kind=kind)
    _report(outcome, len(blocks), Path(path))
    return partial


def _lazy(groups: Mapping[str, xr.Dataset]) -> dict[str, xr.DataArray]:
    """Return the Dask-backed variables by their path in the store."""
    return {
        f"{group}/{name}".lstrip("/"): var
        for group, ds in groups.items()
        for name, var in ds.data_vars.items()
        if var.chunks
    }


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
    StoreBusyError
        Another process is writing it.
    IncompleteRunError
        Blocks kept failing and are missing; the same call tries only these again.
    StoreError
        The disk is full.
    """
    variables = {str(name): dask.base.tokenize(var.data, var.dims, var.attrs) for name, var in ds.variables.items()}
    plan = {"variables": variables, "attributes": ds.attrs}
    write({"": ds}, path, plan=plan, what=what, call="ds.icemap.to_zarr(path)")
    return xr.open_zarr(path, chunks={})


def finish(path: StrPath, *, plan: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> Path:
    """Consolidate the metadata, write table and manifest, and give the store its final name.

    Raises
    ------
    IncompleteStoreError
        A chunk is missing.
    """
    partial = partial_path(path)
    files.remove_leftovers(partial)
    with warnings.catch_warnings():
        # plain xr.open_zarr() complains about stores without it, zarr about stores with it; readers matter more
        warnings.filterwarnings("ignore", message="Consolidated metadata", category=UserWarning)
        warnings.filterwarnings("ignore", message="Object at ", category=UserWarning)
        zarr.consolidate_metadata(str(partial), zarr_format=3)
    missing = files.missing_chunks(partial)
    if missing:
        raise IncompleteStoreError(f"{partial} lacks {len(missing)} chunks, such as {missing[0]}: repeat the call")
    table = _table(partial)
    files.write_table(partial / files.FILES, table)
    began = files.read_json(partial / files.PLAN) if (partial / files.PLAN).exists() else {}
    known = {
        "plan_sha256": plan_hash(plan),
        "plan": dict(plan),
        "metadata_sha256": {name: digest for name, digest in sorted(table.items()) if _is_metadata(name)},
        "files_sha256": files.file_hash(partial / files.FILES),
        "failures": _failures(partial),
        **{key: began.get(key) for key in files.WRITER},
        "software": {"icemap-xr": version("icemap-xr"), "xarray": xr.__version__, "zarr": zarr.__version__},
        **(facts or {}),
    }
    files.write_json(partial / MANIFEST, files.seal(known))
    return _take_name(path)


def _take_name(path: StrPath) -> Path:
    """Rename a store whose manifest is written; killed on the way, the next call does the rest."""
    partial, final = partial_path(path), Path(path)
    for name in (files.LOG, files.FAILURES, files.PLAN):
        (partial / name).unlink(missing_ok=True)
    os.replace(partial, final)
    (final / files.LOCK).unlink(missing_ok=True)
    return final


def _is_complete(partial: Path, plan: Mapping[str, Any]) -> bool:
    """Return whether only the final name is missing; chunks that were spoilt since are removed."""
    file = partial / MANIFEST
    if not file.exists() or files.read_json(file).get("plan_sha256") != plan_hash(plan):
        return False
    faults = [fault for fault in file_faults(partial) if fault.what != "unexpected"]
    for fault in (fault for fault in faults if fault.is_chunk):
        (partial / fault.file).unlink(missing_ok=True)
    return not faults


def _table(partial: Path) -> dict[str, str]:
    """Return the sha256 of all files: of blocks as the tasks reported it, of all others as they are now."""
    working = {files.MANIFEST, files.FILES, files.PLAN, files.LOG, files.FAILURES, files.LOCK}
    logged, table = files.read_table(partial / files.LOG), {}
    for name in files.store_files(partial):
        if name in working:
            continue
        if name not in logged:
            files.flush(partial / name)
        table[name] = logged.get(name) or files.file_hash(partial / name)
    return table


def _is_metadata(name: str) -> bool:
    return name.rpartition("/")[2] == "zarr.json"


def _report(outcome: Outcome[Block], total: int, path: Path) -> None:
    """Keep what failed with the unfinished store, and raise if blocks are missing."""
    partial = partial_path(path)
    if outcome.lost or outcome.mended:
        known = {(one["array"], tuple(one["block"])): one for one in _failures(partial)}
        for block, trouble in {**outcome.mended, **outcome.lost}.items():
            known[block.array, block.index] = asdict(_failure(block, trouble))
        files.write_json(partial / files.FAILURES, {"failures": list(known.values())})
    if not outcome.lost:
        return
    lost = [_failure(block, trouble) for block, trouble in outcome.lost.items()]
    errors = [trouble.error for trouble in outcome.lost.values()]
    kind = IncompleteReadError if all(isinstance(error, ReadError) for error in errors) else IncompleteRunError
    raise kind(
        f"{lost[0].cause}; {len(lost)} of {total} blocks of {path} are missing after {lost[0].tries} tries each: "
        "mend the cause and repeat the call, which does only what is missing",
        lost,
    ) from errors[0]


def _failure(block: Block, trouble: Trouble) -> Failure:
    return Failure(block.array, block.index, trouble.tries, trouble.cause)


def _failures(partial: Path) -> list[dict[str, Any]]:
    file = partial / files.FAILURES
    return list(files.read_json(file)["failures"]) if file.exists() else []


def _regular(ds: xr.Dataset) -> xr.Dataset:
    """Rechunk lazy variables to equal chunks (the last may be smaller), as Zarr needs them; load lazy coordinates."""
    ds = ds.assign_coords({name: var.compute() for name, var in ds.coords.items() if var.chunks is not None})
    changed = {}
    for name, var in ds.data_vars.items():
        if var.chunks:
            sides = {dim: sizes[0] for dim, sizes in zip(var.dims, var.chunks, strict=True)}
            changed[name] = var.chunk(sides) if var.size else var.compute()
        elif var.chunks is not None:
            changed[name] = var.compute()
    return ds.assign(changed)


def _written_by(call: str, path: StrPath) -> dict[str, str | None]:
    """Return how to do this again, and where that writes: the `icemap` command that is running, or the Python call.

    A command's paths, those in its configuration too, begin where it was started. A Python call is given its path anew.
    """
    if Path(sys.argv[0]).name != "icemap":
        return dict(zip(files.WRITER, (call, None), strict=True))
    command = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(['icemap', *sys.argv[1:]])}"
    return dict(zip(files.WRITER, (scrub(command), str(Path(path).resolve())), strict=True))
