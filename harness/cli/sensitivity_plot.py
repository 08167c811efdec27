"""The picture of `bench sensitivity`: time to target and metric against the hyperparameter."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.cards import WorkloadCard
from harness.cli.sensitivity_report import Report
from harness.wording import target_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (6.4, 6.4)
DOTS_PER_INCH = 150


def draw(reports: Sequence[Report], card: WorkloadCard, untrained: float, form: str) -> bytes:
    """Return the picture in a format of Matplotlib's: a line a submission, a dot a run."""
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    times, metrics = figure.subplots(2, 1, sharex=True)
    for number, report in enumerate(reports):
        if report.rates:
            _draw_times(times, report, f"C{number}")
            _draw_metrics(metrics, report, f"C{number}")
    times.axhline(1.0, color="0.6", linestyle="--", linewidth=1)
    times.set(ylabel="restricted mean time ÷ budget", ylim=(0, 1.05), xscale="log")
    if any(report.rates for report in reports):
        times.legend(fontsize="small")
    metrics.axhline(untrained, color="0.6", linestyle=":", linewidth=1, label="untrained")
    metrics.axhline(
        card.metric.target,
        color="0.6",
        linestyle="--",
        linewidth=1,
        label=target_words(card.metric),
    )
    swept = dict.fromkeys(report.axis.hyperparameter for report in reports)
    metrics.set(ylabel=f"best {card.metric.name}", xlabel=", ".join(swept))
    metrics.legend(fontsize="small")
    figure.suptitle(f"{card.name} v{card.version}")
    picture = io.BytesIO()
    figure.savefig(picture, format=form, dpi=DOTS_PER_INCH)
    return picture.getvalue()


def _draw_times(axes: "Axes", report: Report, colour: str) -> None:
    name = report.axis.submission
    label = name if report.figures is None else f"{name}, sensitivity {report.figures.time:.1%}"
    values = [rate.value for rate in report.rates]
    shares = [rate.trial.share_of_budget for rate in report.rates]
    axes.plot(values, shares, color=colour, label=label)
    for rate in report.rates:
        runs = [
            min(1.0, attempt.seconds / attempt.budget_s) if attempt.reached else 1.0
            for attempt in rate.trial.attempts
        ]
        axes.scatter([rate.value] * len(runs), runs, color=colour, s=12)
    axes.axvline(report.axis.present, color=colour, linestyle=":", linewidth=1)


def _draw_metrics(axes: "Axes", report: Report, colour: str) -> None:
    known = [
        (rate.value, rate.best_metric) for rate in report.rates if rate.best_metric is not None
    ]
    if known:
        axes.plot(*zip(*known, strict=True), color=colour, marker="o", markersize=3.5)
