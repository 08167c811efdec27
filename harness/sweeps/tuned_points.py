"""A submission's card with a point that tuning found, all else to the byte."""

import re
from collections.abc import Mapping

from harness.cards import SubmissionCard, WorkloadCard, parse_card
from harness.errors import UsageError


def with_tuned_point(
    text: str,
    workload: WorkloadCard,
    point: Mapping[str, str],
    *,
    trials: int,
    source: str,
    origin: str,
) -> str:
    """Return the card's text with this workload's tuned point.

    Raises:
        UsageError: the card would not be valid any more, or says `tuned: {…}` in one line.
    """
    values = ", ".join(f"{name}: {value}" for name, value in point.items())
    entry = (
        f"  {workload.name}:\n    version: {workload.version}\n    point: {{{values}}}\n"
        f'    trials: {trials}\n    source: "{source}"\n'
    )
    text = re.sub(r"(?m)^tuned: *\{ *\} *\n", "", text)
    if re.search(r"(?m)^tuned:[ \t]*\S", text):
        raise UsageError(f"The card {origin} has `tuned` in one line. Put the point in by hand.")
    own = rf"(?m)^  {re.escape(workload.name)}:[^\n]*\n(?:   +[^\n]*\n)*"
    block = re.search(r"(?m)^tuned:[^\n]*\n(?:(?:  [^\n]*)?\n)*", text)
    if block is None:
        before = re.search(r"(?m)^(?:#[^\n]*\n)*claim:", text)
        at = before.start() if before else len(text)
        gap = "" if text[:at].endswith("\n") else "\n"
        text = f"{text[:at]}{gap}tuned:\n{entry}{text[at:]}"
    else:
        inside, found = re.subn(own, lambda _: entry, block[0], count=1)
        if not found:
            inside = block[0] + entry
        text = text[: block.start()] + inside + text[block.end() :]
    parse_card(text, SubmissionCard, origin)
    return text
