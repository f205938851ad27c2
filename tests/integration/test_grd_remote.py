"""Products in radar geometry from a catalogue on the network: signed, beside each other, and with faults."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import yaml

import icemap_xr as ix
from icemap_xr import access
from icemap_xr.errors import AnnotationError, ReadError
from icemap_xr.grd import GrdOptions, items_from_products
from icemap_xr.providers import PROVENANCE
from icemap_xr.testing.faults import Fault, FaultServer, serve_faults
from icemap_xr.testing.radar import RadarScene, map_of, wavy_backscatter
from icemap_xr.web import Patience

SCENE = RadarScene(shape=(160, 200), backscatter=wavy_backscatter)
PATIENCE = Patience(tries=3, deadline=10.0, timeout=2.0, backoff=0.02)


@pytest.fixture(autouse=True)
def fresh_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_TOKENS", access._Tokens())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultServer]:
    folder = tmp_path / "bucket" / "store"
    SCENE.write(folder)
    faults = {"open": Fault(), "signed": Fault("token"), "late": Fault("status", status=503, times=1)}
    with serve_faults(tmp_path / "bucket", faults) as running:
        yield running


def profile(server: FaultServer, tmp_path: Path, **how: Any) -> str:
    source = {"feature": "grd", "collection": "sentinel-1-grd", "assets": {"VV": "vv"}, "geocoded": False}
    content = {"name": "tested", "title": "Tested", "url": None, "sources": [source]}
    content["access"] = {"schemes": ["http"], "hosts": ["127.0.0.1"], **how}
    path = tmp_path / "tested.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def items(server: FaultServer, fault: str) -> pystac.ItemCollection:
    found = items_from_products(server.folder)
    for item in found:
        name = Path(item.assets["vv"].href).relative_to(server.folder.resolve())
        item.assets["vv"].href = server.url(fault, str(name))
    return pystac.ItemCollection(found.items, extra_fields={PROVENANCE: {"url": "http://catalogue", "years": [2021]}})


def build(server: FaultServer, tmp_path: Path, fault: str, **how: Any) -> Any:
    return ix.build_cube(
        items(server, fault),
        map_of(SCENE, (60, 60)),
        tmp_path / "cube.zarr",
        steps=1,
        patience=PATIENCE,
        grd=GrdOptions("ellipsoid"),
        profile=profile(server, tmp_path, **how),
    )


@pytest.mark.parametrize("fault", ["open", "signed", "late"])
def test_raster_and_annotation_come_over_the_network(fault: str, server: FaultServer, tmp_path: Path) -> None:
    signing = {"signing": "sas", "token_url": f"{server.address}/token/{{account}}/{{container}}"}
    cube = build(server, tmp_path, fault, **(signing if fault == "signed" else {}))
    x, y = np.meshgrid(cube["x"].values, cube["y"].values)
    assert np.abs(cube["grd"].values[0] - 10 * np.log10(wavy_backscatter(x, y))).max() < 0.1
    asked = [path for _, path, _ in server.requests]
    for name in ("/annotation/s1a", "/calibration/calibration-", "/calibration/noise-"):
        assert any(name in path for path in asked)
    stored = "".join(file.read_text(errors="ignore") for file in (tmp_path / "cube.zarr").rglob("*.json"))
    assert "sig=" not in stored


def test_a_product_without_annotation_is_an_error_that_names_it(server: FaultServer, tmp_path: Path) -> None:
    found = items(server, "open")
    shutil.rmtree(next(server.folder.rglob("annotation")))
    with pytest.raises(Exception, match=r"annotation/s1a.*status 404") as caught:
        ix.build_cube(
            found,
            map_of(SCENE, (60, 60)),
            tmp_path / "cube.zarr",
            steps=1,
            patience=PATIENCE,
            grd=GrdOptions("ellipsoid"),
            profile=profile(server, tmp_path),
        )
    assert isinstance(caught.value, AnnotationError) or isinstance(caught.value.__cause__, AnnotationError)


def test_a_server_that_is_down_is_an_error_of_reading(server: FaultServer, tmp_path: Path) -> None:
    server.faults["down"] = Fault("status", status=503)
    with pytest.raises(ReadError):
        build(server, tmp_path, "down")
