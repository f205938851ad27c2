"""Making and judging models: `icemap train`, `icemap evaluate`."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from icemap_xr.cli import console
from icemap_xr.errors import InputError, OutputExistsError

if TYPE_CHECKING:
    from icemap_xr.training.scores import Evaluation
    from icemap_xr.training.tiles import Tile
    from icemap_xr.types import Calibrator, ModelSpec

_path = click.Path(path_type=Path)


@click.command()
@click.argument("config", type=_path)
@click.option("--output", type=_path, required=True, help="Folder: new, or of the same training, which then goes on.")
@click.option("--workers", type=click.IntRange(1), help="Threads that prepare windows; the result is the same.")
@click.option("--tensorboard", is_flag=True, help="Also write the log for TensorBoard.")
def train(config: Path, output: Path, workers: int | None, tensorboard: bool) -> None:
    """Train, calibrate and judge the model of CONFIG.yaml; the same command goes on after an interruption."""
    from icemap_xr.training.recipe import read_recipe, run_recipe

    recipe = read_recipe(config)
    options = replace(
        recipe.train,
        workers=workers or recipe.train.workers,
        tensorboard=tensorboard or recipe.train.tensorboard,
    )
    bundle = run_recipe(replace(recipe, train=options), output, base=config.resolve().parent)
    test = bundle.training["test"]
    table = Table("tile", "IoU", title=f"{bundle.name} on ground it has not seen")
    for name, iou in [*test["iou"].items(), ("all", test["overall"]["iou"])]:
        table.add_row(escape(name), _number(iou))
    console.OUT.print(table)
    calibration = f"{test['ece']:.4f}, calibrated {test['ece_calibrated']:.4f}"
    for line in (
        f"calibration error {calibration}",
        f"model card: {output / 'MODEL_CARD.md'}",
        f"bundle: {bundle.folder}",
    ):
        console.OUT.print(line, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Judged:
    """Tiles to judge a model on.

    Parameters
    ----------
    tiles
        The tiles.
    origin
        In words, what they are.
    resolution
        Pixel size, m.
    place_of
        Place of a tile, by its name.
    """

    tiles: Sequence[Tile]
    origin: str
    resolution: float
    place_of: Any


@click.command()
@click.argument("model")
@click.option("--hdf5", type=_path, help="Tiles in the published HDF5 layout.")
@click.option("--tiles", "patterns", multiple=True, help="With --hdf5: names of tiles, with * and ?; repeatable.")
@click.option("--cube", type=_path, help="Cube (Zarr), with --outlines.")
@click.option("--outlines", type=_path, help="With --cube: reference outlines, GeoParquet, GeoPackage, ...")
@click.option("--years", callback=lambda c, p, text: console.years(c, p, text) if text else None, help="With --cube.")
@click.option("--tile-px", type=click.IntRange(1), help="With --cube: side of a tile; by default three windows.")
@click.option("--gaps", type=click.Choice(["error", "nearest", "nodata"]), default="error", show_default=True)
@click.option("--overlap", type=float, default=0.5, show_default=True)
@click.option(
    "--edges",
    type=click.Choice(["published", "valid", "full"]),
    help="Windows at the edges of tiles: as predict maps a region, or full ones only. Default: full with --hdf5, as "
    "the published evaluation; published with --cube.",
)
@click.option("--block", default="640m", show_default=True, help="Side of the blocks whose errors are taken.")
@click.option("--bins", type=click.IntRange(2), default=100, show_default=True, help="Bins of the reliability table.")
@click.option("--calibrator", type=_path, help="Calibrator (JSON) to judge too; by default the model's own.")
@click.option("--fit-calibrator", type=_path, help="Fit a calibrator to these maps and write it here (JSON).")
@click.option("--probabilities", type=_path, help="Write probabilities here, in the published HDF5 layout.")
@click.option("--save-bundle", type=_path, help="Save the model here with this calibration and these block errors.")
@click.option("--edge-errors", type=_path, help="Write the errors of the ice edge here (JSON), for icemap outlines.")
@click.option("--edge-block", default="160m", show_default=True, help="Side of their blocks, not larger than glaciers.")
@click.option("--skip-unknown", is_flag=True, help="Leave out tiles without a labelled and observed pixel.")
@click.option("--output", type=_path, required=True, help="New folder for JSON, table and pictures.")
def evaluate(model: str, output: Path, **options: Any) -> None:
    """Judge MODEL (a name, bundle folder or .h5 file) on labelled tiles or on a cube with reference outlines."""
    from icemap_xr.folders import appearing, write_text
    from icemap_xr.models import load_model
    from icemap_xr.training.judgement import places_of, write_calibrator, write_evaluation

    _check_options(output, options)
    predictor = load_model(model)
    with _opened(predictor.spec, options) as judged:
        calibrator = _calibrator(predictor, judged, options)
        found, fitted, edges = _judge(predictor, judged, calibrator, options)
    with appearing(output) as folder:
        write_evaluation(found, folder)
    if edges is not None:
        write_text(options["edge_errors"], json.dumps(edges, indent=1))
    if fitted is not None:
        write_calibrator(fitted, places_of(found.tiles, judged.place_of), options["fit_calibrator"])
    if options["save_bundle"] is not None:
        _save_bundle(predictor, judged, found, calibrator, edges, options)
    console.OUT.print(f"weights: {predictor.spec.name}: {predictor.spec.note}", highlight=False, soft_wrap=True)
    _print(found)
    for key in ("fit_calibrator", "probabilities", "save_bundle", "edge_errors"):
        if options[key] is not None and options[key].exists():
            console.OUT.print(f"{key.replace('_', ' ')}: {options[key]}", highlight=False, soft_wrap=True)
    console.OUT.print(str(output), highlight=False, soft_wrap=True)


def _check_options(output: Path, options: dict[str, Any]) -> None:
    """Refuse what cannot be before anything is computed."""
    if (options["hdf5"] is None) == (options["cube"] is None):
        raise InputError("give either --hdf5, or --cube with --outlines")
    for needed, key in (("hdf5", "patterns"), ("cube", "outlines"), ("cube", "years"), ("cube", "tile_px")):
        if options[key] and options[needed] is None:
            raise InputError(
                f"--{key.replace('patterns', 'tiles').replace('_', '-')} goes with --{needed}: leave it out"
            )
    if options["cube"] is not None and options["outlines"] is None:
        raise InputError("--cube needs --outlines: give the reference outlines")
    if options["fit_calibrator"] is not None:
        for key in ("calibrator", "save_bundle", "edge_errors"):
            if options[key] is not None:
                raise InputError(
                    f"--fit-calibrator and --{key.replace('_', '-')} do not go together: what is fitted here must be "
                    "judged on other tiles, in a second call with --calibrator"
                )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputExistsError(f"{output} exists and is not empty: choose a new folder")
    for key in ("fit_calibrator", "probabilities", "save_bundle", "edge_errors"):
        if options[key] is not None:
            console.new_file(options[key])
            if output.resolve() in options[key].resolve().parents:
                raise InputError(f"{options[key]} lies in --output, which is written last: choose a place beside it")
            options[key].parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _opened(spec: ModelSpec, options: dict[str, Any]) -> Iterator[Judged]:
    """Open the tiles."""
    from icemap_xr.cube import open_cube
    from icemap_xr.grid import RegionGrid
    from icemap_xr.training.cube_tiles import cube_tiles, read_outlines
    from icemap_xr.training.hdf5 import open_tiles, pixel_size, place_of, tile_names
    from icemap_xr.training.real_sources import square

    names = [feature.name for feature in spec.features]
    if options["hdf5"] is not None:
        path, patterns = options["hdf5"], options["patterns"] or ("*",)
        wanted = [one for one in tile_names(path) if any(fnmatch.fnmatchcase(one, each) for each in patterns)]
        if not wanted:
            raise InputError(f"{path} has no tile named {' or '.join(patterns)}: check file and --tiles")
        with open_tiles(path, names, names=wanted) as tiles:
            yield Judged(tiles, f"{len(tiles)} tiles of {path.name}", pixel_size(tiles), place_of)
        return
    path, cube = options["cube"], open_cube(options["cube"])
    grid = RegionGrid.from_dataset(cube)
    side = options["tile_px"] or min(3 * spec.window, *grid.shape)
    outlines = read_outlines(options["outlines"])
    made = cube_tiles(
        cube, outlines, spec.features, years=options["years"], side=side, name=path.stem, gaps=options["gaps"]
    )
    used = (grid.shape[0] // side) * (grid.shape[1] // side) * side**2 / (grid.shape[0] * grid.shape[1])
    if used < 1:
        text = f"tiles of {side} px cover {used:.1%} of the cube: what is left at its far edges is not judged"
        console.ERR.print(text, highlight=False, soft_wrap=True)
    origin = f"{len(made)} tiles of the cube {path.name} with {options['outlines'].name}"
    yield Judged(made, origin, grid.resolution, square)


def _calibrator(predictor: Any, judged: Judged, options: dict[str, Any]) -> Calibrator | None:
    """Return the calibrator to judge: the given one, the model's own, or none."""
    from icemap_xr.calibrate import as_calibrator
    from icemap_xr.training.judgement import check_unseen, places_of

    if options["fit_calibrator"] is not None:
        return None
    path = options["calibrator"]
    if path is not None:
        check_unseen(path, places_of((tile.name for tile in judged.tiles), judged.place_of))
        return as_calibrator(path)
    bundle = predictor.bundle
    return None if bundle is None or bundle.calibration is None else as_calibrator(bundle.calibration)


def _judge(
    predictor: Any, judged: Judged, calibrator: Calibrator | None, options: dict[str, Any]
) -> tuple[Evaluation, Calibrator | None, dict[str, Any] | None]:
    """Map and compare every tile once; return what was found, and calibrator and edge errors if they were asked for."""
    from icemap_xr.calibrate import SINGLE_YEARS, fit_calibrator
    from icemap_xr.progress import progress
    from icemap_xr.training.evaluate import Judge
    from icemap_xr.training.recipe import block_pixels
    from icemap_xr.training.regionerrors import edge_errors, tile_maps

    judge = Judge(
        predictor,
        options["overlap"],
        options["bins"],
        block_pixels(options["block"], judged.resolution),
        calibrator,
        skip_unknown=options["skip_unknown"],
        edges=options["edges"] or ("published" if options["hdf5"] is None else "full"),
    )
    fitted, edges = None, None
    if options["edge_errors"] is not None:
        block_pixels(options["edge_block"], judged.resolution)  # refuses what does not fit before anything is mapped
    with progress("judging", len(judged.tiles)) as advance:

        def told(name: str, scores: Any) -> None:
            advance(1, f"IoU of {name}: {_number(scores.iou)}" if scores is not None else f"{name} left out")

        pairs = judge.pairs(judged.tiles, options["probabilities"], told)
        if options["edge_errors"] is not None:
            edges = edge_errors(tile_maps(pairs, judged.resolution), options["edge_block"])
        elif options["fit_calibrator"] is None:
            for _ in pairs:
                pass
        else:
            name = f"{predictor.spec.name}-isotonic"
            fitted = fit_calibrator(pairs, bins=1000, name=name, fitted_on=judged.origin, map_kind=SINGLE_YEARS)
    return judge.result(), fitted, edges


def _save_bundle(
    predictor: Any,
    judged: Judged,
    found: Evaluation,
    calibrator: Calibrator | None,
    edges: dict[str, Any] | None,
    options: dict[str, Any],
) -> None:
    from icemap_xr.training.judgement import judged_bundle
    from icemap_xr.training.real_sources import year_unit
    from icemap_xr.training.recipe import figures, split_errors

    judged_bundle(
        predictor,
        options["save_bundle"],
        calibrator=calibrator,
        errors=split_errors(found, options["block"], year_unit),
        edges=edges,
        judged={"on": judged.origin, "overlap": found.overlap, "edges": found.edges, "block": options["block"]}
        | figures(found),
    )


def _print(found: Evaluation) -> None:
    from icemap_xr.training.judgement import score_rows

    columns = ("precision", "recall", "f1", "iou", "accuracy", "block_error_mean")
    table = Table("tile", *columns, title=f"{found.model} on {len(found.tiles)} tiles")
    for row in score_rows(found):
        table.add_row(escape(row["tile"]), *(_number(row[name]) for name in columns))
    console.OUT.print(table)
    after = "" if found.calibrated is None else f", calibrated {found.calibrated.ece:.4f}"
    console.OUT.print(f"calibration error {found.reliability.ece:.4f}{after}", highlight=False, soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
