"""One run inside the trainee: prepare off the clock, then train until the referee stops it."""

import contextlib
import importlib
import time
import traceback

import msgspec
import torch
from torch import Tensor

from harness import messages
from harness.counters import SIZE_BYTES, Counters
from harness.messages import TraineeEnd
from harness.prepared_data import load_split, starting_model
from harness.reference_step import ReferenceStep
from harness.session import Session
from harness.session.batch_norm import has_batch_norm
from harness.spec import RunSpec
from harness.trainee.evaluation_stop import EvaluationStop, TrainingEndedError, await_going_on
from harness.trainee.memory_limit import data_limit
from harness.trainee.parts import PartsBuilder
from harness.trainee.rank_processes import OtherRanks, RankProcess
from harness.trainee.reference_training import train
from harness.trainee.submission_loading import DisqualifiedError
from harness.workload import Workload, load_workload

UNTIMED_REFERENCE_STEPS = 3
MAX_TRACEBACK_CHARACTERS = 64_000
LOST_RANK_S = 2.0  # how long a rank that lost another waits for those who know why


def run(
    pipe: TraineeEnd,
    counters_descriptor: int,
    weights_descriptor: int,
    process: RankProcess | None = None,
) -> int:
    """Carry out the run that the referee describes; return the process's exit code.

    `process` is given where several train together; `pipe` then leads to the referee from rank 0
    alone, and to rank 0, which passes on what the referee says, from the others.
    """
    shared = Counters(counters_descriptor)
    others = process.others if process is not None else None
    if others is not None:
        others.listen()
    prepare = pipe.receive()
    assert isinstance(prepare, messages.Prepare)
    if others is not None:
        others.tell(prepare)
    spec = prepare.spec
    limit_bytes = None
    if spec.memory_limit_bytes is not None:
        limit_bytes = spec.memory_limit_bytes // spec.nproc
    limited = contextlib.nullcontext() if limit_bytes is None else data_limit(limit_bytes)
    try:
        with limited:
            _prepare_and_train(pipe, shared, weights_descriptor, spec, process)
    except TrainingEndedError:
        if others is not None:
            others.await_end()
        return 0
    except Exception as error:  # noqa: BLE001 - every failure becomes an outcome
        if process is not None and _is_told_by_others(error, others):
            return 1
        failure = _failure(error)
        if others is not None and failure.kind != "disqualified":
            failure = msgspec.structs.replace(failure, summary=f"rank 0: {failure.summary}")
        pipe.send(failure)
        return 1
    return 0


def _is_told_by_others(error: Exception, others: OtherRanks | None) -> bool:
    """Return whether the referee knows why a rank is gone, where that is all the error says."""
    from harness.trainee.data_parallel import is_lost_connection

    if not is_lost_connection(error):
        return False
    if others is not None:
        return others.failure_is_told(LOST_RANK_S)
    time.sleep(LOST_RANK_S)  # rank 0 may learn of the cause; the run is over then
    return False


def _prepare_and_train(
    pipe: TraineeEnd,
    shared: Counters,
    weights_descriptor: int,
    spec: RunSpec,
    process: RankProcess | None,
) -> None:
    device, workload, data = _prepare(spec, 0 if process is None else process.rank)
    ranks = None
    if process is not None:
        from harness.trainee.data_parallel import TorchRanks

        ranks = TorchRanks(process, device, shared)
    speaks = ranks is None or ranks.rank == 0
    others = process.others if process is not None else None
    torch.manual_seed(spec.streams.initialisation)
    model = starting_model(workload).to(device).train()
    torch.manual_seed(spec.streams.global_)
    begun = time.perf_counter_ns()
    builder = PartsBuilder(spec, workload, ranks)
    import_ns = time.perf_counter_ns() - begun
    evaluate = EvaluationStop(pipe, weights_descriptor, device, builder, ranks, others)
    session = Session(
        spec,
        workload,
        data,
        device,
        shared.words if speaks else _words_of_its_own(),
        evaluate,
        lambda other: builder.training(session, other),
        ranks,
    )
    evaluate.session = session
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    if others is not None:
        others.await_ready()
    pipe.send(messages.Ready(import_ns=import_ns))
    with session.paused():
        await_going_on(pipe, others)

    order = torch.Generator().manual_seed(spec.streams.order)
    evaluate.parts = parts = builder.build(session, model, order)
    if ranks is not None and speaks and has_batch_norm(parts.model):
        words = "of a rank's part of each batch; evaluated with rank 0's running statistics"
        pipe.send(messages.Note(key="batch_norm_statistics", value=words))
    if parts.procedure is not None:
        parts.procedure.train(session, parts.model)
    else:
        assert parts.training is not None
        train(session, parts.model, parts.training, parts.averaging)
    pipe.send(
        messages.Finished(reason="the training loop returned", compile_ns=evaluate.compiled_ns)
    )
    if not speaks:
        await_going_on(pipe, None)


def _words_of_its_own() -> memoryview:
    """Return words for the session of a rank that speaks for nobody."""
    return memoryview(bytearray(SIZE_BYTES)).cast("q")


def _prepare(spec: RunSpec, rank: int) -> tuple[torch.device, Workload, dict[str, Tensor]]:
    """Load the data and warm up torch, off the clock."""
    parallel = spec.data_parallel
    torch.set_num_threads(spec.threads if parallel is None else parallel.threads)
    device = torch.device(spec.device_of(rank))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if spec.memory_limit_bytes is not None:
            total = torch.cuda.get_device_properties(device).total_memory
            fraction = min(1.0, spec.memory_limit_bytes / spec.nproc / total)
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
