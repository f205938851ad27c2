"""Random fields over blocks that are correlated in space and from year to year."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.special import ndtr


class BlockField:
    """Gaussian fields of unit variance with the correlation ``exp(-distance / range)`` on a lattice of blocks.

    Parameters
    ----------
    rows, columns
        Place of each block in the lattice; places may repeat, and then share their values.
    length
        Distance at which the correlation falls to 1/e, in lattice steps; 0 for independent blocks.

    Notes
    -----
    Circulant embedding (Dietrich and Newsam 1997, SIAM J. Sci. Comput. 18, 1088-1107) in a lattice of twice the size;
    negative eigenvalues, which are tiny, are set to 0 and the variance is restored.
    """

    def __init__(self, rows: NDArray[np.integer], columns: NDArray[np.integer], length: float) -> None:
        self._length = length
        self._count = len(rows)
        self._at = (rows - rows.min(), columns - columns.min())
        if length > 0:
            # beyond a few ranges nothing is correlated, so the torus need not be larger than that
            spare = int(np.ceil(5 * length))
            size = [int(one.max()) + 1 for one in self._at]
            shape = [scipy.fft.next_fast_len(n + min(n, spare)) for n in size]
            apart = [np.minimum(np.arange(n), n - np.arange(n)) for n in shape]
            covariance = np.exp(-np.hypot(*np.meshgrid(*apart, indexing="ij")) / length)
            spectrum = np.maximum(scipy.fft.fft2(covariance).real, 0)
            self._root = np.sqrt(spectrum / spectrum.mean())

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return `count` independent fields, `(count, block)`."""
        if self._length <= 0:
            return rng.standard_normal((count, self._count))
        pairs = (count + 1) // 2
        noise = rng.standard_normal((pairs, *self._root.shape, 2)).view(np.complex128)[..., 0]
        fields = scipy.fft.ifft2(noise * self._root, norm="ortho")[:, *self._at]
        both: NDArray[np.float64] = np.concatenate([fields.real, fields.imag])[:count]
        return both


def as_errors(normals: NDArray[np.float64], ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn normal numbers into errors of the same rank: they keep their correlation, and get the errors' spread.

    Parameters
    ----------
    normals
        Standard normal, any shape.
    ordered
        Errors `(error, ...)`, sorted along the first axis.

    Returns
    -------
    ndarray
        The shape of `normals`, followed by the other axes of `ordered`.
    """
    at = np.minimum((ndtr(normals) * len(ordered)).astype(np.intp), len(ordered) - 1)
    return ordered[at]
