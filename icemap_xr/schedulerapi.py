"""What the Dask operator's autoscaler asks a scheduler over HTTP, answered for the workers with a GPU alone.

Named in the scheduler's configuration ``distributed.scheduler.http.routes`` in place of Dask's own
``distributed.http.scheduler.api``, whose answers count the workers of all groups together: it would ask for GPUs to
read scenes with, and retire readers where GPUs are too many. The operator scales the default group, that of the GPUs.
"""

from __future__ import annotations

import json
import math
from typing import Any

from distributed.http.utils import RequestHandler

from icemap_xr.placing import GPU


def wanted_gpus(scheduler: Any) -> int:
    """Return how many workers the waiting and running tasks that need a GPU would fill."""
    needed = (task.resource_restrictions for task in scheduler.tasks.values() if task.state not in ("memory", "erred"))
    return math.ceil(sum((one or {}).get(GPU, 0.0) for one in needed))


def idlest_gpus(scheduler: Any, count: int) -> list[str]:
    """Return addresses of workers with a GPU, those with the least work first."""
    own = [one for one in scheduler.workers.values() if GPU in one.resources]
    return [one.address for one in sorted(own, key=lambda one: (len(one.processing), one.address))[:count]]


class Target(RequestHandler):
    """How many workers there should be."""

    def get(self) -> None:
        """Answer ``{"workers": number}``."""
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps({"workers": wanted_gpus(self.server)}))


class Retire(RequestHandler):
    """Let workers end what they are at, move their results, and tell which may be stopped."""

    async def post(self) -> None:
        """Answer with address and name of each worker that was retired, of ``{"n": number}``."""
        self.set_header("Content-Type", "application/json")
        count = int(json.loads(self.request.body).get("n", 0))
        names = {at: self.server.workers[at].name for at in idlest_gpus(self.server, count)}
        retired = await self.server.retire_workers(workers=list(names))
        self.write(json.dumps({at: {"name": names[at]} for at in names if at in retired}))


routes: list[tuple[str, Any, dict[str, Any]]] = [
    ("/api/v1/adaptive_target", Target, {}),
    ("/api/v1/retire_workers", Retire, {}),
]
