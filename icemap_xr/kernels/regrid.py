"""Values of an image at fractional lines and pixels: averaged where the map is coarser, then bilinear.

Linear power is averaged, never dB; a value counts where at least half of what it is made of was observed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Floats = NDArray[np.float64]
Values = NDArray[np.float32]

#: lines read at a time
_STRIP = 1024


def footprint(
    lines: Floats, pixels: Floats, shape: tuple[int, int], looks: tuple[int, int] = (1, 1)
) -> tuple[slice, slice] | None:
    """Return the rows and columns of an image that a block needs, or None if it lies beside the image.

    With the neighbouring averages of `looks` lines and pixels, between which its outer values lie.
    """
    with np.errstate(invalid="ignore"):
        inside = _inside(lines, pixels, shape)
    if not inside.any():
        return None
    parts = []
    for places, size, k in zip((lines[inside], pixels[inside]), shape, looks, strict=True):
        first, last = int(np.floor(places.min())) - k, int(np.ceil(places.max())) + k
        parts.append(slice(max(first, 0), min(last + 1, size)))
    return parts[0], parts[1]


def _inside(lines: Floats, pixels: Floats, shape: tuple[int, int]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (
        (lines >= -0.5) & (lines <= shape[0] - 0.5) & (pixels >= -0.5) & (pixels <= shape[1] - 0.5)
    )
    return found


@dataclass
class Sampler:
    """Averages a window of an image as it is read, strip by strip, and samples the averages.

    Parameters
    ----------
    window
        Rows and columns of the image; widened to whole averages.
    looks
        Lines and pixels averaged.
    shape
        Lines and samples of the image.
    """

    window: tuple[slice, slice]
    looks: tuple[int, int]
    shape: tuple[int, int]
    _power: Values = field(init=False, repr=False)
    _share: Values = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Anchor the averages to the image, so that they do not depend on the block."""
        parts = [
            slice(part.start // k * k, min(-(-part.stop // k) * k, size))
            for part, k, size in zip(self.window, self.looks, self.shape, strict=True)
        ]
        self.window = (parts[0], parts[1])
        cells = tuple(-(-(part.stop - part.start) // k) for part, k in zip(parts, self.looks, strict=True))
        self._power, self._share = np.zeros(cells, np.float32), np.zeros(cells, np.float32)

    def strips(self) -> Iterator[tuple[slice, slice]]:
        """Yield the windows to read."""
        rows, columns = self.window
        height = max(_STRIP // self.looks[0], 1) * self.looks[0]
        for start in range(rows.start, rows.stop, height):
            yield slice(start, min(start + height, rows.stop)), columns

    def add(self, strip: tuple[slice, slice], values: Values) -> None:
        """Take the values of a strip; NaN where nothing was observed."""
        seen = np.isfinite(values)
        down, across = (np.arange(0, n, k) for n, k in zip(values.shape, self.looks, strict=True))
        first = (strip[0].start - self.window[0].start) // self.looks[0]
        target = slice(first, first + down.size)
        self._power[target] = _sums(np.where(seen, values, np.float32(0)), down, across)
        self._share[target] = _sums(seen.astype(np.float32), down, across)

    def at(self, lines: Floats, pixels: Floats) -> Values:
        """Return the values at lines and pixels; NaN outside and where less than half was observed."""
        rows, columns = (
            (places - part.start + 0.5) / k - 0.5
            for places, part, k in zip((lines, pixels), self.window, self.looks, strict=True)
        )
        with np.errstate(invalid="ignore"):
            inside = _inside(lines, pixels, self.shape)
        there = np.stack([np.where(inside, rows, 0.0), np.where(inside, columns, 0.0)])
        whole = np.float32(self.looks[0] * self.looks[1])
        power = _between(self._power, there)
        # most blocks are observed everywhere
        share = np.full_like(power, whole) if (self._share == whole).all() else _between(self._share, there)
        enough = inside & (share >= 0.5 * whole)
        out = np.full(lines.shape, np.nan, np.float32)
        np.divide(power, share, out=out, where=enough)
        return out


def _between(values: Values, there: Floats) -> Values:
    """Interpolate; beyond the last centre the last cell counts."""
    return np.asarray(map_coordinates(values, there, order=1, mode="nearest", prefilter=False), np.float32)


def _sums(values: Values, down: NDArray[np.int64], across: NDArray[np.int64]) -> Values:
    if down.size == values.shape[0] and across.size == values.shape[1]:
        return values
    out: Values = np.add.reduceat(np.add.reduceat(values, down, axis=0), across, axis=1)
    return out
