"""Scores, reliability and block errors against brute force, and maps against `predict`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from icemap_xr import schema
from icemap_xr.calibrate import KnotCalibrator
from icemap_xr.errors import InputError, OutputExistsError
from icemap_xr.predict import predict
from icemap_xr.testing.fakes import FakePredictor, small_grid
from icemap_xr.training.evaluate import Scores, block_errors, evaluate, predict_tile, score
from icemap_xr.training.tiles import Tile

MODEL = FakePredictor(window=16, steps=4)


def test_scores_count_and_divide() -> None:
    one = Scores(tp=6, tn=10, fp=2, fn=2)
    assert (one.iou, one.precision, one.recall, one.f1, one.accuracy) == (0.6, 0.75, 0.75, 0.75, 0.8)
    assert Scores(tn=5).iou is None
    assert one + Scores(1, 1, 1, 1) == Scores(7, 11, 3, 3)


def test_a_tile_is_mapped_as_predict_maps_a_region(tile: Tile) -> None:
    found, labels = predict_tile(MODEL, tile)
    ds = xr.Dataset(coords={schema.YEAR: [2020], **small_grid(tile.shape).coords()})
    for feature in MODEL.spec.features:
        scaled = np.asarray(tile.series[feature.name])[1:5].astype(np.float64)
        raw = (scaled * (feature.maximum - feature.minimum) + feature.minimum).astype(np.float32)
        ds[feature.name] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), raw[None], {"units": feature.units})
    expected = predict(ds, MODEL)[schema.PROBABILITY].values[0]
    np.testing.assert_allclose(found[1], expected, atol=1e-4)
    np.testing.assert_array_equal(labels, tile.labels)


def test_evaluation_equals_brute_force(tiles: list[Tile]) -> None:
    calibrator = KnotCalibrator((0.0, 1.0), (0.2, 0.9))
    found = evaluate(MODEL, iter(tiles), block_px=10, bins=7, calibrator=calibrator)
    all_p, all_y = [], []
    for tile in tiles:
        probability, labels = predict_tile(MODEL, tile)
        p, y = probability[1].ravel(), labels[..., 1].ravel()
        mapped, true = p > 0.5, y == 1
        tp, fp, fn = (mapped & true).sum(), (mapped & ~true).sum(), (~mapped & true).sum()
        scores = found.tiles[tile.name]
        assert (scores.tp, scores.fp, scores.fn, scores.tn) == (tp, fp, fn, p.size - tp - fp - fn)
        assert scores.iou == pytest.approx(tp / (tp + fp + fn))
        difference = calibrator(probability[1]).astype(float) - labels[..., 1]
        blocks = [difference[i : i + 10, j : j + 10].mean() for i in range(0, 40, 10) for j in range(0, 40, 10)]
        np.testing.assert_allclose(found.block_errors[tile.name], blocks, atol=1e-6)
        all_p.append(p)
        all_y.append(y)
    p, y = np.concatenate(all_p).astype(float), np.concatenate(all_y)
    assert found.overall == sum(found.tiles.values(), Scores())
    for table, values in ((found.reliability, p), (found.calibrated, calibrator(p).astype(float))):
        bins = np.minimum((values * 7).astype(int), 6)
        gaps = [abs(values[bins == k].sum() - y[bins == k].sum()) for k in range(7)]
        assert table is not None
        assert table.ece == pytest.approx(sum(gaps) / len(p), abs=1e-9)
        assert list(table.pixels) == np.bincount(bins, minlength=7).tolist()
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["overall"]["tp"] == found.overall.tp


def test_padding_and_unobserved_pixels_do_not_count(tile: Tile) -> None:
    grd = np.asarray(tile.series["grd"]).copy()
    grd[:, 20, 20] = np.nan
    padded = replace(tile, series={**tile.series, "grd": grd}, inside=(slice(8, 40), slice(16, 48)))
    found = evaluate(MODEL, [padded], block_px=16)
    scores = found.overall
    assert scores.tp + scores.tn + scores.fp + scores.fn == 32 * 32 - 1
    assert len(found.block_errors[tile.name]) == 3, "the block with the unobserved pixel is left out"


def test_probabilities_are_written_in_the_published_layout(tiles: list[Tile], tmp_path: Path) -> None:
    path = tmp_path / "probs.hdf5"
    evaluate(MODEL, tiles, probabilities=path)
    with h5py.File(path) as file:
        assert sorted(file) == ["tile-0", "tile-1"]
        probs = file["tile-1/probs"]
        assert (probs.shape, probs.dtype) == ((40, 48, 2), np.float32)
        np.testing.assert_array_equal(probs[..., 1], predict_tile(MODEL, tiles[1])[0][1])
    with pytest.raises(OutputExistsError, match="exists already"):
        evaluate(MODEL, tiles, probabilities=path)


def test_the_likeliest_of_three_classes_is_scored() -> None:
    probability = np.array([0.4, 0.35, 0.25], np.float32).reshape(3, 1, 1) * np.ones((3, 1, 2), np.float32)
    labels = np.zeros((1, 2, 3), np.float32)
    labels[0, 0, 0] = labels[0, 1, 1] = 1
    assert score(probability, labels, 1) == Scores(tn=1, fn=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros((40, 48, 2))}, "no pixel that is both labelled and observed"),
        ({"labels": np.zeros((40, 48, 3))}, "labels of 3 classes, needed are 2"),
        ({"series": {"grd": np.full((6, 40, 48), np.nan), "insar": np.ones((6, 40, 48))}}, "no pixel that is both"),
    ],
)
def test_tiles_that_cannot_be_judged_are_refused(tile: Tile, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(MODEL, [replace(tile, **change)])


def test_bad_options_are_refused(tile: Tile) -> None:
    with pytest.raises(InputError, match="no tile"):
        evaluate(MODEL, [])
    with pytest.raises(InputError, match="two tiles are named 'tile-0'"):
        evaluate(MODEL, [tile, tile])
    with pytest.raises(InputError, match="overlap=1"):
        evaluate(MODEL, [tile], overlap=1)
    with pytest.raises(InputError, match="a block of 0 pixels"):
        block_errors(np.zeros((4, 4), np.float32), np.zeros((4, 4), np.float32), 0)


def brute_force(tile: Tile, stride: int = 8) -> np.ndarray:
    """Blend all windows that fit into the tile, each with the published weights alone."""
    side = MODEL.spec.window
    axis = np.linspace(-1, 1, side)
    weights = np.exp(-np.add.outer(axis**2, axis**2) / (2 * 0.5**2))
    values = tile.scenes(("grd", "insar"), *(slice(0, size) for size in tile.shape))
    values = np.where(np.isfinite(values), values, 0).astype(np.float32)
    total, weight = np.zeros((*tile.shape, 2)), np.zeros((*tile.shape, 1))
    for row in range(0, tile.shape[0] - side + 1, stride):
        for column in range(0, tile.shape[1] - side + 1, stride):
            part = slice(row, row + side), slice(column, column + side)
            total[part] += weights[..., None] * MODEL(values[None, :, *part])[0]
            weight[part] += weights[..., None]
    return total / weight


def test_full_windows_are_those_of_the_published_evaluation(tile: Tile) -> None:
    expected = brute_force(tile)[..., 1]
    for edges in ("full", "valid"):
        np.testing.assert_allclose(predict_tile(MODEL, tile, edges=edges)[0][1], expected, atol=1e-6)
    mapped = predict_tile(MODEL, tile)[0][1]
    assert np.abs(mapped - expected).max() > 1e-3, "windows that reach past the tile are padded"
    # padding without observations: full windows count alike, those of "valid" by what they see
    grd = np.asarray(tile.series["grd"]).copy()
    grd[:, :5], grd[:, :, 40:] = np.nan, np.nan
    inside = slice(5, 40), slice(0, 40)
    padded = replace(tile, series={**tile.series, "grd": grd}, inside=inside)
    expected = brute_force(padded)[*inside, 1]
    np.testing.assert_allclose(predict_tile(MODEL, padded, edges="full")[0][1], expected, atol=1e-6)
    assert np.abs(predict_tile(MODEL, padded, edges="valid")[0][1] - expected).max() > 1e-4
    found = evaluate(MODEL, [padded], edges="full")
    assert (found.edges, found.to_json()["edges"]) == ("full", "full")
    mapped_ice, ice = expected > 0.5, padded.labels[*inside, 1] == 1
    assert (found.overall.tp, found.overall.fp) == ((mapped_ice & ice).sum(), (mapped_ice & ~ice).sum())


def test_no_pixel_of_a_tile_is_left_out_where_strides_do_not_fit(tile: Tile) -> None:
    narrow = replace(
        tile,
        series={name: np.asarray(values)[:, :37, :13] for name, values in tile.series.items()},
        labels=np.asarray(tile.labels)[:37, :13],
        inside=(slice(0, 37), slice(0, 13)),
    )
    assert np.isfinite(predict_tile(MODEL, narrow, edges="full")[0]).all()
    with pytest.raises(InputError, match="edges='whole' is not allowed: choose from published, valid, full"):
        predict_tile(MODEL, narrow, edges="whole")
