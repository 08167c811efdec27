"""`bench runs`: the run directories."""

import contextlib
import shutil
from pathlib import Path

import click

from harness.cli.parameters import CommandGroup, results_option
from harness.cli.run_names import RunName, find_run
from harness.errors import UsageError
from harness.home import results_home


@click.group(cls=CommandGroup)
def runs() -> None:
    """Look after the run directories."""


@runs.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True, type=RunName())
@click.option("--yes", is_flag=True, help="Do not ask.")
@results_option
def rm(names: tuple[str, ...], yes: bool, results: str | None) -> None:
    """Remove runs for good: directory and index rows. RUN is an id, its beginning or `last`."""
    home = results_home(results)
    found = {directory.run_id: directory for directory in (find_run(home, name) for name in names)}
    live = [run_id for run_id, directory in found.items() if directory.is_live()]
    if live:
        raise UsageError(
            f"{', '.join(live)} {'is' if len(live) == 1 else 'are'} still running. Nothing was "
            f"removed. Stop the run (Ctrl-C in its terminal) or wait for its end."
        )
    if not yes:
        for run_id in found:
            click.echo(run_id)
        click.confirm(f"Remove {_runs(len(found))} for good?", abort=True)
    for directory in found.values():
        try:
            shutil.rmtree(directory.folder)
        except OSError as error:
            raise UsageError(f"{directory.folder} cannot be removed: {error}.") from None
    _forget(home, list(found))
    click.echo(f"Removed {_runs(len(found))}.")


def _forget(home: Path, run_ids: list[str]) -> None:
    from harness.records import index

    # Whoever reads the index next drops the rows that have no directory.
    with contextlib.suppress(index.IndexBusyError):
        index.remove(home, run_ids)


def _runs(number: int) -> str:
    return f"{number} run" if number == 1 else f"{number} runs"
