"""Check a finished store, every file against the sha256 it was written with, and open it again for repair."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from icemap_xr import manifest as files
from icemap_xr.errors import IcemapError, InputError
from icemap_xr.manifest import FILES, MANIFEST
from icemap_xr.progress import progress
from icemap_xr.storelock import exclusive
from icemap_xr.types import StrPath

_CHUNK = re.compile(r"(?P<array>.+)/(?P<chunk>c(/\d+)*)")

#: begins the names of files that lie beside a store
_BESIDE = "../"
#: files hashed at the same time
_READERS = 4


@dataclass(frozen=True)
class Fault:
    """One file of a store that is not as it was written.

    Parameters
    ----------
    file
        Path from the store's folder.
    what
        ``"missing"``, ``"damaged"``, or ``"unexpected"``: it was not there when the store was finished.
    """

    file: str
    what: Literal["missing", "damaged", "unexpected"]

    @property
    def is_chunk(self) -> bool:
        """Whether writing this one chunk again mends it."""
        return _CHUNK.fullmatch(self.file) is not None

    def __str__(self) -> str:
        match = _CHUNK.fullmatch(self.file)
        where = f"{match['array']}: chunk {match['chunk']}" if match else f"{self.file}:"
        return f"{where} is {self.what}"


def verify(path: StrPath) -> list[str]:
    """Read every file of a store written by icemap-xr and return what is wrong, one line each.

    Chunks, metadata, the table of hashes and the manifest are checked bit by bit; a file that does not belong to the
    store is a fault too. The GeoParquet files and the STAC item beside an archive must say what a whole archive holds;
    one that was moved without any of them is whole.

    Parameters
    ----------
    path
        A finished store.

    Returns
    -------
    list of str
        The faults; empty if the store is whole. `icemap verify` also names the commands that repair them.

    Raises
    ------
    IncompleteStoreError
        The store is unfinished, or its manifest cannot be read any more.
    InputError
        There is no store.
    """
    return [str(fault) for fault in find_faults(path)]


def find_faults(path: StrPath) -> list[Fault]:
    """Return the faults of a finished store; see `verify`."""
    folder, manifest = Path(path), files.load_manifest(path)
    faults = file_faults(folder)
    if faults or manifest["plan"].get("kind") != "archive":
        return faults
    from icemap_xr.sidecarcheck import sidecar_faults  # cubes need none of what it imports

    return [Fault(f"{_BESIDE}{name}", what) for name, what in sidecar_faults(folder)]


def file_faults(folder: Path) -> list[Fault]:
    """Return the faults of the files of a store that has a manifest, whether or not it has got its final name."""
    manifest = files.load_manifest(folder)
    if not files.manifest_is_whole(folder):
        # its hashes are not to be trusted; the table's are, wherever it agrees with the files
        return [Fault(MANIFEST, "damaged"), *_compare(folder, files.read_table(folder / FILES))]
    if not (folder / FILES).exists():
        return [Fault(FILES, "missing"), *_compare(folder, manifest["metadata_sha256"], whole=False)]
    if files.file_hash(folder / FILES) != manifest.get("files_sha256"):
        return [Fault(FILES, "damaged"), *_compare(folder, manifest["metadata_sha256"], whole=False)]
    return list(_compare(folder, files.read_table(folder / FILES)))


def repair_commands(path: StrPath, faults: Sequence[Fault]) -> list[str]:
    """Return what to run, in order, to mend the faults of a store."""
    store = shlex.quote(str(path))
    try:
        manifest = files.load_manifest(path)
    except Exception:  # a manifest that cannot be read says nothing
        manifest = {}
    again, home = files.written_by(path), _home(Path(path), manifest)
    if all(fault.file.startswith(_BESIDE) for fault in faults):
        call = f"from icemap_xr.archive import write_sidecars; write_sidecars({str(path)!r})"
        return [f"python -c {shlex.quote(call)}"]
    if all(fault.what == "unexpected" for fault in faults):
        return [f"rm {' '.join(shlex.quote(str(Path(path) / fault.file)) for fault in faults)}"]
    if not manifest.get("repeatable", True):
        return [f"put a copy of {store} in its place, or write it anew from the inputs of all its years"]
    mendable = all(fault.is_chunk or fault.what == "unexpected" for fault in faults)
    if home is not None:
        return _from_home(Path(path), home, manifest, again, mendable)
    if mendable:
        return [f"icemap verify {store} --repair", again]
    return [f"rm -r {store}", again]


def _home(path: Path, manifest: Mapping[str, Any]) -> Path | None:
    """Return where the recorded command writes if that is not here: the store was moved, or copied."""
    if not manifest.get("written_to"):
        return None
    home = Path(manifest["written_to"])
    # one place may have two names
    here = path.resolve() == home or (home.exists() and path.exists() and path.samefile(home))
    return None if here else home


def _from_home(path: Path, home: Path, manifest: Mapping[str, Any], again: str, mendable: bool) -> list[str]:
    """Return what mends a store whose command writes in another place."""
    store, there = shlex.quote(str(path)), shlex.quote(str(home))
    if _same_content(home, manifest):
        return [f"icemap verify {there}", f"rm -r {store}", f"cp -r {there} {store}"]
    if home.exists() or not home.parent.is_dir():
        return [f"put a whole copy of {store} in its place, or write it anew, which this does in {there}: {again}"]
    begin = [f"mv {store} {there}", f"icemap verify {there} --repair"] if mendable else [f"rm -r {store}"]
    return [*begin, again, f"mv {there} {store}"]


def _same_content(home: Path, manifest: Mapping[str, Any]) -> bool:
    try:
        found = files.load_manifest(home)
    except IcemapError:
        return False
    return found.get("files_sha256") == manifest.get("files_sha256")


def reopen(path: StrPath) -> list[Fault]:
    """Make a store unfinished again, without its damaged chunks, so that the call that wrote it writes them again.

    Files that do not belong to it are deleted, too; where there is no other fault, the store stays finished.

    Parameters
    ----------
    path
        A finished store with damaged or missing chunks.

    Returns
    -------
    list of Fault
        What was removed or is missing; empty if the store is whole, and then it is left alone.

    Raises
    ------
    InputError
        Metadata or the manifest are damaged: the store is to be deleted and written again. Or it lies elsewhere than
        where the command that wrote it writes.
    StoreBusyError
        A store of this name is being written.
    IncompleteStoreError
        The store is unfinished, or its manifest cannot be read any more.
    """
    path = Path(path)
    faults = find_faults(path)
    if not faults:
        return faults
    grave = [fault for fault in faults if not fault.is_chunk and fault.what != "unexpected"]
    if grave:
        raise InputError(
            f"{path}: {grave[0]}, which no block can mend: {', then '.join(repair_commands(path, faults))}"
        )
    if all(fault.what == "unexpected" for fault in faults):
        for fault in faults:
            (path / fault.file).unlink(missing_ok=True)
        return faults
    manifest, partial = files.load_manifest(path), files.partial_path(path)
    if not manifest.get("repeatable", True):
        raise InputError(f"{path} was written from a store that is gone: {repair_commands(path, faults)[0]}")
    if home := _home(path, manifest):
        commands = ", then: ".join(repair_commands(path, faults))
        raise InputError(f"{path} was moved or copied; the command that wrote it writes to {home}: {commands}")
    with exclusive(path):
        if set(files.store_files(partial)) - {files.LOCK}:
            raise InputError(f"{partial} is in the way: move or delete it")
        for fault in faults:
            (path / fault.file).unlink(missing_ok=True)
        plan = {"sha256": manifest["plan_sha256"], "plan": manifest["plan"]}
        plan |= {key: manifest.get(key) for key in files.WRITER}
        # the metadata are those of the manifest, or the store would not be opened
        known = {name.rpartition("/")[0]: digest for name, digest in manifest["metadata_sha256"].items()}
        files.write_json(path / files.PLAN, plan | {"metadata_sha256": known})
        # a chunk whose hash is not known would have to be decoded
        table = files.read_table(path / FILES)
        files.write_table(path / files.LOG, {name: table[name] for name in table if _CHUNK.fullmatch(name)})
        (path / FILES).unlink()
        (path / MANIFEST).unlink()
        _swap(path, partial)
    return faults


def _swap(path: Path, partial: Path) -> None:
    """Rename a folder to one that only holds a lock."""
    (partial / files.LOCK).unlink()
    (partial / files.LOCK).parent.rmdir()
    partial.rmdir()
    path.rename(partial)


def check_file(folder: Path, name: str, digest: str) -> Fault | None:
    """Return what is wrong with one file of a store that shall have this sha256."""
    try:
        found = files.file_hash(folder / name)
    except (FileNotFoundError, NotADirectoryError):
        return Fault(name, "missing")
    except OSError:  # a disk that cannot read it
        return Fault(name, "damaged")
    return None if found == digest else Fault(name, "damaged")


def _compare(folder: Path, table: dict[str, str], *, whole: bool = True) -> Iterator[Fault]:
    """Yield the files that differ from a table; with `whole` it is the table of all files."""
    with progress("checking", len(table)) as advance, ThreadPoolExecutor(_READERS) as pool:
        for fault in pool.map(lambda name: check_file(folder, name, table[name]), sorted(table)):
            if fault is not None:
                yield fault
            advance(1)
    if whole:
        # the lock outlives a writer that was killed in its last moment
        beside = {MANIFEST, FILES, files.LOCK}
        yield from (Fault(name, "unexpected") for name in sorted(set(files.store_files(folder)) - beside - set(table)))
