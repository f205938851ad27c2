"""How output blocks get their data and are put together: from the store, from lazy arrays, or in memory.

Block edges come from the region's grid and the stride alone, never from an input's chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from dask.base import tokenize
from dask.delayed import delayed
from numpy.typing import NDArray
from rasterio.features import geometry_mask
from shapely import from_wkb

from icemap_xr import schema, store
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.blend import Read, blend_block
from icemap_xr.kernels.windows import WindowGrid
from icemap_xr.types import FeatureSpec, Predictor
from icemap_xr.yearindex import Gaps, fill_gaps, yearly

#: output blocks have the side of a whole number of strides near this many pixels
_BLOCK_TARGET = 1536


@dataclass(frozen=True)
class Blocks:
    """Edges of the output blocks in region pixels: multiples of the block side, cut to what the dataset holds."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, grid: RegionGrid, stride: int) -> Blocks:
        """Return the blocks of a grid for a stride."""
        side = max(1, _BLOCK_TARGET // stride) * stride
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
            scenes = {k: spec.scale(np.asarray(array[(k, *source)])) for k in set(index) if k >= 0}
            for step, k in enumerate(index):
                if k >= 0:
                    out[step, target[0], target[1], layer] = scenes[k]
        return out


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

    @property
    def class_axis(self) -> tuple[int, ...]:
        """Length of the class axis of the result, if it has one."""
        return (len(self.model.spec.classes),) if self.all_classes else ()

    def token(self, *more: Any) -> str:
        """Return a deterministic name for the result."""
        parts = (self.model, self.windows, self.blocks, self.aoi, tuple(self.transform), self.all_classes)
        return str(tokenize(*parts, *more))

    def block(self, read: Read, i: int, j: int, wanted: NDArray[np.bool_] | None) -> NDArray[np.float32]:
        """Predict block (i, j): `(1[, class], y, x)`."""
        rows, columns = self.blocks.slices(i, j)
        spec = self.model.spec
        values = blend_block(
            read,
            self._infer,
            self.windows,
            rows,
            columns,
            classes=len(spec.classes),
            batch_size=self.batch_size,
            wanted=self._wanted(rows, columns, wanted),
        )
        return values[None] if self.all_classes else values[spec.glacier_index][None]

    def _infer(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = self.model.spec.inputs
        if len(inputs) == 1:
            return self.model(batch)
        ends = np.cumsum([len(one.features) for one in inputs])[:-1]
        parts = np.split(batch, ends, axis=-1)
        return self.model({one.name: part for one, part in zip(inputs, parts, strict=True)})

    def _wanted(self, rows: slice, columns: slice, mask: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
        if self.aoi is None:
            return mask
        row0, column0 = self.blocks.rows[0], self.blocks.columns[0]
        corner = self.transform * Affine.translation(columns.start - column0, rows.start - row0)
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        inside: NDArray[np.bool_] = geometry_mask([from_wkb(self.aoi)], shape, corner, invert=True)
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
    shape = tuple(sum(sizes) for sizes in chunks)
    masks = []
    if wanted is not None:
        masks = [da.broadcast_to(da.asarray(wanted).rechunk(job.blocks.chunks), shape, chunks=chunks)]
    return da.map_blocks(
        _store_block,
        *masks,
        job=job,
        readers=readers,
        chunks=chunks,
        dtype=np.float32,
        meta=np.empty((0,) * len(chunks), np.float32),
        name=f"icemap-predict-{job.token(readers, wanted)}",
    )


def _store_block(
    *masks: NDArray[np.bool_], job: Job, readers: tuple[YearReader, ...], block_id: tuple[int, ...]
) -> NDArray[np.float32]:
    wanted = masks[0].reshape(-1, *masks[0].shape[-2:])[0] if masks else None
    return job.block(readers[block_id[0]], block_id[-2], block_id[-1], wanted)


def _from_arrays(arrays: Sequence[da.Array], job: Job, wanted: Any, offset: tuple[int, int]) -> da.Array:
    """Each block gets its own slice, halo included, of the lazy arrays."""
    token = job.token(*arrays, wanted)
    mask = None if wanted is None else da.asarray(wanted)
    rows, columns = (range(len(sizes)) for sizes in job.blocks.chunks)
    nested = [
        [[_array_block(arrays, job, mask, offset, (year, i, j), token) for j in columns] for i in rows]
        for year in range(arrays[0].shape[0])
    ]
    return da.block([[one] for one in nested] if job.all_classes else nested)


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
    task = delayed(_slice_block, pure=True)(
        [array[(year, slice(None), *local)] for array in arrays],
        part,
        job=job,
        origin=origin,
        index=(i, j),
        dask_key_name=f"icemap-predict-block-{token}-{year}-{i}-{j}",
    )
    shape = (1, *job.class_axis, *(b.stop - b.start for b in block))
    return da.from_delayed(task, shape, np.float32, name=f"icemap-predict-{token}-{year}-{i}-{j}")


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
