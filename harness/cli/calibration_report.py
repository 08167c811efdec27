"""What a calibration found, for people: the card's figures, and what the workload tells apart."""

import dataclasses

from rich.console import Console
from rich.table import Table

from harness.calibration.figures import Figures
from harness.calibration.protocol import Outcome, shortcomings


def print_report(console: Console, outcome: Outcome) -> bool:
    """Print it; return whether the card can keep its promises."""
    console.print(f"{outcome.card.name} v{outcome.card.version}: for the card\n", style="bold")
    console.print(card_lines(outcome.figures), highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "reached", "× paces (95 %)", "best", "told apart"):
        table.add_column(heading, justify="left" if heading == "recipe" else "right")
    for found in outcome.separations:
        slowdown = "–"
        if found.slowdown is not None:
            slowdown = f"{found.slowdown:.2f} ({found.low:.2f}–{found.high:.2f})"
        table.add_row(
            found.name,
            f"{found.reached}/{found.runs}",
            slowdown,
            "–" if found.best_value is None else f"{found.best_value:.4g}",
            "yes" if found.told_apart else "no",
        )
    console.print(table)
    problems = shortcomings(outcome.figures, outcome.separations)
    for problem in problems:
        console.print(f"• {problem}.", style="yellow")
    console.print(f"Evidence: {outcome.path}", soft_wrap=True)
    return not problems


def card_lines(figures: Figures) -> str:
    """Return the figures as they stand on a card."""
    f = dataclasses.asdict(figures)
    return """\
metric: {{…, target: {target:.10g}}}
budget_paces: {budget_paces:g}
noise:
  runs: {runs}
  reached: {reached}
  metric_sigma: {metric_sigma:.2g}
  time_cv: {time_cv:.2g}
  passes_cv: {passes_cv:.2g}
  false_reach_chance: {false_reach_chance:.2g}
  evaluation_share: {evaluation_share:.2g}
reference_seconds: {seconds_mean:.3g}
evidence:
  target: "median of the best values within the horizon {best_median:.4g} (n={runs}), backed off \
by {margin_sigmas:g} sd of the level at its end"
  grid: "the reference crosses at evaluation {evaluations_mean:.1f}, so a grid interval is \
{quantisation:.1%} of its model passes ({passes_mean:,.0f})"
  budget: "time to target is {paces_mean:,.0f} paces (cv {time_cv:.2g}, n={reached})"
  reference_seconds: "mean of {reached} seeds, sd {seconds_sd:.2g}, {untainted} of {runs} \
untainted"
""".format(**f)
