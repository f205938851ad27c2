"""Servers on loopback: what they serve, and what they leave alone."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
import requests

from icemap_xr.errors import CatalogUnavailableError
from icemap_xr.loopback import free_ports, serve_files


class OwnHandler(logging.StreamHandler[io.StringIO]):
    """A handler that closes its stream with itself, as absl's does."""

    def close(self) -> None:
        self.stream.close()
        super().close()


def test_serves_ranges(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(bytes(range(100)))
    with serve_files(tmp_path) as address:
        answer = requests.get(f"{address}/file.bin", headers={"Range": "bytes=10-12"}, timeout=10)
    assert answer.status_code == 206
    assert answer.content == bytes([10, 11, 12])


def test_leaves_the_logging_of_the_process_alone(tmp_path: Path) -> None:
    stream = io.StringIO()
    handler = OwnHandler(stream)
    log = logging.getLogger("somebody.else")
    log.addHandler(handler)
    try:
        with serve_files(tmp_path):
            log.warning("still here")
        assert stream.getvalue() == "still here\n"
    finally:
        log.removeHandler(handler)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    port = free_ports()[0]
    with (
        serve_files(tmp_path, port=port),
        pytest.raises(CatalogUnavailableError, match=f"port {port}"),
        serve_files(tmp_path, port=port),
    ):
        pass
