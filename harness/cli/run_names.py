"""Finds a run by what a user types: its id, a unique beginning of it, or `last`."""

from pathlib import Path

import click
import msgspec
from click.shell_completion import CompletionItem

from harness.errors import UsageError, one_of
from harness.home import results_home, runs_folder
from harness.records.run_directory import RunDirectory, run_directories

LAST = "last"
_WITHIN_A_SECOND = 20


class RunName(click.ParamType[str]):
    """The name of a run; completes from the results folder."""

    name = "run"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the matching run ids, newest first."""
        directories = newest_first(results_home(ctx.params.get("results")))
        names = [LAST, *(directory.run_id for directory in directories)]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def find_run(home: Path, name: str) -> RunDirectory:
    """Return the run `name`.

    Raises:
        UsageError: no run has that id, or several begin with it.
    """
    found = {directory.run_id: directory for directory in newest_first(home)}
    if not found:
        raise UsageError(
            f"There are no runs in {home}. Name another folder with --results DIR or "
            f"$BENCH_RESULTS, or time something with `bench run`."
        )
    if name in found:
        return found[name]
    if name == LAST:
        # The ids tell runs of different seconds apart, the specifications those of one.
        return max(list(found.values())[:_WITHIN_A_SECOND], key=_created)
    beginning = [run_id for run_id in found if name and run_id.startswith(name)]
    if len(beginning) == 1:
        return found[beginning[0]]
    if beginning:
        raise UsageError(
            f"{len(beginning)} runs begin with {name!r}: {', '.join(sorted(beginning)[:5])}"
            f"{', …' if len(beginning) > 5 else ''}. Give more of the id."
        )
    raise one_of("The run", name, list(found)[:10], "`bench list runs` shows the others.")


def newest_first(home: Path) -> list[RunDirectory]:
    """Return the run directories, the newest first: run ids begin with the time."""
    return list(run_directories(runs_folder(home)))[::-1]


def _created(directory: RunDirectory) -> tuple[int, str]:
    try:
        return (directory.spec().created_unix_ns, directory.run_id)
    except (OSError, msgspec.MsgspecError):
        return (0, directory.run_id)
