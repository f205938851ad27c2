"""A Keras network as a `Predictor`: loaded once per process, called as a compiled function.

A predictor travels between processes as a small recipe. Importing this module imports no TensorFlow; the first call
of a predictor does.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from icemap_xr.errors import DeviceMemoryError, ModelMismatchError, WeightsError
from icemap_xr.models import cost, icemapper
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import Architecture, Precision, Tensors
from icemap_xr.types import Batch, ModelSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to load a model by itself.

    Parameters
    ----------
    kind
        ``"bundle"`` (a folder) or ``"h5"`` (a published-layout file).
    path
        Absolute path of it.
    spec
        What the model declares; `spec.digest` is what the weights must have.
    architecture
        The network.
    precision
        What it computes in.
    registered
        Name in the registry from which a process that lacks the path can get the model.
    """

    kind: Literal["bundle", "h5"]
    path: str
    spec: ModelSpec
    architecture: Architecture
    precision: Precision = "float32"
    registered: str | None = None

    def read(self) -> Tensors:
        """Read and check the weights.

        Raises
        ------
        UnknownModelError
            There is nothing at the path, and the registry does not have it either.
        WeightsError
            The weights are not those the recipe was made from.
        """
        path = self.path
        if self.registered is not None and not os.path.exists(path):
            from icemap_xr.models.registry import locate

            path = os.fspath(locate(self.registered))
        if self.kind == "bundle":
            bundle = ModelBundle.load(path)
            digest, tensors = bundle.digest, bundle.read_weights()
        else:
            from icemap_xr.models.legacy_h5 import read_legacy_h5

            weights = read_legacy_h5(path)
            digest, tensors = weights.digest, weights.tensors
        if digest != self.spec.digest:
            raise WeightsError(
                f"{path} has sha256 {digest}, the model was loaded with {self.spec.digest}: "
                "the file has changed since; load the model again"
            )
        icemapper.check_tensors(tensors, self.architecture, path)
        return tensors


#: windows, and factors of the channels where these are sampled, to probabilities
Network: TypeAlias = Callable[..., NDArray[np.float32]]

_known: dict[Recipe, KerasPredictor] = {}
_lock = threading.Lock()


def from_recipe(recipe: Recipe) -> KerasPredictor:
    """Return this process's predictor for a recipe: always the same object, so its network is built only once."""
    with _lock:
        return _known.setdefault(recipe, KerasPredictor(recipe))


class KerasPredictor:
    """A Keras network, ready to be called on one batch of scaled windows.

    Made by `icemap_xr.load_model`. The network is built at the first call; calls from several threads are safe.
    Pickles to its recipe, and unpickles to the one predictor of that recipe in the process.

    Parameters
    ----------
    recipe
        What to load.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._functions: dict[bool, Network] = {}
        self._build_lock = threading.Lock()
        #: windows at once that are known to fit in memory, once a larger batch did not
        self._fitting: int | None = None

    @property
    def spec(self) -> ModelSpec:
        """What the model declares about itself."""
        return self.recipe.spec

    @property
    def bundle(self) -> ModelBundle | None:
        """The bundle the model comes from, with its calibration and block errors; None for an ``.h5``."""
        return ModelBundle.load(self.recipe.path) if self.recipe.kind == "bundle" else None

    @property
    def flops_per_window(self) -> int:
        """Operations of one window, 2 per multiply-add; see `icemap_xr.models.cost`."""
        return cost.flops_per_window(self.recipe.architecture)

    @property
    def window_bytes(self) -> int:
        """Memory that each window of a batch takes while it is computed."""
        return cost.window_bytes(self.recipe.architecture)

    @property
    def resident_bytes(self) -> int:
        """Memory of TensorFlow and the loaded weights."""
        return cost.resident_bytes(self.recipe.architecture)

    def with_precision(self, precision: Precision) -> KerasPredictor:
        """Return this process's predictor of the same weights that computes in another precision."""
        return from_recipe(replace(self.recipe, precision=precision))

    def with_window(self, window: int) -> KerasPredictor:
        """Return this process's predictor of the same weights for windows of another side, a multiple of 8 pixels."""
        architecture = replace(self.recipe.architecture, window=window)
        spec = replace(self.spec, window=window)
        return from_recipe(replace(self.recipe, architecture=architecture, spec=spec))

    def __call__(self, batch: Batch, /) -> NDArray[np.float32]:
        """Map scaled windows to class probabilities.

        Parameters
        ----------
        batch
            ``(batch, step, y, x, feature)``, scaled, without NaN, taken as float32; or a mapping with the input's
            name and that array.

        Returns
        -------
        numpy.ndarray
            ``(batch, y, x, class)`` float32, summing to 1 over the classes.

        Raises
        ------
        ModelMismatchError
            The batch is not what the model takes.
        WeightsError
            The weights have changed since the model was loaded (first call only).
        DeviceMemoryError
            Not even one window fits in memory. A batch that does not fit is run in halves.
        """
        return self._run(False, self._checked(batch))

    def sample(self, batch: Batch, seeds: NDArray[np.uint64], rate: float, /) -> NDArray[np.float32]:
        """Map scaled windows with random channels dropped, as the published spatial dropout does in training.

        Parameters
        ----------
        batch
            As in a call.
        seeds
            One seed per window, ``(batch,)``. Its channels depend on it alone: they are drawn by NumPy, and so are the
            same on every device.
        rate
            Share of channels dropped at the end of each residual block's branch; the others are scaled up.

        Raises
        ------
        ModelMismatchError, WeightsError, DeviceMemoryError
            As in a call.
        """
        windows = self._checked(batch)
        if len(seeds) != len(windows):
            raise ModelMismatchError(f"{len(seeds)} seeds for {len(windows)} windows: give one per window")
        channels = sum(self.recipe.architecture.dropped_filters)
        draws = [np.random.default_rng(int(seed)).random(channels, np.float32) for seed in seeds]
        kept = np.reshape(draws, (len(seeds), channels)) >= rate
        return self._run(True, windows, np.where(kept, np.float32(1 / (1 - rate)), np.float32(0)))

    def _run(self, sampling: bool, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run windows, all at once where they fit in memory, else in halves."""
        count, side = len(arrays[0]), self.spec.window
        if count == 0:
            return np.empty((0, side, side, len(self.spec.classes)), np.float32)
        network = self._network(sampling)
        from icemap_xr.models._backend import tf

        parts: list[NDArray[np.float32]] = []
        begin = 0
        while begin < count:
            size = min(self._fitting or count, count - begin)
            try:
                parts.append(network(*(array[begin : begin + size] for array in arrays)))
            except tf.errors.ResourceExhaustedError:
                if size == 1:
                    raise DeviceMemoryError(
                        f"not even one window of {side} px (batch_size=1) of {self.spec.name!r} fits in memory: "
                        "choose a smaller window=, free the GPU, or run on the CPU"
                    ) from None
                self._fitting = size // 2
                log.warning(
                    "%d windows of %d px do not fit in memory: going on with batch_size=%d", size, side, self._fitting
                )
                continue
            begin += size
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _checked(self, batch: Batch) -> NDArray[np.float32]:
        one = self.spec.inputs[0]
        if isinstance(batch, Mapping):
            if set(batch) != {one.name}:
                raise ModelMismatchError(f"batch has inputs {sorted(batch)}, {self.spec.name!r} takes {one.name!r}")
            batch = batch[one.name]
        windows = np.ascontiguousarray(batch, np.float32)
        needed = (self.spec.steps, self.spec.window, self.spec.window, len(one.features))
        if windows.ndim != 5 or windows.shape[1:] != needed:
            raise ModelMismatchError(
                f"batch has shape {windows.shape}, {self.spec.name!r} takes (batch, step, y, x, feature) = "
                f"(any, {', '.join(map(str, needed))}) with features {', '.join(one.feature_names)}"
            )
        return windows

    def _network(self, sampling: bool) -> Network:
        if sampling not in self._functions:
            with self._build_lock:
                if sampling not in self._functions:
                    recipe = self.recipe
                    log.info("loading model %s from %s", self.spec.name, recipe.path)
                    self._functions[sampling] = compiled(recipe.architecture, recipe.read(), recipe.precision, sampling)
        return self._functions[sampling]

    def __reduce__(self) -> tuple[Callable[[Recipe], KerasPredictor], tuple[Recipe]]:
        return from_recipe, (self.recipe,)

    def __dask_tokenize__(self) -> tuple[object, ...]:
        # by content, not by place: the same weights elsewhere give the same map
        recipe = self.recipe
        inputs = [asdict(one) for one in self.spec.inputs]
        classes = (self.spec.classes, self.spec.glacier_class)
        return (
            "icemap_xr.KerasPredictor",
            self.spec.digest,
            inputs,
            classes,
            asdict(recipe.architecture),
            recipe.precision,
        )

    def __repr__(self) -> str:
        spec = self.spec
        features = ", ".join(feature.name for feature in spec.features)
        return f"<KerasPredictor {spec.name}: {features}; {spec.steps} steps, {spec.window} px; {spec.note}>"


def compiled(
    architecture: Architecture, tensors: Tensors, precision: Precision = "float32", sampling: bool = False
) -> Network:
    """Build a network, set its weights, and return it as one compiled function of a batch.

    Parameters
    ----------
    architecture
        The network, with a window.
    tensors
        Arrays by weight path.
    precision
        What it computes in.
    sampling
        Whether it takes factors ``(batch, channel)`` of the channels that dropout may drop beside the windows.

    Returns
    -------
    callable
        ``(batch, step, y, x, feature)`` float32 to ``(batch, y, x, class)`` float32, for any batch size.
    """
    from icemap_xr.models._backend import tf

    model = icemapper.build(architecture, precision=precision, sampling=sampling)
    icemapper.assign(model, tensors)
    trained = [variable.numpy() for variable in model.trainable_variables]
    fixed = [variable.numpy() for variable in model.non_trainable_variables]

    def forward(*inputs: Any) -> Any:
        # weights as constants let TensorFlow fold the normalisations away: 8 to 15 % faster than with variables
        constants = [tf.constant(values) for values in trained], [tf.constant(values) for values in fixed]
        return model.stateless_call(*constants, list(inputs) if sampling else inputs[0], training=False)[0]

    shape = (None, architecture.steps, architecture.window, architecture.window, architecture.features)
    signature = [tf.TensorSpec(shape, tf.float32)]
    if sampling:
        signature.append(tf.TensorSpec((None, sum(architecture.dropped_filters)), tf.float32))
    function = tf.function(forward, input_signature=signature, autograph=False, jit_compile=False)
    concrete = function.get_concrete_function()

    def call(*inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(concrete(*(tf.constant(values) for values in inputs)).numpy(), np.float32)

    return call


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a path that holds in any working directory."""
    return os.path.abspath(Path(path).expanduser())
