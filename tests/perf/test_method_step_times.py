"""Step times of the optimizers here beside public ones of the same rule, and beside fused AdamW.

One thread, the parameters of gpt/addition, pairs of runs in the order ABBA. What is timed is the
optimizer's own work: gradients are there already, and a closure returns at once.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_optimizer
import torch
from perf.paired_ratio import PairedRatio, measure_pairs, paired_ratio
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from harness.trainee.parameter_roles import parameter_groups
from submissions.optimizers.adahessian import AdaHessian
from submissions.optimizers.adamw import AdamW
from submissions.optimizers.lion import Lion
from submissions.optimizers.muon import MUON_ROLES, Muon
from submissions.optimizers.sam import SAM
from submissions.optimizers.schedule_free import ScheduleFreeAdamW
from submissions.optimizers.sgd import SGD
from submissions.optimizers.sophia import Sophia
from submissions.schedules.adadagrad import AdaGrad
from submissions.zeroth_order.mezo import MeZO
from workloads.gpt import addition
from workloads.gpt.model import GPT

pytestmark = pytest.mark.perf

PAIRS = 40
STEPS = 5  # of each contender, in each half of a pair

Groups = list[dict[str, Any]]
Step = Callable[[], object]


def parameters(seed: int) -> Groups:
    """The parameter groups of the workload gpt/addition, gradients in place."""
    torch.manual_seed(seed)
    model = GPT(
        vocabulary=len(addition.SYMBOLS),
        context=addition.CONTEXT,
        width=addition.GPTSettings().width,
        depth=addition.DEPTH,
        heads=addition.HEADS,
    )
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return parameter_groups(model, addition.GPTAddition.head_parameters, ("norm", "bias"))


def flat(groups: Groups) -> list[torch.nn.Parameter]:
    return [p for group in groups for p in group["params"]]


class NothingToCount(SimpleNamespace):
    """Stands in for the session, the last batch being of no examples."""

    last_batch = SimpleNamespace(size=0)

    def count(self, *, forward: int, backward: int) -> None:
        pass


def with_graph(groups: Groups) -> None:
    """Give every parameter the gradient of Σ θ³, which can be differentiated again."""
    for p in flat(groups):
        p.grad = 3 * p**2


def no_loss() -> Tensor:
    return torch.zeros(())


def muon(groups: Groups) -> Step:
    return Muon(groups).step


def public_muon(groups: Groups, method: str = "newton_schulz") -> Step:
    for group in groups:
        group["use_muon"] = group["role"] in MUON_ROLES
    return pytorch_optimizer.Muon(groups, ns_method=method).step


def torch_muon(groups: Groups) -> Step:
    matrices = [p for g in groups if g["role"] in MUON_ROLES for p in g["params"]]
    others = [p for g in groups if g["role"] not in MUON_ROLES for p in g["params"]]
    first = torch.optim.Muon(matrices, lr=0.02, weight_decay=0.0)
    second = torch.optim.AdamW(others, fused=True)

    def step() -> None:
        first.step()
        second.step()

    return step


def sam(groups: Groups) -> Step:
    optimizer = SAM(groups)
    return lambda: optimizer.step(no_loss)


def public_sam(groups: Groups, **arguments: Any) -> Step:
    optimizer = pytorch_optimizer.SAM(flat(groups), torch.optim.AdamW, **arguments)
    grads = {p: p.grad for p in flat(groups)}

    def closure() -> Tensor:  # its `step` has dropped the gradients
        for p, g in grads.items():
            p.grad = g
        return no_loss()

    return lambda: optimizer.step(closure)


def sophia(groups: Groups) -> Step:
    """Without the estimate, which is a pass through the model."""
    optimizer = Sophia(groups, session=NothingToCount(), model=torch.nn.Identity())
    for group in optimizer.param_groups:
        group.update(steps=1, interval=10**9)
    return optimizer.step


def public_sophia(groups: Groups) -> Step:
    optimizer = pytorch_optimizer.SophiaH(flat(groups), update_period=10**9, weight_decay=0.1)
    optimizer.step(hessian=[torch.rand_like(p) for p in flat(groups)])
    return optimizer.step


def adahessian(groups: Groups) -> Step:
    optimizer = AdaHessian(groups, session=NothingToCount())

    def step() -> None:
        with_graph(groups)
        optimizer.step()

    return step


def public_adahessian(groups: Groups) -> Step:
    optimizer = pytorch_optimizer.AdaHessian(flat(groups), eps=1e-4)

    def step() -> None:
        with_graph(groups)
        optimizer.step()
        optimizer.zero_grad()

    return step


def public_schedule_free(groups: Groups) -> Step:
    optimizer = pytorch_optimizer.ScheduleFreeAdamW(flat(groups), foreach=True)
    optimizer.train()
    return optimizer.step


def mezo(groups: Groups) -> Step:
    """Without the two forward passes."""
    optimizer = MeZO(groups)
    return lambda: optimizer.step(no_loss)


@dataclass(frozen=True, kw_only=True)
class Contest:
    ours: Callable[[Groups], Step]
    public: dict[str, Callable[[Groups], Step]]  # empty where there is none


CONTESTS = {
    "adamw": Contest(
        ours=lambda groups: AdamW(groups).step,
        public={
            "torch_fused": lambda groups: torch.optim.AdamW(groups, fused=True).step,
            "torch_foreach": lambda groups: torch.optim.AdamW(groups, foreach=True).step,
        },
    ),
    "sgd": Contest(
        ours=lambda groups: SGD(groups).step,
        public={
            "torch_fused": lambda groups: (
                torch.optim.SGD(
                    groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
                ).step
            ),
        },
    ),
    "lion": Contest(
        ours=lambda groups: Lion(groups).step,
        public={
            "pytorch_optimizer": lambda groups: (
                pytorch_optimizer.Lion(flat(groups), weight_decay=0.1).step
            ),
        },
    ),
    "muon": Contest(
        ours=muon,
        public={
            "pytorch_optimizer": public_muon,
            "pytorch_optimizer_gram": lambda groups: public_muon(groups, "gram_newton_schulz"),
            "torch": torch_muon,
        },
    ),
    "sam": Contest(
        ours=sam,
        public={
            "pytorch_optimizer_fused": lambda groups: public_sam(groups, fused=True),
            "pytorch_optimizer_foreach": lambda groups: public_sam(groups, foreach=True),
        },
    ),
    "sophia": Contest(ours=sophia, public={"pytorch_optimizer": public_sophia}),
    "schedule-free": Contest(
        ours=lambda groups: ScheduleFreeAdamW(groups).step,
        public={"pytorch_optimizer": public_schedule_free},
    ),
    "adahessian": Contest(ours=adahessian, public={"pytorch_optimizer": public_adahessian}),
    "mezo": Contest(ours=mezo, public={}),
    "adadagrad": Contest(
        ours=lambda groups: AdaGrad(groups).step,
        public={
            "torch_fused": lambda groups: torch.optim.Adagrad(groups, fused=True).step,
            "torch_foreach": lambda groups: torch.optim.Adagrad(groups, foreach=True).step,
        },
    ),
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compared(first: Callable[[Groups], Step], second: Callable[[Groups], Step]) -> PairedRatio:
    """Return the ratio of step times; every run starts from tensors of its own."""
    seeds = iter(range(10**6))

    def seconds(make: Callable[[Groups], Step]) -> float:
        step = make(parameters(next(seeds)))
        step()  # makes the state
        begun = time.perf_counter()
        for _ in range(STEPS):
            step()
        return (time.perf_counter() - begun) / STEPS

    return paired_ratio(
        *measure_pairs(lambda: seconds(first), lambda: seconds(second), pairs=PAIRS)
    )


@pytest.mark.parametrize("name", CONTESTS)
@pytest.mark.usefixtures("one_thread")
def test_a_step_is_no_slower_than_the_fastest_public_one(
    name: str, benchmark: BenchmarkFixture
) -> None:
    contest = CONTESTS[name]
    ratios = {to: compared(contest.ours, other) for to, other in contest.public.items()}
    benchmark.extra_info |= {f"to_{to}": ratio.as_info() for to, ratio in ratios.items()}
    to_adamw = compared(contest.ours, lambda groups: AdamW(groups).step)
    benchmark.extra_info["to_adamw_fused"] = to_adamw.as_info()
    benchmark.pedantic(contest.ours(parameters(0)), rounds=20, warmup_rounds=2)

    if not ratios:
        return
    slowest_to = max(ratios, key=lambda to: ratios[to].ratio)
    ratio = ratios[slowest_to]
    assert ratio.low <= 1.0, f"{name} takes {ratio.low:.3f} to {ratio.high:.3f} of {slowest_to}"
