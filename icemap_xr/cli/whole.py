"""Whole runs: `icemap demo`, `icemap run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from icemap_xr.cli import console


@click.command()
@click.option("--output", type=click.Path(path_type=Path), default=Path("icemap-demo"), show_default=True)
@click.option("--seed", type=int, default=7, show_default=True, help="Seed of the simulated region.")
@click.option("--size", type=float, default=12.0, show_default=True, help="Side of the region in km.")
@click.option("--years", callback=console.years, default="2020-2022", show_default=True)
@click.option("--workers", type=int, default=2, show_default=True, help="Worker processes.")
def demo(output: Path, seed: int, size: float, years: tuple[int, ...], workers: int) -> None:
    """Simulate a region, serve it through a STAC API, and run the whole chain on it."""
    from icemap_xr.demo import print_report, run_demo

    print_report(run_demo(output, seed=seed, size_km=size, years=years, workers=workers), console.OUT)


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), help="New folder for the results.")
@click.option("--publish", help="Address to copy the archive to at the end, s3://bucket/name.zarr; tried first.")
@click.option("--dry-run", is_flag=True, help="Only say what it would take: scenes, bytes, hours, storage.")
@click.option("--items", type=click.Path(path_type=Path), help="With --dry-run: count these items (icemap search).")
@click.option("--gflops", type=float, default=1000.0, show_default=True, help="With --dry-run: sustained GFLOP/s.")
def run(
    config: Path, output: Path | None, publish: str | None, dry_run: bool, items: Path | None, gflops: float
) -> None:
    """Run CONFIG.yaml: search, cube, map, areas, outlines, archive.

    Exit code 3: all was written, and the cube has holes where rasters could not be read (`cube.on_error: hole`).
    """
    from icemap_xr.config import read_config

    content = read_config(config)
    if dry_run:
        from icemap_xr.catalog import load_items
        from icemap_xr.run_plan import plan_run

        plan = plan_run(content, items=load_items(items) if items else None, gflops=gflops)
        click.echo("\n".join(plan.lines()))
        return
    if output is None:
        raise click.UsageError("--output is missing: give a new folder, or --dry-run")
    from icemap_xr.run import run as run_config

    result = run_config(content, output, publish=publish)
    console.OUT.print(f"weights: {result.weights}", highlight=False, soft_wrap=True)
    console.OUT.print(_area_table(result.summary()))
    console.OUT.print(
        f"archive: {publish or result.archive}\npicture: {result.folder / 'overview.png'}",
        highlight=False,
        soft_wrap=True,
    )
    holes = result.holes()
    if holes:
        console.OUT.print(console.holes_table(holes))
        raise SystemExit(3)


def _area_table(summary: dict[str, Any]) -> Table:
    kind = summary["interval_kind"]
    table = Table("year", "area km2", f"low ({kind})", f"high ({kind})", "not observed km2", title="Glacier area")
    for row in summary["years"]:
        cells = (f"{row[key]:.3f}" for key in ("area_km2", "low_km2", "high_km2", "unobserved_km2"))
        table.add_row(str(row["year"]), *cells)
    return table
