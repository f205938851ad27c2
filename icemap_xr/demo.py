"""`icemap demo`: the whole chain on a simulated region, through a real STAC API and over HTTP, against known truth."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pystac
import xarray as xr
from rich.console import Console
from rich.table import Table

from icemap_xr import schema, simulate
from icemap_xr.calibrate import as_calibrator, reliability
from icemap_xr.cluster import ClusterOptions
from icemap_xr.config import AreaSection, CubeSection, GridSection, ModelSection, RunConfig, SearchSection
from icemap_xr.cube import open_cube
from icemap_xr.errors import InputError
from icemap_xr.figures import reliability_figure
from icemap_xr.folders import write_text
from icemap_xr.loopback import free_ports, serve_catalog
from icemap_xr.models import load_model
from icemap_xr.plot import overview_figure, save_figure
from icemap_xr.progress import progress
from icemap_xr.report import Section, errors_figure, html_page, inputs_figure
from icemap_xr.run import RunResult, backscatter, claim_folder, run
from icemap_xr.simulate import SimulatedRegion
from icemap_xr.trend import change

logger = logging.getLogger("icemap_xr")

MODEL = "demo_grdinsar"
#: side of the cube's chunks, px: each costs a request per scene, and 12 km have four of these
_CHUNK = 640
#: sides, km, under which the network sees too little around a place: its model card says so
_NARROW_KM = 4.0
_YEAR_HEAD = ("year", "area km2", "low", "high", "truth km2", "error", "IoU")
_ABOUT_AREAS = (
    "Every interval names its kind; the truth is exact. Radar properties of the classes are the standard ones here; "
    "the card of the model is about regions where they are moved at random, which is harder."
)
_ABOUT_CHANGES = (
    "Years share their draws: what a region is off by in all years cancels, and of what single blocks are off by as "
    "much as lasts from year to year."
)
_CHANGE_HEAD = ("from", "to", "change km2", "low", "high", "truth km2")


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made.

    Parameters
    ----------
    run
        The run.
    years
        One row per year: area, interval, truth and IoU.
    changes
        One row per step between years: change, interval and truth.
    seconds
        Wall time.
    report
        The HTML page.
    """

    run: RunResult
    years: tuple[dict[str, float], ...]
    changes: tuple[dict[str, float], ...]
    seconds: float
    report: Path

    def summary(self) -> dict[str, Any]:
        """Return the tables as plain JSON types."""
        return {
            "model": self.run.weights,
            "interval_kind": self.run.areas.attrs["interval_kind"],
            "years": list(self.years),
            "changes": list(self.changes),
            "seconds": round(self.seconds, 1),
        }

    def year_table(self) -> list[tuple[str, ...]]:
        """Return the rows of years as text, head first."""
        rows: list[tuple[str, ...]] = [_YEAR_HEAD]
        for row in self.years:
            truth = row["truth_km2"]
            error = f"{100 * (row['area_km2'] / truth - 1):+.1f} %" if truth else "-"
            cells = (f"{row[key]:.3f}" for key in ("area_km2", "low_km2", "high_km2", "truth_km2"))
            rows.append((str(row["year"]), *cells, error, f"{row['iou']:.3f}"))
        return rows

    def change_table(self) -> list[tuple[str, ...]]:
        """Return the rows of changes as text, head first."""
        rows: list[tuple[str, ...]] = [_CHANGE_HEAD]
        for row in self.changes:
            cells = (f"{row[key]:+.3f}" for key in ("change_km2", "low_km2", "high_km2", "truth_km2"))
            rows.append((str(row["from"]), str(row["to"]), *cells))
        return rows


def run_demo(
    output: Path,
    *,
    seed: int,
    size_km: float,
    years: tuple[int, ...],
    workers: int,
    landscape: simulate.Landscape | None = None,
) -> DemoResult:
    """Simulate a region, serve it, run the chain on it and compare with the truth.

    Parameters
    ----------
    output
        Folder: new, empty, or of an interrupted demonstration with the same parameters.
    seed
        Seed of the region, 0 to 99: the demonstration model was trained on others.
    size_km
        Side of the square region.
    years
        Years.
    workers
        Worker processes; as many threads simulate.
    landscape
        What the region looks like, for example without ice; the usual one by default.

    Returns
    -------
    DemoResult
        Results; also written to `output/summary.json` and `output/report.html`.

    Raises
    ------
    GridError
        The size is not a positive multiple of 10 m.
    InputError
        The seed is not kept for demonstrations, or another argument is not allowed.
    OutputExistsError
        The folder holds something else.
    """
    if not 0 <= seed < 100:
        raise InputError(f"seed {seed} is not allowed: give 0 to 99, which the demonstration model has never seen")
    begun = time.monotonic()
    # everything is checked before the folder is taken
    cluster = ClusterOptions(kind="local", workers=workers)
    region = simulate.region(size_km=size_km, years=years, seed=seed, landscape=landscape)
    if size_km < _NARROW_KM:
        logger.warning("maps narrower than %g km are worse than their intervals say: give a larger size", _NARROW_KM)
    parameters = {"seed": seed, "size_km": size_km, "years": list(years)}
    parameters |= {} if landscape is None else {"landscape": asdict(landscape)}
    folder = claim_folder(output, json.dumps(parameters), parameters)
    scenes = folder / "scenes"
    if not scenes.exists():
        total = sum(len(region.acquisitions(name)) for name in region.features)
        with progress("simulating scenes", total) as advance:
            region.write(scenes, advance, workers=workers)
    with serve_catalog(_items(scenes), scenes, ports=_ports(folder / "ports.json")) as address:
        logger.info("scenes are served through a STAC API at %s", address)
        result = run(_config(region, address, cluster), folder / "result")
    truth = region.truth()["glacier_fraction"].compute()
    areas = region.areas().set_index("year")["area_km2"]
    years_rows, change_rows = _compare_years(result, areas, truth), _compare_changes(result, areas)
    demo = DemoResult(result, years_rows, change_rows, time.monotonic() - begun, folder / "report.html")
    _draw(demo, truth)
    write_text(folder / "summary.json", json.dumps(demo.summary(), indent=1))
    return demo


def print_report(demo: DemoResult, console: Console) -> None:
    """Print the tables of areas and changes against truth, and how to open the results."""
    kind = demo.run.areas.attrs["interval_kind"]
    for title, rows in (("Area", demo.year_table()), ("Change", demo.change_table())):
        if len(rows) > 1:
            table = Table(*rows[0], title=f"{title} of simulated glaciers, 95 % interval ({kind})")
            for row in rows[1:]:
                table.add_row(*row)
            console.print(table)
    folder, archive = demo.run.folder, demo.run.archive
    lines = (
        f"weights   {demo.run.weights}",
        f"report    {demo.report}",
        f"picture   {folder / 'overview.png'}",
        f"archive   {archive}",
        f"took      {demo.seconds:.0f} s",
        "open the results in Python:",
        f"  import icemap_xr as ix, geopandas as gpd; archive = ix.open_archive({str(archive)!r})",
        f"  outlines = gpd.read_parquet({str(archive.with_suffix('.parquet'))!r})",
        f"  cube = ix.open_cube({str(folder / 'cube.zarr')!r})",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _ports(path: Path) -> tuple[int, int]:
    """Return the ports the demonstration began with: the scenes it reads are known by their addresses."""
    if not path.exists():
        write_text(path, json.dumps(free_ports()))
    api, files = json.loads(path.read_text())
    return api, files


def _items(scenes: Path) -> pystac.ItemCollection:
    catalogue = pystac.Catalog.from_file(str(scenes / "catalog.json"))
    items = list(catalogue.get_items(recursive=True))
    for item in items:
        item.make_asset_hrefs_absolute()
    return pystac.ItemCollection(items)


def _config(region: SimulatedRegion, address: str, cluster: ClusterOptions) -> RunConfig:
    grid = region.grid
    west, south, east, north = grid.geobox.extent.to_crs("EPSG:4326").boundingbox.bbox
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    return RunConfig(
        name="demo",
        region=(west, south, east, north),
        years=region.years,
        search=SearchSection(provider=address),
        grid=GridSection(crs=grid.crs, resolution=grid.resolution, bounds=(left, bottom, right, top)),
        cube=CubeSection(chunk=_CHUNK),
        model=ModelSection(name=MODEL),
        area=_area_section(),
        cluster=cluster,
    )


def _area_section() -> AreaSection:
    """Intervals of how wrong the map is, on the blocks whose errors the model brings."""
    bundle = load_model(MODEL).bundle
    if bundle is None or bundle.block_errors is None:
        return AreaSection(block="640m")
    return AreaSection(block=str(bundle.block_errors["block"]), interval="mapping")


def _compare_years(result: RunResult, areas: pd.Series, truth: xr.DataArray) -> tuple[dict[str, float], ...]:
    """Put true area and intersection over union beside each year's area."""
    rows = []
    for row in result.summary()["years"]:
        mapped = (result.maps[schema.PROBABILITY].sel(year=row["year"]) > 0.5).to_numpy()
        true = (truth.sel(year=row["year"]) > 0.5).to_numpy()
        union = np.count_nonzero(mapped | true)
        iou = np.count_nonzero(mapped & true) / union if union else 1.0
        rows.append(row | {"truth_km2": float(areas.loc[row["year"]]), "iou": float(iou)})
    return tuple(rows)


def _compare_changes(result: RunResult, areas: pd.Series) -> tuple[dict[str, float], ...]:
    """Put the true change beside the mapped one, from year to year and from the first to the last."""
    years = [int(year) for year in result.areas[schema.YEAR].values]
    steps = list(pairwise(years))
    if len(years) > 2:
        steps.append((years[0], years[-1]))
    rows = []
    for first, last in steps:
        found = change(result.areas, first=first, last=last)
        low, high = (float(found["interval"].sel(bound=bound)) for bound in ("low", "high"))
        mapped = {"from": first, "to": last, "change_km2": float(found["change_km2"]), "low_km2": low, "high_km2": high}
        rows.append(mapped | {"truth_km2": float(areas.loc[last] - areas.loc[first])})
    return tuple(rows)


def _dated_view(cube: xr.Dataset) -> xr.Dataset:
    """Return the model view with the time of each scene, NaT where there is none."""
    view = cube.icemap.yearly(gaps="nodata")
    for name in schema.FEATURES:
        if name in cube:
            one = schema.feature(name)
            index = cube[one.index].values
            times = np.where(index >= 0, cube[one.time].values[index], np.datetime64("NaT"))
            view = view.assign_coords({one.time: ((schema.YEAR, schema.STEP), times)})
    return view


def _draw(demo: DemoResult, truth: xr.DataArray) -> None:
    """Draw the overview again, with the truth, and write the report."""
    result, year = demo.run, int(demo.years[-1]["year"])
    cube = open_cube(result.folder / "cube.zarr")
    areas = [row["truth_km2"] for row in demo.years]
    known = xr.DataArray(areas, dims="year", coords={"year": [int(row["year"]) for row in demo.years]})
    overview = overview_figure(
        result.maps, outlines=result.outlines, areas=result.areas, backscatter=backscatter(cube), truth=known
    )
    save_figure(overview, result.folder / "overview.png")
    probability = result.maps[schema.PROBABILITY].to_numpy()
    share = truth.to_numpy()
    sections = [
        Section("Areas", _ABOUT_AREAS, demo.year_table(), overview),
        Section("Changes", _ABOUT_CHANGES, demo.change_table()),
        Section("What the network sees", figure=inputs_figure(_dated_view(cube), year)),
        Section("Where it is wrong", figure=errors_figure(result.maps, truth, year, result.outlines)),
    ]
    bundle = load_model(MODEL).bundle
    if bundle is not None and bundle.calibration is not None:
        calibrator = as_calibrator(bundle.calibration)
        tables = {
            "as predicted": reliability(probability, share),
            "calibrated": reliability(probability, share, calibrator=calibrator),
        }
        text = "The calibrator was fitted on other regions."
        sections.append(Section("Reliability", text, figure=reliability_figure(tables)))
    write_text(demo.report, html_page("icemap-xr demonstration", f"Weights: {result.weights}", sections))
