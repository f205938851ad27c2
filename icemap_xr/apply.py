"""Map glaciers straight from GeoTIFFs to a GeoTIFF: ``apply(files, model, output)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from icemap_xr.cog import check_new, write_cog
from icemap_xr.errors import InputError, ModelMismatchError
from icemap_xr.geotiffs import check_lists, cube_from_geotiffs
from icemap_xr.grid import RegionGrid
from icemap_xr.predict import predict
from icemap_xr.types import Predictor, StrPath


def apply(
    files: Mapping[str, Sequence[StrPath]],
    model: Predictor,
    output: StrPath,
    *,
    reference: StrPath | None = None,
    overlap: float = 0.5,
    batch_size: int | None = None,
    precision: str = "float32",
) -> Path:
    """Write the class probabilities of one year's GeoTIFFs as a Cloud-Optimized GeoTIFF, in bounded memory.

    Parameters
    ----------
    files
        For each feature of the model its rasters in order of time, one per step: backscatter in dB, coherence in 0..1.
        What counts as nodata is told at `cube_from_geotiffs`.
    model
        What `load_model` returns, or any Predictor.
    output
        New file: float32, one band per class in the model's order (published models: not glacier, glacier), NaN where
        some feature has no observation in any step.
    reference
        Raster whose grid is used; by default the first raster of the model's first feature.
    overlap
        Share of a window that overlaps with the next, 0 <= overlap < 1.
    batch_size
        Windows per model call.
    precision
        ``"float32"`` or ``"bfloat16"``.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputError
        The number of rasters is not the model's number of steps, or a raster cannot be used.
    ModelMismatchError
        The features are not the model's.
    OutputExistsError
        `output` exists.
    ReadError
        A raster could not be read.
    """
    check_new(Path(output))
    _check_files(files, model)
    files = {feature.name: files[feature.name] for feature in model.spec.features}
    # the label is not written to the map
    ds = cube_from_geotiffs(files, reference=reference, year=0)
    maps = predict(ds, model, overlap=overlap, batch_size=batch_size, precision=precision, classes="all")
    tags = {**maps.attrs, "TIFFTAG_SOFTWARE": f"icemap-xr {version('icemap-xr')}"}
    return write_cog(
        maps["class_probability"].isel(year=0),
        RegionGrid.from_dataset(ds),
        output,
        descriptions=model.spec.classes,
        tags=tags,
        what="predicting",
    )


def _check_files(files: Mapping[str, Sequence[StrPath]], model: Predictor) -> None:
    check_lists(files)
    spec = model.spec
    wanted = [feature.name for feature in spec.features]
    if set(files) != set(wanted):
        raise ModelMismatchError(
            f"model {spec.name!r} needs rasters of {' and '.join(wanted)}, given are {' and '.join(files)}: "
            "give these features, or choose a model for those"
        )
    for name, paths in files.items():
        if len(paths) != spec.steps:
            raise InputError(
                f"{len(paths)} {name} rasters were given, model {spec.name!r} needs {spec.steps}: "
                "give one raster per step, in order of time"
            )
