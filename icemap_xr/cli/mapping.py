"""Models and maps: `icemap models`, `icemap predict`, `icemap apply`."""

from __future__ import annotations

from collections.abc import Callable
from glob import glob
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.errors import InputError


def _optional(parse: Callable[[click.Context, click.Parameter, str], Any]) -> Callable[..., Any]:
    """Return a parser that leaves an option out where it is not given."""
    return lambda context, parameter, text: None if text is None else parse(context, parameter, text)


@click.command()
@click.argument("cube_path", metavar="CUBE", type=console.StorePath(path_type=Path))
@click.option("--model", required=True, help="Name, bundle folder or .h5 file.")
@click.option("--window", type=int, help="Window side in pixels, a multiple of 8; the model's own by default.")
@click.option("--overlap", type=float, default=0.5, show_default=True, help="Share of a window.")
@click.option("--blend", type=click.Choice(["gaussian", "crop"]), default="gaussian", show_default=True)
@click.option("--sigma", type=float, default=0.5, show_default=True, help="Width of the Gaussian, of half a window.")
@click.option("--edges", type=click.Choice(["published", "valid"]), default="published", show_default=True)
@click.option("--tta", type=click.Choice(["dihedral"]), help="Mean over the square's 8 symmetries: 8 times the cost.")
@click.option("--mc-dropout", type=int, default=0, metavar="PASSES", help="Passes with dropout; adds probability_std.")
@click.option("--mc-rate", type=float, default=0.05, show_default=True, help="Share of channels that a pass drops.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --mc-dropout.")
@click.option("--years", callback=_optional(console.years), help="2020, 2016-2024 or 2017,2019; all by default.")
@click.option("--aoi", callback=_optional(console.region), help="Map only here: W,S,E,N in degrees, or a vector file.")
@click.option("--mask", "mask_path", type=click.Path(path_type=Path), help="Vector or raster file: map only inside.")
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--batch-size", type=int, help="Windows per model call.")
@click.option("--gaps", type=click.Choice(["error", "nearest", "nodata"]), default="error", show_default=True)
@click.option("--memory-limit", metavar="SIZE", help="Such as 8GiB: what a worker may take; by default what it has.")
@click.option("--output", type=click.Path(path_type=Path), help="New Zarr store; needed unless --dry-run is given.")
@click.option("--dry-run", is_flag=True, help="Run nothing; print windows, operations, bytes, memory and time.")
@click.option("--rate", type=float, help="Windows per second for the time of --dry-run; measured here by default.")
def predict(
    cube_path: Path,
    model: str,
    mask_path: Path | None,
    output: Path | None,
    dry_run: bool,
    rate: float | None,
    **options: Any,
) -> None:
    """Map glacier probability over CUBE."""
    if output is None and not dry_run:
        raise click.UsageError("Missing option '--output'.")
    from icemap_xr.cube import open_cube
    from icemap_xr.grid import RegionGrid
    from icemap_xr.ground import ground_mask
    from icemap_xr.models import load_model
    from icemap_xr.predict import predict as map_region
    from icemap_xr.store import save

    loaded = load_model(model)
    console.OUT.print(f"weights: {loaded.spec.name}: {loaded.spec.note}", highlight=False, soft_wrap=True)
    cube = open_cube(cube_path)
    if mask_path is not None:
        options["mask"] = ground_mask(mask_path, RegionGrid.from_dataset(cube))
    if output is None or dry_run:
        plan = map_region(cube, loaded, **options, dry_run=True)
        console.OUT.print(str(plan.timed(rate)), highlight=False, soft_wrap=True, markup=False)
        return
    maps = save(map_region(cube, loaded, **options), output, what="predicting")
    console.OUT.print(f"{output}: {dict(maps.sizes)}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Name, bundle folder or .h5 file.")
@click.option("--grd", multiple=True, help="GRD backscatter in dB: a file, or a pattern in quotes; repeatable.")
@click.option("--rtc", multiple=True, help="RTC backscatter in dB, likewise.")
@click.option("--insar", multiple=True, help="Coherence, likewise.")
@click.option("--feature", "others", multiple=True, metavar="NAME=FILES", help="Any feature of the model, likewise.")
@click.option("--reference", type=click.Path(path_type=Path), help="Raster whose grid the map gets.")
@click.option("--overlap", type=float, default=0.5, show_default=True)
@click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True)
@click.option("--archive", type=click.Path(path_type=Path), help="Also write the regional archive, a new Zarr store.")
@click.option("--year", type=int, help="Year of the map, for the archive; by default from the file names.")
@click.option("--region", default="region", show_default=True, help="Name of the region, for the archive.")
def apply(
    output: Path,
    model: str,
    grd: tuple[str, ...],
    rtc: tuple[str, ...],
    insar: tuple[str, ...],
    others: tuple[str, ...],
    reference: Path | None,
    overlap: float,
    precision: str,
    archive: Path | None,
    year: int | None,
    region: str,
) -> None:
    """Map one year of GeoTIFFs, one per step, to OUTPUT (a GeoTIFF with a band per class: not glacier, glacier)."""
    from icemap_xr.apply import apply as map_rasters
    from icemap_xr.models import load_model

    files = _files({"grd": grd, "rtc": rtc, "insar": insar}, others)
    loaded = load_model(model)
    console.OUT.print(f"weights: {loaded.spec.name}: {loaded.spec.note}", highlight=False, soft_wrap=True)
    options = {"reference": reference, "overlap": overlap, "precision": precision}
    path = map_rasters(files, loaded, output, **options, archive=archive, year=year, region=region)  # type: ignore[arg-type]
    console.OUT.print(str(path), highlight=False, soft_wrap=True)
    if archive is not None:
        console.OUT.print(f"archive: {archive}", highlight=False, soft_wrap=True)


def _files(given: dict[str, tuple[str, ...]], others: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the files of each feature, from the options of known features and NAME=FILES of any."""
    patterns = {name: list(found) for name, found in given.items()}
    for text in others:
        name, sign, pattern = text.partition("=")
        if not (name and sign and pattern):
            raise InputError(f"--feature {text!r} is not allowed: give NAME=FILES, for example grd='grd/*.tif'")
        patterns.setdefault(name, []).append(pattern)
    return {name: _expand(tuple(found)) for name, found in patterns.items() if found}


def _expand(patterns: tuple[str, ...]) -> list[str]:
    """Return the files of names and patterns, in the order given, those of a pattern sorted by name."""
    return [path for pattern in patterns for path in (sorted(glob(pattern)) or [pattern])]


@click.command()
@click.option(
    "--cube", "cube_path", type=console.StorePath(path_type=Path), help="Cube (Zarr): say which models fit it."
)
def models(cube_path: Path | None) -> None:
    """List the models that are known, which are there already, and which fit a cube."""
    from icemap_xr.cube import open_cube
    from icemap_xr.errors import ModelError
    from icemap_xr.models import list_models
    from icemap_xr.models.fitting import fit_to
    from icemap_xr.models.registry import declared

    cube = None if cube_path is None else open_cube(cube_path)
    table = Table("name", "features", "kind", "on this machine", "note", title="Models")
    if cube is not None:
        table.add_column(f"fits {cube_path.name if cube_path else ''}")
    for row in list_models():
        cells = [row.name, " + ".join(row.features), row.kind, "yes" if row.cached else "no", row.note]
        if cube is not None:
            try:
                cells.append(str(fit_to(declared(row.name), cube)))
            except ModelError as error:
                cells.append(f"no: {error}")
        table.add_row(*map(escape, cells))
    console.OUT.print(table)
