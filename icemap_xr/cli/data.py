"""From catalogues to cubes: `icemap search`, `icemap stac-from-files`, `icemap cube`, `icemap cube-info`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.errors import InputError

if TYPE_CHECKING:
    from icemap_xr.coverage import CoverageRow

_region = click.option(
    "--region", callback=console.region, required=True, help="west,south,east,north in degrees, or a vector file."
)


@click.command()
@click.argument("provider")
@_region
@click.option("--years", callback=console.years, required=True, help="2020, 2016-2024 or 2017,2019.")
@click.option("--feature", "features", multiple=True, help="grd, rtc or insar; all by default.")
@click.option("--orbit-state", type=click.Choice(["ascending", "descending"]))
@click.option("--relative-orbit", help="A number, or best for the orbit that observes the region best.")
@click.option("--platform", "platforms", multiple=True, help="Such as sentinel-1a; all by default.")
@click.option("--year-start", default="01-01", show_default=True)
@click.option("--profile", default="local", show_default=True, help="Profile of a URL or folder: a name or .yaml file.")
@click.option("--deadline", type=float, default=600.0, show_default=True, help="Seconds for the whole search.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw what was found (.png, .svg or .pdf).")
@click.option("--output", type=click.Path(path_type=Path), help="Write the items here (JSON, without signatures).")
def search(
    provider: str,
    region: Any,
    years: tuple[int, ...],
    features: tuple[str, ...],
    orbit_state: str | None,
    relative_orbit: str | None,
    platforms: tuple[str, ...],
    year_start: str,
    profile: str,
    deadline: float,
    plot: Path | None,
    output: Path | None,
) -> None:
    """Find scenes of PROVIDER: a profile, a STAC address, a catalog.json or a folder."""
    from icemap_xr.catalog import save_items
    from icemap_xr.catalog import search as find
    from icemap_xr.coverage import coverage, coverage_figure
    from icemap_xr.providers import PROVENANCE

    for path in filter(None, (plot, output)):
        console.new_file(path)
    items = find(
        provider,
        region,
        years,
        features=features or None,
        orbit_state=orbit_state,
        relative_orbit=_orbit(relative_orbit),
        platforms=platforms or None,
        year_start=year_start,
        profile=profile,
        deadline=deadline,
    )
    rows = coverage(items, region)
    console.OUT.print(_coverage_table(rows, len(items)))
    _print_notes(items.extra_fields[PROVENANCE], {row.feature for row in rows if row.scenes}, features)
    if plot:
        from icemap_xr.plot import save_figure

        save_figure(coverage_figure(items, rows), plot, dpi=120)
    if output:
        save_items(items, output)


def _some_years(context: click.Context, parameter: click.Parameter, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else console.years(context, parameter, text)


def _orbit(text: str | None) -> int | Literal["best"] | None:
    if text is None or text == "best":
        return text  # type: ignore[return-value]
    if not text.isdigit():
        raise InputError(f"--relative-orbit {text!r} is not allowed: give a number of 1 to 175, or best")
    return int(text)


def _coverage_table(rows: Sequence[CoverageRow], items: int) -> Table:
    columns = ("feature", "year", "orbit", "platform", "polarisation", "scenes", "of region %", "longest gap, days")
    table = Table(*columns, title=f"{items} items")
    for row in rows:
        orbit = f"{row.relative_orbit if row.relative_orbit > 0 else ''} {row.orbit_state}".strip()
        share = "" if math.isnan(row.share) else f"{100 * row.share:.0f}"
        pairs = f", {row.baseline_days:g} days" if row.baseline_days else ""
        cells = (row.feature + pairs, str(row.year), orbit, row.platform, row.polarisations)
        table.add_row(*cells, str(row.scenes), share, f"{row.longest_gap_days:.0f}")
    return table


def _print_notes(record: Mapping[str, Any], features: set[str], wanted: Sequence[str]) -> None:
    """Say what was chosen, dropped, mended and not found, and which published weights the features allow."""
    from icemap_xr.models.registry import models_for

    if chosen := record.get("chosen_orbit"):
        others = ", ".join(f"{name}: {score:g}" for name, score in chosen["others"].items()) or "none"
        console.OUT.print(
            f"orbit {chosen['relative_orbit']} {chosen['orbit_state']}: {chosen['score']:g} scenes over the region in "
            f"its worst year (others: {others})",
            soft_wrap=True,
        )
    for one in record["dropped"]:
        console.OUT.print(f"left out {one['dropped']}: {one['because']}; kept {one['kept']}", soft_wrap=True)
    for note in record["mended"]:
        console.OUT.print(f"mended {note}", soft_wrap=True)
    for name, count in record["unknown"].items():
        console.OUT.print(
            f"left out {count} items of {name}: they do not say the orbit, direction or platform that was asked for",
            soft_wrap=True,
        )
    for name in sorted({one["feature"] for one in record["sources"]} - features):
        if name in wanted:
            console.OUT.print(f"{name}: nothing found", soft_wrap=True)
    raw = sorted({one["collection"] for one in record["sources"] if not one["geocoded"] and one["feature"] in features})
    if raw:
        console.OUT.print(
            f"{', '.join(raw)}: in radar geometry; a cube refuses it unless --grd says how to geocode it",
            soft_wrap=True,
        )
    usable = sorted(features - {one["feature"] for one in record["sources"] if not one["geocoded"]})
    ready = {row.name for row in models_for(usable)}
    names = [row.name + ("" if row.name in ready else " (with --grd)") for row in models_for(features)]
    console.OUT.print(
        f"weights that {', '.join(sorted(features)) or 'nothing'} allow: {', '.join(names) or 'none'}", soft_wrap=True
    )


@click.command("stac-from-files")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--relative-orbit", type=click.IntRange(1, 175), help="Of files that do not tell it, as of coherence.")
@click.option("--orbit-state", type=click.Choice(["ascending", "descending"]), help="Likewise.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New folder for the catalogue.")
def stac_from_files(folder: Path, relative_orbit: int | None, orbit_state: str | None, output: Path) -> None:
    """Turn a FOLDER of OPERA RTC or coherence rasters into a static STAC catalogue."""
    from icemap_xr.folders import appearing
    from icemap_xr.stac_items import items_from_files, state_orbit, write_catalog

    items = items_from_files(folder)
    state_orbit(items, relative_orbit, orbit_state)
    with appearing(output) as draft:
        write_catalog(items, draft, title=f"Rasters of {folder.name}")
    console.OUT.print(f"{len(list(items))} items: {output / 'catalog.json'}", highlight=False, soft_wrap=True)


@click.command()
@click.argument("items", type=click.Path(path_type=Path))
@click.option("--crs", required=True, help="Projected CRS of the grid, such as EPSG:32633.")
@click.option("--resolution", type=float, default=10.0, show_default=True, help="Pixel size in metres.")
@_region
@click.option("--feature", "features", multiple=True, help="grd, rtc or insar; all in ITEMS by default.")
@click.option("--years", callback=_some_years, help="Years of the index; those of the search by default.")
@click.option("--steps", type=int, default=15, show_default=True, help="Scenes per year.")
@click.option("--year-start", help="Month and day on which a year begins; that of the search by default.")
@click.option("--tolerance-days", type=float, help="Largest distance of a scene from its step; any by default.")
@click.option("--polarisation")
@click.option("--baseline-days", type=float, help="Temporal baseline of the coherence pairs to keep.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "hole"]),
    default="raise",
    show_default=True,
    help="What becomes of rasters that cannot be read: an error, or a recorded hole (exit code 3).",
)
@click.option("--reuse", type=click.Path(path_type=Path), help="Finished cube: what it holds whole is not read again.")
@click.option("--profile", help="Provider profile that says how rasters are opened; that of the search by default.")
@click.option(
    "--deadline", type=float, default=300.0, show_default=True, help="Seconds for one block, retries included."
)
@click.option(
    "--grd",
    "geocoding",
    type=click.Choice(["terrain", "ellipsoid", "gcp"]),
    help="Calibrate GRD in radar geometry, and geocode it so; without it, it is refused.",
)
@click.option("--dem", multiple=True, help="Raster of the elevation model for --grd; repeatable.")
@click.option("--dem-heights", type=click.Choice(["ellipsoid", "egm2008", "egm96"]), help="What its heights refer to.")
@click.option("--geoid", help="Height of the geoid above the ellipsoid: a raster, or metres.")
@click.option("--dem-missing", type=click.Choice(["error", "sea"]), default="error", show_default=True)
@click.option("--radiometry", type=click.Choice(["sigma0", "gamma0", "beta0"]), default="sigma0", show_default=True)
@click.option("--stable", help="Ground that does not move (vector or raster): scenes' shifts are measured there alone.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New Zarr store.")
def cube(
    items: Path,
    crs: str,
    resolution: float,
    region: Any,
    features: tuple[str, ...],
    years: tuple[int, ...] | None,
    steps: int,
    year_start: str | None,
    tolerance_days: float | None,
    polarisation: str | None,
    baseline_days: float | None,
    on_error: Literal["raise", "hole"],
    reuse: Path | None,
    profile: str | None,
    deadline: float,
    output: Path,
    geoid: str | None,
    **grd: Any,
) -> None:
    """Read the scenes in ITEMS (what `icemap search --output` wrote) into a cube.

    Exit code 3: the cube was written, and has holes where rasters could not be read (`icemap cube-info`).
    """
    from icemap_xr.catalog import load_items
    from icemap_xr.cube import build_cube
    from icemap_xr.cube_report import cube_info
    from icemap_xr.footprints import grid_over
    from icemap_xr.grd.section import GrdSection
    from icemap_xr.web import Patience

    ds = build_cube(
        load_items(items),
        grid_over(region, crs, resolution),
        output,
        features=features or None,
        years=years,
        steps=steps,
        year_start=year_start,
        tolerance_days=tolerance_days,
        polarisation=polarisation,
        baseline_days=baseline_days,
        on_error=on_error,
        reuse=reuse,
        profile=profile,
        patience=Patience(deadline=deadline),
        grd=GrdSection(geoid=_metres_or_path(geoid), **grd).options(),
    )
    console.OUT.print(f"{output}: {dict(ds.sizes)}", highlight=False, soft_wrap=True)
    found = cube_info(output)
    for note in found["notes"]:
        console.OUT.print(note, highlight=False, soft_wrap=True)
    if found["missing"]:
        console.OUT.print(console.holes_table(found["missing"]))
        raise SystemExit(3)


def _metres_or_path(text: str | None) -> float | str | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


@click.command("cube-info")
@click.argument("path", metavar="CUBE", type=console.StorePath(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--stable", type=click.Path(path_type=Path), help="Stable ground (vector or raster): also measure platform offsets."
)
def info(path: Path, as_json: bool, stable: Path | None) -> None:
    """Say what a CUBE holds: scenes, valid pixels, steps of each year, and what could not be read.

    Exit code 3: it has holes.
    """
    from icemap_xr.cube_report import cube_info

    found = cube_info(path)
    if stable is not None:
        from icemap_xr.cube import open_cube
        from icemap_xr.platforms import platform_offsets

        found["platform_offsets"] = [one.to_dict() for one in platform_offsets(open_cube(path), stable)]
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _print_info(path, found)
    if found["missing"]:
        raise SystemExit(3)


@click.command("export-tiles")
@click.argument("path", metavar="CUBE", type=console.StorePath(path_type=Path))
@click.argument("outlines", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New HDF5 file.")
@click.option("--feature", "features", multiple=True, help="Features to write; all of the cube by default.")
@click.option("--years", callback=_some_years, help="2020, 2016-2024 or 2017,2019; all by default.")
@click.option("--side", type=int, default=1000, show_default=True, help="Side of a tile in pixels.")
@click.option("--name", default="cube", show_default=True, help="Tiles are named NAME-row-column_year_ro<orbit>.")
@click.option("--gaps", type=click.Choice(["error", "nearest"]), default="error", show_default=True)
def export_tiles(
    path: Path,
    outlines: Path,
    output: Path,
    features: tuple[str, ...],
    years: tuple[int, ...] | None,
    side: int,
    name: str,
    gaps: Literal["error", "nearest"],
) -> None:
    """Write a CUBE and glacier OUTLINES as training tiles in the published HDF5 layout."""
    from icemap_xr import schema
    from icemap_xr.cube import open_cube
    from icemap_xr.training.cube_tiles import cube_tiles, read_outlines
    from icemap_xr.training.hdf5_write import write_tiles
    from icemap_xr.training.tiles import feature_specs

    console.new_file(output)
    ds = open_cube(path)
    names = features or tuple(one for one in schema.FEATURES if one in ds)
    side = min(side, ds.sizes[schema.Y], ds.sizes[schema.X])
    tiles = cube_tiles(ds, read_outlines(outlines), feature_specs(names), years=years, side=side, name=name, gaps=gaps)
    track = int(ds.attrs.get("relative_orbit", -1))
    write_tiles(tiles, output, relative_orbit=track if track > 0 else None)
    console.OUT.print(f"{len(tiles)} tiles: {output}", highlight=False, soft_wrap=True)


def _form(one: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (one["polarisation"] or "polarisation not known", one["radiometry"])))


def _print_info(path: Path, found: Mapping[str, Any]) -> None:
    grid, track = found["grid"], found["relative_orbit"]
    orbit = f"{track if track > 0 else 'not known'} {found['orbit_state']}".strip()
    head = f"{path}: {grid['rows']} x {grid['columns']} px, {grid['crs']}, orbit {orbit}"
    table = Table("feature", "year", "steps filled", "longest gap, days", title=head)
    for name, one in found["features"].items():
        for year in one["years"]:
            gap = "" if year["longest_gap_days"] is None else f"{year['longest_gap_days']:.0f}"
            table.add_row(name, str(year["year"]), f"{year['filled']} of {year['steps']}", gap)
    console.OUT.print(table)
    for name, one in found["features"].items():
        console.OUT.print(
            f"{name}: {one['scenes']} scenes {one['first'][:10]} to {one['last'][:10]}, {_form(one)}, "
            f"{', '.join(one['platforms']) or 'platform not known'}; "
            f"{100 * one['valid_share']:.1f} % of pixels observed; "
            f"{len(one['empty'])} scenes without any",
            highlight=False,
            soft_wrap=True,
        )
    for one in found.get("platform_offsets", ()):
        told = "unknown, too few pairs" if math.isnan(one["offset_db"]) else f"{one['offset_db']:+.2f} dB"
        console.OUT.print(
            f"{one['feature']}: {one['platform']} minus {one['reference']} over stable ground: {told} "
            f"(+- {one['standard_error_db']:.2f}, {one['pairs']} pairs of {one['scenes']} scenes)",
            highlight=False,
            soft_wrap=True,
        )
    for note in found["notes"]:
        console.OUT.print(note, highlight=False, soft_wrap=True)
    if found["missing"]:
        console.OUT.print(console.holes_table(found["missing"]))
