"""How good a model is on labelled tiles: scores, reliability, block errors. Memory does not grow with the tiles."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import InputError, ModelMismatchError, OutputExistsError
from icemap_xr.kernels.blend import blend_block
from icemap_xr.kernels.blocks import block_sums
from icemap_xr.kernels.infer import Infer
from icemap_xr.kernels.reliability import bin_sums
from icemap_xr.kernels.windows import WindowGrid
from icemap_xr.training.scores import Evaluation, Reliability, Scores
from icemap_xr.training.tiles import Tile
from icemap_xr.types import Calibrator, Predictor, StrPath

log = logging.getLogger(__name__)

Float32Array = NDArray[np.float32]
TileEdges = Literal["published", "valid", "full"]


class FullWindows(WindowGrid):
    """Windows that do not reach past the region, all with the same weight, whatever of them was observed.

    Of the published evaluation, whose padded tiles hold whole numbers of strides. Where they do not, a last window that
    ends at the tile's edge is added.
    """

    def _last(self, axis: int) -> int:
        return max(0, self.region[axis] - self.window)


def evaluate(
    predictor: Predictor,
    tiles: Iterable[Tile],
    *,
    overlap: float = 0.5,
    edges: TileEdges = "published",
    bins: int = 100,
    block_px: int | None = None,
    calibrator: Calibrator | None = None,
    batch_size: int | None = None,
    probabilities: StrPath | None = None,
    skip_unknown: bool = False,
    on_tile: Callable[[str, Scores | None], None] | None = None,
) -> Evaluation:
    """Map every tile as `icemap_xr.predict` maps a region, and compare with its labels.

    Parameters
    ----------
    predictor
        The model.
    tiles
        Labelled tiles, held one at a time if they come from a generator or a file.
    overlap
        Share of a window that overlaps with the next, 0 to below 1.
    edges
        ``"published"`` and ``"valid"``: as `icemap_xr.predict`. ``"full"``: as the published program judges tiles, with
        windows that do not reach past the tile and its padding, all of the same weight. Where all of a tile was
        observed ``"valid"`` is the same.
    bins
        Bins of the reliability table.
    block_px
        Side in pixels of the blocks whose errors are taken; blocks cut by the tile's edge or with an unknown or
        unobserved pixel are left out.
    calibrator
        Judged beside the model's own probability, and used for block errors.
    batch_size
        Windows per call of the model; by default about the pixels of one window of 384.
    probabilities
        HDF5 file for the probabilities, in the published layout: one group per tile with `probs (y, x, class)`. It
        gets its name when it is whole.
    skip_unknown
        Leave out tiles without a pixel that is both labelled and observed, and name them, instead of refusing them.
    on_tile
        Called with name and scores of each tile; None for one that was left out.

    Raises
    ------
    InputError
        There is no tile, two have the same name, or a tile does not fit the model or has no known pixel.
    OutputExistsError
        The file for the probabilities exists.
    """
    judge = Judge(predictor, overlap, bins, block_px, calibrator, batch_size, skip_unknown, edges)
    for _ in judge.pairs(tiles, probabilities, on_tile):
        pass
    return judge.result()


class Judge:
    """An evaluation under way; see `evaluate` for the parameters.

    It also hands out what it sees, so that a calibrator can be fitted to the same maps without making them again.
    """

    def __init__(
        self,
        predictor: Predictor,
        overlap: float = 0.5,
        bins: int = 100,
        block_px: int | None = None,
        calibrator: Calibrator | None = None,
        batch_size: int | None = None,
        skip_unknown: bool = False,
        edges: TileEdges = "published",
    ) -> None:
        self.predictor, self.overlap, self.batch_size, self.edges = predictor, overlap, batch_size, edges
        self.skip_unknown = skip_unknown
        self._tally = _Tally(predictor, bins, block_px, calibrator)

    def pairs(
        self,
        tiles: Iterable[Tile],
        probabilities: StrPath | None = None,
        on_tile: Callable[[str, Scores | None], None] | None = None,
    ) -> Iterator[tuple[Float32Array, Float32Array]]:
        """Judge the tiles and yield of each the probability and true share of glacier `(y, x)`; NaN where unknown."""
        tally = self._tally
        with ExitStack() as stack:
            file = None if probabilities is None else stack.enter_context(_appearing_file(Path(probabilities)))
            for tile in tiles:
                if tile.name in tally.scores or tile.name in tally.skipped:
                    raise InputError(f"two tiles are named {tile.name!r}: give each its own name")
                found, labels = predict_tile(
                    self.predictor, tile, overlap=self.overlap, edges=self.edges, batch_size=self.batch_size
                )
                if file is not None:
                    file.create_dataset(f"{tile.name}/probs", data=np.moveaxis(found, 0, -1))
                if self.skip_unknown and not _known(found, labels).any():
                    log.warning("%s has no pixel that is both labelled and observed: it is left out", tile.name)
                    tally.skipped.append(tile.name)
                else:
                    yield tally.add(tile.name, found, labels)
                if on_tile is not None:
                    on_tile(tile.name, tally.scores.get(tile.name))

    def result(self) -> Evaluation:
        """Return what all tiles together say."""
        return self._tally.result(self.overlap, self.edges)


class _Tally:
    """Sums over the tiles seen so far."""

    def __init__(self, predictor: Predictor, bins: int, block_px: int | None, calibrator: Calibrator | None) -> None:
        self.spec, self.block_px, self.calibrator = predictor.spec, block_px, calibrator
        self.scores: dict[str, Scores] = {}
        self.errors: dict[str, tuple[float, ...]] = {}
        self.skipped: list[str] = []
        self.raw, self.calibrated = np.zeros((3, bins)), np.zeros((3, bins))

    def add(self, name: str, found: Float32Array, labels: Float32Array) -> tuple[Float32Array, Float32Array]:
        """Add a tile; return the model's probability and the true share of glacier."""
        glacier, bins = self.spec.glacier_index, self.raw.shape[1]
        self.scores[name] = score(found, labels, glacier, name)
        own, reference = glacier_pair(found, labels, glacier)
        probability = own
        self.raw += bin_sums(own, reference, bins)
        if self.calibrator is not None:
            probability = self.calibrator(probability)
            self.calibrated += bin_sums(probability, reference, bins)
        if self.block_px is not None:
            self.errors[name] = block_errors(probability, reference, self.block_px)
        return own, reference

    def result(self, overlap: float, edges: TileEdges) -> Evaluation:
        """Return what all tiles together say."""
        if not self.scores:
            left_out = f" ({len(self.skipped)} without a known pixel were left out)" if self.skipped else ""
            raise InputError(f"there is no tile to evaluate on{left_out}: give at least one")
        return Evaluation(
            self.spec.name,
            self.spec.digest,
            overlap,
            self.scores,
            sum(self.scores.values(), Scores()),
            Reliability.of(self.raw),
            None if self.calibrator is None else Reliability.of(self.calibrated),
            self.block_px,
            self.errors,
            tuple(self.skipped),
            edges,
        )


def predict_tile(
    predictor: Predictor,
    tile: Tile,
    *,
    overlap: float = 0.5,
    edges: TileEdges = "published",
    batch_size: int | None = None,
) -> tuple[Float32Array, Float32Array]:
    """Map one tile with the windows and weights of `icemap_xr.predict`.

    Parameters
    ----------
    predictor
        The model.
    tile
        The tile; it is taken as a region of its own.
    overlap, edges, batch_size
        As in `evaluate`.

    Returns
    -------
    probability, labels
        `(class, y, x)` float32, NaN where nothing was observed, and `(y, x, class)` float32, both without padding.

    Raises
    ------
    InputError
        An option is out of range, or the tile does not fit the model.
    """
    spec = predictor.spec
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap} is not allowed: give a share from 0 up to, not including, 1")
    if edges not in get_args(TileEdges):
        raise InputError(f"edges={edges!r} is not allowed: choose from {', '.join(get_args(TileEdges))}")
    if len(spec.inputs) != 1:
        raise ModelMismatchError(f"{spec.name!r} has {len(spec.inputs)} inputs: tiles serve models with one")
    names = spec.inputs[0].feature_names
    tile.check(spec.features, spec.steps, len(spec.classes))
    stride = max(1, round(spec.window * (1 - overlap)))
    rows, columns = (slice(0, size) for size in tile.shape)
    if edges == "full":
        windows: WindowGrid = FullWindows(spec.window, stride, tile.shape)
    else:
        windows = WindowGrid(spec.window, stride, tile.shape, edges=edges)
    probability = blend_block(
        partial(tile.scenes, names),
        Infer(predictor),
        windows,
        rows,
        columns,
        classes=len(spec.classes),
        batch_size=batch_size or max(1, (384 // spec.window) ** 2),
    )
    return probability[:, *tile.inside], tile.shares(*tile.inside)


def glacier_pair(probability: Float32Array, labels: Float32Array, glacier: int) -> tuple[Float32Array, Float32Array]:
    """Return probability and true share of glacier, `(y, x)`; NaN where one is unknown."""
    known = (labels.sum(axis=-1) > 0) & np.isfinite(probability[glacier])
    nothing = np.float32(np.nan)
    return np.where(known, probability[glacier], nothing), np.where(known, labels[..., glacier], nothing)


def score(probability: Float32Array, labels: Float32Array, glacier: int, name: str = "the tile") -> Scores:
    """Count pixels by the likeliest class against the class with the largest share.

    Parameters
    ----------
    probability
        `(class, y, x)`; NaN is not counted.
    labels
        `(y, x, class)`; pixels without any share are not counted.
    glacier
        Number of the glacier class.
    name
        Name for the message.

    Raises
    ------
    InputError
        No pixel is both labelled and observed.
    """
    known = _known(probability, labels)
    if not known.any():
        raise InputError(f"{name!r} has no pixel that is both labelled and observed: leave it out")
    true = labels.argmax(axis=-1)[known] == glacier
    found = probability.argmax(axis=0)[known] == glacier
    counts = (true & found, ~true & ~found, ~true & found, true & ~found)
    return Scores(*(int(np.count_nonzero(one)) for one in counts))


def _known(probability: Float32Array, labels: Float32Array) -> NDArray[np.bool_]:
    """Return which pixels are both labelled and observed."""
    known: NDArray[np.bool_] = (labels.sum(axis=-1) > 0) & np.isfinite(probability).all(axis=0)
    return known


def block_errors(probability: Float32Array, reference: Float32Array, block_px: int) -> tuple[float, ...]:
    """Return prediction minus reference of each whole block, as a fraction of the block's area.

    Parameters
    ----------
    probability, reference
        Probability and true share of glacier `(y, x)`, NaN in the same places.
    block_px
        Block side in pixels; blocks begin at the upper left corner.
    """
    if block_px < 1:
        raise InputError(f"a block of {block_px} pixels is not allowed: give at least 1 pixel")
    sums = block_sums(np.stack([probability, reference]), (0, 0), block_px)
    whole = sums.observed[0] == block_px**2
    differences = (sums.ice[0] - sums.ice[1])[whole] / block_px**2
    return tuple(float(one) for one in differences)


@contextmanager
def _appearing_file(path: Path) -> Iterator[h5py.File]:
    """Give an HDF5 file that gets its name when all went well."""
    if path.exists():
        raise OutputExistsError(f"{path} exists already: give another file or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_file = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with h5py.File(partial_file, "x") as file:
            yield file
        os.replace(partial_file, path)
    finally:
        partial_file.unlink(missing_ok=True)
