"""What a network costs: the count against the layers themselves and against the published size."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest

from icemap_xr.errors import ModelError
from icemap_xr.models import cost, icemapper
from icemap_xr.models.icemapper import Architecture


@pytest.mark.parametrize("pooling", icemapper.POOLINGS)
@pytest.mark.parametrize(("steps", "features", "classes", "filters"), [(15, 2, 2, 4), (3, 1, 3, 6), (1, 2, 2, 2)])
def test_the_count_is_that_of_the_layers(
    monkeypatch: pytest.MonkeyPatch, pooling: Any, steps: int, features: int, classes: int, filters: int
) -> None:
    from icemap_xr.models._backend import keras

    network = Architecture(pooling, steps, features, classes, filters, window=16)
    found: list[int] = []
    for kind in (keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense):
        call = kind.call

        def noted(self: Any, inputs: Any, *more: Any, _call: Any = call, **options: Any) -> Any:
            out = _call(self, inputs, *more, **options)
            found.append(2 * prod(self.kernel.shape) * prod(out.shape[1:-1]))
            return out

        monkeypatch.setattr(kind, "call", noted)
    model = icemapper.build(network)
    found.clear()
    # a symbolic call asks layers for shapes only
    model(np.zeros((1, steps, 16, 16, features), np.float32))
    assert cost.flops_per_window(network) == sum(found) > 0


def test_the_published_network_takes_2_29_mflop_per_pixel() -> None:
    assert cost.flops_per_window(Architecture()) / 384**2 / 1e6 == pytest.approx(2.29, abs=0.005)


def test_costs_grow_as_they_should() -> None:
    small, wide = Architecture(window=128), Architecture(window=256)
    assert cost.window_bytes(wide) == 4 * cost.window_bytes(small)
    # all but the few weights of steps grow with the pixels
    assert cost.flops_per_window(wide) == pytest.approx(4 * cost.flops_per_window(small), rel=1e-4)
    heavy = replace(small, filters=64)
    assert cost.resident_bytes(heavy) - cost.resident_bytes(small) > 4 * (heavy.parameters - small.parameters)


def test_an_open_window_is_refused() -> None:
    with pytest.raises(ModelError, match="window"):
        cost.flops_per_window(Architecture(window=None))
