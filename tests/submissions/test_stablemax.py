"""StableMax against Prieto et al. 2025, written out class by class."""

import math
from pathlib import Path

import pytest
import torch

from harness.cards import SubmissionCard, read_card
from submissions.objectives import stablemax
from submissions.objectives.stablemax import StableMax, stable_exponential

IDS = torch.arange(4)


def s(x: float) -> float:
    return x + 1 if x >= 0 else 1 / (1 - x)


def cross_entropy(logits: list[float], target: int) -> float:
    return -math.log(s(logits[target]) / sum(s(x) for x in logits))


def test_follows_the_published_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = 5 * torch.randn(4, 5, dtype=torch.float64, generator=generator)
    outputs[0] = torch.tensor([0.0, 1.0, -1.0, 1e6, -1e6])
    targets = torch.tensor([4, 3, 0, 2])
    by_hand = [cross_entropy(x, y) for x, y in zip(outputs.tolist(), targets.tolist(), strict=True)]
    assert StableMax()(outputs, targets, IDS).tolist() == pytest.approx(by_hand, rel=1e-13)


def test_sequences_average_the_positions_that_count() -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(3, 4, 6, dtype=torch.float64, generator=generator)
    targets = torch.tensor([[1, -100, 5, 0], [-100, -100, -100, 3], [-100, -100, -100, -100]])
    by_hand = []
    for rows, classes in zip(outputs.tolist(), targets.tolist(), strict=True):
        counted = [cross_entropy(x, y) for x, y in zip(rows, classes, strict=True) if y != -100]
        by_hand.append(sum(counted) / len(counted) if counted else 0.0)
    outputs.requires_grad_()
    losses = StableMax()(outputs, targets, IDS[:3])
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-13)
    losses.sum().backward()
    assert outputs.grad is not None
    ignored = outputs.grad[targets == -100]
    assert torch.equal(ignored, torch.zeros_like(ignored))


def test_gradients_are_right_on_both_branches_and_where_they_meet() -> None:
    """s' is 1 for x ≥ 0, at 0 too, and 1 / (1 - x)² below; 1 is where the other branch is 1/0."""
    x = torch.tensor([0.0, 1.0, -1.0, 3.0], dtype=torch.float64, requires_grad=True)
    stable_exponential(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.25, 1.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_logits_of_zero_and_one_learn(dtype: torch.dtype) -> None:
    outputs = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]], dtype=dtype, requires_grad=True)
    losses = StableMax()(outputs, torch.tensor([0, 1]), IDS[:2])
    assert losses.dtype == dtype
    losses.sum().backward()
    assert outputs.grad is not None
    # (s' / Σs) - (s' / s_y at the target): Σs is 3 and 6.
    by_hand = [[1 / 3 - 1, 1 / 3, 1 / 3], [1 / 6, 1 / 6 - 1 / 2, 1 / 6]]
    assert outputs.grad.double().tolist() == [pytest.approx(row, rel=1e-2) for row in by_hand]


def test_does_not_collapse_where_the_softmax_does() -> None:
    """The softmax's float32 gradient is exactly 0 at a lead of 200; this one is not."""
    targets = torch.tensor([0])
    gradients = {}
    for name, objective in {
        "softmax": lambda x: torch.nn.functional.cross_entropy(x, targets),
        "stablemax": lambda x: StableMax()(x, targets, IDS[:1]).sum(),
    }.items():
        outputs = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
        objective(outputs).backward()
        gradients[name] = outputs.grad
    assert torch.equal(gradients["softmax"], torch.zeros(1, 3))
    by_hand = [1 / 203 - 1 / 201, 1 / 203, 1 / 203]
    assert gradients["stablemax"][0].tolist() == pytest.approx(by_hand, rel=1e-6)


def test_the_docstring_counts_right() -> None:
    assert cross_entropy([890.0] + [0.0] * 9, 0) == pytest.approx(0.01, rel=1e-2)


def test_the_card_is_valid() -> None:
    card = read_card(Path(stablemax.__file__).with_suffix(".yaml"), SubmissionCard)
    assert card.hyperparameters == {}
    assert (card.kind, card.implementation) == ("objective", "stablemax:StableMax")
