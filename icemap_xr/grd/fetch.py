"""The annotation files of a product, from where its raster lies and with the same credentials."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests

from icemap_xr.access import Access
from icemap_xr.errors import AccessError, AnnotationError, CatalogUnavailableError, ReadError
from icemap_xr.grd.safexml import MOST_BYTES
from icemap_xr.urls import scrub
from icemap_xr.web import Patience, Web

_SIGNED_FOR = 900


@dataclass(frozen=True)
class Fetcher:
    """Fetches small files; a file that is not there is an `AnnotationError`.

    Parameters
    ----------
    access
        Credentials; the addresses have been checked already, since they lie beside a raster that was.
    patience
        Tries and deadline.
    took
        Is told how many bytes came over a network.
    """

    access: Access
    patience: Patience
    took: Callable[[int], None] | None = None

    def __call__(self, href: str) -> bytes:
        """Return the content of a file."""
        if "://" not in href or href.startswith("file://"):
            return _local(Path(unquote(urlsplit(href).path)) if "://" in href else Path(href))
        return self._remote(href)

    def _remote(self, href: str) -> bytes:
        options = self.access.options(href, self.patience)
        headers = {}
        if "GDAL_HTTP_BEARER" in options:
            headers["Authorization"] = f"Bearer {options['GDAL_HTTP_BEARER']}"
        if href.startswith("s3://"):
            url = s3_url(href, options, datetime.now(UTC))
        else:
            url = self.access.signed(href, self.patience)
        try:
            found: bytes = Web(self.patience).send(requests.Request("GET", url, headers=headers), redirects=not headers)
        except CatalogUnavailableError as error:
            told = str(error).partition("(")[2].partition(",")[0]
            if told in ("status 404", "status 403", "status 401"):
                raise AnnotationError(
                    f"{scrub(href)} does not answer ({told}): a GRD scene needs its annotation, calibration and noise "
                    "files beside its raster"
                ) from None
            raise ReadError(f"{scrub(href)} could not be read ({told}): run again to resume") from None
        if self.took is not None:
            self.took(len(found))
        return found


def _local(path: Path) -> bytes:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise AnnotationError(f"{path} has {path.stat().st_size} bytes: this is no annotation")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise AnnotationError(
            f"{path} does not exist: a GRD scene needs its annotation, calibration and noise files beside its raster, "
            "as in the published product"
        ) from None
    except OSError as error:
        raise ReadError(f"{path} could not be read ({error.strerror})") from None


def s3_url(href: str, options: dict[str, str], now: datetime) -> str:
    """Return an ``s3://`` address as one that can be fetched for some minutes (AWS signature version 4 in the query).

    GDAL reads the rasters but hands out no other file, and no S3 client is among the dependencies.

    Parameters
    ----------
    href
        Address.
    options
        GDAL's options for S3: keys, endpoint, region, virtual hosting, requester pays.
    now
        Time of the signature (UTC).

    Raises
    ------
    AccessError
        There is no key.
    """
    bucket, _, key = href.removeprefix("s3://").partition("/")
    region = options.get("AWS_DEFAULT_REGION") or options.get("AWS_REGION") or "us-east-1"
    endpoint = options.get("AWS_S3_ENDPOINT") or "s3.amazonaws.com"
    virtual = options.get("AWS_VIRTUAL_HOSTING", "TRUE").upper() != "FALSE"
    scheme = "http" if options.get("AWS_HTTPS", "YES").upper() in ("NO", "FALSE", "OFF") else "https"
    host, path = (f"{bucket}.{endpoint}", f"/{quote(key)}") if virtual else (endpoint, f"/{bucket}/{quote(key)}")
    if options.get("AWS_NO_SIGN_REQUEST", "").upper() in ("YES", "TRUE"):
        return f"{scheme}://{host}{path}"
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    access, secret, token = (options.get(name) or os.environ.get(name, "") for name in names)
    if not access or not secret:
        raise AccessError(f"{scrub(href)} needs keys: name their environment variables in the provider profile")
    scope = f"{now:%Y%m%d}/{region}/s3/aws4_request"
    query = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{access}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(int(options.get("SIGNED_FOR", _SIGNED_FOR))),
        "X-Amz-SignedHeaders": "host",
    }
    query |= {"X-Amz-Security-Token": token} if token else {}
    query |= {"x-amz-request-payer": options["AWS_REQUEST_PAYER"]} if "AWS_REQUEST_PAYER" in options else {}
    text = "&".join(f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items()))
    request = "\n".join(["GET", path, text, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"])
    digest = hashlib.sha256(request.encode()).hexdigest()
    to_sign = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest])
    sign = f"AWS4{secret}".encode()
    for part in (f"{now:%Y%m%d}", region, "s3", "aws4_request", to_sign):
        sign = hmac.new(sign, part.encode(), hashlib.sha256).digest()
    return f"{scheme}://{host}{path}?{text}&X-Amz-Signature={sign.hex()}"
