"""Which addresses of a catalogue's items may be opened, and with which credentials.

An item is somebody else's text. Its addresses are opened only if the provider profile allows their scheme and host;
credentials come from environment variables at the moment of reading, go only to those hosts, and are stored nowhere.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import requests
from pydantic import ConfigDict

from icemap_xr.errors import AccessError, ConfigError
from icemap_xr.urls import scrub
from icemap_xr.web import Patience, Web

Signing = Literal["none", "s3", "sas", "oidc"]
Scheme = Literal["file", "http", "https", "s3"]

#: GDAL options whose values are secrets: they belong under `credentials`
_SECRET = re.compile(r"secret|token|passw|userpwd|bearer|access_key|headers|auth", re.IGNORECASE)
#: what must not stand in an address: spaces, control characters, and what some readers take for a slash
_ODD = re.compile(r"[\s\x00-\x1f\x7f\\]")
_VIRTUAL = (".vrt", ".xml", ".json", ".wms", ".dods")
#: only temporary keys come with one
_SESSION = "AWS_SESSION_TOKEN"
#: seconds before its end at which a token is replaced
_MARGIN = 60.0


@dataclass(frozen=True)
class Access:
    """How the rasters of a provider are opened.

    Parameters
    ----------
    schemes
        Schemes that items may use.
    hosts
        Hosts that items may use, with ``*`` as in file names; for ``s3`` the buckets. Empty allows any host, without
        credentials.
    signing
        ``"none"``; ``"s3"`` (keys in `credentials`); ``"sas"`` (a short-lived token is appended to the address, from
        `token_url` with ``{account}`` and ``{container}``); ``"oidc"`` (a bearer token from `token_url`, by user and
        password).
    token_url
        Where tokens come from.
    client_id
        Client name for ``"oidc"``.
    credentials
        Name of the environment variable by what it is for: GDAL options such as ``AWS_ACCESS_KEY_ID`` with ``"s3"``,
        ``user`` and ``password`` with ``"oidc"``, ``subscription_key`` with ``"sas"``. The latter and
        ``AWS_SESSION_TOKEN`` may be unset. Without ``"s3"`` buckets are read unsigned, whatever the environment holds.
    gdal
        GDAL options without secrets, such as ``AWS_S3_ENDPOINT``.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    schemes: tuple[Scheme, ...] = ("file", "http", "https", "s3")
    hosts: tuple[str, ...] = ()
    signing: Signing = "none"
    token_url: str | None = None
    client_id: str | None = None
    credentials: dict[str, str] = field(default_factory=dict)
    gdal: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that credentials have a host to go to and that no secret is written down."""
        if self.signing != "none" and not self.hosts:
            raise ConfigError(f"signing={self.signing!r} without hosts: name the hosts that credentials may go to")
        if self.signing in ("sas", "oidc") and not self.token_url:
            raise ConfigError(f"signing={self.signing!r} needs token_url")
        for name in self.gdal:
            if _SECRET.search(name):
                raise ConfigError(f"gdal.{name} may hold a secret: name an environment variable under credentials")
        if self.signing == "none" and self.credentials:
            raise ConfigError("credentials without signing: choose s3, sas or oidc")

    def check(self, href: str, *, local: bool, what: str) -> None:
        """Refuse an address that is not allowed.

        Parameters
        ----------
        href
            Address of an asset.
        local
            Whether the item is the user's own file, so that it may name other files.
        what
            Name of item and asset, for the message.

        Raises
        ------
        AccessError
            Scheme, host or form are not allowed.
        """
        scheme, host = _parts(href)
        if scheme == "file":
            problem = "" if local else "a local file, but comes from a catalogue on the network"
            if "file" not in self.schemes:
                problem = f"a local file; allowed are {', '.join(self.schemes)}"
        elif scheme not in self.schemes:
            problem = f"of the scheme {scheme!r}; allowed are {', '.join(self.schemes)}"
        elif _ODD.search(href):
            problem = "an address with spaces, backslashes or control characters"
        elif not host:
            problem = "an address without a host"
        else:
            known = not self.hosts or any(fnmatchcase(host, pattern.lower()) for pattern in self.hosts)
            problem = "" if known else f"on the host {host!r}; allowed are {', '.join(self.hosts)}"
        if not problem and re.split(r"[?#]", href)[0].lower().endswith(_VIRTUAL):
            problem = "a description of other files, not a raster"
        if problem:
            shown = " ".join(scrub(href).split())
            raise AccessError(f"{what} at {shown} is {problem}: leave the item out or mend the provider profile")

    def signed(self, href: str, patience: Patience) -> str:
        """Return the address to open now; with ``"sas"`` it carries a token, so it must not be kept or shown."""
        if self.signing != "sas" or _parts(href)[0] not in ("http", "https"):
            return href
        return f"{href}{'&' if '?' in href else '?'}{self._sas(href, patience)}"

    def options(self, href: str, patience: Patience) -> dict[str, str]:
        """Return the GDAL options for one address, credentials included; they must not be kept or shown.

        Raises
        ------
        AccessError
            An environment variable that the profile names is not set.
        """
        out = dict(self.gdal)
        if _parts(href)[0] == "s3":
            out |= self._keys()
        if self.signing == "oidc" and _parts(href)[0] in ("http", "https"):
            assert self.token_url is not None
            token = _TOKENS.get(self.token_url, lambda: self._bearer(patience))
            out |= {"GDAL_HTTP_AUTH": "BEARER", "GDAL_HTTP_BEARER": token}
        return out

    def _keys(self) -> dict[str, str]:
        """Return the keys of the profile alone: GDAL would take those of another service from the environment."""
        if self.signing != "s3":
            return {"AWS_NO_SIGN_REQUEST": "YES"}
        session = self.credentials.get(_SESSION)
        found = {option: _secret(name) for option, name in self.credentials.items() if option != _SESSION}
        return found | {_SESSION: os.environ.get(session, "") if session else ""}

    def renew(self, href: str) -> bool:
        """Forget the token for an address; returns whether there can be a new one."""
        if self.signing == "sas":
            _TOKENS.forget(self._token_address(href))
        elif self.signing == "oidc" and self.token_url:
            _TOKENS.forget(self.token_url)
        return self.signing in ("sas", "oidc")

    def _token_address(self, href: str) -> str:
        url = urlsplit(href)
        # from the item, so nothing of it may become another address
        account, container = (url.hostname or "").split(".")[0], url.path.lstrip("/").split("/")[0]
        assert self.token_url is not None
        return self.token_url.format(account=quote(account, safe=""), container=quote(container, safe=""))

    def _sas(self, href: str, patience: Patience) -> str:
        address = self._token_address(href)

        def fetch() -> tuple[str, float]:
            name = self.credentials.get("subscription_key")
            key = os.environ.get(name) if name else None
            headers = {"Ocp-Apim-Subscription-Key": key} if key else {}
            answer = _ask(requests.Request("GET", address, headers=headers), "token", patience)
            return str(answer["token"]).lstrip("?"), _until(answer.get("msft:expiry"))

        return _TOKENS.get(address, fetch)

    def _bearer(self, patience: Patience) -> tuple[str, float]:
        form = {"grant_type": "password", "client_id": self.client_id or "public"}
        form |= {
            "username": _secret(self.credentials.get("user", "user")),
            "password": _secret(self.credentials.get("password", "password")),
        }
        answer = _ask(requests.Request("POST", str(self.token_url), data=form), "access_token", patience)
        return str(answer["access_token"]), time.time() + float(answer.get("expires_in", 0.0))


class _Tokens:
    """Short-lived tokens of this process, by the address they come from."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[str, float]] = {}

    def get(self, key: str, fetch: Any) -> str:
        with self._lock:
            token, until = self._known.get(key, ("", 0.0))
            if time.time() >= until - _MARGIN:
                token, until = fetch()
                self._known[key] = (token, until)
            return token

    def forget(self, key: str) -> None:
        with self._lock:
            self._known.pop(key, None)


_TOKENS = _Tokens()


def _parts(href: str) -> tuple[str, str]:
    """Return scheme and host (bucket) of an address; what GDAL would take for something else has its own scheme."""
    if href.lower().startswith(("/vsi", "\\vsi", "<")):
        return "GDAL virtual file", ""
    if "://" not in href:
        prefix = re.match(r"([A-Za-z_][\w+.-]+):", href)
        return (prefix.group(1), "") if prefix else ("file", "")
    try:
        url = urlsplit(href)
        return url.scheme.lower(), (url.hostname or "").lower()
    except ValueError:
        return "broken", ""


def _secret(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise AccessError(f"the environment variable {name} is not set: set it on every machine that reads rasters")
    return value


def _ask(request: requests.Request, key: str, patience: Patience) -> dict[str, Any]:
    def parse(body: bytes) -> dict[str, Any]:
        answer = json.loads(body)
        if not isinstance(answer, dict) or not isinstance(answer.get(key), str):
            raise ValueError(f"no {key} in the answer")
        return answer

    found: dict[str, Any] = Web(patience).send(request, parse, redirects=False)
    return found


def _until(text: Any) -> float:
    """Return when a token ends; without a date it is not kept."""
    try:
        return datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0
