"""One run inside the trainee: prepare off the clock, then train until the referee stops it."""

import contextlib
import importlib
import sys
import time
import traceback
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from harness import messages
from harness.counters import Counters
from harness.messages import TraineeEnd
from harness.prepared_data import load_split, starting_model
from harness.reference_step import ReferenceStep
from harness.session import Averaging, Session
from harness.spec import RunSpec
from harness.trainee.compilation import compile_ns
from harness.trainee.export import export_weights
from harness.trainee.parts import Parts, PartsBuilder
from harness.trainee.reference_training import train
from harness.trainee.submission_loading import DisqualifiedError
from harness.workload import Workload, canonical_weights, load_workload

UNTIMED_REFERENCE_STEPS = 3
MAX_TRACEBACK_CHARACTERS = 64_000


class _TrainingEndedError(BaseException):
    """The referee stopped the run; no `except Exception` of a submission may swallow it."""


def run(pipe: TraineeEnd, counters_descriptor: int, weights_descriptor: int) -> int:
    """Carry out the run that the referee describes; return the process's exit code."""
    shared = Counters(counters_descriptor)
    prepare = pipe.receive()
    assert isinstance(prepare, messages.Prepare)
    limit_bytes = prepare.spec.memory_limit_bytes
    limited = contextlib.nullcontext() if limit_bytes is None else _data_limit(limit_bytes)
    try:
        with limited:
            _prepare_and_train(pipe, shared, weights_descriptor, prepare.spec)
    except _TrainingEndedError:
        return 0
    except Exception as error:  # noqa: BLE001 - every failure becomes an outcome
        pipe.send(_failure(error))
        return 1
    return 0


def _prepare_and_train(
    pipe: TraineeEnd, shared: Counters, weights_descriptor: int, spec: RunSpec
) -> None:
    device, workload, data = _prepare(spec)
    torch.manual_seed(spec.streams.initialisation)
    model = starting_model(workload).to(device).train()
    torch.manual_seed(spec.streams.global_)
    begun = time.perf_counter_ns()
    builder = PartsBuilder(spec, workload)
    import_ns = time.perf_counter_ns() - begun
    compiled_before = compile_ns()
    parts: Parts | None = None

    def evaluate(evaluated: nn.Module) -> None:
        assert parts is not None
        optimizer = builder.optimizer_of(evaluated)
        with _as_evaluated(parts.averaging, optimizer), contextlib.ExitStack() as off_clock:
            weights = canonical_weights(evaluated)
            if parts.parameterization is not None:
                weights = parts.parameterization.canonical_weights(evaluated)
            peak = None
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                peak = torch.cuda.max_memory_allocated(device)
            compiled_ns = compile_ns() - compiled_before
            pipe.send(messages.Evaluate(compile_ns=compiled_ns, gpu_peak_allocated_bytes=peak))
            off_clock.enter_context(session.paused())
            with _data_limit(None):  # the copy is the harness's, not the submission's
                size = export_weights(weights, weights_descriptor)
            pipe.send(messages.Exported(size=size))
            _await_going_on(pipe)
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)

    session = Session(
        spec,
        workload,
        data,
        device,
        shared.words,
        evaluate,
        lambda other: builder.training(session, other),
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    pipe.send(messages.Ready(import_ns=import_ns))
    with session.paused():
        _await_going_on(pipe)

    order = torch.Generator().manual_seed(spec.streams.order)
    parts = builder.build(session, model, order)
    if parts.procedure is not None:
        parts.procedure.train(session, parts.model)
    else:
        assert parts.training is not None
        train(session, parts.model, parts.training, parts.averaging)
    compiled_ns = compile_ns() - compiled_before
    pipe.send(messages.Finished(reason="the training loop returned", compile_ns=compiled_ns))


def _prepare(spec: RunSpec) -> tuple[torch.device, Workload, dict[str, Tensor]]:
    """Load the data and warm up torch, off the clock."""
    torch.set_num_threads(spec.threads)
    device = torch.device(spec.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if spec.memory_limit_bytes is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            fraction = min(1.0, spec.memory_limit_bytes / total)
            torch.cuda.set_per_process_memory_fraction(fraction, device)
    workload = load_workload(spec.workload_module, spec.workload)
    data = load_split(spec.workload, "training", device)

    # Lazy initialisation (thread pools, kernels' first calls) is nobody's merit or fault.
    scratch = ReferenceStep(workload, device)
    for _ in range(UNTIMED_REFERENCE_STEPS):
        scratch.run()
    del scratch
    # torch's optimizers load its compiler when the first is built: over a second, whether or
    # not anything is compiled.
    importlib.import_module("torch._dynamo")
    return device, workload, data


@contextlib.contextmanager
def _as_evaluated(
    averaging: Averaging | None, optimizer: torch.optim.Optimizer | None
) -> Iterator[None]:
    """Have the weights to evaluate in place; on the clock, both ways.

    An optimizer that keeps two sets of weights switches by `.eval()` and `.train()`, as the
    ecosystem's do; an averaging part sees to that itself.
    """
    if averaging is not None:
        with averaging.evaluated():
            yield
        return
    switch = {name: getattr(optimizer, name, None) for name in ("eval", "train")}
    if callable(switch["eval"]):
        switch["eval"]()
    yield
    if callable(switch["train"]):
        switch["train"]()


def _await_going_on(pipe: TraineeEnd) -> None:
    """Block until the referee starts or resumes the run; raise if it stops it."""
    if isinstance(pipe.receive(), messages.Stop):
        raise _TrainingEndedError


@contextlib.contextmanager
def _data_limit(limit_bytes: int | None) -> Iterator[None]:
    """Hold the process's data segment (all private writable memory) below the limit, None: free.

    An allocation over it fails in this process alone and can be reported; the machine never
    comes under pressure. The former limit is back at the end, since reporting the failure needs
    memory too.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = hard if limit_bytes is None else limit_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _failure(error: Exception) -> messages.Failed:
    text = "".join(traceback.format_exception(error))[-MAX_TRACEBACK_CHARACTERS:]
    summary = f"{type(error).__name__}: {error}".splitlines()[0][:500]
    if isinstance(error, DisqualifiedError):
        return messages.Failed(kind="disqualified", summary=str(error), traceback=text)
    return messages.Failed(
        kind="out_of_memory" if _is_out_of_memory(error) else "exception",
        summary=summary,
        traceback=text,
    )


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch's CPU allocator, oneDNN and libstdc++ raise plain RuntimeErrors.
    words = ("can't allocate memory", "not enough memory", "bad_alloc", "Cannot allocate memory")
    return isinstance(error, RuntimeError | OSError) and any(w in str(error) for w in words)
