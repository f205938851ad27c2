"""Every flipped bit and every missing file of a finished store is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import xarray as xr

from icemap_xr.cube import build_cube
from icemap_xr.errors import IncompleteStoreError, InputError
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import rtc_item, write_raster
from icemap_xr.verify import verify


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verify")
    values = np.random.default_rng(0).lognormal(-3, 1, (20, 24))
    values[:, :8] = np.nan
    item = rtc_item(write_raster(folder / "a.tif", values), "2020-05-01")
    build_cube(pystac.ItemCollection([item]), small_grid((20, 24)), folder / "cube.zarr", steps=1, chunk=8)
    return folder / "cube.zarr"


def faults(path: Path) -> list[str]:
    try:
        return verify(path)
    except IncompleteStoreError as error:
        return [str(error)]


def test_a_whole_store_has_no_fault(cube: Path) -> None:
    assert verify(cube) == []


def test_flipped_bits_are_found_in_every_file_and_named(cube: Path) -> None:
    rng, whole = np.random.default_rng(1), xr.open_zarr(cube).load()
    harmless: list[Any] = []
    for file in sorted(f for f in cube.rglob("*") if f.is_file()):
        content = file.read_bytes()
        for bit in rng.integers(0, 8 * len(content), 5):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << (bit % 8)
            file.write_bytes(changed)
            found = faults(cube)
            if not found:
                # zstd's frame header has a few bits that change nothing
                xr.testing.assert_identical(xr.open_zarr(cube).load(), whole)
                harmless.append((file, bit))
                continue
            # a manifest with another hash in it accuses the file that the hash is of
            assert file.name == "manifest.json" or file.relative_to(cube).parts[0] in " ".join(found)
        file.write_bytes(content)
    assert len(harmless) < 10
    assert verify(cube) == []


def test_missing_files_are_found_and_named(cube: Path) -> None:
    for file in sorted(f for f in cube.rglob("*") if f.is_file()):
        content = file.read_bytes()
        file.unlink()
        assert faults(cube), file
        file.write_bytes(content)
    chunk = cube / "rtc" / "c" / "0" / "1" / "2"
    content = chunk.read_bytes()
    chunk.unlink()
    assert verify(cube) == ["rtc: chunk c/0/1/2 is missing"]
    chunk.write_bytes(content)


def test_what_is_no_finished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        verify(tmp_path / "none.zarr")
    with pytest.raises(IncompleteStoreError):
        verify(tmp_path)
