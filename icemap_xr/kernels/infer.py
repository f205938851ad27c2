"""From windows to probabilities: once, averaged over the symmetries of the square, or sampled several times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Windows: TypeAlias = NDArray[np.float32]
#: maps windows `(batch, step, y, x, feature)` to class probabilities `(batch, y, x, class)`
Forward: TypeAlias = Callable[[Windows], NDArray[np.float32]]
#: the same with random channels dropped: windows, one seed per window `(batch,)` uint64, share of channels
Sample: TypeAlias = Callable[[Windows, NDArray[np.uint64], float], NDArray[np.float32]]
#: row and column of a window in the region
Place: TypeAlias = tuple[int, int]

Tta = Literal["dihedral"]

#: quarter turns and whether mirrored
_IDENTITY = ((0, False),)
_DIHEDRAL = tuple((turns, mirrored) for mirrored in (False, True) for turns in range(4))
SYMMETRIES = len(_DIHEDRAL)


@dataclass(frozen=True)
class Dropout:
    """Passes with random channels dropped.

    Parameters
    ----------
    passes
        Number of passes, at least 2.
    rate
        Share of channels dropped.
    seed
        Seed; a window's channels depend on seed, pass and the window's place in the region, and on nothing else.
    """

    passes: int
    rate: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Infer:
    """What is done with a batch of windows.

    Parameters
    ----------
    forward
        The model.
    sample
        The model with dropout; needed for `dropout` only.
    tta
        ``"dihedral"``: the mean over the square's 8 symmetries (turned and mirrored input, result turned back).
    dropout
        Passes with random dropout, each with channels of its own for every window.
    classes
        Classes to keep, in order; all by default.
    """

    forward: Forward
    sample: Sample | None = None
    tta: Tta | None = None
    dropout: Dropout | None = None
    classes: tuple[int, ...] | None = None

    @property
    def passes(self) -> int:
        """How many answers there are for each window."""
        return 1 if self.dropout is None else self.dropout.passes

    def __call__(self, windows: Windows, places: Sequence[Place]) -> Iterator[NDArray[np.float32]]:
        """Yield `(batch, y, x, class)` for each pass, from windows `(batch, step, y, x, feature)` and their places."""
        for number in range(self.passes):
            yield self._once(windows, places, number)

    def _once(self, windows: Windows, places: Sequence[Place], number: int) -> NDArray[np.float32]:
        symmetries = _IDENTITY if self.tta is None else _DIHEDRAL
        total: NDArray[np.float32] | None = None
        for symmetry, (turns, mirrored) in enumerate(symmetries):
            turned = _turned(windows, turns, mirrored) if symmetry else windows
            if self.dropout is None:
                result = self.forward(turned)
            else:
                assert self.sample is not None
                seeds = _seeds(self.dropout.seed, number, symmetry, places)
                result = self.sample(turned, seeds, self.dropout.rate)
            kept = result if self.classes is None else result[..., self.classes]
            back = _turned_back(kept, turns, mirrored) if symmetry else kept
            total = back if total is None else total + back
        assert total is not None
        return total if len(symmetries) == 1 else total / np.float32(len(symmetries))


def _turned(windows: Windows, turns: int, mirrored: bool) -> Windows:
    """Turn windows `(batch, step, y, x, feature)` by quarter turns, then mirror them."""
    out = np.rot90(windows, turns, axes=(2, 3))
    return np.ascontiguousarray(out[:, :, :, ::-1] if mirrored else out)


def _turned_back(result: NDArray[np.float32], turns: int, mirrored: bool) -> NDArray[np.float32]:
    """Undo `_turned` on `(batch, y, x, class)`."""
    return np.rot90(result[:, :, ::-1] if mirrored else result, -turns, axes=(1, 2))


def _seeds(seed: int, number: int, symmetry: int, places: Sequence[Place]) -> NDArray[np.uint64]:
    """Return one seed per window."""
    sequences = (np.random.SeedSequence((seed, number, symmetry, *place)) for place in places)
    return np.concatenate([sequence.generate_state(1, np.uint64) for sequence in sequences])
