"""URLs as they may be shown: without credentials."""

from __future__ import annotations

import re

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/?#]*@)?(?P<rest>[^\s?#]*)(?P<query>[?#]\S*)?")


def scrub(text: object) -> str:
    """Return a text in which no URL has a user, password, query or fragment, where signatures and tokens live."""
    return _URL.sub(lambda match: match["scheme"] + match["rest"], str(text))
