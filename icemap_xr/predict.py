"""Map a model over a region: ``predict(cube, model) -> probability``, the same for any chunking and worker count.

Output blocks come from the region's grid alone. From an untouched cube opened by `open_cube` each block is one task
that reads its own slice from the store; from any other dataset it is the same slice, taken lazily or in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from shapely import box

from icemap_xr import schema
from icemap_xr.blockjob import Blocks, Job, run
from icemap_xr.errors import CroppedCubeWarning, InputError, ModelMismatchError, ModelMismatchWarning, warn
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.infer import Dropout, Tta
from icemap_xr.kernels.windows import Blend, Edges, WindowGrid
from icemap_xr.types import FeatureSpec, Predictor, SamplingPredictor
from icemap_xr.vectors import union_in_crs
from icemap_xr.workload import check_memory, make_plan
from icemap_xr.yearindex import Gaps, select_years

Classes = Literal["glacier", "all"]

#: exp(-1 / sigma^2), the published weight of a window's corner, is above float32's smallest normal number
_LEAST_SIGMA = 0.11
#: with more, all pixels of a window weigh the same to 1e-4: a plain mean
_MOST_SIGMA = 100


def predict(
    ds: xr.Dataset,
    model: Predictor,
    *,
    window: int | None = None,
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    sigma: float = 0.5,
    edges: Edges = "published",
    tta: Tta | None = None,
    mc_dropout: int = 0,
    mc_rate: float = 0.05,
    seed: int = 0,
    aoi: Any = None,
    mask: xr.DataArray | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    classes: Classes = "glacier",
    years: Sequence[int] | None = None,
    gaps: Gaps = "error",
    memory_limit: str | int | None = None,
    dry_run: bool = False,
) -> Any:
    """Return the probability of glacier for each year and pixel; lazy where `ds` is lazy.

    Parameters
    ----------
    ds
        A native cube (`open_cube`) or a model view `(year, step, y, x)`, with a projected CRS; features in the units of
        the model's specification.
    model
        What `load_model` returns, or any Predictor.
    window
        Window side in pixels, a multiple of 8; the model's own by default. The default network pools over its whole
        window, so another side than in training gives another map, and warns.
    overlap
        Share of a window that overlaps with the next, 0 <= overlap < 1; the stride is a whole number of pixels.
    blend
        ``"gaussian"`` (published) or ``"crop"``.
    sigma
        Width of the Gaussian as a share of half a window, 0.11 to 100.
    edges
        ``"published"``: windows begin at every multiple of the stride; those that reach past the region's far edges
        are padded with zeros. ``"valid"``: the last windows end at the region's edges instead, and a window counts in
        proportion to the share of its pixels that are observed. Only a region narrower than a window is padded.
    tta
        ``"dihedral"``: the mean over the square's 8 symmetries, at 8 times the cost.
    mc_dropout
        Passes with random channels dropped, 2 or more; `probability` is then their mean, `probability_std` their
        standard deviation. 0 for none.
    mc_rate
        Share of channels dropped in a pass; 0.05 is the published rate.
    seed
        Seed of the dropped channels. They depend on it, on the pass and on the window's place in the region; a pass
        drops the same channels in all years.
    aoi
        Area of interest: a GeoDataFrame, a shapely geometry in lon/lat, or a box (west, south, east, north) in lon/lat.
        Pixels whose centre lies outside become NaN; inside, values are exactly those of the full map.
    mask
        Boolean `(y, x)` on the same grid; pixels that are False become NaN. Also with `aoi`: both must hold.
    batch_size
        Windows per model call; by default so many that a batch has about the pixels of one 384 window.
    precision
        ``"float32"`` or ``"bfloat16"`` (faster where the processor knows it, less exact).
    classes
        ``"glacier"``, or ``"all"`` to add `class_probability (year, class, y, x)`.
    years
        Years to map, at least one; all by default.
    gaps
        What to do with a step without a scene: ``"error"``, ``"nearest"`` or ``"nodata"``.
    memory_limit
        Memory that a worker may take, bytes or text such as ``"8GiB"``; a prediction that would need more is refused
        before it starts. By default the Dask workers' own limit, without a cluster this machine's memory.
    dry_run
        Run nothing, and return a `Plan`: windows, operations, bytes read, memory per worker.

    Returns
    -------
    xarray.Dataset or Plan
        `probability (year, y, x)` float32 in 0..1; NaN where some feature has no observation in the whole year, and
        outside `aoi` or `mask`. With `mc_dropout` also `probability_std (year, y, x)` float32: how much the blended
        map varies between passes (n - 1 in the divisor).

    Raises
    ------
    SchemaError
        The dataset lacks a feature, dim, unit or CRS.
    ModelMismatchError
        Steps differ, or the model does not know the precision, window or dropout asked for.
    InputError
        An option is out of range, or a worker's memory would not suffice.

    Warns
    -----
    CroppedCubeWarning
        The dataset is a piece of a larger grid.
    ModelMismatchWarning
        Polarisation, radiometry or window differ from the model's.
    """
    _check_options(overlap, blend, sigma, edges, classes, batch_size, tta)
    dropout = _checked_dropout(model, mc_dropout, mc_rate, seed)
    ds = select_years(_checked(ds, model), years)
    grid = RegionGrid.from_dataset(ds)
    if grid.is_cropped:
        warn(
            f"the cube is {grid.shape} of a region of {grid.region_shape} pixels: within a window of the cut the map "
            "differs from the region's; use predict(aoi=) on the full cube instead",
            CroppedCubeWarning,
        )
    model = _at_window(_at_precision(model, precision), window)
    window = model.spec.window
    stride = max(1, round(window * (1 - overlap)))
    job = Job(
        model=model,
        windows=WindowGrid(window, stride, grid.region_shape, blend, sigma, edges),
        blocks=Blocks.of(grid, stride),
        batch_size=batch_size or max(1, (384 // window) ** 2),
        all_classes=classes == "all",
        aoi=None if aoi is None else _checked_aoi(aoi, grid),
        transform=grid.geobox.transform,
        tta=tta,
        dropout=dropout,
        precision=precision,
    )
    wanted = _checked_mask(mask, grid)
    if dry_run:
        return make_plan(ds, job, wanted, memory_limit)
    check_memory(ds, job, wanted, memory_limit)
    result = run(ds, job, wanted, gaps)
    options = {"overlap": overlap, "blend": blend, "sigma": sigma, "edges": edges, "precision": precision, "gaps": gaps}
    if tta is not None:
        options["tta"] = tta
    if dropout is not None:
        options |= {"mc_dropout": mc_dropout, "mc_rate": mc_rate, "seed": seed}
    return _package(result, ds, grid, job, options)


def _is(value: object, kind: type) -> bool:
    """Return whether a value is a number of a kind; True and False are none."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_options(
    overlap: float, blend: str, sigma: float, edges: str, classes: str, batch_size: int | None, tta: str | None
) -> None:
    if not (_is(overlap, Real) and 0 <= overlap < 1):
        raise InputError(f"overlap={overlap!r} is not allowed: give a share from 0 up to, not including, 1")
    if not (_is(sigma, Real) and _LEAST_SIGMA <= sigma <= _MOST_SIGMA):
        raise InputError(
            f"sigma={sigma!r} is not allowed: give a width from {_LEAST_SIGMA} to {_MOST_SIGMA}; with less, the "
            "weights of a window's corners are 0 in float32, with more, all weights are the same"
        )
    if batch_size is not None and not (_is(batch_size, Integral) and batch_size >= 1):
        raise InputError(f"batch_size={batch_size!r} is not allowed: give a whole number, at least 1")
    for name, value, allowed in (
        ("edges", edges, get_args(Edges)),
        ("blend", blend, get_args(Blend)),
        ("classes", classes, get_args(Classes)),
        ("tta", tta, (*get_args(Tta), None)),
    ):
        if value not in allowed:
            raise InputError(f"{name}={value!r} is not allowed: choose {' or '.join(map(repr, allowed))}")


def _checked(ds: xr.Dataset, model: Predictor) -> xr.Dataset:
    """Return the dataset if it offers what the model needs."""
    spec = model.spec
    names = tuple(feature.name for feature in spec.features)
    if schema.is_native(ds):
        have = schema.validate_cube(ds, "predict")
        absent = [name for name in names if name not in have]
        if absent:
            raise ModelMismatchError(
                f"model {spec.name!r} needs {', '.join(names)}; the cube has {', '.join(have)}: "
                f"add {', '.join(absent)} to the cube or choose a model for these features"
            )
    else:
        schema.validate_yearly(ds, names)
    steps = ds.sizes[schema.STEP]
    if steps != spec.steps:
        raise ModelMismatchError(
            f"the cube has {steps} steps a year, model {spec.name!r} needs {spec.steps}: build the cube with "
            f"steps={spec.steps}, or load the model with steps={steps} if its weights were trained so"
        )
    for feature in spec.features:
        _warn_of_mismatch(feature, ds[feature.name].attrs)
    return ds


def _warn_of_mismatch(feature: FeatureSpec, attrs: Mapping[str, Any]) -> None:
    for name, wanted in (("polarisation", feature.polarisation), ("radiometry", feature.radiometry)):
        have = attrs.get(name)
        if wanted is not None and have is not None and have != wanted:
            warn(
                f"{feature.name} has {name} {have}, the model was trained on {wanted}: expect a worse map",
                ModelMismatchWarning,
            )


def _at_precision(model: Predictor, precision: str) -> Predictor:
    if precision == "float32":
        return model
    if precision != "bfloat16":
        raise InputError(f"precision={precision!r} is not allowed: choose 'float32' or 'bfloat16'")
    change = getattr(model, "with_precision", None)
    if change is None:
        raise ModelMismatchError(f"model {model.spec.name!r} cannot run in {precision}: use precision='float32'")
    changed: Predictor = change(precision)
    return changed


def _at_window(model: Predictor, window: int | None) -> Predictor:
    spec = model.spec
    if window is None:
        return model
    if not _is(window, Integral) or window < 8 or window % 8:
        raise InputError(f"window={window!r} is not allowed: give a multiple of 8, or leave it out for {spec.window}")
    if window == spec.window:
        return model
    change = getattr(model, "with_window", None)
    if change is None:
        raise ModelMismatchError(
            f"model {spec.name!r} takes windows of {spec.window} px only: leave window={window} out, or give the "
            "model a method with_window(side)"
        )
    warn(
        f"model {spec.name!r} has windows of {spec.window} px, it is run with {window}: a network that pools over its "
        "whole window gives another map; check it against labels before use",
        ModelMismatchWarning,
    )
    changed: Predictor = change(int(window))
    return changed


def _checked_dropout(model: Predictor, passes: int, rate: float, seed: int) -> Dropout | None:
    if passes == 0:
        return None
    if not _is(passes, Integral) or passes < 2:
        raise InputError(f"mc_dropout={passes!r} is not allowed: give 2 or more passes, or 0 for none")
    if not (_is(rate, Real) and 0 < rate < 1):
        raise InputError(f"mc_rate={rate!r} is not allowed: give a share of channels between 0 and 1")
    if not _is(seed, Integral) or seed < 0:
        raise InputError(f"seed={seed!r} is not allowed: give a whole number of 0 or more")
    if not isinstance(model, SamplingPredictor):
        raise ModelMismatchError(
            f"model {model.spec.name!r} cannot drop channels (it has no sample()): use mc_dropout=0"
        )
    return Dropout(int(passes), float(rate), int(seed))


def _checked_aoi(aoi: Any, grid: RegionGrid) -> bytes:
    area = union_in_crs(aoi, grid.crs)
    if not area.intersects(box(*grid.geobox.boundingbox)):
        bounds = tuple(round(one) for one in area.bounds)
        raise InputError(
            f"aoi lies outside the dataset: its bounds are {bounds}, the dataset's "
            f"{tuple(round(one) for one in grid.geobox.boundingbox)}: check its coordinates and its CRS"
        )
    found: bytes = area.wkb
    return found


def _checked_mask(mask: xr.DataArray | None, grid: RegionGrid) -> Any:
    if mask is None:
        return None
    if not isinstance(mask, xr.DataArray):
        raise InputError(f"mask is a {type(mask).__name__}: give a boolean DataArray with dims y and x")
    if mask.dims != (schema.Y, schema.X) or mask.shape != grid.shape:
        raise InputError(f"mask has {dict(mask.sizes)}, needed is y, x of shape {grid.shape}: use the cube's own grid")
    for axis, centres in zip((schema.Y, schema.X), (grid.coords()[schema.Y], grid.coords()[schema.X]), strict=True):
        if axis in mask.coords and not np.allclose(mask[axis], centres, rtol=0, atol=grid.resolution / 100):
            raise InputError(f"mask lies on another grid along {axis}: resample it to the cube's grid first")
    if mask.dtype != bool:
        raise InputError(f"mask has dtype {mask.dtype}: make it boolean, for example mask == 1")
    return mask.data


def _package(result: Any, ds: xr.Dataset, grid: RegionGrid, job: Job, options: Mapping[str, Any]) -> xr.Dataset:
    """Give the blocks their names, coordinates and provenance."""
    spec = job.model.spec
    attrs = {
        "long_name": f"probability of {spec.glacier_class}",
        "units": "1",
        "grid_mapping": schema.SPATIAL_REF,
    }
    coords: dict[str, Any] = {schema.YEAR: ds[schema.YEAR].values, **grid.coords()}
    dims = (schema.YEAR, schema.Y, schema.X)
    glacier = result[:, job.classes.index(spec.glacier_index)] if job.class_axis else result
    variables: dict[str, Any] = {schema.PROBABILITY: (dims, glacier, attrs)}
    if job.dropout is not None:
        name = f"standard deviation of the probability of {spec.glacier_class} over passes with dropped channels"
        variables["probability_std"] = (dims, result[:, -1], attrs | {"long_name": name})
    if job.all_classes:
        coords["class"] = list(spec.classes)
        stack = result[:, : len(spec.classes)]
        all_attrs = attrs | {"long_name": "probability of each class"}
        variables["class_probability"] = ((schema.YEAR, "class", schema.Y, schema.X), stack, all_attrs)
    provenance = {
        "model": spec.name,
        "model_sha256": spec.digest,
        "model_note": spec.note,
        "window": spec.window,
        "stride": job.windows.stride,
        **options,
    }
    return xr.Dataset(variables, coords=coords, attrs=provenance)
