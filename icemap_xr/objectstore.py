"""Finished stores (cubes, maps, archives) in an S3 bucket: published whole, checked bit by bit, opened in place.

A store is written on a file system, where a rename makes it appear at once; object stores have none. So it is copied
when it is finished, the manifest last: an address without a manifest is no finished store, and the same call goes on
where one was cut off.

Keys, endpoint and region come from the environment (``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``,
``AWS_SESSION_TOKEN``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``) of each process that opens the store, Dask workers
included, and are stored nowhere. Addresses are path-style, as S3 services other than Amazon's want them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
import xarray as xr
from obstore.exceptions import BaseError
from obstore.store import S3Store
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import ObjectStore

from icemap_xr import manifest as files
from icemap_xr.errors import DamagedChunkError, IncompleteStoreError, InputError, OutputExistsError, StoreError
from icemap_xr.progress import progress
from icemap_xr.types import StrPath

#: files copied or hashed at the same time
_THREADS = 8
#: without keys, obstore would ask a cloud's own metadata service, and wait for it
_KEY = "AWS_ACCESS_KEY_ID"
_PROBE = ".icemap-probe"


def publish(path: StrPath, url: str) -> str:
    """Copy a finished store to a bucket; resumable.

    Files that are there already with the same bytes are not sent again. The manifest is sent last.

    Parameters
    ----------
    path
        A finished store on a file system.
    url
        Such as ``"s3://bucket/cubes/svalbard.zarr"``.

    Returns
    -------
    str
        `url`.

    Raises
    ------
    OutputExistsError
        Another store is there already.
    IncompleteStoreError
        The store is unfinished, or a file has changed since it was written.
    StoreError
        The bucket cannot be written.
    """
    folder, manifest = Path(path), files.read_manifest(path)
    files.check_chunks(path)
    table = files.read_table(folder / files.FILES)
    there = _listed(url)
    if files.MANIFEST in there:
        if _json(url, files.MANIFEST) == manifest:
            return url
        raise OutputExistsError(f"{url} holds another store: choose a new address, or delete that one")
    foreign = sorted(set(there) - set(table) - {files.FILES})
    if foreign:
        raise OutputExistsError(f"{url} holds {foreign[0]}, which is no part of {folder}: choose a new address")

    def send(name: str) -> None:
        content = (folder / name).read_bytes()
        if name in table and hashlib.sha256(content).hexdigest() != table[name]:
            raise IncompleteStoreError(f"{folder / name} is damaged: run icemap verify {folder}")
        # in one part, so that the ETag is the MD5 of the content
        if there.get(name) != hashlib.md5(content, usedforsecurity=False).hexdigest():
            _guarded(url, lambda store, prefix: obstore.put(store, prefix + name, content, use_multipart=False))

    _for_all("publishing", send, sorted(table))
    send(files.FILES)
    send(files.MANIFEST)
    return url


def check_writable(url: str) -> None:
    """Write a small object beside an address and delete it again, before work begins whose result is to go there.

    Raises
    ------
    OutputExistsError
        There is a store or a part of one already.
    StoreError
        The bucket cannot be written.
    """
    there = _listed(url)
    if there:
        raise OutputExistsError(
            f"{url} holds {sorted(there)[0]} already: choose a new address, or delete what is there"
        )

    def probe(store: S3Store, prefix: str) -> None:
        key = prefix.rstrip("/") + _PROBE
        obstore.put(store, key, b"icemap-xr: may this be written?", use_multipart=False)
        # keys that may write and not delete leave it, beside the store
        with suppress(BaseError, OSError):
            obstore.delete(store, key)

    _guarded(url, probe)


def verify_remote(url: str) -> list[str]:
    """Read every file of a published store and return what is wrong, one line each, as `icemap_xr.verify.verify`.

    Raises
    ------
    IncompleteStoreError, InputError
        The store is unfinished, or there is none.
    """
    own = _read(url, files.MANIFEST)
    if own is None:
        # says what is wrong
        read_manifest(url)
    if not files.is_whole(own or b""):
        # the hashes in it are not to be trusted
        return [f"{files.MANIFEST}: is damaged"]
    there, content = _listed(url), _read(url, files.FILES)
    if content is None or hashlib.sha256(content).hexdigest() != json.loads(own or b"")["files_sha256"]:
        return [f"{files.FILES}: is {'missing' if content is None else 'damaged'}"]
    table = files.parse_table(content.decode())

    def fault(name: str) -> str | None:
        found = _read(url, name)
        if found is None:
            return f"{name}: is missing"
        return None if hashlib.sha256(found).hexdigest() == table[name] else f"{name}: is damaged"

    faults = _for_all("verifying", fault, sorted(table))
    foreign = sorted(set(there) - set(table) - {files.FILES, files.MANIFEST})
    return [one for one in faults if one] + [f"{name}: is unexpected" for name in foreign]


def read_manifest(url: str) -> dict[str, Any]:
    """Return the manifest of a published store after checking its metadata, as `icemap_xr.manifest.read_manifest`.

    Raises
    ------
    InputError
        There is nothing under the address.
    IncompleteStoreError
        The store was not published whole, or a metadata file has changed.
    """
    if _read(url, files.MANIFEST) is None:
        if not _listed(url):
            raise InputError(f"{url} does not exist: give the address of a store published by icemap-xr")
        raise IncompleteStoreError(f"{url} has no {files.MANIFEST}: it was not published whole; repeat icemap publish")
    manifest = _json(url, files.MANIFEST)
    for name, digest in manifest["metadata_sha256"].items():
        content = _read(url, name)
        if content is None or hashlib.sha256(content).hexdigest() != digest:
            raise IncompleteStoreError(f"{url}/{name} is damaged or missing: publish the store again")
    return manifest


def zarr_store(url: str) -> StrictObjectStore:
    """Return the Zarr store of an address, read only; a missing chunk is an error, not nodata."""
    return StrictObjectStore(S3Store(**_options(url, prefixed=True)), read_only=True)


class StrictObjectStore(ObjectStore[S3Store]):
    """A store in which a chunk that is not there is damage, not a chunk of fill values: every chunk was written."""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return an object's content; raises `DamagedChunkError` if it is a missing chunk."""
        found = await super().get(key, prototype or default_buffer_prototype(), byte_range)
        if found is None and not key.endswith(("zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata")):
            raise DamagedChunkError(f"chunk {key} of the published store is missing: run icemap verify on it")
        return found


def files_digest(url: str) -> str:
    """Return what identifies the content of a published store: the manifest's hash of all its files."""
    return str(_json(url, files.MANIFEST).get("files_sha256", ""))


def check_listed(url: str) -> None:
    """Raise `IncompleteStoreError` if a file is not there that the store was published with."""
    table, there = files.parse_table((_read(url, files.FILES) or b"").decode()), _listed(url)
    missing = sorted(set(table) - set(there))
    if missing or not table:
        raise IncompleteStoreError(f"{url} lacks {(missing or [files.FILES])[0]}: publish the store again")


def open_maps(url: str) -> xr.Dataset:
    """Open published maps, lazily; raises as `read_manifest`, and where a file is missing."""
    read_manifest(url)
    check_listed(url)
    return xr.open_zarr(zarr_store(url), chunks={})


def open_tree(url: str) -> xr.DataTree:
    """Open a published archive, lazily.

    Raises
    ------
    IncompleteStoreError
        A file that it was published with is not there.
    """
    check_listed(url)
    tree = xr.open_datatree(zarr_store(url), engine="zarr", chunks={})  # type: ignore[arg-type]
    return tree.drop_nodes("icemap", errors="ignore")


def _for_all(what: str, act: Callable[[str], str | None], names: list[str]) -> list[str | None]:
    """Do something with each file, some at the same time."""
    with progress(what, len(names)) as advance, ThreadPoolExecutor(_THREADS) as pool:
        found = []
        for result in pool.map(act, names):
            found.append(result)
            advance(1)
        return found


def _options(url: str, *, prefixed: bool) -> dict[str, Any]:
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if parts.scheme != "s3" or not bucket or not prefix or parts.query or "@" in bucket:
        raise InputError("the address of a store in a bucket has the form s3://bucket/path/name.zarr, without keys")
    if not os.environ.get(_KEY):
        raise InputError(f"the environment variable {_KEY} is not set: set it where {url} is opened, on workers, too")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    options: dict[str, Any] = {
        "bucket": bucket,
        "virtual_hosted_style_request": False,
        "region": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        # keys in the clear only to this machine
        "client_options": {"allow_http": urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")},
        "retry_config": {"max_retries": 5},
    }
    return options | ({"prefix": prefix} if prefixed else {})


def _bucket(url: str) -> tuple[S3Store, str]:
    """Return the bucket, and what the keys of a store begin with."""
    keys = tuple(os.environ.get(name, "") for name in (_KEY, "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"))
    return _opened(url, hashlib.sha256("\n".join(keys).encode()).hexdigest()), urlsplit(url).path.strip("/") + "/"


@lru_cache(maxsize=16)
def _opened(url: str, keys: str) -> S3Store:
    return S3Store(**_options(url, prefixed=False))


def _guarded(url: str, act: Any) -> Any:
    """Do something with a bucket; its faults become our own errors, without the service's long dumps."""
    store, prefix = _bucket(url)
    try:
        return act(store, prefix)
    except FileNotFoundError:
        raise
    except (BaseError, OSError, ValueError) as error:
        raise StoreError(f"{url} cannot be used: {str(error).splitlines()[0][:200]}") from None


def _read(url: str, name: str) -> bytes | None:
    try:
        return bytes(_guarded(url, lambda store, prefix: obstore.get(store, prefix + name).bytes()))
    except FileNotFoundError:
        return None


def _json(url: str, name: str) -> dict[str, Any]:
    try:
        content = json.loads(_read(url, name) or b"")
    except ValueError:
        content = None
    if not isinstance(content, Mapping) or "metadata_sha256" not in content:
        raise IncompleteStoreError(f"{url}/{name} is damaged: publish the store again")
    return dict(content)


def _listed(url: str) -> dict[str, str]:
    """Return the ETag of every object of a store, by its path inside it."""

    def walk(store: S3Store, prefix: str) -> Iterator[tuple[str, str]]:
        for page in obstore.list(store, prefix):
            for one in page:
                yield str(one["path"])[len(prefix) :], str(one["e_tag"] or "").strip('"')

    try:
        return dict(_guarded(url, lambda store, prefix: list(walk(store, prefix))))
    except FileNotFoundError:
        raise StoreError(f"{url} cannot be used: there is no such bucket") from None
