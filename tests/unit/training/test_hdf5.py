"""Reading the published layout; every bad file gives a typed error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from icemap_xr.errors import ReadError, SchemaError
from icemap_xr.training.hdf5 import open_tiles

NAME = "SVAL-10-38_2020_ro14"
FEATURES = ("grd", "insar")
#: padded 24 x 32, of which 20 x 27 pixels from (3, 4) on are the tile
ATTRS = {"height": 24, "width": 32, "orig_height": 20, "orig_width": 27, "pad_height": 3, "pad_width": 4}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    file = tmp_path / "train.hdf5"
    with h5py.File(file, "w") as h5:
        group = h5.create_group(NAME)
        for feature in FEATURES:
            values = rng.random((9, 24, 32, 1), dtype=np.float32)
            group.create_dataset(feature, data=values, chunks=(1, 8, 8, 1), fletcher32=True)
            group.attrs[f"{feature}_base_time_idx"] = np.array([1, 3, 5, 7])
        glacier = rng.random((24, 32)) < 0.5
        group["outlines"] = np.stack([~glacier, glacier], -1).astype(np.uint8)
        group.attrs.update(ATTRS)
    return file


def test_a_tile_is_read_as_written(path: Path) -> None:
    with open_tiles(path, FEATURES) as tiles, h5py.File(path) as h5:
        (tile,) = tiles
        assert (tile.name, tile.shape, tile.classes) == (NAME, (24, 32), 2)
        assert tile.inside == (slice(3, 23), slice(4, 31))
        values = tile.scenes(FEATURES, slice(2, 12), slice(5, 9))
        np.testing.assert_array_equal(values[2, ..., 1], h5[NAME]["insar"][5, 2:12, 5:9, 0])
        shares = tile.shares(slice(0, 24), slice(0, 32))
        np.testing.assert_array_equal(shares[3:23, 4:31], h5[NAME]["outlines"][3:23, 4:31])
        assert shares.sum() == 20 * 27


def test_only_the_named_tiles_are_opened(path: Path) -> None:
    with open_tiles(path, ("grd",), names=[NAME]) as tiles:
        assert list(tiles[0].series) == ["grd"]
    with (
        pytest.raises(SchemaError, match="tile 'nothing' is not in the file"),
        open_tiles(path, ("grd",), names=["nothing"]),
    ):
        pass


def _delete(name: str) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]

    return change


def _attribute(name: str, value: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        group.attrs[name] = value

    return change


def _put(name: str, value: object) -> Callable[[h5py.Group], None]:
    def change(group: h5py.Group) -> None:
        del group[name]
        group[name] = value

    return change


def _virtual(group: h5py.Group) -> None:
    layout = h5py.VirtualLayout((9, 24, 32, 1), np.float32)
    layout[:] = h5py.VirtualSource("/etc/hostname", "grd", (9, 24, 32, 1))
    del group["grd"]
    group.create_virtual_dataset("grd", layout)


def _external(group: h5py.Group) -> None:
    del group["grd"]
    group.create_dataset("grd", (9, 24, 32, 1), np.float32, external=[("/etc/hostname", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_delete("outlines"), "has no outlines: it has grd, insar"),
        (_delete("insar"), "has no insar"),
        (_put("outlines", np.zeros((24, 32))), r"outlines has shape \(24, 32\)"),
        (_put("outlines", np.zeros((24, 31, 2))), "height and width are"),
        (_put("grd", np.zeros((9, 24, 32))), r"needed is \(time, 24, 32, 1\)"),
        (_put("grd", np.array(["text"], dtype="S4")), "needed are numbers"),
        (_put("grd", h5py.SoftLink("/other")), "grd is a link to elsewhere"),
        (_put("grd", h5py.ExternalLink("other.h5", "/grd")), "grd is a link to elsewhere"),
        (_virtual, "takes its data from other files"),
        (_external, "takes its data from other files"),
        (lambda group: group.attrs.__delitem__("pad_width"), "has no attribute pad_width"),
        (_attribute("orig_height", 22), "no part of 24 pixels"),
        (_attribute("height", -1), "attribute height is -1"),
        (_attribute("height", "tall"), "attribute height has dtype"),
        (_attribute("pixel_size", 0.0), "the pixel size is 0.0 m"),
        (_attribute("pixel_size", [10.0, 10.0]), "needed is one number in m"),
        (_attribute("grd_base_time_idx", np.array([1, 9])), "positions from -1 to 8"),
        (_attribute("grd_base_time_idx", np.array([0.5])), "must be a list of positions"),
    ],
)
def test_a_group_without_the_layout_is_refused(path: Path, change: Callable[[h5py.Group], None], message: str) -> None:
    with h5py.File(path, "a") as h5:
        change(h5[NAME])
    with pytest.raises(SchemaError, match=message), open_tiles(path, FEATURES):
        pass


def test_labels_that_are_not_one_hot_are_refused_when_read(path: Path) -> None:
    with h5py.File(path, "a") as h5:
        h5[NAME]["outlines"][5, 5] = (1, 1)
    with open_tiles(path, FEATURES) as (tile,), pytest.raises(SchemaError, match="labels are not one-hot"):
        tile.shares(slice(0, 24), slice(0, 32))


@pytest.mark.parametrize("content", [b"", b"not a file of tiles", None])
def test_what_is_no_hdf5_is_refused(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "tiles.hdf5"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ReadError, match="cannot be opened as HDF5"), open_tiles(file, FEATURES):
        pass


def test_a_truncated_file_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ReadError, match="truncated"), open_tiles(path, FEATURES):
        pass


def test_a_flipped_bit_in_a_checked_block_is_a_read_error(path: Path) -> None:
    with h5py.File(path) as h5:
        offset = h5[NAME]["grd"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 7] ^= 1
    path.write_bytes(content)
    with open_tiles(path, FEATURES) as (tile,), pytest.raises(ReadError, match=f"/{NAME}/grd cannot be read"):
        [tile.series["grd"][k, slice(0, 24), slice(0, 32)] for k in range(9)]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    with pytest.raises(SchemaError, match="holds no tile"), open_tiles(tmp_path / "empty.hdf5", FEATURES):
        pass
