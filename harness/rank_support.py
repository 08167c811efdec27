"""Which recipes train in several processes, each with its part of a batch (`--nproc`).

What changes the loss, the data or the schedule does, and every optimizer that is given gradients
or a loss: those are the whole batch's on each rank. What computes something of its own from a
batch sees a rank's part alone, and would train other weights on each.
"""

from harness.errors import UsageError
from harness.spec import Part, Recipe


def refuse_undivided(recipe: Recipe, nproc: int) -> None:
    """Raise UsageError for a recipe that would not train as one process does."""
    for part in recipe.parts:
        if why := _why_not(part):
            raise UsageError(
                f"{part.name!r} does not train in several processes: {why}. Leave --nproc out."
            )
    if recipe.batch_size < nproc:
        raise UsageError(
            f"--nproc {nproc} divides a batch, and recipe.batch_size is {recipe.batch_size}. "
            f"Use --nproc {recipe.batch_size} or fewer, or a larger batch: "
            "--set recipe.batch_size=N."
        )


def _why_not(part: Part) -> str | None:
    if part.place == "procedure":
        return "it owns the loop, and takes the batch that it is given for the whole"
    if part.place == "optimizer" and part.closure == "graph":
        return "it differentiates gradients again, and averaged ones have no graph"
    if part.place == "optimizer" and part.needs:
        return (
            f"beside the gradients its optimizer needs the {' and the '.join(part.needs)}, and "
            "what it computes there is of one process's part of a batch"
        )
    if part.place == "schedule" and "model" in part.needs:
        return (
            "its schedule looks at the model, and what it computes there is of one process's part "
            "of a batch"
        )
    return None
