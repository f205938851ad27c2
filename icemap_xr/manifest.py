"""What makes a store recognisably finished: its manifest, and the table of the sha256 of all its files.

The manifest is written last. It names the plan the store was made from, the sha256 of every metadata file, the sha256
of the table, what failed on the way and was mended, and itself. The table has the format of `sha256sum`, so that
``sha256sum -c icemap/files.sha256`` in the store's folder checks the files without this program.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from icemap_xr.errors import IncompleteStoreError, InputError
from icemap_xr.folders import write_text
from icemap_xr.types import StrPath

#: inside a Zarr group of its own, so that listing the store's root shows Zarr nodes only
MANIFEST = "icemap/manifest.json"
FILES = "icemap/files.sha256"

#: only while a store is unfinished: what it is made from, the hashes so far, what failed, who is writing
PLAN = "icemap/plan.json"
LOG = "icemap/chunks.log"
FAILURES = "icemap/failures.json"
LOCK = "icemap/lock"
#: folder of metadata and small variables that are about to take the place of those of an unfinished store
DRAFT = "icemap/draft"

#: end of the names of files that are being written; a dead writer leaves some
TEMPORARY = ".partial"

#: what writes the store again (None where nobody knows), and where to (None where whoever calls it says)
WRITER = ("written_by", "written_to")

#: key of the manifest's own hash
_SELF = "sha256"

#: one line of a manifest
_WRITTEN_BY = re.compile(r'^ "written_by": (?P<call>.*?),?$', re.MULTILINE)
_SOMEONE = "the call that wrote it"

_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})  (?P<file>[^\n]+)\n")


def partial_path(path: StrPath) -> Path:
    """Return where a store is written before it gets its final name."""
    path = Path(path)
    return path.with_name(path.name + ".partial")


def plan_hash(plan: Mapping[str, Any]) -> str:
    """Return the sha256 of a plan made of plain JSON types."""
    return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Wait until a file is on the disk, where a power cut spares it."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with its own hash in it."""
    return {**manifest, _SELF: _own_hash(manifest)}


def manifest_is_whole(path: StrPath) -> bool:
    """Return whether every bit of a store's manifest is as it was written."""
    # bytes: reading text hides other line ends
    return is_whole((Path(path) / MANIFEST).read_bytes())


def is_whole(found: bytes) -> bool:
    """Return whether every bit of the content of a manifest is as it was written."""
    try:
        content = json.loads(found)
    except ValueError:
        return False
    if not isinstance(content, dict) or content.get(_SELF) != _own_hash(content):
        return False
    # 1e-05 and 1E-05 are the same number and not the same file
    return found == _as_json(content).encode()


def read_manifest(path: StrPath) -> dict[str, Any]:
    """Return a finished store's manifest after checking its metadata files against it.

    Raises
    ------
    InputError
        There is no store.
    IncompleteStoreError
        The store is unfinished, or a metadata file has changed.
    """
    path, manifest = Path(path), load_manifest(path)
    for name, digest in manifest["metadata_sha256"].items():
        file = path / name
        if not file.exists() or file_hash(file) != digest:
            raise IncompleteStoreError(
                f"{file} is damaged or missing (its sha256 is not the manifest's): write it again"
            )
    return manifest


def load_manifest(path: StrPath) -> dict[str, Any]:
    """Return a finished store's manifest, unchecked but for its keys; raises as `read_manifest`."""
    path = Path(path)
    if not path.exists() and partial_path(path).exists():
        raise IncompleteStoreError(f"{path} is not finished: repeat the call that writes it, it resumes")
    # looked at again: it may have got its name between the two looks
    if not path.exists():
        raise InputError(f"{path} does not exist: give the path of a store written by icemap-xr")
    if not (path / MANIFEST).exists():
        # a folder that may be anything else is not to be deleted
        ours = f"write the store again: {_anew(path)}" if (path / FILES).exists() else "write it again"
        raise IncompleteStoreError(f"{path} has no {MANIFEST}: it is no finished icemap-xr store; {ours}")
    remedy = f"write the store again: {_anew(path)}"
    manifest = read_json(path / MANIFEST, remedy)
    if not {"plan", "plan_sha256", "metadata_sha256"} <= set(manifest):
        raise IncompleteStoreError(f"{path / MANIFEST} is damaged (keys are missing): {remedy}")
    if not isinstance(manifest["metadata_sha256"], dict):
        raise IncompleteStoreError(f"{path / MANIFEST} is damaged (it lists no metadata): {remedy}")
    return manifest


def written_by(path: StrPath) -> str:
    """Return what writes a store again, as its manifest tells, even one that cannot be read as a whole any more."""
    try:
        found = _WRITTEN_BY.search((Path(path) / MANIFEST).read_text(errors="replace"))
        return (str(json.loads(found["call"]) or "") if found else "") or _SOMEONE
    except (OSError, ValueError):
        return _SOMEONE


def _anew(path: Path) -> str:
    return f"rm -r {shlex.quote(str(path))}, then: {written_by(path)}"


def read_table(path: Path) -> dict[str, str]:
    """Return the sha256 by file of a table or a log; a line that was cut short does not count."""
    return parse_table(path.read_text(errors="replace")) if path.exists() else {}


def parse_table(text: str) -> dict[str, str]:
    """Return the sha256 by file of the text of a table."""
    return {match["file"]: match["digest"] for match in _LINE.finditer(text)}


def table_line(file: str, digest: str) -> str:
    """Return one line of a table."""
    return f"{digest}  {file}\n"


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Write a table, sorted; the file appears complete or not at all."""
    write_text(path, "".join(table_line(file, table[file]) for file in sorted(table)))


def store_files(folder: Path) -> Iterator[str]:
    """Yield the files of a store by their path inside it, with ``/``."""
    for root, _, names in os.walk(folder):
        for name in names:
            yield (Path(root) / name).relative_to(folder).as_posix()


def chunk_keys(metadata: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
    """Yield the index of every chunk (shard) that an array's metadata (`zarr.json`) ask for."""
    sides = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    yield from product(*(range(-(-size // side)) for size, side in zip(metadata["shape"], sides, strict=True)))


def chunk_file(index: tuple[int, ...]) -> str:
    """Return the path of a chunk inside its array's folder."""
    return "/".join(["c", *map(str, index)])


def is_written(file: Path) -> bool:
    """Return whether a chunk is there: an empty file is what a power cut can leave of one."""
    try:
        return file.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False


def missing_chunks(folder: Path) -> list[str]:
    """Return the chunks that the arrays below a folder ask for and that are not there, by path inside it."""
    missing = []
    for file in sorted(folder.rglob("zarr.json")):
        metadata = read_json(file)
        if metadata.get("node_type") == "array":
            array = file.parent
            keys = (chunk_file(index) for index in chunk_keys(metadata))
            missing += [(array / key).relative_to(folder).as_posix() for key in keys if not is_written(array / key)]
    return missing


def check_chunks(path: StrPath) -> None:
    """Raise `IncompleteStoreError` if a finished store lacks a chunk, which would read as nodata."""
    missing = missing_chunks(Path(path))
    if missing:
        raise IncompleteStoreError(
            f"{path} lacks {len(missing)} chunks, such as {missing[0]}: run icemap verify {shlex.quote(str(path))}, "
            "which says how to repair it"
        )


def remove_leftovers(folder: Path) -> None:
    """Remove what a dead writer was about to write."""
    for file in folder.rglob(f".*{TEMPORARY}"):
        file.unlink(missing_ok=True)


def read_json(path: Path, remedy: str = "write the store again") -> dict[str, Any]:
    """Return the mapping in a JSON file; raises IncompleteStoreError, with the remedy, where there is none."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise IncompleteStoreError(f"{path} is damaged ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise IncompleteStoreError(f"{path} is damaged (it holds no mapping): {remedy}")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that appears complete or not at all."""
    write_text(path, _as_json(content))


def _as_json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1, default=str)


def _own_hash(manifest: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(manifest, default=str))
    return plan_hash({key: value for key, value in as_read.items() if key != _SELF})
