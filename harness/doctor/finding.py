"""What the doctor says: one check, what was found, what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "missing"]
# taint: runs are kept out of rankings; spread: times vary from run to run; shift: they differ
# from those of another day or machine, while runs side by side still compare.
Effect = Literal["taint", "spread", "shift"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The outcome of one check."""

    check: str
    status: Status
    found: str
    advice: str | None = None
    effect: Effect | None = None  # on times; None where it has none
    device: str | None = None  # `cuda:N` where it concerns that GPU alone


def verdict(device: str, findings: Sequence[Finding]) -> str:
    """Return the sentence that sums up the findings about the machine and `device`."""
    causes: dict[Effect, list[str]] = {"taint": [], "spread": [], "shift": []}
    for finding in findings:
        if finding.device in (None, device) and finding.effect and finding.status != "ok":
            causes[finding.effect].append(finding.check)
    taint, spread, shift = (", ".join(dict.fromkeys(causes[effect])) for effect in causes)
    expected = []
    if spread:
        expected.append(f"spread from run to run ({spread})")
    if shift:
        expected.append(f"other times on another day or machine ({shift})")
    expect = f"expect {' and '.join(expected)}" if expected else ""
    if taint:
        return f"Runs on {device} would be tainted now ({taint}){'; ' if expect else ''}{expect}."
    if spread:
        return (
            f"Timing on {device} is trustworthy for differences well above its noise, in "
            f"interleaved pairs with enough seeds: {expect}."
        )
    if shift:
        return f"Timing on {device} is trustworthy for runs side by side: {expect}."
    return f"Timing on {device} is trustworthy: nothing was found that disturbs it."
