"""The referee's loop: starts the trainee, holds the clock, evaluates, gives the verdict."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from harness import messages
from harness.clock import Stopwatch
from harness.events import Ended, Evaluation, NoteTaken, Started
from harness.paces import median_ns
from harness.referee.conversation import Conversation, breach
from harness.referee.observer import Observer, Recorder, Status
from harness.referee.target import Crossings, find_crossings
from harness.referee.trainee_process import TraineeProcess
from harness.referee.verdict import RunOverError, Verdict
from harness.spec import RunSpec
from harness.telemetry.reading import TelemetrySummary
from harness.telemetry.sampler import Sampler

if TYPE_CHECKING:  # torch loads while the trainee loads it too, not before
    from harness.referee.evaluator import Evaluator
    from harness.reference_step import ReferenceStep

OVERDUE_INTERVALS = 4  # of the reference's; then an evaluation is forced
SILENT_INTERVALS = 20  # without a step or a message: timeout
KEPT_WAITING_TAINT = 0.05  # share of the time that the trainee's threads waited for a core


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long the referee waits where no card says so, in seconds."""

    poll_s: float = 0.1
    prepare_s: float = 600.0
    silence_floor_s: float = 60.0
    export_s: float = 60.0
    farewell_s: float = 5.0
    pace_after_s: float = 0.6


class Referee:
    """Times one run.

    Args:
        spec: the resolved run.
        trainee: the trainee process, just spawned.
        recorder: takes events and readings.
        observer: is told what happens.
        make_sampler: builds the telemetry of the trainee with this pid, writing to the sink.
        interrupted: whether the user asked to end (polled; never raises in the middle).
        stopped: asked after each evaluation that settles nothing; a reason ends the run as
            `stopped`, which says nothing of its time to target.
        device_taints: reasons known beforehand or found by the lease, asked at the end.
    """

    def __init__(
        self,
        *,
        spec: RunSpec,
        trainee: TraineeProcess,
        recorder: Recorder,
        observer: Observer,
        make_sampler: Callable[[int, Callable[..., None]], Sampler],
        interrupted: Callable[[], bool],
        device_taints: Callable[[], list[str]],
        stopped: Callable[[Evaluation], str | None] = lambda _: None,
        patience: Patience | None = None,
    ) -> None:
        self._spec = spec
        self._trainee = trainee
        self._recorder = recorder
        self._observer = observer
        self._interrupted = interrupted
        self._device_taints = device_taints
        self._stopped = stopped
        self._patience = patience or Patience()
        self._conversation = Conversation(
            trainee,
            poll_s=self._patience.poll_s,
            farewell_s=self._patience.farewell_s,
            between=self._between_messages,
            note=self._note,
        )
        self._sampler = make_sampler(trainee.pid, recorder.reading)
        self._clock = Stopwatch()
        self._evaluations: list[Evaluation] = []
        self._compile_ns = 0
        self._last_evaluated_ns = 0
        self._next_due = spec.workload.grid_model_passes
        self._forced = False
        self._awaits_word = False
        self._kept_waiting_from: int | None = None
        self._kept_waiting_ns: int | None = 0
        self._evaluator: Evaluator | None = None
        self._reference_step: ReferenceStep | None = None

    def run(self) -> Ended:
        """Carry the run through to its end, which is also the last event written.

        Raises:
            OSError: the recorder could not write. Nothing is measured any more, but the trainee
                is still there: its owner closes it.
        """
        self._observer.preparing(self._spec, self.status)
        try:
            verdict = self._train()
            self._observer.finishing(verdict.outcome, verdict.reason)
            totals = self.status()
            self._dismiss(verdict.reason)
        finally:
            telemetry = self._sampler.stop()
        ended = self._sum_up(verdict, totals, telemetry)
        self._recorder.event(ended)
        self._observer.ended(ended)
        return ended

    def status(self) -> Status:
        """Return the run at this moment; safe from any thread."""
        shared = self._trainee.counters
        return Status(
            elapsed_ns=self._clock.elapsed_ns,
            running=self._clock.running,
            steps=shared.steps,
            examples=shared.examples,
            model_passes=shared.model_passes,
            reading=self._sampler.latest(),
        )

    # -- the phases ------------------------------------------------------------------------

    def _train(self) -> Verdict:
        """Carry the run through until something settles it."""
        try:
            self._prepare()
            self._start()
            while True:
                self._handle(self._next_message())
        except RunOverError as over:
            return over.verdict
        finally:
            if self._clock.running:
                self._stop_clock()

    def _prepare(self) -> None:
        self._conversation.send(messages.Prepare(spec=self._spec))
        self._load_evaluator()
        message = self._conversation.expect(
            messages.Ready, self._patience.prepare_s, "while it prepared"
        )
        self._sampler.set_idle_baseline()
        self._sampler.start()
        self._recorder.event(Started(unix_ns=time.time_ns(), import_ns=message.import_ns))

    def _load_evaluator(self) -> None:
        import torch

        from harness.referee.evaluator import Evaluator
        from harness.reference_step import ReferenceStep
        from harness.workload import load_workload

        torch.set_num_threads(1)
        self._evaluator = Evaluator(self._spec, self._trainee.weights_descriptor)
        workload = load_workload(self._spec.workload_module, self._spec.workload)
        self._reference_step = ReferenceStep(workload, torch.device(self._spec.device))

    def _start(self) -> None:
        self._observer.started()
        self._start_clock()
        self._conversation.send(messages.Start())

    def _handle(self, message: messages.FromTrainee) -> None:
        if isinstance(message, messages.Evaluate):
            self._evaluate(message)
        elif isinstance(message, messages.Finished):
            elapsed_ns = self._stop_clock()
            self._note_compilation(message.compile_ns, elapsed_ns)
            raise self._out_of_budget(f"the submission ended its training: {message.reason}")
        else:
            raise breach(message, "Evaluate")

    def _evaluate(self, message: messages.Evaluate) -> None:
        elapsed_ns = self._stop_clock()  # first of all
        paused_at_ns = time.perf_counter_ns()
        shared = self._trainee.counters
        passes = shared.model_passes
        off_grid = passes < self._next_due
        if off_grid and not self._forced:
            raise RunOverError(
                "disqualified",
                f"an evaluation after {passes:,} model passes, before the one due at "
                f"{self._next_due:,}",
            )
        self._note_compilation(message.compile_ns, elapsed_ns)
        exported = self._conversation.expect(
            messages.Exported, self._patience.export_s, "while it exported its weights"
        )
        export_ns = time.perf_counter_ns() - paused_at_ns
        self._awaits_word = True

        # Ranks on GPUs block without it: watchdogs of their collectives count the seconds.
        if self._spec.nproc == 1 or self._spec.device == "cpu":
            self._trainee.stop()
        evaluation = self._measure(message, exported.size, elapsed_ns, off_grid, export_ns)
        self._evaluations.append(evaluation)
        self._recorder.event(evaluation)
        self._observer.evaluated(evaluation)
        self._decide(evaluation)

        grid = self._spec.workload.grid_model_passes
        self._next_due = (passes // grid + 1) * grid
        self._last_evaluated_ns = elapsed_ns
        self._forced = False
        self._trainee.resume()
        self._awaits_word = False
        self._start_clock()
        self._conversation.send(messages.Resume())

    def _note_compilation(self, compile_ns: int, elapsed_ns: int) -> None:
        if not self._compile_ns <= compile_ns <= elapsed_ns:
            raise RunOverError(
                "disqualified",
                f"{compile_ns / 1e9:g} s of compilation were reported after {elapsed_ns / 1e9:g} s "
                f"in all, {self._compile_ns / 1e9:g} s the time before",
            )
        self._compile_ns = compile_ns

    def _measure(
        self,
        message: messages.Evaluate,
        size: int,
        elapsed_ns: int,
        off_grid: bool,
        export_ns: int,
    ) -> Evaluation:
        from harness.referee.borrowed_cores import borrowed
        from harness.referee.evaluator import NotFiniteWeightsError, WrongWeightsError

        assert self._evaluator is not None
        metric = self._spec.workload.metric
        begun_ns = time.perf_counter_ns()
        value, test_value = math.nan, None
        metrics: dict[str, float] = {}
        try:
            self._evaluator.load(size)
            # The stopped trainee's cores are free: an evaluation takes as long as it must, and
            # they are as warm afterwards as they would be in training.
            with borrowed(self._spec.trainee_cores, self._spec.threads):
                value, metrics = self._evaluator.evaluate()
                if metric.meets(value):
                    test_value = self._evaluator.test()
        except WrongWeightsError as error:
            raise RunOverError("disqualified", str(error)) from None
        except NotFiniteWeightsError:
            pass  # the value stays NaN: recorded as missing, judged as diverged
        shared = self._trainee.counters
        return Evaluation(
            index=len(self._evaluations),
            elapsed_ns=elapsed_ns,
            compile_ns=self._compile_ns,
            steps=shared.steps,
            examples=shared.examples,
            model_passes=shared.model_passes,
            value=_finite(value),
            metrics={name: _finite(figure) for name, figure in metrics.items()},
            meets=metric.meets(value),
            off_grid=off_grid,
            test_value=test_value,
            export_ns=export_ns,
            evaluation_ns=time.perf_counter_ns() - begun_ns,
            gpu_peak_allocated_bytes=message.gpu_peak_allocated_bytes,
        )

    def _decide(self, evaluation: Evaluation) -> None:
        """End the run here if this evaluation settles it."""
        metric = self._spec.workload.metric
        if evaluation.value is None:
            raise RunOverError(
                "diverged", f"weights or {metric.name} not finite after {evaluation.steps:,} steps"
            )
        if self._trainee.counters.not_finite:
            raise RunOverError(
                "diverged",
                f"a training loss was not finite in the {evaluation.steps:,} steps so far",
            )
        crossings = self._crossings()
        if crossings.credited is not None:
            raise RunOverError(
                "reached",
                f"{metric.name} met {metric.target:g} and the next evaluation confirmed it",
            )
        if evaluation.elapsed_ns > self._spec.budget_ns and not crossings.pending:
            raise self._out_of_budget("the budget is used up")
        if reason := self._stopped(evaluation):
            raise RunOverError("stopped", reason)

    # -- waiting ---------------------------------------------------------------------------

    def _next_message(self) -> messages.FromTrainee:
        """Wait for the trainee while it trains; watch budget, grid and silence meanwhile."""
        interval_ns = self._spec.reference_interval_ns
        silence_ns = max(self._patience.silence_floor_s * 1e9, SILENT_INTERVALS * interval_ns)
        pending = self._crossings().pending
        steps = self._trainee.counters.steps
        heard_at_ns = self._clock.elapsed_ns

        def watch() -> None:
            nonlocal steps, heard_at_ns
            now_ns = self._clock.elapsed_ns
            if self._trainee.counters.steps != steps:
                steps = self._trainee.counters.steps
                heard_at_ns = now_ns
            if now_ns > self._spec.budget_ns and not pending:
                raise self._out_of_budget("the budget is used up")
            overdue_ns = now_ns - self._last_evaluated_ns - OVERDUE_INTERVALS * interval_ns
            if not self._forced and overdue_ns > 0:
                self._forced = True
                self._trainee.counters.ask_for_evaluation()
            if now_ns - heard_at_ns > silence_ns:
                behind = self._trainee.counters.rank_behind()
                raise RunOverError(
                    "timeout",
                    f"no step and no message for {(now_ns - heard_at_ns) / 1e9:.0f} s "
                    f"after step {steps:,}"
                    + ("" if behind is None else f": rank {behind} is behind the others"),
                )

        return self._conversation.next(watch)

    def _between_messages(self) -> None:
        self._recorder.beat()
        if self._interrupted():
            raise RunOverError("interrupted", "interrupted by the user")

    def _note(self, message: messages.Note) -> None:
        self._recorder.event(
            NoteTaken(elapsed_ns=self._clock.elapsed_ns, key=message.key, value=message.value)
        )

    def _crossings(self) -> Crossings:
        return find_crossings(self._evaluations, self._spec.workload.metric, self._spec.budget_ns)

    def _out_of_budget(self, reason: str) -> RunOverError:
        first = self._crossings().first
        if first is not None:
            in_time = self._evaluations[first].elapsed_ns <= self._spec.budget_ns
            how = "not twice running" if in_time else "only beyond the budget"
            reason = f"unconfirmed: the target was met, but {how}; {reason}"
        return RunOverError("budget", reason)

    # -- the clock and the end -------------------------------------------------------------

    def _start_clock(self) -> None:
        self._kept_waiting_from = self._trainee.kept_waiting_ns()
        self._sampler.enter_clock(time.perf_counter_ns())
        self._clock.resume()

    def _stop_clock(self) -> int:
        elapsed_ns = self._clock.pause()
        self._sampler.leave_clock(time.perf_counter_ns())
        until = self._trainee.kept_waiting_ns()
        if self._kept_waiting_from is None or until is None:
            self._kept_waiting_ns = None
        elif self._kept_waiting_ns is not None:
            self._kept_waiting_ns += max(0, until - self._kept_waiting_from)
        return elapsed_ns

    def _dismiss(self, reason: str) -> None:
        """Let a trainee that awaits our word end by itself; leave nothing of its tree."""
        if self._awaits_word:
            self._trainee.resume()
            with contextlib.suppress(OSError):
                self._trainee.pipe.send(messages.Stop(reason=reason))
            self._trainee.wait(self._patience.farewell_s)
        self._trainee.kill()

    def _sum_up(self, verdict: Verdict, totals: Status, telemetry: TelemetrySummary) -> Ended:
        interrupted = verdict.outcome == "interrupted"  # the user wants the prompt back
        pace_after_ns = None if interrupted else self._measure_pace()
        crossings = self._crossings()
        figures = asdict(telemetry)
        taints = [*self._device_taints(), *figures.pop("taints")]
        return Ended(
            outcome=verdict.outcome,
            reason=verdict.reason,
            traceback=verdict.traceback,
            elapsed_ns=self._clock.elapsed_ns,
            compile_ns=self._compile_ns,
            steps=totals.steps,
            examples=totals.examples,
            model_passes=totals.model_passes,
            # A run whose confirming evaluation found a loss that was not finite has diverged.
            credited=crossings.credited if verdict.outcome == "reached" else None,
            first_crossing=crossings.first,
            interpolated_crossing_ns=crossings.interpolated_ns,
            taints=taints + self._speed_taints(pace_after_ns),
            pace_after_ns=pace_after_ns,
            telemetry=figures,
        )

    def _measure_pace(self) -> int | None:
        if self._reference_step is None:
            return None
        from harness.referee.pace_measurement import sample_pace

        spec = self._spec
        return median_ns(
            sample_pace(
                self._reference_step, spec.trainee_cores, spec.threads, self._patience.pace_after_s
            )
        )

    def _speed_taints(self, pace_after_ns: int | None) -> list[str]:
        taints: list[str] = []
        card = self._spec.workload
        if pace_after_ns is not None:
            drift = pace_after_ns / self._spec.pace_ns - 1
            if abs(drift) > card.drift_bound:
                taints.append(
                    f"the machine's pace drifted by {drift:+.0%} (bound {card.drift_bound:.0%})"
                )
        elapsed_ns = self._clock.elapsed_ns
        parallel = self._spec.data_parallel
        crowded = parallel is not None and parallel.shared_cores  # they keep each other waiting
        if self._kept_waiting_ns is not None and elapsed_ns and not crowded:
            share = self._kept_waiting_ns / (elapsed_ns * self._spec.training_threads)
            if share > KEPT_WAITING_TAINT:
                taints.append(f"other work held the trainee's cores for {share:.0%} of the time")
        return taints


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
