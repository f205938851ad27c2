"""Rates of this machine for plans of regions: operations of the network, and megabytes of a raster, per second."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.env import setenv
from rasterio.errors import RasterioError
from rasterio.windows import Window

from icemap_xr import schema
from icemap_xr.access import Access
from icemap_xr.errors import InputError, ReadError
from icemap_xr.estimate import measured_rate
from icemap_xr.models.bundle import ModelBundle
from icemap_xr.models.icemapper import PUBLISHED_STEPS, PUBLISHED_WINDOW, Architecture, build, extract
from icemap_xr.models.predictor import KerasPredictor
from icemap_xr.models.registry import feature_spec, load_model
from icemap_xr.quotas import BYTES_PER_PIXEL
from icemap_xr.reading import GDAL_OPTIONS, KEYS
from icemap_xr.types import InputSpec, StrPath
from icemap_xr.urls import scrub
from icemap_xr.web import Patience

#: seconds of reading
_SECONDS = 5.0
#: side in pixels of the blocks that are read: the cube's chunks
_BLOCK = 512
#: fewer pixels are read too quickly to tell a rate
_LEAST = 2**20
GPU = "the first GPU"


def random_model(
    folder: StrPath, architecture: Architecture, features: Sequence[str] = ("grd", "insar")
) -> KerasPredictor:
    """Save a bundle of random weights and load it as users do: as fast as one that was trained.

    Parameters
    ----------
    folder
        Where the bundle goes.
    architecture
        The network.
    features
        Its features.
    """
    inputs = (InputSpec("inputs", tuple(feature_spec(name) for name in features)),)
    ModelBundle("random", architecture, inputs, note="random weights").save(folder, extract(build(architecture)))
    loaded = load_model(folder)
    assert isinstance(loaded, KerasPredictor)
    return loaded


def device() -> str:
    """Return what the network runs on here, in words."""
    from icemap_xr.models._backend import tf

    return GPU if tf.config.list_physical_devices("GPU") else "the processor, no GPU is seen"


def network_gflops(
    features: Sequence[str] = ("grd", "insar"),
    *,
    steps: int = PUBLISHED_STEPS,
    window: int = PUBLISHED_WINDOW,
    batch_size: int | None = None,
) -> float:
    """Return the 1e9 operations per second of the published network here: on the first GPU, or on all cores.

    Parameters
    ----------
    features, steps, window
        Of the network; its weights are random.
    batch_size
        Windows that are run at once; by default 8 on a GPU, one at a time on a processor.
    """
    names = [schema.feature(name).name for name in features]
    architecture = Architecture(steps=steps, features=len(names), window=window)
    with tempfile.TemporaryDirectory() as folder:
        model = random_model(Path(folder) / "random", architecture, names)
        size = batch_size or (8 if device() == GPU else 1)
        return measured_rate(model, size) * model.flops_per_window / 1e9


def reading_mb_per_s(href: str, access: Access | None = None, *, seconds: float = _SECONDS) -> float:
    """Return the megabytes (1e6) per second that one connection reads of a raster.

    Pixels are counted, at the bytes per pixel that plans use, so that plan and rate mean the same. Blocks are read in
    a random order: the corners of a scene hold nothing and cost nothing.

    Parameters
    ----------
    href
        Path or address of a raster such as the provider's; one that was not read a moment ago.
    access
        How it is opened; as it is by default.
    seconds
        Time after which reading ends, once a million pixels were read.

    Raises
    ------
    ReadError
        It cannot be read.
    AccessError
        The address is not allowed.
    InputError
        It is too small to tell a rate.
    """
    access, patience = access or Access(), Patience()
    access.check(href, local=True, what="the raster")
    options = GDAL_OPTIONS | access.options(href, patience)
    keys = {name: options.pop(name) for name in KEYS if name in options}
    pixels, begun = 0, time.perf_counter()
    try:
        with rasterio.Env(**options):
            setenv(**keys)
            with rasterio.open(access.signed(href, patience)) as source:
                if source.width * source.height < _LEAST:
                    raise InputError(
                        f"{scrub(href)} has {source.width * source.height:,} pixels: give a raster of at least "
                        f"{_LEAST:,} to tell a rate"
                    )
                for window in _blocks(source):
                    pixels += source.read(1, window=window).size
                    late = time.perf_counter() - begun > seconds
                    if late and pixels >= _LEAST:
                        break
    except (OSError, RasterioError) as error:
        raise ReadError(f"{scrub(href)} cannot be read ({type(error).__name__}): give another raster") from None
    return pixels * BYTES_PER_PIXEL / (time.perf_counter() - begun) / 1e6


def _blocks(source: Any) -> list[Window]:
    rows, columns = (math.ceil(size / _BLOCK) for size in (source.height, source.width))
    windows = [
        Window(j * _BLOCK, i * _BLOCK, min(_BLOCK, source.width - j * _BLOCK), min(_BLOCK, source.height - i * _BLOCK))
        for i in range(rows)
        for j in range(columns)
    ]
    return [windows[number] for number in np.random.default_rng(0).permutation(len(windows))]
