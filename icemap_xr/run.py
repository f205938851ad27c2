"""A whole run from a configuration: search, cube, prediction, calibration, areas, outlines, archive, picture.

It composes the stages and holds no method of its own. Every output is either finished or absent, so the same run made
again in the same folder goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pystac
import xarray as xr

from icemap_xr import objectstore, schema, store
from icemap_xr.archive import archive
from icemap_xr.arealscale import GroundWeights
from icemap_xr.blocktable import block_table
from icemap_xr.bootstrap import bootstrap_area
from icemap_xr.calibrate import KnotCalibrator, as_calibrator, calibrate
from icemap_xr.cluster import cluster
from icemap_xr.config import RunConfig
from icemap_xr.divides import DivideOptions, divide
from icemap_xr.elevation import read_dem
from icemap_xr.errormodel import load_block_errors
from icemap_xr.errors import OutputExistsError
from icemap_xr.folders import write_text
from icemap_xr.footprints import grid_over
from icemap_xr.grid import RegionGrid
from icemap_xr.ground import ground_mask, marked_km2
from icemap_xr.inventory import rgi7_table
from icemap_xr.lineage import scrub
from icemap_xr.models import load_model
from icemap_xr.models.registry import published_address
from icemap_xr.outlineareas import load_edge_errors
from icemap_xr.outlines import outlines
from icemap_xr.plot import overview_figure, save_figure
from icemap_xr.providers import PROVENANCE
from icemap_xr.run_maps import map_region
from icemap_xr.runwatch import watched
from icemap_xr.temporal import filter_years
from icemap_xr.types import Calibrator, Predictor, StrPath
from icemap_xr.vectors import as_frame

logger = logging.getLogger("icemap_xr")

_STATE = "icemap_run.json"


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
        Outlines by year, with the scenes they come from.
    archive
        Path of the regional archive.
    glaciers
        Glaciers by year with the RGI 7 columns, where the configuration has a DEM.
    """

    folder: Path
    weights: str
    maps: xr.Dataset
    areas: xr.Dataset
    outlines: gpd.GeoDataFrame
    archive: Path
    glaciers: gpd.GeoDataFrame | None = None

    def holes(self) -> list[dict[str, Any]]:
        """Return what could not be read and was accepted as a hole (`cube.on_error`), of the cubes of all orbits."""
        cubes = [path for path in sorted(self.folder.glob("**/cube.zarr")) if path.is_dir()]
        return [hole for path in cubes for hole in store.read_manifest(path).get("missing", [])]

    def summary(self) -> dict[str, Any]:
        """Return areas and intervals as plain JSON types."""
        extent = float(self.areas.attrs["domain_km2"])
        years = []
        for year in self.areas[schema.YEAR].values:
            one = self.areas.sel(year=year)
            low, high = (float(one["interval"].sel(bound=bound)) for bound in ("low", "high"))
            row = {"year": int(year), "area_km2": float(one["area_km2"]), "low_km2": low, "high_km2": high}
            observed = float(one["observed_km2"])
            years.append(row | {"observed_km2": observed, "unobserved_km2": extent - observed})
        kind = self.areas.attrs["interval_kind"]
        return {"model": self.weights, "interval_kind": kind, "holes": len(self.holes()), "years": years}


def run(config: RunConfig, output: StrPath, *, publish: str | None = None) -> RunResult:
    """Run a configuration into a folder; resumable.

    Parameters
    ----------
    config
        The run.
    output
        Folder: new, empty, or of an interrupted run of the same configuration.
    publish
        Address in a bucket to which the archive is copied at the end, such as ``"s3://bucket/svalbard.zarr"``. That it
        can be written is tried before work begins.

    Returns
    -------
    RunResult
        The results, opened from `output`: `items.json`, `cube.zarr` (with several orbits, in a folder for each, beside
        the map of that orbit), `probability.zarr`, `<name>.zarr` (the archive)
        with `<name>.parquet`, `<name>.glaciers.parquet` (with a DEM) and `<name>.json` beside it, `areas.csv`,
        `overview.png` and `summary.json`.

    Raises
    ------
    OutputExistsError
        The folder or the address holds something else.
    StoreError
        The bucket cannot be written.
    IcemapError
        Whatever the stages raise.
    """
    grid = region_grid(config)
    if publish is not None and not (Path(output) / f"{config.name}.zarr").exists():
        objectstore.check_writable(publish)
    folder = claim_folder(output, config.digest, config.to_dict())
    options = config.model
    model = load_model(
        options.name, weights=options.weights, features=options.features, window=options.window, steps=options.steps
    )
    weights = f"{model.spec.name}: {model.spec.note}"
    logger.info("weights: %s", weights)
    with cluster(**asdict(config.cluster)) as client, watched(client, model, folder):
        domain = None if config.predict.aoi is None else ground_mask(config.predict.aoi, grid)
        items, cube, maps = map_region(config, grid, model, folder, domain)
        maps, calibrator = _calibrated(_filtered(maps, config), config, model)
        areas = _areas(maps, config, model, domain)
        shapes = outlines(maps, **_outline_options(config, model))
        glaciers = _glaciers(shapes, grid, config)
        path = archive(
            maps,
            folder / f"{config.name}.zarr",
            areas=areas,
            outlines=shapes,
            glaciers=glaciers,
            blocks=None if config.area.tiles is not None else _blocks(maps, areas),
            calibrator=calibrator,
            lineage=_lineage(config, items, model, maps),
            region=config.name,
        )
        figure = overview_figure(maps, outlines=shapes, areas=areas, backscatter=backscatter(cube))
        save_figure(figure, folder / "overview.png")
    result = RunResult(folder, weights, maps, areas, shapes, path, glaciers)
    summary = result.summary()
    write_text(folder / "areas.csv", pd.DataFrame(summary["years"]).to_csv(index=False))
    write_text(folder / "summary.json", json.dumps(summary, indent=1))
    if publish is not None:
        objectstore.publish(path, publish)
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
    return grid_over(config.region, section.crs, section.resolution)


def _filtered(maps: xr.Dataset, config: RunConfig) -> xr.Dataset:
    """Filter the maps over the years where the configuration says so: before they are calibrated."""
    options = config.area
    if options.filter == "none":
        return maps
    return filter_years(maps, method=options.filter, window=options.filter_window, stay=options.filter_stay)


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


def _areas(maps: xr.Dataset, config: RunConfig, model: Predictor, domain: xr.DataArray | None) -> xr.Dataset:
    """Return areas and intervals within the domain, whose own area is recorded too."""
    options = config.area
    bundle = getattr(model, "bundle", None)
    grid = RegionGrid.from_dataset(maps)
    extent = grid.shape[0] * grid.shape[1] * grid.pixel_area_km2
    errors = bundle.block_errors if bundle is not None and options.interval == "mapping" else None
    areas = bootstrap_area(
        maps,
        domain=domain,
        block=options.block if options.tiles is None else as_frame(options.tiles),
        n=options.draws,
        seed=options.seed,
        kind=options.interval,
        estimator=options.estimator,
        method=options.method,
        level=options.level,
        interval=options.bounds,
        area_kind=options.area_kind,
        block_errors=errors if options.block_errors is None else load_block_errors(options.block_errors),
    )
    return areas.assign_attrs(domain_km2=extent if domain is None else marked_km2(domain, grid))


def _outline_options(config: RunConfig, model: Predictor) -> dict[str, Any]:
    """Return the options of `outlines`, with the edge errors that are in a file, else those the model brings.

    The model's own are those of single years at one threshold, and hold for nothing else.
    """
    options, bundle = asdict(config.outlines), getattr(model, "bundle", None)
    if config.outlines.edge_errors is not None:
        options["edge_errors"] = load_edge_errors(config.outlines.edge_errors)
        return options
    own = None if bundle is None else bundle.edge_errors
    if own is not None and config.area.filter == "none" and own["threshold"] == config.outlines.threshold:
        options["edge_errors"] = own
    return options


def _glaciers(shapes: gpd.GeoDataFrame, grid: RegionGrid, config: RunConfig) -> gpd.GeoDataFrame | None:
    """Divide the outlines into glaciers where the configuration has a DEM."""
    section = config.glaciers
    if section.dem is None:
        return None
    dem = read_dem(section.dem, grid)
    earlier = None if section.earlier is None else as_frame(section.earlier)
    glaciers = divide(shapes, dem, earlier=earlier, options=DivideOptions(pixel_size=section.pixel_size))
    return rgi7_table(glaciers, dem, dem_source=section.dem_source or Path(section.dem).stem)


def _blocks(maps: xr.Dataset, areas: xr.Dataset) -> xr.Dataset:
    """Return the block table that the areas were summed from."""
    facts, grid = areas.attrs, RegionGrid.from_dataset(maps)
    array = maps[schema.CALIBRATED if facts["calibrated"] else schema.PROBABILITY]
    weights = GroundWeights(grid) if facts["area_kind"] == "true" else None
    return block_table(array, grid, grid.pixels(facts["block_m"]), threshold=facts.get("threshold"), weights=weights)


def _lineage(config: RunConfig, items: pystac.ItemCollection, model: Predictor, maps: xr.Dataset) -> dict[str, Any]:
    spec = model.spec
    # without an address the model is known by its sha256 alone
    href = published_address(spec)
    address = {} if href is None else {"href": href, "artifact_type": "tf.keras.Model.save_weights"}
    scenes = zip(maps[schema.YEAR].values, maps["source_scenes"].values, strict=True)
    return {
        "stac_items": [item.id for item in items],
        "scenes_by_year": {str(year): str(names).split() for year, names in scenes},
        "search": items.extra_fields.get(PROVENANCE, {}),
        "model": {
            "name": spec.name,
            "sha256": spec.digest,
            "note": spec.note,
            "features": [feature.name for feature in spec.features],
            "steps": spec.steps,
            "window": spec.window,
            **address,
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
