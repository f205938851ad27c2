"""`icemap demo`: the whole chain on a simulated region, through a real STAC API and over HTTP, against known truth."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import xarray as xr
from rich.console import Console
from rich.table import Table

from icemap_xr import schema, simulate
from icemap_xr.cluster import ClusterOptions
from icemap_xr.config import AreaSection, GridSection, ModelSection, RunConfig, SearchSection
from icemap_xr.loopback import serve_catalog
from icemap_xr.plot import overview_figure, save_figure
from icemap_xr.progress import progress
from icemap_xr.run import RunResult, backscatter, claim_folder, run, write_text
from icemap_xr.simulate import SimulatedRegion

logger = logging.getLogger("icemap_xr")

MODEL = "demo_grdinsar"


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made.

    Parameters
    ----------
    result
        The run.
    rows
        One row per year: area, interval, truth and IoU.
    seconds
        Wall time.
    """

    result: RunResult
    rows: tuple[dict[str, float], ...]
    seconds: float

    def summary(self) -> dict[str, Any]:
        """Return the table as plain JSON types."""
        base = self.result.summary()
        return base | {"years": list(self.rows), "seconds": round(self.seconds, 1)}


def run_demo(output: Path, *, seed: int, size_km: float, years: tuple[int, ...], workers: int) -> DemoResult:
    """Simulate a region, serve it, run the chain on it and compare with the truth.

    Parameters
    ----------
    output
        Folder: new, empty, or of an interrupted demonstration with the same parameters.
    seed
        Seed of the region; the demonstration model was trained on other seeds.
    size_km
        Side of the square region.
    years
        Years.
    workers
        Worker processes.

    Returns
    -------
    DemoResult
        Results; also written to `output/summary.json`.
    """
    begun = time.monotonic()
    parameters = {"seed": seed, "size_km": size_km, "years": list(years)}
    region = simulate.region(size_km=size_km, years=years, seed=seed)
    folder = claim_folder(output, json.dumps(parameters), parameters)
    scenes = folder / "scenes"
    if not scenes.exists():
        total = sum(len(region.acquisitions(name)) for name in region.features)
        with progress("simulating scenes", total) as advance:
            region.write(scenes, advance)
    items = _items(scenes)
    with serve_catalog(items, scenes) as address:
        logger.info("serving %d items at %s", len(items), address)
        result = run(_config(region, address, workers), folder / "result")
    rows = _compare(result, region)
    demo = DemoResult(result, rows, time.monotonic() - begun)
    _picture(result, rows)
    write_text(folder / "summary.json", json.dumps(demo.summary(), indent=1))
    return demo


def print_report(demo: DemoResult, console: Console) -> None:
    """Print the table of areas against truth, and how to open the results."""
    kind = demo.result.areas.attrs["interval_kind"]
    table = Table(
        "year", "area km2", f"95 % interval ({kind})", "truth km2", "error", "IoU", title="Simulated glaciers"
    )
    for row in demo.rows:
        error = 100 * (row["area_km2"] / row["truth_km2"] - 1) if row["truth_km2"] else float("nan")
        table.add_row(
            str(row["year"]),
            f"{row['area_km2']:.3f}",
            f"{row['low_km2']:.3f} - {row['high_km2']:.3f}",
            f"{row['truth_km2']:.3f}",
            f"{error:+.1f} %",
            f"{row['iou']:.3f}",
        )
    console.print(table)
    folder, archive = demo.result.folder, demo.result.archive
    lines = (
        f"weights   {demo.result.weights}",
        f"picture   {folder / 'overview.png'}",
        f"archive   {archive}",
        f"outlines  {archive.with_suffix('.parquet')}",
        f"cube      {folder / 'cube.zarr'}",
        f"took      {demo.seconds:.0f} s",
        "open them in Python:",
        f"  import geopandas as gpd; gpd.read_parquet({str(archive.with_suffix('.parquet'))!r})",
        f"  import icemap_xr as ix; ix.open_archive({str(archive)!r})",
        f"  ix.open_cube({str(folder / 'cube.zarr')!r})",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _items(scenes: Path) -> pystac.ItemCollection:
    catalogue = pystac.read_file(str(scenes / "catalog.json"))
    assert isinstance(catalogue, pystac.Catalog)
    items = list(catalogue.get_items(recursive=True))
    for item in items:
        item.make_asset_hrefs_absolute()
    return pystac.ItemCollection(items)


def _config(region: SimulatedRegion, address: str, workers: int) -> RunConfig:
    grid = region.grid
    west, south, east, north = grid.geobox.extent.to_crs("EPSG:4326").boundingbox.bbox
    left, bottom, right, top = grid.geobox.boundingbox.bbox
    return RunConfig(
        name="demo",
        region=(west, south, east, north),
        years=region.years,
        search=SearchSection(provider=address),
        grid=GridSection(crs=grid.crs, resolution=grid.resolution, bounds=(left, bottom, right, top)),
        model=ModelSection(name=MODEL),
        area=AreaSection(block="640m"),
        cluster=ClusterOptions(kind="local", workers=workers),
    )


def _compare(result: RunResult, region: SimulatedRegion) -> tuple[dict[str, float], ...]:
    """Put truth and intersection over union beside each year's area."""
    truth = region.areas().set_index("year")["area_km2"]
    fraction = region.truth()["glacier_fraction"]
    rows = []
    for row in result.summary()["years"]:
        mapped = (result.maps[schema.PROBABILITY].sel(year=row["year"]) > 0.5).to_numpy()
        true = (fraction.sel(year=row["year"]) > 0.5).to_numpy()
        union = np.count_nonzero(mapped | true)
        iou = np.count_nonzero(mapped & true) / union if union else 1.0
        rows.append(row | {"truth_km2": float(truth.loc[row["year"]]), "iou": float(iou)})
    return tuple(rows)


def _picture(result: RunResult, rows: tuple[dict[str, float], ...]) -> None:
    """Draw the overview again, with the truth."""
    from icemap_xr.cube import open_cube

    years = [int(row["year"]) for row in rows]
    truth = xr.DataArray([row["truth_km2"] for row in rows], dims="year", coords={"year": years})
    mean = backscatter(open_cube(result.folder / "cube.zarr"))
    figure = overview_figure(result.maps, outlines=result.outlines, areas=result.areas, backscatter=mean, truth=truth)
    save_figure(figure, result.folder / "overview.png")
