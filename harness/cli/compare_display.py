"""What `bench compare` shows: the plan, each pair as it comes, and the conclusion."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness import wording
from harness.cli import tables
from harness.cli.comparison_words import (
    cautions,
    figures,
    row,
    sentence,
    side_names,
    table_row,
)
from harness.cli.tables import Format
from harness.errors import UsageError
from harness.judging.sequential_test import fewest_pairs
from harness.sweeps.contest import Contest, Result, Terms
from harness.sweeps.execution import Lost
from harness.sweeps.jobs import Job
from harness.sweeps.worker import Began, Finished, Measured, Refused, Report, Said
from harness.table_text import Column, filled
from harness.wording import OUTCOME_WORDS, metric_value, seconds

REFRESH_HZ = 2


def print_plan(home: Path, contest: Contest, terms: Terms) -> None:
    """Print how many pairs there are and are to come, and how long those should take."""
    from harness.sweeps import status

    results = contest.results()
    due = [[seed for seed, one in result.seeds.items() if one.state == "due"] for result in results]
    jobs = [
        job
        for result, seeds in zip(results, due, strict=True)
        for seed in seeds
        for job in result.match.jobs(seed)
    ]
    each = status.standing(home, jobs, status.Retry()).seconds
    table = _table("workload", "pairs made", "left out", "to make", "estimate")
    for result, seeds in zip(results, due, strict=True):
        took = sum(each[job.identity] for seed in seeds for job in result.match.jobs(seed))
        counts = (len(result.counted), len(result.left_out), len(seeds))
        table.add_row(result.match.card.name, *map(str, counts), seconds(took))
    Console().print(table)
    total = seconds(sum(each[job.identity] for job in jobs))
    pairs = sum(map(len, due))
    if terms.until_decided:
        click.echo(
            f"At most {pairs} pairs to make, about {total}; a workload is decided after "
            f"{fewest_pairs(terms.alpha / len(results))} at the earliest."
        )
    else:
        click.echo(f"{pairs} pairs to make, about {total}.")


def print_conclusion(results: Sequence[Result], terms: Terms, form: Format) -> None:
    """Print what was found; the last line is the sentence."""
    said = sentence(results, terms)
    if form == "json":
        tables.print_json(
            {
                "clock": terms.clock,
                "alpha": terms.alpha,
                "effect": terms.effect,
                "until_decided": terms.until_decided,
                "workloads": [row(result, terms) for result in results],
                "cautions": cautions(results),
                "sentence": said,
            }
        )
        return
    if form == "csv":
        tables.print_rows([row(result, terms) for result in results], [], form)
        for words in (*cautions(results), said):
            click.echo(words, err=True)
        return
    a, b = side_names(results[0].match)
    compiled = "" if terms.clock == "cold" else " without compilation"
    click.echo(
        f"A = {a}, B = {b}; times{compiled}, limits with {100 * (1 - terms.alpha):.3g} % "
        "confidence.\n"
    )
    rows = [table_row(result, terms) for result in results]
    shown = filled(_COLUMNS, rows)
    tables.print_rows(rows, shown, form)
    for caution in cautions(results):
        click.echo(f"\n{caution}")
    click.echo(f"\n{said}")


_COLUMNS = [
    Column(field="workload", header="workload", whole=True),
    Column(field="verdict", header="A is"),
    Column(field="ratio", header="time B ÷ A", number=True),
    Column(field="efforts", header="efforts A : B"),
    Column(field="pairs", header="pairs", number=True),
    Column(field="reached", header="reached A : B", number=True, drop=1),
    Column(field="p", header="p", number=True, drop=2),
    Column(field="log_rank_p", header="log-rank p", number=True, drop=2),
    Column(field="steps", header="steps B ÷ A", number=True, drop=4),
    Column(field="model_passes", header="passes B ÷ A", number=True, drop=3),
    Column(field="peak_memory", header="memory B ÷ A", number=True, drop=3),
    Column(field="energy", header="energy B ÷ A", number=True, drop=4),
    Column(field="more", header="pairs to go", number=True),
    Column(field="left_out", header="left out", number=True),
]


class CompareDisplay:
    """Watches a contest: a live table on a terminal, else a line for each pair."""

    def __init__(self, contest: Contest, terms: Terms) -> None:
        self.refused: list[tuple[Job, str]] = []
        self._contest = contest
        self._terms = terms
        self._results: list[Result] = []
        self._running: tuple[Job, str] | None = None
        self._first: Job | None = None  # of the pair under way
        self._console = Console(stderr=True)
        self._live: Live | None = None

    def __enter__(self) -> "CompareDisplay":
        """Show the table where there is a terminal."""
        if self._console.is_terminal:
            self._results = self._contest.results()
            self._live = Live(
                get_renderable=self._standing,
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

    def reported(self, slot: int, job: Job, report: Report | Lost) -> None:  # noqa: ARG002 - there is one
        """Take what the worker reports."""
        match report:
            case Said():
                self._console.print(Text(report.text, style="dim"))
            case Began():
                self._running = (job, "starting")
            case Measured():
                value = metric_value(report.value)
                self._running = (job, f"{value} at {seconds(report.elapsed_s)}")
            case Finished():
                self._end(job)
                self._tell(job, report)
            case Refused():
                self._end(job)
                self._first = None
                if not report.interrupted:
                    self.refused.append((job, report.reason))

    def _end(self, job: Job) -> None:
        first, self._running = self._first, None
        second = first is not None and (first.workload, first.seed) == (job.workload, job.seed)
        self._first = None if second else job
        if second:
            with suppress(UsageError, OSError):  # the index is busy: the next pair shows this one
                self._results = self._contest.results()

    def _tell(self, job: Job, report: Finished) -> None:
        if self._live is not None:
            return
        at = "" if report.time_to_target_s is None else f" in {seconds(report.time_to_target_s)}"
        line = (
            f"{time.strftime('%H:%M:%S')}  {job.submission} on {job.workload}, seed {job.seed}: "
            f"{OUTCOME_WORDS.get(report.outcome, report.outcome)}{at}"
            f"{' (tainted)' if report.tainted else ''}"
        )
        if self._first is None:
            line += "".join(
                f"; B ÷ A so far {_so_far(result)}, pairs {len(result.counted)}"
                for result in self._results
                if result.match.card.name == job.workload
            )
        self._console.print(line, highlight=False, soft_wrap=True)

    def _standing(self) -> Table:
        table = _table("workload", "pairs", "time B ÷ A", "A is")
        for result in self._results:
            table.add_row(
                result.match.card.name,
                f"{len(result.counted)} of {len(self._terms.seeds)}",
                _so_far(result),
                result.comparison.verdict,
            )
        if self._running is not None:
            job, words = self._running
            table.add_row(
                job.workload, Text.assemble((job.submission, "bold"), f" seed {job.seed}: {words}")
            )
        return table


def _so_far(result: Result) -> str:
    return figures(result.comparison) or wording.MISSING


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        left = heading in ("workload", "A is")
        table.add_column(heading, justify="left" if left else "right")
    return table
