"""What a map costs, known before anything is run: windows, operations, bytes read, memory and, if asked, time."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask.system import CPU_COUNT
from dask.utils import format_bytes, parse_bytes

from icemap_xr.errors import InputError
from icemap_xr.placing import computes
from icemap_xr.types import Predictor

#: seconds after which the timing of a model ends
_TIMING_SECONDS = 2.0


@dataclass(frozen=True)
class Memory:
    """Peak memory of one worker, in bytes, each part times the threads that need it at once.

    Parameters
    ----------
    interpreter
        Python with the packages.
    data
        Arrays that are in memory anyway, and the result where it is made at once.
    model
        The model's framework and weights.
    computing
        What the model needs while it computes a batch.
    batches
        The batch in use and the next one, with answers.
    rows
        Rows of the region as read, and those read ahead.
    blocks
        Sums of the output block, and its copy for the writer.
    """

    interpreter: int
    data: int
    model: int
    computing: int
    batches: int
    rows: int
    blocks: int

    @property
    def total(self) -> int:
        """Sum of the parts."""
        return sum(getattr(self, one.name) for one in fields(self))

    def __str__(self) -> str:
        parts = (f"{name} {format_bytes(size)}" for name, size in asdict(self).items() if size)
        return f"{format_bytes(self.total)} ({', '.join(parts)})"

    def refusal(self, machine: Machine, *, batch_size: int, window: int) -> str | None:
        """Return why the peak does not fit and which option helps most, or None if it fits."""
        if machine.limit is None or self.total <= machine.limit:
            return None
        scaled = self.computing + self.batches
        spare = machine.limit - (self.total - scaled)
        fitting = spare * batch_size // scaled if scaled else 0
        if fitting >= 1:
            advice = f"set batch_size={fitting} or less (now {batch_size})"
        elif self.interpreter + self.model > machine.limit:
            advice = "no option helps, the model alone needs more: start fewer workers with more memory each"
        elif self.data > max(scaled, self.rows, self.blocks):
            advice = "map a cube opened with open_cube, which is read piece by piece, or a smaller part"
        elif machine.threads > 1:
            advice = f"run fewer threads per worker (now {machine.threads}), as with ix.cluster(threads=1)"
        else:
            advice = f"start fewer workers with more memory each, or set a smaller window= (now {window})"
        return (
            f"a worker would need about {self}, its limit is {format_bytes(machine.limit)} ({machine.limit_source}): "
            f"{advice}; memory_limit= sets another limit"
        )


@dataclass(frozen=True)
class Machine:
    """Where tasks run.

    Parameters
    ----------
    workers
        Number of worker processes.
    threads
        Tasks that a worker runs at once.
    limit
        Memory that a worker may take, in bytes; None where it is not known.
    limit_source
        Where the limit comes from.
    """

    workers: int
    threads: int
    limit: int | None
    limit_source: str

    @classmethod
    def current(cls, memory_limit: str | int | None = None, *, at_once: bool = False) -> Machine:
        """Return the current Dask cluster, or this process.

        Parameters
        ----------
        memory_limit
            Limit per worker such as ``"8GiB"``, or bytes; by default that of the workers, else this machine's memory.
        at_once
            Whether the map is made in this process by one thread.

        Raises
        ------
        InputError
            The limit cannot be read.
        """
        machine = None if at_once else _cluster()
        if machine is None:
            threads = 1 if at_once else int(dask.config.get("num_workers", None) or CPU_COUNT)
            machine = cls(1, threads, _physical(), "this machine's memory")
        if memory_limit is None:
            return machine
        try:
            limit = int(parse_bytes(memory_limit))
        except (ValueError, TypeError, AttributeError):
            limit = 0
        if limit <= 0:
            raise InputError(f"memory_limit={memory_limit!r} is not allowed: give bytes or text such as '8GiB'")
        return replace(machine, limit=limit, limit_source="memory_limit=")


def _cluster() -> Machine | None:
    if "distributed" not in sys.modules:
        return None
    from distributed import Client

    try:
        client = Client.current()
    except ValueError:
        return None
    workers = list(client.scheduler_info(n_workers=-1)["workers"].values())
    # readers map nothing
    workers = [one for one in workers if computes(one.get("resources", {}))] or workers
    if not workers:
        return Machine(1, 1, None, "no worker is there yet")
    limits = [int(one["memory_limit"]) for one in workers if one["memory_limit"]]
    threads = max(int(one["nthreads"]) for one in workers)
    return Machine(len(workers), threads, min(limits, default=None), "the Dask worker's limit")


def _physical() -> int | None:
    """Return this machine's memory, or that of its container."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (ValueError, OSError, AttributeError):
        return None
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file():
        text = container.read_text().strip()
        found += [int(text)] if text.isdigit() else []
    return min(found)


@dataclass(frozen=True)
class Plan:
    """What ``predict(..., dry_run=True)`` returns: what a map costs. Printed, it is a table.

    Parameters
    ----------
    years, blocks
        Years mapped, and output blocks of all of them.
    windows
        Windows to run in all years; those without any observation are left out as they are met, and still counted
        here. A window that reaches into several blocks is run for each.
    model_calls
        How often each window goes through the model: symmetries times passes.
    flops
        Operations of all of it, 2 per multiply-add; None where the model does not say.
    read_bytes
        Bytes read: whole encoded chunks of the store before compression, or array values.
    read_from
        ``"store"``, ``"lazy arrays"`` (what making them reads is not known here) or ``"memory"``.
    memory, machine
        Predicted peak of one worker, and where tasks run.
    rate
        Windows through the model per second, of all workers together; None where time was not asked for.
    rate_source
        Where the rate comes from.
    """

    years: int
    blocks: int
    windows: int
    model_calls: int
    flops: int | None
    read_bytes: int
    read_from: str
    memory: Memory
    machine: Machine
    rate: float | None = None
    rate_source: str = "not asked for"
    _model: Predictor | None = field(default=None, repr=False, compare=False)
    _batch_size: int = field(default=1, repr=False, compare=False)

    @property
    def seconds(self) -> float | None:
        """Expected time, for the model alone; None without a rate."""
        return None if self.rate is None else self.windows * self.model_calls / self.rate

    def timed(self, rate: float | None = None) -> Plan:
        """Return the plan with the expected time.

        Parameters
        ----------
        rate
            Windows through the model per second, of all workers together; by default it is measured here and now, in
            a few seconds, with the whole of this machine.

        Raises
        ------
        InputError
            The rate is not above 0.
        """
        if rate is None:
            if self._model is None:
                raise InputError("this plan was read back and has no model to time: give rate= in windows per second")
            return replace(self, rate=measured_rate(self._model, self._batch_size), rate_source="measured here")
        if not rate > 0:
            raise InputError(f"rate={rate} is not allowed: give windows per second > 0")
        return replace(self, rate=float(rate), rate_source="given")

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if not one.name.startswith("_")}
        parts = asdict(self.memory) | {"total": self.memory.total}
        return own | {"memory": parts, "machine": asdict(self.machine), "seconds": self.seconds}

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _rows(self) -> list[tuple[str, str]]:
        limit = self.machine.limit
        window = 0 if self._model is None else self._model.spec.window
        refusal = self.memory.refusal(self.machine, batch_size=self._batch_size, window=window)
        time = "not asked for: plan.timed() measures, plan.timed(rate=) takes windows per second"
        if self.rate is not None and self.seconds is not None:
            time = f"{_duration(self.seconds)} at {self.rate:.3g} windows/s ({self.rate_source})"
        return [
            ("years", str(self.years)),
            ("blocks", f"{self.blocks:,}"),
            ("windows", f"{self.windows:,}" + (f", each {self.model_calls} times" if self.model_calls > 1 else "")),
            ("operations", "not known" if self.flops is None else f"{self.flops / 1e9:,.0f} GFLOP"),
            ("read", f"{format_bytes(self.read_bytes)} from {self.read_from}"),
            ("memory per worker", str(self.memory)),
            ("limit", "none" if limit is None else f"{format_bytes(limit)} ({self.machine.limit_source})"),
            ("workers", f"{self.machine.workers}, threads of each {self.machine.threads}"),
            ("time", time),
            *([] if refusal is None else [("does not fit", refusal)]),
        ]


def measured_rate(model: Predictor, batch_size: int) -> float:
    """Return windows per second of a model in this process: after a first call, as many as fit in two seconds."""
    spec = model.spec
    shape = (batch_size, spec.steps, spec.window, spec.window)
    random = np.random.default_rng(0)
    parts = {one.name: random.random((*shape, len(one.features)), np.float32) for one in spec.inputs}
    batch: Any = parts if len(parts) > 1 else next(iter(parts.values()))
    model(batch)  # builds the network
    calls, begun = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - begun < _TIMING_SECONDS:
        model(batch)
        calls += 1
    return calls * batch_size / (time.perf_counter() - begun)


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
