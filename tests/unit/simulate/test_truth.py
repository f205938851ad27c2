"""Single glaciers, divides, changes, and the independence of everything from the blocks in which it is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pystac
import pytest
import rasterio
from scipy.ndimage import distance_transform_edt

from icemap_xr import simulate
from icemap_xr.simulate import Landscape, SimulatedRegion, Surface, simulated


@pytest.fixture(scope="module")
def alpine() -> SimulatedRegion:
    return simulate.region(size_km=5.0, seed=2, steps=1)


def test_glacier_areas_add_up(alpine: SimulatedRegion) -> None:
    by_glacier = alpine.areas(by="glacier")
    assert by_glacier["glacier_id"].nunique() > 5
    totals = by_glacier.groupby("year")["area_km2"].sum()
    np.testing.assert_allclose(totals, alpine.areas()["area_km2"], rtol=1e-6)


def test_glacier_numbers_cover_the_ice_and_nothing_else(alpine: SimulatedRegion) -> None:
    truth = alpine.truth()
    ever = (truth["glacier_fraction"] > 0).any("year")
    assert ((truth["glacier_id"] > 0) == ever).all()


def test_divides_lie_between_two_glaciers(alpine: SimulatedRegion) -> None:
    divides, ids = alpine.divides(), alpine.truth()["glacier_id"].values
    assert len(divides) > 2
    assert (divides["glacier_a"] < divides["glacier_b"]).all()
    np.testing.assert_allclose(divides.length / 1e3, divides["length_km"])
    edges = sum(int(((a != b) & (a > 0) & (b > 0)).sum()) for a, b in ((ids[1:], ids[:-1]), (ids[:, 1:], ids[:, :-1])))
    assert divides["length_km"].sum() == pytest.approx(edges * 0.01)
    assert simulate.region(size_km=0.1, steps=1, landscape=Landscape(ice_cover=0.0)).divides().empty


def test_changes_are_those_of_the_areas(alpine: SimulatedRegion) -> None:
    changes = alpine.changes()
    np.testing.assert_allclose(changes["change_km2"], np.diff(alpine.areas()["area_km2"]), atol=1e-5)
    # the surge gains while tongues lose
    assert (changes[["gain_km2", "loss_km2"]].iloc[0] > 0).all()
    still = simulate.region(size_km=5.0, seed=2, steps=1, landscape=Landscape(thinning=0, surge=False, lake=False))
    assert (still.changes()[["gain_km2", "loss_km2", "change_km2"]] == 0).all(axis=None)
    assert simulate.region(size_km=1.0, years=(2020,), steps=1).changes().empty


@pytest.mark.parametrize(("size", "seed"), [(3.0, 0), (3.0, 2), (4.0, 5), (6.0, 7)])
def test_a_surge_advances_over_free_land(size: float, seed: int) -> None:
    land = Landscape(thinning=0, lake=False)
    made = simulate.region(size_km=size, seed=seed, years=(2020, 2021, 2022), steps=1, landscape=land)
    changes = made.changes()
    assert changes["gain_km2"][0] > 0.1
    # elsewhere only the tail of the interpolating spline is left
    assert max(changes["gain_km2"][1], changes["loss_km2"][0]) < 1e-3


@pytest.mark.parametrize(("size", "seed"), [(3.0, 1), (4.0, 5), (6.0, 7)])
def test_a_lake_takes_ice_around_it_and_changes_nothing_else(size: float, seed: int) -> None:
    land = Landscape(thinning=0, surge=False)
    made = simulate.region(size_km=size, seed=seed, years=(2020, 2021, 2022), steps=1, landscape=land)
    truth = made.truth().compute()
    lake = (truth["surface"] == Surface.LAKE).values
    assert lake.sum(axis=(1, 2))[0] == 0
    assert 0 < lake[1].sum() < lake[2].sum()
    change = np.abs(truth["glacier_fraction"].values[2] - truth["glacier_fraction"].values[0])
    assert change.max() == 1
    # further than 500 m away only the tail of the interpolating spline is left
    assert change[distance_transform_edt(~lake[2]) > 50].max() < 1e-3


def test_nothing_depends_on_the_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = simulate.region(size_km=(1.3, 1.6), seed=2, years=(2020, 2021), steps=2, features=("grd", "insar"))
    truth, view, outlines = made.truth().compute(), made.yearly().compute(), made.outlines()
    monkeypatch.setattr(simulated, "BLOCK", (50, 64))
    assert len(list(made.blocks())) == 9
    assert made.truth().identical(truth)
    assert made.yearly().identical(view)
    pieces = made.outlines()
    np.testing.assert_allclose(pieces["area_km2"], outlines["area_km2"], rtol=1e-12)
    assert pieces.geometry.symmetric_difference(outlines.geometry).area.max() < 1e-6
    path = made.write(tmp_path / "made")
    for k, one in enumerate(made.acquisitions("insar")):
        file = next((tmp_path / "made" / "simulated-s1-coherence").rglob(f"*{one.time:%Y%m%d}-*.tif"))
        with rasterio.open(file) as source:
            np.testing.assert_array_equal(source.read(1), made.scene("insar", k))
    with rasterio.open(path.parent / "truth" / "glacier_id.tif") as source:
        np.testing.assert_array_equal(source.read(1), truth["glacier_id"])
    assert not list(path.parent.rglob("*.draft.tif"))


def test_two_polarisations_are_two_assets_of_one_item(tmp_path: Path) -> None:
    made = simulate.region(size_km=0.6, years=(2020,), steps=2, polarisations=("VV", "VH"), features=("rtc", "insar"))
    catalog = pystac.Catalog.from_file(str(made.write(tmp_path / "made")))
    items = sorted(catalog.get_child("simulated-s1-rtc").get_items(), key=lambda item: item.datetime)
    for k, item in enumerate(items):
        assert set(item.assets) == {"VV", "VH"} == set(item.properties["sar:polarizations"])
        for channel, asset in item.assets.items():
            with rasterio.open(asset.get_absolute_href()) as source:
                np.testing.assert_array_equal(source.read(1), made.scene("rtc", k, polarisation=channel))
                assert source.tags()["POLARISATION"] == channel
    pair = next(catalog.get_child("simulated-s1-coherence").get_items())
    assert pair.properties["sar:polarizations"] == ["VV"]


@pytest.mark.parametrize("limit", [20_000, 100_000, 400_000])
def test_files_that_cannot_grow_leave_nothing_behind(tmp_path: Path, limit: int) -> None:
    code = f"""
import resource, signal
from icemap_xr import simulate
from icemap_xr.errors import StoreError
region = simulate.region(size_km=(3.0, 3.5), years=(2020,), steps=2)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    region.write({str(tmp_path / "made")!r})
except StoreError as error:
    assert "could not be written" in str(error), error
else:
    raise SystemExit("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
