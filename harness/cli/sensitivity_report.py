"""What `bench sensitivity` prints: a row a value, a curve and the figures a submission."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from harness.cards import WorkloadCard
from harness.cli import tables
from harness.cli.curve import plot
from harness.cli.tables import Format
from harness.judging.sensitivity import NEAR_BEST, Rate, Sensitivity, Span
from harness.sweeps.sensitivity import Axis
from harness.table_text import Column
from harness.wording import metric_value, target_words

CHART_HEIGHT = 6
BUDGET = 1.0  # the share of itself


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A submission's rates and figures; fewer than two rates have none."""

    axis: Axis
    rates: Sequence[Rate]
    figures: Sensitivity | None


def print_report(
    reports: Sequence[Report], card: WorkloadCard, untrained: float, form: Format
) -> None:
    """Print the rates and the figures; as CSV the rates alone."""
    rows = [row for report in reports for row in rate_rows(report, card)]
    if form == "json":
        tables.print_json(
            {
                "workload": card.name,
                "metric": card.metric.name,
                "untrained_metric": untrained,
                "rates": rows,
                "sensitivity": [_figures_row(report) for report in reports if report.figures],
            }
        )
        return
    if form == "csv":
        tables.print_rows(rows, _COLUMNS, form)
        return
    title = f"{card.name} v{card.version}: {target_words(card.metric)}"
    click.echo(f"### {title}\n" if form == "md" else title)
    click.echo(f"untrained {metric_value(untrained)}\n")
    people = [row | {"reached": f"{row['reached']}/{row['runs']}"} for row in rows]
    tables.print_rows(people, _COLUMNS, form)
    for report in reports:
        click.echo()
        name, figures = report.axis.submission, report.figures
        if figures is None:
            click.echo(f"{name}: fewer than two values have all their runs, so no figures.")
            continue
        if form == "md":
            lines = [f"{name}:", "", *(f"- {line}" for line in _told(report, figures, card))]
        else:
            lines = [*_drawn(report, figures), *_told(report, figures, card)]
        click.echo("\n".join(lines))


def rate_rows(report: Report, card: WorkloadCard) -> list[dict[str, Any]]:
    """Return a row a value, in order."""
    return [
        {
            "submission": report.axis.submission,
            "workload": card.name,
            "hyperparameter": report.axis.hyperparameter,
            "value": rate.value,
            "factor": rate.factor,
            "runs": len(rate.trial.attempts),
            "reached": rate.trial.reached,
            "budget_share": rate.trial.share_of_budget,
            "best_metric": rate.best_metric,
        }
        for rate in report.rates
    ]


_COLUMNS = [
    Column(field="submission", header="submission"),
    Column(field="hyperparameter", header="of"),
    Column(field="value", header="value", number=True, text=lambda value: f"{value:.3g}"),
    Column(field="factor", header="× present", number=True, text=lambda value: f"{value:.3g}"),
    Column(field="reached", header="reached", number=True),
    Column(
        field="budget_share", header="of the budget", number=True, text=lambda value: f"{value:.1%}"
    ),
    Column(field="best_metric", header="best metric", number=True, text=metric_value),
]


def _figures_row(report: Report) -> dict[str, Any]:
    assert report.figures is not None
    figures = dataclasses.asdict(report.figures)
    for name in ("reaches", "near_best"):
        span: Span | None = getattr(report.figures, name)
        if span is not None:
            figures[name]["decades"] = span.decades
    return {
        "submission": report.axis.submission,
        "hyperparameter": report.axis.hyperparameter,
        "present": report.axis.present,
        **figures,
    }


def _drawn(report: Report, figures: Sensitivity) -> list[str]:
    of = report.axis.hyperparameter
    points = [(math.log10(rate.value), rate.trial.share_of_budget) for rate in report.rates]
    ends = (math.log10(figures.low), math.log10(figures.high))
    words = (f"{of} {figures.low:.3g}", f"{figures.high:.3g}")
    return [
        f"{report.axis.submission}, restricted mean time ÷ budget",
        *plot(points, BUDGET, ends, words, height=CHART_HEIGHT),
    ]


def _told(report: Report, figures: Sensitivity, card: WorkloadCard) -> list[str]:
    of = report.axis.hyperparameter
    wide = f"over {_decades(math.log10(figures.high / figures.low))}"
    lines = [
        f"best {of}: {figures.best:.3g}{_beside(report.axis.present, figures.best)}",
        f"reaches the target {_width(figures.reaches)}",
        f"reaches it within {NEAR_BEST:g} × the best time {_width(figures.near_best)}",
        f"sensitivity {wide}: {figures.time:.1%} of the budget",
    ]
    if figures.metric is not None:
        share = "" if figures.metric_share is None else f", {figures.metric_share:.1%} of the gain"
        lines[-1] += f"; {card.metric.name} {metric_value(figures.metric)}{share}"
    return lines


def _beside(present: float, best: float) -> str:
    return "" if math.isclose(present, best) else f" (present: {present:.3g})"


def _width(span: Span | None) -> str:
    if span is None:
        return "nowhere"
    least = "at least " if span.open_low or span.open_high else ""
    return f"over {least}{_decades(span.decades)}, {span.low:.3g} to {span.high:.3g}"


def _decades(width: float) -> str:
    text = f"{width:.2g}"
    return f"{text} decade{'' if text == '1' else 's'}"
