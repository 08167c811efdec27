"""What `bench sweep` shows: the plan, one live table while it runs, and how it ended."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.cli import EXIT_INTERRUPTED, EXIT_OK
from harness.cli.run import orderly_interrupt
from harness.sweeps.execution import Executor, Lost
from harness.sweeps.jobs import Job
from harness.sweeps.status import FAILED, Retry, Standing
from harness.sweeps.status import standing as status
from harness.sweeps.worker import Began, Finished, Measured, Refused, Report, Said
from harness.wording import OUTCOME_WORDS, metric_value, seconds

REFRESH_HZ = 2
REASONS_SHOWN = 5


def carry_out(
    planned: Sequence[Job], executor: Executor, home: Path, *, dry_run: bool
) -> int | None:
    """Make the runs that are not there yet; return an exit code where that is all for now."""
    retry = Retry(failed=True)
    before = status(home, planned, retry)
    if dry_run:
        print_plan(before, len(executor.places))
        return EXIT_OK
    display = SweepDisplay(home, before, executor.places)
    with orderly_interrupt() as interrupt, display:
        executor.run(before.queued, display, interrupt.asked)
    if not interrupt.asked():
        return None
    left = len(status(home, planned, retry).queued)
    click.echo(f"{left} runs to go: the same command goes on.", err=True)
    return EXIT_INTERRUPTED


def print_plan(standing: Standing, slots: int) -> None:
    """Print what a sweep would run, and how long it should take."""
    table = _table("workload", "submission", "runs", "done", "failed", "to run", "estimate")
    for (workload, submission), jobs in _grouped(standing.jobs).items():
        states = [standing.state(job) for job in jobs]
        left = sum(
            standing.seconds[job.identity]
            for job, state in zip(jobs, states, strict=True)
            if state == "queued"
        )
        counts = (states.count(state) for state in ("done", "failed", "queued"))
        table.add_row(workload, submission, str(len(jobs)), *map(str, counts), seconds(left))
    console = Console()
    console.print(table)
    queued = len(standing.queued)
    click.echo(
        f"{queued} of {len(standing.jobs)} runs to make, about "
        f"{seconds(standing.seconds_left / slots)}"
        + (f" with {slots} at a time." if slots > 1 else ".")
    )


def print_summary(standing: Standing, refused: Iterable[tuple[Job, str]]) -> None:
    """Print how the sweep stands, and what failed and why."""
    Console(stderr=True).print(_standing_table(standing, {}))
    lines = [
        f"{job.submission} on {job.workload}, seed {job.seed}: {reason}" for job, reason in refused
    ]
    for job in standing.jobs:
        past = standing.past.get(job.identity)
        if past is not None and past.outcome in FAILED:
            lines.append(
                f"{job.submission} on {job.workload}, seed {job.seed} "
                f"{OUTCOME_WORDS[past.outcome]}: {past.reason} (bench show {past.run_id})"
            )
    for line in lines[:REASONS_SHOWN]:
        click.echo(f"• {line}", err=True)
    if len(lines) > REASONS_SHOWN:
        click.echo(f"• and {len(lines) - REASONS_SHOWN} more", err=True)
    queued = len(standing.queued)
    if queued:
        click.echo(f"{queued} runs to go: the same command goes on.", err=True)


class SweepDisplay:
    """Watches a sweep; collects what ended into the index, since only one may."""

    def __init__(self, home: Path, standing: Standing, places: Sequence[str]) -> None:
        self.refused: list[tuple[Job, str]] = []
        self._home = home
        self._before = standing
        self._places = places  # a slot's name, by its number
        self._running: dict[int, tuple[Job, str]] = {}
        self._ended: dict[str, Finished] = {}
        self._left = {job.identity: standing.seconds[job.identity] for job in standing.queued}
        self._to_run = len(self._left)
        self._console = Console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> "SweepDisplay":
        """Show the table where there is a terminal, else a line for each end."""
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._table,
                console=self._console,
                refresh_per_second=REFRESH_HZ,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the live table away."""
        if self._live is not None:
            self._live.stop()

    def reported(self, slot: int, job: Job, report: Report | Lost) -> None:
        """Take what a worker reports."""
        match report:
            case Said():
                self._console.print(Text(report.text, style="dim"))
            case Began():
                self._running[slot] = (job, "starting")
            case Measured():
                value = metric_value(report.value)
                self._running[slot] = (job, f"{value} at {seconds(report.elapsed_s)}")
            case Finished():
                self._end(slot, job)
                self._ended[job.identity] = report
                self._ingest(report.run_id)
                self._tell(job, report)
            case Lost():
                self._running.pop(slot, None)
                self._console.print(
                    Text(
                        f"{job.submission} on {job.workload}, seed {job.seed}: {report.reason}; "
                        "the run is made again.",
                        style="yellow",
                    )
                )
            case Refused():
                self._end(slot, job)
                if not report.interrupted:
                    self.refused.append((job, report.reason))
                    self._console.print(
                        Text(f"{job.submission} on {job.workload}: {report.reason}", style="red")
                    )

    def _end(self, slot: int, job: Job) -> None:
        self._running.pop(slot, None)
        self._left.pop(job.identity, None)

    def _tell(self, job: Job, report: Finished) -> None:
        if self._live is not None and report.outcome not in FAILED:
            return
        number = self._to_run - len(self._left)
        at = "" if report.time_to_target_s is None else f" in {seconds(report.time_to_target_s)}"
        self._console.print(
            f"{time.strftime('%H:%M:%S')}  {number} of {self._to_run}  "
            f"{job.submission} on {job.workload}, seed {job.seed}: "
            f"{OUTCOME_WORDS.get(report.outcome, report.outcome)}{at}"
            f"{' (tainted)' if report.tainted else ''}, about {self._time_left()} left",
            highlight=False,
        )

    def _ingest(self, run_id: str) -> None:
        from harness.errors import UsageError
        from harness.home import runs_folder
        from harness.records.index import ingest
        from harness.records.run_directory import RunDirectory

        try:
            ingest(self._home, [RunDirectory(runs_folder(self._home) / run_id)])
        except (OSError, UsageError) as error:
            self._console.print(
                Text(f"Not yet in the index, the next reader takes it in: {error}", style="yellow")
            )

    def _time_left(self) -> str:
        return seconds(sum(self._left.values()) / len(self._places))

    def _table(self) -> Table:
        table = _standing_table(self._before, self._ended)
        table.title = f"{len(self._left)} runs to go, about {self._time_left()}"
        table.title_justify = "left"
        for slot, (job, words) in sorted(self._running.items()):
            place = f" on {self._places[slot]}" if self._places[slot] else ""
            table.add_row(
                job.workload,
                Text.assemble((job.submission, "bold"), f" seed {job.seed}{place}: {words}"),
            )
        return table


def _standing_table(standing: Standing, ended: dict[str, Finished]) -> Table:
    """Return a row for each workload: how many runs are where, and the best so far."""
    table = _table("workload", "best so far", "done", "reached", "tainted", "failed", "queued")
    by_workload: dict[str, list[Job]] = {}
    for job in standing.jobs:
        by_workload.setdefault(job.workload, []).append(job)
    for workload, jobs in by_workload.items():
        counts = dict.fromkeys(("done", "reached", "tainted", "failed", "queued"), 0)
        best: tuple[float, str] | None = None
        for job in jobs:
            run = ended.get(job.identity) or standing.past.get(job.identity)
            state = standing.state(job)
            if job.identity in ended and run is not None:
                state = "failed" if run.outcome in FAILED else "done"
            counts[state] += 1
            if run is None or state != "done":
                continue
            counts["tainted"] += run.tainted
            if run.outcome == "reached":
                counts["reached"] += 1
            if run.time_to_target_s is not None and not run.tainted:
                found = (run.time_to_target_s, job.submission)
                best = found if best is None else min(best, found)
        words = "–" if best is None else f"{best[1]} {seconds(best[0])}"
        table.add_row(workload, words, *(str(count) for count in counts.values()))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        left = heading in ("workload", "submission", "best so far")
        table.add_column(heading, justify="left" if left else "right")
    return table


def _grouped(jobs: Iterable[Job]) -> dict[tuple[str, str], list[Job]]:
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.workload, job.submission), []).append(job)
    return found
