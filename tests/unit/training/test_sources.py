"""Sources of tiles: no place serves two purposes, and each purpose gets what the recipe says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import h5py
import numpy as np
import pytest
import xarray as xr
from shapely import box

from icemap_xr import store
from icemap_xr.errors import InputError, ReadError
from icemap_xr.testing.fakes import small_grid
from icemap_xr.training.cube_tiles import read_outlines
from icemap_xr.training.hdf5 import place_of
from icemap_xr.training.real_sources import CubeSection, Hdf5Section, square, year_unit
from icemap_xr.training.sources import PURPOSES, Tiles
from icemap_xr.training.tiles import feature_specs

FEATURES = feature_specs(("grd",))
NAMES = [f"SVAL-{row}-{column}_{year}_ro14" for row in range(2) for column in range(3) for year in (2020, 2021)]
TILES = {"train": ("SVAL-0-*",), "validation": ("SVAL-1-0*",), "test": ("SVAL-1-2_*",)}


def write_tiles(path: Path, names: list[str] = NAMES) -> Path:
    attrs = {"height": 8, "width": 8, "orig_height": 8, "orig_width": 8, "pad_height": 0, "pad_width": 0}
    with h5py.File(path, "w") as file:
        for name in names:
            group = file.create_group(name)
            group["grd"] = np.full((3, 8, 8, 1), 0.5, np.float32)
            group["outlines"] = np.stack([np.ones((8, 8)), np.zeros((8, 8))], -1).astype(np.uint8)
            group.attrs.update({**attrs, "grd_base_time_idx": np.array([0, 1, 2])})
    return path


def names_of(data: Tiles) -> dict[str, list[str]]:
    return {purpose: [tile.name for tile in data.read(purpose)] for purpose in PURPOSES}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles.hdf5")


def test_tiles_of_a_file_are_chosen_by_pattern_and_validation_calibrates_too(file: Path) -> None:
    with Hdf5Section(file.name, **TILES).open(FEATURES, 3, file.parent) as data:
        found = names_of(data)
        assert found["train"] == NAMES[:6]
        assert found["validation"] == found["calibration"] == NAMES[6:8]
        assert found["test"] == NAMES[10:]
        assert data.counts == {"train": 6, "validation": 2, "calibration": 2, "test": 2}
        assert (data.real, data.resolution, data.unit_of(NAMES[0])) == (True, 10.0, "2020")
    with Hdf5Section(file.name, **TILES, calibration=("SVAL-1-1*",)).open(FEATURES, 3, file.parent) as data:
        assert names_of(data)["calibration"] == NAMES[8:10]


def test_a_file_for_each_purpose(tmp_path: Path) -> None:
    for number, name in enumerate(("train", "validation", "test")):
        write_tiles(tmp_path / f"{name}.hdf5", [f"SVAL-{number}-0_2020_ro14"])
    section = Hdf5Section({name: f"{name}.hdf5" for name in ("train", "validation", "test")})
    with section.open(FEATURES, 3, tmp_path) as data:
        assert names_of(data)["test"] == ["SVAL-2-0_2020_ro14"]
        assert data.identity["files"].keys() == {"train.hdf5", "validation.hdf5", "test.hdf5"}


def test_a_table_splits_places(file: Path) -> None:
    rows = ["codename,subset", "SVAL-0-0,train", "SVAL-0-1,val", "SVAL-0-2,test", "SVAL-1-0,", "SVAL-9-9,train"]
    (file.parent / "split.csv").write_text("\n".join(rows))
    with Hdf5Section(file.name, split="split.csv").open(FEATURES, 3, file.parent) as data:
        found = names_of(data)
    assert found == {
        "train": NAMES[:2],
        "validation": NAMES[2:4],
        "calibration": NAMES[2:4],
        "test": NAMES[4:6],
    }
    (file.parent / "split.csv").write_text("codename,subset\nSVAL-0-0,practice\n")
    with (
        pytest.raises(InputError, match="subset of 'SVAL-0-0' is 'practice': allowed are"),
        Hdf5Section(file.name, split="split.csv").open(FEATURES, 3, file.parent),
    ):
        pass
    (file.parent / "split.csv").write_text("name\nSVAL-0-0\n")
    with (
        pytest.raises(InputError, match="has no column 'codename'"),
        Hdf5Section(file.name, split="split.csv").open(FEATURES, 3, file.parent),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # the same ground in another year is no new ground
        ({"train": ("*_2020_*",), "test": ("*_2021_*",)}, "place 'SVAL-1-0' serves train and validation"),
        ({"validation": ("SVAL-1-1*",), "test": ("SVAL-0-1_2021*",)}, "place 'SVAL-0-1' serves train and test"),
        ({"calibration": ("SVAL-1-*",)}, "place 'SVAL-1-0' serves validation and calibration"),
        ({"test": ("SVAL-7*",)}, "test has no tile"),
    ],
)
def test_a_place_that_serves_two_purposes_is_refused(file: Path, change: dict[str, Any], message: str) -> None:
    section = Hdf5Section(file.name, **{**TILES, **change})
    with pytest.raises(InputError, match=message), section.open(FEATURES, 3, file.parent):
        pass


def test_sections_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'train'"):
        Hdf5Section({"trian": "a.hdf5"})
    with pytest.raises(InputError, match="test names no tile"):
        Hdf5Section("a.hdf5", train=("a",), validation=("b",))
    with pytest.raises(ReadError, match="cannot be opened"), Hdf5Section("a.hdf5", **TILES).open(FEATURES, 3, tmp_path):
        pass
    with pytest.raises(InputError, match="shares add up to 2"):
        CubeSection("a", "b", 8, shares=dict.fromkeys(PURPOSES, 0.5))
    with pytest.raises(InputError, match="give one above 0 for each"):
        CubeSection("a", "b", 8, shares={"train": 1.0})


@pytest.fixture(scope="module")
def cube_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cube of 60 x 80 pixels and two years, with ice in its west."""
    folder = tmp_path_factory.mktemp("cube")
    grid = small_grid((60, 80))
    cube = xr.Dataset(coords={"year": [2020, 2021], **grid.coords()})
    values = np.random.default_rng(0).normal(-12, 3, (6, 60, 80)).astype(np.float32)
    attrs = {"units": "dB", "polarisation": "HH", "radiometry": "sigma0"}
    cube["grd"] = (("grd_time", "y", "x"), values, attrs)
    cube["grd_index"] = (("year", "step"), np.arange(6, dtype=np.int32).reshape(2, 3))
    store.save(cube, folder / "cube.zarr")
    west, _, _, north = grid.geobox.boundingbox.bbox
    ice = gpd.GeoDataFrame(geometry=[box(west, north - 600, west + 400, north)], crs="EPSG:32633")
    ice.to_file(folder / "ice.gpkg")
    ice.to_parquet(folder / "ice.parquet")
    return folder


@pytest.mark.parametrize("outlines", ["ice.gpkg", "ice.parquet"])
def test_squares_of_a_cube_are_shared_out_with_their_ice(cube_folder: Path, outlines: str) -> None:
    with CubeSection("cube.zarr", outlines, 10, years=(2020, 2021)).open(FEATURES, 3, cube_folder) as data:
        found = names_of(data)
        ice = {
            purpose: np.mean([tile.shares(slice(0, 10), slice(0, 10))[..., 1].mean() for tile in data.read(purpose)])
            for purpose in PURPOSES
        }
        assert data.resolution == 10
        assert [(one.polarisation, one.radiometry) for one in data.features] == [("HH", "sigma0")]
    places = {purpose: {square(name) for name in names} for purpose, names in found.items()}
    assert sum(map(len, places.values())) == len(set().union(*places.values())) == 48, "no place serves two"
    assert all(len(found[purpose]) == 2 * len(places[purpose]) for purpose in PURPOSES), "a place has all its years"
    assert [len(places[one]) for one in PURPOSES] == [29, 7, 5, 7]
    assert all(0.35 < share < 0.65 for share in ice.values()), ice


def test_a_cube_is_shared_out_the_same_way_again_and_otherwise_with_another_seed(cube_folder: Path) -> None:
    found = []
    for seed in (0, 0, 1):
        with CubeSection("cube.zarr", "ice.gpkg", 10, seed=seed).open(FEATURES, 3, cube_folder) as data:
            found.append(names_of(data))
    assert found[0] == found[1] != found[2]


def _no_crs(folder: Path) -> None:
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1)]).to_parquet(folder)


def _points(folder: Path) -> None:
    gpd.GeoDataFrame(geometry=[box(0, 0, 1, 1).centroid], crs="EPSG:4326").to_parquet(folder)


def _text(folder: Path) -> None:
    folder.write_text("no outlines")


@pytest.mark.parametrize(("write", "message"), [(_no_crs, "with a CRS"), (_points, "no polygon"), (_text, "cannot be")])
def test_outlines_that_are_none_are_refused(tmp_path: Path, write: Callable[[Path], None], message: str) -> None:
    write(tmp_path / "ice.parquet")
    with pytest.raises(InputError, match=message):
        read_outlines(tmp_path / "ice.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_outlines(tmp_path / "absent.gpkg")


def test_too_few_squares_are_refused(cube_folder: Path) -> None:
    with (
        pytest.raises(InputError, match="2 squares of 40 px, too few for calibration, test: give a smaller tile_px"),
        CubeSection("cube.zarr", "ice.gpkg", 40).open(FEATURES, 3, cube_folder),
    ):
        pass


def test_the_unit_of_shared_errors_is_the_year() -> None:
    assert year_unit("SVAL-10-38_2020_ro14") == "2020"
    assert year_unit("cube-3-4_2021") == "2021"
    assert year_unit("meadow") == "meadow"
    # other numbers of four digits are no years
    assert year_unit("run_1999_cube-3-4_2021") == "2021"
    assert year_unit("SVAL_1000_2020_ro37") == "2020"
    assert year_unit("SVAL_1000_x") == "SVAL_1000_x"


def test_the_place_of_a_tile_is_its_name_without_year_and_orbit() -> None:
    assert place_of("SVAL-10-38_2020_ro14") == place_of("SVAL-10-38_2021_ro37") == "SVAL-10-38"
    assert place_of("my_cube-3-4_2020") == square("my_cube-3-4_2020") == "my_cube-3-4"
    assert place_of("run_1999_cube-3-4_2021") == "run_1999_cube-3-4"
    assert place_of("meadow_west") == "meadow_west"


def test_the_pixel_size_of_a_file_is_kept_and_must_be_one(file: Path) -> None:
    with h5py.File(file, "a") as h5:
        for name in NAMES:
            h5[name].attrs["pixel_size"] = 20.0
    with Hdf5Section(file.name, **TILES).open(FEATURES, 3, file.parent) as data:
        assert data.resolution == 20
    with h5py.File(file, "a") as h5:
        del h5[NAMES[0]].attrs["pixel_size"]
    section = Hdf5Section(file.name, **TILES)
    with (
        pytest.raises(InputError, match="has pixels of 20 m, 'SVAL-0-0_2020_ro14' of 10 m: use tiles of one"),
        section.open(FEATURES, 3, file.parent),
    ):
        pass
