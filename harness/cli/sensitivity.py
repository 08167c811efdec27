"""`bench sensitivity`: the result against a hyperparameter over decades."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import EXIT_OK, EXIT_RUN_ENDED_OTHERWISE
from harness.cli.parameters import WorkloadName, data_dir_option, names_in, results_option
from harness.cli.run import check_writable
from harness.cli.tables import Format, format_option
from harness.errors import UsageError
from harness.home import results_home

if TYPE_CHECKING:
    from harness.cards import WorkloadCard

MODELS_UNTRAINED = 3  # at most: whose mean metric is the value of no training


@click.command()
@click.option("-s", "--submission", metavar="A,B,…", required=True, help="One, or some to compare.")
@click.option("-w", "--workload", type=WorkloadName(), required=True, help="A workload.")
@click.option("--hyperparameter", metavar="NAME", default="lr", show_default=True,
    help="What is varied, as --set names it.",
)  # fmt: skip
@click.option(
    "--decades", type=float, metavar="D",
    help="How wide, half below the present value and half above. [default: 3]",
)  # fmt: skip
@click.option("--low", type=float, metavar="X", help="The least factor of the present value.")
@click.option("--high", type=float, metavar="X", help="The greatest.")
@click.option(
    "--points", type=click.IntRange(1, 20), default=2, show_default=True, metavar="K",
    help="Values in each decade.",
)  # fmt: skip
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="K",
    help="Runs of each value.",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Set a hyperparameter of all submissions, or the value to vary about; repeat.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--jobs", type=click.IntRange(1, 1024), metavar="N",
    help="Runs at a time. [default: one a GPU, or one on the CPU]",
)  # fmt: skip
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Draw it to a .png, .svg or .pdf (needs the extra `plots`).",
)  # fmt: skip
@format_option("table", "json", "csv", "md")
@click.option("--dry-run", is_flag=True, help="Show what would run, and how long it would take.")
@data_dir_option
@results_option
def sensitivity(
    submission: str,
    workload: str,
    hyperparameter: str,
    decades: float | None,
    low: float | None,
    high: float | None,
    points: int,
    seeds: int,
    settings: tuple[str, ...],
    device: str,
    jobs: int | None,
    picture: Path | None,
    form: Format,
    dry_run: bool,
    results: str | None,
) -> int:
    """Run a submission at multiples of its learning rate and say how much the result depends on it.

    The multiples are whole powers of 10^(1/K), so a wider range goes on with the runs of a
    narrower one; finished runs are not repeated. The figures are Wortsman et al.'s (2309.14322):
    how far off the best the result is at a rate drawn from the range, log-uniformly, for the
    time to target as a share of the budget and for the metric.

    \b
    Examples:
      bench sensitivity -s adamw -w mlp
      bench sensitivity -s adamw,lion -w resnet --decades 4 --seeds 3 --plot rates.svg
      bench sensitivity -s sgd -w mlp --hyperparameter momentum --low 0.1 --high 1

    Exit codes: 0 every run ended by itself; 2 usage; 4 a run crashed, ran out of memory, hung or
    could not be made; 130 interrupted.
    """  # noqa: D301 - click reads the backspace
    from harness import catalogue
    from harness.cli.sensitivity_report import Report, print_report
    from harness.cli.sweep_display import carry_out
    from harness.data_files import require
    from harness.judging.sensitivity import sensitivity as figures_of
    from harness.reports.writing import check_picture, write_whole
    from harness.sweeps.local import LocalExecutor, local_slots
    from harness.sweeps.sensitivity import axis, factors, rates_of, sensitivity_jobs

    card = catalogue.workload(_one_workload(workload)).card
    tried = factors(*_range(decades, low, high), points)
    axes = [axis(name, card, hyperparameter, settings, tried) for name in _split(submission)]
    if picture is not None:
        check_picture(picture)
    home = results_home(results)
    check_writable(home)
    require([card])
    slots = local_slots(device, jobs)
    planned = sensitivity_jobs(axes, card.name, seeds, slots[0], home)
    ended = carry_out(planned, LocalExecutor(slots), home, dry_run=dry_run)
    if ended is not None:
        return ended
    rates, missing = rates_of(axes, planned, home)
    untrained = _untrained(card, seeds, slots[0].device)
    reports = [
        Report(
            axis=one, rates=found, figures=figures_of(found, untrained) if len(found) > 1 else None
        )
        for one, found in zip(axes, rates, strict=True)
    ]
    print_report(reports, card, untrained, form)
    if picture is not None:
        from harness.cli.sensitivity_plot import draw

        write_whole(picture, draw(reports, card, untrained, check_picture(picture)))
        click.echo(f"Written to {picture}.", err=True)
    if missing:
        click.echo(
            f"{missing} of {len(planned)} runs failed, and their values are left out. "
            "`bench list runs` names them; the same command tries them again.",
            err=True,
        )
    return EXIT_RUN_ENDED_OTHERWISE if missing else EXIT_OK


def _split(submissions: str) -> list[str]:
    names = names_in(submissions)
    if not names:
        raise UsageError("Name a submission: -s adamw, or -s adamw,lion to compare.")
    return names


def _one_workload(text: str) -> str:
    from harness.suites import workloads_named

    names = workloads_named(text)
    if len(names) != 1:
        raise UsageError(f"{text} are {len(names)} workloads; a sensitivity is of one. Name one.")
    return names[0]


def _range(decades: float | None, low: float | None, high: float | None) -> tuple[float, float]:
    """Return the least and the greatest factor."""
    from harness.sweeps.sensitivity import DEFAULT_DECADES

    if low is None and high is None:
        width = DEFAULT_DECADES if decades is None else decades
        if not 0 < width <= 100:
            raise UsageError(f"--decades is a width above 0 and at most 100, not {width:g}.")
        return 10 ** (-width / 2), 10 ** (width / 2)
    if decades is not None:
        raise UsageError(
            "--decades is a width about the present value, --low and --high are its "
            "ends. Give one or the other."
        )
    if low is None or high is None:
        raise UsageError("--low and --high belong together: --low 0.1 --high 10.")
    return low, high


def _untrained(card: "WorkloadCard", seeds: int, device: str) -> float:
    import torch

    from harness import catalogue
    from harness.referee.untrained import untrained_value
    from harness.workload import load_workload

    torch.set_num_threads(1)
    workload = load_workload(catalogue.workload(card.name).module, card)
    return untrained_value(workload, range(min(seeds, MODELS_UNTRAINED)), torch.device(device))
