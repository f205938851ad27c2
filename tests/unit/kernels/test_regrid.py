import numpy as np
import pytest

from icemap_xr.kernels.regrid import Sampler, footprint


def sample(image: np.ndarray, lines: np.ndarray, pixels: np.ndarray, average: tuple[int, int] = (1, 1)) -> np.ndarray:
    window = footprint(lines, pixels, image.shape, average)
    assert window is not None
    sampler = Sampler(window, average, image.shape)
    for rows, columns in sampler.strips():
        sampler.add((rows, columns), image[rows, columns].astype(np.float32))
    return sampler.at(lines, pixels)


def test_pixel_centres_come_back_and_between_it_is_bilinear() -> None:
    image = np.arange(20.0).reshape(4, 5)
    lines, pixels = np.array([[0.0, 3.0, 1.5]]), np.array([[0.0, 4.0, 2.25]])
    np.testing.assert_allclose(sample(image, lines, pixels), [[0, 19, 7.5 + 2.25]])


def test_half_a_pixel_beyond_the_edge_still_counts_and_more_does_not() -> None:
    image = np.ones((4, 5))
    out = sample(image, np.array([[-0.5, -0.51, 3.5, 3.6, 0.0]]), np.array([[0.0, 0.0, 4.5, 0.0, np.nan]]))
    assert np.isfinite(out).tolist() == [[True, False, True, False, False]]


def test_a_block_beside_the_image_has_no_footprint() -> None:
    assert footprint(np.full((2, 2), 10.0), np.zeros((2, 2)), (5, 5)) is None
    assert footprint(np.full((2, 2), np.nan), np.zeros((2, 2)), (5, 5)) is None


def test_nothing_observed_spreads_by_half_a_pixel_only() -> None:
    image = np.ones((5, 9))
    image[:, 4:] = np.nan
    pixels = np.array([[3.0, 3.4, 3.6, 4.0]])
    out = sample(image, np.full((1, 4), 2.0), pixels)
    assert np.isfinite(out).tolist() == [[True, True, False, False]]
    # what is not observed is left out of the mean, and does not count as 0
    assert out[0, 1] == pytest.approx(1.0)


def test_power_is_averaged_where_the_map_is_coarser() -> None:
    rng = np.random.default_rng(0)
    image = rng.gamma(4, 0.25, (400, 400))
    lines, pixels = np.meshgrid(np.arange(10.0, 380, 20), np.arange(10.0, 380, 20), indexing="ij")
    out = sample(image, lines - 0.5, pixels - 0.5, (20, 20))
    np.testing.assert_allclose(out, image.reshape(20, 20, 20, 20).mean(axis=(1, 3))[:19, :19], rtol=1e-4)


def test_averages_do_not_depend_on_the_block() -> None:
    image = np.random.default_rng(1).normal(size=(300, 300))
    lines, pixels = np.meshgrid(np.arange(33.0, 270, 3), np.arange(31.0, 260, 3), indexing="ij")
    whole = sample(image, lines, pixels, (3, 3))
    part = sample(image, lines[20:40, 30:], pixels[20:40, 30:], (3, 3))
    np.testing.assert_allclose(whole[20:40, 30:], part, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1.3, 2.5, 4.0])
def test_the_rim_of_a_block_lies_between_averages_too(offset: float) -> None:
    image = np.random.default_rng(1).normal(size=(300, 300))
    lines, pixels = np.meshgrid(np.arange(33.0, 270, 5) + offset, np.arange(31.0, 260, 5) + offset, indexing="ij")
    whole = sample(image, lines, pixels, (5, 5))
    part = sample(image, lines[20:40, 30:], pixels[20:40, 30:], (5, 5))
    np.testing.assert_allclose(whole[20:40, 30:], part, atol=1e-6)


def test_long_windows_are_read_in_strips() -> None:
    image = np.random.default_rng(2).random((5000, 40))
    lines, pixels = np.meshgrid(np.arange(5.0, 4990, 7), np.arange(5.0, 30, 7), indexing="ij")
    window = footprint(lines, pixels, image.shape)
    assert window is not None
    strips = list(Sampler(window, (7, 7), image.shape).strips())
    assert max(rows.stop - rows.start for rows, _ in strips) <= 1024
    assert len(strips) == 5
    assert np.isfinite(sample(image, lines, pixels, (7, 7))).all()
    assert (sample(image, lines, pixels, (7, 7)) > 0.2).all()
