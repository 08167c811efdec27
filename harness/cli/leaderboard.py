"""`bench leaderboard`: the rankings of `harness.judging`, for people or programs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import catalogue
from harness.cli import equal_time, tables
from harness.cli.leaderboard_table import print_group
from harness.cli.parameters import WorkloadName, names_in, results_option
from harness.cli.scores import Selection, print_scores, score_options
from harness.cli.suite_score import print_suite_scores
from harness.cli.tables import Format
from harness.errors import UsageError
from harness.home import results_home
from harness.judging.axes import AXES
from harness.reports import ranked_rows
from harness.spec import ClockKind
from harness.suites import workloads_named
from harness.table_text import Column

if TYPE_CHECKING:
    from harness.judging.equal_time import Moment


@click.command()
@click.option(
    "-w", "--workload", type=WorkloadName(), metavar="W,@SUITE,…", help="Only these. [default: all]"
)
@click.option(
    "--clock",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="Rank by time with compilation (cold) or without it (warm).",
)
@click.option("--axis", type=click.Choice(list(AXES)), help="Rank by it.  [default: time]")
@click.option(
    "--at-time",
    type=equal_time.MomentType(),
    metavar="TIME",
    help="Rank by the metric reached by then: seconds, 2.5, or paces, 500paces.",
)
@click.option("--pareto", is_flag=True, help="Mark the rows that none beats on every axis.")
@tables.format_option("table", "json", "csv", "md")
@click.option(
    "--from", "files", metavar="GLOB", help="Rank the runs in Parquet files: 'DIR/*.parquet'."
)
@score_options
@results_option
def leaderboard(
    workload: str | None,
    clock: ClockKind,
    axis: str | None,
    at_time: "Moment | None",
    pareto: bool,
    form: Format,
    files: str | None,
    results: str | None,
    **chosen: Any,
) -> None:
    """Rank what was measured.

    Results of one workload version, machine class and tuning effort are ranked together,
    others never. Times are Kaplan–Meier medians over the untainted runs. From five runs on there
    are intervals; rows whose intervals of ranks overlap are tied.

    With --score, submissions are ranked over several workloads. `suite`, of the workloads named
    by -w, compares with the reference recipe, so no other entry moves it. `algoperf` is that of
    AlgoPerf's performance profiles, of this home's runs and of the logs that `bench import`
    keeps here; it depends on who else was there.
    """
    if files is not None and results is not None:
        raise UsageError("--from names the runs' files, --results their folder. Give one.")
    selection = Selection(**chosen)
    _refuse_together(
        {
            "--score": selection.score,
            "--at-time": at_time,
            "--axis": axis,
            "--pareto": pareto or None,
        }
    )
    home = results_home(results)
    if selection.score == "suite":
        if workload is None:
            raise UsageError("This score is over a suite. Name it: --workload @core.")
        selection.refuse_options()
        print_suite_scores(home, workloads_named(workload), form, clock, files)
        return
    if selection.score is not None:
        names = None if workload is None else workloads_named(workload)
        print_scores(home, selection, form, names=names, clock=clock, files=files)
        return
    selection.refuse_options()
    if at_time is not None and files is not None:
        raise UsageError("--at-time needs evaluations, which the files of --from do not hold.")
    rows, columns = _rows(home, clock, files, axis or "time", at_time)
    if workload is not None:
        names = _full_names(workload, {row["workload"] for row in rows})
        rows = [row for row in rows if row["workload"] in names]
    if form in ("json", "csv"):
        tables.print_rows(rows, [Column(field=name, header=name) for name in columns], form)
    elif not rows:
        click.echo(_nothing_yet(home, workload))
    elif at_time is not None:
        equal_time.print_groups(_groups(rows), form, clock, at_time)
    else:
        for group in _groups(rows):
            print_group(group, form, clock, axis or "time", pareto=pareto)


def _refuse_together(given: Mapping[str, object]) -> None:
    named = [option for option, value in given.items() if value is not None]
    # A front is a mark beside a ranking; the others are rankings, and one table has one.
    if len(named) > 1 and named != ["--axis", "--pareto"]:
        raise UsageError(f"{named[0]} and {named[1]} are tables of their own. Give one.")


def _rows(
    home: Path, clock: ClockKind, files: str | None, axis: str, moment: "Moment | None"
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of every workload, and their fields."""
    from harness.judging import leaderboard as judging
    from harness.judging.equal_time import metric_at

    frame = (
        judging.leaderboard(home, None, clock, files, axis)
        if moment is None
        else metric_at(home, moment, clock)
    )
    return [ranked_rows.with_point(row) for row in frame.to_dicts()], frame.columns


def _groups(rows: Iterable[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    from harness.judging.leaderboard import RANKED_WITHIN

    return ranked_rows.groups(rows, RANKED_WITHIN)


def _full_names(workload: str, measured: set[str]) -> list[str]:
    """Return the full names; a workload that was measured needs no card to be shown."""
    return [
        full
        for name in names_in(workload) or [workload]
        for full in ([name] if name in measured else workloads_named(name))
    ]


def _nothing_yet(home: Path, workload: str | None) -> str:
    what = "Nothing" if workload is None else f"Nothing on {workload}"
    return (
        f"{what} is measured in {home} yet. Run\n\n"
        f"    {catalogue.first_command(workload)}\n\n"
        f"or name another folder by --results."
    )
