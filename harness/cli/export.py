"""`bench export`: the runs for other tools and other places."""

import re
import socket
from pathlib import Path

import click

from harness.cli.parameters import CommandGroup, results_option
from harness.errors import UsageError
from harness.home import results_home


@click.group(cls=CommandGroup)
def export() -> None:
    """Write the runs for other tools."""


@export.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="Of the files. [default: this host's name]")
@results_option
def parquet(folder: Path, name: str | None, results: str | None) -> None:
    """Write FOLDER/NAME.parquet, the runs, and a subfolder for each other table of the index.

    One NAME a home: files of several machines lie side by side, and
    `bench leaderboard --from 'FOLDER/*.parquet'` ranks them all.
    """
    chosen = name or socket.gethostname() or "runs"
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", chosen):
        raise UsageError(f"--name takes letters, digits, `_`, `.` and `-`, not {chosen!r}.")
    home = results_home(results)

    from harness.records.parquet import export as export_parquet

    written = export_parquet(home, folder, chosen)
    counts = ", ".join(f"{count:,} {table}" for table, count in written.items())
    click.echo(f"Written to {folder}: {counts}.")
