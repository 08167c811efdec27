"""`bench import`: what other benchmarks measured, kept in the results home."""

from pathlib import Path

import click

from harness.cli.parameters import CommandGroup, results_option
from harness.home import results_home

_PATHS_SHOWN = 3


@click.group("import", cls=CommandGroup)
def import_group() -> None:
    """Keep other benchmarks' logs beside the runs."""


@import_group.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--targets",
    metavar="NAME|FILE",
    help="Score them by these from now on: v0.5, v0.6 or a file like AlgoPerf's own.",
)
@click.option(
    "--name", metavar="NAME", help="What to call the import. [default: the folder's or archive's]"
)
@results_option
def algoperf(source: Path, targets: str | None, name: str | None, results: str | None) -> None:
    """Import AlgoPerf's logs from SOURCE, a folder or a .tar.xz of one.

    `bench leaderboard --score algoperf` scores them then; SOURCE is not needed any more. The
    evaluations lie as Parquet in RESULTS/imported/algoperf/NAME, for `bench query` and others.
    """
    home = results_home(results)

    from harness.interop.algoperf.imports import import_logs

    made = import_logs(home, source, name, targets)
    read = made.provenance
    for why, paths in read.reasons.items():
        click.echo(f"Skipped {len(paths)}, {why}:", err=True)
        for path in paths[:_PATHS_SHOWN]:
            click.echo(f"  {path}", err=True)
        if len(paths) > _PATHS_SHOWN:
            rest = len(paths) - _PATHS_SHOWN
            click.echo(f"  and {rest} more, named in {made.folder / 'import.json'}", err=True)
    for ruleset, submissions in read.submissions.items():
        click.echo(f"{ruleset or 'submissions'}: {', '.join(submissions)}")
    click.echo(
        f"Imported {read.files_read:,} trials with {read.evaluations:,} evaluations as "
        f"{read.name}. To score them:\n\n"
        f"    bench leaderboard --score algoperf --from-import {read.name}"
    )
