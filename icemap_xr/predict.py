"""Map a model over a region: ``predict(cube, model) -> probability``, the same for any chunking and worker count.

Output blocks come from the region's grid alone. From an untouched cube opened by `open_cube` each block is one task
that reads its own slice from the store; from any other dataset it is the same slice, taken lazily or in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import xarray as xr

from icemap_xr import schema
from icemap_xr.blockjob import Blocks, Job, run
from icemap_xr.errors import CroppedCubeWarning, InputError, ModelMismatchError, ModelMismatchWarning, warn
from icemap_xr.grid import RegionGrid
from icemap_xr.kernels.windows import Blend, WindowGrid
from icemap_xr.types import FeatureSpec, Predictor
from icemap_xr.vectors import union_in_crs
from icemap_xr.yearindex import Gaps, select_years

Classes = Literal["glacier", "all"]


def predict(
    ds: xr.Dataset,
    model: Predictor,
    *,
    overlap: float = 0.5,
    blend: Blend = "gaussian",
    sigma: float = 0.5,
    edges: str = "published",
    aoi: Any = None,
    mask: xr.DataArray | None = None,
    batch_size: int | None = None,
    precision: str = "float32",
    classes: Classes = "glacier",
    years: Sequence[int] | None = None,
    gaps: Gaps = "error",
) -> xr.Dataset:
    """Return the probability of glacier for each year and pixel; lazy where `ds` is lazy.

    Parameters
    ----------
    ds
        A native cube (`open_cube`) or a model view `(year, step, y, x)`, with a projected CRS; features in the units of
        the model's specification.
    model
        What `load_model` returns, or any Predictor.
    overlap
        Share of a window that overlaps with the next, 0 <= overlap < 1; the stride is a whole number of pixels.
    blend
        ``"gaussian"`` (published) or ``"crop"``.
    sigma
        Width of the Gaussian as a share of half a window.
    edges
        ``"published"``: windows that reach past the region's far edges are padded with zeros.
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
        Years to map; all by default.
    gaps
        What to do with a step without a scene: ``"error"``, ``"nearest"`` or ``"nodata"``.

    Returns
    -------
    xarray.Dataset
        `probability (year, y, x)` float32 in 0..1; NaN where some feature has no observation in the whole year, and
        outside `aoi` or `mask`.

    Raises
    ------
    SchemaError
        The dataset lacks a feature, dim, unit or CRS.
    ModelMismatchError
        Steps differ, or the model does not know the precision.
    InputError
        An option is out of range.

    Warns
    -----
    CroppedCubeWarning
        The dataset is a piece of a larger grid.
    ModelMismatchWarning
        Polarisation or radiometry differ from the model's.
    """
    _check_options(overlap, blend, sigma, edges, classes, batch_size)
    ds = select_years(_checked(ds, model), years)
    grid = RegionGrid.from_dataset(ds)
    if grid.is_cropped:
        warn(
            f"the cube is {grid.shape} of a region of {grid.region_shape} pixels: within a window of the cut the map "
            "differs from the region's; use predict(aoi=) on the full cube instead",
            CroppedCubeWarning,
        )
    window = model.spec.window
    stride = max(1, round(window * (1 - overlap)))
    job = Job(
        model=_at_precision(model, precision),
        windows=WindowGrid(window, stride, grid.region_shape, blend, sigma),
        blocks=Blocks.of(grid, stride),
        batch_size=batch_size or max(1, (384 // window) ** 2),
        all_classes=classes == "all",
        aoi=None if aoi is None else union_in_crs(aoi, grid.crs).wkb,
        transform=grid.geobox.transform,
    )
    result = run(ds, job, _checked_mask(mask, grid), gaps)
    options = {"overlap": overlap, "blend": blend, "sigma": sigma, "edges": edges, "precision": precision, "gaps": gaps}
    return _package(result, ds, grid, job, options)


def _check_options(overlap: float, blend: str, sigma: float, edges: str, classes: str, batch_size: int | None) -> None:
    if not 0 <= overlap < 1:
        raise InputError(f"overlap={overlap} is not allowed: give a share from 0 up to, not including, 1")
    if not sigma > 0:
        raise InputError(f"sigma={sigma} is not allowed: give a width > 0")
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size={batch_size} is not allowed: give at least 1")
    for name, value, allowed in (
        ("edges", edges, ("published",)),
        ("blend", blend, ("gaussian", "crop")),
        ("classes", classes, ("glacier", "all")),
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


def _checked_mask(mask: xr.DataArray | None, grid: RegionGrid) -> Any:
    if mask is None:
        return None
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
    if job.all_classes:
        coords["class"] = list(spec.classes)
        variables = {
            schema.PROBABILITY: (dims, result[:, spec.glacier_index], attrs),
            "class_probability": ((schema.YEAR, "class", schema.Y, schema.X), result, attrs | {"long_name": "class"}),
        }
    else:
        variables = {schema.PROBABILITY: (dims, result, attrs)}
    provenance = {
        "model": spec.name,
        "model_sha256": spec.digest,
        "model_note": spec.note,
        "window": spec.window,
        "stride": job.windows.stride,
        **options,
    }
    return xr.Dataset(variables, coords=coords, attrs=provenance)
