"""The options of commands that hand out many runs: where they run, and how many at a time."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from harness.cli.parameters import names_in
from harness.errors import UsageError

if TYPE_CHECKING:
    from harness.sweeps.execution import Executor

_OPTIONS = (
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option(
        "--jobs",
        type=click.IntRange(1, 1024),
        metavar="N",
        help="Runs at a time, on each node of a cluster. [default: one a GPU, or one on the CPU]",
    ),
    click.option(
        "--executor",
        type=click.Choice(["local", "ray"]),
        default="local",
        show_default=True,
        help="This machine, or a Ray cluster whose nodes share --results.",
    ),
    click.option(
        "--ray-address",
        metavar="HOST:PORT",
        help="The cluster's head. [default: $RAY_ADDRESS, else the cluster that runs here]",
    ),
    click.option("--ray-nodes", metavar="A,B,…", help="Use these nodes alone: hosts or addresses."),
)


def executor_options(command: Callable[..., int]) -> Callable[..., int]:
    """Add the options; the command gets `executor`, which opens the one that they choose.

    It takes the number of processes that each run trains in.
    """

    @functools.wraps(command)
    def called(
        *,
        executor: str,
        device: str,
        jobs: int | None,
        ray_address: str | None,
        ray_nodes: str | None,
        **others: object,
    ) -> int:
        def chosen(nproc: int) -> "Executor":
            return open_executor(
                executor, device, jobs, nproc, ray_address=ray_address, ray_nodes=ray_nodes
            )

        return command(executor=chosen, **others)

    for option in reversed(_OPTIONS):
        called = option(called)
    return called


def open_executor(
    name: str,
    device: str,
    jobs: int | None,
    nproc: int,
    *,
    ray_address: str | None,
    ray_nodes: str | None,
) -> "Executor":
    """Return the executor; the caller closes it.

    Raises:
        UsageError: no such device or cluster, too few of them, or an option that does not belong.
    """
    if name == "local":
        from harness.sweeps.local import LocalExecutor, local_slots

        for option, value in (("--ray-address", ray_address), ("--ray-nodes", ray_nodes)):
            if value is not None:
                raise UsageError(f"{option} belongs to --executor ray. Add that, or leave it out.")
        return LocalExecutor(local_slots(device, jobs, nproc))
    if nproc > 1:
        raise UsageError(
            f"--nproc {nproc} needs --executor local: a slot of a Ray node is one GPU, or one set "
            "of cores for one process."
        )
    from harness.sweeps.ray_executor import RayExecutor

    return RayExecutor(
        address=ray_address,
        nodes=names_in(ray_nodes),
        device=device,
        jobs=jobs,
        say=lambda text: click.echo(text, err=True),
    )
