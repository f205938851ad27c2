from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from icemap_xr import simulate
from icemap_xr.errors import InputError
from icemap_xr.training.augment import AugmentOptions
from icemap_xr.training.sampling import TrainSampler, ValidationBatches, ValidationWindows, ahead, count_windows
from icemap_xr.training.tiles import Tile, feature_specs, observed_or_zero, simulated_tiles

FEATURES = ("grd", "insar")
BLOCK = slice(3, 9), slice(5, 12)


def test_scenes_are_read_in_the_order_of_features_and_steps(tile: Tile) -> None:
    values = tile.scenes(("insar", "grd"), *BLOCK)
    assert values.shape == (4, 6, 7, 2)
    np.testing.assert_array_equal(values[2, ..., 0], np.asarray(tile.series["insar"])[3, 3:9, 5:12])


def test_a_step_without_a_scene_is_nan(tile: Tile) -> None:
    index = {"grd": np.array([0, -1]), "insar": np.array([-1, -1])}
    values = replace(tile, index=index).scenes(FEATURES, *BLOCK)
    assert np.isnan(values[1]).all()
    assert np.isnan(values[..., 1]).all()
    assert np.isfinite(values[0, ..., 0]).all()


def test_labels_are_unknown_in_the_padding(tile: Tile) -> None:
    padded = replace(tile, inside=(slice(4, 40), slice(0, 48)))
    shares = padded.shares(*BLOCK)
    assert (shares[0] == 0).all()
    np.testing.assert_array_equal(shares[1:], tile.shares(*BLOCK)[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((4, 4))}, "labels have shape"),
        ({"labels": np.zeros((4, 4, 2))}, "grd has shape"),
        ({"index": {"grd": np.array([0]), "insar": np.array([], int)}}, "the index of insar"),
        ({"index": {"grd": np.array([6]), "insar": np.array([0])}}, "positions from -1 to 5"),
        ({"inside": (slice(0, 41), slice(0, 48))}, "no part of 40 pixels"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tile: Tile, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(tile, **change)


def test_check_names_what_is_missing(tile: Tile) -> None:
    for arguments, message in (
        ((feature_specs(("rtc",)), 4, 2), "has no rtc"),
        ((feature_specs(FEATURES), 15, 2), "has 4 steps of grd, needed are 15"),
        ((feature_specs(FEATURES), 4, 3), "labels of 2 classes, needed are 3"),
        (
            (feature_specs(("grd",), {"grd": (-30, 0)}), 4, 2),
            "grd scaled from -146.012 to 43.5431 dB, needed is -30 to 0",
        ),
    ):
        with pytest.raises(InputError, match=message):
            tile.check(*arguments)


@pytest.mark.parametrize(("scaling", "message"), [({"grd": (0, 0)}, "scaling of grd"), ({"rtc": (0, 1)}, "for rtc")])
def test_a_scaling_that_does_not_fit_is_refused(scaling: dict[str, tuple[float, float]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        feature_specs(FEATURES, scaling)


def test_unobserved_values_become_zero() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 101, 100, -3], np.float32)
    assert observed_or_zero(values).tolist() == [0, 0, 0, 0, 100, -3]


def test_simulated_tiles_hold_the_exact_glacier_share() -> None:
    region = simulate.region(size_km=0.3, years=(2020, 2021), seed=70, steps=3)
    made = simulated_tiles(region, feature_specs(FEATURES))
    assert [tile.name for tile in made] == ["sim-70_2020", "sim-70_2021"]
    share = region.truth()["glacier_fraction"].values
    np.testing.assert_array_equal(made[1].shares(slice(0, 30), slice(0, 30))[..., 1], share[1])
    expected = feature_specs(FEATURES)[0].scale(region.year_series("grd", 2021))
    np.testing.assert_allclose(np.asarray(made[1].series["grd"], np.float32), expected, atol=2.5e-4)


def test_windows_reach_past_the_far_edges_only_and_are_unknown_there(tile: Tile) -> None:
    sampler = TrainSampler([tile], FEATURES, 16, AugmentOptions.off(), 0.5, 3)
    found = [sampler.sample(0, k) for k in range(200)]
    beyond = [(window, labels) for window, labels in found if (labels.sum(-1) == 0).any()]
    assert 0 < len(beyond) < 200
    for window, labels in beyond:
        unknown = labels.sum(-1) == 0
        assert (window[:, unknown] == 0).all()
        assert not unknown[:8, :8].any()


def test_windows_of_a_seed_do_not_depend_on_order_or_threads(tiles: list[Tile]) -> None:
    sampler = TrainSampler(tiles, FEATURES, 16, AugmentOptions(), 0.0, 3)
    straight = [sampler.batch(2, k, 2)[0] for k in range(6)]
    threaded = list(ahead([lambda k=k: sampler.batch(2, k, 2)[0] for k in range(6)], 3))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(straight, threaded, strict=True))
    assert sampler.batch(3, 0, 2)[0].tobytes() != straight[0].tobytes()


def test_places_are_uniform_up_to_the_edges(tile: Tile) -> None:
    rows = np.arange(40, dtype=np.float32)[:, None] * np.ones((1, 48), np.float32)
    numbered = replace(tile, features=tile.features[:1], series={"grd": rows[None]}, index={"grd": np.array([0])})
    sampler = TrainSampler([numbered], ("grd",), 16, AugmentOptions.off(), 0.0, 0)
    starts = [sampler.sample(0, k)[0][0, 0, 0, 0] for k in range(600)]
    assert set(starts) == set(range(25))


def test_validation_windows_lie_side_by_side(tiles: list[Tile]) -> None:
    windows = ValidationWindows(tiles, FEATURES, 16)
    places = windows.places()
    assert len(places) == count_windows(tiles, 16) == 2 * 2 * 3
    assert places[:3] == [(0, 0, 0), (0, 0, 16), (0, 0, 32)]
    batch, labels = windows.batch(places[1:3])
    np.testing.assert_array_equal(batch[0], tiles[0].scenes(FEATURES, slice(0, 16), slice(16, 32)))
    np.testing.assert_array_equal(labels[1], tiles[0].shares(slice(0, 16), slice(32, 48)))


@pytest.mark.parametrize(("limit", "kept"), [(0, 0), (2 * 16 * 16 * (8 + 2) * 4 * 4, 4), (2**30, 6)])
def test_validation_batches_stay_in_memory_as_far_as_the_limit_reaches(
    tiles: list[Tile], limit: int, kept: int
) -> None:
    windows = ValidationWindows(tiles, FEATURES, 16)
    batches = ValidationBatches(windows, 2, limit)
    first, second = ([task() for task in batches.tasks()] for _ in range(2))
    assert len(first) == 6
    assert len(batches.kept) == kept
    assert sum(one[0].nbytes + one[1].nbytes for one in batches.kept.values()) <= limit
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert (one is other) == (number < kept)
        assert one[0].tobytes() == other[0].tobytes()
        assert one[0].tobytes() == windows.batch(windows.places()[2 * number : 2 * number + 2])[0].tobytes()


def test_what_was_never_observed_has_no_label(tile: Tile) -> None:
    grd = np.asarray(tile.series["grd"]).copy()
    grd[:, 2, 3] = np.nan
    windows = ValidationWindows([replace(tile, series={**tile.series, "grd": grd})], FEATURES, 16)
    batch, labels = windows.batch([(0, 0, 0)])
    assert labels[0, 2, 3].tolist() == [0, 0]
    assert (labels.sum(-1) == 0).sum() == 1
    assert (batch[0, :, 2, 3, 0] == 0).all()


def test_a_tile_smaller_than_the_window_is_refused(tile: Tile) -> None:
    with pytest.raises(InputError, match=r"tile 'tile-0' is \(40, 48\) px, smaller than the window of 48 px"):
        TrainSampler([tile], FEATURES, 48, AugmentOptions.off(), 0.0, 0)


def test_an_error_in_a_thread_reaches_the_caller() -> None:
    def fail() -> int:
        raise InputError("no such window")

    with pytest.raises(InputError, match="no such window"):
        list(ahead([lambda: 1, fail], 2))
