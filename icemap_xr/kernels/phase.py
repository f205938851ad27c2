"""How far one image lies from another, by phase correlation.

The cross-power spectrum of two shifted images is a wave whose direction and length tell the shift. It is whitened by
half (the square root of its power is kept, so that frequencies in which there is only speckle count less) and damped
towards high frequencies, and its peak is sought in steps of a hundredth of a pixel
by a Fourier transform of the surroundings alone (Guizar-Sicairos, Thurman and Fienup 2008, Optics Letters 33, 156).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Floats = NDArray[np.float64]

#: standard deviation of the damping, cycles per pixel
_DAMPING = 0.12
#: softness of the rim of holes, pixels
_RIM = 5.0
#: refinements: half width in pixels and step
_ZOOM = ((1.0, 0.1), (0.1, 0.01))
#: largest shift that is looked for, pixels
_FARTHEST = 16.0


def shift(reference: Floats, image: Floats) -> tuple[float, float, float]:
    """Return how many rows and columns an image lies beside a reference, and how clear that is.

    Parameters
    ----------
    reference, image
        `(y, x)`; NaN where there is nothing.

    Returns
    -------
    rows, columns
        To be added to a place in the reference to find it in the image.
    peak
        Height of the peak over the standard deviation of the correlation; below about 9 it may be chance.
    """
    seen = np.isfinite(reference) & np.isfinite(image)
    # a hole with a sharp rim would correlate with itself, at no shift
    soft = np.clip(2 * gaussian_filter(seen.astype(np.float64), _RIM, mode="constant") - 1, 0, 1)
    window = np.outer(*(np.hanning(n + 2)[1:-1] for n in reference.shape)) * soft
    one, other = (np.fft.fft2(_levelled(part, seen) * window) for part in (reference, image))
    cross = other * np.conj(one)
    size = np.abs(cross)
    down, across = (np.fft.fftfreq(n) for n in reference.shape)
    damping = np.exp(-(down[:, None] ** 2 + across[None, :] ** 2) / (2 * _DAMPING**2))
    cross = np.where(size > 0, cross / np.sqrt(np.where(size > 0, size, 1.0)), 0.0) * damping
    surface = np.fft.ifft2(cross).real
    near = np.abs(np.fft.fftfreq(surface.shape[0], 1 / surface.shape[0]))[:, None] <= _FARTHEST
    near = near & (np.abs(np.fft.fftfreq(surface.shape[1], 1 / surface.shape[1]))[None, :] <= _FARTHEST)
    row, column = np.unravel_index(np.argmax(np.where(near, surface, -np.inf)), surface.shape)
    at = [float(place if place <= n // 2 else place - n) for place, n in zip((row, column), surface.shape, strict=True)]
    spread = float(surface.std())
    for half, step in _ZOOM:
        rows, columns = (place + np.arange(-half, half + step / 2, step) for place in at)
        waves = np.exp(2j * np.pi * rows[:, None] * down), np.exp(2j * np.pi * across[:, None] * columns)
        fine = (waves[0] @ cross @ waves[1]).real / cross.size
        i, j = np.unravel_index(np.argmax(fine), fine.shape)
        at, peak = [float(rows[i]), float(columns[j])], float(fine[i, j])
    return at[0], at[1], peak / spread if spread > 0 else 0.0


def _levelled(values: Floats, seen: NDArray[np.bool_]) -> Floats:
    """Return values around their mean, 0 where nothing is."""
    mean = float(values[seen].mean()) if seen.any() else 0.0
    return np.where(seen, values - mean, 0.0)
