"""LinUpper against the formulas of Sow et al. 2025, one loss at a time."""

import inspect
import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from harness.cards import SubmissionCard, read_card
from submissions.data import linupper
from submissions.data.linupper import LinUpper

IDS = torch.arange(100)


def session(examples: int = 10**6, horizon: int = 1000) -> Any:
    return SimpleNamespace(
        device=torch.device("cpu"),
        training_ids=torch.arange(22),
        batch_size=4,
        examples=examples,
        horizon_examples=horizon,
        generator=torch.Generator().manual_seed(0),
    )


def weights_by_hand(losses: list[float], r: float) -> list[float]:
    """Return the paper's weights in its own form, with the half-width δ = 1."""
    low, high = min(losses), max(losses)
    scores = []
    for loss in losses:
        h = 2 * loss / (high - low) - (high + low) / (high - low)
        assert -1 - 1e-12 <= h <= 1 + 1e-12
        scores.append(min(h + 1, 1))
    total = sum(math.exp(s / r) for s in scores)
    return [math.exp(s / r) / total for s in scores]


@pytest.mark.parametrize("r", [0.1, 0.4, 1.0, 10.0])
def test_follows_the_published_rule(r: float) -> None:
    policy = LinUpper(session=session(), temperature=r)
    generator = torch.Generator().manual_seed(0)
    for n in (2, 3, 17, 64):
        losses = 3 * torch.rand(n, generator=generator, dtype=torch.float64) ** 2
        weights = policy.weigh(IDS[:n], losses)
        assert weights.tolist() == pytest.approx(weights_by_hand(losses.tolist(), r), rel=1e-10)
        assert float(weights.sum()) == pytest.approx(1.0)


def test_weights_rise_with_the_loss_up_to_the_middle_of_the_range() -> None:
    losses = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0], dtype=torch.float64)
    weights = LinUpper(session=session()).weigh(IDS[:5], losses).tolist()
    assert weights[0] < weights[1] < weights[2]
    assert weights[2] == pytest.approx(weights[3])
    assert weights[3] == pytest.approx(weights[4])
    assert weights[4] / weights[0] == pytest.approx(math.e)  # e^(1/r)


@pytest.mark.parametrize("loss", [0.0, 1e-30, 0.7, 1234.567, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_losses_weigh_the_same(loss: float, dtype: torch.dtype) -> None:
    for n in (1, 3, 64):
        weights = LinUpper(session=session()).weigh(IDS[:n], torch.full((n,), loss, dtype=dtype))
        assert weights.tolist() == pytest.approx([1 / n] * n)


def test_a_tiny_spread_is_a_spread() -> None:
    weights = LinUpper(session=session()).weigh(IDS[:2], torch.tensor([0.0, 1e-30]))
    assert float(weights[1] / weights[0]) == pytest.approx(math.e, rel=1e-5)


def test_weights_are_uniform_during_the_burn_in() -> None:
    host = session(horizon=1000)
    policy = LinUpper(session=host, burn_in=0.05)
    losses = torch.tensor([1.0, 2.0])
    for examples, uniform in ((4, True), (50, True), (51, False), (5000, False)):
        host.examples = examples
        assert (policy.weigh(IDS[:2], losses).tolist() == [1.0, 1.0]) == uniform
    host.examples = 4
    assert LinUpper(session=host, burn_in=0.0).weigh(IDS[:2], losses).tolist() != [1.0, 1.0]


def test_the_weights_carry_no_gradient() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    weights = LinUpper(session=session()).weigh(IDS[:3], losses)
    assert not weights.requires_grad
    ((weights * losses).sum() / weights.sum()).backward()
    assert losses.grad is not None
    torch.testing.assert_close(losses.grad, weights)


class OperatorLog(TorchDispatchMode):
    """The names of the operators that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_back() -> None:
    policy = LinUpper(session=session())
    with OperatorLog() as log:
        policy.weigh(IDS[:8], torch.rand(8))
    assert "_softmax" in log.names
    assert "_local_scalar_dense" not in log.names


def test_batches_are_reshuffled_epochs_as_in_the_reference() -> None:
    host = session()
    batches = [s.ids.tolist() for s in itertools.islice(LinUpper(session=host).batches(), 10)]
    twin = torch.Generator().manual_seed(0)
    for epoch in range(2):
        permutation = torch.randperm(22, generator=twin).tolist()  # two are left over
        assert batches[5 * epoch : 5 * epoch + 5] == [
            permutation[i : i + 4] for i in range(0, 20, 4)
        ]


@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_holdout_within_an_epoch_is_never_drawn_again(batch_size: int) -> None:
    host = session()
    host.batch_size = batch_size
    batches = LinUpper(session=host).batches()
    for left in ([1, 3, 5, 7, 9, 11], [3, 7, 11]):
        for _ in range(2):
            next(batches)
        host.training_ids = torch.tensor(left)
        after = [s.ids.tolist() for s in itertools.islice(batches, 50)]
        assert {len(batch) for batch in after} == {min(batch_size, len(left))}
        assert {i for batch in after for i in batch} == set(left)


def test_a_batch_larger_than_an_epoch_is_an_epoch() -> None:
    host = session()
    host.batch_size = 23
    for selection in itertools.islice(LinUpper(session=host).batches(), 5):
        assert sorted(selection.ids.tolist()) == list(range(22))


def test_illegal_hyperparameters_are_refused() -> None:
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"temperature must be in \(0, inf\), not"):
            LinUpper(session=session(), temperature=temperature)
    for burn_in in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"burn_in must be in \[0, 1\], not"):
            LinUpper(session=session(), burn_in=burn_in)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(linupper.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(LinUpper).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "session"
    }
    assert (card.kind, card.implementation) == ("data", "linupper:LinUpper")
    assert list(card.needs) == ["session"]
