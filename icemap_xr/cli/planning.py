"""What regions would take, and what a cluster is made from: `icemap plan`, `icemap manifests`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from icemap_xr.cli import console


@click.command()
@click.argument("regions", nargs=-1)
@click.option("--years", callback=console.years, required=True, help="2020, 2016-2024 or 2017,2019.")
@click.option("--feature", "features", multiple=True, default=("grd", "insar"), show_default=True)
@click.option("--provider", help="Profile whose quotas bound reading, such as copernicus-dataspace.")
@click.option("--gflops", type=float, help="Sustained GFLOP/s of one GPU; 1000 by default.")
@click.option("--measure", is_flag=True, help="Measure GFLOP/s with the network of the published size on this machine.")
@click.option(
    "--measure-read", "raster", help="Measure MB/s of one connection with this raster, too; opened as PROVIDER says."
)
@click.option("--gpus", type=int, default=1, show_default=True)
@click.option("--ground", type=float, default=2.0, show_default=True, help="Mapped ground per glacier area.")
@click.option("--tracks", type=int, default=1, show_default=True, help="Relative orbits mapped at each place.")
@click.option("--overlap", type=float, default=0.5, show_default=True)
@click.option("--connections", type=int, help="Connections at a time, at most the provider's quota; 1 without.")
@click.option("--mb-per-s", type=float, help="MB/s of each connection, at most the provider's quota.")
def plan(
    regions: tuple[str, ...],
    years: tuple[int, ...],
    features: tuple[str, ...],
    provider: str | None,
    gflops: float | None,
    measure: bool,
    raster: str | None,
    gpus: int,
    ground: float,
    tracks: int,
    overlap: float,
    connections: int | None,
    mb_per_s: float | None,
) -> None:
    """Say what REGIONS (RGI first-order regions, such as svalbard or 11; all by default) would take."""
    from icemap_xr.providers import load_provider
    from icemap_xr.region_plan import Rates, assumptions, plan_regions

    if (measure and gflops is not None) or (raster and (mb_per_s is not None or not measure)):
        raise click.UsageError("a rate is given or measured: --measure-read goes with --measure, without --mb-per-s")
    given: dict[str, Any] = {
        "gpus": gpus,
        "ground": ground,
        "tracks": tracks,
        "overlap": overlap,
        "connections": connections,
        "mb_per_s": mb_per_s,
    }
    if measure:
        access = None if raster is None or provider is None else load_provider(provider).access
        rates = Rates.measured(features, raster=raster, access=access, **given)
    else:
        rates = Rates(1000.0 if gflops is None else gflops, **given)
    plans = plan_regions(regions, years=len(years), features=features, rates=rates, provider=provider)
    columns = (
        "region",
        "ground km2",
        "dates",
        "scenes",
        "read TB",
        "storage TB",
        "PFLOP",
        "GPU hours",
        "wall hours",
        "months",
    )
    table = Table(*columns, title=f"{len(years)} years")
    for one in plans:
        numbers, quota = one.plan, one.plan.quotas.tb_per_month
        table.add_row(
            one.name,
            f"{numbers.rows * numbers.columns / 1e4:,.0f}",
            f"{one.passes:,}",
            f"{one.scenes:,}",
            _amount(numbers.transfer_bytes / 1e12),
            _amount(one.storage_tb),
            _amount(numbers.flops / 1e15),
            _amount(one.gpu_hours),
            "not known" if one.wall_hours is None else _amount(one.wall_hours),
            "" if quota is None else _amount(numbers.transfer_bytes / quota / 1e12),
        )
    console.OUT.print(table)
    for line in assumptions(rates, features, provider):
        console.OUT.print(line, markup=False, highlight=False, soft_wrap=True)


def _amount(value: float) -> str:
    """Return a number with two digits that tell something: no small one becomes 0."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


@click.command()
@click.argument("values", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="New folder.")
def manifests(values: Path, output: Path) -> None:
    """Write image recipe and Kubernetes manifests of a Dask cluster from VALUES.yaml (pipelines/creodias)."""
    from icemap_xr.kubemanifests import write_manifests

    for path in write_manifests(values, output):
        console.OUT.print(str(path), markup=False, highlight=False, soft_wrap=True)
