"""`bench db`: the index of the runs."""

import click

from harness.cli.parameters import CommandGroup, results_option
from harness.home import index_path, results_home


@click.group(cls=CommandGroup)
def db() -> None:
    """Look after the index of the runs."""


@db.command()
@results_option
def rebuild(results: str | None) -> None:
    """Build the index anew from the run directories, which are the record."""
    from harness.records import index

    home = results_home(results)
    ingestion = index.rebuild(home)
    for name, why in ingestion.damaged.items():
        click.echo(f"Left out, damaged: {name} ({why})", err=True)
    live = f" {ingestion.live} still running were left alone." if ingestion.live else ""
    click.echo(f"{ingestion.indexed} runs are in {index_path(home)}.{live}")
