"""Areas of single glaciers: the length of their edge, and errors that scale with it."""

import json
import math
from typing import Any

import dask.array as da
import geopandas as gpd
import numpy as np
import pytest
import shapely
import xarray as xr

from icemap_xr.area import area
from icemap_xr.blocktable import block_table
from icemap_xr.errors import InputError, UncalibratedWarning
from icemap_xr.glacierareas import glacier_area, glacier_rates, held_out_edge_errors, ice_edge
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.edges import FULL_EDGE, edge_share

#: Dask carries no types for it
from_array: Any = da.from_array

SIDE = 160
EXTENT = (500_000, 8_600_000, 500_000 + 10 * SIDE, 8_600_000 + 10 * SIDE)
GRID = RegionGrid.from_bbox(EXTENT, "EPSG:32633", 10, bbox_crs="EPSG:32633")
EXACT: dict[str, Any] = {"errors_m": [0.0], "segment_m": 100.0, "block": 400}
SPREAD: dict[str, Any] = {"errors_m": np.linspace(-10, 10, 201).tolist()}


def disc(radius: float, row: float = 79.3, column: float = 80.6) -> Any:
    """Covered fraction of each pixel by a disc, nearly."""
    y, x = np.indices((SIDE, SIDE))
    return np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 1)


def maps(values: Any, name: str = "calibrated") -> xr.Dataset:
    coords = {**GRID.coords(), "year": 2016 + np.arange(len(values))}
    return xr.Dataset({name: (("year", "y", "x"), np.asarray(values, np.float32))}, coords=coords)


def ground(*boxes: Any) -> gpd.GeoDataFrame:
    return gpd.GeoDataFrame({"name": [f"g{i}" for i in range(len(boxes))]}, geometry=list(boxes), crs="EPSG:32633")


ALL = shapely.box(*EXTENT)
WEST, EAST = shapely.box(500_000, 8_600_000, 500_806, 8_601_600), shapely.box(500_806, 8_600_000, 501_600, 8_601_600)


def test_the_edge_of_a_disc_is_its_circumference() -> None:
    for radius in (20, 45, 70):
        length = np.nansum(edge_share(disc(radius)[None], 0.5)) * FULL_EDGE
        assert length == pytest.approx(2 * math.pi * radius, rel=0.03)


def test_edge_counts_no_unobserved_neighbour_and_no_frame() -> None:
    p = np.ones((1, 4, 4))
    p[0, 1, 1] = np.nan
    assert np.nansum(edge_share(p, 0.5)) == 0
    p[0, 3, 3] = 0
    share = edge_share(p, 0.5)
    assert share[0, 3, 3] == share[0, 3, 2] * 2 == 0.5
    assert np.isnan(share[0, 1, 1])


@pytest.mark.parametrize("chunks", [None, (1, 50, 47), (2, 37, 160)])
def test_areas_and_edges_of_glaciers_do_not_depend_on_chunks(chunks: Any) -> None:
    p = np.stack([disc(60), disc(50)]).astype(np.float32)
    p[0, :20, :30] = np.nan
    ds = maps(p)
    if chunks is not None:
        ds = ds.assign(calibrated=(("year", "y", "x"), from_array(p, chunks=chunks)))
    out = glacier_area(ds, ground(WEST, EAST), edge_errors=EXACT, n=3)
    expected = area(ds, by=ground(WEST, EAST)).area_km2.compute()
    xr.testing.assert_allclose(out.area_km2.drop_vars("draw_call"), expected, rtol=1e-9)
    # the divide between the two is no edge
    assert out.edge_km.sum("region").values == pytest.approx([2 * math.pi * 0.6, 2 * math.pi * 0.5], rel=0.03)
    np.testing.assert_allclose(out.draws, out.area_km2.values[..., None].repeat(3, -1))
    assert out.attrs["interval_kind"] == "mapping"


def test_errors_scale_with_the_edge() -> None:
    ds = maps([disc(60), disc(50)])
    out = glacier_area(ds, ground(ALL), edge_errors=EXACT | {"errors_m": [7.0]}, n=4)
    np.testing.assert_allclose(out.draws[..., 0], out.area_km2 - out.edge_km * 0.007, rtol=1e-9)
    table = block_table(ice_edge(ds.calibrated), GRID, 40).ice_km2.values * (FULL_EDGE * 10 / GRID.pixel_area_km2)
    spread = glacier_area(ds, ground(ALL, WEST), edge_errors=EXACT | SPREAD, n=3000)
    wanted = math.sqrt((table[0] ** 2).sum()) * 5.8e-6  # independent blocks; uniform errors: 20 m / sqrt(12)
    assert float(spread.draws[0, 0].std("draw")) == pytest.approx(wanted, rel=0.1)
    assert spread.interval.sizes == {"year": 2, "region": 2, "bound": 2}


def test_correlated_errors_do_not_average_out_along_a_winding_edge() -> None:
    ds = maps([disc(60)])
    far = EXACT | SPREAD | {"range_m": 1e6}
    out = glacier_area(ds, ground(ALL, WEST), edge_errors=far, n=3000)
    np.testing.assert_allclose(out.draws[0].std("draw"), out.edge_km[0] * 0.0058, rtol=0.1)
    near = glacier_area(ds, ground(ALL), edge_errors=EXACT | SPREAD | {"range_m": 400.0}, n=3000)
    alone = glacier_area(ds, ground(ALL), edge_errors=EXACT | SPREAD, n=3000)
    assert 1.3 * alone.draws[0, 0].std() < near.draws[0, 0].std() < 0.9 * out.draws[0, 0].std()


def test_errors_away_from_the_edge_scale_with_the_ground_there() -> None:
    ds = maps([disc(60), disc(50)])
    lost = EXACT | {"away_errors": [0.02], "near_m": 100.0}
    out = glacier_area(ds, ground(ALL), edge_errors=lost, n=4)
    np.testing.assert_allclose(out.draws[..., 0], out.area_km2 - out.away_km2 * 0.02, rtol=1e-9)
    # along rows and columns: 4 / pi times farther than across, on average over the edge's directions
    near = [4 / math.pi * 2 * math.pi * r * 21 * 1e-4 for r in (60, 50)]
    assert (2.56 - out.away_km2[:, 0]).values == pytest.approx(near, rel=0.04)


def test_lasting_errors_cancel_in_changes_and_effects_are_shared() -> None:
    ds = maps([disc(60), disc(59)])
    errors = EXACT | SPREAD
    alone = glacier_area(ds, ground(ALL), edge_errors=errors, n=2000).draws
    lasting = glacier_area(ds, ground(ALL), edge_errors=errors | {"year_correlation": 0.95}, n=2000).draws
    change = [float((one[1] - one[0]).std()) for one in (alone, lasting)]
    assert change[1] < 0.35 * change[0]
    assert float(lasting[0].std()) == pytest.approx(float(alone[0].std()), rel=0.1)
    effects = EXACT | {"region_effect_m": [-5.0, 5.0]}
    both = glacier_area(ds, ground(WEST, EAST), edge_errors=effects, n=50)
    moved = (both.draws - both.area_km2) / both.edge_km
    np.testing.assert_allclose(np.abs(moved), 0.005)
    np.testing.assert_allclose(moved, moved[0, 0].broadcast_like(moved))


def test_the_draws_of_a_glacier_do_not_depend_on_the_others() -> None:
    ds = maps([disc(60), disc(50)])
    errors = EXACT | {"errors_m": [-3.0, 4.0], "range_m": 500}
    two = glacier_area(ds, ground(WEST, EAST), edge_errors=errors, n=20)
    one = glacier_area(ds, ground(WEST), edge_errors=errors, n=20)
    np.testing.assert_allclose(one.draws[:, 0], two.draws[:, 0])


def noisy_region(seed: int, years: int = 3) -> tuple[xr.DataArray, xr.DataArray]:
    """A disc mapped with an edge that is 6 m too far out on average, and differs by region, year and place."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE))
    angle = np.arctan2(y - 79.3, x - 80.6)
    radius = rng.uniform(40, 60)
    out = rng.normal(0.6, 0.3)
    lobes = sum(rng.normal(0, 0.5) * np.cos(k * angle + rng.uniform(0, 6)) for k in range(3, 12))
    mapped, truth = [], []
    for _ in range(years):
        extra = rng.normal(0, 0.2) + lobes
        truth.append(np.clip(radius - np.hypot(y - 79.3, x - 80.6) + 0.5, 0, 1))
        mapped.append(np.clip(radius + out + extra - np.hypot(y - 79.3, x - 80.6) + 0.5, 0, 1))
    return maps(mapped).calibrated, maps(truth).calibrated


def test_held_out_edge_errors_find_what_was_put_in_and_hold_the_truth() -> None:
    errors = held_out_edge_errors((noisy_region(seed) for seed in range(70)), block=400)
    assert json.loads(json.dumps(errors)) == errors
    assert np.mean(errors["errors_m"]) == pytest.approx(6, abs=1.5)
    assert np.std(errors["region_effect_m"]) == pytest.approx(3, rel=0.4)
    assert np.std(errors["year_effect_m"]) == pytest.approx(2, rel=0.4)
    assert errors["year_correlation"] > 0.8
    assert 300 < errors["segment_m"] < 1500  # a block's edge, and more: lobes are longer than a block
    assert np.abs(errors["away_errors"]).max() < 1e-3  # the edge is nowhere off by 100 m
    held = changed = 0
    for seed in range(100, 140):
        mapped, truth = noisy_region(seed)
        out = glacier_area(mapped.to_dataset(), ground(ALL), edge_errors=errors, n=400)
        true = truth.sum(("y", "x")) * 1e-4
        held += int(((out.interval[:, 0, 0] <= true) & (true <= out.interval[:, 0, 1])).sum())
        low, high = np.quantile(out.draws[2, 0] - out.draws[0, 0], [0.025, 0.975])
        changed += low <= float(true[2] - true[0]) <= high
    assert 0.85 <= held / 120 <= 1
    assert 0.85 <= changed / 40 <= 1


def test_rates_of_glaciers() -> None:
    ds = maps([disc(60), disc(57), disc(54)])
    areas = glacier_area(ds, ground(ALL, WEST), edge_errors=EXACT, n=5)
    rates = glacier_rates(areas)
    expected = np.polyfit([0, 1, 2], areas.area_km2.values, 1)[0]
    np.testing.assert_allclose(rates.rate_km2_per_year, expected)
    np.testing.assert_allclose(rates.relative_rate, expected / areas.area_km2.mean("year"))
    np.testing.assert_allclose(rates.interval, expected[:, None].repeat(2, 1))
    gap = areas.assign(area_km2=areas.area_km2.where((areas.year != 2017) | (areas.region != "g1")))
    assert np.isnan(glacier_rates(gap).rate_km2_per_year).values.tolist() == [False, True]
    with pytest.raises(InputError, match="2 different years"):
        glacier_rates(areas.isel(year=[0]))
    with pytest.raises(InputError, match="level"):
        glacier_rates(areas, level=2)
    dates = np.array(["2016", "2017", "2018"], "datetime64[ns]")
    with pytest.raises(InputError, match="years as numbers"):  # nanoseconds would be taken for years
        glacier_rates(areas.assign_coords(year=dates))


def test_rates_need_years_of_one_call() -> None:
    ds = maps([disc(60), disc(57), disc(54)])
    drawn = [glacier_area(part, ground(ALL), edge_errors=EXACT, n=5) for part in (ds, ds.isel(year=[2]))]
    apart = xr.concat([drawn[0].isel(year=[0, 1]), drawn[1]], "year")
    with pytest.raises(InputError, match=r"glacier_rates .*2016, 2017 and 2018 were drawn apart"):
        glacier_rates(apart)
    assert float(glacier_rates(apart.isel(year=[0, 1])).rate_km2_per_year[0]) < 0


def test_a_year_without_data_and_ground_off_the_map() -> None:
    p = np.stack([disc(60), np.full((SIDE, SIDE), np.nan), disc(50)])
    off = shapely.box(400_000, 8_000_000, 400_100, 8_000_100)
    out = glacier_area(maps(p), ground(ALL, off), edge_errors=EXACT | SPREAD, n=20)
    assert np.isnan(out.area_km2).values.tolist() == [[False, True], [True, True], [False, True]]
    assert np.isnan(out.interval[1]).all()
    assert np.isfinite(out.interval[[0, 2], 0]).all()
    assert float(out.observed_km2[1].sum()) == float(out.edge_km[1].sum()) == 0
    for wrong, match in (
        (ground(off), "touches the map"),
        (ground(ALL).set_crs(None, allow_override=True), "no CRS"),
        (ground(ALL).iloc[:0], "no rows"),
        (ground(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])), "invalid"),
    ):
        with pytest.raises(InputError, match=match):
            glacier_area(maps(p), wrong, edge_errors=EXACT)
    with pytest.raises(InputError, match=r"0\.\.1"):
        glacier_area(maps([disc(30) * 1.5]), ground(ALL), edge_errors=EXACT)


def test_bad_input() -> None:
    ds = maps([disc(30), disc(28)])
    wrong: Any
    for wrong, match in (
        ({"errors_m": [1.0]}, "segment_m"),
        ([1.0], "lacks"),
        (EXACT | {"error": 1}, "did you mean 'errors_m'"),
        (EXACT | {"errors_m": []}, "non-empty"),
        (EXACT | {"errors_m": ["a"]}, "numbers"),
        (EXACT | {"year_effect_m": [np.nan]}, "year_effect_m"),
        (EXACT | {"segment_m": 0}, "segment_m 0"),
        (EXACT | {"year_correlation": 1.5}, "year_correlation"),
        (EXACT | {"range_m": -1}, "range_m -1"),
        (EXACT | {"method": "hard"}, "method 'hard'"),
        ({"errors_m": [1.0], "segment_m": 1}, "lacks 'block'"),
    ):
        with pytest.raises(InputError, match=match):
            glacier_area(ds, ground(ALL), edge_errors=wrong)
    for options, match in (
        ({"n": 0}, "n 0"),
        ({"level": 95}, "level"),
        ({"area_kind": "x"}, "area_kind"),
        ({"method": "x"}, "method"),
    ):
        with pytest.raises(InputError, match=match):
            glacier_area(ds, ground(ALL), edge_errors=EXACT, **options)
    with pytest.warns(UncalibratedWarning, match="glacier_area"):
        glacier_area(maps([disc(30)], "probability"), ground(ALL), edge_errors=EXACT, n=2)
    pair = noisy_region(0)
    with pytest.raises(InputError, match="at least 2 regions"):
        held_out_edge_errors([pair], block=400)
    with pytest.raises(InputError, match="near_m -1"):
        held_out_edge_errors([pair] * 2, block=400, near_m=-1)
    with pytest.raises(InputError, match="without ice edge"):
        held_out_edge_errors([pair, (pair[0] * 0, pair[1])], block=400)
    with pytest.raises(InputError, match="different coordinates"):
        held_out_edge_errors([pair, (pair[0], pair[1][:1])], block=400)
