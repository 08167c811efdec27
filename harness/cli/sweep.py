"""`bench sweep`: many runs, planned, interleaved, resumable."""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import EXIT_INTERRUPTED, EXIT_OK, EXIT_RUN_ENDED_OTHERWISE
from harness.cli.executors import executor_options
from harness.cli.parameters import data_dir_option, names_in, results_option
from harness.cli.run import MAX_SEED, Paces, check_writable, orderly_interrupt
from harness.counters import MAX_RANKS
from harness.errors import UsageError
from harness.home import results_home

if TYPE_CHECKING:
    from harness.sweeps.execution import Executor
    from harness.sweeps.sweep_file import SweepFile


@click.command()
@click.argument("plan", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-s", "--submission", metavar="A,B,…", help="Who takes part.")
@click.option("-w", "--workload", metavar="W,@SUITE,…", help="On which workloads.")
@click.option("--seeds", type=click.IntRange(1, 10_000), metavar="K", help="Runs of each pair.")
@click.option(
    "--first-seed", type=click.IntRange(0, MAX_SEED), help="The first of the seeds. [default: 0]"
)
@click.option("--ruleset", metavar="NAME", help="external or self-tuning, AlgoPerf's; also -v0.5.")
@click.option("--trials", type=click.IntRange(1, 10_000), metavar="K", help="Points of a study.")
@click.option("--studies", type=click.IntRange(1, 1000), metavar="M", help="Repetitions.")
@click.option("--budget", type=Paces(), metavar="PACES",
    help="Give up after so many reference steps' time. [default: the workloads' own]",
)  # fmt: skip
@click.option(
    "--nproc", type=click.IntRange(1, MAX_RANKS), metavar="N",
    help="Train each run in N processes that divide its batches. [default: 1]",
)  # fmt: skip
@executor_options
@click.option("--retry-failed", is_flag=True, help="Run again what crashed or ran out of memory.")
@click.option("--retry-tainted", is_flag=True, help="Run again what was tainted.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and how long it would take.")
@data_dir_option
@results_option
def sweep(
    plan: Path | None,
    *,
    submission: str | None,
    workload: str | None,
    seeds: int | None,
    first_seed: int | None,
    ruleset: str | None,
    trials: int | None,
    studies: int | None,
    budget: float | None,
    nproc: int | None,
    executor: Callable[[int], "Executor"],
    retry_failed: bool,
    retry_tainted: bool,
    dry_run: bool,
    results: str | None,
) -> int:
    """Run many submissions on many workloads, as given here or in a YAML file PLAN.

    Finished runs are not repeated: the same command goes on after Ctrl-C, a crash or a power
    cut, and a larger one adds what is missing. The order interleaves the submissions, so that
    what drifts on the machine hits all alike.

    With --executor ray, the nodes of a cluster take runs: one at a time on each GPU, or on each
    node's cores. They must be of one machine class and see the results' folder. A run whose
    node dies is made again.

    \b
    Examples:
      bench sweep -s adamw,lion,muon -w @core --seeds 5
      bench sweep -s lion -w resnet,gpt --ruleset external --trials 5 --studies 3
      bench sweep plan.yaml --dry-run
      bench sweep plan.yaml --executor ray --ray-address head:6379 --results /shared/results

    Exit codes: 0 every run ended by itself, on target or not; 2 usage; 4 a run crashed, ran
    out of memory, hung or could not be made; 130 interrupted.
    """  # noqa: D301 - click reads the backspace
    from harness.cli.sweep_display import SweepDisplay, print_plan, print_summary
    from harness.sweeps.jobs import jobs_of
    from harness.sweeps.status import FAILED, Retry, standing

    given = {
        "seeds": seeds,
        "first_seed": first_seed,
        "ruleset": ruleset,
        "trials": trials,
        "studies": studies,
        "budget_paces": budget,
        "nproc": nproc,
    }
    asked = _asked(plan, submission, workload, given)
    home = results_home(results)
    check_writable(home)
    retry = Retry(failed=retry_failed, tainted=retry_tainted)
    with closing(executor(asked.nproc)) as slots:
        planned = slots.planned(partial(jobs_of, asked, home=home))
        before = standing(home, planned, retry)
        if dry_run:
            print_plan(before, len(slots.places))
            return EXIT_OK
        display = SweepDisplay(home, before, slots.places)
        with orderly_interrupt() as interrupt:
            with display:
                slots.run(before.queued, display, interrupt.asked)
            after = standing(home, planned, Retry())
            print_summary(after, display.refused)
            if interrupt.asked():
                return EXIT_INTERRUPTED
    failed = any(run.outcome in FAILED for run in after.past.values())
    return EXIT_RUN_ENDED_OTHERWISE if failed or display.refused else EXIT_OK


def _asked(
    plan: Path | None, submissions: str | None, workloads: str | None, given: Mapping[str, object]
) -> "SweepFile":
    """Return the sweep of the file, or of the options."""
    from harness.cards import parse_struct
    from harness.sweeps.sweep_file import SweepFile, read_sweep_file

    options = {name: value for name, value in given.items() if value is not None}
    if plan is not None:
        named = [name for name, text in (("-s", submissions), ("-w", workloads)) if text]
        named += [f"--{name.removesuffix('_paces').replace('_', '-')}" for name in options]
        if named:
            raise UsageError(
                f"The file {plan} says what to run, so {', '.join(named)} cannot say it too. "
                "Change the file, or leave it out."
            )
        return read_sweep_file(plan)
    if not submissions or not workloads:
        raise UsageError(
            "Say what to run: -s A,B -w W,@SUITE, or a file. See `bench sweep --help`."
        )
    fields = options | {
        "submissions": [{"submission": name} for name in names_in(submissions)],
        "workloads": names_in(workloads),
    }
    return parse_struct(fields, SweepFile, "sweep")
