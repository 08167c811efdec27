"""How long torch.compile has worked in this process."""

import sys


def compile_ns() -> int:
    """Return the nanoseconds spent in torch's compiler so far; 0 if it was never loaded.

    Read at evaluations only. A frame's compilation counts whole; compiling a backward graph
    later, when it first runs, counts on top.
    """
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return 0
    seconds: dict[str, list[float]] = dynamo.compilation_time_metrics
    total = sum(sum(seconds.get(name, ())) for name in _OUTERMOST_PHASES)
    return round(total * 1e9)


_OUTERMOST_PHASES = ("_compile.compile_inner", "backward._backward_impl")
