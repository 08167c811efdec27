"""`bench leaderboard --at-time`: how good each row was when so much time was gone."""

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli import tables
from harness.cli.tables import Format
from harness.reports import ranked_rows
from harness.spec import ClockKind
from harness.table_text import Column, filled
from harness.wording import metric_value

if TYPE_CHECKING:
    from harness.judging.equal_time import Moment


class MomentType(click.ParamType["Moment"]):
    """A submission time: a number of seconds, or of paces with that word behind it."""

    name = "moment"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> "Moment":
        """Return the moment."""
        from harness.judging.equal_time import Moment

        match = re.fullmatch(r"([0-9.eE+-]+)\s*(s|paces)?", str(value).strip())
        try:
            amount = float(match[1]) if match else math.nan
        except ValueError:
            amount = math.nan
        if not match or not 0 < amount < math.inf:
            self.fail(
                f"{value!r} is no time. Legal: seconds as in 2.5 or 2.5s, or paces as in 500paces.",
                param,
                ctx,
            )
        return Moment(amount=amount, unit=match[2] or "s")


def print_groups(
    groups: Sequence[Sequence[dict[str, Any]]],
    form: Format,
    clock: ClockKind,
    moment: "Moment",
) -> None:
    """Print a table for each of the groups that are ranked together."""
    for group in groups:
        first = group[0]
        click.echo(
            f"{'### ' if form == 'md' else ''}{first['workload']} v{first['workload_version']} · "
            f"the metric at {moment}{' without compilation' if clock == 'warm' else ''} · "
            f"tuning effort: {first['tuning_effort']} · {first['machine_class']}"
            f"{chr(10) if form == 'md' else ''}"
        )
        rows = [_for_people(row, group) for row in group]
        shown = filled(_COLUMNS, rows)
        tables.print_rows(rows, ranked_rows.headed(shown, group), form)
        notes = [
            *_about_ended(group),
            *ranked_rows.about_ranks(group),
            *ranked_rows.about_few_runs(group),
        ]
        click.echo("\n".join(["", *notes, ""]) if notes else "")


def _for_people(row: dict[str, Any], group: Sequence[dict[str, Any]]) -> dict[str, str]:
    spread = row["runs"] > 1 and row["worst"] is not None
    return {
        **ranked_rows.rank(row, group),
        **ranked_rows.name(row, group),
        "metric": metric_value(row["metric"]),
        "range": f"{metric_value(row['worst'])}–{metric_value(row['best'])}" if spread else "",
        "runs": str(row["runs"]),
        "ended": f"{row['ended']}/{row['runs']}" if row["ended"] else "",
    }


_COLUMNS = [
    *ranked_rows.RANK_COLUMNS,
    *ranked_rows.NAME_COLUMNS,
    Column(field="metric", header="metric", number=True),
    Column(field="range", header="worst–best", number=True, drop=1),
    Column(field="runs", header="runs", number=True),
    Column(field="ended", header="ended by then", number=True),
]


def _about_ended(group: Sequence[dict[str, Any]]) -> list[str]:
    if not any(row["ended"] for row in group):
        return []
    return ["A run that had ended counts with its best: it stops soon after reaching the target."]
