"""`bench compare`: is A faster than B? Interleaved pairs, a ratio, and one sentence."""

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_ENDED_OTHERWISE, tables
from harness.cli.parameters import (
    SubmissionName,
    WorkloadName,
    data_dir_option,
    results_option,
)
from harness.cli.run import MAX_SEED, Paces, check_writable, orderly_interrupt
from harness.cli.tables import Format
from harness.errors import UsageError
from harness.home import results_home
from harness.spec import ClockKind

if TYPE_CHECKING:
    from harness.sweeps.contest import Result, Terms
    from harness.sweeps.pairs import Match

PAIRS = 5
MOST_PAIRS = 50


class Share(click.ParamType[float]):
    """A number between 0 and 1, or a percentage."""

    name = "share"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number."""
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            number = math.nan
        if not 0 < number < 1:
            self.fail(f"{value!r} is no share. Legal: 0.05, say, or 5%.", param, ctx)
        return number


@click.command()
@click.argument("a", type=SubmissionName())
@click.argument("b", type=SubmissionName())
@click.option(
    "-w", "--workload", type=WorkloadName(), required=True, multiple=True,
    metavar="W,@SUITE,…", help="On which workloads.",
)  # fmt: skip
@click.option(
    "--pairs", type=click.IntRange(2, 10_000), metavar="N", help=f"Make so many. [default: {PAIRS}]"
)
@click.option("--until-decided", is_flag=True, help="Make pairs until it is decided.")
@click.option(
    "--max-pairs", type=click.IntRange(2, 1000), metavar="N",
    help=f"With --until-decided: give up after so many. [default: {MOST_PAIRS}]",
)  # fmt: skip
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE",
    help="Set a hyperparameter of both; repeat.",
)  # fmt: skip
@click.option("--set-a", multiple=True, metavar="KEY=VALUE", help="Set one of A; repeat.")
@click.option("--set-b", multiple=True, metavar="KEY=VALUE", help="Set one of B; repeat.")
@click.option(
    "--effect", type=Share(), default="0.05", show_default=True,
    help="The smallest difference that matters to you.",
)  # fmt: skip
@click.option(
    "--alpha", type=Share(), default="0.01", show_default=True,
    help="The chance of calling equals different; limits hold with 1 - alpha.",
)  # fmt: skip
@click.option(
    "--clock",
    type=click.Choice(["cold", "warm"]),
    default="cold",
    show_default=True,
    help="Compare times with (cold) or without (warm) compilation.",
)
@click.option(
    "--first-seed", type=click.IntRange(0, MAX_SEED), help="The first of the seeds. [default: 0]"
)
@click.option("--budget", type=Paces(), metavar="PACES",
    help="Give up after so many reference steps' time. [default: the workloads' own]",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--retry-failed", is_flag=True, help="Make pairs again of which a run failed.")
@click.option("--retry-tainted", is_flag=True, help="Make pairs again that stayed tainted.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and how long it would take.")
@tables.format_option("table", "json", "csv", "md")
@data_dir_option
@results_option
def compare(
    *,
    a: str,
    b: str,
    workload: tuple[str, ...],
    pairs: int | None,
    until_decided: bool,
    max_pairs: int | None,
    settings: tuple[str, ...],
    set_a: tuple[str, ...],
    set_b: tuple[str, ...],
    effect: float,
    alpha: float,
    clock: ClockKind,
    first_seed: int | None,
    budget: float | None,
    device: str,
    retry_failed: bool,
    retry_tainted: bool,
    dry_run: bool,
    form: Format,
    results: str | None,
) -> int:
    """Say whether A is faster than B, from pairs of runs made right after one another.

    The two runs of a pair have one seed and swap places from pair to pair. --pairs is a number
    chosen beforehand (Student's t on log ratios); adding pairs until a difference shows finds
    one where there is none. --until-decided may look after every pair, and stops once a
    difference is shown or one of --effect ruled out. Several workloads: Holm's correction.

    Tainted pairs are made again, three times at most. Pairs that were made are not repeated:
    the same command goes on where it stopped.

    \b
    Examples:
      bench compare lion adamw -w resnet
      bench compare lion adamw -w @core --until-decided
      bench compare lion lion -w resnet --set-b lr=3e-4 --pairs 10

    Exit codes: 0 every run ended by itself, whatever the verdict; 2 usage; 4 a run crashed, ran
    out of memory, hung or could not be made; 130 interrupted.
    """  # noqa: D301 - click reads the backspace
    from harness.cli.compare_display import CompareDisplay, print_conclusion, print_plan
    from harness.data_files import require
    from harness.run import Request
    from harness.suites import workloads_named
    from harness.sweeps.contest import Contest
    from harness.sweeps.local import LocalExecutor, local_slots
    from harness.sweeps.pairs import Retry, match

    terms = _terms(pairs, until_decided, max_pairs, first_seed or 0, alpha, effect, clock)
    home = results_home(results)
    check_writable(home)
    slots = local_slots(device, 1)

    def request(submission: str, name: str, own: Sequence[str]) -> Request:
        return Request(
            submission=submission,
            workload=name,
            settings=(*settings, *own),
            device=slots[0].device,
            home=home,
            budget_paces=budget,
            clock=clock,
        )

    names = dict.fromkeys(name for text in workload for name in workloads_named(text))
    matches = [match(request(a, name, set_a), request(b, name, set_b)) for name in names]
    require(one.card for one in matches)
    _warn(matches)
    retry = Retry(
        before=datetime.datetime.now(datetime.UTC).replace(tzinfo=None),
        failed=retry_failed,
        tainted=retry_tainted,
    )
    contest = Contest(home, matches, terms, retry)
    if dry_run:
        print_plan(home, contest, terms)
        return EXIT_OK
    display = CompareDisplay(contest, terms)
    with orderly_interrupt() as interrupt:
        with display:
            found = contest.run(
                LocalExecutor(slots),
                display,
                lambda: interrupt.asked() or bool(display.refused),
            )
        print_conclusion(found, terms, form)
        if interrupt.asked():
            click.echo("Interrupted: the same command goes on.", err=True)
            return EXIT_INTERRUPTED
    for job, reason in display.refused:
        click.echo(f"• {job.submission} on {job.workload}, seed {job.seed}: {reason}", err=True)
    return EXIT_RUN_ENDED_OTHERWISE if display.refused or _failed(found) else EXIT_OK


def _terms(
    pairs: int | None,
    until_decided: bool,
    max_pairs: int | None,
    first_seed: int,
    alpha: float,
    effect: float,
    clock: ClockKind,
) -> "Terms":
    from harness.sweeps.contest import Terms

    if until_decided and pairs is not None:
        raise UsageError(
            "--pairs fixes their number, --until-decided leaves it open. Give one of them, "
            "or --until-decided with --max-pairs."
        )
    if max_pairs is not None and not until_decided:
        raise UsageError("--max-pairs belongs to --until-decided; a fixed number is --pairs.")
    count = (max_pairs or MOST_PAIRS) if until_decided else (pairs or PAIRS)
    return Terms(
        seeds=range(first_seed, first_seed + count),
        until_decided=until_decided,
        alpha=alpha,
        effect=effect,
        clock=clock,
    )


def _warn(matches: "Sequence[Match]") -> None:
    plans = [chosen for one in matches for chosen in (one.a, one.b)]
    for warning in dict.fromkeys(text for chosen in plans for text in chosen.resolved.warnings):
        click.echo(f"Warning: {warning}", err=True)


def _failed(results: "Sequence[Result]") -> bool:
    from harness.sweeps.status import FAILED

    return any(
        run.outcome in FAILED
        for result in results
        for pair in result.left_out
        for run in pair.failures
    )
