"""A whole run from a configuration: search, cube, prediction, calibration, areas, outlines, archive, picture.

It composes the stages and holds no method of its own. Every output is either finished or absent, so the same run made
again in the same folder goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import xarray as xr

from icemap_xr import schema, store
from icemap_xr.archive import archive
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.calibrate import KnotCalibrator, as_calibrator, calibrate
from icemap_xr.catalog import search
from icemap_xr.cluster import cluster
from icemap_xr.config import RunConfig
from icemap_xr.cube import build_cube
from icemap_xr.errors import EmptySearchError, OutputExistsError
from icemap_xr.grid import RegionGrid
from icemap_xr.lineage import scrub
from icemap_xr.models import load_model
from icemap_xr.outlines import outlines
from icemap_xr.plot import overview_figure, save_figure
from icemap_xr.predict import predict
from icemap_xr.providers import PROVENANCE
from icemap_xr.types import Calibrator, Predictor, StrPath
from icemap_xr.vectors import lonlat_bounds

logger = logging.getLogger("icemap_xr")

_STATE = "icemap_run.json"
#: whether the addresses in `items.json` had credentials, which are left out there
_SCRUBBED = "icemap:scrubbed"


@dataclass(frozen=True)
class RunResult:
    """What a run made.

    Parameters
    ----------
    folder
        Output folder.
    weights
        In plain words, which weights made the map.
    maps
        `probability`, and `calibrated` where there was a calibrator.
    areas
        Areas, intervals and draws.
    outlines
        Outlines by year.
    archive
        Path of the regional archive.
    """

    folder: Path
    weights: str
    maps: xr.Dataset
    areas: xr.Dataset
    outlines: gpd.GeoDataFrame
    archive: Path

    def summary(self) -> dict[str, Any]:
        """Return areas and intervals as plain JSON types."""
        grid = RegionGrid.from_dataset(self.maps)
        extent = grid.shape[0] * grid.shape[1] * grid.pixel_area_km2
        years = []
        for year in self.areas[schema.YEAR].values:
            one = self.areas.sel(year=year)
            low, high = (float(one["interval"].sel(bound=bound)) for bound in ("low", "high"))
            row = {"year": int(year), "area_km2": float(one["area_km2"]), "low_km2": low, "high_km2": high}
            observed = float(one["observed_km2"])
            years.append(row | {"observed_km2": observed, "unobserved_km2": extent - observed})
        return {"model": self.weights, "interval_kind": self.areas.attrs["interval_kind"], "years": years}


def run(config: RunConfig, output: StrPath) -> RunResult:
    """Run a configuration into a folder; resumable.

    Parameters
    ----------
    config
        The run.
    output
        Folder: new, empty, or of an interrupted run of the same configuration.

    Returns
    -------
    RunResult
        The results, opened from `output`: `items.json`, `cube.zarr`, `probability.zarr`, `<name>.zarr` (the archive)
        with `<name>.parquet` and `<name>.json` beside it, `areas.csv`, `overview.png` and `summary.json`.

    Raises
    ------
    OutputExistsError
        The folder holds something else.
    IcemapError
        Whatever the stages raise.
    """
    grid = region_grid(config)
    folder = claim_folder(output, config.digest, config.to_dict())
    options = config.model
    model = load_model(
        options.name, weights=options.weights, features=options.features, window=options.window, steps=options.steps
    )
    weights = f"{model.spec.name}: {model.spec.note}"
    logger.info("weights: %s", weights)
    with cluster(**asdict(config.cluster)):
        items = _items(config, folder / "items.json")
        cube = build_cube(
            items,
            grid,
            folder / "cube.zarr",
            features=[feature.name for feature in model.spec.features],
            years=config.years,
            year_start=config.year_start,
            **asdict(config.cube),
        )
        maps = store.save(
            predict(cube, model, **asdict(config.predict)), folder / "probability.zarr", what="predicting"
        )
        maps, calibrator = _calibrated(maps, config, model)
        areas = _areas(maps, config, model)
        shapes = outlines(maps, **asdict(config.outlines))
        path = archive(
            maps,
            folder / f"{config.name}.zarr",
            areas=areas,
            outlines=shapes,
            calibrator=calibrator,
            lineage=_lineage(config, items, model),
            region=config.name,
        )
        figure = overview_figure(maps, outlines=shapes, areas=areas, backscatter=backscatter(cube))
        save_figure(figure, folder / "overview.png")
    result = RunResult(folder, weights, maps, areas, shapes, path)
    summary = result.summary()
    write_text(folder / "areas.csv", pd.DataFrame(summary["years"]).to_csv(index=False))
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
    return result


def claim_folder(output: StrPath, digest: str, content: dict[str, Any]) -> Path:
    """Take a new or empty folder for a run, or one that the same run left unfinished."""
    folder = Path(output)
    state = folder / _STATE
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(f"{folder} is a file: choose a folder")
    if folder.exists() and any(entry.name != _STATE for entry in folder.iterdir()):
        if not state.exists():
            raise OutputExistsError(f"{folder} is not empty: choose a new folder")
        if json.loads(state.read_text())["digest"] != digest:
            raise OutputExistsError(f"{folder} holds a run of another configuration: choose a new folder")
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(state, json.dumps({"digest": digest, "config": scrub(content)}, indent=1))
    return folder


def region_grid(config: RunConfig) -> RegionGrid:
    """Return the grid of a configuration."""
    section = config.grid
    if section.bounds is not None:
        return RegionGrid.from_bbox(section.bounds, section.crs, section.resolution, bbox_crs=section.crs)
    return RegionGrid.from_bbox(lonlat_bounds(config.region), section.crs, section.resolution)


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(text)
    os.replace(temporary, path)


def _items(config: RunConfig, path: Path) -> pystac.ItemCollection:
    """Search once; a resumed run goes on with the scenes it began with.

    The record holds no credentials. Where an address had some, a resumed run searches again and keeps the same scenes.
    """
    recorded = pystac.ItemCollection.from_file(str(path)) if path.exists() else None
    if recorded is not None and not recorded.extra_fields.get(_SCRUBBED, False):
        return recorded
    found = search(
        config.search.provider,
        config.region,
        config.years,
        features=config.search.features,
        orbit_state=config.search.orbit_state,
        relative_orbit=config.search.relative_orbit,
        platforms=config.search.platforms,
        year_start=config.year_start,
        profile=config.search.profile,
    )
    if recorded is not None:
        return _same_items(found, recorded)
    for item in found:
        item.clear_links()
    content = found.to_dict()
    clean = scrub(content)
    write_text(path, json.dumps(clean | {_SCRUBBED: clean != content}, indent=1))
    logger.info("found %d items", len(found))
    return found


def _same_items(found: pystac.ItemCollection, recorded: pystac.ItemCollection) -> pystac.ItemCollection:
    """Return the found items that the run began with."""
    by_id = {item.id: item for item in found}
    lost = [item.id for item in recorded if item.id not in by_id]
    if lost:
        raise EmptySearchError(
            f"{len(lost)} scenes of the interrupted run are no longer found, the first is {lost[0]!r}: "
            "start again in a new folder"
        )
    return pystac.ItemCollection([by_id[item.id] for item in recorded], extra_fields=recorded.extra_fields)


def _calibrated(maps: xr.Dataset, config: RunConfig, model: Predictor) -> tuple[xr.Dataset, Calibrator | None]:
    """Calibrate with the configured file, else with the model's own calibration, else not at all."""
    bundle = getattr(model, "bundle", None)
    if config.area.calibrator is not None:
        calibrator = as_calibrator(config.area.calibrator)
    elif bundle is not None and bundle.calibration is not None:
        calibrator = KnotCalibrator.from_json(bundle.calibration)
    else:
        logger.warning("the probabilities are not calibrated: no calibrator was given and the model brings none")
        return maps, None
    return calibrate(maps, calibrator), calibrator


def _areas(maps: xr.Dataset, config: RunConfig, model: Predictor) -> xr.Dataset:
    options = config.area
    bundle = getattr(model, "bundle", None)
    return bootstrap_area(
        maps,
        block=options.block,
        n=options.draws,
        seed=options.seed,
        kind=options.interval,
        estimator=options.estimator,
        method=options.method,
        level=options.level,
        block_errors=bundle.block_errors if bundle is not None and options.interval == "mapping" else None,
    )


def _lineage(config: RunConfig, items: pystac.ItemCollection, model: Predictor) -> dict[str, Any]:
    spec = model.spec
    return {
        "stac_items": [item.id for item in items],
        "search": items.extra_fields.get(PROVENANCE, {}),
        "model": {
            "name": spec.name,
            "sha256": spec.digest,
            "note": spec.note,
            "features": [feature.name for feature in spec.features],
            "steps": spec.steps,
            "window": spec.window,
        },
        "config": config.to_dict(),
    }


def backscatter(cube: xr.Dataset) -> xr.DataArray:
    """Return the mean of the last year's scenes of the first feature, for the picture."""
    name = next(one for one in schema.FEATURES if one in cube)
    one = schema.feature(name)
    chosen = np.unique(cube[one.index].values[-1])
    scenes = cube[name].isel({one.time: chosen[chosen >= 0]})
    mean: xr.DataArray = scenes.mean(one.time, skipna=True).compute()
    return mean.assign_attrs(long_name=f"mean {name}", units=one.units)
