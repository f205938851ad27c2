"""URLs as they may be shown: without credentials."""

from __future__ import annotations

import re
from typing import TypeGuard

#: what stands for an address in which user and host cannot be told apart
WITHHELD = "[address withheld]"

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<rest>\S*)")
_AUTHORITY = re.compile(r"[^/?#]*")
_QUERY = re.compile(r"[?#].*$", re.DOTALL)


def scrub(text: object) -> str:
    """Return a text in which no URL has a user, password, query or fragment, where signatures and tokens live.

    A password may hold a raw ``/ ? #`` or ``@``. It is then not certain where the host begins, and the whole address is
    left out rather than a part of the password shown.
    """
    return _URL.sub(lambda match: match["scheme"] + _shown(match["rest"]), str(text))


def _shown(rest: str) -> str:
    ats = rest.count("@")
    if ats == 0:
        return _QUERY.sub("", rest)
    match = _AUTHORITY.match(rest)
    authority = match.group() if match else ""
    if ats == 1 and "@" in authority:
        return _QUERY.sub("", rest.partition("@")[2])
    return WITHHELD


def is_remote(path: object) -> TypeGuard[str]:
    """Whether a path is the address of a store in a bucket."""
    return isinstance(path, str) and path.startswith("s3://")
