"""What `bench run` shows while it runs: a live panel in a terminal, plain lines elsewhere.

Everything goes to stderr; stdout is left to `--json`.
"""

import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.cards import WorkloadCard
from harness.events import Ended, Evaluation
from harness.records.record import RunDetail, RunRecord
from harness.referee.observer import Status
from harness.spec import ClockKind, RunSpec
from harness.wording import OUTCOME_WORDS, metric_value, seconds, size, target_words

REFRESH_HZ = 4
_LEVELS = "▁▂▃▄▅▆▇█"


class Display:
    """Watches runs and tells the user; an `Observer` with words before and after."""

    def __init__(self, console: Console, home: Path, clock: ClockKind, runs: int) -> None:
        self._console = console
        self._home = home
        self._clock = clock
        self._runs = runs
        self._number = 0
        self._live: Live | None = None
        self._spec: RunSpec | None = None
        self._status: Callable[[], Status] | None = None
        self._evaluations: list[Evaluation] = []
        self._phase = ""
        self._lock = threading.Lock()

    # -- the observer ----------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Tell the user one thing."""
        self._console.print(Text(text, style="dim"))

    def preparing(self, spec: RunSpec, status: Callable[[], Status]) -> None:
        """Show the run's heading, and the live panel where there is a terminal."""
        self._number += 1
        self._spec, self._status, self._evaluations = spec, status, []
        self._phase = "starting"
        heading = Text.assemble(
            (f"{spec.submission}", "bold"),
            " on ",
            (f"{spec.workload.name}", "bold"),
            f" v{spec.workload.version}, seed {spec.seed}",
            f" ({self._number} of {self._runs})" if self._runs > 1 else "",
            f", to {target_words(spec.workload.metric)}",
        )
        self._console.print(heading)
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=self._panel,
                console=self._console,
                refresh_per_second=REFRESH_HZ,
                transient=True,
            )
            self._live.start()

    def started(self) -> None:
        """Note that the clock runs."""
        self._phase = "training"

    def evaluated(self, evaluation: Evaluation) -> None:
        """Take in an evaluation; without a terminal print a line."""
        with self._lock:
            self._evaluations.append(evaluation)
        if self._live is None and self._spec is not None:
            metric = self._spec.workload.metric
            note = " ← target" if evaluation.meets else " (off grid)" if evaluation.off_grid else ""
            self._console.print(
                f"  {seconds(evaluation.elapsed_ns / 1e9):>8}  step {evaluation.steps:>6,}  "
                f"{metric.name} {metric_value(evaluation.value)}{note}",
                highlight=False,
            )

    def finishing(self, outcome: str, reason: str) -> None:  # noqa: ARG002 - told in the summary
        """Note that only the pace is still being measured."""
        self._phase = f"{OUTCOME_WORDS[outcome]}; measuring the pace again"

    def ended(self, ended: Ended) -> None:  # noqa: ARG002 - the record says it all
        """Close the live panel."""
        self.close()

    # -- after a run -----------------------------------------------------------------------

    def close(self) -> None:
        """End the live panel, if there is one."""
        live, self._live = self._live, None
        self._status = None
        if live is not None:
            live.stop()

    def summary(self, detail: RunDetail) -> None:
        """Print the sentence the user wanted, and why if it did not end well."""
        record = detail.record
        style = "green" if record.outcome == "reached" else "yellow"
        line = Text(one_sentence(detail, self._clock), style=style)
        self._console.print(line, highlight=False)
        for reason in record.tainted:
            self._console.print(
                Text(f"  tainted: {reason}; kept, but left out of rankings.", style="yellow")
            )
        if detail.traceback:
            last = detail.traceback.strip().splitlines()[-1]
            self._console.print(Text(f"  {last}\n  `bench show {record.run_id}` has it all."))

    def conclusion(self, details: Sequence[RunDetail]) -> None:
        """Print how the runs compare with the reference's stored ones on this machine."""
        if not details:
            return
        times = [t for d in details if (t := _credited(d.record, self._clock)) is not None]
        if len(details) > 1:
            self._console.print(Text(_over_seeds(details, times), style="bold"))
        if sentence := self._against_reference(details[-1], times):
            self._console.print(Text(sentence, style="bold"))
        last = details[-1].record.run_id
        self._console.print(Text(f"Run {last}. See: bench show last · bench leaderboard"))

    def _against_reference(self, detail: RunDetail, times: Sequence[float]) -> str | None:
        from harness.judging.reference_times import reference_times  # duckdb, after the run

        record, card = detail.record, detail.spec.workload
        if record.submission == card.recipe.optimizer or not times:
            return None
        stored = reference_times(self._home, card, record.machine_class, self._clock)
        if not stored:
            return (
                f"No run of the reference {card.recipe.optimizer} is stored for this machine; "
                f"`bench run -s {card.recipe.optimizer} -w {card.name}` gives one to compare with."
            )
        ours, theirs = statistics.median(times), statistics.median(stored)
        ratio = theirs / ours if ours <= theirs else ours / theirs
        word = "faster" if ours <= theirs else "slower"
        n = f"{len(stored)} stored run{'s' if len(stored) > 1 else ''}"
        few = "" if min(len(stored), len(times)) >= 5 else " (too few runs to tell luck from speed)"
        return (
            f"{record.submission}: {seconds(ours)}, {ratio:.2f} times {word} than the reference "
            f"{card.recipe.optimizer}'s {seconds(theirs)} in {n}{few}."
        )

    # -- the live panel --------------------------------------------------------------------

    def _panel(self) -> Group:
        spec, ask = self._spec, self._status
        if spec is None or ask is None:
            return Group()
        status = ask()
        with self._lock:
            evaluations = list(self._evaluations)
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_row("phase", self._phase if status.running else self._off_clock_phase())
        table.add_row(*_metric_row(spec.workload, evaluations, self._console.width))
        table.add_row("clock", _clock_row(spec, status))
        table.add_row("speed", _speed_row(status))
        if reading := status.reading:
            table.add_row("memory", size(reading.memory_bytes))
            if spec.device != "cpu":
                table.add_row("GPU", _gpu_row(status))
        return Group(table)

    def _off_clock_phase(self) -> str:
        return "evaluating (the clock stands)" if self._phase == "training" else self._phase


def make_display(home: Path, clock: ClockKind, runs: int) -> Display:
    """Return a display on stderr; rich honours NO_COLOR and tells terminals from files."""
    return Display(Console(file=sys.stderr, highlight=False), home, clock, runs)


def one_sentence(detail: RunDetail, clock: ClockKind) -> str:
    """Return what was reached and when, or what went wrong."""
    record, metric = detail.record, detail.spec.workload.metric
    name = f"{record.submission} on {record.workload}"
    if record.outcome == "reached":
        at = seconds(_credited(record, clock))
        return (
            f"{name}: {metric.name} {metric_value(record.target)} reached in {at} "
            f"({detail.steps_to_target:,} steps, {record.normalised_time:,.0f} paces), "
            f"test {metric_value(record.test_metric)}."
        )
    best = f"best {metric.name} {metric_value(record.best_metric)}"
    return (
        f"{name}: {OUTCOME_WORDS[record.outcome]} after {seconds(record.submission_time_s)} "
        f"and {record.steps:,} steps ({best}): {record.reason}."
    )


def _credited(record: RunRecord, clock: ClockKind) -> float | None:
    """Return the time to target on the chosen clock."""
    return record.time_without_compile_s if clock == "warm" else record.time_to_target_s


def sparkline(values: Sequence[float | None], target: float | None, width: int) -> str:
    """Draw the values as bars; the scale runs from the lowest to the target or the highest."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    ends = known if target is None else [*known, target]
    low, high = min(ends), max(ends)
    span = (high - low) or 1.0
    bars = []
    for value in values[-width:]:
        if value is None:
            bars.append("×")
        else:
            bars.append(_LEVELS[round((value - low) / span * (len(_LEVELS) - 1))])
    return "".join(bars)


def _over_seeds(details: Sequence[RunDetail], times: Sequence[float]) -> str:
    record = details[0].record
    reached = f"{len(times)} of {len(details)} runs reached the target"
    if not times:
        return f"{record.submission} on {record.workload}: {reached}."
    spread = f" ± {statistics.stdev(times):.2g} s (mean ± sd)" if len(times) > 1 else " s"
    mean = f"{statistics.fmean(times):.3g}"
    return f"{record.submission} on {record.workload}: {reached}, in {mean}{spread}."


def _metric_row(
    card: WorkloadCard, evaluations: Sequence[Evaluation], width: int
) -> tuple[str, Text]:
    metric = card.metric
    target = metric_value(metric.target) if metric.within_reach else "none"
    if not evaluations:
        return metric.name, Text(f"no evaluation yet; target {target}")
    now = evaluations[-1].value
    scale = metric.target if metric.within_reach else now
    curve = sparkline([e.value for e in evaluations], scale, max(8, width - 50))
    return metric.name, Text.assemble(
        (metric_value(now), "bold green" if evaluations[-1].meets else "bold"),
        f" → {target}  " if metric.within_reach else "  ",
        (curve, "cyan"),
    )


def _clock_row(spec: RunSpec, status: Status) -> str:
    remaining_ns = max(0, spec.budget_ns - status.elapsed_ns)
    share = min(1.0, status.elapsed_ns / spec.budget_ns)
    return (
        f"{seconds(status.elapsed_ns / 1e9)}, {seconds(remaining_ns / 1e9)} of budget left "
        f"({share:.0%} used)"
    )


def _speed_row(status: Status) -> str:
    if not status.elapsed_ns or not status.steps:
        return "–"
    rate = status.examples / (status.elapsed_ns / 1e9)
    return f"{rate:,.0f} examples/s, step {status.steps:,}"


def _gpu_row(status: Status) -> str:
    reading = status.reading
    assert reading is not None
    parts = []
    if reading.gpu_utilisation is not None:
        parts.append(f"{reading.gpu_utilisation:.0%} busy")
    if reading.gpu_power_w is not None:
        parts.append(f"{reading.gpu_power_w:.0f} W")
    if reading.gpu_memory_bytes is not None:
        parts.append(size(reading.gpu_memory_bytes))
    return ", ".join(parts) or "not measurable here"
