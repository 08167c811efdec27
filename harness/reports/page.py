"""One self-contained page: it opens from a file, asks no network, and prints.

Names, reasons and tracebacks are text of strangers. The template escapes all of it, the data of
the figures stands in a JSON block in which no tag can be closed, and the page's policy runs no
script but the two whose hashes it names.
"""

import base64
import datetime
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec

from harness import __version__
from harness.errors import UsageError
from harness.reports.appearance import DARK, LIGHT, MARKERS, Look, looks
from harness.reports.curves import Limits, Series, learning_curves
from harness.reports.findings import caveats, findings
from harness.reports.gathering import Gathered, Row, Section
from harness.reports.payload import payload
from harness.reports.profiles import performance_profiles
from harness.reports.provenance import Origin, environments, origin
from harness.reports.suite import COLUMNS, score_cells, scores
from harness.reports.tables import group_cells, pareto_rows, shown_columns
from harness.reports.telemetry import representative_telemetry
from harness.table_text import Column, filled
from harness.table_text import cell as cell_text
from harness.wording import (
    count,
    counted,
    metric_value,
    plain,
    point,
    score,
    significant,
    target_words,
)

if TYPE_CHECKING:
    import jinja2

MOST_ROWS = 1500  # in all leaderboards together
MOST_RUNS = 1500  # listed as missed or left out, likewise

_FOLDER = resources.files("harness.reports") / "page"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Group:
    """Rows that are ranked together, as the template wants them."""

    effort: str
    rows: Sequence[tuple[Row, Mapping[str, Any]]]  # with their cells
    left_out: int  # rows beyond the limit


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A section as the template wants it."""

    section: Section
    target: str
    groups: Sequence[_Group]
    columns: Sequence[Column]
    origins: Sequence[Origin]
    odd_runs: Sequence[tuple[Row, Mapping[str, Any]]]
    odd_runs_left_out: int
    curves: Sequence[Series]
    runs: int
    has_pareto: bool
    has_energy: bool
    has_telemetry: bool


def page(gathered: Gathered, made: datetime.datetime, limits: Limits = Limits()) -> str:  # noqa: B008 - frozen
    """Return the page's HTML.

    Raises:
        UsageError: the packages that it takes are not installed.
    """
    template, plotly = _template(), _plotly()
    curves = learning_curves(gathered, limits)
    telemetry = representative_telemetry(gathered, [[one.row for one in part] for part in curves])
    pareto = pareto_rows(gathered)
    profiles = performance_profiles(gathered)
    suite = scores(gathered)
    suite_groups = [(group, score_cells(group)) for group in suite.groups]
    appearance = looks(gathered.submissions)
    data = payload(gathered, appearance, curves, telemetry, pareto, profiles)
    parts = _parts(gathered, curves, data)
    scripts = {"plotly": inert(plotly), "report": inert(_read("report.js"))}
    return template.render(
        parts=parts,
        limits=limits,
        findings=findings(gathered),
        caveats=caveats(gathered),
        profiles=profiles,
        suite=suite,
        suite_groups=suite_groups,
        suite_columns=filled(COLUMNS, [cells for _, shown in suite_groups for cells in shown]),
        environments=environments(gathered),
        gathered=gathered,
        submissions=_shown_submissions(gathered, appearance),
        kinds=sorted({kind for row in gathered.rows for kind in row.kinds}),
        looks=appearance,
        markers=[_SHAPES[name] for name, _ in MARKERS],
        light=LIGHT,
        dark=DARK,
        made=made,
        version=__version__,
        styles=_read("report.css"),
        scripts=scripts,
        policy=_policy(scripts.values()),
        data=json_block(data),
        cell=cell_text,
    )


# Plotly's markers as paths in a box of ten by ten, for the tables.
_SHAPES = {
    "circle": "M5 1a4 4 0 1 0 .001 0z",
    "square": "M1.5 1.5h7v7h-7z",
    "diamond": "M5 .5 9.5 5 5 9.5.5 5z",
    "triangle-up": "M5 1 9.6 9H.4z",
    "cross": "M3.6.8h2.8v2.8h2.8v2.8H6.4v2.8H3.6V6.4H.8V3.6h2.8z",
    "triangle-down": "M5 9 .4 1h9.2z",
    "x": "M2.3.7 5 3.4 7.7.7l1.6 1.6L6.6 5l2.7 2.7-1.6 1.6L5 6.6 2.3 9.3.7 7.7 3.4 5 .7 2.3z",
    "star": "M5 .3 6.3 3.6l3.5.2-2.7 2.3.9 3.4L5 7.6 2 9.5l.9-3.4L.2 3.8l3.5-.2z",
}


def json_block(content: object) -> str:
    """Return JSON that can stand in a script element: nothing in it is a tag or a comment."""
    text = msgspec.json.encode(content).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def inert(script: str) -> str:
    """Return a script in whose strings no tag can end the element that it stands in."""
    return re.sub(r"<(?=/script|!--)", r"\\x3c", script, flags=re.IGNORECASE)


def _policy(scripts: Any) -> str:
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    # Plotly styles its figures inline and turns them into pictures by way of data and blobs.
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _parts(
    gathered: Gathered, curves: Sequence[Sequence[Series]], data: Mapping[str, Any]
) -> list[_Part]:
    groups = sum(len(section.efforts) for section in gathered.sections)
    most_rows = max(2, MOST_ROWS // groups)
    most_runs = max(2, MOST_RUNS // len(gathered.sections))
    return [
        _part(section, series, drawn, most_rows, most_runs)
        for section, series, drawn in zip(gathered.sections, curves, data["sections"], strict=True)
    ]


def _part(
    section: Section,
    series: Sequence[Series],
    drawn: Mapping[str, Any],
    most_rows: int,
    most_runs: int,
) -> _Part:
    groups = [_group(section, effort, most_rows) for effort in section.efforts]
    cells = [cells for group in groups for _, cells in group.rows]
    odd = [
        (row, run)
        for row in section.rows
        for run in row.runs
        if run["tainted"] or run["outcome"] != "reached"
    ]
    pareto = drawn["pareto"]
    return _Part(
        section=section,
        target=target_words(section.spec.workload.metric),
        groups=groups,
        columns=shown_columns(cells),
        origins=[origin(section, row) for group in groups for row, _ in group.rows],
        odd_runs=odd[:most_runs],
        odd_runs_left_out=max(0, len(odd) - most_runs),
        curves=series,
        runs=sum(len(row.runs) for row in section.rows),
        has_pareto=sum(row["memory"] is not None or row["energy"] is not None for row in pareto)
        > 1,
        has_energy=any(row["energy"] is not None for row in pareto),
        has_telemetry=bool(drawn["telemetry"]),
    )


def _group(section: Section, effort: str, most: int) -> _Group:
    rows = section.of_effort(effort)
    cells = group_cells(rows, most)
    return _Group(
        effort=effort,
        rows=list(zip(rows[:most], cells, strict=True)),
        left_out=max(0, len(rows) - most),
    )


def _shown_submissions(gathered: Gathered, looks: Mapping[str, Look]) -> list[tuple[int, str]]:
    """Return the submissions that have a row, with their positions in the page's data."""
    shown = {row.submission for row in gathered.rows}
    return [(number, name) for number, name in enumerate(looks) if name in shown]


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _template() -> "jinja2.Template":
    try:
        import jinja2
    except ImportError:
        raise _missing("jinja2") from None
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": count,
        "counted": counted,
        "score": score,
        "significant": significant,
        "metric": metric_value,
        "point": point,
        "plain": plain,
    }
    return environment.get_template("report.html.jinja")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise _missing("plotly") from None
    script: str = get_plotlyjs()
    return script


def _missing(package: str) -> UsageError:
    return UsageError(
        f"The page needs {package}, which is not installed: pip install 'timetrial[report]'. "
        f"Without it there are --format md, csv and json."
    )
