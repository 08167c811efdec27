"""`bench pace`: the seconds of a reference step on this machine, which budgets count in."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from harness.cli import EXIT_OK
from harness.cli.parameters import WorkloadName, data_dir_option, results_option
from harness.cli.tables import format_option
from harness.home import results_home


@click.command()
@click.option("-w", "--workload", type=WorkloadName(), required=True, metavar="W,@SUITE,…",
    help="On which workloads.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--measure", is_flag=True, help="Measure again and replace the stored pace.")
@format_option("table", "json")
@data_dir_option
@results_option
def pace(workload: str, device: str, measure: bool, form: str, results: str | None) -> int:
    """Show or measure a workload's pace on this machine.

    The pace is the median time of a reference step, measured while nothing trains. It is
    stored on the first run; measure it again after the machine has changed, or when runs
    are tainted by drift. Runs before and after then have budgets of different length.
    """
    from harness import catalogue
    from harness.data_files import require
    from harness.suites import may_be_several, workloads_named

    home = results_home(results)
    names = workloads_named(workload)
    require(catalogue.workload(name).card for name in names)
    rows = [_row(name, device, measure, home) for name in names]
    if form == "json":
        click.echo(json.dumps(rows if may_be_several(workload) else rows[0], indent=2))
    else:
        click.echo("\n".join(map(_sentence, rows)))
        click.echo("`--measure` measures again.")
    return EXIT_OK


def _row(workload: str, device: str, measure: bool, home: Path) -> dict[str, Any]:
    from harness import catalogue
    from harness.cores import pinned
    from harness.lease import leased
    from harness.run import Request, ensure_pace, plan

    def say(text: str) -> None:
        click.echo(text, err=True)

    reference = catalogue.workload(workload).card.recipe.optimizer
    chosen = plan(Request(submission=reference, workload=workload, device=device, home=home))
    lease = leased(chosen.device.lease_name, share=False, waiting=say, interrupted=lambda: False)
    with lease, pinned(chosen.cores.referee):
        stored = ensure_pace(chosen, say, again=measure)
    pace_s = stored.pace_ns / 1e9
    when = datetime.fromtimestamp(stored.measured_unix_ns / 1e9, tz=UTC)
    return {
        "workload": stored.workload,
        "workload_version": stored.workload_version,
        "pace_s": pace_s,
        "quartiles_s": (stored.quartile_low_ns / 1e9, stored.quartile_high_ns / 1e9),
        "steps": stored.steps,
        "measured_at": when.isoformat(timespec="seconds"),
        "budget_paces": chosen.card.budget_paces,
        "budget_s": pace_s * chosen.card.budget_paces,
        "host": stored.host,
        "machine_class": stored.machine_class,
    }


def _sentence(row: Mapping[str, Any]) -> str:
    low, high = (quartile * 1e3 for quartile in row["quartiles_s"])
    when = datetime.fromisoformat(row["measured_at"])
    return (
        f"{row['workload']} v{row['workload_version']}: {row['pace_s'] * 1e3:.3f} ms a reference "
        f"step (quartiles {low:.3f}–{high:.3f} ms, n={row['steps']}),\n"
        f"measured {when:%Y-%m-%d %H:%M} UTC on {row['machine_class']}.\n"
        f"Budget: {row['budget_paces']:g} paces = {row['budget_s']:.1f} s."
    )
