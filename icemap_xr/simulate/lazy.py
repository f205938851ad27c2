"""A simulated region as Dask arrays: one task per block of the simulation, so that a region of any size opens at once.

Names are made of the region's parameters and its blocks: the same region always has the same tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.simulate.acquisitions import Acquisition
from icemap_xr.simulate.noise import Float32Array
from icemap_xr.simulate.parameters import Surface
from icemap_xr.simulate.scatter import Scenery

if TYPE_CHECKING:
    from icemap_xr.simulate.simulated import SimulatedRegion


def truth_dataset(region: SimulatedRegion) -> xr.Dataset:
    """Return the lazy truth of a region; see `SimulatedRegion.truth`."""
    flags = {
        "flag_values": np.arange(len(Surface), dtype=np.uint8),
        "flag_meanings": " ".join(one.name.lower() for one in Surface),
    }
    cube, flat = (schema.YEAR, schema.Y, schema.X), (schema.Y, schema.X)
    fraction = _layers(region, "fraction", region.fraction, np.float32)
    surface = _layers(region, "surface", region.surface, np.uint8)
    glacier = _layer(region, "glacier_id", region.glacier_id, np.int32)
    dem = _layer(region, "dem", region.dem, np.float32)
    return xr.Dataset(
        {
            "glacier_fraction": (cube, fraction, {"units": "1", "long_name": "glacier share of the pixel"}),
            "surface": (cube, surface, {"long_name": "surface class at the pixel centre", **flags}),
            "glacier_id": (flat, glacier, {"long_name": "number of the glacier, 0 where no year has ice"}),
            "dem": (flat, dem, {"units": "m", "long_name": "elevation above sea"}),
        },
        coords={schema.YEAR: list(region.years), **region.grid.coords()},
    )


def model_view(region: SimulatedRegion, names: tuple[str, ...]) -> xr.Dataset:
    """Return the lazy model view of a region; see `SimulatedRegion.yearly`."""
    known = {name: region.acquisitions(name) for name in names}
    shape = (len(region.years), region.steps)
    views = _Views(region)
    out = xr.Dataset(coords={schema.YEAR: list(region.years), **region.grid.coords()})
    for name in names:
        spec = schema.feature(name)
        attrs = {"units": spec.units, "long_name": spec.long_name, "polarisation": region.polarisations[0]}
        out[name] = ((schema.YEAR, schema.STEP, schema.Y, schema.X), views.series(name, known[name]), attrs)
        times = np.array([np.datetime64(a.time.replace(tzinfo=None), "ns") for a in known[name]])
        out = out.assign_coords({spec.time: ((schema.YEAR, schema.STEP), times.reshape(shape))})
    return out


class _Views:
    """What the blocks look like, by year: worked out once for all features that are computed together."""

    def __init__(self, region: SimulatedRegion) -> None:
        self.region = region
        self.name = f"icemap-view-{_token(region)}"
        graph: dict[Any, Any] = {
            (self.name, k, i, j): (_look_from, region, year, rows, columns)
            for k, year in enumerate(region.years)
            for i, rows, j, columns in _blocks(region)
        }
        self.layer = HighLevelGraph.from_collections(self.name, graph, dependencies=())

    def series(self, feature: str, known: list[Acquisition]) -> da.Array:
        """Return `(year, step, y, x)` of a feature, all steps of a block in one task."""
        region = self.region
        name = f"icemap-simulated-{feature}-{_token(region)}"
        taken = [[one for one in known if one.year == year] for year in region.years]
        graph: dict[Any, Any] = {
            (name, k, 0, i, j): (_series, region, (self.name, k, i, j), steps)
            for k, steps in enumerate(taken)
            for i, _, j, _ in _blocks(region)
        }
        whole = HighLevelGraph({**self.layer.layers, name: graph}, {self.name: set(), name: {self.name}})
        chunks = ((1,) * len(taken), (region.steps,), *_sizes(region))
        return da.Array(whole, name, chunks, dtype=np.float32)


def _look_from(region: SimulatedRegion, year: int, rows: slice, columns: slice) -> Scenery:
    return region.view(year, rows, columns)


def _series(region: SimulatedRegion, view: Scenery, steps: list[Acquisition]) -> Float32Array:
    return np.stack([region.look(view, one) for one in steps])[None]


def _layers(
    region: SimulatedRegion, what: str, values: Callable[[int, slice, slice], NDArray[Any]], dtype: type[np.generic]
) -> da.Array:
    """Return `(year, y, x)`."""
    name = f"icemap-truth-{what}-{_token(region)}"
    graph: dict[Any, Any] = {
        (name, k, i, j): (_with_year, values, year, rows, columns)
        for k, year in enumerate(region.years)
        for i, rows, j, columns in _blocks(region)
    }
    layers = HighLevelGraph.from_collections(name, graph, dependencies=())
    return da.Array(layers, name, ((1,) * len(region.years), *_sizes(region)), dtype=dtype)


def _with_year(
    values: Callable[[int, slice, slice], NDArray[Any]], year: int, rows: slice, columns: slice
) -> NDArray[Any]:
    return values(year, rows, columns)[None]


def _layer(
    region: SimulatedRegion, what: str, values: Callable[[slice, slice], NDArray[Any]], dtype: type[np.generic]
) -> da.Array:
    """Return `(y, x)`."""
    name = f"icemap-truth-{what}-{_token(region)}"
    graph: dict[Any, Any] = {(name, i, j): (values, rows, columns) for i, rows, j, columns in _blocks(region)}
    layers = HighLevelGraph.from_collections(name, graph, dependencies=())
    return da.Array(layers, name, _sizes(region), dtype=dtype)


def _blocks(region: SimulatedRegion) -> list[tuple[int, slice, int, slice]]:
    down, across = region.spans()
    return [(i, rows, j, columns) for i, rows in enumerate(down) for j, columns in enumerate(across)]


def _sizes(region: SimulatedRegion) -> tuple[tuple[int, ...], tuple[int, ...]]:
    down, across = (tuple(span.stop - span.start for span in spans) for spans in region.spans())
    return down, across


def _token(region: SimulatedRegion) -> str:
    """Return what names the region's tasks: all its parameters, and its blocks."""
    box = region.grid.geobox
    plain = [str(getattr(region, one.name)) for one in fields(region) if one.name != "grid"]
    # str of a float or of a dataclass of floats is exact; that of a grid is not
    return str(tokenize(plain, region.grid.crs, tuple(box.transform), tuple(box.shape), _sizes(region)))
