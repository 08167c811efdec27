"""The score over several workloads that no other entry moves, of those that have run them all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.judging.suite_ranking import RANKED_WITHIN, suite_scores
from harness.recipe import REFERENCE_EFFORT
from harness.reports.gathering import Gathered
from harness.reports.ranked_rows import NAME_COLUMNS, RANK_COLUMNS, groups, name, rank, with_point
from harness.table_text import Column
from harness.wording import score, score_interval

COLUMNS = (
    *RANK_COLUMNS,
    *NAME_COLUMNS,
    Column(field="score", header="score", number=True),
    Column(field="interval", header="95 %", number=True),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteScores:
    """Scores over `workloads`; `rows` are `harness.judging.suite_ranking`'s that have one."""

    workloads: Mapping[str, int]  # name: version
    rows: Sequence[dict[str, Any]]

    @property
    def groups(self) -> list[list[dict[str, Any]]]:
        """The rows that are ranked together."""
        return groups(self.rows, RANKED_WITHIN)


def scores(gathered: Gathered) -> SuiteScores:
    """Return the scores over the shown workloads that the reference was run on.

    No row, unless somebody beside the reference has run two such workloads and all others.
    """
    workloads: dict[str, int] = {}
    for row in gathered.measured:
        workload, version = row.figures["workload"], row.figures["workload_version"]
        chosen = gathered.selection.workloads
        if row.effort == REFERENCE_EFFORT and row.counted and (not chosen or workload in chosen):
            workloads[workload] = max(version, workloads.get(workload, 0))
    rows: list[dict[str, Any]] = []
    if len(workloads) > 1:
        table = suite_scores(gathered.home, workloads, gathered.clock).to_dicts()
        rows = [with_point(row) for row in table if row["score"] is not None]
    shown = gathered.selection.submissions
    if all(row["tuning_effort"] == REFERENCE_EFFORT for row in rows):
        rows = []
    return SuiteScores(
        workloads=workloads,
        rows=[row for row in rows if shown is None or row["submission"] in shown],
    )


def score_cells(group: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the cells, for people, of rows that are ranked together."""
    return [
        {
            **rank(row, group),
            **name(row, group),
            "score": score(row["score"]),
            "interval": score_interval(row["score_low"], row["score_high"]),
        }
        for row in group
    ]
