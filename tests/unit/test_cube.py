"""Cubes: the right pixels at the right times, resumable, and nothing half-made under a final name."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import xarray as xr

from icemap_xr import store
from icemap_xr.cube import build_cube, open_cube
from icemap_xr.cube_blocks import Jobs, lazy_series
from icemap_xr.cube_series import cube_series
from icemap_xr.errors import AssetMissingError, InputError, OutputExistsError, ReadError, SchemaError
from icemap_xr.grid import RegionGrid
from icemap_xr.providers import PROVENANCE
from icemap_xr.reading import BlockRead, Reading
from icemap_xr.testing.fakes import small_grid
from icemap_xr.testing.rasters import pair_item, rtc_item, write_raster

SHAPE = (20, 26)
GRID = small_grid(SHAPE)
DAYS = ("2020-01-10", "2020-05-01", "2020-09-01", "2021-06-01")
OPTIONS: dict[str, Any] = {"steps": 3, "chunk": 10}


def power(number: int) -> Any:
    values = np.random.default_rng(number).lognormal(-3, 1, SHAPE).astype(np.float32)
    values[:2] = np.nan
    return values


@pytest.fixture
def items(tmp_path: Path) -> pystac.ItemCollection:
    rasters = [write_raster(tmp_path / "rasters" / f"rtc{i}.tif", power(i)) for i in range(len(DAYS))]
    return pystac.ItemCollection(
        [rtc_item(path, day, orbit=100 + 175 * i) for i, (path, day) in enumerate(zip(rasters, DAYS, strict=True))]
    )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No block is in flight when another one fails."""
    with dask.config.set(num_workers=1):
        yield


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Items of the blocks that are read, one by one."""
    seen: list[str] = []
    read = BlockRead.__call__

    def counted(self: BlockRead) -> Any:
        seen.append(self.scene.item_ids)
        return read(self)

    monkeypatch.setattr(BlockRead, "__call__", counted)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_pixels_times_and_facts_are_those_of_the_items(items: pystac.ItemCollection, tmp_path: Path) -> None:
    ds = build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)
    expected = 10 * np.log10(np.stack([power(i) for i in range(4)]))
    np.testing.assert_allclose(ds.rtc, expected, atol=0.0025 + 1e-4)
    assert float(ds.rtc.attrs["encoding_error"]) == 0.0025
    np.testing.assert_array_equal(ds.rtc_time, np.array(DAYS, "M8[ns]"))
    assert ds.rtc_platform.values.tolist() == ["sentinel-1a"] * 4
    assert ds.rtc_absolute_orbit.values.tolist() == [100, 275, 450, 625]
    assert ds.rtc_item.values.tolist() == [f"rtc{i}" for i in range(4)]
    assert ds.rtc_valid_pixels.values.tolist() == [18 * 26] * 4
    assert ds.year.values.tolist() == [2020, 2021]
    assert ds.rtc_index.values.tolist() == [[0, 1, 2], [-1, 3, -1]]
    assert ds.attrs["relative_orbit"] == 14
    assert ds.rtc.attrs["radiometry"] == "gamma0"
    assert RegionGrid.from_dataset(ds) == RegionGrid(GRID.geobox, (0, 0), SHAPE)


def test_any_reader_decodes_the_same_without_a_warning(items: pystac.ItemCollection, tmp_path: Path) -> None:
    ds = build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(tmp_path / "cube.zarr").load()
    np.testing.assert_allclose(plain.rtc, ds.rtc, rtol=1e-6)
    np.testing.assert_array_equal(plain.rtc_index, ds.rtc_index)


def test_two_satellites_stay_apart_and_slices_are_joined(tmp_path: Path) -> None:
    left, right = power(0), power(1)
    left[:, 13:], right[:, :10] = np.nan, np.nan
    paths = [write_raster(tmp_path / f"{name}.tif", values) for name, values in (("l", left), ("r", right))]
    other = write_raster(tmp_path / "b.tif", power(2))
    found = pystac.ItemCollection(
        [
            rtc_item(paths[0], "2020-05-01T06:00:00", orbit=100),
            rtc_item(paths[1], "2020-05-01T06:00:25", orbit=100),
            rtc_item(other, "2020-05-01T06:00:25", orbit=100, platform="sentinel-1b"),
        ]
    )
    ds = build_cube(found, GRID, tmp_path / "cube.zarr", **OPTIONS)
    assert ds.rtc_platform.values.tolist() == ["sentinel-1a", "sentinel-1b"]
    joined = 10 * np.log10(np.where(np.isnan(left), right, left))
    np.testing.assert_allclose(ds.rtc[0], joined, atol=0.003)
    np.testing.assert_allclose(ds.rtc[1], 10 * np.log10(power(2)), atol=0.003)


def test_coherence_has_both_dates(items: pystac.ItemCollection, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(SHAPE)
    pairs = [
        pair_item(write_raster(tmp_path / f"p{m}.tif", values), f"2020-{m:02d}-01", f"2020-{m:02d}-13") for m in (3, 6)
    ]
    both = pystac.ItemCollection([*items, *pairs])
    ds = build_cube(both, GRID, tmp_path / "cube.zarr", **OPTIONS)
    np.testing.assert_allclose(ds.insar[1], values, atol=1 / 60000 + 1e-6)
    np.testing.assert_array_equal(ds.insar_reference_time, np.array(["2020-03-01", "2020-06-01"], "M8[ns]"))
    np.testing.assert_array_equal(ds.insar_secondary_time, np.array(["2020-03-13", "2020-06-13"], "M8[ns]"))
    assert ds.insar_baseline_days.values.tolist() == [12, 12]
    assert ds.insar_index.values.tolist() == [[0, 1, -1], [-1, -1, -1]]
    alone = build_cube(both, GRID, tmp_path / "rtc.zarr", features=["rtc"], **OPTIONS)
    assert "insar" not in alone


def test_a_scene_without_a_valid_pixel_is_kept_and_not_indexed(items: pystac.ItemCollection, tmp_path: Path) -> None:
    write_raster(Path(items[1].assets["HH"].href), power(1) * np.nan)
    ds = build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)
    assert ds.rtc_valid_pixels.values.tolist() == [468, 0, 468, 468]
    assert 1 not in ds.rtc_index
    assert [k for k in ds.rtc_index.values[0] if k >= 0] == [0, 2]


def test_a_fault_leaves_nothing_under_the_name_and_the_same_call_reads_only_the_rest(
    items: pystac.ItemCollection, tmp_path: Path, reads: list[str]
) -> None:
    path, undisturbed = tmp_path / "cube.zarr", tmp_path / "other.zarr"
    build_cube(items, GRID, undisturbed, **OPTIONS)
    raster = Path(items[2].assets["HH"].href)
    content = raster.read_bytes()
    raster.unlink()
    with pytest.raises(ReadError, match=r"rtc2\.tif"):
        build_cube(items, GRID, path, **OPTIONS)
    assert not path.exists()
    done = sum(f.is_file() for f in (store.partial_path(path) / "rtc" / "c").rglob("*"))
    raster.write_bytes(content)
    reads.clear()
    build_cube(items, GRID, path, **OPTIONS)
    assert len(reads) == 4 * 6 - done
    assert reads.count("rtc2") == 6
    made, wanted = files(path), files(undisturbed)
    failures = json.loads(made.pop(store.MANIFEST))["failures"]
    assert json.loads(wanted.pop(store.MANIFEST))["failures"] == []
    assert made == wanted
    assert [(one["array"], one["block"][0], one["tries"]) for one in failures] == [("rtc", 2, 3)] * 6
    assert "rtc2.tif" in failures[0]["cause"]
    reads.clear()
    build_cube(items, GRID, path, **OPTIONS)
    assert reads == []


def test_killed_before_its_last_step_a_cube_is_finished_without_reading(
    items: pystac.ItemCollection, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cube.zarr"
    expected = files(tmp_path / "b.zarr") if build_cube(items, GRID, tmp_path / "b.zarr", **OPTIONS) else {}
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_cube(items, GRID, path, **OPTIONS)
    assert not path.exists()
    reads.clear()
    build_cube(items, GRID, path, **OPTIONS)
    assert reads == []
    assert files(path) == expected


def test_another_plan_is_refused(items: pystac.ItemCollection, tmp_path: Path, reads: list[str]) -> None:
    path = tmp_path / "cube.zarr"
    raster = Path(items[3].assets["HH"].href)
    content = raster.read_bytes()
    raster.unlink()
    with pytest.raises(ReadError):
        build_cube(items, GRID, path, **OPTIONS)
    raster.write_bytes(content)
    reads.clear()
    others: list[dict[str, Any]] = [{"steps": 2}, {"chunk": 5}, {"resampling": "cubic"}, {"years": [2020]}]
    for other in others:
        with pytest.raises(OutputExistsError, match="unfinished store of other"):
            build_cube(items, GRID, path, **(OPTIONS | other))
    build_cube(items, GRID, path, **OPTIONS)
    with pytest.raises(OutputExistsError, match="other inputs"):
        build_cube(pystac.ItemCollection(list(items)[:3]), GRID, path, **OPTIONS)
    with pytest.raises(OutputExistsError, match="other inputs"):
        build_cube(items, small_grid((10, 10)), path, **OPTIONS)


def test_a_grid_elsewhere_is_refused(items: pystac.ItemCollection, tmp_path: Path) -> None:
    elsewhere = RegionGrid(GRID.geobox.translate_pix(5000, 0))
    with pytest.raises(InputError, match="do not overlap"):
        build_cube(items, elsewhere, tmp_path / "cube.zarr", **OPTIONS)
    assert not (tmp_path / "cube.zarr").exists()


def test_items_that_make_no_series_are_refused_before_anything_is_written(
    items: pystac.ItemCollection, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    path = tmp_path / "cube.zarr"
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"features": ["rtc", "insar"]}, InputError, "no item holds insar"),
        ({"features": ["rct"]}, SchemaError, "'rct'.*'rtc'"),
        ({"polarisation": "VV"}, AssetMissingError, "'rtc0' has no asset 'VV'.*HH"),
        ({"loader": "gdal"}, InputError, "loader='gdal'.*'odc' or 'stackstac'"),
        ({"steps": 0}, InputError, "steps=0"),
        ({"chunk": 0}, InputError, "chunk=0"),
        ({"year_start": "some"}, InputError, "'some'"),
        ({"resampling": "best"}, InputError, "'best'"),
    ]
    for options, kind, match in cases:
        with pytest.raises(kind, match=match) as caught:
            build_cube(items, GRID, path, **(OPTIONS | options))
        assert "\n" not in str(caught.value)
        assert set(tmp_path.iterdir()) == before, options
    with pytest.raises(InputError, match=r"no item holds a feature.*none.*opera-s1-rtc"):
        build_cube(pystac.ItemCollection([]), GRID, path)


def test_years_begin_when_they_are_told_to(items: pystac.ItemCollection, tmp_path: Path) -> None:
    ds = build_cube(items, GRID, tmp_path / "cube.zarr", year_start="08-01", **OPTIONS)
    assert ds.attrs["year_start"] == "08-01"
    assert ds.year.values.tolist() == [2019, 2020]
    assert [[k for k in row if k >= 0] for row in ds.rtc_index.values] == [[0, 1], [2, 3]]
    chosen = build_cube(items, GRID, tmp_path / "b.zarr", years=np.array([2021]), **OPTIONS)
    assert chosen.year.values.tolist() == [2021]


@pytest.mark.parametrize("chunks", ["auto", (1, 7, 26), (2, (3, 17), 5), -1])
def test_a_cube_opens_in_any_chunks(items: pystac.ItemCollection, tmp_path: Path, chunks: Any) -> None:
    build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)
    ds = open_cube(tmp_path / "cube.zarr", chunks)
    np.testing.assert_allclose(ds.rtc, 10 * np.log10(np.stack([power(i) for i in range(4)])), atol=0.003)
    if chunks == "auto":
        assert ds.rtc.chunks == ((1,) * 4, (10, 10), (10, 10, 6))


def test_another_store_is_no_cube(tmp_path: Path) -> None:
    ds = xr.Dataset({"probability": (("year", "y", "x"), np.zeros((1, 4, 4)))}, coords=small_grid((4, 4)).coords())
    store.save(ds, tmp_path / "maps.zarr")
    with pytest.raises(SchemaError, match=r"no feature.*probability"):
        open_cube(tmp_path / "maps.zarr")
    with pytest.raises(InputError, match="does not exist"):
        open_cube(tmp_path / "none.zarr")


def test_reading_has_one_task_per_scene_and_chunk(items: pystac.ItemCollection) -> None:
    series, _ = cube_series(list(items), {}, None, None, None)
    lazy = lazy_series("rtc", series["rtc"], GRID, Jobs(Reading(), 10))
    assert len(dict(lazy.dask)) == 4 * 2 * 3


def test_a_year_is_added_and_only_what_is_new_is_read(
    items: pystac.ItemCollection, tmp_path: Path, reads: list[str]
) -> None:
    old = build_cube(pystac.ItemCollection(list(items)[:3]), GRID, tmp_path / "old.zarr", **OPTIONS)
    reads.clear()
    new = build_cube(items, GRID, tmp_path / "new.zarr", reuse=tmp_path / "old.zarr", **(OPTIONS | {"chunk": 13}))
    assert set(reads) == {"rtc3"}
    np.testing.assert_array_equal(new.rtc[:3], old.rtc)
    np.testing.assert_allclose(new.rtc[3], 10 * np.log10(power(3)), atol=0.003)
    assert new.year.values.tolist() == [2020, 2021]
    whole = build_cube(items, GRID, tmp_path / "whole.zarr", **(OPTIONS | {"chunk": 13}))
    xr.testing.assert_identical(whole.load(), new.load())
    with pytest.raises(InputError, match=r"old\.zarr cannot be reused: its grid"):
        build_cube(items, small_grid((10, 10)), tmp_path / "b.zarr", reuse=tmp_path / "old.zarr", **OPTIONS)
    with pytest.raises(InputError, match=r"its reading.*nearest|nearest.*its reading"):
        build_cube(items, GRID, tmp_path / "b.zarr", reuse=tmp_path / "old.zarr", resampling="nearest", **OPTIONS)


def test_slices_and_grid_are_told(items: pystac.ItemCollection, tmp_path: Path) -> None:
    for number, item in enumerate(items):
        item.properties["s1:slice_number"] = str(number)
    ds = build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)
    assert ds.rtc_slice.values.tolist() == ["0", "1", "2", "3"]
    assert ds.attrs["proj:code"] == "EPSG:32633"
    # a reader looks for the conventions that are named
    assert [one["name"] for one in ds.attrs["zarr_conventions"]] == ["proj:", "spatial"]
    assert ds.attrs["spatial:shape"] == list(SHAPE)
    assert ds.attrs["spatial:transform"] == list(GRID.geobox.transform)[:6]
    assert ds.attrs["spatial:bbox"] == list(GRID.geobox.boundingbox.bbox)


def test_scenes_of_two_utm_zones_come_onto_one_grid(tmp_path: Path) -> None:
    """A search near a zone's edge brings rasters of both zones."""
    values = np.full((60, 60), 0.25, np.float32)
    east = RegionGrid(GRID.geobox.to_crs("EPSG:32634", resolution=10).pad(20))
    own = write_raster(tmp_path / "own.tif", power(0))
    other = write_raster(tmp_path / "other.tif", np.full(east.shape, 0.25), grid=east)
    found = pystac.ItemCollection([rtc_item(own, "2020-05-01", orbit=100), rtc_item(other, "2020-05-13", orbit=275)])
    ds = build_cube(found, GRID, tmp_path / "cube.zarr", **OPTIONS)
    np.testing.assert_allclose(ds.rtc[1], 10 * np.log10(values[:20, :26]), atol=0.003)
    np.testing.assert_allclose(ds.rtc[0], 10 * np.log10(power(0)), atol=0.003)


def test_a_grid_elsewhere_is_noticed_before_anything_is_read(
    items: pystac.ItemCollection, tmp_path: Path, reads: list[str]
) -> None:
    elsewhere = RegionGrid(GRID.geobox.translate_pix(5000, 0))
    with pytest.raises(InputError, match=r"no rtc scene lies on the grid.*item 'rtc0' at"):
        build_cube(items, elsewhere, tmp_path / "cube.zarr", **OPTIONS)
    assert reads == []
    assert not list(tmp_path.glob("cube*"))


def test_modes_are_not_mixed(items: pystac.ItemCollection, tmp_path: Path) -> None:
    items[1].properties["sar:instrument_mode"] = "EW"
    with pytest.raises(InputError, match="instrument modes EW, IW"):
        build_cube(items, GRID, tmp_path / "cube.zarr", **OPTIONS)


def test_a_mix_of_old_and_new_satellites_is_noted(items: pystac.ItemCollection, tmp_path: Path) -> None:
    from icemap_xr.cube_report import cube_info

    build_cube(items, GRID, tmp_path / "one.zarr", **OPTIONS)
    assert cube_info(tmp_path / "one.zarr")["notes"] == []
    items[3].properties["platform"] = "SENTINEL-1C"
    build_cube(items, GRID, tmp_path / "two.zarr", **OPTIONS)
    (note,) = cube_info(tmp_path / "two.zarr")["notes"]
    assert note.startswith("rtc mixes sentinel-1a, sentinel-1c")


def test_holes_are_filled_by_reading_only_them(items: pystac.ItemCollection, tmp_path: Path, reads: list[str]) -> None:
    path = Path(items[1].assets["HH"].href)
    content = path.read_bytes()
    path.unlink()
    holes = build_cube(items, GRID, tmp_path / "holes.zarr", on_error="hole", **OPTIONS)
    assert holes.rtc_missing_blocks.values.tolist() == [0, 6, 0, 0]
    path.write_bytes(content)
    reads.clear()
    whole = build_cube(items, GRID, tmp_path / "whole.zarr", reuse=tmp_path / "holes.zarr", **OPTIONS)
    assert set(reads) == {"rtc1"}
    assert whole.rtc_missing_blocks.values.tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(whole.rtc, 10 * np.log10(np.stack([power(i) for i in range(4)])), atol=0.003)


def test_what_an_item_tells_of_nodata_is_part_of_what_is_reused(
    items: pystac.ItemCollection, tmp_path: Path, reads: list[str]
) -> None:
    build_cube(items, GRID, tmp_path / "old.zarr", **OPTIONS)
    items[1].assets["HH"].extra_fields["raster:bands"] = [{"nodata": 0}]
    reads.clear()
    build_cube(items, GRID, tmp_path / "new.zarr", reuse=tmp_path / "old.zarr", **OPTIONS)
    assert set(reads) == {"rtc1"}


def test_a_year_of_which_only_a_part_was_searched_is_refused(items: pystac.ItemCollection, tmp_path: Path) -> None:
    asked = {"years": [2020, 2021], "year_start": "01-01"}
    found = pystac.ItemCollection(items.items, extra_fields={PROVENANCE: asked})
    for options in ({"year_start": "10-01"}, {"years": [2019, 2020]}, {"years": [2021], "year_start": "02-01"}):
        with pytest.raises(InputError, match=r"of which the search left out a part.*search again with these years"):
            build_cube(found, GRID, tmp_path / "cube.zarr", **(OPTIONS | options))
    # what lies within two years that were searched is whole
    ds = build_cube(found, GRID, tmp_path / "cube.zarr", years=[2020], year_start="10-01", **OPTIONS)
    assert ds.rtc_index.values.tolist() == [[-1, 3, -1]]
