"""How output blocks get their data and are put together: from the store, from lazy arrays, or in memory.

Block edges come from the region's grid and the stride alone, never from an input's chunks. In each process one block
computes at a time while another reads: a model uses the whole processor or GPU anyway, and with two threads per worker
the first read of a block costs no time.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise, product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from dask.base import tokenize
from dask.delayed import delayed
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray
from shapely import box, from_wkb

from icemap_xr import schema, store
from icemap_xr.burning import rasterize
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.blend import READ_ROWS, blend_block
from icemap_xr.kernels.infer import Dropout, Infer, Tta
from icemap_xr.kernels.windows import WindowGrid
from icemap_xr.metrics import count
from icemap_xr.placing import AT_WORK, PREDICT
from icemap_xr.plausible import check_values, checked_answer
from icemap_xr.types import Batch, FeatureSpec, Predictor, SamplingPredictor
from icemap_xr.yearindex import Gaps, fill_gaps, yearly

#: output blocks have the side of a whole number of strides near this many pixels
BLOCK_TARGET = 3072

#: held by the block of this process that computes
_LANE = threading.Lock()
#: held by the blocks of this process that hold data
_IN_WORK = threading.BoundedSemaphore(AT_WORK)


@dataclass(frozen=True)
class Blocks:
    """Edges of the output blocks in region pixels: multiples of the block side, cut to what the dataset holds."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, grid: RegionGrid, stride: int) -> Blocks:
        """Return the blocks of a grid for a stride."""
        side = block_side(stride)
        edges = []
        for offset, size in zip(grid.offset, grid.shape, strict=True):
            inner = range((offset // side + 1) * side, offset + size, side)
            edges.append((offset, *inner, offset + size))
        return cls(*edges)

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Block sizes along y and x."""
        rows, columns = (tuple(b - a for a, b in pairwise(edges)) for edges in (self.rows, self.columns))
        return rows, columns

    def slices(self, i: int, j: int) -> tuple[slice, slice]:
        """Return rows and columns of block (i, j), in region pixels."""
        return slice(self.rows[i], self.rows[i + 1]), slice(self.columns[j], self.columns[j + 1])


def block_side(stride: int) -> int:
    """Return the side of output blocks in pixels: a whole number of strides."""
    return max(1, BLOCK_TARGET // stride) * stride


def rows_at_once(chunk_rows: int) -> int:
    """Return how many rows are read in one go from chunks of that many rows."""
    return READ_ROWS // chunk_rows * chunk_rows if chunk_rows <= READ_ROWS else READ_ROWS


@dataclass(frozen=True)
class YearReader:
    """Reads scaled values of one year; arrays are `(time, y, x)` and hold the region from `offset` on."""

    features: tuple[FeatureSpec, ...]
    arrays: tuple[Any, ...]
    indices: tuple[tuple[int, ...], ...]
    offset: tuple[int, int]

    def __call__(self, rows: slice, columns: slice) -> NDArray[np.float32]:
        """Return `(step, y, x, feature)` float32; what lies outside the arrays is NaN."""
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        out = np.full((len(self.indices[0]), *shape, len(self.features)), np.nan, np.float32)
        source: tuple[slice, ...] = ()
        target: tuple[slice, ...] = ()
        for part, offset, size in zip((rows, columns), self.offset, self.arrays[0].shape[1:], strict=True):
            begin, end = max(part.start, offset), min(part.stop, offset + size)
            if begin >= end:
                return out
            source += (slice(begin - offset, end - offset),)
            target += (slice(begin - part.start, end - part.start),)
        for layer, (spec, array, index) in enumerate(zip(self.features, self.arrays, self.indices, strict=True)):
            for k in (k for k in set(index) if k >= 0):
                raw = np.asarray(array[(k, *source)])
                check_values(spec.name, raw)
                scene = spec.scale(raw)
                for step in (step for step, one in enumerate(index) if one == k):
                    out[step, target[0], target[1], layer] = scene
        return out

    def cuts(self, stop: int) -> range:
        """Return the rows, up to `stop`, at which reading is cut so that no chunk of the source is decoded twice.

        Small chunks are read several at a time, and chunks of more than `READ_ROWS` rows in parts, to bound memory.
        """
        return range(self.offset[0], stop, rows_at_once(getattr(self.arrays[0], "chunk_rows", 1)))


@dataclass(frozen=True)
class Job:
    """All that a block needs besides its data; small, and the same on every worker."""

    model: Predictor
    windows: WindowGrid
    blocks: Blocks
    batch_size: int
    all_classes: bool
    aoi: bytes | None
    transform: Affine
    tta: Tta | None = None
    dropout: Dropout | None = None
    precision: str = "float32"

    @property
    def classes(self) -> tuple[int, ...]:
        """Classes of the result."""
        spec = self.model.spec
        return tuple(range(len(spec.classes))) if self.all_classes else (spec.glacier_index,)

    @property
    def class_axis(self) -> tuple[int, ...]:
        """Length of the result's axis of classes and, after them, the glacier's spread; none for one layer alone."""
        layers = len(self.classes) + (self.dropout is not None)
        return () if layers == 1 else (layers,)

    def token(self, *more: Any) -> str:
        """Return a deterministic name for the result."""
        parts = (self._identity(), self.windows, self.blocks, self.aoi, tuple(self.transform), self.all_classes)
        return str(tokenize(*parts, self.tta, self.dropout, *more))

    def _identity(self) -> Any:
        """Return what the model is named by: itself if it says how, else its class, specification and precision.

        Of its attributes only the compared fields of a dataclass count: a network that is built at the first call
        changes the others, and an object of a class in a script pickles to other bytes in each process, so that an
        interrupted store could never be finished.
        """
        if hasattr(self.model, "__dask_tokenize__"):
            return self.model
        kind = type(self.model)
        settings: dict[str, Any] = {}
        if is_dataclass(self.model):
            settings = {one.name: getattr(self.model, one.name) for one in fields(self.model) if one.compare}
        return kind.__module__, kind.__qualname__, self.model.spec, self.precision, settings

    def block(self, read: YearReader, i: int, j: int, wanted: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Predict block (i, j): `(1[, class], y, x)`."""
        rows, columns = self.blocks.slices(i, j)
        with _IN_WORK:
            values = blend_block(
                read,
                self._infer(),
                self.windows,
                rows,
                columns,
                classes=len(self.classes),
                batch_size=self.batch_size,
                wanted=self.wanted(rows, columns, wanted),
                spread_of=None if self.dropout is None else self.classes.index(self.model.spec.glacier_index),
                cuts=read.cuts(self.windows.reach(rows.start, rows.stop, 0).stop),
                lane=_LANE,
            )
        return values[None] if self.class_axis else values

    def _infer(self) -> Infer:
        model = self.model

        def forward(windows: NDArray[np.float32]) -> NDArray[np.float32]:
            count("windows", len(windows))
            return checked_answer(model(self._named(windows)), windows, model.spec)

        def sample(windows: NDArray[np.float32], seeds: NDArray[np.uint64], rate: float) -> NDArray[np.float32]:
            assert isinstance(model, SamplingPredictor)
            count("windows", len(windows))
            return checked_answer(model.sample(self._named(windows), seeds, rate), windows, model.spec)

        return Infer(forward, sample, self.tta, self.dropout, self.classes)

    def _named(self, windows: NDArray[np.float32]) -> Batch:
        """Return windows as the model takes them: an array per input where it has several."""
        inputs = self.model.spec.inputs
        if len(inputs) == 1:
            return windows
        ends = np.cumsum([len(one.features) for one in inputs])[:-1]
        parts = np.split(windows, ends, axis=-1)
        return {one.name: part for one, part in zip(inputs, parts, strict=True)}

    def wanted(self, rows: slice, columns: slice, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        """Return which pixels of a block are in the area of interest and in the mask's part; None for all."""
        if self.aoi is None:
            return mask
        row0, column0 = self.blocks.rows[0], self.blocks.columns[0]
        corner = self.transform * Affine.translation(columns.start - column0, rows.start - row0)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        area = from_wkb(self.aoi)
        # most blocks of a large region lie outside, and drawing a mask costs 50 times this test
        if not area.intersects(box(*corner * (0, shape[0]), *corner * (shape[1], 0))):
            return np.zeros(shape, bool)
        inside = rasterize([area], shape, transform=corner, dtype="uint8").astype(bool)
        return inside if mask is None else inside & mask


def run(ds: xr.Dataset, job: Job, wanted: Any, gaps: Gaps) -> Any:
    """Choose how blocks get their data: from the store, from lazy arrays, or from memory."""
    features = job.model.spec.features
    offset = (job.blocks.rows[0], job.blocks.columns[0])
    if schema.is_native(ds):
        sources = [store.untouched(ds[f.name].data) for f in features]
        if all(source is not None for source in sources):
            return _from_store(_readers(ds, job, sources, gaps, offset), job, wanted)
        ds = yearly(ds, features=[f.name for f in features], gaps=gaps)
    arrays = [ds[f.name].transpose(schema.YEAR, schema.STEP, schema.Y, schema.X).data for f in features]
    if any(isinstance(array, da.Array) for array in (*arrays, wanted)):
        return _from_arrays([da.asarray(array) for array in arrays], job, wanted, offset)
    return _in_memory(arrays, job, wanted, offset)


def _readers(
    ds: xr.Dataset, job: Job, sources: Sequence[Any], gaps: Gaps, offset: tuple[int, int]
) -> tuple[YearReader, ...]:
    features = job.model.spec.features
    years = [int(year) for year in ds[schema.YEAR].values]
    tables = [fill_gaps(ds[schema.feature(f.name).index].values, gaps, feature=f.name, years=years) for f in features]
    return tuple(
        YearReader(features, tuple(sources), tuple(tuple(map(int, t[row])) for t in tables), offset)
        for row in range(len(years))
    )


def _from_store(readers: tuple[YearReader, ...], job: Job, wanted: Any) -> da.Array:
    """One task per block, which reads the store itself."""
    chunks = _chunks(job, len(readers))
    name = f"{PREDICT}{job.token(readers, wanted)}"
    mask = None if wanted is None else da.asarray(wanted).rechunk(job.blocks.chunks)
    classes = (0,) * len(job.class_axis)
    graph: dict[Any, Any] = {}
    # plain tuples: da.map_blocks builds Job and readers anew for every task, 0.3 ms each
    for year, reader in enumerate(readers):
        predict_block = _StoreBlock(job, reader)
        for i, j in product(*(range(len(sizes)) for sizes in job.blocks.chunks)):
            part = () if mask is None else ((mask.name, i, j),)
            graph[(name, year, *classes, i, j)] = (predict_block, i, j, *part)
    layers = HighLevelGraph.from_collections(name, graph, dependencies=() if mask is None else (mask,))
    return da.Array(layers, name, chunks, dtype=np.float32)


@dataclass(frozen=True)
class _StoreBlock:
    """Predicts blocks of one year; all tasks of the year share it."""

    job: Job
    reader: YearReader

    def __call__(self, i: int, j: int, wanted: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        return self.job.block(self.reader, i, j, wanted)


def _from_arrays(arrays: Sequence[da.Array], job: Job, wanted: Any, offset: tuple[int, int]) -> da.Array:
    """Each block gets its own slice, halo included, of the lazy arrays."""
    token = job.token(*arrays, wanted)
    rows, columns = (range(len(sizes)) for sizes in job.blocks.chunks)
    nested = [
        [[_array_block(arrays, job, wanted, offset, (year, i, j), token) for j in columns] for i in rows]
        for year in range(arrays[0].shape[0])
    ]
    return da.block([[one] for one in nested] if job.class_axis else nested)


def _array_block(
    arrays: Sequence[da.Array], job: Job, mask: Any, offset: tuple[int, int], index: tuple[int, int, int], token: str
) -> da.Array:
    year, i, j = index
    block = job.blocks.slices(i, j)
    reach = [job.windows.reach(part.start, part.stop, axis) for axis, part in enumerate(block)]
    sides = zip(reach, offset, arrays[0].shape[2:], strict=True)
    local = tuple(slice(max(part.start - o, 0), min(part.stop - o, size)) for part, o, size in sides)
    origin = (local[0].start + offset[0], local[1].start + offset[1])
    part = None if mask is None else mask[_local(block, offset)]
    shape = (1, *job.class_axis, *(b.stop - b.start for b in block))
    name = f"{PREDICT}{token}-{year}-{i}-{j}"
    known = job.wanted(*block, None if isinstance(part, da.Array) else part)
    if known is not None and not known.any():
        return da.full(shape, np.nan, np.float32, name=name)
    task = delayed(_slice_block, pure=True)(
        [array[(year, slice(None), *local)] for array in arrays],
        part,
        job=job,
        origin=origin,
        index=(i, j),
        dask_key_name=f"{PREDICT}block-{token}-{year}-{i}-{j}",
    )
    return da.from_delayed(task, shape, np.float32, name=name)


def _slice_block(
    values: Sequence[NDArray[Any]], wanted: Any, *, job: Job, origin: tuple[int, int], index: tuple[int, int]
) -> NDArray[np.float32]:
    steps = tuple(range(values[0].shape[0]))
    features = job.model.spec.features
    reader = YearReader(features, tuple(values), (steps,) * len(features), origin)
    return job.block(reader, *index, wanted)


def _in_memory(arrays: Sequence[NDArray[Any]], job: Job, wanted: Any, offset: tuple[int, int]) -> NDArray[np.float32]:
    """Predict block after block, at once."""
    count = arrays[0].shape[0]
    out = np.empty(tuple(sum(sizes) for sizes in _chunks(job, count)), np.float32)
    steps = tuple(range(arrays[0].shape[1]))
    features = job.model.spec.features
    for year in range(count):
        reader = YearReader(features, tuple(a[year] for a in arrays), (steps,) * len(features), offset)
        for i, j in product(*(range(len(sizes)) for sizes in job.blocks.chunks)):
            local = _local(job.blocks.slices(i, j), offset)
            part = None if wanted is None else wanted[local]
            out[(slice(year, year + 1), ..., *local)] = job.block(reader, i, j, part)
    return out


def _chunks(job: Job, years: int) -> tuple[tuple[int, ...], ...]:
    return ((1,) * years, *((count,) for count in job.class_axis), *job.blocks.chunks)


def _local(block: tuple[slice, slice], offset: tuple[int, int]) -> tuple[slice, slice]:
    """Count a block from the dataset's corner instead of from the region's."""
    rows, columns = (slice(part.start - o, part.stop - o) for part, o in zip(block, offset, strict=True))
    return rows, columns
