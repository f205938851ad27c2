"""The learning rate of each batch: cosine decay with warm restarts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from icemap_xr.errors import InputError


def learning_rate(batch: int, batches_per_epoch: int, base: float, restarts: Sequence[int]) -> float:
    """Return the learning rate of a batch.

    A stage ends at each epoch of `restarts`. Within a stage of S batches, batch s has
    ``0.5 base (1 + cos(pi s / S))``; each stage begins at `base` again.

    Parameters
    ----------
    batch
        Number of the batch from the start of training, from 0.
    batches_per_epoch
        Batches per epoch.
    base
        Highest learning rate.
    restarts
        Epochs at which stages end, increasing; published 10, 30, 70, 150.

    Raises
    ------
    InputError
        The batch lies beyond the last stage.

    References
    ----------
    Loshchilov and Hutter (2017), SGDR: stochastic gradient descent with warm restarts, ICLR.
    """
    begin = 0
    for epoch in restarts:
        end = epoch * batches_per_epoch
        if batch < end:
            return 0.5 * base * (1 + math.cos(math.pi * (batch - begin) / (end - begin)))
        begin = end
    raise InputError(f"batch {batch} lies beyond the last stage, epoch {restarts[-1]}: add a later epoch to restarts")
