"""Folders that appear under their name only when they are complete."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rasterio

from icemap_xr.errors import OutputExistsError, StoreError


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give a folder beside the target to write into; it takes the target's name when all went well.

    Raises
    ------
    OutputExistsError
        The target is there and not empty.
    StoreError
        Something could not be written.
    """
    target = folder.resolve()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExistsError(f"{folder} exists and is not empty: choose a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield draft
        # mkdtemp makes a folder that only its owner may read
        draft.chmod(0o777 & ~_umask())
        os.replace(draft, target)
    except (OSError, rasterio.errors.RasterioError) as error:
        raise StoreError(f"{folder} could not be written: {error}; check free space and permissions") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all.

    Raises
    ------
    StoreError
        It cannot be written.
    """
    # two that write the same file do not write into each other's
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with temporary.open("w") as file:
            file.write(text)
            # the name must not outlive the content in a power cut
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"{path} could not be written: {error}; check free space and permissions") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(path: Path) -> str:
    """Return the sha256 of a small file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
