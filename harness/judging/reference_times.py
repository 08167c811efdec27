"""The reference recipe's stored times, to tell a user how a run compares."""

from pathlib import Path

from harness.cards import WorkloadCard
from harness.recipe import REFERENCE_EFFORT
from harness.records import index
from harness.spec import TIME_FIELDS, ClockKind


def reference_times(
    home: Path, card: WorkloadCard, machine_class: str, clock: ClockKind
) -> list[float]:
    """Return the seconds to target of the reference's untainted runs that reached it."""
    frame = index.query(
        home,
        f"SELECT {TIME_FIELDS[clock]} AS time_s FROM runs "  # noqa: S608 - quoted below
        f"WHERE outcome = 'reached' AND len(tainted) = 0 "
        f"AND tuning_effort = '{REFERENCE_EFFORT}' AND workload = {_quoted(card.name)} "
        f"AND workload_version = {card.version} AND machine_class = {_quoted(machine_class)}",
    )
    return [float(value) for value in frame["time_s"]]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
