"""From maps to numbers and outlines: `icemap area`, `icemap outlines`, `icemap verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.errors import InputError
from icemap_xr.urls import is_remote


@click.command()
@click.argument("maps", type=console.StorePath(path_type=Path))
@click.option("--method", type=click.Choice(["soft", "hard"]), default="hard", show_default=True)
@click.option("--by", type=click.Path(path_type=Path), help="Vector file of polygons to sum separately.")
@click.option(
    "--area-kind",
    type=click.Choice(["planar", "true"]),
    default="planar",
    show_default=True,
    help="true: corrected for the map projection.",
)
@click.option("--output", type=click.Path(path_type=Path), help="Write a CSV file.")
def area(maps: Path, method: Any, by: Path | None, area_kind: Any, output: Path | None) -> None:
    """Sum the maps in MAPS (a Zarr store, or its s3:// address) to areas."""
    from icemap_xr.area import area as sum_area
    from icemap_xr.vectors import as_frame

    regions = None if by is None else as_frame(by)
    frame = sum_area(console.open_maps(maps), by=regions, method=method, area_kind=area_kind).to_dataframe()
    columns = ["area_km2", "observed_km2", "unobserved_km2"]
    rows = frame.reset_index()
    table = Table(*[str(name) for name in frame.index.names], *columns, title=f"Glacier area ({method}, {area_kind})")
    for row in rows.to_dict("records"):
        table.add_row(*(str(row[name]) for name in frame.index.names), *(f"{row[name]:.4f}" for name in columns))
    console.OUT.print(table)
    if output:
        console.new_file(output)
        from icemap_xr.folders import write_text

        write_text(output, frame[columns].to_csv())


@click.command()
@click.argument("maps", type=console.StorePath(path_type=Path))
@click.option("--threshold", type=float, default=0.5, show_default=True)
@click.option("--connectivity", type=click.Choice(["4", "8"]), default="4", show_default=True)
@click.option("--min-area-km2", type=float, default=0.0, show_default=True, help="Leave out smaller outlines.")
@click.option("--max-hole-km2", type=float, default=0.0, show_default=True, help="Fill holes up to this area.")
@click.option(
    "--simplify-m", type=float, default=0.0, show_default=True, help="Smooth pixel steps; borders stay shared."
)
@click.option(
    "--edge-errors", type=click.Path(path_type=Path), help="JSON of held-out edge errors, for intervals of each area."
)
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New .parquet or .gpkg file.")
def outlines(
    maps: Path,
    threshold: float,
    connectivity: str,
    min_area_km2: float,
    max_hole_km2: float,
    simplify_m: float,
    edge_errors: Path | None,
    output: Path,
) -> None:
    """Draw the outlines of the maps in MAPS (a Zarr store, or its s3:// address)."""
    from icemap_xr.inventory import write_table
    from icemap_xr.outlineareas import load_edge_errors
    from icemap_xr.outlines import outlines as draw

    console.new_file(output)
    if output.suffix not in (".parquet", ".gpkg"):
        raise InputError(f"{output.name}: choose a name that ends in .parquet or .gpkg")
    frame = draw(
        console.open_maps(maps),
        threshold=threshold,
        connectivity=int(connectivity),
        min_area_km2=min_area_km2,
        max_hole_km2=max_hole_km2,
        simplify_m=simplify_m,
        edge_errors=None if edge_errors is None else load_edge_errors(edge_errors),
    )
    write_table(frame, output, layer="outlines")
    changed = f", area changed by {frame['simplified_km2'].sum():+.4f} km2" if simplify_m else ""
    console.OUT.print(f"{len(frame)} outlines{changed}: {output}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("store_path", metavar="STORE", type=console.StorePath(path_type=Path))
@click.option("--repair", is_flag=True, help="Delete the damaged chunks, so that the next run writes them again.")
def verify(store_path: Path, repair: bool) -> None:
    """Check every bit of STORE; exit code 1 if anything is damaged or missing, with the commands that repair it.

    With --repair damaged chunks (and files that do not belong to the store) are deleted and the store becomes
    unfinished again; the command that wrote it then writes only what is missing.
    """
    from icemap_xr.verify import find_faults, reopen, repair_commands

    if is_remote(store_path):
        _verify_published(store_path, repair)
        return
    faults = find_faults(store_path)
    if not faults:
        console.OUT.print(f"{store_path}: whole", highlight=False, soft_wrap=True)
        return
    for fault in faults:
        console.OUT.print(str(fault), highlight=False, soft_wrap=True, markup=False)
    commands = repair_commands(store_path, faults)
    if not repair:
        raise InputError(f"{store_path}: {len(faults)} faults; to repair: {', then: '.join(commands)}")
    reopen(store_path)
    done = "mended" if store_path.exists() else f"opened for repair; now: {commands[-1]}"
    console.OUT.print(f"{store_path}: {done}", highlight=False, soft_wrap=True)


def _verify_published(url: str, repair: bool) -> None:
    from icemap_xr.objectstore import verify_remote

    if repair:
        raise InputError(f"{url} cannot be mended in place: leave --repair out, it says what to do")
    faults = verify_remote(url)
    for fault in faults:
        console.OUT.print(fault, highlight=False, soft_wrap=True, markup=False)
    if faults:
        raise InputError(
            f"{url}: {len(faults)} faults; to repair, delete what is under the address and run icemap publish again"
        )
    console.OUT.print(f"{url}: whole", highlight=False, soft_wrap=True)


@click.command()
@click.argument("store_path", metavar="STORE", type=click.Path(path_type=Path))
@click.argument("address", metavar="S3_ADDRESS")
def publish(store_path: Path, address: str) -> None:
    """Copy a finished STORE to S3_ADDRESS (s3://bucket/path/name.zarr); resumable.

    Keys, endpoint and region come from AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and AWS_REGION.
    """
    from icemap_xr.objectstore import publish as copy

    console.OUT.print(copy(store_path, address), highlight=False, soft_wrap=True)
