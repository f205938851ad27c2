"""Stored arrays decode what they encode, and lack nothing silently."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask.array as da
import numpy as np
import pytest

from icemap_xr import store
from icemap_xr.errors import (
    DamagedChunkError,
    IncompleteStoreError,
    InputError,
)
from icemap_xr.storearray import StoreArray, decode, encode, lazy, untouched
from icemap_xr.testing.stores import PLAN, two_year_map, write_store


def digest(path: Path) -> str:
    found: str = store.read_manifest(path)["files_sha256"]
    return found


def test_a_damaged_chunk_is_a_typed_error_that_names_the_store(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    source = StoreArray(str(path), "probability", (2, 20, 24), digest(path))
    chunk = path / "probability" / "c" / "1" / "2" / "0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 4
    chunk.write_bytes(content)
    with pytest.raises(DamagedChunkError, match=r"probability of .*a.zarr cannot be decoded.*icemap verify"):
        source[1]


def test_a_store_written_anew_is_not_read_by_who_opened_the_old_one(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    source = StoreArray(str(path), "probability", (2, 20, 24), digest(path))
    np.testing.assert_array_equal(source[0], two_year_map().probability[0])
    shutil.rmtree(path)
    write_store(path)
    np.testing.assert_array_equal(source[0], two_year_map().probability[0])
    shutil.rmtree(path)
    with pytest.raises(IncompleteStoreError, match="gone"):
        source[0]
    write_store(path, two_year_map(seed=1))
    with pytest.raises(IncompleteStoreError, match=r"written anew.*open it again"):
        source[0]


def test_a_missing_chunk_is_an_error_and_not_nodata(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    source = StoreArray(str(path), "probability", (2, 20, 24), digest(path))
    (path / "probability" / "c" / "1" / "2" / "0").unlink()
    with pytest.raises(DamagedChunkError, match=r"chunk probability/c/1/2/0 of .* is missing: run icemap verify"):
        source[1]
    np.testing.assert_array_equal(source[0], two_year_map().probability[0])
    with pytest.raises(IncompleteStoreError, match=r"lacks 1 chunks, such as probability/c/1/2/0: run icemap verify"):
        store.write({"": two_year_map()}, path, plan=PLAN, call="test")


def test_codes_hold_values_to_half_a_step_and_nodata_apart() -> None:
    values = np.random.default_rng(0).uniform(-160, 160, 5000)
    values[::7] = np.nan
    codes = encode(values, 0.005, -32768)
    assert codes.dtype == np.int16
    found = decode(codes, {"scale_factor": 0.005, "_FillValue": -32768})
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    assert np.nanmax(np.abs(found - values)) <= 0.0025 + 2e-5
    np.testing.assert_array_equal(encode(found, 0.005, -32768), codes)


@pytest.mark.parametrize("value", [164.0, -163.84, -163.838, 1e30, -1e30])
def test_values_that_do_not_fit_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"does not fit.*units"):
        encode(np.array([1.0, value, np.nan]), 0.005, -32768)
    assert encode(np.array([-163.835, 163.835]), 0.005, -32768).tolist() == [-32767, 32767]


def test_nothing_observed_is_all_nodata() -> None:
    assert encode(np.full((2, 2), np.nan), 0.1, -32768).tolist() == [[-32768] * 2] * 2
    assert encode(np.empty((0, 2)), 0.1, -32768).shape == (0, 2)


def test_only_an_array_as_opened_is_untouched(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    source = StoreArray(str(path), "probability", (2, 20, 24), digest(path))
    array = lazy(source, (1, 8, 8))
    assert untouched(array) == source
    assert lazy(source, (1, 8, 8)).name == array.name
    changed = [array + 0, array[:], array[:1], array.rechunk((2, 20, 24)), array.T, array.persist(), array.compute()]
    assert [untouched(one) for one in changed if one is not array] == [None] * (
        len(changed) - sum(one is array for one in changed)
    )
    assert untouched(da.zeros((2, 3))) is None
    np.testing.assert_array_equal(array.compute(), two_year_map().probability)
    np.testing.assert_array_equal(source[0, 3:9, [1, 5]], two_year_map().probability.values[0, 3:9][:, [1, 5]])
