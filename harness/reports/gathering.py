"""What a report is about: the leaderboard's rows with their runs, in sections.

A section is a workload version on a machine class. What is judged (ranks, fronts, profiles) is
judged over all that was measured; a selection only says what is shown of it.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from harness import catalogue
from harness.candidates import split_names
from harness.errors import UsageError, one_of
from harness.home import runs_folder
from harness.judging.axes import counted
from harness.judging.leaderboard import ROW, leaderboard
from harness.records import index
from harness.records.run_directory import RunDirectory
from harness.spec import TIME_FIELDS, ClockKind, RunSpec
from harness.suites import MARK, workloads_named

UNLISTED = "unlisted"  # the kind of a submission without a card

_SECTION = ("workload", "workload_version", "machine_class")
_RUN = (
    *("run_id", "seed", "outcome", "reason", "tainted", "time_to_target_s"),
    *("time_without_compile_s", "submission_time_s", "best_metric", "created_at", "git_commit"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What is shown; None is everything."""

    workloads: frozenset[str] | None = None
    submissions: frozenset[str] | None = None

    def shows(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row of the leaderboard is shown."""
        return (self.workloads is None or row["workload"] in self.workloads) and (
            self.submissions is None or row["submission"] in self.submissions
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of the leaderboard with its runs."""

    figures: Mapping[str, Any]  # as `harness.judging.leaderboard` gives them
    kinds: tuple[str, ...]
    runs: Sequence[Mapping[str, Any]]

    @property
    def submission(self) -> str:
        """The submission's name."""
        return str(self.figures["submission"])

    @property
    def effort(self) -> str:
        """The tuning effort."""
        return str(self.figures["tuning_effort"])

    @property
    def point(self) -> dict[str, Any]:
        """The hyperparameters."""
        point: dict[str, Any] = json.loads(self.figures["hyperparameters"])
        return point

    @property
    def counted(self) -> list[Mapping[str, Any]]:
        """The runs that the figures are about."""
        return counted(self.runs)

    @property
    def median_run(self) -> Mapping[str, Any]:
        """The run that stands for the row: the counted one nearest to its median time.

        Where the median is beyond the budget a run that missed, where none counts the last one.
        """
        counted = self.counted
        if not counted:
            return max(self.runs, key=lambda run: (run["created_at"], run["run_id"]))
        time_s = self.figures["time_s"]
        if time_s is None:
            missed = [run for run in counted if run["outcome"] != "reached"]
            return min(missed or counted, key=lambda run: str(run["run_id"]))
        reached = [run for run in counted if run["outcome"] == "reached"]
        return min(reached, key=lambda run: (abs(run["time_s"] - time_s), run["run_id"]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A workload version on a machine class."""

    workload: str
    version: int
    machine_class: str
    spec: RunSpec  # of its newest run that can be read
    rows: Sequence[Row]  # those shown, in the order of the leaderboard

    @property
    def anchor(self) -> str:
        """A name for links to it, the same in every report."""
        words = re.sub(r"[^a-z0-9]+", "-", self.workload.lower()).strip("-")
        identity = f"{self.workload} {self.version} {self.machine_class}"
        return f"{words}-v{self.version}-{hashlib.sha256(identity.encode()).hexdigest()[:6]}"

    @property
    def efforts(self) -> list[str]:
        """The tuning efforts, the reference first, then as the leaderboard has them."""
        efforts = dict.fromkeys(row.effort for row in self.rows)
        return sorted(efforts, key=lambda effort: (effort != "reference", *_natural(effort)))

    def of_effort(self, effort: str) -> list[Row]:
        """Return the rows that are ranked together."""
        return [row for row in self.rows if row.effort == effort]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered:
    """All that a report is made from."""

    home: Path
    clock: ClockKind
    selection: Selection
    sections: Sequence[Section]
    measured: Sequence[Row]  # every row, shown or not

    @property
    def submissions(self) -> list[str]:
        """Every submission that was measured, shown or not, by name."""
        return sorted({row.submission for row in self.measured})

    @property
    def rows(self) -> list[Row]:
        """The rows of every section."""
        return [row for section in self.sections for row in section.rows]


def gather(
    home: Path, workloads: Iterable[str], submissions: Iterable[str], clock: ClockKind
) -> Gathered:
    """Return what was measured under `home`, of the named workloads and submissions or of all.

    Raises:
        UsageError: nothing was measured, or nothing of that name.
    """
    rows = leaderboard(home, None, clock).to_dicts()
    if not rows:
        raise UsageError(_nothing(home))
    selection = _selection(rows, list(workloads), list(submissions))
    runs = _runs(home, clock)
    measured = [
        Row(figures=row, kinds=kinds_of(row["submission"]), runs=runs[_key(row, ROW)])
        for row in rows
    ]
    sections: dict[tuple[Any, ...], list[Row]] = {}
    for row in measured:
        if selection.shows(row.figures):
            sections.setdefault(_key(row.figures, _SECTION), []).append(row)
    if not sections:
        raise UsageError("None of the named submissions was measured on the named workloads.")
    return Gathered(
        home=home,
        clock=clock,
        selection=selection,
        sections=[_section(home, shown) for shown in sections.values()],
        measured=measured,
    )


def kinds_of(submission: str) -> tuple[str, ...]:
    """Return the kinds of a submission's parts, from their cards."""
    try:
        names = split_names(submission)
    except UsageError:  # a record's name may be anything
        return (UNLISTED,)
    kinds: list[str] = []
    for name in names:
        entry = catalogue.submissions().get(name)
        # `module:Class` can only be an optimizer; a file's name is in no catalogue.
        kinds.append(entry.card.kind if entry else "optimizer" if ":" in name else UNLISTED)
    return tuple(dict.fromkeys(kinds))


def _runs(home: Path, clock: ClockKind) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Return every run by the row that it belongs to, `time_s` being the time that counts."""
    sql = f"SELECT {', '.join((*ROW, *_RUN))} FROM runs ORDER BY run_id"  # noqa: S608 - our own names
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in index.query(home, sql).to_dicts():
        grouped.setdefault(_key(run, ROW), []).append(run | {"time_s": run[TIME_FIELDS[clock]]})
    return grouped


def _key(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)


def _section(home: Path, rows: Sequence[Row]) -> Section:
    first = rows[0].figures
    return Section(
        workload=first["workload"],
        version=first["workload_version"],
        machine_class=first["machine_class"],
        spec=_newest_spec(home, rows),
        rows=rows,
    )


def _newest_spec(home: Path, rows: Sequence[Row]) -> RunSpec:
    """Return the specification of the newest run: it holds the workload's card as it was."""
    names = sorted((run["run_id"] for row in rows for run in row.runs), reverse=True)
    for name in names:
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            return RunDirectory(runs_folder(home) / name).spec()
    raise UsageError(f"The run directories in {runs_folder(home)} went away: `bench db rebuild`.")


def _selection(
    rows: Sequence[Mapping[str, Any]], workloads: Sequence[str], submissions: Sequence[str]
) -> Selection:
    measured = {row["workload"] for row in rows}
    names = {row["submission"] for row in rows}
    for submission in submissions:
        if submission not in names:
            raise one_of("Among what was measured, the submission", submission, names)
    chosen = {name for text in workloads for name in _full_names(text, measured)}
    return Selection(
        workloads=frozenset(chosen) if workloads else None,
        submissions=frozenset(submissions) if submissions else None,
    )


def _full_names(text: str, measured: set[str]) -> list[str]:
    """Return the measured workloads behind a name, a family's or `@suite`."""
    if text in measured:  # also one whose card is no longer there
        return [text]
    try:
        names = [name for name in workloads_named(text) if name in measured]
    except UsageError:
        names = []
        if text.startswith(MARK):
            raise
    if not names:
        raise one_of("Among what was measured, the workload", text, measured)
    return names


def _nothing(home: Path) -> str:
    return (
        f"Nothing is measured in {home} yet, so there is nothing to show. Run "
        f"`{catalogue.first_command()} --seeds 5`, or name another folder by --results."
    )


def _natural(text: str) -> tuple[Any, ...]:
    """Order `2 trials` before `10 trials`."""
    number = text.split(" ", 1)[0]
    return (0, int(number), text) if number.isdigit() else (1, 0, text)
