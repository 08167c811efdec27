"""The report's tables as text: CSV, JSON, and Markdown with the findings."""

from collections.abc import Sequence
from typing import Literal

from harness.reports.findings import caveats, findings
from harness.reports.gathering import Gathered
from harness.reports.profiles import performance_profiles
from harness.reports.suite import COLUMNS, score_cells, scores
from harness.reports.tables import Table, group_cells, shown_columns, tables
from harness.table_text import Column, csv_text, filled, json_text, markdown
from harness.wording import counted, score


def csv_files(made: Sequence[Table]) -> dict[str, str]:
    """Return the text of each table's file by the file's name."""
    return {f"{table.name}.csv": csv_text(table.rows, table.fields) for table in made}


def document(
    gathered: Gathered, form: Literal["html", "md", "csv", "json"], name: str | None
) -> str:
    """Return one text: of the table `name`, or of all (CSV has no form for several)."""
    made = [table for table in tables(gathered) if name in (None, table.name)]
    if form == "csv":
        return next(iter(csv_files(made).values()))
    if form == "json":
        contents = {table.name: table.rows for table in made}
        return json_text(contents if name is None else contents[name])
    return _whole(gathered, made) if name is None else _table(made[0])


def _table(table: Table) -> str:
    return markdown(table.rows, [Column(field=field, header=field) for field in table.fields])


def _whole(gathered: Gathered, made: Sequence[Table]) -> str:
    """Return what the page has, less figures and single runs."""
    blocks = ["# Timetrial report", _findings(gathered), *_leaderboards(gathered)]
    blocks += [*_scores(gathered), *_profiles(gathered)]
    by_name = {table.name: table for table in made}
    blocks += ["## Provenance", markdown(by_name["provenance"].rows, _PROVENANCE)]
    environment = [
        row for row in by_name["environment"].rows if not row["name"].startswith("packages.")
    ]
    blocks += ["## Environment", markdown(environment, _ENVIRONMENT)]
    return "\n\n".join(block for block in blocks if block) + "\n"


_PROVENANCE = [
    Column(field="workload", header="workload"),
    Column(field="tuning_effort", header="tuning effort"),
    Column(field="submission", header="submission"),
    Column(field="source_sha256", header="source", text=lambda value: str(value)[:12]),
    Column(field="command", header="command", text=lambda value: f"`{value}`"),
    Column(field="remark", header="remark"),
]
_ENVIRONMENT = [
    Column(field="machine_class", header="machine class"),
    Column(field="name", header="name"),
    Column(field="value", header="value"),
]


def _findings(gathered: Gathered) -> str:
    said = [
        f"- {found.section.workload}, to {found.target}: {one.submission} {one.sentence} "
        f"Tuning effort: {one.effort}."
        for found in findings(gathered)
        for one in found.findings
    ]
    said = said or ["No submission's median run reached its target: no rank is given."]
    cautions = [f"- {caveat}" for caveat in caveats(gathered)]
    return _inert("\n".join([*said, "", *cautions]).rstrip())


def _leaderboards(gathered: Gathered) -> list[str]:
    blocks = []
    for section in gathered.sections:
        blocks += [_inert(f"## {section.workload} v{section.version}\n\n{section.machine_class}")]
        for effort in section.efforts:
            cells = group_cells(section.of_effort(effort))
            blocks += [
                _inert(f"### Tuning effort: {effort}"),
                markdown(cells, shown_columns(cells)),
            ]
    return blocks


def _scores(gathered: Gathered) -> list[str]:
    made = scores(gathered)
    blocks = []
    for group in made.groups:
        cells = score_cells(group)
        columns = filled(COLUMNS, cells)
        title = (
            f"## Score over {counted(len(made.workloads), 'workload')}, tuning effort: "
            f"{group[0]['tuning_effort']}\n\n{group[0]['machine_class']}"
        )
        blocks += [_inert(title), markdown(cells, columns)]
    return blocks


def _profiles(gathered: Gathered) -> list[str]:
    blocks = []
    for profile in performance_profiles(gathered):
        rows = [
            {"submission": name, "score": scored, "run on": f"{ran} of {len(profile.workloads)}"}
            for name, scored, ran in zip(
                profile.entries, profile.scores, profile.run_on, strict=True
            )
        ]
        columns = [
            Column(field="submission", header="submission"),
            Column(field="score", header="AlgoPerf score", text=score, number=True),
            Column(field="run on", header="workloads run", number=True),
        ]
        title = (
            f"## Performance profile over {counted(len(profile.workloads), 'workload')}, "
            f"tuning effort: {profile.effort}"
        )
        blocks += [_inert(f"{title}\n\n{profile.machine_class}"), markdown(rows, columns)]
    return blocks


def _inert(text: str) -> str:
    return text.replace("<", "&lt;")
