"""From windows to probabilities: symmetries and passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from icemap_xr.kernels.infer import Dropout, Infer

Array = NDArray[np.float32]

WINDOWS: Array = np.random.default_rng(0).random((3, 2, 8, 8, 1)).astype(np.float32)
PLACES = [(0, 0), (0, 4), (4, 0)]


def uneven(windows: Array) -> Array:
    """Answer differently at each place of a window, so that turning matters."""
    ramp = np.linspace(0, 1, 8, dtype=np.float32)
    first = windows[:, 0] * ramp[:, None, None] + 0.3 * windows[:, 1] * ramp[None, :, None] ** 2
    return np.concatenate([1 - first, first, 2 * first], axis=-1)


def the_eight(forward: Callable[[Array], Array], windows: Array) -> list[Array]:
    """Turn and mirror by transposing and reversing axes, run, and undo it."""
    answers = []
    for transposed in (False, True):
        for down in (1, -1):
            for across in (1, -1):
                turned = windows.swapaxes(2, 3) if transposed else windows
                back = forward(np.ascontiguousarray(turned[:, :, ::down, ::across]))[:, ::down, ::across]
                answers.append(back.swapaxes(1, 2) if transposed else back)
    return answers


def test_plain_is_the_model_itself() -> None:
    (answer,) = Infer(uneven)(WINDOWS, PLACES)
    np.testing.assert_array_equal(answer, uneven(WINDOWS))
    (kept,) = Infer(uneven, classes=(2, 0))(WINDOWS, PLACES)
    np.testing.assert_array_equal(kept, uneven(WINDOWS)[..., [2, 0]])


def test_dihedral_is_the_mean_over_the_squares_eight_symmetries() -> None:
    seen: list[bytes] = []

    def forward(windows: Array) -> Array:
        seen.append(windows.tobytes())
        return uneven(windows)

    (answer,) = Infer(forward, tta="dihedral")(WINDOWS, PLACES)
    assert len(seen) == len(set(seen)) == 8
    np.testing.assert_allclose(answer, np.mean(the_eight(uneven, WINDOWS), axis=0), atol=1e-6)
    assert np.abs(answer - uneven(WINDOWS)).max() > 0.1


def sampled(
    calls: list[tuple[Array, NDArray[np.uint64], float]],
) -> Callable[[Array, NDArray[np.uint64], float], Array]:
    def sample(windows: Array, seeds: NDArray[np.uint64], rate: float) -> Array:
        calls.append((windows, seeds, rate))
        noise = [np.random.default_rng(int(seed)).random((8, 8, 3), np.float32) for seed in seeds]
        return uneven(windows) + np.stack(noise)

    return sample


def seeds_of(places: list[tuple[int, int]], dropout: Dropout, tta: bool = False) -> NDArray[np.uint64]:
    calls: list[tuple[Array, NDArray[np.uint64], float]] = []
    infer = Infer(uneven, sampled(calls), "dihedral" if tta else None, dropout)
    list(infer(WINDOWS[: len(places)], places))
    return np.stack([seeds for _, seeds, _ in calls])


def test_passes_differ_and_a_windows_seed_depends_on_seed_pass_and_place_alone() -> None:
    dropout = Dropout(4, 0.1, seed=7)
    together = seeds_of(PLACES, dropout)
    assert together.shape == (4, 3)
    assert len(np.unique(together)) == 12
    for number, place in enumerate(PLACES):
        np.testing.assert_array_equal(seeds_of([place], dropout)[:, 0], together[:, number])
    np.testing.assert_array_equal(seeds_of(PLACES, Dropout(2, 0.3, seed=7)), together[:2])
    assert not np.intersect1d(seeds_of(PLACES, Dropout(4, 0.1, seed=8)), together).size
    assert len(np.unique(seeds_of(PLACES, dropout, tta=True))) == 4 * 8 * 3


def test_every_pass_is_an_answer_of_its_own() -> None:
    calls: list[tuple[Array, NDArray[np.uint64], float]] = []
    infer = Infer(pytest.fail, sampled(calls), dropout=Dropout(3, 0.25), classes=(1,))
    answers = list(infer(WINDOWS, PLACES))
    assert infer.passes == len(answers) == len(calls) == 3
    assert {rate for *_, rate in calls} == {0.25}
    expected = [sampled([])(*call)[..., [1]] for call in calls]
    np.testing.assert_array_equal(answers, expected)
    assert not np.array_equal(answers[0], answers[1])
