from __future__ import annotations

import pytest

from icemap_xr.errors import InputError
from icemap_xr.training.schedule import learning_rate

RESTARTS = (10, 30, 70, 150)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (0, 5e-4),
        (50, 2.5e-4),  # half of the first stage of 10 epochs of 10 batches
        (99, 0.5 * 5e-4 * (1 - 0.9995065603657316)),  # cos(99 pi / 100)
        (100, 5e-4),  # a restart
        (200, 2.5e-4),  # half of the second, 20 epochs
        (300, 5e-4),
        (1100, 2.5e-4),  # half of the last, 80 epochs
    ],
)
def test_published_values(batch: int, expected: float) -> None:
    assert learning_rate(batch, 10, 5e-4, RESTARTS) == pytest.approx(expected, rel=1e-9)


def test_beyond_the_last_stage_is_refused() -> None:
    with pytest.raises(InputError, match="batch 1500 lies beyond the last stage, epoch 150"):
        learning_rate(1500, 10, 5e-4, RESTARTS)
