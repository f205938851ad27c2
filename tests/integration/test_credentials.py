"""Secrets are used where they belong and are found nowhere else: not in stores, logs, errors or saved searches."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import yaml

from icemap_xr import access
from icemap_xr.catalog import load_items, save_items, search
from icemap_xr.cube import build_cube
from icemap_xr.errors import AccessError, CatalogUnavailableError, IcemapError, NotGeocodedError, ReadError
from icemap_xr.providers import PROVENANCE
from icemap_xr.stac_items import write_catalog
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.faults import Fault, FaultServer, serve_faults
from icemap_xr.testing.rasters import rtc_item, write_raster
from icemap_xr.web import Patience

SHAPE = (40, 40)
GRID = small_grid(SHAPE)
REGION = (14.9, 78.0, 15.1, 79.0)
PATIENCE = Patience(tries=3, deadline=10.0, timeout=2.0, backoff=0.02)
SECRETS = ("s3cr3t", "hunter2", "PLANTED")
FAULTS = {
    "open": Fault(),
    "signed": Fault("token"),
    "gone": Fault("status", status=404),
    "away": Fault("redirect"),
}


@pytest.fixture
def power() -> Any:
    return np.random.default_rng(0).lognormal(-3, 1, SHAPE).astype(np.float32)


@pytest.fixture
def server(tmp_path: Path, power: Any) -> Iterator[FaultServer]:
    folder = tmp_path / "bucket"
    for name in ("a", "b"):
        write_raster(folder / "store" / f"{name}.tif", power)
    with serve_faults(folder, FAULTS) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_TOKENS", access._Tokens())


def profile(server: FaultServer, tmp_path: Path, **how: Any) -> str:
    content = {
        "name": "tested",
        "title": "Tested",
        "url": None,
        "sources": [{"feature": "rtc", "collection": "opera-s1-rtc", "assets": {"HH": "HH"}, "radiometry": "gamma0"}],
        "access": {"schemes": ["http"], "hosts": ["127.0.0.1"], **how},
    }
    path = tmp_path / "tested.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


def sas(server: FaultServer, tmp_path: Path) -> str:
    return profile(server, tmp_path, signing="sas", token_url=f"{server.address}/token/{{account}}/{{container}}")


def items(server: FaultServer, *hrefs: str) -> pystac.ItemCollection:
    made = []
    for number, href in enumerate(hrefs, start=1):
        item = rtc_item(
            server.folder / "store" / "a.tif", f"2020-{number:02d}-01", orbit=175 * number, name=f"i{number}"
        )
        item.assets["HH"].href = href
        made.append(item)
    return pystac.ItemCollection(made, extra_fields={PROVENANCE: {"url": "http://catalogue", "years": [2020]}})


def build(found: pystac.ItemCollection, path: Path, **options: Any) -> Any:
    with dask.config.set(num_workers=1):
        return build_cube(found, GRID, path, steps=1, patience=PATIENCE, **options)


def assert_no_secret(*places: Path, texts: tuple[str, ...] = ()) -> None:
    files = [f for place in places for f in ([place] if place.is_file() else place.rglob("*")) if f.is_file()]
    assert files or texts
    for where, content in [*((str(f), f.read_bytes().decode("latin-1")) for f in files), *(("text", t) for t in texts)]:
        for word in SECRETS:
            assert word not in content, f"{word} in {where}"


def test_addresses_are_signed_while_reading_and_again_when_the_token_ends(
    server: FaultServer, tmp_path: Path, power: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = server.url("signed", "store/a.tif")
    ds = build(items(server, address), tmp_path / "one.zarr", profile=sas(server, tmp_path))
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)
    asked = [path for _, path, _ in server.requests if path.startswith("/token")]
    assert asked == ["/token/127/signed"]
    # the token that this process holds is no longer good
    server.token = 2
    address = server.url("signed", "store/b.tif")
    ds = build(items(server, address), tmp_path / "two.zarr", profile=sas(server, tmp_path))
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)
    assert any("sig=s3cr3t-2" in path for _, path, _ in server.requests)
    assert_no_secret(tmp_path / "one.zarr", tmp_path / "two.zarr", texts=(caplog.text,))


def test_a_token_that_ends_in_mid_run_is_renewed(
    server: FaultServer, tmp_path: Path, power: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a raster's cache holds needs no token: each of these is asked for anew
    hrefs = [server.url("signed", f"store/{number}.tif") for number in range(6)]
    for number in range(6):
        write_raster(server.folder / "store" / f"{number}.tif", power / (number + 1))
    server.token_lasts = 9
    ds = build(items(server, *hrefs), tmp_path / "one.zarr", profile=sas(server, tmp_path))
    expected = np.stack([10 * np.log10(power / (number + 1)) for number in range(6)])
    np.testing.assert_allclose(ds.rtc, expected, atol=0.003)
    assert server.token >= 2
    assert sum(path.startswith("/token") for _, path, _ in server.requests) >= 2
    assert_no_secret(tmp_path / "one.zarr")


def test_a_bearer_token_goes_to_its_host_alone_and_not_along_a_redirect(
    server: FaultServer, tmp_path: Path, power: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_USER", "me")
    monkeypatch.setenv("MY_PASSWORD", "hunter2")
    credentials = {"user": "MY_USER", "password": "MY_PASSWORD"}
    token_url = f"{server.address}/token/a/b"
    how = profile(server, tmp_path, signing="oidc", token_url=token_url, credentials=credentials)
    ds = build(items(server, server.url("signed", "store/a.tif")), tmp_path / "one.zarr", profile=how)
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)
    with serve_faults(server.folder, FAULTS) as other:
        target = other.url("open", "").rstrip("/").replace("127.0.0.1", "localhost")
        server.faults["away"] = Fault("redirect", to=target)
        build(items(server, server.url("away", "store/a.tif")), tmp_path / "two.zarr", profile=how)
        assert other.requests
        for _, path, headers in other.requests:
            assert "Authorization" not in headers
            assert "s3cr3t" not in path
    assert any(headers.get("Authorization") == "Bearer s3cr3t-1" for _, _, headers in server.requests)
    assert_no_secret(tmp_path / "one.zarr", tmp_path / "two.zarr", texts=(caplog.text,))


def test_a_variable_that_is_not_set_is_named(server: FaultServer, tmp_path: Path) -> None:
    how = profile(server, tmp_path, signing="oidc", token_url=f"{server.address}/token/a/b")
    content = yaml.safe_load(Path(how).read_text())
    content["access"]["credentials"] = {"user": "NO_SUCH_NAME", "password": "NO_SUCH_NAME"}
    Path(how).write_text(yaml.safe_dump(content))
    with pytest.raises(AccessError, match="NO_SUCH_NAME is not set"):
        build(items(server, server.url("signed", "store/a.tif")), tmp_path / "one.zarr", profile=how)


def test_keys_go_to_the_endpoint_of_the_profile(
    server: FaultServer, tmp_path: Path, power: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "PLANTEDKEY")
    monkeypatch.setenv("MY_SECRET", "PLANTEDSECRET")
    # of another service, which the user has set for other programs
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "OTHERS")
    credentials = {"AWS_ACCESS_KEY_ID": "MY_KEY", "AWS_SECRET_ACCESS_KEY": "MY_SECRET"}
    endpoint = {
        "AWS_S3_ENDPOINT": server.address.removeprefix("http://"),
        "AWS_HTTPS": "NO",
        "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_DEFAULT_REGION": "default",
    }
    how = profile(
        server, tmp_path, schemes=["s3"], hosts=["open"], signing="s3", credentials=credentials, gdal=endpoint
    )
    ds = build(items(server, "s3://open/store/a.tif"), tmp_path / "one.zarr", profile=how)
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)
    signed = [headers.get("Authorization", "") for _, path, headers in server.requests if path.startswith("/open")]
    assert signed
    assert all("Credential=PLANTEDKEY/" in one and "PLANTEDSECRET" not in one for one in signed)
    assert not any("OTHERS" in str(headers) for _, _, headers in server.requests)
    with pytest.raises(AccessError, match=r"'other'.*open"):
        build(items(server, "s3://other/store/a.tif"), tmp_path / "two.zarr", profile=how)
    assert_no_secret(tmp_path / "one.zarr", texts=(caplog.text,))
    # a bucket that anybody may read gets no key at all
    server.requests.clear()
    unsigned = profile(server, tmp_path, schemes=["s3"], hosts=["open"], gdal=endpoint)
    ds = build(items(server, "s3://open/store/b.tif"), tmp_path / "four.zarr", profile=unsigned)
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)
    assert any(path.startswith("/open") for _, path, _ in server.requests)
    assert not any("Authorization" in headers or "OTHERS" in str(headers) for _, _, headers in server.requests)
    # a public read after it carries no key
    server.requests.clear()
    build(items(server, server.url("open", "store/a.tif")), tmp_path / "three.zarr")
    assert server.requests
    assert not any("Authorization" in headers for _, _, headers in server.requests)


@pytest.mark.parametrize("kind", ["error", "hole"])
def test_faults_tell_no_secret(
    server: FaultServer, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    address = server.url("gone", "store/a.tif").replace("://", "://user:hunter2@") + "?sig=PLANTED#PLANTED"
    found = items(server, address, server.url("open", "store/a.tif"))
    path = tmp_path / "cube.zarr"
    if kind == "error":
        with pytest.raises(ReadError, match="404") as caught:
            build(found, path)
        assert_no_secret(tmp_path / "cube.zarr.partial", texts=(str(caught.value), repr(caught.value), caplog.text))
        return
    build(found, path, on_error="hole")
    assert_no_secret(path, texts=(caplog.text,))


def test_a_saved_search_holds_no_secret_and_can_be_read_again(server: FaultServer, tmp_path: Path, power: Any) -> None:
    found = items(server, server.url("signed", "store/a.tif") + "?sig=PLANTED")
    found[0].properties["my:token"] = "PLANTED"
    found[0].add_link(pystac.Link("self", "https://user:hunter2@host/x?sig=PLANTED"))
    save_items(found, tmp_path / "items.json")
    assert_no_secret(tmp_path / "items.json")
    again = load_items(tmp_path / "items.json")
    ds = build(again, tmp_path / "cube.zarr", profile=sas(server, tmp_path))
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power), atol=0.003)


def test_a_token_server_that_redirects_or_fails_gets_no_further(server: FaultServer, tmp_path: Path) -> None:
    server.faults["away"] = Fault("redirect", to=server.address)
    how = profile(server, tmp_path, signing="sas", token_url=f"{server.address}/away/store/a.tif")
    with pytest.raises(CatalogUnavailableError, match="status 302"):
        build(items(server, server.url("signed", "store/a.tif")), tmp_path / "cube.zarr", profile=how)


VRT = "<VRTDataset rasterXSize='40' rasterYSize='40'><SRS>EPSG:32633</SRS><GeoTransform>500000,10,0,8700000,0,-10"
VRT += "</GeoTransform><VRTRasterBand dataType='Float32' band='1'><SimpleSource><SourceFilename>{path}</SourceFilename>"
VRT += "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"


def test_a_description_of_other_files_under_the_name_of_a_raster_is_not_followed(
    server: FaultServer, tmp_path: Path, power: Any
) -> None:
    """A remote text that GDAL would take for a raster could show any file of the machine that reads it."""
    private = write_raster(tmp_path / "private.tif", power)
    (server.folder / "store" / "trap.tif").write_text(VRT.format(path=private))
    with pytest.raises(ReadError, match=r"trap\.tif could not be read"):
        build(items(server, server.url("open", "store/trap.tif")), tmp_path / "cube.zarr")


@pytest.mark.parametrize(
    "href",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "/vsicurl/http://127.0.0.1/a.tif",
        "/vsizip/vsicurl/http://127.0.0.1/a.zip/a.tif",
        "<VRTDataset/>",
        "http://127.0.0.1/a.vrt",
        "ftp://127.0.0.1/a.tif",
        "zip+http://127.0.0.1/a.zip!a.tif",
        "HDF5:a.h5://x",
        "GTIFF_DIR:1:/etc/a.tif",
        "http://127.0.0.1/a b.tif",
        "http:///a.tif",
    ],
)
def test_addresses_that_a_catalogue_must_not_give(server: FaultServer, tmp_path: Path, href: str) -> None:
    with pytest.raises(AccessError, match="item 'i1', asset 'HH'") as caught:
        build(items(server, href), tmp_path / "cube.zarr")
    assert "\n" not in str(caught.value)
    made = items(server, href)
    made[0].set_self_href(None)
    catalog = {"type": "FeatureCollection", "features": [made[0].to_dict(transform_hrefs=False)]}
    (server.folder / "items.json").write_text(json.dumps(catalog))
    with pytest.raises(IcemapError):
        search(f"{server.address}/open/items.json", REGION, 2020)


def test_a_catalogue_on_the_network_does_not_lead_to_local_files(server: FaultServer, tmp_path: Path) -> None:
    inner = write_catalog(items(server, str(server.folder / "store" / "a.tif")), tmp_path / "inner", title="x")
    for target in (str(inner), f"file://{inner}"):
        links = [{"rel": "child", "href": target}]
        content = {"type": "Catalog", "id": "c", "description": "c", "stac_version": "1.0.0", "links": links}
        (server.folder / "catalog.json").write_text(json.dumps(content))
        with pytest.raises(IcemapError):
            search(f"{server.address}/open/catalog.json", REGION, 2020)


def test_a_raster_in_radar_geometry_is_refused(server: FaultServer, data: Path, tmp_path: Path) -> None:
    raw = next(iter(sorted((data / "sentinel1_grd").rglob("*.tif*"))))
    found = items(server, str(raw))
    found.extra_fields = {}
    with pytest.raises(NotGeocodedError, match=r"only ground control points.*geocode it first"):
        build(found, tmp_path / "cube.zarr")
