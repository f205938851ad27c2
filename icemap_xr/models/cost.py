"""What one window costs a network, counted from its architecture without building it."""

from __future__ import annotations

from math import prod

from icemap_xr.errors import ModelError
from icemap_xr.models.icemapper import LEVELS, Architecture, shapes

#: TensorFlow and Keras in a process: 524 MB measured (TensorFlow 2.21, CPU), rounded up
_FRAMEWORK_BYTES = 560 * 2**20
#: the weights as read, as variables, as constants, and as constants with folded normalisations; measured at most
_WEIGHT_COPIES = 10
#: tensors of the finest level that are alive at once (measured 3.5 to 5.8), and what the kernels need beside them
_LIVE_TENSORS, _SCRATCH_BYTES = 5.5, 30 * 2**20


def flops_per_window(architecture: Architecture) -> int:
    """Return the operations of one window, 2 for each multiply-add of a convolution or dense layer.

    Every kernel is applied once per output position, so the count is ``2 * kernel size * positions``; additions of
    biases, activations and pooling (about 1 %) are not counted.

    Raises
    ------
    ModelError
        The architecture leaves its window open.
    """
    return sum(
        2 * prod(shape) * _positions(path, architecture)
        for path, shape in shapes(architecture).items()
        if path.endswith("/kernel")
    )


def window_bytes(architecture: Architecture) -> int:
    """Return the memory that one more window in a batch takes on the CPU: its input twice, and what is alive at once.

    The finest level decides: its tensors are eight times the next one's. Computing in bfloat16 needs no less, for
    values are converted back and forth.
    """
    values = architecture.steps * _side(architecture, 0) ** 2
    return round(4 * values * (2 * architecture.features + _LIVE_TENSORS * architecture.filters))


def resident_bytes(architecture: Architecture) -> int:
    """Return the memory of a process that has loaded the network on the CPU, without the windows."""
    return _FRAMEWORK_BYTES + _SCRATCH_BYTES + _WEIGHT_COPIES * 4 * architecture.parameters


def _positions(path: str, architecture: Architecture) -> int:
    """Return how often a kernel is applied in one window."""
    layer = path.partition("/")[0]
    if layer == "head":
        return _side(architecture, 0) ** 2
    kind, _, number = layer.rpartition("_")
    level = int(number)
    steps = -(-architecture.steps // 2**level)
    if kind in ("skip", "down"):  # the weights of steps come from means over the whole window
        return steps
    pixels = _side(architecture, level) ** 2
    return steps * pixels if kind == "encoder" else pixels


def _side(architecture: Architecture, level: int) -> int:
    if architecture.window is None:
        raise ModelError("the architecture leaves its window open: give a window to count its operations")
    if not 0 <= level <= LEVELS:
        raise ModelError(f"level {level} is not part of the network: allowed are 0 to {LEVELS}")
    return architecture.window // 2**level
