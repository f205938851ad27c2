"""One tile of a plan as a run of its own, and a plan's tiles one after the other on one cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
from shapely import box
from shapely.geometry.base import BaseGeometry

from icemap_xr.cluster import ClusterOptions, cluster
from icemap_xr.clustercheck import gone, told_if_gone
from icemap_xr.config import RunConfig
from icemap_xr.errors import ClusterError, IncompleteRunError, InputError, NothingObservedError, PlanError
from icemap_xr.execute import TRIES
from icemap_xr.folders import file_sha256
from icemap_xr.leases import STALE
from icemap_xr.models import load_model
from icemap_xr.run import run
from icemap_xr.runwatch import watched
from icemap_xr.tilequeue import TilesOutcome, run_tiles
from icemap_xr.tiles import Tile, TilePlan, make_plan
from icemap_xr.types import Predictor, StrPath
from icemap_xr.vectors import as_frame, lonlat_bounds, union_in_crs

if TYPE_CHECKING:
    from distributed import Client


def plan_tiles(
    config: RunConfig, folder: StrPath, *, regions: Any = None, tile_km: float, name: str | None = None
) -> TilePlan:
    """Cut regions into tiles for the windows of the configured model; see `icemap_xr.tiles.make_plan`."""
    if config.predict.aoi is not None:
        # read now: a raster, or a file that is not there, would be met by every tile
        as_frame(_vector(config.predict.aoi))
    model = _model(config)
    return make_plan(
        config,
        folder,
        regions=regions,
        tile_km=tile_km,
        window=model.spec.window,
        name=name,
        inputs=_inputs(config, model),
    )


def run_plan_tiles(
    plan: TilePlan,
    *,
    tiles: Sequence[Tile] | None = None,
    tries: int = TRIES,
    stale: float = STALE,
    wait: bool = True,
) -> TilesOutcome:
    """Run tiles of a plan on the configured cluster, which is started once; see `icemap_xr.tilequeue.run_tiles`."""
    check_inputs(plan)
    with cluster(**asdict(plan.config.cluster)) as client, _watched(client, plan):
        work = partial(run_tile, plan, client=client)
        return run_tiles(plan, work, tiles=tiles, tries=tries, stale=stale, wait=wait)


def check_inputs(plan: TilePlan) -> None:
    """Refuse weights or an area of interest that are not those of the plan: their tiles do not belong together.

    Raises
    ------
    PlanError
        They were changed.
    """
    now = _inputs(plan.config, _model(plan.config))
    changed = [name for name, digest in now.items() if plan.inputs.get(name, digest) != digest]
    if changed:
        raise PlanError(
            f"{' and '.join(changed)} changed since the plan in {plan.folder} was made: bring the old file back, or "
            "make a new plan in another folder"
        )


def _inputs(config: RunConfig, model: Predictor) -> dict[str, str]:
    aoi = config.predict.aoi
    area = {} if aoi is None else {"aoi": file_sha256(Path(aoi))}
    return {"weights": model.spec.digest} | area


def _watched(client: Client | None, plan: TilePlan) -> AbstractContextManager[None]:
    """Load the model on all workers before the first tile; each process that works on the plan leaves a report."""
    if client is None:
        return nullcontext()
    return watched(client, _model(plan.config), plan.folder, f"performance-{socket.gethostname()}-{os.getpid()}.html")


def _model(config: RunConfig) -> Predictor:
    options = config.model
    return load_model(
        options.name, weights=options.weights, features=options.features, window=options.window, steps=options.steps
    )


def run_tile(plan: TilePlan, tile: Tile, *, client: Client | None = None) -> dict[str, Any]:
    """Run one tile into its folder on the current cluster; resumable. Returns its areas as plain JSON types.

    A tile of which no pixel was observed is mapped, and has no areas.

    Raises
    ------
    ClusterError
        The scheduler of `client` is gone: that is not the tile's fault.
    """
    own = tile_config(plan, tile)
    if own is None:
        return {"mapped": False, "years": []}
    try:
        with _told(client):
            return {"mapped": True} | run(own, plan.results(tile)).summary()
    except NothingObservedError:
        return {"mapped": True, "observed_km2": 0.0, "years": []}


@contextmanager
def _told(client: Client | None) -> Iterator[None]:
    if client is None:
        yield
        return
    try:
        with told_if_gone(client):
            yield
    except IncompleteRunError as error:
        if error.failures or not gone(client):
            raise
        raise ClusterError(str(error)) from None


def tile_config(plan: TilePlan, tile: Tile) -> RunConfig | None:
    """Return the configuration of one tile; None where no ground of its region is inside of `predict.aoi`.

    The grid is the tile with a window's ground around it, in which windows lie as in the whole region. The area of
    interest is the ground of the tile's region in the tile, so only it is mapped, and only it counts in areas and
    outlines.
    """
    config = plan.config
    shape: BaseGeometry = box(*tile.bounds)
    if config.predict.aoi is not None:
        shape = shape.intersection(union_in_crs(_vector(config.predict.aoi), tile.crs))
        if shape.area == 0:
            return None
    if (region := plan.outline(tile)) is not None:
        shape = shape.intersection(union_in_crs(region, tile.crs))
        if shape.area == 0:
            return None
    west, south, east, north = tile.bounds
    bounds = (west - plan.halo_m, south - plan.halo_m, east + plan.halo_m, north + plan.halo_m)
    return replace(
        config,
        name=tile.name,
        region=lonlat_bounds(gpd.GeoDataFrame(geometry=[box(*bounds)], crs=tile.crs)),
        grid=replace(config.grid, crs=tile.crs, bounds=bounds),
        predict=replace(config.predict, aoi=str(_write_aoi(plan, tile, shape))),
        # the caller's cluster goes on for all tiles
        cluster=ClusterOptions(kind="threads"),
    )


def _vector(path: str) -> str:
    if Path(path).suffix.lower() in (".tif", ".tiff", ".vrt", ".img"):
        raise InputError(f"predict.aoi {path!r} is a raster: tiles are cut from polygons, give a vector file")
    return path


def _write_aoi(plan: TilePlan, tile: Tile, shape: BaseGeometry) -> Path:
    """Write what is mapped of a tile, in its own CRS: edges that are straight in lon/lat would cut across pixels."""
    path = (plan.folder / "aoi" / f"{tile.name}.gpkg").resolve()
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{tile.name}.{os.getpid()}.gpkg")
        gpd.GeoDataFrame(geometry=[shape], crs=tile.crs).to_file(temporary, driver="GPKG", layer="aoi")
        os.replace(temporary, path)
    return path
