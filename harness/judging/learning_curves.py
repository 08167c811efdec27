"""Learning curves: the metric against time, steps, examples and model passes.

Evaluations fall due at fixed numbers of model passes, so the k-th evaluation of one run and of
another stand at the same work: the median curve of a row takes the median of every quantity at
each k. It ends where fewer than half of the row's runs go on, because those that reached the
target have stopped and the slow ones alone would bend it.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.spec import ClockKind

if TYPE_CHECKING:
    import polars

ABSCISSAE = ("elapsed_s", "steps", "examples", "model_passes")


def median_curves(
    home: Path, rows: Sequence[Sequence[str]], clock: ClockKind = "cold"
) -> "polars.DataFrame":
    """Return the median curve of each row, given as the ids of its runs.

    Columns: `row` (its position in `rows`), `index`, `runs` (that have this evaluation), the
    abscissae and `value`, all medians; times are seconds, less compilation on the warm clock.
    """
    ids = [run_id for row in rows for run_id in row]
    numbers = [number for number, row in enumerate(rows) for _ in row]
    sql = f"""
        WITH chosen AS (SELECT unnest($1::VARCHAR[]) AS run_id, unnest($2::INTEGER[]) AS row),
        medians AS (
            SELECT row, index, count(*) AS runs, median({_time(clock)}) AS elapsed_s,
                   median(steps) AS steps, median(examples) AS examples,
                   median(model_passes) AS model_passes, median(value) AS value
            FROM evaluations JOIN chosen USING (run_id) GROUP BY row, index
        )
        SELECT * FROM medians
        QUALIFY 2 * runs >= max(runs) OVER (PARTITION BY row) ORDER BY row, index
    """  # noqa: S608 - our own names
    return _frame(home, sql, [ids, numbers])


def traces(
    home: Path, run_ids: Sequence[str], clock: ClockKind = "cold", most_points: int | None = None
) -> "polars.DataFrame":
    """Return the evaluations of some runs: `run_id`, `index`, the abscissae and `value`.

    With `most_points`, about as many of a run at most, evenly spread, its last two always:
    the one that is credited and the one that confirms it.
    """
    thinned = ""
    if most_points is not None:
        thinned = f"""
            QUALIFY index % greatest(1, ceil(last / {max(1, most_points - 2)})) = 0
            OR index >= last - 1
        """
    sql = f"""
        SELECT run_id, index, {_time(clock)} AS elapsed_s, steps, examples, model_passes, value,
               max(index) OVER (PARTITION BY run_id) AS last
        FROM evaluations
        WHERE run_id IN (SELECT unnest($1::VARCHAR[])) {thinned}
        ORDER BY run_id, index
    """  # noqa: S608 - our own names
    return _frame(home, sql, [list(run_ids)]).drop("last")


def _time(clock: ClockKind) -> str:
    return "elapsed_s - compile_s" if clock == "warm" else "elapsed_s"


def _frame(home: Path, sql: str, parameters: list[object]) -> "polars.DataFrame":
    import polars

    from harness.records.index import open_for_reading

    with contextlib.closing(open_for_reading(home)) as connection:
        connection.execute(sql, parameters)
        names = [column[0] for column in connection.description or ()]
        rows = connection.fetchall()
    kinds: dict[str, Any] = dict.fromkeys((*ABSCISSAE, "value"), polars.Float64)
    kinds |= {
        "row": polars.Int64,
        "index": polars.Int64,
        "runs": polars.Int64,
        "last": polars.Int64,
    }
    schema = {name: kinds.get(name, polars.String) for name in names}
    return polars.DataFrame(rows, schema=schema, orient="row")
