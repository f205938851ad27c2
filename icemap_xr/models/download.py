"""Fetch published weights once, and know them by their git blob id."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

import pooch
import requests

from icemap_xr.errors import UnknownModelError, WeightsError
from icemap_xr.models.digests import git_blob_id

log = logging.getLogger(__name__)

#: seconds without an answer after which a download is given up
TIMEOUT = 30


def cache_folder() -> Path:
    """Return where downloads are kept: ``ICEMAP_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("ICEMAP_CACHE")
    return (Path(chosen).expanduser() if chosen else Path(pooch.os_cache("icemap-xr"))) / "weights"


def cached(file: str, blob: str) -> Path | None:
    """Return the path of a file in the cache, or None if it is not there or not the one with that git blob id."""
    path = cache_folder() / file
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return path if git_blob_id(data) == blob else None


def fetch(file: str, blob: str, base_url: str) -> Path:
    """Return the path of a file in the cache; download it if it is not there.

    Parameters
    ----------
    file
        Name of the file.
    blob
        Its git blob id. A file gets its name in the cache only after its bytes have been found to have this id.
    base_url
        Folder to download from; the environment variable ``ICEMAP_WEIGHTS_URL`` replaces it.

    Returns
    -------
    pathlib.Path

    Raises
    ------
    UnknownModelError
        The file cannot be downloaded.
    WeightsError
        What was downloaded is another file; or another file lies in the cache, and the right one cannot be downloaded.
    """
    found = cached(file, blob)
    if found is not None:
        return found
    wrong = _other_blob(cache_folder() / file)
    url = f"{os.environ.get('ICEMAP_WEIGHTS_URL', base_url).rstrip('/')}/{file}"
    target = cache_folder() / file
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            part = Path(folder) / file
            log.info("downloading %s", url)
            pooch.HTTPDownloader(timeout=TIMEOUT)(url, os.fspath(part), None)
            _check_blob(part, blob, url, target)
            part.replace(target)
    except (requests.RequestException, OSError) as error:
        reason = _reason(error)
        if wrong:
            raise WeightsError(
                f"the file at {target} has git blob id {wrong}, published is {blob}, and {url} cannot be downloaded "
                f"({reason}): put the right file there, or give a file of your own with weights="
            ) from error
        raise UnknownModelError(
            f"cannot download {url} ({reason}): put the file at {target} by hand, or give it with weights="
        ) from error
    return target


def _other_blob(path: Path) -> str:
    """Return the git blob id of a file that is there but is not the wanted one; empty where there is none."""
    try:
        return git_blob_id(path.read_bytes())
    except OSError:
        return ""


def _check_blob(part: Path, blob: str, url: str, target: Path) -> None:
    found = git_blob_id(part.read_bytes())
    if found != blob:
        raise WeightsError(
            f"{url} gave a file with git blob id {found}, published is {blob}: "
            f"try again, or put the right file at {target} by hand"
        )


def _reason(error: Exception) -> str:
    """Return in words why a download failed; an answer that was an error is closed."""
    response = getattr(error, "response", None)
    if response is None:
        return type(error).__name__
    response.close()
    return f"HTTP {response.status_code}"
