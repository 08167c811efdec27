"""No fast path of an optimizer, or of ema, reads anything back from the device.

A read stalls a GPU until it has caught up. Nothing here needs one: what reads a tensor into Python
passes a dispatch or a function mode on a CPU, too. What torch's fused kernels do inside stays
unseen; adamw, sgd and sam's second half are theirs.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import submissions
from harness.cards import SubmissionCard, read_card
from submissions.averaging.ema import EMA
from submissions.optimizers.adahessian import AdaHessian
from submissions.optimizers.adamw import AdamW
from submissions.optimizers.lion import CPU_BLOCK_ELEMENTS, Lion
from submissions.optimizers.muon import Muon
from submissions.optimizers.sam import SAM
from submissions.optimizers.schedule_free import ScheduleFreeAdamW
from submissions.optimizers.sgd import SGD
from submissions.optimizers.sophia import Sophia
from submissions.schedules.adadagrad import AdaGrad
from submissions.zeroth_order.mezo import MeZO

# `aten::item`, float(), bool(), a tensor given where a number belongs: all come down to the first.
READING_OPERATORS = {"_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero",
                     "masked_select"}  # fmt: skip
READING_METHODS = {Tensor.tolist, Tensor.numpy, Tensor.cpu}  # no operators on a CPU
STEPS = 5


Groups = list[dict[str, Any]]
Step = Callable[[], object]
Make = Callable[[Groups], Step]


class ReadOperators(TorchDispatchMode):
    """The operators that pass and read a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket.__name__ in READING_OPERATORS:
            self.names.append(func.name())
        return func(*args, **(kwargs or {}))


class ReadMethods(TorchFunctionMode):
    """The methods called that read a tensor past the dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in READING_METHODS:
            self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def read_back(step: Step) -> list[str]:
    with ReadMethods() as methods, ReadOperators() as operators:
        step()
    return operators.names + methods.names


def parameter_groups() -> Groups:
    """Parameters of every role; some are channels last, transposed, with gaps, or of float64."""
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    tensors = {
        "matrix": [randn(6, 3), randn(3, 6), randn(5, 4).t(), randn(4, 9)[:, ::2]],
        "conv": [randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last), randn(6, 1, 2)],
        "embedding": [randn(5, 6).t(), randn(CPU_BLOCK_ELEMENTS // 16, 17)],
        "head": [randn(4, 7)[:, :5], randn(3, 4)],
        "norm": [randn(5), randn(4).double()],
        "bias": [randn(3), randn(8)[::2], randn()],
    }
    return [
        {"params": [nn.Parameter(tensor) for tensor in several], "role": role}
        for role, several in tensors.items()
    ]


def flat(groups: Groups) -> list[nn.Parameter]:
    return [p for group in groups for p in group["params"]]


def set_gradients(params: list[nn.Parameter], step: int, *, graph: bool) -> None:
    """Set gradients; after the first step one is missing and one has a layout of its own."""
    with torch.set_grad_enabled(graph):
        for p in params:
            p.grad = 3 * p**2
        if step > 0:
            params[step].grad = None
            p = params[-1 - step]
            p.grad = 3 * (p.mT.contiguous().mT if p.ndim > 1 else p) ** 2


class OneBatch(SimpleNamespace):
    """Stands in for the session. The logits depend on every parameter of the model."""

    last_batch = SimpleNamespace(
        size=4, inputs=torch.linspace(-1, 1, 12).view(4, 3), targets=torch.tensor([0, 1, 2, 0]),
        weights=None,
    )  # fmt: skip

    def outputs(self, model: nn.Module, batch: Any) -> Tensor:
        total = torch.stack([p.float().square().mean() for p in model.parameters()]).sum()
        return total * batch.inputs  # type: ignore[no-any-return]

    def count(self, *, forward: int, backward: int) -> None:
        pass


SESSION: Any = OneBatch()


def sam(groups: Groups) -> Step:
    optimizer, params = SAM(groups, weight_decay=0.1), flat(groups)

    def closure() -> Tensor:
        for p in params:
            p.grad = None if p.grad is None else p.grad.clone()
        return torch.ones(())

    return lambda: optimizer.step(closure)


def mezo(groups: Groups) -> Step:
    optimizer, loss = MeZO(groups, weight_decay=0.1), torch.tensor(1.0)
    return lambda: optimizer.step(lambda: loss)


def adagrad(groups: Groups) -> Step:
    return AdaGrad(groups, weight_decay=0.1).step


def ema(groups: Groups) -> Step:
    averaging = EMA(session=SESSION, model=nn.ParameterList(flat(groups)))
    return averaging.update


def optimizer(kind: Callable[..., torch.optim.Optimizer], **arguments: Any) -> Make:
    return lambda groups: kind(groups, **arguments).step


def sophia(groups: Groups) -> Step:
    """With an estimate at every step."""
    model = nn.ParameterList(flat(groups))
    return Sophia(groups, session=SESSION, model=model, interval=1).step


SUBJECTS: dict[str, Make] = {
    "adamw": optimizer(AdamW),
    "sgd": optimizer(SGD),
    "lion": optimizer(Lion),
    "muon": optimizer(Muon, weight_decay=0.1, adamw_weight_decay=0.1),
    "sam": sam,
    "sophia": sophia,
    "adahessian": optimizer(AdaHessian, session=SESSION, weight_decay=0.1),
    "schedule-free": optimizer(ScheduleFreeAdamW, weight_decay=0.1),
    "mezo": mezo,
    "adadagrad": adagrad,
    "ema": ema,
}


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True")
@pytest.mark.parametrize("name", SUBJECTS)
def test_a_fast_step_reads_nothing_back(name: str) -> None:
    groups = parameter_groups()
    params = flat(groups)
    take_step = SUBJECTS[name](groups)
    for step in range(STEPS):
        set_gradients(params, step, graph=name == "adahessian")
        assert read_back(take_step) == [], f"step {step + 1}"


@pytest.mark.parametrize(
    "read",
    [Tensor.item, float, bool, Tensor.tolist, Tensor.numpy, Tensor.cpu, torch.nonzero,
     lambda one: torch.ones(3).add_(torch.ones(3), alpha=one)],
)  # fmt: skip
def test_a_read_is_seen(read: Callable[[Tensor], object]) -> None:
    one = torch.ones(())
    assert read_back(lambda: read(one))


def optimizer_cards() -> Iterator[SubmissionCard]:
    for path in Path(submissions.__file__).parent.glob("*/*.yaml"):
        card = read_card(path, SubmissionCard)
        if "optimizer" in card.fillings:
            yield card


def test_every_optimizer_here_is_looked_at() -> None:
    assert {card.name for card in optimizer_cards()} <= set(SUBJECTS)
