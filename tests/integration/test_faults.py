"""Faults of real servers over real COGs: right data after a retry, a recorded hole, or an error; no silent nodata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import rasterio
from numpy.typing import NDArray

from icemap_xr import store
from icemap_xr.cube import build_cube
from icemap_xr.errors import ReadError
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.faults import Fault, FaultServer, serve_faults
from icemap_xr.testing.rasters import rtc_item
from icemap_xr.web import Patience

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (400, 400)
GRID = small_grid(SHAPE)
#: short, so that a fault that stays is soon given up; a fault that passes is over by the second or third try
PATIENCE = Patience(tries=4, deadline=20.0, timeout=2.0, backoff=0.02)
#: beyond the header: meets only the pixels
PIXELS = 100_000


@dataclass(frozen=True)
class Case:
    """A fault and what is to come of it: ``"data"`` or ``"hole"``, and the status that is recorded."""

    name: str
    text: str
    fault: Fault
    outcome: str
    status: int | None = None


CASES = (
    Case("none", "no fault", Fault(), "data"),
    Case("s403", "403, always (no token to renew)", Fault("status", status=403), "hole", 403),
    Case("s404", "404, always", Fault("status", status=404), "hole", 404),
    Case(
        "s429", "429 with Retry-After and a JSON body, twice", Fault("status", 2, status=429, retry_after=0.1), "data"
    ),
    Case("s429_always", "429, always", Fault("status", status=429), "hole", 429),
    Case("s500", "500, once", Fault("status", 1, status=500), "data"),
    Case("s503", "503, twice", Fault("status", 2, status=503), "data"),
    Case("s503_always", "503, always", Fault("status", status=503), "hole", 503),
    Case("s503_pixels", "503 for the pixels, twice", Fault("status", 2, PIXELS, status=503), "data"),
    Case("s503_pixels_always", "503 for the pixels, always", Fault("status", start=PIXELS, status=503), "hole"),
    Case("s500_always", "500, always", Fault("status", status=500), "hole", 500),
    Case("reset", "connection reset, three times", Fault("reset", 3), "data"),
    Case("reset_always", "connection reset, always", Fault("reset"), "hole"),
    Case("truncated", "body cut short, twice", Fault("truncated", 2), "data"),
    Case("truncated_always", "body cut short, always", Fault("truncated"), "hole"),
    Case("html", "a page of HTML with status 200, once", Fault("html", 1), "data"),
    Case("html_always", "a page of HTML with status 200, always", Fault("html"), "hole"),
    Case("stalled", "no byte after the head, once", Fault("stall", 1, PIXELS), "data"),
    Case("stalled_always", "no byte after the head, always", Fault("stall", start=PIXELS), "hole"),
    Case("slow", "in small pieces", Fault("slow"), "data"),
    Case("short", "less than was asked for, and said so, twice", Fault("short", 2, PIXELS), "data"),
    Case("short_always", "less than was asked for, always", Fault("short", start=PIXELS), "hole"),
    Case("corrupt", "other bytes in a compressed block, once", Fault("corrupt", 1, PIXELS), "data"),
    Case("corrupt_always", "other bytes in a compressed block, always", Fault("corrupt", start=PIXELS), "hole"),
)


#: faults over several requests: tested below and in test_credentials.py
OTHERS = (
    "| a token that ends in mid-run | right data with a new token |",
    "| 404, and later it is there (GDAL remembers that it was not) | the same call reads it |",
)


def power(number: int) -> NDArray[np.float32]:
    return np.random.default_rng(number).lognormal(-3, 1, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def cogs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cogs")
    options: dict[str, Any] = {"driver": "COG", "compress": "deflate", "blocksize": 256, "overviews": "NONE"}
    options |= {"height": SHAPE[0], "width": SHAPE[1], "count": 1, "dtype": "float32", "nodata": np.nan}
    for number, name in enumerate(("first", "second")):
        path = folder / f"{name}.tif"
        with rasterio.open(path, "w", crs=GRID.crs, transform=GRID.geobox.transform, **options) as out:
            out.write(power(number), 1)
    return folder


@pytest.fixture(scope="module")
def server(cogs: Path) -> Iterator[FaultServer]:
    with serve_faults(cogs, {case.name: case.fault for case in CASES}) as running:
        yield running


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with dask.config.set(num_workers=1):
        yield


def items(cogs: Path, *hrefs: str) -> pystac.ItemCollection:
    """One item a month; all have the first file's header."""
    made = []
    for month, href in enumerate(hrefs, start=1):
        item = rtc_item(cogs / "first.tif", f"2020-{month:02d}-01", orbit=175 * month, name=f"item{month}")
        item.assets["HH"].href = href
        made.append(item)
    return pystac.ItemCollection(made)


def build(found: pystac.ItemCollection, path: Path, **options: Any) -> Any:
    return build_cube(found, GRID, path, steps=2, chunk=400, patience=PATIENCE, **options)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_fault_ends_in_right_data_or_in_a_recorded_hole(
    server: FaultServer, cogs: Path, tmp_path: Path, case: Case
) -> None:
    found = items(cogs, server.url(case.name, "first.tif"), server.url("none", "second.tif"))
    ds = build(found, tmp_path / "cube.zarr", on_error="hole")
    np.testing.assert_allclose(ds.rtc[1], 10 * np.log10(power(1)), atol=0.003)
    missing = store.read_manifest(tmp_path / "cube.zarr")["missing"]
    if case.outcome == "data":
        np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power(0)), atol=0.003)
        assert missing == []
        assert ds.rtc_missing_blocks.values.tolist() == [0, 0]
        assert sorted(ds.rtc_index.values[0]) == [0, 1]
        return
    assert np.isnan(ds.rtc[0]).all()
    assert ds.rtc_valid_pixels.values.tolist() == [0, SHAPE[0] * SHAPE[1]]
    assert ds.rtc_missing_blocks.values.tolist() == [1, 0]
    assert sorted(ds.rtc_index.values[0]) == [-1, 1]
    (hole,) = missing
    assert (hole["item"], hole["asset"], hole["feature"], hole["position"]) == ("item1", "HH", "rtc", 0)
    assert hole["url"] == server.url(case.name, "first.tif")
    assert hole["when"].startswith("20")
    assert hole["cause"] == ds.rtc_missing_cause.values[0] != ""
    if case.status is not None:
        assert hole["status"] == case.status


def test_without_leave_a_hole_is_an_error_and_the_same_call_resumes(
    server: FaultServer, cogs: Path, tmp_path: Path
) -> None:
    server.faults["later"] = Fault("status", status=404)
    found = items(cogs, server.url("later", "first.tif"), server.url("none", "second.tif"))
    path = tmp_path / "cube.zarr"
    with pytest.raises(ReadError, match="404") as caught:
        build(found, path)
    assert not path.exists()
    assert "\n" not in str(caught.value)
    # the object appears, although GDAL remembers that it was not there
    server.faults["later"] = Fault()
    ds = build(found, path)
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power(0)), atol=0.003)


def test_a_cube_with_holes_is_not_given_to_who_did_not_accept_them(
    server: FaultServer, cogs: Path, tmp_path: Path
) -> None:
    found = items(cogs, server.url("s404", "first.tif"), server.url("none", "second.tif"))
    path = tmp_path / "cube.zarr"
    build(found, path, on_error="hole")
    with pytest.raises(ReadError, match=r"1 holes.*'item1'.*404"):
        build(found, path)
    assert build(found, path, on_error="hole").rtc_missing_blocks.values.tolist() == [1, 0]


def test_the_page_about_catalogues_has_the_table_of_faults() -> None:
    words = {"data": "right data after another try", "hole": 'an error, or with `on_error="hole"` a recorded hole'}
    rows = [f"| {case.text} | {words[case.outcome]} |" for case in CASES if case.name != "none"]
    table = "\n".join(["| what the server does | what comes of it |", "|---|---|", *rows, *OTHERS])
    page = (ROOT / "docs" / "catalogues.md").read_text()
    assert table in page, f"put this into docs/catalogues.md:\n{table}"
