"""Cubes and archives in a bucket: published to a server that speaks S3, opened in place, checked bit by bit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import dask
import distributed
import geopandas as gpd
import numpy as np
import pystac
import pytest
from moto.server import ThreadedMotoServer

import icemap_xr as ix
from icemap_xr import objectstore, storearray
from icemap_xr.cube_report import cube_info
from icemap_xr.errors import IncompleteStoreError, InputError, OutputExistsError, StoreError
from icemap_xr.testing.commands import Result
from icemap_xr.testing.fakes import FakePredictor, small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster

SHAPE = (40, 50)
GRID = small_grid(SHAPE)
SECRET = "planted-secret-0123456789"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """An empty bucket, and its address and keys in the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "planted-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.resource("s3", endpoint_url=endpoint, region_name="us-east-1")
    return s3.create_bucket(Bucket=f"b{abs(hash(request.node.name))}")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    items = []
    for number, day in enumerate(("2020-01-10", "2020-05-01", "2020-09-01")):
        values = np.random.default_rng(number).lognormal(-3, 1, SHAPE)
        items.append(rtc_item(write_raster(tmp_path / f"{number}.tif", values), day, orbit=100 + 175 * number))
    ix.build_cube(pystac.ItemCollection(items), GRID, tmp_path / "cube.zarr", steps=3, chunk=16)
    return tmp_path / "cube.zarr"


def objects(bucket: Any) -> dict[str, str]:
    return {one.key: one.last_modified.isoformat() + one.e_tag for one in bucket.objects.all()}


def test_a_published_cube_is_the_same_cube(bucket: Any, local: Path) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cubes/cube.zarr")
    assert objectstore.verify_remote(url) == []
    here, there = ix.open_cube(local), ix.open_cube(url)
    assert there.chunks == here.chunks
    np.testing.assert_array_equal(there.rtc.values, here.rtc.values)
    assert there.drop_vars("rtc").identical(here.drop_vars("rtc").load())
    assert cube_info(url)["features"] == cube_info(local)["features"]


def test_a_map_is_made_from_a_bucket_by_other_processes(bucket: Any, local: Path, tmp_path: Path) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cube.zarr")
    model = FakePredictor(features=("rtc",), steps=3, window=16)
    here = ix.open_cube(local).icemap.predict(model).compute()
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster):
        there = ix.open_cube(url).icemap.predict(model).compute()
    np.testing.assert_array_equal(there.probability, here.probability)


def test_a_published_archive_is_the_same_archive(bucket: Any, local: Path, tmp_path: Path) -> None:
    maps = ix.open_cube(local).icemap.predict(FakePredictor(features=("rtc",), steps=3, window=16)).compute()
    path = maps.icemap.archive(tmp_path / "region.zarr", outlines=maps.icemap.outlines(), region="here")
    url = objectstore.publish(path, f"s3://{bucket.name}/region.zarr")
    here, there = ix.open_archive(path), ix.open_archive(url)
    assert there.identical(here)
    assert objectstore.verify_remote(url) == []


def test_publishing_goes_on_where_it_was_cut_off(bucket: Any, local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"s3://{bucket.name}/cube.zarr"
    put, sent = objectstore.obstore.put, []

    def cut(store: Any, key: str, *args: Any, **options: Any) -> Any:
        if len(sent) >= 5:
            raise ConnectionError("cut off")
        sent.append(key)
        return put(store, key, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(objectstore.obstore, "put", cut)
        with pytest.raises(StoreError, match="cannot be used: cut off"):
            objectstore.publish(local, url)
    before = objects(bucket)
    assert len(before) == 5
    with pytest.raises(IncompleteStoreError, match="was not published whole"):
        ix.open_cube(url)
    objectstore.publish(local, url)
    after = objects(bucket)
    assert {key: after[key] for key in before} == before
    assert objectstore.verify_remote(url) == []
    objectstore.publish(local, url)
    assert objects(bucket) == after


def test_another_store_is_not_overwritten(bucket: Any, local: Path, tmp_path: Path) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cube.zarr")
    other = ix.open_cube(local).icemap.predict(FakePredictor(features=("rtc",), steps=3, window=16))
    other.icemap.to_zarr(tmp_path / "maps.zarr")
    before = objects(bucket)
    with pytest.raises(OutputExistsError, match="holds another store"):
        objectstore.publish(tmp_path / "maps.zarr", url)
    bucket.put_object(Key="notes/readme.txt", Body=b"mine")
    with pytest.raises(OutputExistsError, match=r"holds readme\.txt"):
        objectstore.publish(local, f"s3://{bucket.name}/notes")
    assert {key: value for key, value in objects(bucket).items() if key in before} == before


def test_damage_is_found_and_a_missing_chunk_is_no_nodata(
    bucket: Any, local: Path, icemap: Callable[..., Result]
) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cube.zarr")
    chunks = sorted(one.key for one in bucket.objects.all() if "/rtc/c/" in one.key)
    content = bytearray(bucket.Object(chunks[0]).get()["Body"].read())
    content[len(content) // 2] ^= 1
    bucket.put_object(Key=chunks[0], Body=bytes(content))
    bucket.Object(chunks[-1]).delete()
    faults = objectstore.verify_remote(url)
    assert [fault.split(": is ")[1] for fault in faults] == ["damaged", "missing"]
    with pytest.raises(IncompleteStoreError, match="missing"), dask.config.set(scheduler="synchronous"):
        ix.open_cube(url).rtc[-1].load()
    found = icemap("verify", url)
    assert found.code == 1
    assert "is damaged" in found.out
    assert "icemap publish" in found.out + found.err


def test_the_command_publishes_and_tells_no_secret(
    bucket: Any, local: Path, icemap: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{bucket.name}/cube.zarr"
    done = icemap("publish", local, url)
    assert done.code == 0, done
    assert icemap("verify", url).code == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    failed = icemap("verify", url)
    assert failed.code == 1
    for one in (done, failed):
        assert SECRET not in one.out + one.err
    assert not any(SECRET.encode() in one.get()["Body"].read() for one in bucket.objects.all())


@pytest.mark.parametrize("url", ["s3://bucket", "s3://key:secret@bucket/a.zarr", "s3://bucket/a.zarr?X=1"])
def test_addresses_that_are_none(url: str, bucket: Any) -> None:
    with pytest.raises(InputError, match="without keys"):
        ix.open_cube(url)


def test_what_is_not_there_or_not_set_is_said(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        ix.open_cube(f"s3://{bucket.name}/nothing.zarr")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID is not set"):
        ix.open_cube(f"s3://{bucket.name}/nothing.zarr")


def test_the_commands_take_the_address_of_maps(
    bucket: Any, local: Path, icemap: Callable[..., Result], tmp_path: Path
) -> None:
    maps = ix.open_cube(local).icemap.predict(FakePredictor(features=("rtc",), steps=3, window=16))
    maps.icemap.to_zarr(tmp_path / "maps.zarr")
    url = objectstore.publish(tmp_path / "maps.zarr", f"s3://{bucket.name}/maps.zarr")
    for number, path in enumerate((tmp_path / "maps.zarr", url)):
        assert icemap("area", path, "--output", tmp_path / f"{number}.csv").code == 0
        assert icemap("outlines", path, "--output", tmp_path / f"{number}.parquet").code == 0
    assert (tmp_path / "0.csv").read_text() == (tmp_path / "1.csv").read_text()
    here, there = (gpd.read_parquet(tmp_path / f"{number}.parquet") for number in (0, 1))
    assert len(here) > 0
    assert here.geometry.geom_equals(there.geometry).all()
    next(one for one in bucket.objects.all() if "/probability/c/" in one.key).Object().delete()
    failed = icemap("area", url)
    assert failed.code == 1
    assert "publish the store again" in failed.err


def test_every_bit_of_the_manifest_is_checked(bucket: Any, local: Path) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cube.zarr")
    key = "cube.zarr/icemap/manifest.json"
    content = bucket.Object(key).get()["Body"].read()
    changed = content.replace(b'"valid_pixels"', b'"valid-pixels"')
    assert changed != content
    bucket.put_object(Key=key, Body=changed)
    assert objectstore.verify_remote(url) == ["icemap/manifest.json: is damaged"]
    bucket.Object(key).delete()
    with pytest.raises(IncompleteStoreError, match="was not published whole"):
        objectstore.verify_remote(url)


def test_a_store_published_anew_is_not_read_by_who_opened_the_old_one(bucket: Any, local: Path, tmp_path: Path) -> None:
    url = objectstore.publish(local, f"s3://{bucket.name}/cube.zarr")
    opened = ix.open_cube(url)
    bucket.objects.all().delete()
    items = [
        rtc_item(tmp_path / "0.tif", "2020-01-10", orbit=100),
        rtc_item(tmp_path / "1.tif", "2020-05-01", orbit=275),
    ]
    ix.build_cube(pystac.ItemCollection(items), GRID, tmp_path / "other.zarr", steps=3, chunk=16)
    objectstore.publish(tmp_path / "other.zarr", url)
    # as in another process, which has not opened the array yet
    storearray._open_array.cache_clear()
    with pytest.raises(IncompleteStoreError, match="published anew since it was opened: open it again"):
        opened.rtc.sum().compute(scheduler="synchronous")


def test_an_address_is_tried_before_work_and_stays_clean(bucket: Any, local: Path) -> None:
    address = f"s3://{bucket.name}/cubes/r.zarr"
    objectstore.check_writable(address)
    assert list(bucket.objects.all()) == []
    objectstore.publish(local, address)
    with pytest.raises(OutputExistsError, match="already: choose a new address"):
        objectstore.check_writable(address)
