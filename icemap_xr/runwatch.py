"""Around a run on a cluster: the model is loaded everywhere first, and Dask's report is kept with the results."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from icemap_xr.clustercheck import preload
from icemap_xr.types import Predictor

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger("icemap_xr")

#: Dask's performance report, in the folder of the run
REPORT = "performance.html"


@contextmanager
def watched(client: Client | None, model: Predictor, folder: Path, report: str = REPORT) -> Iterator[None]:
    """Load the model on all workers, and write Dask's performance report into the folder when the work has ended.

    Without a cluster nothing is done; without the extra monitoring (bokeh) there is no report.

    Parameters
    ----------
    client
        Of the cluster; None without one.
    model
        What is loaded.
    folder, report
        Where the report goes, and its name.
    """
    if client is None:
        yield
        return
    preload(client, model)
    if find_spec("bokeh") is None:
        logger.info("no performance report: it needs bokeh, pip install 'icemap-xr[monitoring]'")
        yield
        return
    from distributed import performance_report

    # made by the scheduler when all is done: what ends with an error has none, and keeps its cause
    recorded = performance_report(filename=str(folder / report))
    recorded.__enter__()
    yield
    recorded.__exit__(None, None, None)
