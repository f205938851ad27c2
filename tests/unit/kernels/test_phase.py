import numpy as np
import pytest
from scipy.ndimage import fourier_shift, gaussian_filter

from icemap_xr.kernels.phase import shift


def scene(seed: int = 0) -> np.ndarray:
    rough = gaussian_filter(np.random.default_rng(seed).normal(size=(128, 160)), 2, mode="wrap")
    return 3 * rough / rough.std()


def moved(image: np.ndarray, by: tuple[float, float]) -> np.ndarray:
    return np.fft.ifft2(fourier_shift(np.fft.fft2(image), by)).real


@pytest.mark.parametrize("by", [(0.0, 0.0), (0.3, -0.7), (3.25, -5.6), (-8.0, 8.0)])
def test_the_shift_is_found_to_a_twentieth_of_a_pixel(by: tuple[float, float]) -> None:
    found = shift(scene(), moved(scene(), by))
    assert found[:2] == pytest.approx(by, abs=0.05)
    assert found[2] > 20


def test_speckle_costs_a_tenth_of_a_pixel() -> None:
    rng = np.random.default_rng(1)
    one, other = (10 * np.log10(rng.gamma(4.4, 1 / 4.4, scene().shape)) for _ in range(2))
    found = shift(scene() + one / 3, moved(scene(), (0.4, -0.6)) + other)
    assert found[:2] == pytest.approx((0.4, -0.6), abs=0.1)


def test_unrelated_images_have_no_clear_peak() -> None:
    peaks = [shift(scene(2 * k), scene(2 * k + 1))[2] for k in range(1, 6)]
    rng = np.random.default_rng(2)
    peaks += [shift(rng.normal(size=(128, 160)), rng.normal(size=(128, 160)))[2] for _ in range(5)]
    assert max(peaks) < 9


def test_holes_are_no_texture() -> None:
    one, other = scene(), moved(scene(), (1.0, 2.0))
    one[:, 40:60] = np.nan
    assert shift(one, other)[:2] == pytest.approx((1.0, 2.0), abs=0.2)


def test_images_without_texture_have_no_peak() -> None:
    assert shift(np.zeros((32, 32)), np.zeros((32, 32)))[2] == 0.0
