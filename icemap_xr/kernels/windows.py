"""Where windows lie (multiples of the stride from the region's upper left corner), and their blending weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["gaussian", "crop"]


@dataclass(frozen=True)
class WindowGrid:
    """All windows of a region; blocks of output pixels are multiples of the stride.

    Windows begin at every multiple of `stride` below the region's size; the far ones reach past its edge and are
    padded with zeros there (the published rule). Nothing here knows about chunks.

    Parameters
    ----------
    window
        Window side in pixels.
    stride
        Distance between windows in pixels, at most `window`.
    region
        Rows and columns of the whole region.
    blend
        ``"gaussian"``: weights fall with distance from the window's centre; ``"crop"``: each pixel comes from the
        window in whose middle it lies.
    sigma
        Width of the Gaussian as a share of half the window (published: 0.5).
    """

    window: int
    stride: int
    region: tuple[int, int]
    blend: Blend = "gaussian"
    sigma: float = 0.5

    def starts(self, lo: int, hi: int, axis: int) -> range:
        """Return the starts of all windows that touch pixels ``lo <= p < hi`` of an axis."""
        first = max(0, -(-(lo - self.window + 1) // self.stride))
        last = (min(hi, self.region[axis]) - 1) // self.stride
        return range(first * self.stride, last * self.stride + 1, self.stride)

    def reach(self, lo: int, hi: int, axis: int) -> slice:
        """Return the pixels of an axis that the windows touching ``lo <= p < hi`` read."""
        starts = self.starts(lo, hi, axis)
        return slice(starts[0], min(starts[-1] + self.window, self.region[axis]))

    def weights(self, row: int, column: int) -> NDArray[np.float32]:
        """Return the blending weights `(window, window)` of the window that starts at a row and column."""
        if self.blend == "gaussian":
            return gaussian_weights(self.window, self.sigma)
        ends = [
            (start == 0, start + self.stride >= size) for start, size in zip((row, column), self.region, strict=True)
        ]
        return np.outer(*(_crop_profile(self.window, self.stride, *end) for end in ends))


@lru_cache(maxsize=8)
def gaussian_weights(window: int, sigma: float = 0.5) -> NDArray[np.float32]:
    """Return the published blending weights of a window, `(window, window)` float32.

    ``exp(-d^2 / (2 sigma^2)) / (sqrt(2 / pi) sigma)`` with d the distance from the centre on a grid from -1 to 1.

    References
    ----------
    Maslov et al., ICEmapper: patch blending of the published prediction program.
    """
    axis = np.linspace(-1.0, 1.0, window)
    squared = axis[:, None] ** 2 + axis[None, :] ** 2
    weights = np.exp(-squared / (2 * sigma**2)) / (np.sqrt(2 / np.pi) * sigma)
    out: NDArray[np.float32] = weights.astype(np.float32)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=32)
def _crop_profile(window: int, stride: int, is_first: bool, is_last: bool) -> NDArray[np.float32]:
    """Return 1 in the middle `stride` pixels, 0 in the margins, and 1 out to the region's edge."""
    margin = (window - stride) // 2
    profile = np.zeros(window, np.float32)
    profile[0 if is_first else margin : window if is_last else margin + stride] = 1
    profile.setflags(write=False)
    return profile
