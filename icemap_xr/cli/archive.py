"""Archives: `icemap archive info`, `icemap archive append`, `icemap archive merge`, `icemap archive export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from icemap_xr.cli import console

_STORE = click.Path(path_type=Path)


@click.group()
def archive() -> None:
    """Look into regional archives, add years, join them, write parts of them in other formats."""


@archive.command()
@click.argument("path", metavar="ARCHIVE", type=_STORE)
def info(path: Path) -> None:
    """Show what ARCHIVE holds."""
    from icemap_xr.archive import attributes, open_archive, read_glaciers, read_outlines
    from icemap_xr.grid import RegionGrid
    from icemap_xr.regions import crs_name
    from icemap_xr.sidecars import footprint
    from icemap_xr.sources import model_names, scene_count

    tree = open_archive(path)
    maps = tree["maps"].to_dataset()
    grid = RegionGrid.from_dataset(maps)
    bounds = ", ".join(f"{one:.0f}" for one in grid.geobox.boundingbox.bbox)
    degrees = ", ".join(f"{one:.3f}" for one in footprint(grid)[1])
    curve = tree["calibration"].attrs
    record, years = attributes(tree, "lineage"), [int(year) for year in maps["year"].values]
    glaciers = read_glaciers(tree)
    rows = {
        "region": tree.attrs["region"],
        "years": ", ".join(map(str, years)),
        "grid": f"{grid.shape[0]} x {grid.shape[1]} pixels of {grid.resolution:g} m, {crs_name(grid.crs)}",
        "extent": f"{bounds} (west, south, east, north, m)",
        "in degrees": f"{degrees} (the same, as for export --bbox)",
        "maps": ", ".join(map(str, maps.data_vars)),
        "overviews": ", ".join(f"1:{name}" for name in tree["overviews"].children) or "none",
        "outlines": str(len(read_outlines(tree))),
        "glaciers": str(glaciers["glacier_id"].nunique()) if "glacier_id" in glaciers else "none",
        "areas": ", ".join(map(str, tree["areas"].data_vars)) or "none",
        "draws": ", ".join(map(str, tree["draws"].data_vars)) or "none",
        "blocks": ", ".join(map(str, tree["blocks"].data_vars)) or "none",
        "calibration": str(curve.get("name") or curve.get("type") or "without a name") if curve else "none",
        "model": model_names(record, years),
        "scenes": str(scene_count(record, years)),
    }
    table = Table("", "", title=str(path), show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.OUT.print(table, markup=False)


@archive.command()
@click.argument("path", metavar="ARCHIVE", type=_STORE)
@click.argument("new", metavar="NEW", type=_STORE)
def append(path: Path, new: Path) -> None:
    """Add the years of the archive NEW, all later and on the same grid, to ARCHIVE.

    Readers see the old ARCHIVE until the new one is whole. Killed wherever, the same command goes on.
    """
    from icemap_xr.appending import append_archive
    from icemap_xr.archive import open_archive

    append_archive(path, new)
    years = ", ".join(str(int(year)) for year in open_archive(path)["maps"].to_dataset()["year"].values)
    console.OUT.print(f"{path}: {years}", highlight=False, soft_wrap=True)


@archive.command()
@click.argument("paths", metavar="ARCHIVES...", nargs=-1, required=True, type=_STORE)
@click.option("--output", type=_STORE, required=True, help="The new archive, for example svalbard.zarr.")
@click.option("--region", required=True, help="Its name.")
@click.option("--overlap", type=click.Choice(["first", "mean"]), default="first", show_default=True)
@click.option("--owners", type=_STORE, help="Vector file with a column region: which region owns the ground.")
def merge(paths: tuple[Path, ...], output: Path, region: str, overlap: Any, owners: Path | None) -> None:
    """Join the ARCHIVES of neighbouring regions; outlines are drawn anew."""
    from icemap_xr.regions import merge as join
    from icemap_xr.vectors import as_frame

    frame = None if owners is None else as_frame(owners)
    written = join(paths, output, region=region, overlap=overlap, owners=frame)
    console.OUT.print(f"{len(paths)} archives: {written}", highlight=False, soft_wrap=True)


@archive.command()
@click.argument("path", metavar="ARCHIVE", type=_STORE)
@click.argument("folder", type=_STORE)
@click.option(
    "--format", "formats", multiple=True, type=click.Choice(["cog", "parquet", "gpkg"]), help="All by default."
)
@click.option(
    "--bbox", callback=lambda c, p, text: console.region(c, p, text) if text else None, help="W,S,E,N in degrees."
)
@click.option("--years", callback=lambda c, p, text: console.years(c, p, text) if text else None, help="2019-2021")
@click.option("--glacier", help="A glacier_id.")
def export(path: Path, folder: Path, formats: tuple[str, ...], bbox: Any, years: Any, glacier: str | None) -> None:
    """Write ARCHIVE, or a part of it, into the new FOLDER: COG, GeoParquet, GeoPackage and a STAC catalogue."""
    from icemap_xr.export import FORMATS
    from icemap_xr.export import export as write

    catalog = write(path, folder, formats=formats or FORMATS, bbox=bbox, years=years, glacier=glacier)
    console.OUT.print(f"catalogue: {catalog}", highlight=False, soft_wrap=True)
