"""`bench plot`: the report's figures as pictures for papers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.parameters import CommandGroup, names_in, results_option
from harness.home import results_home
from harness.spec import ClockKind

if TYPE_CHECKING:
    from harness.reports.gathering import Gathered
    from harness.reports.plots import Abscissa, Ordinate


@click.group(cls=CommandGroup)
def plot() -> None:
    """Draw what was measured, as .png, .svg or .pdf."""


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all pictures have."""
    for option in (
        results_option,
        click.option(
            "--clock",
            type=click.Choice(["cold", "warm"]),
            default="cold",
            show_default=True,
            help="Times with compilation (cold) or without it (warm).",
        ),
        click.option("-s", "--submission", metavar="A,B,…", help="Only these. [default: all]"),
        click.option("-w", "--workload", metavar="W,@SUITE,…", help="Only these. [default: all]"),
        click.option(
            "-o",
            "--output",
            type=click.Path(path_type=Path),
            metavar="FILE",
            required=True,
            help="The picture, .png, .svg or .pdf; an older one is replaced.",
        ),
    ):
        command = option(command)
    return command


@plot.command()
@click.option(
    "--x",
    "abscissa",
    type=click.Choice(["time", "steps", "examples", "passes"]),
    default="time",
    show_default=True,
    help="What the metric is drawn against.",
)
@_options
def curve(
    abscissa: "Abscissa",
    output: Path,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    results: str | None,
) -> None:
    """Draw learning curves: medians thick, single runs thin, the target dashed."""
    from harness.reports.plots import plot_curves

    _draw(
        lambda gathered, form: plot_curves(gathered, abscissa, form),
        *(output, workload, submission, clock, results),
    )


@plot.command()
@_options
def profile(
    output: Path,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    results: str | None,
) -> None:
    """Draw performance profiles over several workloads."""
    from harness.reports.plots import plot_profiles

    _draw(plot_profiles, output, workload, submission, clock, results)


@plot.command()
@click.option(
    "--y",
    "ordinate",
    type=click.Choice(["memory", "energy"]),
    default="memory",
    show_default=True,
    help="What time is weighed against.",
)
@_options
def pareto(
    ordinate: "Ordinate",
    output: Path,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    results: str | None,
) -> None:
    """Draw time against memory or energy; filled markers are on the Pareto front."""
    from harness.reports.plots import plot_pareto

    _draw(
        lambda gathered, form: plot_pareto(gathered, ordinate, form),
        *(output, workload, submission, clock, results),
    )


@plot.command()
@_options
def leaderboard(
    output: Path,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    results: str | None,
) -> None:
    """Draw median times to the target, with the range of the runs."""
    from harness.reports.plots import plot_leaderboard

    _draw(plot_leaderboard, output, workload, submission, clock, results)


def _draw(
    draw: "Callable[[Gathered, str], bytes]",
    output: Path,
    workload: str | None,
    submission: str | None,
    clock: ClockKind,
    results: str | None,
) -> None:
    from harness.reports.gathering import gather
    from harness.reports.writing import check_picture, write_whole

    form = check_picture(output)
    gathered = gather(results_home(results), names_in(workload), names_in(submission), clock)
    write_whole(output, draw(gathered, form))
    click.echo(f"Written to {output}.", err=True)
