"""The `icemap` command: every sub-command is one stage, or a whole run."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from glob import glob
from pathlib import Path
from typing import Any

import click
import dask
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table

from icemap_xr.errors import IcemapError, IcemapWarning, InputError

# a file or pipe has no width of its own; tables should not be folded for it
_OUT = Console(width=None if sys.stdout.isatty() else 140)
_ERR = Console(stderr=True)


def main() -> None:
    """Run the command line; deliberate errors become one line and exit code 1, Ctrl-C exit code 130."""
    try:
        cli(standalone_mode=False)
    except IcemapError as error:
        _fail(str(error), 1)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except OSError as error:
        _fail(f"{error.strerror or error}: {error.filename or 'check paths, space and permissions'}", 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted: nothing unfinished has a final name; the same command resumes", 130)


def _fail(message: str, code: int) -> None:
    _ERR.print(f"[bold red]error:[/] {escape(' '.join(message.split()))}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _start_logging(verbose: bool) -> None:
    handler: logging.Handler = RichHandler(console=_ERR, show_path=False, show_level=False, log_time_format="%X")
    if not _ERR.is_terminal:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("icemap_xr").setLevel(logging.DEBUG if verbose else logging.INFO)
    # Dask sets its loggers to INFO on import, and its configuration has the last word
    quiet = {"distributed": "error", "distributed.nanny.memory": "warning"}
    dask.config.set({"logging": {"distributed": "info"} if verbose else quiet})
    logging.captureWarnings(True)
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", IcemapWarning)
    warnings.formatwarning = lambda message, *_: str(message)


def _years(_: click.Context, __: click.Parameter, text: str) -> tuple[int, ...]:
    """Parse 2020, 2016-2024 or 2017,2019."""
    years: set[int] = set()
    try:
        for part in text.split(","):
            first, _dash, last = part.partition("-")
            years |= set(range(int(first), int(last or first) + 1))
    except ValueError:
        raise click.BadParameter(f"{text!r}: give years such as 2020, 2016-2024 or 2017,2019") from None
    return tuple(sorted(years))


def _region(_: click.Context, __: click.Parameter, text: str) -> Any:
    """Parse west,south,east,north or the name of a vector file."""
    try:
        box = tuple(float(value) for value in text.split(","))
    except ValueError:
        return text
    if len(box) != 4:
        raise click.BadParameter(f"{text!r}: give west,south,east,north in degrees, or a vector file")
    return box


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="icemap-xr")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def cli(verbose: bool) -> None:
    """Glacier maps with honest uncertainty from Sentinel-1 time series."""
    _start_logging(verbose)


@cli.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("icemap-demo"), show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the simulated region.")
@click.option("--size", type=float, default=6.0, show_default=True, help="Side of the region in km.")
@click.option("--years", callback=_years, default="2020-2022", show_default=True)
@click.option("--workers", type=int, default=2, show_default=True, help="Worker processes.")
def demo(output: Path, seed: int, size: float, years: tuple[int, ...], workers: int) -> None:
    """Simulate a region, serve it through a STAC API, and run the whole chain on it."""
    from icemap_xr.demo import print_report, run_demo

    print_report(run_demo(output, seed=seed, size_km=size, years=years, workers=workers), _OUT)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New folder for the results.")
def run(config: Path, output: Path) -> None:
    """Run CONFIG.yaml: search, cube, map, areas, outlines, archive."""
    from icemap_xr.config import read_config
    from icemap_xr.run import run as run_config

    result = run_config(read_config(config), output)
    _OUT.print(f"weights: {result.weights}", highlight=False, soft_wrap=True)
    _OUT.print(_area_table(result.summary()))
    _OUT.print(f"archive: {result.archive}\npicture: {result.folder / 'overview.png'}", highlight=False, soft_wrap=True)


def _area_table(summary: dict[str, Any]) -> Table:
    kind = summary["interval_kind"]
    table = Table("year", "area km2", f"low ({kind})", f"high ({kind})", "not observed km2", title="Glacier area")
    for row in summary["years"]:
        cells = (f"{row[key]:.3f}" for key in ("area_km2", "low_km2", "high_km2", "unobserved_km2"))
        table.add_row(str(row["year"]), *cells)
    return table


@cli.command()
@click.argument("provider")
@click.option("--region", callback=_region, required=True, help="west,south,east,north in degrees, or a vector file.")
@click.option("--years", callback=_years, required=True, help="2020, 2016-2024 or 2017,2019.")
@click.option("--feature", "features", multiple=True, help="grd, rtc or insar; all by default.")
@click.option("--orbit-state", type=click.Choice(["ascending", "descending"]))
@click.option("--relative-orbit", type=int)
@click.option("--year-start", default="01-01", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the items here (JSON).")
def search(
    provider: str,
    region: Any,
    years: tuple[int, ...],
    features: tuple[str, ...],
    orbit_state: str | None,
    relative_orbit: int | None,
    year_start: str,
    output: Path | None,
) -> None:
    """Find scenes of PROVIDER: a profile, a STAC address, a catalog.json or a folder."""
    from icemap_xr.catalog import search as find

    if output:
        _new_file(output)
    items = find(
        provider,
        region,
        years,
        features=features or None,
        orbit_state=orbit_state,
        relative_orbit=relative_orbit,
        year_start=year_start,
    )
    counts: dict[tuple[str, str, str, str], int] = {}
    for item in items:
        properties = item.properties
        moment = item.datetime or item.common_metadata.start_datetime
        orbit = f"{properties.get('sat:orbit_state', '')} {properties.get('sat:relative_orbit', '')}".strip()
        year = str(moment.year if moment else "")
        row = (year, item.collection_id or "", str(properties.get("platform", "")), orbit)
        counts[row] = counts.get(row, 0) + 1
    table = Table("calendar year", "collection", "platform", "orbit", "items", title=f"{len(items)} items")
    for labels, count in sorted(counts.items()):
        table.add_row(*labels, str(count))
    _OUT.print(table)
    if output:
        from icemap_xr.run import write_text

        for item in items:
            item.clear_links()
        write_text(output, json.dumps(items.to_dict(), indent=1))


@cli.command("stac-from-files")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New folder for the catalogue.")
def stac_from_files(folder: Path, output: Path) -> None:
    """Turn a FOLDER of OPERA RTC or coherence rasters into a static STAC catalogue."""
    from icemap_xr.folders import appearing
    from icemap_xr.stac_items import items_from_files, write_catalog

    items = items_from_files(folder)
    with appearing(output) as draft:
        write_catalog(items, draft, title=f"Rasters of {folder.name}")
    _OUT.print(f"{len(list(items))} items: {output / 'catalog.json'}", highlight=False, soft_wrap=True)


@cli.command()
@click.argument("items", type=click.Path(path_type=Path))
@click.option("--crs", required=True, help="Projected CRS of the grid, such as EPSG:32633.")
@click.option("--resolution", type=float, default=10.0, show_default=True, help="Pixel size in metres.")
@click.option("--region", callback=_region, required=True, help="west,south,east,north in degrees, or a vector file.")
@click.option("--steps", type=int, default=15, show_default=True, help="Scenes per year.")
@click.option("--polarisation")
@click.option("--baseline-days", type=float, help="Temporal baseline of the coherence pairs to keep.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New Zarr store.")
def cube(
    items: Path,
    crs: str,
    resolution: float,
    region: Any,
    steps: int,
    polarisation: str | None,
    baseline_days: float | None,
    output: Path,
) -> None:
    """Read the scenes in ITEMS (what `icemap search --output` wrote) into a cube."""
    import pystac

    from icemap_xr.cube import build_cube
    from icemap_xr.grid import RegionGrid
    from icemap_xr.vectors import lonlat_bounds

    try:
        found = pystac.ItemCollection.from_file(str(items))
    except (OSError, ValueError, pystac.errors.STACError) as error:
        raise InputError(
            f"{items} cannot be read as items ({type(error).__name__}): write it with icemap search --output"
        ) from None
    ds = build_cube(
        found,
        RegionGrid.from_bbox(lonlat_bounds(region), crs, resolution),
        output,
        steps=steps,
        polarisation=polarisation,
        baseline_days=baseline_days,
    )
    _OUT.print(f"{output}: {dict(ds.sizes)}", highlight=False, soft_wrap=True)


@cli.command()
@click.argument("cube_path", metavar="CUBE", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Name, bundle folder or .h5 file.")
@click.option("--overlap", type=float, default=0.5, show_default=True)
@click.option("--gaps", type=click.Choice(["error", "nearest", "nodata"]), default="error", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New Zarr store.")
def predict(cube_path: Path, model: str, overlap: float, gaps: Any, output: Path) -> None:
    """Map glacier probability over CUBE."""
    from icemap_xr.cube import open_cube
    from icemap_xr.models import load_model
    from icemap_xr.predict import predict as map_region
    from icemap_xr.store import save

    loaded = load_model(model)
    _OUT.print(f"weights: {loaded.spec.name}: {loaded.spec.note}", highlight=False, soft_wrap=True)
    maps = save(map_region(open_cube(cube_path), loaded, overlap=overlap, gaps=gaps), output, what="predicting")
    _OUT.print(f"{output}: {dict(maps.sizes)}", highlight=False, soft_wrap=True)


@cli.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Name, bundle folder or .h5 file.")
@click.option("--grd", multiple=True, help="GRD backscatter in dB: a file, or a pattern in quotes; repeatable.")
@click.option("--rtc", multiple=True, help="RTC backscatter in dB, likewise.")
@click.option("--insar", multiple=True, help="Coherence, likewise.")
@click.option("--reference", type=click.Path(path_type=Path), help="Raster whose grid the map gets.")
@click.option("--overlap", type=float, default=0.5, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
def apply(
    output: Path,
    model: str,
    grd: tuple[str, ...],
    rtc: tuple[str, ...],
    insar: tuple[str, ...],
    reference: Path | None,
    overlap: float,
    precision: str,
) -> None:
    """Map one year of GeoTIFFs, one per step, to OUTPUT (a 2-band GeoTIFF: not glacier, glacier)."""
    from icemap_xr.apply import apply as map_rasters
    from icemap_xr.models import load_model

    files = {name: _expand(found) for name, found in (("grd", grd), ("rtc", rtc), ("insar", insar)) if found}
    loaded = load_model(model)
    _OUT.print(f"weights: {loaded.spec.name}: {loaded.spec.note}", highlight=False, soft_wrap=True)
    path = map_rasters(files, loaded, output, reference=reference, overlap=overlap, precision=precision)
    _OUT.print(str(path), highlight=False, soft_wrap=True)


def _expand(patterns: tuple[str, ...]) -> list[str]:
    """Return the files of names and patterns, in the order given, those of a pattern sorted by name."""
    return [path for pattern in patterns for path in (sorted(glob(pattern)) or [pattern])]


@cli.command()
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--method", type=click.Choice(["soft", "hard"]), default="hard", show_default=True)
@click.option("--by", type=click.Path(path_type=Path), help="Vector file of polygons to sum separately.")
@click.option("--output", type=click.Path(path_type=Path), help="Write a CSV file.")
def area(maps: Path, method: Any, by: Path | None, output: Path | None) -> None:
    """Sum the maps in MAPS (a Zarr store) to areas."""
    from icemap_xr.area import area as sum_area
    from icemap_xr.vectors import as_frame

    frame = sum_area(_open_maps(maps), by=None if by is None else as_frame(by), method=method).to_dataframe()
    columns = ["area_km2", "observed_km2", "unobserved_km2"]
    rows = frame.reset_index()
    table = Table(*[str(name) for name in frame.index.names], *columns, title=f"Glacier area ({method})")
    for row in rows.to_dict("records"):
        table.add_row(*(str(row[name]) for name in frame.index.names), *(f"{row[name]:.4f}" for name in columns))
    _OUT.print(table)
    if output:
        _new_file(output)
        from icemap_xr.run import write_text

        write_text(output, frame[columns].to_csv())


@cli.command()
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--threshold", type=float, default=0.5, show_default=True)
@click.option("--min-area-km2", type=float, default=0.0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New .parquet or .gpkg file.")
def outlines(maps: Path, threshold: float, min_area_km2: float, output: Path) -> None:
    """Draw the outlines of the maps in MAPS (a Zarr store)."""
    from icemap_xr.outlines import outlines as draw

    _new_file(output)
    if output.suffix not in (".parquet", ".gpkg"):
        raise InputError(f"{output.name}: choose a name that ends in .parquet or .gpkg")
    frame = draw(_open_maps(maps), threshold=threshold, min_area_km2=min_area_km2)
    temporary = output.with_name(f".partial-{output.name}")
    if output.suffix == ".parquet":
        frame.to_parquet(temporary)
    else:
        # the file's temporary name would be no layer name
        frame.to_file(temporary, layer="outlines")
    temporary.replace(output)
    _OUT.print(f"{len(frame)} outlines: {output}", highlight=False, soft_wrap=True)


@cli.command()
def models() -> None:
    """List the models that are known, and which are there already."""
    from icemap_xr.models import list_models

    table = Table("name", "features", "kind", "on this machine", "note", title="Models")
    for row in list_models():
        table.add_row(row.name, " + ".join(row.features), row.kind, "yes" if row.cached else "no", row.note)
    _OUT.print(table)


@cli.command()
@click.argument("store_path", metavar="STORE", type=click.Path(path_type=Path))
def verify(store_path: Path) -> None:
    """Check every checksum of STORE; exit code 1 if anything is damaged or missing."""
    from icemap_xr.verify import verify as check

    problems = check(store_path)
    for problem in problems:
        _OUT.print(problem, highlight=False, soft_wrap=True)
    if problems:
        raise InputError(f"{store_path}: {len(problems)} faults; delete the store and write it again")
    _OUT.print(f"{store_path}: whole", highlight=False, soft_wrap=True)


def _open_maps(path: Path) -> Any:
    import xarray as xr

    from icemap_xr.store import read_manifest

    read_manifest(path)
    return xr.open_zarr(path, chunks={})


def _new_file(path: Path) -> None:
    from icemap_xr.errors import OutputExistsError

    if path.exists():
        raise OutputExistsError(f"{path} exists already: choose a new name or delete it")
