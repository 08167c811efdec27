"""What a calibration found, for people: the card's figures, and what the workload tells apart."""

from rich.console import Console
from rich.table import Table

from harness.calibration.card_text import as_text, card_lines
from harness.calibration.figures import Separation
from harness.calibration.protocol import Outcome, shortcomings


def print_report(console: Console, outcome: Outcome) -> bool:
    """Print it; return whether the card can keep its promises."""
    console.print(f"{outcome.card.name} v{outcome.card.version}: for the card\n", style="bold")
    lines = as_text(card_lines(outcome.figures, outcome.card))
    console.print(lines, highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "reached", "× paces (95 %)", "best", "verdict"):
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
            _verdict(found),
        )
    if outcome.separations:
        console.print(table)
    problems = shortcomings(outcome.figures, outcome.separations)
    for problem in problems:
        console.print(f"• {problem}.", style="yellow")
    console.print(f"Evidence: {outcome.path}", soft_wrap=True)
    return not problems


def _verdict(found: Separation) -> str:
    if found.faster:
        return "faster"
    if found.neighbour:
        return "not faster"
    return "told apart" if found.told_apart else "not told apart"
