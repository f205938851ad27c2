"""Small answers over HTTP (catalogues, tokens): time-outs, retries that heed ``Retry-After``, and one deadline for all.

Rasters are read by GDAL, see `icemap_xr.reading`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests

from icemap_xr.errors import CatalogUnavailableError
from icemap_xr.quotas import Limits
from icemap_xr.urls import scrub

#: answers that another try may change
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_PART = 1 << 16


@dataclass(frozen=True)
class Patience:
    """How long faults are borne.

    Parameters
    ----------
    tries
        Tries of one request or one block, the first one included.
    deadline
        Seconds after which nothing is tried again; for a search the whole of it, for a raster one block of it.
    timeout
        Seconds without an answer after which a request has failed.
    backoff
        Seconds before the second try; doubled for each further one.
    """

    tries: int = 6
    deadline: float = 300.0
    timeout: float = 60.0
    backoff: float = 0.5

    def pause(self, attempt: int, wanted: float | None = None) -> float:
        """Return the seconds before the next try: what the server wants, or a doubling time with some scatter."""
        if wanted is not None:
            return wanted
        # many workers that failed together should not come back together
        return self.backoff * 2.0**attempt * random.uniform(0.8, 1.2)


class Deadline:
    """The moment after which nothing is tried again."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def extend(self, seconds: float) -> None:
        """Put the moment off by time that was spent waiting for others."""
        self._end += seconds

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())


class Web:
    """A session of requests under one deadline.

    Redirects are followed by `requests`, which keeps credentials from other hosts.

    Parameters
    ----------
    patience
        Tries, time-outs and the deadline, which begins now.
    limits
        Quotas of the server; each request takes a slot of them. None by default.
    """

    def __init__(self, patience: Patience, limits: Limits | None = None) -> None:
        self.patience = patience
        self.limits = limits or Limits()
        self.deadline = Deadline(patience.deadline)
        self.session = requests.Session()

    def send(self, request: requests.Request, check: Callable[[bytes], Any] = bytes, *, redirects: bool = True) -> Any:
        """Send a request until it is answered, and return ``check(body)``.

        Parameters
        ----------
        request
            The request; sent again as it is.
        check
            Turns the body into a result; a ValueError counts as a fault that another try may change, such as a page
            of HTML in place of JSON.
        redirects
            Whether a redirect is followed; a request that carries credentials in its body or own headers must not be.

        Raises
        ------
        CatalogUnavailableError
            No usable answer within the tries and the deadline; the message holds no credential.
        """
        cause = "the deadline is over"
        for attempt in range(self.patience.tries):
            if self.deadline.left <= 0:
                break
            wanted, again = None, True
            try:
                response, body = self._in_slot(request, redirects)
                if response.ok and not response.is_redirect:
                    return check(body)
                cause, again = f"status {response.status_code}", response.status_code in TRANSIENT
                wanted = retry_after(response.headers.get("Retry-After"))
            except (requests.RequestException, ValueError) as error:
                # an address that is none stays none
                again = not isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema)
                cause = type(error).__name__
            pause = self.patience.pause(attempt, wanted)
            if not again or attempt + 1 == self.patience.tries or pause >= self.deadline.left:
                break
            time.sleep(pause)
        raise CatalogUnavailableError(
            f"{scrub(request.url)} does not answer as it should ({cause}, tried for "
            f"{self.patience.deadline - self.deadline.left:.0f} s): check the address and the network, or try later"
        )

    def _in_slot(self, request: requests.Request, redirects: bool) -> tuple[requests.Response, bytes]:
        """Send in a slot of the server's quotas; waiting for it is no part of the patience with faults."""
        waited = time.monotonic()
        try:
            with self.limits.call():
                self.deadline.extend(time.monotonic() - waited)
                try:
                    return self._once(request, redirects)
                finally:
                    waited = time.monotonic()
        finally:
            self.deadline.extend(time.monotonic() - waited)

    def _once(self, request: requests.Request, redirects: bool) -> tuple[requests.Response, bytes]:
        prepared = self.session.prepare_request(request)
        settings = self.session.merge_environment_settings(prepared.url, {}, True, None, None)
        timeout = max(0.001, min(self.patience.timeout, self.deadline.left))
        with self.session.send(prepared, timeout=timeout, allow_redirects=redirects, **settings) as response:
            parts = []
            # a time-out is for one part: a body that trickles in would have no end
            for part in response.iter_content(_PART):
                parts.append(part)
                if self.deadline.left <= 0:
                    raise requests.Timeout("the deadline is over")
        body = b"".join(parts)
        length = response.headers.get("Content-Length")
        if length and "Content-Encoding" not in response.headers and int(length) != len(body):
            raise requests.ConnectionError("the answer is cut short")
        return response, body


def retry_after(text: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for (seconds or a date), or None."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
