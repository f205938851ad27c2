"""The `icemap` command: every sub-command is one stage, or a whole run."""

from __future__ import annotations

import click

from icemap_xr.cli import archive, calibration, console, data, mapping, planning, results, tiles, training, whole
from icemap_xr.errors import IcemapError, IncompleteRunError


def main() -> None:
    """Run the command line; deliberate errors become one line and exit code 1, Ctrl-C exit code 130."""
    try:
        cli(standalone_mode=False)
    except IncompleteRunError as error:
        console.show_missing(error.failures)
        console.fail(str(error), 1)
    except IcemapError as error:
        console.fail(str(error), 1)
    except click.ClickException as error:
        console.fail(error.format_message(), error.exit_code)
    except OSError as error:
        console.fail(f"{error.strerror or error}: {error.filename or 'check paths, space and permissions'}", 1)
    except (click.Abort, KeyboardInterrupt):
        console.fail("interrupted: nothing unfinished has a final name; the same command resumes", 130)


class _Commands(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        # `icemap cube info` is read as the command's name is written
        return super().resolve_command(ctx, ["cube-info", *args[2:]] if args[:2] == ["cube", "info"] else args)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="icemap-xr")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def cli(verbose: bool) -> None:
    """Glacier maps with honest uncertainty from Sentinel-1 time series."""
    console.start_logging(verbose)


for _command in (
    whole.demo,
    whole.run,
    data.search,
    data.stac_from_files,
    data.cube,
    data.info,
    data.export_tiles,
    mapping.models,
    mapping.predict,
    mapping.apply,
    calibration.calibrate,
    results.area,
    results.outlines,
    results.verify,
    results.publish,
    archive.archive,
    planning.plan,
    planning.manifests,
    tiles.tiles,
    tiles.status,
    training.train,
    training.evaluate,
):
    cli.add_command(_command)
