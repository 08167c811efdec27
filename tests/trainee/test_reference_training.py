import math

import pytest
import torch
from records.synthetic_runs import SyntheticRun
from torch import nn

from harness.trainee.reference_training import LearningRateSchedule, warmup_cosine


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, 0.0),
        (0.05, 0.5),
        (0.1, 1.0),
        # A third, half and two thirds of the way down from 1 to 0.2, on a half cosine.
        (0.4, 0.2 + 0.8 * 0.75),
        (0.55, 0.2 + 0.8 * 0.5),
        (0.7, 0.2 + 0.8 * 0.25),
        (1.0, 0.2),
    ],
)
def test_warm_up_and_cosine_by_hand(progress: float, expected: float) -> None:
    assert warmup_cosine(progress, 0.1, 0.2) == pytest.approx(expected)


def test_the_schedule_without_warm_up_and_with_nothing_else() -> None:
    assert warmup_cosine(0.0, 0.0, 0.0) == 1.0
    assert warmup_cosine(0.5, 0.0, 0.0) == pytest.approx(0.5)
    assert warmup_cosine(1.0, 0.0, 0.0) == pytest.approx(0.0)
    assert warmup_cosine(0.5, 1.0, 0.0) == 0.5
    assert warmup_cosine(1.0, 1.0, 0.0) == 1.0


def test_each_group_keeps_its_own_learning_rate() -> None:
    recipe = SyntheticRun(run_id="r").spec().recipe  # warm-up over 0.1, then down to 0
    groups = [{"params": list(nn.Linear(2, 2).parameters()), "lr": lr} for lr in (0.1, 0.4)]
    optimizer = torch.optim.SGD(groups)
    schedule = LearningRateSchedule(optimizer, recipe)
    for progress, factor in [(0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (0.05, 0.5)]:
        schedule.apply(progress)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.1 * factor, 0.4 * factor])
    assert math.isclose(optimizer.param_groups[1]["lr"], 0.2)
