"""Random fields defined on the region's pixel grid, so that any block equals the same part of the whole.

Two kinds: value noise, a smooth function of position made of hashed lattice values, and white noise drawn tile by tile
from seeds that hold the tile's place, smoothed with a halo.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

#: side of the tiles in which white noise is drawn, in pixels
TILE = 256
#: added to tile numbers, because seeds are not negative while halos reach above and left of the grid
_TILE_OFFSET = 1 << 20

Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]


def stream(*key: int) -> np.random.Generator:
    """Return the random generator of one purpose, named by non-negative integers."""
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))


def _hash(rows: NDArray[np.int64], columns: NDArray[np.int64], seed: int) -> Float64Array:
    """Return one value in [-1, 1) for each lattice point: the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA)."""
    key = (rows.astype(np.uint64)[:, None] << np.uint64(32)) ^ (columns.astype(np.uint64) & np.uint64(0xFFFFFFFF))
    key = key + np.uint64(seed * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        key = (key ^ (key >> np.uint64(shift))) * np.uint64(factor)
    key = key ^ (key >> np.uint64(31))
    return np.asarray((key >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0, np.float64)


def value_noise(y: Float64Array, x: Float64Array, wavelength: float, seed: int) -> Float64Array:
    """Return smooth noise at the crossings of two coordinate axes.

    Parameters
    ----------
    y, x
        Coordinates of rows and columns, in any unit; 1-D.
    wavelength
        Spacing of the lattice, in the same unit.
    seed
        Number of the field.

    Returns
    -------
    array
        `(y, x)` float64 in [-1, 1], with a standard deviation near 0.4.
    """
    (rows, wy), (columns, wx) = _weights(y / wavelength), _weights(x / wavelength)
    row0, column0 = int(rows.min()), int(columns.min())
    lattice = _hash(np.arange(row0, int(rows.max()) + 2), np.arange(column0, int(columns.max()) + 2), seed)
    across = lattice[:, columns - column0] * (1 - wx) + lattice[:, columns - column0 + 1] * wx
    across = np.ascontiguousarray(across)
    return across[rows - row0] * (1 - wy)[:, None] + across[rows - row0 + 1] * wy[:, None]


def _weights(position: Float64Array) -> tuple[NDArray[np.int64], Float64Array]:
    """Return lattice cell and quintic weight, whose second derivative is continuous (Perlin 2002, SIGGRAPH)."""
    cell = np.floor(position)
    t = position - cell
    return cell.astype(np.int64), t * t * t * (t * (t * 6 - 15) + 10)


def fractal(
    y: Float64Array, x: Float64Array, wavelength: float, seed: int, *, octaves: int = 4, gain: float = 0.5
) -> Float64Array:
    """Return the sum of `octaves` value noises, each with half the wavelength and `gain` times the amplitude.

    The result is divided by the root of the sum of squared amplitudes: its standard deviation stays near 0.4.
    """
    total = np.zeros((y.size, x.size))
    power = 0.0
    for octave in range(octaves):
        amplitude = gain**octave
        total += amplitude * value_noise(y, x, wavelength / 2**octave, seed + 7919 * octave)
        power += amplitude**2
    return total / math.sqrt(power)


def white(key: tuple[int, ...], rows: slice, columns: slice) -> Float32Array:
    """Return white Gaussian noise of a block, `(y, x)` float32 with mean 0 and variance 1.

    Rows and columns count from the grid's upper left corner and may be negative.
    """
    out = np.empty((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    for tile_row in range(rows.start // TILE, (rows.stop - 1) // TILE + 1):
        for tile_column in range(columns.start // TILE, (columns.stop - 1) // TILE + 1):
            generator = stream(*key, tile_row + _TILE_OFFSET, tile_column + _TILE_OFFSET)
            top, left = tile_row * TILE, tile_column * TILE
            r0, r1 = max(rows.start, top), min(rows.stop, top + TILE)
            # numbers are drawn row by row, so rows below the block need not be drawn
            tile = generator.standard_normal((r1 - top, TILE), np.float32)
            c0, c1 = max(columns.start, left), min(columns.stop, left + TILE)
            part = tile[r0 - top : r1 - top, c0 - left : c1 - left]
            out[r0 - rows.start : r1 - rows.start, c0 - columns.start : c1 - columns.start] = part
    return out


def smooth(field: Float32Array, down: Float64Array, across: Float64Array | None = None) -> Float32Array:
    """Return a field filtered along both axes, cropped by the half width of the kernels on each side.

    Parameters
    ----------
    field
        `(y, x)`.
    down
        Kernel along y, of odd length.
    across
        Kernel along x, as long as `down`; the same by default.
    """
    half = down.size // 2
    rows = correlate1d(field, down, axis=0, mode="nearest")
    both = correlate1d(rows, down if across is None else across, axis=1, mode="nearest")
    return np.ascontiguousarray(both[half : both.shape[0] - half, half : both.shape[1] - half], np.float32)


def correlated(
    key: tuple[int, ...], rows: slice, columns: slice, down: Float64Array, across: Float64Array | None = None
) -> Float32Array:
    """Return Gaussian noise of a block, correlated as the kernels say (see `smooth`), with mean 0 and variance 1."""
    second = down if across is None else across
    half = down.size // 2
    noise = white(key, grow(rows, half), grow(columns, half))
    return smooth(noise, down / math.sqrt(float(np.sum(down**2))), second / math.sqrt(float(np.sum(second**2))))


def gaussian_kernel(sigma: float, shift: float = 0.0) -> Float64Array:
    """Return a Gaussian kernel of sum 1; `sigma` and `shift`, by which it moves a field forward, in pixels."""
    half = max(1, math.ceil(3 * sigma))
    offsets = np.arange(-half, half + 1)
    kernel = np.exp(-0.5 * ((offsets + shift) / sigma) ** 2)
    return np.asarray(kernel / kernel.sum(), np.float64)


def box_kernel(window: int, shift: float = 0.0) -> Float64Array:
    """Return a moving average over an odd number of pixels, moved forward by less than a pixel; 2 pixels longer."""
    kernel = np.zeros(window + 2)
    kernel[1:-1] = 1.0
    part = abs(shift)
    gains, loses = (0, -2) if shift > 0 else (-1, 1)
    kernel[gains] += part
    kernel[loses] -= part
    return kernel / window


def grow(span: slice, by: int) -> slice:
    """Return a span of pixels with a halo on both sides."""
    return slice(span.start - by, span.stop + by)
