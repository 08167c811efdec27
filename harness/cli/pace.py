"""`bench pace`: the seconds of a reference step on this machine, which budgets count in."""

import json
from datetime import UTC, datetime

import click

from harness.cli import EXIT_OK
from harness.cli.parameters import WorkloadName, results_option
from harness.home import results_home


@click.command()
@click.option(
    "-w", "--workload", type=WorkloadName(), required=True, help="See `bench list workloads`."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--measure", is_flag=True, help="Measure again and replace the stored pace.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print it.",
)
@results_option
def pace(workload: str, device: str, measure: bool, form: str, results: str | None) -> int:
    """Show or measure a workload's pace on this machine.

    The pace is the median time of a reference step, measured while nothing trains. It is
    stored on the first run; measure it again after the machine has changed, or when runs
    are tainted by drift. Runs before and after then have budgets of different length.
    """
    from harness import catalogue
    from harness.cores import pin
    from harness.lease import leased
    from harness.run import Request, ensure_pace, plan

    def say(text: str) -> None:
        click.echo(text, err=True)

    reference = catalogue.workload(workload).card.recipe.optimizer
    home = results_home(results)
    chosen = plan(Request(submission=reference, workload=workload, device=device, home=home))
    with leased(chosen.device.lease_name, share=False, waiting=say, interrupted=lambda: False):
        pin(chosen.cores.referee)
        stored = ensure_pace(chosen, say, again=measure)
    pace_s = stored.pace_ns / 1e9
    quartiles_s = (stored.quartile_low_ns / 1e9, stored.quartile_high_ns / 1e9)
    budget_s = pace_s * chosen.card.budget_paces
    when = datetime.fromtimestamp(stored.measured_unix_ns / 1e9, tz=UTC)
    row = {
        "workload": stored.workload,
        "workload_version": stored.workload_version,
        "pace_s": pace_s,
        "quartiles_s": quartiles_s,
        "steps": stored.steps,
        "measured_at": when.isoformat(timespec="seconds"),
        "budget_s": budget_s,
        "host": stored.host,
        "machine_class": stored.machine_class,
    }
    if form == "json":
        click.echo(json.dumps(row, indent=2))
        return EXIT_OK
    low, high = (quartile * 1e3 for quartile in quartiles_s)
    click.echo(
        f"{stored.workload} v{stored.workload_version}: {pace_s * 1e3:.3f} ms a reference step "
        f"(quartiles {low:.3f}–{high:.3f} ms, n={stored.steps}),\n"
        f"measured {when:%Y-%m-%d %H:%M} UTC on {stored.machine_class}.\n"
        f"Budget: {chosen.card.budget_paces:g} paces = {budget_s:.1f} s. "
        "`--measure` measures it again."
    )
    return EXIT_OK
