"""URLs as they may be shown: without credentials."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def scrub(url: object) -> str:
    """Return a URL or path without user, password, query and fragment, where signatures and tokens live."""
    parts = urlsplit(str(url))
    if not parts.scheme or not parts.netloc:
        return str(url)
    host = parts.hostname or ""
    netloc = f"{host}:{parts.port}" if parts.port else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))
