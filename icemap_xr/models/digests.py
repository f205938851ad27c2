"""Names of a file by its bytes: sha256, and the blob id under which git knows it."""

from __future__ import annotations

import hashlib


def sha256(data: bytes) -> str:
    """Return the sha256 of the bytes, hex."""
    return hashlib.sha256(data).hexdigest()


def git_blob_id(data: bytes) -> str:
    """Return the id git gives a file with these bytes, hex: the sha1 of ``blob <size>``, a zero byte and the bytes."""
    # git's own naming scheme, compared with a published list; sha256 is what models are known by here
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
