"""`bench calibrate`: measure what a workload's card freezes."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import EXIT_FAILED_CHECK, EXIT_INTERRUPTED, EXIT_OK
from harness.cli.parameters import WorkloadName, data_dir_option, results_option
from harness.cli.run import check_writable, orderly_interrupt
from harness.errors import UsageError
from harness.home import results_home

if TYPE_CHECKING:
    from harness.calibration.protocol import Outcome, Settings


@click.command()
@click.argument("workload", type=WorkloadName())
@click.option(
    "--seeds", type=click.IntRange(2, 1000), default=20, show_default=True, metavar="N",
    help="Runs of the reference.",
)  # fmt: skip
@click.option(
    "--rival-seeds", type=click.IntRange(0, 100), default=3, show_default=True, metavar="N",
    help="Runs of each recipe to be told apart from it; 0: the curves alone.",
)  # fmt: skip
@click.option(
    "--margin", type=float, default=3.0, show_default=True, metavar="SIGMAS",
    help="How far to back the target off the median best value.",
)  # fmt: skip
@click.option(
    "--target", type=float, metavar="VALUE", help="Judge this target. [default: the suggested one]"
)
@click.option("--keep-target", is_flag=True, help="Judge the target on the card.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--write", is_flag=True, help="Put the figures on the card, good or not.")
@click.option("--restart", is_flag=True, help="Forget the evidence so far.")
@data_dir_option
@results_option
def calibrate(
    workload: str,
    seeds: int,
    rival_seeds: int,
    margin: float,
    target: float | None,
    keep_target: bool,
    device: str,
    write: bool,
    restart: bool,
    results: str | None,
) -> int:
    """Measure what the card of WORKLOAD (or @SUITE) freezes: target, budget, noise, separation.

    Runs the reference past its target with many seeds, sets the target, and then runs recipes
    that must be told apart from it. Interrupt it when you like: the same command goes on. The
    evidence goes to calibration/ in the results folder, the card's figures to the screen, and
    with --write to the card. A card that people have run on gets a new `version` first.

    \b
    Examples:
      bench calibrate resnet
      bench calibrate resnet --keep-target
      bench calibrate resnet --write
      bench calibrate gpt --seeds 5 --results /scratch/results

    Exit codes: 0 the card can keep its promises; 1 it cannot, and why; 2 usage;
    130 interrupted.
    """  # noqa: D301 - click reads the backspace
    if not (math.isfinite(margin) and margin >= 0):
        raise UsageError(f"--margin takes a number of sigmas, 0 or more, not {margin:g}.")
    if target is not None and not math.isfinite(target):
        raise UsageError(f"--target takes a finite value of the metric, not {target:g}.")
    if target is not None and keep_target:
        raise UsageError("--target names a target, --keep-target takes the card's. Give one.")

    from harness import catalogue
    from harness.calibration.protocol import Settings
    from harness.data_files import require
    from harness.suites import workloads_named

    names = workloads_named(workload)
    if target is not None and len(names) > 1:
        raise UsageError("--target is one workload's. For several: --keep-target, the cards'.")
    home = results_home(results)
    check_writable(home)
    require(catalogue.workload(name).card for name in names)
    codes = []
    for name in names:
        card_target = catalogue.workload(name).card.metric.target
        settings = Settings(
            workload=name,
            seeds=seeds,
            rival_seeds=rival_seeds,
            margin_sigmas=margin,
            target=card_target if keep_target else target,
            device=device,
            home=home / "calibration",
            evidence=home / "calibration",
            restart=restart,
        )
        codes.append(_calibrate(settings, write))
        if codes[-1] == EXIT_INTERRUPTED:
            return EXIT_INTERRUPTED
    return max(codes)


def _calibrate(settings: "Settings", write: bool) -> int:
    from rich.console import Console

    from harness.calibration.figures import TooFewError
    from harness.calibration.protocol import Calibration, RunFailedError
    from harness.cli.calibration_report import print_report
    from harness.cli.display import make_display

    calibration = Calibration(settings)
    display = make_display(settings.home, "cold", runs=calibration.runs_left)
    with orderly_interrupt() as interrupt:
        try:
            outcome = calibration.run(display, interrupt.asked)
        except KeyboardInterrupt:
            display.close()
            click.echo(
                f"Interrupted with {calibration.runs_left} runs to go; the same command goes on.",
                err=True,
            )
            return EXIT_INTERRUPTED
        except (TooFewError, RunFailedError) as error:
            display.close()
            click.echo(f"{settings.workload} cannot be calibrated: {error}.", err=True)
            return EXIT_FAILED_CHECK
        finally:
            display.close()
    kept = print_report(Console(), outcome)
    if write:
        click.echo(f"Written: {write_card(outcome)}")
    return EXIT_OK if kept else EXIT_FAILED_CHECK


def write_card(outcome: "Outcome") -> Path:
    """Put the figures on the card and return its path.

    Raises:
        UsageError: the card is written in another style, would not be valid, or cannot be written.
    """
    from harness import catalogue
    from harness.calibration.card_text import card_lines, with_lines
    from harness.cards import WorkloadCard, read_card

    path = catalogue.workload(outcome.card.name).path
    try:
        text = path.read_text(encoding="utf-8")
        new = with_lines(text, card_lines(outcome.figures, outcome.card), str(path))
        aside = path.with_suffix(".yaml.new")
        aside.write_text(new, encoding="utf-8")
        try:
            read_card(aside, WorkloadCard)  # beside its base, which a variant takes the rest from
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"The card {path} cannot be written: {error}.") from None
    return path
