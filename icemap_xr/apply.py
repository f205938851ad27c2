"""Map glaciers straight from GeoTIFFs to a GeoTIFF, and to a regional archive: ``apply(files, model, output)``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

import xarray as xr

from icemap_xr import schema
from icemap_xr.archive import archive as write_archive
from icemap_xr.archive import check_names
from icemap_xr.area import area
from icemap_xr.calibrate import as_calibrator, calibrate
from icemap_xr.cog import check_new, write_cog
from icemap_xr.errors import InputError, ModelMismatchError, StoreError
from icemap_xr.geotiffs import check_lists, cube_from_geotiffs
from icemap_xr.grid import RegionGrid
from icemap_xr.outlines import outlines
from icemap_xr.predict import predict
from icemap_xr.sidecars import sidecar_paths
from icemap_xr.store import save
from icemap_xr.types import Predictor, StrPath

_WHAT = "predicting"


def apply(
    files: Mapping[str, Sequence[StrPath]],
    model: Predictor,
    output: StrPath,
    *,
    reference: StrPath | None = None,
    overlap: float = 0.5,
    batch_size: int | None = None,
    precision: str = "float32",
    archive: StrPath | None = None,
    year: int | None = None,
    region: str = "region",
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
    archive
        New Zarr store for the regional archive of the same map, see `icemap_xr.archive.archive`: with outlines, areas
        and, where the model brings a calibration, calibrated probability. The map then lies on disk a second time
        while it is made.
    year
        For the archive, the year of the map; by default the one that all dates in the file names are of.
    region
        For the archive, the name of the region.

    Returns
    -------
    Path
        `output`.

    Raises
    ------
    InputError
        The number of rasters is not the model's number of steps, a raster cannot be used, or an archive is asked for
        and no year is known.
    ModelMismatchError
        The features are not the model's.
    OutputExistsError
        `output`, the archive or a file beside it exists.
    ReadError
        A raster could not be read.
    """
    output = Path(output)
    check_new(output)
    declared = _declared(model)
    _check_files(files, model, declared)
    files = {feature.name: files[feature.name] for feature in model.spec.features}
    if archive is not None:
        check_names(Path(archive), region)
        for path in (Path(archive), *sidecar_paths(Path(archive))):
            check_new(path)
    elif year is None:
        year = 0  # the label is not written to the map
    ds = cube_from_geotiffs(files, reference=reference, year=year, declared=declared)
    if archive is not None and not int(ds[schema.YEAR][0]):
        raise InputError("the dates in the file names do not agree on a year: give year= for the archive")
    maps = predict(ds, model, overlap=overlap, batch_size=batch_size, precision=precision, classes="all")
    if archive is None:
        return _write_map(maps, model, output, _WHAT)
    lineage = {"model": _told(model), "rasters": {name: [_name(one) for one in found] for name, found in files.items()}}
    return _write_both(maps, model, output, Path(archive), lineage, region)


def _write_map(maps: xr.Dataset, model: Predictor, output: Path, what: str) -> Path:
    tags = {**maps.attrs, "TIFFTAG_SOFTWARE": f"icemap-xr {version('icemap-xr')}"}
    return write_cog(
        maps["class_probability"].isel(year=0),
        RegionGrid.from_dataset(maps),
        output,
        descriptions=model.spec.classes,
        tags=tags,
        what=what,
    )


def _write_both(
    maps: xr.Dataset, model: Predictor, output: Path, archive: Path, lineage: Mapping[str, Any], region: str
) -> Path:
    """Compute the map once, into a hidden folder, and make both products of it; they appear when both are whole."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=f".{archive.name}.") as name:
        folder = Path(name)
        # names of classes are text of fixed length, which Zarr v3 has no data type for; nothing here needs them
        stored = save(maps.drop_vars("class"), folder / "maps.zarr", what=_WHAT)
        bundle = getattr(model, "bundle", None)
        calibrator = None
        if bundle is not None and bundle.calibration is not None:
            calibrator = as_calibrator(bundle.calibration)
            stored = calibrate(stored, calibrator)
        made = write_archive(
            stored,
            folder / archive.name,
            areas=area(stored, method="hard" if calibrator is None else "soft"),
            outlines=outlines(stored),
            calibrator=calibrator,
            lineage=lineage,
            region=region,
        )
        _write_map(stored, model, output, "writing GeoTIFF")
        try:
            for source, target in zip((*sidecar_paths(made), made), (*sidecar_paths(archive), archive), strict=True):
                check_new(target)
                os.replace(source, target)
        except OSError as error:
            raise StoreError(f"{archive} could not be put in place ({error.strerror}): check its folder") from None
    return output


def _told(model: Predictor) -> dict[str, Any]:
    """Return what an archive says about its model."""
    spec = model.spec
    features = [feature.name for feature in spec.features]
    words = {"name": spec.name, "sha256": spec.digest, "note": spec.note}
    return {**words, "features": features, "steps": spec.steps, "window": spec.window}


def _name(path: StrPath) -> str:
    return PurePath(os.fspath(path)).name


def _declared(model: Predictor) -> dict[str, schema.Feature]:
    """Return the model's features that are not among those of every cube."""
    found = {}
    for one in model.spec.features:
        if one.name in schema.FEATURES:
            continue
        if one.units not in ("dB", "1"):
            raise ModelMismatchError(
                f"model {model.spec.name!r} takes {one.name} in {one.units!r}: rasters can be read in 'dB' and '1' only"
            )
        found[one.name] = schema.Feature(one.name, one.name, one.units, one.minimum, one.maximum, 0.0)
    return found


def _check_files(
    files: Mapping[str, Sequence[StrPath]], model: Predictor, declared: Mapping[str, schema.Feature]
) -> None:
    check_lists(files, {**schema.FEATURES, **declared})
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
