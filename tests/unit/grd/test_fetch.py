from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from icemap_xr.access import Access
from icemap_xr.errors import AccessError, AnnotationError, ReadError
from icemap_xr.grd.fetch import Fetcher, s3_url
from icemap_xr.testing.faults import Fault, FaultServer, serve_faults
from icemap_xr.web import Patience

PATIENCE = Patience(tries=3, deadline=5.0, timeout=1.0, backoff=0.01)
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    (tmp_path / "a.xml").write_text("<a/>")
    faults = {"open": Fault(), "gone": Fault("status", status=404), "busy": Fault("status", status=503, times=1)}
    faults |= {"down": Fault("status", status=503), "away": Fault("redirect", to="http://127.0.0.1:9/elsewhere")}
    with serve_faults(tmp_path, faults) as running:
        yield running


def test_local_files_by_path_and_by_address(tmp_path: Path) -> None:
    file = tmp_path / "with space.xml"
    file.write_text("<a/>")
    for href in (str(file), f"file://{str(file).replace(' ', '%20')}"):
        assert Fetcher(Access(), PATIENCE)(href) == b"<a/>"
    with pytest.raises(AnnotationError, match=r"b\.xml does not exist"):
        Fetcher(Access(), PATIENCE)(str(tmp_path / "b.xml"))
    with pytest.raises(AnnotationError, match="does not exist"):
        Fetcher(Access(), PATIENCE)(str(file / "c.xml"))


def test_over_http_with_another_try(server: FaultServer) -> None:
    for fault in ("open", "busy"):
        assert Fetcher(Access(), PATIENCE)(server.url(fault, "a.xml")) == b"<a/>"


def test_what_is_not_there_is_annotation_missing_and_what_is_down_can_be_tried_again(server: FaultServer) -> None:
    with pytest.raises(AnnotationError, match=r"status 404.*needs its annotation"):
        Fetcher(Access(), PATIENCE)(server.url("gone", "a.xml"))
    with pytest.raises(ReadError, match="status 503"):
        Fetcher(Access(), PATIENCE)(server.url("down", "a.xml"))


def test_the_published_example_of_a_signed_address() -> None:
    """From "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" of the S3 API reference."""
    url = s3_url("s3://examplebucket/test.txt", KEYS | {"SIGNED_FOR": "86400"}, datetime(2013, 5, 24, tzinfo=UTC))
    assert url.startswith("https://examplebucket.s3.amazonaws.com/test.txt?")
    signature = parse_qs(urlsplit(url).query)["X-Amz-Signature"]
    assert signature == ["aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"]


def test_endpoints_of_other_providers() -> None:
    options = KEYS | {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"}
    url = s3_url("s3://eodata/Sentinel-1/SAR/a b.xml", options, datetime(2026, 1, 1, tzinfo=UTC))
    assert url.startswith("https://eodata.dataspace.copernicus.eu/eodata/Sentinel-1/SAR/a%20b.xml?")
    payer = s3_url("s3://b/k", KEYS | {"AWS_REQUEST_PAYER": "requester"}, datetime(2026, 1, 1, tzinfo=UTC))
    assert parse_qs(urlsplit(payer).query)["x-amz-request-payer"] == ["requester"]
    assert s3_url("s3://b/k", {"AWS_NO_SIGN_REQUEST": "YES"}, datetime.now(UTC)) == "https://b.s3.amazonaws.com/k"


def test_without_keys_nothing_is_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(AccessError, match="needs keys"):
        s3_url("s3://b/k", {}, datetime.now(UTC))
