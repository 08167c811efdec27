"""`bench tune`: find a submission's hyperparameters on a workload, or on several at once."""

from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from harness.cli import EXIT_OK, EXIT_RUN_ENDED_OTHERWISE
from harness.cli.executors import executor_options
from harness.cli.parameters import (
    SubmissionName,
    WorkloadName,
    data_dir_option,
    nproc_option,
    results_option,
)
from harness.cli.run import check_writable
from harness.errors import UsageError
from harness.home import results_home

if TYPE_CHECKING:
    from harness.cards import SubmissionCard
    from harness.judging.tuning import Trial
    from harness.sweeps.execution import Executor

TRIALS_SHOWN = 10


@click.command()
@click.option("-s", "--submission", type=SubmissionName(), required=True, help="A name.")
@click.option("-w", "--workload", type=WorkloadName(), required=True, metavar="W,@SUITE,…",
    help="On which workloads.",
)  # fmt: skip
@click.option(
    "--trials", type=click.IntRange(2, 10_000), default=16, show_default=True, metavar="K",
    help="Points to try on each workload, its present one first.",
)  # fmt: skip
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="K",
    help="Runs of each point.",
)  # fmt: skip
@click.option("--across-workloads", is_flag=True, help="Find the one point that serves all best.")
@click.option("--points-seed", type=click.IntRange(0), default=0, show_default=True,
    help="Another seed draws other points.",
)  # fmt: skip
@nproc_option
@executor_options
@click.option("--write", is_flag=True, help="Put the best point on the submission's card.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and how long it would take.")
@data_dir_option
@results_option
def tune(
    submission: str,
    workload: str,
    trials: int,
    seeds: int,
    across_workloads: bool,
    points_seed: int,
    nproc: int,
    executor: Callable[[int], "Executor"],
    write: bool,
    dry_run: bool,
    results: str | None,
) -> int:
    """Try points from a submission's search ranges and rank them by time to target.

    Finished runs are not repeated: the same command goes on where it stopped, and more
    --trials begin with those that were made. Also says what the best of k trials would have
    been for every k, which is what tuning costs.

    \b
    Examples:
      bench tune -s lion -w resnet --trials 16
      bench tune -s muon -w @core --across-workloads --trials 8
      bench tune -s lion -w resnet --write

    Exit codes: 0; 2 usage; 4 some runs crashed or could not be made; 130 interrupted.
    """  # noqa: D301 - click reads the backspace
    from harness import catalogue
    from harness.cli.sweep_display import carry_out
    from harness.suites import workloads_named
    from harness.sweeps.tuning import points_to_try, trials_of, tuning_jobs

    card = _card(submission)
    home = results_home(results)
    check_writable(home)
    cards = [catalogue.workload(name).card for name in workloads_named(workload)]
    together = points_to_try(card, None, trials, points_seed)
    points = {
        one.name: together if across_workloads else points_to_try(card, one, trials, points_seed)
        for one in cards
    }
    with closing(executor(nproc)) as slots:
        planned = slots.planned(
            partial(tuning_jobs, submission, points, seeds, home=home, nproc=nproc)
        )
        ended = carry_out(planned, slots, home, dry_run=dry_run)
    if ended is not None:
        return ended
    missing = 0
    for names in [list(points)] if across_workloads else [[name] for name in points]:
        own = [job for job in planned if job.workload in names]
        found, lacking = trials_of(own, points[names[0]], home)
        missing += lacking
        _report(submission, names, found)
        if write and found:
            _write(card, names, found, len(points[names[0]]), seeds)
    return EXIT_RUN_ENDED_OTHERWISE if missing else EXIT_OK


def _card(submission: str) -> "SubmissionCard":
    from harness import catalogue
    from harness.sweeps.points import search_space

    card = catalogue.submission(submission).card
    if not search_space(card):
        raise UsageError(
            f"{submission} has no search ranges, so there is nothing to tune. Give `search` for "
            "a hyperparameter on its card."
        )
    return card


def _report(submission: str, names: list[str], trials: "list[Trial]") -> None:
    from harness.judging.tuning import expected_best, ranked

    where = names[0] if len(names) == 1 else f"{len(names)} workloads together"
    if not trials:
        click.echo(f"{submission} on {where}: no point has all its runs yet.")
        return
    ordered = ranked(trials)
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = f"{submission} on {where}, the best of {len(trials)} points first"
    for heading in ("trial", "reached", "of the budget", "point"):
        table.add_column(heading, justify="left" if heading == "point" else "right")
    for trial in ordered[:TRIALS_SHOWN]:
        point = ", ".join(f"{name}={value}" for name, value in trial.point.items())
        table.add_row(
            f"{trial.number}{' (now)' if trial.number == 0 else ''}",
            f"{trial.reached}/{len(trial.attempts)}",
            f"{trial.share_of_budget:.1%}",
            point,
        )
    Console().print(table)
    best = expected_best([trial.share_of_budget for trial in trials])
    shown = sorted({1, 2, 3, 5, 10, 20, 50, 100, len(best)} & set(range(1, len(best) + 1)))
    words = ", ".join(f"k={k} {best[k - 1]:.1%}" for k in shown)
    click.echo(f"Expected best of k trials, of the budget: {words}")


def _write(
    card: "SubmissionCard", names: list[str], trials: "list[Trial]", count: int, seeds: int
) -> None:
    from harness import catalogue
    from harness.judging.tuning import ranked
    from harness.sweeps.tuned_points import with_tuned_point

    path: Path = catalogue.submission(card.name).path
    best = ranked(trials)[0]
    together = "" if len(names) == 1 else f", the one that serves {len(names)} workloads best"
    source = (
        f"bench tune: the best of {count} points, the one before and scrambled Halton, on "
        f"{seeds} seed{'s' if seeds > 1 else ''} each{together}"
    )
    try:
        text = path.read_text(encoding="utf-8")
        for name in names:
            text = with_tuned_point(
                text,
                catalogue.workload(name).card,
                best.point,
                trials=count,
                source=source,
                origin=str(path),
            )
        aside = path.with_suffix(".yaml.new")
        try:
            aside.write_text(text, encoding="utf-8")
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"The card {path} cannot be written: {error}.") from None
    click.echo(f"Written: {path}")
