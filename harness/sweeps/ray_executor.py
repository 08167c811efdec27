"""The Ray executor: a slot is a GPU or a set of cores of a cluster's node, each held by an actor.

Ray only finds the slots, keeps others out and tells what died: its own retries are off, since a
run that is made again must be counted, and at most those under way are.
"""

import dataclasses
import io
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.sweeps.execution import Lost, Watcher
from harness.sweeps.jobs import Job, Slot
from harness.sweeps.ray_cluster import Node, connect, device_kind, find_nodes, load_ray
from harness.sweeps.ray_node import NodeSlot, Planned, Share, is_end, variables_to_tell
from harness.sweeps.worker import Refused, Report, Task

ATTEMPTS = 3  # that a job has before it is given up: a run may be what kills its machine
POLL_S = 0.2
START_S = 60.0  # for a slot to be free, and its process to start

# Ray lowers its workers' priority, which their children could not raise again.
_RUNTIME_ENVIRONMENT = {"env_vars": {"RAY_worker_niceness": "0"}}


class RayExecutor:
    """Runs jobs on the slots of a Ray cluster, whose nodes share the results' folder.

    The connection belongs to the process, so there is one executor at a time.
    """

    def __init__(
        self,
        *,
        address: str | None = None,
        nodes: Sequence[str] = (),
        device: str = "auto",
        jobs: int | None = None,
        command: Sequence[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect to a cluster and ask for its slots.

        Args:
            address: as `--ray-address`.
            nodes: names of the only nodes to use; none: all.
            device: `auto`, `cpu` or `cuda`.
            jobs: runs at a time on each node.
            command: another worker than ours.
            say: takes words for the user.

        Raises:
            UsageError: no such cluster or node, or none that is large enough.
        """
        connect(address)
        self._say = say
        self._slots: list[_RaySlot] = []
        try:
            found = find_nodes(nodes)
            kind = device_kind(device, found)
            self._slots = [
                _RaySlot(node, share, command)
                for node in found
                for share in node.shares(kind, jobs)
            ]
            if not self._slots:
                raise _too_small(found, kind, jobs)
        except BaseException:
            self.close()
            raise

    @property
    def places(self) -> list[str]:
        """See `Executor`."""
        return [slot.name for slot in self._slots]

    def planned(self, make: Callable[[Slot], list[Job]]) -> list[Job]:
        """See `Executor`; each slot plans, since this machine may be of another class.

        Slots that others hold for longer than START_S are left out.
        """
        ray = load_ray()
        calls = [slot.actor.planned.remote(make) for slot in self._slots]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=START_S)
        answers: list[tuple[str, Planned]] = []
        free: list[_RaySlot] = []
        busy: list[_RaySlot] = []
        for slot, call in zip(self._slots, calls, strict=True):
            if call in ready:
                answers.append((slot.node.name, _answer(slot, call)))
                free.append(slot)
            else:
                slot.stop()
                busy.append(slot)
        if busy:
            told = (
                f"not free within {START_S:.0f} s: {_listed(slot.name for slot in busy)}, whose "
                "CPUs or GPUs other work of Ray's holds (`ray status`)."
            )
            if not free:
                raise UsageError(f"Every slot of the Ray cluster is {told} Try again later.")
            self._say(f"Left out, {told}")
        self._slots = free
        return _agreed(answers)

    def run(self, jobs: Sequence[Job], watcher: Watcher, interrupted: Callable[[], bool]) -> None:
        """See `Executor`.

        Raises:
            UsageError: a node does not share the results' folder.
        """
        if jobs:
            self._require_shared(jobs[0].request.home)
        # Ray prints at length, among the results, what it notices of deaths; we tell them.
        with redirect_stdout(io.StringIO()):
            try:
                _HandingOut(self._slots, jobs, watcher, interrupted).carry_out()
            finally:
                self.close()

    def close(self) -> None:
        """See `Executor`."""
        ray = load_ray()
        if ray.is_initialized():
            for slot in self._slots:
                slot.stop()
            ray.shutdown()

    def _require_shared(self, home: Path) -> None:
        ray = load_ray()
        home.mkdir(parents=True, exist_ok=True)
        token = home / f".shared-{secrets.token_hex(4)}"
        content = secrets.token_hex(16)
        token.write_text(content, encoding="utf-8")
        try:
            calls = [slot.actor.sees.remote(home, token.name, content) for slot in self._slots]
            found = ray.get(calls, timeout=START_S)
        except ray.exceptions.RayError as error:
            raise UsageError(
                f"A node of the Ray cluster was lost before it took a run ({_first_line(error)}). "
                "The same command tries again."
            ) from None
        finally:
            token.unlink(missing_ok=True)
        problems = {
            slot.node.name: problem
            for slot, problem in zip(self._slots, found, strict=True)
            if problem is not None
        }
        if problems:
            told = "; ".join(f"{name} ({problem})" for name, problem in problems.items())
            raise UsageError(
                f"The results folder {home} is not shared with every node, or not theirs to write: "
                f"{told}. Name a shared one by --results, or nodes that see it by --ray-nodes."
            )


class _RaySlot:
    """An actor that holds one slot, and another where it died."""

    def __init__(self, node: Node, share: Share, command: Sequence[str] | None) -> None:
        self.node = node
        self.name = node.name if share.count == 1 else f"{node.name}/{share.number}"
        self._share = share
        self._command = command
        self.start()

    def start(self) -> None:
        """Ask for an actor; its first answer comes once Ray holds the slot's resources."""
        ray = load_ray()
        where = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            self.node.id, soft=False
        )
        actor = ray.remote(NodeSlot).options(
            **self.node.needs(self._share),
            scheduling_strategy=where,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=4,  # what interrupts must not wait for what hears
            runtime_env=_RUNTIME_ENVIRONMENT,
        )
        variables = variables_to_tell(os.environ)
        self.actor: Any = actor.remote(self._share, self._command, str(Path.cwd()), variables)

    def stop(self) -> None:
        """End the actor, and with it its worker."""
        load_ray().kill(self.actor)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Call:
    """An answer that is waited for: that a slot is ready, or what its run reports."""

    number: int
    deadline_s: float | None = None  # of a start, on the monotonic clock


class _HandingOut:
    """One pass over the jobs. Everything is heard in the caller's thread."""

    def __init__(
        self,
        slots: Sequence[_RaySlot],
        jobs: Sequence[Job],
        watcher: Watcher,
        interrupted: Callable[[], bool],
    ) -> None:
        self._ray = load_ray()
        self._slots = slots
        self._watcher = watcher
        self._interrupted = interrupted
        self._stopping = False
        self._todo = deque(jobs)
        self._attempts: Counter[str] = Counter()
        self._idle = deque(range(len(slots)))
        self._running: dict[int, Job] = {}
        self._calls: dict[Any, _Call] = {}

    def carry_out(self) -> None:
        """Return when every job has ended."""
        while self._todo or self._running:
            if self._interrupted() and not self._stopping:
                self._stop()
            self._hand_out()
            if not self._calls:
                break
            self._hear()
        for job in self._todo:
            self._watcher.reported(-1, job, Refused(reason="no node was left to run it"))

    def _stop(self) -> None:
        self._stopping = True
        self._todo.clear()
        for number in self._running:
            self._slots[number].actor.interrupt.remote()

    def _hand_out(self) -> None:
        while self._todo and self._idle:
            number, job = self._idle.popleft(), self._todo.popleft()
            self._running[number] = job
            self._attempts[job.identity] += 1
            self._slots[number].actor.carry_out.remote(Task.of(job.request, job.seed))
            self._listen(number)

    def _listen(self, number: int) -> None:
        self._calls[self._slots[number].actor.hear.remote()] = _Call(number=number)

    def _hear(self) -> None:
        ready, _ = self._ray.wait(list(self._calls), timeout=POLL_S)
        for answer in ready:
            number = self._calls.pop(answer).number
            try:
                reports = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                self._lost(number)
            else:
                self._take(number, reports if number in self._running else ())
        now = time.monotonic()
        for answer, call in list(self._calls.items()):
            if call.deadline_s is not None and now > call.deadline_s:
                del self._calls[answer]
                self._slots[call.number].stop()

    def _take(self, number: int, reports: Sequence[Report | Lost]) -> None:
        """Pass reports on; a slot that has just started has none."""
        for report in reports:
            if isinstance(report, Lost):
                self._end_of_worker(number, report.reason)
            else:
                job = self._running[number]
                if is_end(report):
                    del self._running[number]
                self._watcher.reported(number, job, report)
        if number in self._running:
            self._listen(number)
        else:
            self._idle.append(number)

    def _lost(self, number: int) -> None:
        """The actor is gone; where it ran, and did not just fail to start, try another."""
        slot = self._slots[number]
        slot.stop()
        if number not in self._running:
            return
        # Which of the two, Ray itself may learn only later.
        self._end_of_worker(number, f"the process of Ray on {slot.name}, or the node, died")
        if not self._stopping:
            slot.start()
            deadline_s = time.monotonic() + START_S
            self._calls[slot.actor.ready.remote()] = _Call(number=number, deadline_s=deadline_s)

    def _end_of_worker(self, number: int, reason: str) -> None:
        job = self._running.pop(number)
        report: Report | Lost
        if self._stopping:
            report = Refused(reason=reason, interrupted=True)
        elif self._attempts[job.identity] >= ATTEMPTS:
            report = Refused(reason=f"{reason}, and it was tried {ATTEMPTS} times")
        else:
            self._todo.appendleft(job)
            report = Lost(reason=reason)
        self._watcher.reported(number, job, report)


def _answer(slot: _RaySlot, call: Any) -> Planned:
    ray = load_ray()
    try:
        planned: Planned = ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UsageError):
            raise UsageError(f"On the node {slot.node.name}: {error.cause}") from None
        raise
    except ray.exceptions.RayError as error:
        last = str(error).strip().splitlines()[-1].strip()
        raise UsageError(
            f"The node {slot.node.name} cannot take runs: {last}. It needs timetrial and Ray as "
            "they are installed here."
        ) from None
    return planned


def _agreed(answers: Sequence[tuple[str, Planned]]) -> list[Job]:
    """Return the jobs that all nodes find. Raises UsageError where one finds others."""
    jobs = answers[0][1].jobs
    identities = [job.identity for job in jobs]
    if all([job.identity for job in planned.jobs] == identities for _, planned in answers):
        return jobs
    kinds: dict[str, list[str]] = {}
    for name, planned in answers:
        classes = sorted({job.machine_class for job in planned.jobs})
        words = " · ".join([*classes, *planned.environment])
        kinds.setdefault(words, []).append(name)
    if len(kinds) == 1:
        raise UsageError(
            "The nodes have different sources of a submission or workload. Install the same "
            f"everywhere, or choose nodes by --ray-nodes: {_listed(name for name, _ in answers)}."
        )
    lines = "".join(f"\n  {_listed(names)}: {words}" for words, names in kinds.items())
    most = max(kinds.values(), key=len)
    raise UsageError(
        f"The nodes differ, and times on them do not compare:{lines}\nChoose nodes of one kind, "
        f"such as --ray-nodes {','.join(dict.fromkeys(most))}."
    )


def _too_small(nodes: Sequence[Node], kind: str, jobs: int | None) -> UsageError:
    wanted = "a GPU" if kind == "cuda" else f"{2 * (jobs or 1)} CPUs, 2 for each run at a time"
    offers = "; ".join(f"{node.name}: {node.cpus} CPUs, {node.gpus} GPUs" for node in nodes)
    return UsageError(
        f"No node of the Ray cluster gives {wanted} ({offers}). `ray start --num-cpus N "
        "--num-gpus M` says what a node gives."
    )


def _listed(names: Any) -> str:
    return ", ".join(dict.fromkeys(names))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
