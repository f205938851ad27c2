"""Counts what a prediction does, from the windows' geometry alone: windows per block, bytes read, peak memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from icemap_xr import schema
from icemap_xr.blockjob import Job, rows_at_once
from icemap_xr.errors import InputError
from icemap_xr.estimate import Machine, Memory, Plan
from icemap_xr.kernels.infer import SYMMETRIES
from icemap_xr.placing import AT_WORK
from icemap_xr.storearray import untouched

#: a process with this package, Dask and distributed imported (236 MiB measured), and what Zarr and the allocator hold
_INTERPRETER = 280 * 2**20
#: a model that does not say what a window takes is thought to hold this many times its input
_UNKNOWN_MODEL = 3
_FLOAT = 4


@dataclass(frozen=True)
class Stored:
    """Layout of one feature's series `(time, y, x)` in a store.

    Parameters
    ----------
    shape
        Shape of the series.
    chunk
        Smallest piece that is read at once.
    itemsize
        Bytes of an encoded value.
    time_chunks
        Chunks along time that all years together read, each year for itself.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    itemsize: int
    time_chunks: int

    def bytes_read(self, down: slice, across: slice) -> int:
        """Return the bytes of all chunks that rows and columns of the array touch, before compression."""
        step = rows_at_once(self.chunk[1])
        edges = [down.start, *range((down.start // step + 1) * step, down.stop, step), down.stop]
        touched = sum(-(-end // self.chunk[1]) - begin // self.chunk[1] for begin, end in pairwise(edges))
        touched *= -(-across.stop // self.chunk[2]) - across.start // self.chunk[2]
        return touched * self.time_chunks * self.itemsize * prod(self.chunk)


@dataclass(frozen=True)
class Source:
    """Where a job's data come from.

    Parameters
    ----------
    kind
        ``"store"``, ``"lazy arrays"`` or ``"memory"``.
    stored
        Layout of each feature in the store; empty for arrays.
    pixel_bytes
        Bytes of one pixel of arrays, all years, steps and features.
    nbytes
        Bytes of what is in memory anyway.
    years
        Number of years.
    """

    kind: str
    stored: tuple[Stored, ...]
    pixel_bytes: int
    nbytes: int
    years: int

    @classmethod
    def of(cls, ds: xr.Dataset, job: Job, wanted: Any) -> Source:
        """Return the source of a dataset, by the same rule as `blockjob.run`."""
        names = [one.name for one in job.model.spec.features]
        years = ds.sizes[schema.YEAR]
        arrays = [ds[name].data for name in names]
        native = schema.is_native(ds)
        if native and all(untouched(array) is not None for array in arrays):
            return cls("store", tuple(_stored(ds, name) for name in names), 0, 0, years)
        lazy = any(isinstance(array, da.Array) for array in (*arrays, wanted))
        pixel = years * job.model.spec.steps * sum(array.dtype.itemsize for array in arrays)
        there = [array for array in arrays if not isinstance(array, da.Array)]
        # the model view of a native cube in memory is a copy
        copy = pixel * ds.sizes[schema.Y] * ds.sizes[schema.X] if native and there else 0
        nbytes = sum(array.nbytes for array in there) + copy
        return cls("lazy arrays" if lazy else "memory", (), pixel, nbytes, years)

    @property
    def rows_at_once(self) -> int:
        """Rows that are read in one go."""
        return rows_at_once(self.stored[0].chunk[1] if self.stored else 1)

    def bytes_read(self, down: slice, across: slice) -> int:
        """Return the bytes read for rows and columns of the dataset, all years."""
        if self.stored:
            return sum(one.bytes_read(down, across) for one in self.stored)
        return self.pixel_bytes * (down.stop - down.start) * (across.stop - across.start)


def _stored(ds: xr.Dataset, name: str) -> Stored:
    source = untouched(ds[name].data)
    assert source is not None
    chunk, itemsize = source.stored
    table = ds[schema.feature(name).index].values
    touched = sum(np.unique(row[row >= 0] // chunk[0]).size for row in table)
    return Stored(source.shape, chunk, itemsize, touched)


def check_memory(ds: xr.Dataset, job: Job, wanted: Any, memory_limit: str | int | None) -> None:
    """Refuse a job whose peak memory is above a worker's limit; costs milliseconds, whatever the region's size.

    Raises
    ------
    InputError
        It does not fit, or the limit cannot be read.
    """
    source = Source.of(ds, job, wanted)
    machine = Machine.current(memory_limit, at_once=source.kind == "memory")
    refusal = peak_memory(job, source, machine).refusal(machine, batch_size=job.batch_size, window=job.windows.window)
    if refusal is not None:
        raise InputError(refusal)


def make_plan(ds: xr.Dataset, job: Job, wanted: Any, memory_limit: str | int | None = None) -> Plan:
    """Count what a job costs; nothing is read but the mask.

    Parameters
    ----------
    ds
        The cube or model view, with the years to map.
    job
        What is run.
    wanted
        Boolean `(y, x)` or None, lazy or not.
    memory_limit
        See `Machine.current`.

    Raises
    ------
    InputError
        The limit cannot be read. A job above it is planned, and the plan says so.
    """
    source = Source.of(ds, job, wanted)
    machine = Machine.current(memory_limit, at_once=source.kind == "memory")
    offset = (job.blocks.rows[0], job.blocks.columns[0])
    windows, read = 0, 0
    for rows, columns, keep in _kept(job, wanted):
        windows += _count(job, rows, columns, keep)
        reach = [job.windows.reach(part.start, part.stop, axis) for axis, part in enumerate((rows, columns))]
        local = [slice(part.start - o, part.stop - o) for part, o in zip(reach, offset, strict=True)]
        read += source.bytes_read(local[0], local[1])
    per_window = getattr(job.model, "flops_per_window", None)
    calls = model_calls(job)
    return Plan(
        years=source.years,
        blocks=source.years * (len(job.blocks.rows) - 1) * (len(job.blocks.columns) - 1),
        windows=windows * source.years,
        model_calls=calls,
        flops=None if per_window is None else windows * source.years * calls * int(per_window),
        read_bytes=read,
        read_from=source.kind,
        memory=peak_memory(job, source, machine),
        machine=machine,
        _model=job.model,
        _batch_size=job.batch_size,
    )


def _kept(job: Job, wanted: Any) -> Iterator[tuple[slice, slice, NDArray[np.bool_] | None]]:
    """Yield the part of each block in which there is something to map, in region pixels, and its mask."""
    row0, column0 = job.blocks.rows[0], job.blocks.columns[0]
    for i, j in product(*(range(len(sizes)) for sizes in job.blocks.chunks)):
        rows, columns = job.blocks.slices(i, j)
        local = np.s_[rows.start - row0 : rows.stop - row0, columns.start - column0 : columns.stop - column0]
        keep = job.wanted(rows, columns, None if wanted is None else np.asarray(wanted[local]))
        if keep is None:
            yield rows, columns, None
            continue
        down, across = np.flatnonzero(keep.any(axis=1)), np.flatnonzero(keep.any(axis=0))
        if down.size:
            inner = np.s_[int(down[0]) : int(down[-1]) + 1, int(across[0]) : int(across[-1]) + 1]
            found = [slice(b.start + s.start, b.start + s.stop) for b, s in zip((rows, columns), inner, strict=True)]
            yield found[0], found[1], keep[inner]


def _count(job: Job, rows: slice, columns: slice, keep: NDArray[np.bool_] | None) -> int:
    """Return how many windows give weight to a pixel to keep."""
    down, across = (
        [
            slice(max(support.start, part.start) - part.start, min(support.stop, part.stop) - part.start)
            for support in (job.windows.support(one, axis) for one in job.windows.starts(part.start, part.stop, axis))
            if support.start < part.stop and support.stop > part.start
        ]
        for axis, part in enumerate((rows, columns))
    )
    if keep is None:
        return len(down) * len(across)
    return sum(bool(keep[one, other].any()) for one, other in product(down, across))


def model_calls(job: Job) -> int:
    """Return how often each window goes through the model."""
    return (1 if job.tta is None else SYMMETRIES) * (1 if job.dropout is None else job.dropout.passes)


def peak_memory(job: Job, source: Source, machine: Machine) -> Memory:
    """Return the peak memory of one worker; the terms are those of `blend_block`, which `benchmarks/memory.py` checks.

    One block of a process computes while another reads, whatever the number of threads; the others wait.
    """
    spec, grid, size = job.model.spec, job.windows, job.batch_size
    height, width = (_longest_reach(job, axis) for axis in (0, 1))
    block = prod(max(sizes) for sizes in job.blocks.chunks)
    layers = prod(job.class_axis)
    tasks = min(machine.threads, source.years * prod(len(sizes) for sizes in job.blocks.chunks))
    at_work = min(tasks, AT_WORK)
    window = _FLOAT * grid.window**2
    one_input, one_answer = window * spec.steps * len(spec.features), window * len(spec.classes)
    known = getattr(job.model, "window_bytes", None)
    symmetric = job.tta is not None
    result = source.years * prod(edges[-1] - edges[0] for edges in (job.blocks.rows, job.blocks.columns)) * layers
    return Memory(
        interpreter=_INTERPRETER,
        # a map that is made at once is written from a copy
        data=source.nbytes + (2 * _FLOAT * result if source.kind == "memory" else 0),
        model=int(getattr(job.model, "resident_bytes", 0)),
        computing=size * (_UNKNOWN_MODEL * one_input if known is None else int(known)),
        batches=at_work * size * (2 + symmetric) * one_input + size * (2 + 2 * symmetric) * one_answer,
        rows=at_work * _rows_bytes(job, source, height, width),
        # a block at work: the result and its mask; each of the others, and one: what the writer holds
        blocks=_FLOAT * block * (at_work * (layers + 1) + (tasks - at_work + 1) * 2 * layers) + _sums_bytes(job, width),
    )


def _rows_bytes(job: Job, source: Source, height: int, width: int) -> int:
    """Return the bytes of the rows that a block holds."""
    spec = job.model.spec
    features = len(spec.features)
    row = _FLOAT * spec.steps * features * width
    at_once = min(source.rows_at_once, height)
    # pieces under a row of windows, and the one read ahead
    held = min(height, (2 - (1 - job.windows.window) // at_once) * at_once)
    # while rows are read: one scene as decoded and as scaled, and which values are finite
    making = 4 / (features * spec.steps)
    bytes_ = row * (held + making * at_once)
    # a slice of lazy arrays arrives whole: as pieces, and put together
    sliced = 2 * source.pixel_bytes // source.years * height * width if source.kind == "lazy arrays" else 0
    return int(bytes_ + sliced)


def _longest_reach(job: Job, axis: int) -> int:
    edges = (job.blocks.rows, job.blocks.columns)[axis]
    reaches = (job.windows.reach(begin, end, axis) for begin, end in pairwise(edges))
    return max(one.stop - one.start for one in reaches)


def _sums_bytes(job: Job, width: int) -> int:
    """Return the bytes of the sums of one row of windows: of classes, weights and passes, and as they are finished."""
    layers = len(job.classes) + 1 + (0 if job.dropout is None else job.dropout.passes)
    return 3 * _FLOAT * layers * job.windows.window * width
