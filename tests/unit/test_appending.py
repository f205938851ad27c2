"""Years are added to an archive: readers never see half, and whatever a call was killed at, it goes on."""

from __future__ import annotations

import shutil

import geopandas as gpd
import numpy as np
import pytest
import xarray as xr
from geopandas.testing import assert_geodataframe_equal

from icemap_xr import appending, store
from icemap_xr.appending import append, append_archive
from icemap_xr.archive import archive, open_archive, read_glaciers, read_outlines
from icemap_xr.errors import GridError, IncompleteStoreError, InputError, StoreBusyError
from icemap_xr.outlines import outlines
from icemap_xr.testing.archives import Halve, areas, calibrated, maps, tables
from icemap_xr.verify import find_faults, reopen, repair_commands, verify


@pytest.fixture
def old(tmp_path):
    ds = calibrated(maps([2019, 2020]))
    given = tables(ds)
    return ds, given, archive(ds, tmp_path / "a.zarr", lineage={"stac_items": ["s"]}, region="Here", **given)


def test_a_year_is_added_and_everything_old_stays(old):
    ds, given, path = old
    with xr.open_datatree(path, engine="zarr", chunks={}) as before:
        new = calibrated(maps([2021], seed=9))
        more = tables(new)
        assert append(path, new, lineage={"stac_items": ["t"]}, **more) == path
        # a dataset that was open meanwhile reads the same numbers
        np.testing.assert_array_equal(before["maps/probability"], ds["probability"])
    tree = open_archive(path)
    got = tree["maps"].to_dataset()
    assert got["year"].values.tolist() == [2019, 2020, 2021]
    for name in ("probability", "calibrated"):
        np.testing.assert_array_equal(got[name], np.concatenate([ds[name], new[name]]))
    np.testing.assert_array_equal(tree["draws/draws"][2], more["areas"]["draws"][0])
    np.testing.assert_array_equal(tree["areas/area_km2"][:2], given["areas"]["area_km2"])
    both = read_outlines(tree)
    assert_geodataframe_equal(both[both.year < 2021].reset_index(drop=True), given["outlines"])
    assert len(read_glaciers(tree)) == 6
    (entry,) = tree["lineage"].attrs["appended"]
    assert entry["stac_items"] == ["t"]
    assert entry["years"] == [2021]
    assert tree["blocks"]["year"].values.tolist() == [2019, 2020, 2021]
    np.testing.assert_array_equal(tree["blocks/ice_km2"][2], more["blocks"]["ice_km2"][0])
    assert len(gpd.read_parquet(path.with_suffix(".parquet"))) == len(both)
    assert set(gpd.read_parquet(path.with_suffix(".glaciers.parquet"))["year"]) == {2019, 2020, 2021}
    assert '"end_datetime": "2021' in path.with_suffix(".json").read_text()
    assert verify(path) == []
    assert sorted(one.name for one in path.parent.iterdir()) == ["a.glaciers.parquet", "a.json", "a.parquet", "a.zarr"]


def test_an_interrupted_append_leaves_the_old_archive_and_resumes(old, monkeypatch):
    _, _, path = old
    new = calibrated(maps([2021], seed=9))
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(path, new, **tables(new))
    assert open_archive(path)["maps/probability"].sizes["year"] == 2
    append(path, new, **tables(new))
    assert open_archive(path)["maps/probability"].sizes["year"] == 3


def test_without_an_exchange_of_names_the_new_store_still_takes_the_place(old, monkeypatch):
    _, _, path = old
    new = calibrated(maps([2021], seed=9))
    monkeypatch.setattr(appending.ctypes, "CDLL", lambda _: object())
    append(path, new, **tables(new))
    assert open_archive(path)["maps/probability"].sizes["year"] == 3
    assert len(list(path.parent.iterdir())) == 4


def test_what_does_not_fit_is_not_appended(old):
    _, _, path = old
    new = calibrated(maps([2021]))
    with pytest.raises(InputError, match="not later than 2020"):
        append(path, calibrated(maps([2020])), **tables(calibrated(maps([2020]))))
    with pytest.raises(GridError, match="another grid"):
        append(path, calibrated(maps([2021], column=1)))
    with pytest.raises(InputError, match="only one is calibrated"):
        append(path, maps([2021]))
    with pytest.raises(InputError, match="calibrator"):
        append(path, new)
    with pytest.raises(InputError, match="outlines"):
        append(path, new, areas=areas([2021]), calibrator=Halve())
    with pytest.raises(InputError, match="7 draws"):
        append(path, new, **{**tables(new), "areas": areas([2021], draws=7)})
    assert open_archive(path)["maps/probability"].sizes["year"] == 2


def test_blocks_are_needed_where_the_archive_has_them(old):
    _, _, path = old
    new = calibrated(maps([2021]))
    with pytest.raises(InputError, match="a block table"):
        append(path, new, **{**tables(new), "blocks": None})
    with pytest.raises(InputError, match="other blocks"):
        append(path, new, **{**tables(new), "blocks": tables(new)["blocks"].isel(block_x=[0])})


def test_the_same_call_again_changes_nothing_and_mends_what_lies_beside(old):
    _, _, path = old
    new = calibrated(maps([2021], seed=9))
    append(path, new, **tables(new))
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    path.with_suffix(".parquet").unlink()
    append(path, new, **tables(new))
    assert before == {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    assert 2021 in set(gpd.read_parquet(path.with_suffix(".parquet"))["year"])
    with pytest.raises(InputError, match="not later than 2021"):
        append(path, calibrated(maps([2021], seed=10)), **tables(new))


@pytest.mark.parametrize("table", ["areas", "outlines", "glaciers", "blocks"])
def test_tables_of_other_years_than_the_maps_are_refused(old, tmp_path, table):
    _, _, path = old
    new = calibrated(maps([2021]))
    wrong = tables(calibrated(maps([2020])))[table]
    message = f"{table} are of the years 2020, the maps of 2021"
    with pytest.raises(InputError, match=message):
        append(path, new, **{**tables(new), table: wrong})
    with pytest.raises(InputError, match=message):
        archive(new, tmp_path / "new.zarr", **{**tables(new), table: wrong})
    assert not (tmp_path / "new.zarr").exists()
    assert open_archive(path)["maps/probability"].sizes["year"] == 2


def test_areas_lack_no_year_but_outlines_may(tmp_path):
    ds = maps([2019, 2020])
    with pytest.raises(InputError, match="areas are of the years 2020, the maps of 2019, 2020"):
        archive(ds, tmp_path / "a.zarr", areas=areas([2020]))
    with pytest.raises(InputError, match="1 rows without a year"):
        archive(ds, tmp_path / "a.zarr", outlines=outlines(ds).assign(year=[np.nan, *outlines(ds)["year"][1:]]))
    one = outlines(ds).query("year == 2020")
    assert set(read_outlines(open_archive(archive(ds, tmp_path / "a.zarr", outlines=one)))["year"]) == {2020}


def test_years_given_in_any_order_are_read_in_order(tmp_path):
    """Maps, overviews, areas, draws and blocks alike, from both calls."""
    first, later = calibrated(maps([2020, 2019])), calibrated(maps([2023, 2021, 2022], seed=3))
    given, more = tables(first), tables(later)
    path = archive(first, tmp_path / "a.zarr", **given)
    append(path, later, **{**more, "blocks": more["blocks"].isel(year=[1, 2, 0])})
    tree, years = open_archive(path), [2019, 2020, 2021, 2022, 2023]
    for node in ("maps", "areas", "draws", "blocks"):
        assert tree[node]["year"].values.tolist() == years, node
    for year in years:
        source, table = (first, given) if year < 2021 else (later, more)
        one = {"year": year}
        np.testing.assert_array_equal(tree["maps/probability"].sel(one), source["probability"].sel(one))
        np.testing.assert_array_equal(tree["areas/area_km2"].sel(one), table["areas"]["area_km2"].sel(one))
        np.testing.assert_array_equal(tree["draws/draws"].sel(one), table["areas"]["draws"].sel(one))
        np.testing.assert_array_equal(tree["blocks/ice_km2"].sel(one), table["blocks"]["ice_km2"].sel(one))
    # the same call again knows what was done
    append(path, later, **{**more, "blocks": more["blocks"].isel(year=[1, 2, 0])})
    assert open_archive(path)["maps/probability"].sizes["year"] == 5


def test_areas_without_a_year_are_kept_or_refused_and_never_dropped(tmp_path):
    first, later = maps([2019, 2020]), maps([2021])
    domain = areas([2019, 2020]).assign(domain_km2=12.0, rate=0.5)
    path = archive(first, tmp_path / "a.zarr", areas=domain)
    with pytest.raises(InputError, match="'rate' is only in the archive areas"):
        append(path, later, areas=areas([2021]).assign(domain_km2=12.0))
    with pytest.raises(InputError, match="'rate' of the areas has no year"):
        append(path, later, areas=areas([2021]).assign(domain_km2=12.0, rate=0.6))
    append(path, later, areas=areas([2021]).assign(domain_km2=12.0, rate=0.5))
    got = open_archive(path)["areas"]
    assert (float(got["domain_km2"]), float(got["rate"])) == (12.0, 0.5)
    assert got["area_km2"].sizes == {"year": 3}


def names(path):
    return sorted(one.name for one in path.parent.iterdir())


@pytest.mark.parametrize("without_exchange", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_stores_change_places(old, monkeypatch, step, without_exchange):
    _, _, path = old
    new, clean = calibrated(maps([2021], seed=9)), names(path)
    calls = []

    def counted(real):
        def call(*arguments, **options):
            calls.append(real)
            if len(calls) == step:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        if without_exchange:
            patch.setattr(appending.ctypes, "CDLL", lambda _: object())
        place, kind = appending._take_place, type(path)

        def take_place(*arguments):
            with monkeypatch.context() as inner:
                inner.setattr(kind, "rename", counted(kind.rename))
                inner.setattr(shutil, "rmtree", counted(shutil.rmtree))
                place(*arguments)

        patch.setattr(appending, "_take_place", take_place)
        if step == 3 and not without_exchange:  # one renaming and one deletion are all there is
            patch.setattr(appending, "write_sidecars", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(path, new, **tables(new))
    append(path, new, **tables(new))
    assert open_archive(path)["maps/probability"].sizes["year"] == 3
    assert verify(path) == []
    assert names(path) == clean
    later = calibrated(maps([2022], seed=3))
    append(path, later, **tables(later))
    assert open_archive(path)["maps/probability"].sizes["year"] == 4


def test_one_writer_at_a_time(old):
    _, _, path = old
    new = calibrated(maps([2021]))
    with store.exclusive(path), pytest.raises(StoreBusyError, match=r"a\.zarr"):
        append(path, new, **tables(new))
    append(path, new, **tables(new))


def test_tables_of_a_tree_from_before_are_an_error_and_no_mixture(old):
    _, _, path = old
    before = open_archive(path)
    new = calibrated(maps([2021], seed=9))
    append(path, new, **tables(new))
    with pytest.raises(IncompleteStoreError, match="open it again"):
        read_outlines(before)


def test_an_opening_that_an_append_overtakes_starts_again(old, monkeypatch):
    _, given, path = old
    new = calibrated(maps([2021], seed=9))
    real, calls = xr.open_datatree, []

    def slow(*arguments, **options):
        tree = real(*arguments, **options)
        calls.append(1)
        if len(calls) == 1:
            with monkeypatch.context() as patch:
                patch.setattr(xr, "open_datatree", real)
                append(path, new, **tables(new))
        return tree

    monkeypatch.setattr(xr, "open_datatree", slow)
    tree = open_archive(path)
    assert len(calls) == 2
    assert tree["maps/probability"].sizes["year"] == 3
    assert len(read_outlines(tree)) > len(given["outlines"])


def test_verify_covers_what_was_appended_and_says_that_no_call_repeats_it(old):
    _, _, path = old
    new = calibrated(maps([2021], seed=9))
    append(path, new, **tables(new))
    chunk = path / "maps" / "probability" / "c" / "2" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    faults = find_faults(path)
    assert [str(one) for one in faults] == ["maps/probability: chunk c/2/0/0 is damaged"]
    assert "copy" in repair_commands(path, faults)[0]
    with pytest.raises(InputError, match="copy"):
        reopen(path)
    assert path.exists()


def test_the_years_of_another_archive_are_appended_with_their_tables(old, tmp_path, icemap):
    ds, _, path = old
    new = calibrated(maps([2021], seed=9))
    other = archive(new, tmp_path / "b.zarr", lineage={"stac_items": ["t"]}, region="There", **tables(new))
    done = icemap("archive", "append", path, other)
    assert done.code == 0, done.err
    assert "2019, 2020, 2021" in done.out
    tree = open_archive(path)
    np.testing.assert_array_equal(tree["maps/calibrated"], np.concatenate([ds["calibrated"], new["calibrated"]]))
    np.testing.assert_array_equal(tree["draws/draws"][2], tables(new)["areas"]["draws"][0])
    assert tree.attrs["region"] == "Here"
    assert tree["lineage"].attrs["appended"][0]["stac_items"] == ["t"]
    assert len(read_glaciers(tree)) == 6
    assert icemap("verify", path).code == 0
    again = icemap("archive", "append", path, other)
    assert again.code == 0, again.err
    wrong = icemap("archive", "append", other, path)
    assert wrong.code == 1
    assert "not later than 2021" in wrong.err
    plain = archive(maps([2022]), tmp_path / "c.zarr")
    with pytest.raises(InputError, match="only one is calibrated"):
        append_archive(path, plain)


@pytest.mark.parametrize(
    ("name", "other"),
    [("interval_kind", "mapping"), ("method", "hard"), ("temporal_filter", "median 3"), ("calibrator", "another")],
)
def test_areas_of_another_kind_are_refused(old, name, other):
    _, _, path = old
    new = calibrated(maps([2021], seed=9))
    given = tables(new)
    with pytest.raises(InputError, match=f"areas have {name} .*two kinds"):
        append(path, new, **{**given, "areas": given["areas"].assign_attrs({name: other})})
    assert open_archive(path)["maps/probability"].sizes["year"] == 2


def test_a_new_call_after_a_killed_one_of_other_data_starts_anew(old, monkeypatch):
    """The draft of the call that was killed before its store took the place is of data that were corrected since."""
    _, _, path = old
    wrong, right = calibrated(maps([2021], seed=9)), calibrated(maps([2021], seed=10))
    clean = names(path)
    with monkeypatch.context() as patch:
        patch.setattr(appending, "_take_place", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(path, wrong, **tables(wrong))
    append(path, right, **tables(right))
    np.testing.assert_array_equal(open_archive(path)["maps/calibrated"][2], right["calibrated"][0])
    assert names(path) == clean
    # also a draft that was not even finished
    wrong, right = calibrated(maps([2022], seed=9)), calibrated(maps([2022], seed=10))
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            append(path, wrong, **tables(wrong))
    append(path, right, **tables(right))
    np.testing.assert_array_equal(open_archive(path)["maps/calibrated"][3], right["calibrated"][0])
    assert names(path) == clean
