"""Labelled tiles: what networks are trained and judged on, whatever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.errors import InputError
from icemap_xr.simulate import SimulatedRegion
from icemap_xr.types import FeatureSpec

#: the published program sets scaled values above this to 0
SCALED_LIMIT = np.float32(100.0)
#: pixel size of the published tiles, m
RESOLUTION = 10.0
#: side of the blocks in which a tile is searched for a known pixel
_SEARCHED = 256


class Layers(Protocol):
    """A stack of maps that is read block by block: a numpy array, or something that reads from a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape; the first axis is time for scenes and y for labels."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return a block as numpy would."""
        ...


@dataclass(frozen=True, eq=False)
class Tile:
    """One labelled piece of ground in one year.

    Parameters
    ----------
    name
        Name for messages and tables.
    features
        Features, and how their scenes are scaled.
    series
        By feature, scaled scenes `(time, y, x)`, NaN where nothing was observed; the whole native series.
    index
        By feature, the positions `(step,)` in the series that make up the year; -1 = no scene.
    labels
        Share of each class in each pixel `(y, x, class)`, one-hot or soft; all 0 where unknown.
    inside
        Rows and columns that count; what lies outside is padding.
    resolution
        Pixel size, m.

    Raises
    ------
    InputError
        The parts do not fit together.
    """

    name: str
    features: tuple[FeatureSpec, ...]
    series: Mapping[str, Layers]
    index: Mapping[str, NDArray[np.intp]]
    labels: Layers
    inside: tuple[slice, slice]
    resolution: float = RESOLUTION

    def __post_init__(self) -> None:
        if len(self.labels.shape) != 3:
            raise InputError(f"tile {self.name!r}: labels have shape {self.labels.shape}: give (y, x, class)")
        for name in (feature.name for feature in self.features):
            layers, index = self.series[name], self.index[name]
            if len(layers.shape) != 3 or layers.shape[1:] != self.shape:
                raise InputError(
                    f"tile {self.name!r}: {name} has shape {layers.shape}, needed is (time, {self.shape[0]}, "
                    f"{self.shape[1]}) as the labels"
                )
            if len(index) == 0 or index.min() < -1 or index.max() >= layers.shape[0]:
                raise InputError(
                    f"tile {self.name!r}: the index of {name} must hold positions from -1 to {layers.shape[0] - 1}"
                )
        if not 0 < self.resolution < np.inf:
            raise InputError(f"tile {self.name!r}: the pixel size is {self.resolution!r} m: give one above 0")
        for part, size in zip(self.inside, self.shape, strict=True):
            if not 0 <= part.start < part.stop <= size:
                raise InputError(f"tile {self.name!r}: {part} is no part of {size} pixels: check padding and size")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns, padding included."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    @property
    def classes(self) -> int:
        """Number of classes of the labels."""
        return int(self.labels.shape[2])

    def check(self, features: Sequence[FeatureSpec], steps: int, classes: int) -> None:
        """Raise `InputError` unless the tile has these features, scaled alike, and these steps and classes."""
        have = {feature.name: feature for feature in self.features}
        for wanted in features:
            name = wanted.name
            if name not in have:
                raise InputError(f"tile {self.name!r} has no {name}: it has {', '.join(have)}")
            low, high = have[name].minimum, have[name].maximum
            if not np.allclose((low, high), (wanted.minimum, wanted.maximum), rtol=1e-6, atol=0):
                raise InputError(
                    f"tile {self.name!r} has {name} scaled from {low:g} to {high:g} {wanted.units}, needed is "
                    f"{wanted.minimum:g} to {wanted.maximum:g}: use tiles and model of the same scaling"
                )
            if len(self.index[name]) != steps:
                raise InputError(f"tile {self.name!r} has {len(self.index[name])} steps of {name}, needed are {steps}")
        if self.classes != classes:
            raise InputError(f"tile {self.name!r} has labels of {self.classes} classes, needed are {classes}")

    def check_known(self, features: Sequence[str]) -> None:
        """Raise `InputError` if no pixel is both labelled and observed in all features.

        The tile is read block by block until a pixel is found, mostly one scene of one block.
        """
        rows, columns = self.inside
        blocks = [
            (slice(row, min(row + _SEARCHED, rows.stop)), slice(column, min(column + _SEARCHED, columns.stop)))
            for row in range(rows.start, rows.stop, _SEARCHED)
            for column in range(columns.start, columns.stop, _SEARCHED)
        ]
        # the middle first: what is not observed mostly lies at the edges
        middle = len(blocks) // 2
        if not any(self._known_in(features, *block) for block in (*blocks[middle:], *blocks[:middle])):
            raise InputError(f"tile {self.name!r} has no pixel that is both labelled and observed: leave it out")

    def _known_in(self, features: Sequence[str], rows: slice, columns: slice) -> bool:
        known = self.shares(rows, columns).sum(axis=-1) > 0
        for name in features:
            missing = known.copy()
            for step in sorted({int(k) for k in self.index[name] if k >= 0}):
                if not missing.any():
                    break
                missing &= ~np.isfinite(np.asarray(self.series[name][step, rows, columns]))
            known &= ~missing
        return bool(known.any())

    def scenes(
        self, features: Sequence[str], rows: slice, columns: slice, index: Mapping[str, NDArray[np.intp]] | None = None
    ) -> NDArray[np.float32]:
        """Read scaled values.

        Parameters
        ----------
        features
            Which features, in the order of the last axis.
        rows, columns
            The block; it must lie in the tile.
        index
            Positions in the series to read instead of the year's own.

        Returns
        -------
        ndarray
            `(step, y, x, feature)` float32; NaN where nothing was observed.
        """
        chosen = self.index if index is None else index
        nothing = np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        layers = []
        for name in features:
            found = {k: self.series[name][k, rows, columns] for k in set(chosen[name].tolist()) if k >= 0}
            layers.append([found.get(k, nothing) for k in chosen[name].tolist()])
        return np.stack([np.stack(layer).astype(np.float32) for layer in layers], axis=-1)

    def shares(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Read labels of a block, `(y, x, class)` float32; all 0 in the padding."""
        out = np.asarray(self.labels[rows, columns], np.float32).copy()
        for axis, (block, part) in enumerate(zip((rows, columns), self.inside, strict=True)):
            outside = np.ones(block.stop - block.start, bool)
            outside[max(part.start - block.start, 0) : max(part.stop - block.start, 0)] = False
            out[(slice(None),) * axis + (outside,)] = 0
        return out


def observed_or_zero(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Set what was not observed to 0: NaN, infinities, and values above 100 as in the published program."""
    return np.where(np.isfinite(values) & (values <= SCALED_LIMIT), values, np.float32(0))


def simulated_tiles(
    region: SimulatedRegion, features: Sequence[FeatureSpec], *, dtype: type[np.floating[Any]] = np.float16
) -> list[Tile]:
    """Return a simulated region as tiles in memory, one per year.

    Parameters
    ----------
    region
        The region; its glacier shares are exact, so the labels are soft at glacier edges.
    features
        Features and how they are scaled.
    dtype
        How scenes are kept; float16 rounds scaled values by up to 2.5e-4 (0.05 dB), far below speckle.

    Returns
    -------
    list of Tile
        Named ``sim-<seed>_<year>``; classes are not-glacier and glacier.
    """
    cover = region.truth()["glacier_fraction"].values
    whole = (slice(0, region.grid.shape[0]), slice(0, region.grid.shape[1]))
    tiles = []
    for row, year in enumerate(region.years):
        series = {f.name: f.scale(region.year_series(f.name, year)).astype(dtype) for f in features}
        index = {name: np.arange(len(values), dtype=np.intp) for name, values in series.items()}
        labels = np.stack([1 - cover[row], cover[row]], axis=-1).astype(np.float32)
        name = f"sim-{region.seed}_{year}"
        tiles.append(Tile(name, tuple(features), series, index, labels, whole, region.grid.resolution))
    return tiles


def feature_specs(
    names: Sequence[str], scaling: Mapping[str, tuple[float, float]] | None = None
) -> tuple[FeatureSpec, ...]:
    """Return features with how they are scaled.

    Parameters
    ----------
    names
        Names of features.
    scaling
        Values in the feature's units that become 0 and 1; those of the published networks where not given.

    Raises
    ------
    SchemaError
        There is no such feature.
    InputError
        A range is empty, or of a feature that is not used.
    """
    given = dict(scaling or {})
    specs = []
    for name in names:
        one = schema.feature(name)
        low, high = given.pop(name, (one.minimum, one.maximum))
        if not low < high:
            raise InputError(f"scaling of {name} is {low} to {high}: give a lower and an upper value in {one.units}")
        specs.append(FeatureSpec(name, low, high, one.units))
    if given:
        raise InputError(f"scaling is given for {', '.join(given)}, features are {', '.join(names)}: make them agree")
    return tuple(specs)
