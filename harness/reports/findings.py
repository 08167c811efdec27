"""What a reader wants to know first, in sentences: who is fastest, and what to make of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.judging.bootstrap import FEWEST_RUNS
from harness.reports.gathering import Gathered, Row, Section
from harness.reports.ranked_rows import ahead_of
from harness.wording import count, counted, significant, target_words


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The first of those that are ranked together; `sentence` begins after its name."""

    effort: str
    submission: str
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionFindings:
    """What was found on a workload, by tuning effort."""

    section: Section
    target: str
    findings: Sequence[Finding]


def findings(gathered: Gathered) -> list[SectionFindings]:
    """Return for each section, where somebody reached the target, who was the first."""
    found = [
        SectionFindings(
            section=section,
            target=target_words(section.spec.workload.metric),
            findings=[
                finding
                for effort in section.efforts
                if (finding := _finding(effort, section.of_effort(effort))) is not None
            ],
        )
        for section in gathered.sections
    ]
    return [one for one in found if one.findings]


def _finding(effort: str, rows: Sequence[Row]) -> Finding | None:
    ranked = [row for row in rows if row.figures["rank"] is not None]
    if not ranked:
        return None
    first = ranked[0]
    time_s = first.figures["time_s"]
    sentence = f"in {significant(time_s)} s ({_sample(first)})"
    others = [row for row in ranked if row.submission != first.submission]
    if others and others[0].figures["time_s"] > time_s:
        second = others[0]
        sentence += f", {ahead_of(first.figures, second.figures, f' ({_sample(second)})')}"
    return Finding(effort=effort, submission=first.submission, sentence=f"{sentence}.")


def _sample(row: Row) -> str:
    runs, reached = row.figures["runs"], row.figures["reached"]
    if runs == 1:
        return "one run"
    return f"median of {runs} runs" + ("" if reached == runs else f", {reached} on target")


def caveats(gathered: Gathered) -> list[str]:
    """Return what keeps the figures from meaning more than they do."""
    rows = gathered.rows
    tainted = sum(row.figures["tainted_left_out"] for row in rows)
    unfinished = sum(row.figures["unfinished_left_out"] for row in rows)
    runs = sum(len(row.runs) for row in rows)
    few = sum(0 < row.figures["runs"] < FEWEST_RUNS for row in rows)
    classes = {section.machine_class for section in gathered.sections}
    said = []
    if few:
        said.append(
            f"Fewer than {FEWEST_RUNS} runs, so no rank interval: {few} of "
            f"{counted(len(rows), 'row')}. A difference there may be luck."
        )
    if tainted:
        said.append(
            "Tainted (other work on the machine, drift, throttling), so kept and left out of "
            f"rankings and medians: {count(tainted)} of {counted(runs, 'run')}."
        )
    if unfinished:
        said.append(
            f"Also left out: {counted(unfinished, 'run')} interrupted, stopped or skipped, which "
            "say nothing of how long a submission takes."
        )
    if len({row.effort for row in rows}) > 1:
        said.append("Different tuning efforts are shown side by side and never ranked together.")
    if len(classes) > 1:
        said.append(f"{len(classes)} machine classes: results are compared inside one only.")
    if gathered.clock == "warm":
        said.append("The clock is warm: compilation is left out of all times.")
    if gathered.selection.submissions is not None:
        said.append("Some submissions are shown; ranks are among all that were measured.")
    return said
