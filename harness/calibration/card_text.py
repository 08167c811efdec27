"""The figures of a calibration as the lines of a card, and a card's text with them in place."""

import re

from harness.calibration.figures import Figures
from harness.cards import WorkloadCard
from harness.errors import UsageError


def card_lines(figures: Figures, card: WorkloadCard) -> dict[str, str]:
    """Return the lines of each key that a calibration decides; `evidence`'s by `evidence.KEY`.

    A budget on the card that is larger than the one suggested stays: some workloads leave room
    for methods that need many passes.
    """
    f = figures
    budget = max(f.budget_paces, card.budget_paces)
    margin = abs(f.best_median - f.target) / f.metric_sigma if f.metric_sigma else 0.0
    return {
        "target": f"{f.target:.10g}",
        "budget_paces": f"budget_paces: {budget:g}",
        "noise": f"""\
noise:
  runs: {f.runs}
  reached: {f.reached}
  metric_sigma: {f.metric_sigma:.2g}
  time_cv: {f.time_cv:.2g}
  passes_cv: {f.passes_cv:.2g}
  false_reach_chance: {f.false_reach_chance:.2g}
  evaluation_share: {f.evaluation_share:.2g}""",
        "reference_seconds": f"reference_seconds: {f.seconds_mean:.3g}",
        "evidence.target": (
            f"median of the best values within the horizon {f.best_median:.5g} (n={f.runs}), "
            f"backed off by {margin:.1f} sd of the level at its end ({f.metric_sigma:.2g})"
        ),
        "evidence.grid": (
            f"the reference crosses at evaluation {f.evaluations_mean:.1f}, so a grid interval is "
            f"{f.quantisation:.1%} of its model passes ({f.passes_mean:,.0f}, n={f.reached})"
        ),
        "evidence.budget": (
            f"time to target is {f.paces_mean:,.0f} paces (cv {f.time_cv:.2g}, n={f.reached}); "
            f"{budget:,.0f} is {budget / f.paces_mean:.2g} times that"
        ),
        "evidence.noise": (
            f"{f.runs} seeds to a quarter beyond the horizon; sigma is the sd of the level at the "
            "horizon's end, the chance that of these curves shifted to one sigma short"
        ),
        "evidence.reference_seconds": (
            f"mean of {f.reached} seeds, sd {f.seconds_sd:.2g}; {f.untainted} of {f.runs} untainted"
        ),
    }


def as_text(lines: dict[str, str]) -> str:
    """Return the lines as they would stand on a card, for people to copy."""
    shown = [f"metric: {{…, target: {lines['target']}}}"]
    shown += [text for key, text in lines.items() if "." not in key and key != "target"]
    shown.append("evidence:")
    shown += [f'  {key.partition(".")[2]}: "{text}"' for key, text in lines.items() if "." in key]
    return "\n".join(shown) + "\n"


def with_lines(text: str, lines: dict[str, str], origin: str) -> str:
    """Return a card's text with these lines in place of its own; all else stays to the byte.

    Raises:
        UsageError: the card is not written in the usual way, a key a line and blocks indented.
    """
    for key, new in lines.items():
        if key == "target":
            pattern, replacement = r"(?m)^(metric:[^#\n]*?\btarget: *)[^,}\s]+", rf"\g<1>{new}"
        elif key.startswith("evidence."):
            name = key.partition(".")[2]
            # The value may go on over deeper indented lines.
            pattern = rf"(?m)(^evidence:\n(?:  .*\n)*?)^  {name}:.*\n(?:   .*\n)*"
            replacement = rf'\g<1>  {name}: "{new}"\n'
        else:
            pattern, replacement = rf"(?m)^{key}:.*(?:\n +.*)*$", new
        text, found = re.subn(pattern, replacement, text, count=1)
        if not found:
            raise UsageError(
                f"The card {origin} has no line {key!r} in the usual form. Put the figures in by "
                "hand; run without --write to see them."
            )
    return text
