"""Which workers of a cluster do what, by Dask's resources, so that reading and computing never wait for each other.

Workers with a GPU have the resource ``GPU=1``: blocks of a prediction go to them alone, `AT_WORK` at once on each, so
that one reads while another computes. Workers with the resource ``READ=<threads>`` are for everything else that a store
is written from, such as the scenes of a cube: that never takes the threads of a GPU. In a cluster whose workers have
neither resource, every worker does everything. Short sums, such as areas, go to any worker in any case; and so does
what a plain ``.compute()`` asks for, unless it is called with ``resources={"GPU": 0.5}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from distributed import Client

#: resource of a worker that has a GPU, and how much of it: one GPU, one worker
GPU = "GPU"
#: resource of a worker that reads, as much as it has threads
READ = "READ"

#: blocks of a prediction that are at work in one process: one that computes, one that reads
AT_WORK = 2
#: beginning of the names of a prediction's tasks
PREDICT = "icemap-predict-"

Kind = Literal["predict", "read"]
_NEEDED: dict[Kind, tuple[str, float]] = {"predict": (GPU, 1 / AT_WORK), "read": (READ, 1.0)}

#: resources that workers of a client's cluster have ever had: one that is lost for a while is waited for
_SEEN: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()


def kind_of(layers: Iterable[Any]) -> Kind:
    """Return what tasks are, by the names of their graph's layers."""
    return "predict" if any(str(name).startswith(PREDICT) for name in layers) else "read"


def resources(client: Client, kind: Kind) -> dict[str, float] | None:
    """Return what a task of this kind takes of its worker; None where the cluster's workers do everything."""
    seen = _SEEN.setdefault(client, set())
    for one in client.scheduler_info(n_workers=-1)["workers"].values():
        seen.update(one.get("resources", {}))
    name, amount = _NEEDED[kind]
    return {name: amount} if name in seen else None


def computes(own: Mapping[str, float]) -> bool:
    """Return whether predictions may come to a worker with these resources."""
    return GPU in own or READ not in own
