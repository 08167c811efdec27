"""Label smoothing against Szegedy et al. 2016, written out class by class."""

import inspect
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from harness.cards import SubmissionCard, read_card
from submissions.objectives import label_smoothing
from submissions.objectives.label_smoothing import LabelSmoothing

IDS = torch.arange(4)


def smoothed(logits: list[float], target: int, epsilon: float) -> float:
    total = sum(math.exp(x) for x in logits)
    loss = 0.0
    for k, x in enumerate(logits):
        q = (1 - epsilon) * (k == target) + epsilon / len(logits)
        loss -= q * (x - math.log(total))
    return loss


def test_follows_the_published_rule() -> None:
    outputs = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 4, 2, 2])
    losses = LabelSmoothing(epsilon=0.3)(outputs, targets, IDS)
    by_hand = [smoothed(x, y, 0.3) for x, y in zip(outputs.tolist(), targets.tolist(), strict=True)]
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-14)


def test_sequences_average_the_positions_that_count() -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(3, 4, 6, dtype=torch.float64, generator=generator)
    targets = torch.tensor([[1, -100, 5, 0], [-100, -100, -100, 3], [-100, -100, -100, -100]])
    losses = LabelSmoothing(epsilon=0.1)(outputs, targets, IDS[:3])
    by_hand = []
    for rows, classes in zip(outputs.tolist(), targets.tolist(), strict=True):
        counted = [smoothed(x, y, 0.1) for x, y in zip(rows, classes, strict=True) if y != -100]
        by_hand.append(sum(counted) / len(counted) if counted else 0.0)
    assert losses.tolist() == pytest.approx(by_hand, rel=1e-14)
    assert losses[2] == 0


def test_ignored_positions_send_no_gradient() -> None:
    outputs = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    LabelSmoothing()(outputs, torch.tensor([[2, -100, 1]]), IDS[:1]).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[0, 1].tolist() == [0.0] * 4
    assert outputs.grad[0, 0].abs().min() > 0


def test_the_gradient_is_softmax_less_the_smoothed_target() -> None:
    outputs = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    LabelSmoothing(epsilon=0.2)(outputs, torch.tensor([1]), IDS[:1]).sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[0].tolist() == pytest.approx([0.2, 0.25 - 0.85, 0.2, 0.2], rel=1e-14)


def test_without_smoothing_it_is_the_cross_entropy() -> None:
    outputs = torch.randn(4, 5, generator=torch.Generator().manual_seed(3))
    targets = torch.tensor([0, 4, 2, 2])
    expected = F.cross_entropy(outputs, targets, reduction="none")
    assert torch.equal(LabelSmoothing(epsilon=0.0)(outputs, targets, IDS), expected)


@pytest.mark.parametrize("epsilon", [-0.1, 1.0, math.nan])
def test_an_illegal_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"LabelSmoothing: epsilon must be a number in \[0, 1\)"):
        LabelSmoothing(epsilon=epsilon)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(label_smoothing.__file__).with_suffix(".yaml"), SubmissionCard)
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default
        for name, argument in inspect.signature(LabelSmoothing).parameters.items()
    }
    assert (card.kind, card.implementation) == ("objective", "label_smoothing:LabelSmoothing")
