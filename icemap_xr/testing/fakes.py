"""A cheap Predictor that depends on its whole window, and datasets to run it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox

from icemap_xr import schema
from icemap_xr.grid import RegionGrid
from icemap_xr.types import Batch, FeatureSpec, InputSpec, ModelSpec


@dataclass(frozen=True)
class FakePredictor:
    """A Predictor without weights whose output at a pixel depends on the pixel, its place and the window's mean.

    Like the time-weighted network it pools over its window, so a window in the wrong place or with the wrong context
    gives another number.

    Parameters
    ----------
    window
        Window side in pixels.
    steps
        Scenes per year.
    features
        Feature names.
    """

    window: int = 16
    steps: int = 3
    features: tuple[str, ...] = ("grd", "insar")

    @property
    def spec(self) -> ModelSpec:
        """A specification with the published scaling of the features."""
        known = (schema.feature(name) for name in self.features)
        specs = tuple(FeatureSpec(one.name, one.minimum, one.maximum, one.units) for one in known)
        return ModelSpec(
            name="fake",
            inputs=(InputSpec("inputs", specs),),
            steps=self.steps,
            window=self.window,
            classes=("not_glacier", "glacier"),
            glacier_class="glacier",
            digest="0" * 64,
            note="no weights: a fake for tests",
        )

    def with_window(self, window: int) -> FakePredictor:
        """Return the same for windows of another side."""
        return replace(self, window=window)

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Map `(batch, step, y, x, feature)` to `(batch, y, x, 2)`."""
        assert isinstance(batch, np.ndarray)
        assert batch.shape[1:] == (self.steps, self.window, self.window, len(self.features)), batch.shape
        # one by one: NumPy sums a window in another order when there are others beside it
        glacier = np.stack([self._glacier(window) for window in batch])
        return np.stack([1 - glacier, glacier], axis=-1).astype(np.float32)

    def sample(self, batch: Batch, seeds: NDArray[np.uint64], rate: float, /) -> NDArray[np.float32]:
        """Map a batch with some of the steps and features dropped in each window, as its seed says."""
        assert isinstance(batch, np.ndarray)
        assert seeds.shape == (len(batch),)
        assert seeds.dtype == np.uint64
        dropped = batch.copy()
        for window, seed in zip(dropped, seeds, strict=True):
            kept = np.random.default_rng(int(seed)).random((self.steps, 1, 1, len(self.features))) >= rate
            window *= (kept / (1 - rate)).astype(np.float32)
        return self(dropped)

    def _glacier(self, window: NDArray[np.float32]) -> NDArray[np.float64]:
        # each step and feature counts differently, so that mixing them up is seen
        weights = np.linspace(0.5, 1.5, self.steps * len(self.features)).reshape(self.steps, 1, 1, -1)
        pixel = (window * weights).mean(axis=(0, 3))
        ramp = np.linspace(-1, 1, self.window)
        place = 0.3 * ramp[:, None] - 0.2 * ramp[None, :]
        glacier: NDArray[np.float64] = 1 / (1 + np.exp(-(4 * pixel - 3 * pixel.mean() + place)))
        return glacier


@dataclass(frozen=True)
class CountingPredictor:
    """A fake that notes how many windows each call brought.

    Parameters
    ----------
    model
        What answers.
    batches
        Windows of each call so far.
    """

    model: FakePredictor
    batches: list[int] = field(default_factory=list)

    @property
    def spec(self) -> ModelSpec:
        """The model's."""
        return self.model.spec

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Note the windows and answer."""
        self.batches.append(len(batch))
        return self.model(batch)


def small_grid(shape: tuple[int, int], *, resolution: float = 10.0, crs: str = "EPSG:32633") -> RegionGrid:
    """Return a grid of some shape near Svalbard."""
    transform = Affine(resolution, 0, 500_000, 0, -resolution, 8_700_000)
    return RegionGrid(GeoBox(shape, transform, crs))


def yearly_dataset(
    shape: tuple[int, int],
    *,
    years: Sequence[int] = (2020,),
    steps: int = 3,
    features: Sequence[str] = ("grd", "insar"),
    seed: int = 0,
    resolution: float = 10.0,
) -> xr.Dataset:
    """Return a model view `(year, step, y, x)` of smooth random values in each feature's units."""
    rng = np.random.default_rng(seed)
    ds = xr.Dataset(coords={schema.YEAR: list(years), **small_grid(shape, resolution=resolution).coords()})
    for name in features:
        one = schema.feature(name)
        noise = rng.normal(size=(len(years), steps, *shape)).astype(np.float32)
        values = -12 + 3 * noise if one.units == "dB" else 1 / (1 + np.exp(-noise))
        ds[name] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), values.astype(np.float32), {"units": one.units})
    return ds
