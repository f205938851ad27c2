"""Where windows lie (multiples of the stride from the region's upper left corner), and their blending weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Blend = Literal["gaussian", "crop"]
Edges = Literal["published", "valid"]


@dataclass(frozen=True)
class WindowGrid:
    """All windows of a region; blocks of output pixels are multiples of the stride.

    Nothing here knows about chunks.

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
    edges
        ``"published"``: windows begin at every multiple of `stride` below the region's size, and the far ones reach
        past its edge, where they are padded with zeros. ``"valid"``: the last window of an axis ends at the region's
        edge, and no window reaches past it unless the region is narrower than a window (then there is one, at 0).
    """

    window: int
    stride: int
    region: tuple[int, int]
    blend: Blend = "gaussian"
    sigma: float = 0.5
    edges: Edges = "published"

    def starts(self, lo: int, hi: int, axis: int) -> tuple[int, ...]:
        """Return the starts of all windows that touch pixels ``lo <= p < hi`` of an axis, in order."""
        last = self._last(axis)
        first = max(0, -(-(lo - self.window + 1) // self.stride)) * self.stride
        # the last window touches every pixel that no other window touches
        return (*range(first, min(hi, last), self.stride), *((last,) if last < hi and last + self.window > lo else ()))

    def reach(self, lo: int, hi: int, axis: int) -> slice:
        """Return the pixels of an axis that the windows touching ``lo <= p < hi`` read."""
        starts = self.starts(lo, hi, axis)
        return slice(starts[0], min(starts[-1] + self.window, self.region[axis]))

    def support(self, start: int, axis: int) -> slice:
        """Return the pixels of an axis to which the window that begins at `start` gives a weight above zero."""
        low, high = self._own(start, axis) if self.blend == "crop" else (0, self.window)
        return slice(start + low, start + high)

    def weights(self, row: int, column: int) -> NDArray[np.float32]:
        """Return the blending weights `(window, window)` of the window that starts at a row and column."""
        if self.blend == "gaussian":
            return gaussian_weights(self.window, self.sigma)
        return np.outer(*(_box(self.window, *self._own(start, axis)) for axis, start in enumerate((row, column))))

    def _last(self, axis: int) -> int:
        """Return the start of an axis' last window."""
        size = self.region[axis]
        if self.edges == "valid":
            return max(0, size - self.window)
        return (size - 1) // self.stride * self.stride

    def _own(self, start: int, axis: int) -> tuple[int, int]:
        """Return the part of a window that is its own in a crop: up to the middles of its overlaps."""
        last = self._last(axis)
        before, after = (start - 1) // self.stride * self.stride, min(start + self.stride, last)
        low = 0 if start == 0 else (before - start + self.window) // 2
        high = self.window if start == last else (after - start + self.window) // 2
        return low, high


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
def _box(window: int, low: int, high: int) -> NDArray[np.float32]:
    """Return 1 from `low` to `high`, 0 elsewhere."""
    profile = np.zeros(window, np.float32)
    profile[low:high] = 1
    profile.setflags(write=False)
    return profile
