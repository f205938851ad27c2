"""A bucket that denies writing: said in one line, and what was to be published stays as it is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from icemap_xr import objectstore, store
from icemap_xr.errors import StoreError
from icemap_xr.testing.commands import Result
from icemap_xr.verify import verify

SECRET = "planted-secret-0123456789"
EMPTY = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>maps</Name><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)
DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)


class ReadOnly(BaseHTTPRequestHandler):
    """S3 with keys that may list and not write."""

    puts = 0

    def do_GET(self) -> None:
        self.answer(200, EMPTY)

    def do_PUT(self) -> None:
        type(self).puts += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(403, DENIED)

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    ReadOnly.puts = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), ReadOnly) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def keys(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "planted-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_bucket_that_denies_writing(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random((1, 8, 8)).astype("f4")
    ds = xr.Dataset({"probability": (("year", "y", "x"), values)}).chunk(y=4)
    store.save(ds, tmp_path / "maps.zarr")
    keys(endpoint, monkeypatch)
    with pytest.raises(StoreError, match=r"s3://maps/maps\.zarr cannot be used") as caught:
        objectstore.publish(tmp_path / "maps.zarr", "s3://maps/maps.zarr")
    assert 0 < ReadOnly.puts <= 8, "what is denied is not asked for again and again"
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert verify(tmp_path / "maps.zarr") == []


def test_a_run_that_could_not_be_published_does_not_begin(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, icemap: Callable[..., Result]
) -> None:
    keys(endpoint, monkeypatch)
    config = tmp_path / "run.yaml"
    # a provider that answers nobody: it is not asked
    content = {"name": "r", "region": [15, 78, 15.1, 78.1], "years": [2020], "search": {"provider": str(tmp_path)}}
    config.write_text(yaml.safe_dump(content | {"grid": {"crs": "EPSG:32633"}, "model": {"name": "demo_grdinsar"}}))
    done = icemap("run", config, "--output", tmp_path / "out", "--publish", "s3://maps/r.zarr")
    assert done.code == 1
    assert "s3://maps/r.zarr cannot be used" in done.err
    assert SECRET not in done.err
    assert not (tmp_path / "out").exists()
