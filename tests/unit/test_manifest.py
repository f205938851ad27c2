"""What is damaged, unfinished or no store is told as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from icemap_xr import manifest, store
from icemap_xr.errors import (
    IncompleteStoreError,
    InputError,
)
from icemap_xr.testing.stores import contents, write_store


def test_changed_metadata_is_found(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    names = [name for name in contents(path) if name.endswith("zarr.json")]
    assert len(names) == 8
    for name in names:
        content = (path / name).read_bytes()
        (path / name).write_bytes(content.replace(b"3", b"4", 1))
        with pytest.raises(IncompleteStoreError, match="sha256"):
            store.read_manifest(path)
        (path / name).unlink()
        with pytest.raises(IncompleteStoreError, match="missing"):
            store.read_manifest(path)
        (path / name).write_bytes(content)
    store.read_manifest(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"plan": {}}'])
def test_a_damaged_manifest_is_a_typed_error(tmp_path: Path, content: str) -> None:
    path = write_store(tmp_path / "a.zarr")
    (path / store.MANIFEST).write_text(content)
    with pytest.raises(IncompleteStoreError, match=r"manifest\.json is damaged") as caught:
        store.read_manifest(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        store.read_manifest(tmp_path / "none.zarr")
    with pytest.raises(IncompleteStoreError, match="no icemap/manifest"):
        store.read_manifest(tmp_path)


def test_a_line_that_was_cut_short_does_not_count(tmp_path: Path) -> None:
    digests = {"a/c/0": "0" * 64, "with two  blanks": "a" * 64}
    manifest.write_table(tmp_path / "table", digests)
    assert manifest.read_table(tmp_path / "table") == digests
    text = (tmp_path / "table").read_text()
    (tmp_path / "table").write_text(text[:-1])
    assert manifest.read_table(tmp_path / "table") == {"a/c/0": "0" * 64}
    assert manifest.read_table(tmp_path / "none") == {}


def test_an_empty_chunk_file_counts_as_missing(tmp_path: Path) -> None:
    path = write_store(tmp_path / "a.zarr")
    assert manifest.missing_chunks(path) == []
    (path / "probability" / "c" / "0" / "2" / "1").write_bytes(b"")
    (path / "zeros" / "c" / "0").unlink()
    assert manifest.missing_chunks(path) == ["probability/c/0/2/1", "zeros/c/0"]
