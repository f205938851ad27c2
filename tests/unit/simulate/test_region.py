"""Simulated regions: truth, scenes, files."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pystac
import pytest
import rasterio

from icemap_xr import simulate
from icemap_xr.errors import GridError, InputError, OutputExistsError, StoreError
from icemap_xr.simulate import Landscape, Sensor, SimulatedRegion, Surface
from icemap_xr.stac_items import items_from_files

SMALL = {"size_km": (1.2, 1.6), "years": (2020, 2021), "steps": 3, "repeat_days": 120}


view = SimulatedRegion.view


def small(**changes: Any) -> SimulatedRegion:
    return simulate.region(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def medium() -> SimulatedRegion:
    return simulate.region(size_km=5.0, seed=2, years=(2020, 2021, 2022), steps=15)


def test_same_seed_same_bytes_other_seed_other_bytes() -> None:
    one, two, other = (small(seed=seed).yearly()["grd"].values.tobytes() for seed in (3, 3, 4))
    assert hashlib.sha256(one).digest() == hashlib.sha256(two).digest()
    assert one != other


@pytest.mark.parametrize("size", [0.01, 0.05, (0.01, 0.3)])
def test_tiny_regions(size: float | tuple[float, float]) -> None:
    made = simulate.region(size_km=size, years=(2020,), steps=1)
    assert np.isfinite(made.yearly().to_array()).all()
    fraction = made.truth()["glacier_fraction"].astype(float)
    assert made.areas()["area_km2"][0] == pytest.approx(float(fraction.sum()) * 1e-4, rel=1e-5, abs=1e-9)


def test_a_region_larger_than_memory_opens_at_once() -> None:
    made = simulate.region(size_km=300.0, years=tuple(range(2016, 2026)))
    truth, view = made.truth(), made.yearly()
    assert view.nbytes > 1e12
    assert view["grd"].data.chunksize == (1, 15, 512, 1024)
    for array in (*truth.data_vars.values(), *view.data_vars.values()):
        assert isinstance(array.data, da.Array)
    # nothing was worked out, not even the terrain
    assert "_plan" not in vars(made)


def test_tasks_are_named_by_what_they_make() -> None:
    def names(**changes: Any) -> list[str]:
        made = small(**changes)
        arrays = [*made.truth().data_vars.values(), *made.yearly().data_vars.values()]
        return [array.data.name for array in arrays]

    same = names()
    assert names() == same
    assert len(set(same)) == 6
    others: list[dict[str, Any]] = [
        {"seed": 1},
        {"shift": 0.1},
        {"size_km": 1.2},
        {"origin": (500_010.0, 8_700_000.0)},
        {"landscape": Landscape(relief=900.0)},
        {"sensor": Sensor(looks=4.5)},
    ]
    for change in others:
        assert not set(names(**change)) & set(same), change


def test_one_block_is_computed_alone_and_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icemap_xr.simulate.simulated.BLOCK", (50, 64))
    made, seen = small(), []
    monkeypatch.setattr(SimulatedRegion, "view", lambda *args: seen.append(args[1:]) or view(*args))  # type: ignore[func-returns-value]
    part = made.yearly()["insar"].isel(year=1, y=slice(50, 100), x=slice(64, 128)).compute(scheduler="synchronous")
    assert seen == [(2021, slice(50, 100), slice(64, 128))]
    np.testing.assert_array_equal(part[2], small().scene("insar", 5, slice(50, 100), slice(64, 128)))


def test_both_features_of_a_block_share_its_view(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(SimulatedRegion, "view", lambda *args: seen.append(args[1:]) or view(*args))  # type: ignore[func-returns-value]
    small().yearly().compute(scheduler="synchronous")
    assert len(seen) == 2  # years


def test_a_copy_for_another_process_is_small_and_the_same() -> None:
    made = small()
    whole = made.scene("grd", 0)
    packed = pickle.dumps(made)
    assert len(packed) < 10_000
    copy = pickle.loads(packed)
    assert copy == made
    np.testing.assert_array_equal(copy.scene("grd", 0), whole)


def test_years_do_not_change_with_the_years_asked_for() -> None:
    both, first = small(), small(years=(2020,))
    np.testing.assert_array_equal(both.yearly("insar")["insar"].sel(year=[2020]), first.yearly("insar")["insar"])


def test_model_view_is_what_a_network_reads() -> None:
    view = small(features=("grd", "rtc", "insar")).yearly()
    assert set(view.data_vars) == {"grd", "rtc", "insar"}
    for name, units in (("grd", "dB"), ("rtc", "dB"), ("insar", "1")):
        assert view[name].dims == ("year", "step", "y", "x")
        assert view[name].dtype == np.float32
        assert view[name].attrs["units"] == units
        assert np.isfinite(view[name]).all()
    assert view.odc.crs.epsg == 32633
    assert view["insar"].min() >= 0
    assert view["insar"].max() <= 1
    assert view["spatial_ref"].attrs["icemap_grid_shape"] == [120, 160]
    years = view["grd_time"].dt.year
    assert (years == view["year"]).all()


def test_truth_areas_equal_the_outlines(medium: SimulatedRegion) -> None:
    outlines, truth = medium.outlines(), medium.truth()
    assert outlines.geometry.is_valid.all()
    np.testing.assert_allclose(outlines.geometry.area / 1e6, outlines["area_km2"], rtol=1e-12)
    by_pixel = truth["glacier_fraction"].astype(float).sum(("y", "x")) * medium.grid.pixel_area_km2
    np.testing.assert_allclose(by_pixel, outlines["area_km2"], rtol=1e-6)
    pd.testing.assert_frame_equal(medium.areas(), pd.DataFrame(outlines[["year", "area_km2"]]))


def test_outlines_cover_the_pixels_that_are_glacier(medium: SimulatedRegion) -> None:
    truth = medium.truth().isel(year=0)
    burned = rasterio.features.rasterize(
        medium.outlines().geometry[:1], medium.grid.shape, transform=medium.grid.geobox.transform
    )
    sure = (truth["glacier_fraction"] == 0) | (truth["glacier_fraction"] == 1)
    assert (burned == truth["glacier_fraction"]).values[sure.values].all()


def test_class_map_and_fraction_agree(medium: SimulatedRegion) -> None:
    truth = medium.truth()
    ice = truth["surface"] >= Surface.DEBRIS_ICE
    assert ((truth["glacier_fraction"] > 0.5) == ice).mean() > 0.999
    assert truth["surface"].attrs["flag_meanings"].split()[Surface.SNOW_PATCH] == "snow_patch"
    present = np.unique(truth["surface"])
    wanted = {Surface.ROCK, Surface.MORAINE, Surface.SNOW_PATCH, Surface.DEBRIS_ICE, Surface.BARE_ICE, Surface.FIRN}
    assert wanted <= set(present)


def test_glaciers_change_as_asked() -> None:
    def areas(**land: Any) -> list[float]:
        made = simulate.region(size_km=4.0, seed=1, steps=1, landscape=Landscape(**land))
        return list(made.areas()["area_km2"])

    still = areas(thinning=0.0, surge=False, lake=False)
    same = simulate.region(size_km=4.0, seed=1, landscape=Landscape(thinning=0, surge=False, lake=False)).truth()
    for name in ("glacier_fraction", "surface"):
        assert (same[name] == same[name].isel(year=0)).all()
    assert still[0] == still[1] == still[2] > 0
    retreat = areas(surge=False, lake=False)
    assert retreat[0] > retreat[1] > retreat[2]
    assert areas(thinning=0.0, lake=False)[1] > still[1]
    formed = simulate.region(size_km=4.0, seed=1, steps=1, landscape=Landscape(thinning=0.0, surge=False)).truth()
    lake = (formed["surface"] == Surface.LAKE).sum(("y", "x")).values
    assert lake[0] == 0 < lake[1] < lake[2]
    assert areas(thinning=0.0, surge=False)[2] < still[2]


@pytest.mark.parametrize(("cover", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_no_glacier_and_everything_glacier(tmp_path: Path, cover: float, share: float) -> None:
    made = small(landscape=Landscape(ice_cover=cover))
    assert made.truth()["glacier_fraction"].values == pytest.approx(share)
    total = 1.2 * 1.6 * share
    assert made.areas()["area_km2"].tolist() == pytest.approx([total, total])
    assert np.isfinite(made.yearly()["grd"]).all()
    assert made.write(tmp_path / "made").is_file()


def test_debris_looks_like_rock_in_backscatter_and_less_coherent(medium: SimulatedRegion) -> None:
    surface = medium.truth()["surface"].values[0]
    grd, insar = (medium.year_series(name, 2020) for name in ("grd", "insar"))
    kinds = (Surface.ROCK, Surface.DEBRIS_ICE, Surface.FIRN)
    mean = {one: (grd[:, surface == one].mean(), insar[:4, surface == one].mean()) for one in kinds}
    assert mean[Surface.ROCK][1] > mean[Surface.DEBRIS_ICE][1] > mean[Surface.FIRN][1]
    # wet firn is dark in summer and bright in winter (Nagler et al. 2015); rock hardly changes
    firn, rock = (grd[:, surface == one].mean(1) for one in (Surface.FIRN, Surface.ROCK))
    assert firn[1] - firn[7:10].min() > 5
    assert np.ptp(rock) < np.ptp(firn)


def test_speckle_has_the_looks_of_the_sensor() -> None:
    made = small(landscape=Landscape(ice_cover=1.0, relief=1.0), features=("rtc",), steps=2)
    power = 10 ** (made.scene("rtc", 0).astype(float) / 10)
    local = power.reshape(12, 10, 16, 10).swapaxes(1, 2).reshape(192, 100)
    looks = np.median(local.mean(1) ** 2 / local.var(1))
    assert 3.0 < looks < 6.0


def test_missing_scenes_are_nan_and_have_no_file(tmp_path: Path) -> None:
    made = small(missing=0.5, seed=2)
    lost = [one.missing for one in made.acquisitions("grd")]
    assert 0 < sum(lost) < len(lost)
    assert [bool(np.isnan(made.scene("grd", k)).all()) for k in range(len(lost))] == lost
    made.write(tmp_path / "made")
    files = list((tmp_path / "made" / "simulated-s1-grd").rglob("*.tif"))
    assert len(files) == len(lost) - sum(lost)
    with pytest.raises(InputError, match="nothing to write"):
        small(missing=1.0).write(tmp_path / "none")


def test_acquisitions_have_consistent_orbits() -> None:
    made = simulate.region(size_km=1.0, years=(2019, 2020, 2021, 2022, 2025, 2026, 2027), features=("grd", "insar"))
    offsets = {"sentinel-1a": 73, "sentinel-1b": 27}
    for one in made.acquisitions("grd"):
        assert one.time.year == one.year
        assert one.second_time is None
        if one.platform in offsets:
            assert (one.absolute_orbit - offsets[one.platform]) % 175 + 1 == one.relative_orbit
    assert {one.platform for one in made.acquisitions("grd")} == {"sentinel-1a", "sentinel-1b", "sentinel-1c"}
    pairs = made.acquisitions("insar")
    assert {one.baseline_days for one in pairs} == {12}
    platforms = {year: [one.platform[-1] for one in pairs if one.year == year] for year in (2019, 2022, 2025, 2026)}
    assert platforms == {2019: [*"ab"] * 7 + ["a"], 2022: ["a"] * 15, 2025: [*"ac"] * 7 + ["a"], 2026: ["a"] * 15}
    assert pairs[2].time - pairs[0].time == pd.Timedelta(days=48)
    assert round((pairs[1].time - pairs[0].time) / pd.Timedelta(days=1)) in (18, 30)


def test_every_twelve_days_for_many_years() -> None:
    made = simulate.region(size_km=1.0, years=range(2015, 2031), steps=30, repeat_days=12)
    known = made.acquisitions("grd")
    assert len(known) == 16 * 30
    assert all(one.time.year == one.year for one in known)
    spacing = np.diff([one.time.timestamp() for one in known if one.year == 2023]) / 86400
    np.testing.assert_allclose(spacing, 12.0, atol=1e-3)
    assert np.isfinite(made.scene("grd", 470, slice(0, 20), slice(0, 20))).all()


def test_written_region_reads_back_exactly(tmp_path: Path) -> None:
    made, done = small(), []
    path = made.write(tmp_path / "made", progress=done.append)
    assert sum(done) == 2 * 2 * 3
    assert min(done) >= 0
    assert path == tmp_path / "made" / "catalog.json"
    assert [p.name for p in tmp_path.iterdir()] == ["made"]
    items = sorted(pystac.Catalog.from_file(str(path)).get_items(recursive=True), key=lambda item: item.datetime)
    for feature, collection, asset in (
        ("grd", "simulated-s1-grd", "HH"),
        ("insar", "simulated-s1-coherence", "coherence"),
    ):
        chosen = [item for item in items if item.collection_id == collection]
        assert len(chosen) == 6
        for k, item in enumerate(chosen):
            with rasterio.open(item.assets[asset].get_absolute_href()) as src:
                np.testing.assert_array_equal(src.read(1), made.scene(feature, k))
                assert src.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
                assert tuple(src.transform) == tuple(made.grid.geobox.transform)
            assert item.assets[asset].media_type == pystac.MediaType.COG
            assert item.properties["sat:relative_orbit"] == 14
            assert item.properties["platform"] in {"sentinel-1a", "sentinel-1b"}
    truth = tmp_path / "made" / "truth"
    with rasterio.open(truth / "glacier_fraction_2021.tif") as src:
        np.testing.assert_array_equal(src.read(1), made.truth()["glacier_fraction"].sel(year=2021))
    assert pd.read_csv(truth / "areas.csv")["year"].tolist() == [2020, 2021]
    pairs = items_from_files(tmp_path / "made" / "simulated-s1-coherence")
    assert {item.properties["insar:temporal_baseline"] for item in pairs} == {12.0}


def test_same_seed_same_files_for_any_number_of_workers(tmp_path: Path) -> None:
    def digests(name: str, workers: int) -> dict[str, str]:
        small().write(tmp_path / name, workers=workers)
        files = (path for path in (tmp_path / name).rglob("*") if path.is_file())
        return {str(p.relative_to(tmp_path / name)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

    one = digests("one", 1)
    assert len(one) > 30
    assert digests("three", 3) == one
    with pytest.raises(InputError, match="workers 0"):
        digests("none", 0)


def test_overviews_are_means_of_what_is_below_them(tmp_path: Path) -> None:
    made = simulate.region(size_km=(5.6, 3.0), years=(2020,), steps=1, features=("grd",))
    made.write(tmp_path / "made")
    (file,) = (tmp_path / "made" / "simulated-s1-grd").rglob("*.tif")
    with rasterio.open(file) as source:
        assert source.overviews(1) == [2, 4]
        half = source.read(1, out_shape=(280, 150))
        means = source.read(1).reshape(280, 2, 150, 2).mean((1, 3))
        np.testing.assert_allclose(half, means, atol=1e-4)
    with rasterio.open(tmp_path / "made" / "truth" / "surface_2020.tif") as source:
        assert set(np.unique(source.read(1, out_shape=(280, 150)))) <= set(np.unique(source.read(1)))


def test_output_is_never_overwritten_nor_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OutputExistsError, match="exists and is not empty"):
        small().write(tmp_path / "full")

    def no_space(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("icemap_xr.simulate.writer._truth", no_space)
    with pytest.raises(StoreError, match="No space left on device; check free space"):
        small().write(tmp_path / "half")
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"size_km": 0}, GridError, "not a positive multiple of the pixel"),
        ({"size_km": (1.0, -1.0)}, GridError, "not a positive multiple"),
        ({"size_km": 1.2345}, GridError, "not a positive multiple"),
        ({"size_km": float("nan")}, GridError, "size_km nan is not a positive multiple"),
        ({"size_km": float("inf")}, GridError, "not a positive multiple"),
        ({"resolution": 0.0}, GridError, "pixel size > 0"),
        ({"origin": (5.0, 0.0)}, GridError, "origin"),
        ({"crs": "EPSG:4326"}, GridError, "geographic"),
        ({"crs": "nonsense"}, GridError, "'nonsense' is not known"),
        ({"years": ()}, InputError, "years is empty"),
        ({"years": (2020, 2020)}, InputError, "holds one twice"),
        ({"years": (1999,)}, InputError, "2015 to 2100"),
        ({"features": ("insr",)}, InputError, "did you mean 'insar'"),
        ({"features": ()}, InputError, "must name one or more"),
        ({"seed": -1}, InputError, "seed -1"),
        ({"missing": 2.0}, InputError, "not a probability"),
        ({"steps": 0}, InputError, "do not fit in a year"),
        ({"steps": 31, "repeat_days": 12}, InputError, "give 1 to 30 steps"),
        ({"polarisations": ("VV", "HV")}, InputError, "cannot be simulated"),
        ({"sensor": Sensor(window=4)}, InputError, "odd number"),
        ({"sensor": Sensor(incidence=70.0)}, InputError, "20 to 50 degrees"),
        ({"sensor": Sensor(resolution=0.0)}, InputError, "resolution must be > 0"),
        ({"repeat_days": 6}, InputError, "multiple of 12"),
        ({"baseline_days": 13}, InputError, "multiple of 12"),
    ],
)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.scene("grd", 6), "acquisition 6 does not exist"),
        (lambda r: r.scene("grd", 0, polarisation="HV"), "has no polarisation 'HV'"),
        (lambda r: r.areas(by="nothing"), "give 'glacier'"),
        (lambda r: r.scene("rtc", 0), "has no feature 'rtc'"),
        (lambda r: r.scene("grd", 0, slice(5, 5)), "is no block"),
    ],
)
def test_bad_scene(call: Callable[[SimulatedRegion], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(small())


def test_import_is_light() -> None:
    code = "import sys, icemap_xr.simulate; assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"landscape": Landscape(ice_cover=40)}, "ice_cover 40 is not allowed: give a number from 0 to 1"),
        ({"landscape": Landscape(ice_cover=float("nan"))}, "ice_cover nan"),
        ({"landscape": Landscape(debris_cover=5)}, "debris_cover 5"),
        ({"landscape": Landscape(relief=-500)}, "relief -500"),
        ({"landscape": Landscape(thinning=float("nan"))}, "thinning nan"),
        ({"sensor": Sensor(noise_floor=float("nan"))}, "noise_floor nan"),
        ({"sensor": Sensor(resolution=float("inf"))}, "resolution inf"),
        ({"sensor": Sensor(window=4.5)}, "window of the sensor 4.5"),  # type: ignore[arg-type]
        ({"shift": float("nan")}, "shift nan"),
        ({"seed": 1.5}, "seed 1.5 is not allowed: give a whole number"),
        ({"steps": 1.5}, "steps 1.5 is not allowed: give a whole number"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        simulate.region(**({"size_km": 1.0, "years": (2020,), "steps": 1} | change))


def test_other_processes_give_the_same_bytes() -> None:
    code = (
        "import hashlib; from icemap_xr import simulate; "
        "region = simulate.region(size_km=1.0, years=(2020, 2021), seed=3, steps=2); "
        "print(hashlib.sha256(region.yearly()['grd'].values.tobytes() + region.dem(slice(0, 100), slice(0, 100))"
        ".tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": hashes}, capture_output=True, check=True
        ).stdout
        for hashes in ("0", "1")
    }
    assert len(found) == 1
