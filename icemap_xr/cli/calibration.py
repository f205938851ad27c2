"""Calibration and held-out errors: `icemap calibrate fit`, `check`, `apply`, `errors` and `read-published`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.errors import InputError

_PATH = click.Path(path_type=Path)
_PAIR = click.option(
    "--pair",
    "pairs",
    nargs=2,
    type=_PATH,
    multiple=True,
    required=True,
    metavar="MAPS REFERENCE",
    help="A Zarr store of maps, and what is there: outlines, or a store with glacier_fraction. Repeatable.",
)


def _filtering(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the temporal filter."""
    for option in (
        click.option("--filter-stay", type=float, default=0.9, show_default=True, help="Of the Markov model."),
        click.option("--filter-window", type=int, default=3, show_default=True, help="Years, odd."),
        click.option(
            "--filter",
            "method",
            type=click.Choice(["none", "median", "majority", "hmm"]),
            default="none",
            show_default=True,
            help="Filter the maps over the years first; a calibrator holds for the kind of map of its fit.",
        ),
    ):
        command = option(command)
    return command


def _maps(path: Path, method: Any, filter_window: int, filter_stay: float) -> Any:
    from icemap_xr.temporal import filter_years

    maps = console.open_maps(path)
    return maps if method == "none" else filter_years(maps, method=method, window=filter_window, stay=filter_stay)


def _opened(pairs: Sequence[tuple[Path, Path]], **filtering: Any) -> list[tuple[Any, Any]]:
    """Return maps and references."""
    from icemap_xr.reference import read_reference

    opened = []
    for path, reference in pairs:
        maps = _maps(path, **filtering)
        opened.append((maps, read_reference(reference, maps)))
    return opened


@click.group()
def calibrate() -> None:
    """Turn model probability into P(ice | p), and learn how wrong maps are.

    Fit on some regions, check on others: filter first, then calibrate, then `errors` on regions that neither the model
    nor the calibrator has seen.
    """


@calibrate.command()
@_PAIR
@click.option(
    "--method",
    "curve",
    type=click.Choice(["isotonic", "beta", "temperature", "kernel-ridge"]),
    default="isotonic",
    show_default=True,
    help="kernel-ridge is the published one, and not monotone.",
)
@_filtering
@click.option("--output", type=_PATH, required=True, help="New .json file.")
def fit(pairs: Sequence[tuple[Path, Path]], curve: Any, output: Path, **filtering: Any) -> None:
    """Fit a calibrator."""
    from icemap_xr.calibrate import fit_calibrator, kind_of, tiles_of
    from icemap_xr.folders import write_text

    console.new_file(output)
    opened = _opened(pairs, **filtering)
    names = ", ".join(path.name for path, _ in pairs)
    kind = kind_of(opened[0][0]["probability"])
    tiles = (tile for maps, true in opened for tile in tiles_of(maps["probability"], true))
    found = fit_calibrator(tiles, method=curve, fitted_on=names, map_kind=kind)
    write_text(output, json.dumps(found.to_json(), indent=1))
    console.OUT.print(f"{output}: {curve}, {len(found.x)} knots, {kind}", highlight=False, soft_wrap=True)


@calibrate.command()
@_PAIR
@click.option("--calibrator", type=_PATH, help="JSON file; without it the probabilities are judged as they are.")
@click.option("--bins", type=int, default=100, show_default=True)
@_filtering
@click.option("--figure", type=_PATH, help="Draw the diagram to a .png, .svg or .pdf file.")
def check(
    pairs: Sequence[tuple[Path, Path]], calibrator: Path | None, bins: int, figure: Path | None, **filtering: Any
) -> None:
    """Judge probabilities by regions that no calibrator was fitted on."""
    from icemap_xr.calibrate import as_calibrator, reliability, tiles_of
    from icemap_xr.figures import reliability_figure
    from icemap_xr.plot import save_figure

    opened = _opened(pairs, **filtering)
    curves = {"as predicted": None} | ({} if calibrator is None else {"calibrated": as_calibrator(calibrator)})
    found = {}
    for name, curve in curves.items():
        tiles = (tile for maps, true in opened for tile in tiles_of(maps["probability"], true))
        found[name] = reliability(tiles, bins=bins, calibrator=curve)
    table = Table("probability", "pixels", "mean probability", "share of ice", title=f"Reliability ({name})")
    for row in found[name].to_dataframe().reset_index().to_dict("records"):
        if row["pixels"]:
            cells = (f"{row[key]:.4f}" for key in ("mean_probability", "ice_fraction"))
            table.add_row(f"{row['bin']:.3f}", f"{row['pixels']:.0f}", *cells)
    console.OUT.print(table)
    for name, one in found.items():
        console.OUT.print(f"calibration error {float(one['ece']):.4f}, {name}", highlight=False)
    if figure is not None:
        save_figure(reliability_figure(found), figure)


@calibrate.command()
@click.argument("maps", type=_PATH)
@click.argument("calibrator", type=_PATH)
@_filtering
@click.option("--output", type=_PATH, required=True, help="New Zarr store.")
def apply(maps: Path, calibrator: Path, output: Path, **filtering: Any) -> None:
    """Filter and calibrate MAPS (a Zarr store) with CALIBRATOR (a JSON file)."""
    from icemap_xr.calibrate import calibrate as add_calibrated
    from icemap_xr.store import save

    found = save(add_calibrated(_maps(maps, **filtering), calibrator), output, what="calibrating")
    console.OUT.print(f"{output}: {', '.join(map(str, found.data_vars))}", highlight=False, soft_wrap=True)


@calibrate.command()
@_PAIR
@click.option("--calibrator", type=_PATH, help="JSON file; without it the errors are those of the probabilities.")
@click.option("--block", default="3.2km", show_default=True, help="Block side, as the areas will be given it.")
@click.option("--edge-block", help="Errors of the ice edge instead: side of their blocks, such as 160m.")
@click.option(
    "--edges-of",
    type=click.Choice(["areas", "outlines"]),
    default="areas",
    show_default=True,
    help="What errors of the edge are for: glacier_area of probability, or outlines and pixels above --threshold.",
)
@click.option(
    "--area-method",
    type=click.Choice(["soft", "hard"]),
    default="soft",
    show_default=True,
    help="What errors of blocks are for: areas that are sums of probability, or of pixels above --threshold.",
)
@click.option("--threshold", type=float, default=0.5, show_default=True, help="Above this a pixel is ice.")
@_filtering
@click.option("--output", type=_PATH, required=True, help="New .json file.")
def errors(
    pairs: Sequence[tuple[Path, Path]],
    calibrator: Path | None,
    block: str,
    edge_block: str | None,
    edges_of: str,
    area_method: Any,
    threshold: float,
    output: Path,
    **filtering: Any,
) -> None:
    """Learn how wrong maps are, from held-out regions: at least two, each a --pair.

    For `icemap outlines --edge-errors`: --edge-block 160m --edges-of outlines.
    """
    from icemap_xr.calibrate import calibrate as add_calibrated
    from icemap_xr.edgeerrors import held_out_edge_errors
    from icemap_xr.errormodel import held_out_errors
    from icemap_xr.folders import write_text

    console.new_file(output)
    if edge_block is None and (edges_of != "areas" or (area_method == "soft" and threshold != 0.5)):
        raise InputError("--edges-of and --threshold are for errors of the ice edge: give --edge-block too")
    if edge_block is not None and area_method != "soft":
        raise InputError("--area-method is for errors of blocks: give --edges-of outlines for errors of the ice edge")
    opened = _opened(pairs, **filtering)
    if calibrator is None:
        given = [(maps["probability"], true) for maps, true in opened]
    else:
        given = [(add_calibrated(maps, calibrator)["calibrated"], true) for maps, true in opened]
    if edge_block is None:
        found = held_out_errors(given, block=block, method=area_method, threshold=threshold)
        count, what = len(found["errors"]), f"blocks of {block}"
    else:
        of = "hard" if edges_of == "outlines" else "soft"
        found = held_out_edge_errors(given, block=edge_block, method=of, threshold=threshold)
        count, what = len(given), "regions, of the ice edge"
    write_text(output, json.dumps(found, indent=1))
    console.OUT.print(f"{output}: errors of {count} {what}", highlight=False, soft_wrap=True)


@calibrate.command("read-published")
@click.argument("file", type=_PATH)
@click.option("--output", type=_PATH, required=True, help="New .json file.")
def read_published(file: Path, output: Path) -> None:
    """Read the published calibrator (a scikit-learn pickle) without executing anything in it."""
    from icemap_xr.folders import write_text
    from icemap_xr.sklearn_file import read_kernel_ridge

    console.new_file(output)
    found = read_kernel_ridge(file)
    write_text(output, json.dumps(found.to_json(), indent=1))
    console.OUT.print(f"{output}: {len(found.x)} knots", highlight=False, soft_wrap=True)
