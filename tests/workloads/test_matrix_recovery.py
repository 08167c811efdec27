"""matrix/recovery: data exact, loss and metric by hand, and what other estimates achieve."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness import catalogue
from harness.cards import WorkloadCard
from workloads.matrix.recovery import (
    CORRUPTED,
    MEASUREMENTS,
    OUTLIER,
    RANK,
    SIZE,
    UNIT,
    MatrixRecovery,
    RecoverySettings,
    SquaredFactor,
    draw_truth,
    measure,
    recovery_error,
)

Splits = dict[str, dict[str, Tensor]]
# Errors that need no training: of the zero matrix, of least squares over symmetric matrices and
# its part of rank 3, and of the part of rank 3 of the mean of y A, the spectral estimate.
LANDMARKS = {"zero": 1.0, "least squares": 2.607, "its rank 3": 1.052, "spectral": 0.659}


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("matrix/recovery").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> MatrixRecovery:
    return MatrixRecovery(card)


@pytest.fixture(scope="module")
def splits(workload: MatrixRecovery) -> Splits:
    return workload.prepare()


@pytest.fixture(scope="module")
def truth(splits: Splits) -> Tensor:
    return splits["evaluation"]["truth"]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def residuals(tensors: dict[str, Tensor], matrix: Tensor) -> Tensor:
    """Return what was measured less what would have been of `matrix`, float64 [N]."""
    expected = tensors["matrices"].flatten(1).double() @ matrix.flatten()
    return tensors["measured"].double() - expected


def sum_of_squares(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def part_of_rank_3(matrix: Tensor) -> Tensor:
    """Return the nearest positive semidefinite matrix of rank 3 at most."""
    values, vectors = torch.linalg.eigh(matrix)
    factor = vectors[:, -RANK:] * values[-RANK:].clamp_min(0).sqrt()
    nearest: Tensor = factor @ factor.T
    return nearest


def least_squares(matrices: Tensor, measured: Tensor) -> Tensor:
    """Return the symmetric matrix whose squared residuals are least in sum."""
    row, column = torch.triu_indices(SIZE, SIZE)
    unknowns = (matrices + matrices.transpose(1, 2))[:, row, column]
    unknowns[:, row == column] /= 2
    found = torch.linalg.solve(unknowns.T @ unknowns, unknowns.T @ measured)
    matrix = torch.zeros(SIZE, SIZE, dtype=found.dtype)
    matrix[row, column] = matrix[column, row] = found
    return matrix


def trained(
    workload: MatrixRecovery,
    data: dict[str, Tensor],
    *,
    steps: int,
    optimizer: type[torch.optim.SGD] | type[torch.optim.AdamW],
    lr: float,
    squared: bool = False,
    initial_std: float = 1e-3,
) -> tuple[Tensor, float]:
    """Return the estimate after training at a constant rate, and the loss on all of `data`."""
    torch.manual_seed(0)
    model = SquaredFactor(RecoverySettings(initial_std=initial_std))
    update = optimizer(model.parameters(), lr=lr)
    drawn = generator(0)
    for _ in range(steps):
        indices = torch.randperm(len(data["measured"]), generator=drawn)[:128]
        inputs, targets = workload.training_batch(data, indices, drawn)
        outputs = model(inputs)
        losses = workload.per_example_loss(outputs, targets, 0.0)
        update.zero_grad()
        (losses.square() if squared else losses).mean().backward()
        update.step()
    estimate = model.product().detach().double()
    return estimate, residuals(data, estimate).abs().mean().item()


def test_truth_is_positive_semidefinite_of_rank_3_and_exact(truth: Tensor) -> None:
    assert torch.equal(truth, truth.T)
    values = torch.linalg.eigvalsh(truth)
    assert values[-RANK:].min() > 0.2 and values[:-RANK].abs().max() < 1e-14
    assert truth.norm().item() == pytest.approx(0.886, abs=1e-3)
    assert ((truth * UNIT) % 1 == 0).all()


def test_training_data_hold_no_truth(splits: Splits) -> None:
    assert splits["training"].keys() == {"matrices", "measured"}
    assert torch.equal(splits["evaluation"]["truth"], splits["test"]["truth"])


def test_a_quarter_of_the_measurements_are_wrong_and_the_others_exact(
    splits: Splits, truth: Tensor
) -> None:
    for name, n in MEASUREMENTS.items():
        wrong = residuals(splits[name], truth)
        outliers = wrong[wrong != 0]
        assert len(outliers) == n // CORRUPTED
        assert outliers.abs().max() <= OUTLIER
        assert outliers.std().item() == pytest.approx(OUTLIER / math.sqrt(3), rel=0.05)
        places = torch.arange(n)[wrong != 0]
        assert places.double().mean().item() == pytest.approx(n / 2, rel=0.05)  # anywhere


def test_measurements_by_hand() -> None:
    random = np.random.RandomState(0)
    whole = draw_truth(random)
    signs, measured = measure(random, whole, 6)
    assert signs.dtype == np.int8 and set(np.unique(signs)) == {-1, 1}
    matrix = [[int(entry) for entry in row] for row in whole]
    right = 0
    for sign, value in zip(signs.tolist(), measured.tolist(), strict=True):
        total = sum(sign[i][j] * matrix[i][j] for i in range(SIZE) for j in range(SIZE))
        assert abs(total) < 1 << 24  # exact in float32
        right += total == value
    assert right == 6 - 6 // CORRUPTED


def test_signs_are_even_and_no_matrix_stands_in_two_splits(splits: Splits) -> None:
    signs = splits["training"]["matrices"].flatten(1).double()
    assert abs(signs.mean().item()) < 4 / math.sqrt(signs.numel())
    assert signs.mean(dim=0).abs().max() < 6 / math.sqrt(len(signs))
    rows = torch.cat([tensors["matrices"].flatten(1)[:, :64] for tensors in splits.values()])
    assert len(torch.unique(rows, dim=0)) == sum(MEASUREMENTS.values())


def test_model_measures_its_own_product_by_hand() -> None:
    torch.manual_seed(0)
    model = SquaredFactor(RecoverySettings(columns=2, initial_std=0.5)).double()
    inputs = torch.randn(3, SIZE, SIZE, dtype=torch.float64, generator=generator(0))
    factor = model.factor.tolist()
    for matrix, output in zip(inputs.tolist(), model(inputs).tolist(), strict=True):
        total = 0.0
        for i in range(SIZE):
            for j in range(SIZE):
                total += matrix[i][j] * sum(
                    a * b for a, b in zip(factor[i], factor[j], strict=True)
                )
        assert output == pytest.approx(total, rel=1e-9)


def test_loss_and_its_subgradient_by_hand(workload: MatrixRecovery) -> None:
    outputs = torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([2.0, -2.5, 3.0], dtype=torch.float64)
    losses = workload.per_example_loss(outputs, targets, 0.0)
    assert losses.tolist() == [1.5, 0.5, 0.0]
    losses.sum().backward()
    assert outputs.grad is not None and outputs.grad.tolist() == [-1.0, 1.0, 0.0]


def test_evaluate_by_hand(workload: MatrixRecovery, splits: Splits) -> None:
    torch.manual_seed(1)
    model = SquaredFactor(RecoverySettings(columns=2, initial_std=0.2))
    data = splits["test"] | {key: splits["test"][key][:300] for key in ("matrices", "measured")}
    factor, truth = model.factor.tolist(), data["truth"].tolist()
    distance = length = 0.0
    estimate = [[0.0] * SIZE for _ in range(SIZE)]
    for i in range(SIZE):
        for j in range(SIZE):
            estimate[i][j] = sum(a * b for a, b in zip(factor[i], factor[j], strict=True))
            distance += (estimate[i][j] - truth[i][j]) ** 2
            length += truth[i][j] ** 2
    flat = [entry for row in estimate for entry in row]
    total = 0.0
    for signs, value in zip(
        data["matrices"].flatten(1).tolist(), data["measured"].tolist(), strict=True
    ):
        total += abs(math.fsum(s * e for s, e in zip(signs, flat, strict=True)) - value)
    with torch.inference_mode():
        metrics = workload.evaluate(model, data)
    assert metrics == {
        "recovery_error": pytest.approx(math.sqrt(distance / length), rel=1e-5),
        "loss": pytest.approx(total / 300, rel=1e-5),
    }


def test_metric_is_zero_at_the_truth_and_the_loss_a_poor_guide_to_it(
    workload: MatrixRecovery, splits: Splits, truth: Tensor
) -> None:
    values, vectors = torch.linalg.eigh(truth)
    model = SquaredFactor(RecoverySettings())
    found = []
    with torch.no_grad():
        for scale in (1.0, 1.01):
            model.factor.copy_(vectors * (scale * values.clamp_min(0)).sqrt())
            found.append(workload.evaluate(model, splits["evaluation"]))
    at_truth, beside = found
    assert at_truth["recovery_error"] < 1e-6
    assert at_truth["loss"] == pytest.approx(OUTLIER / 2 / CORRUPTED, rel=0.1)
    assert beside["recovery_error"] == pytest.approx(0.01, rel=1e-3)
    assert beside["loss"] / at_truth["loss"] == pytest.approx(1.005, abs=2e-3)


def test_landmarks(splits: Splits, truth: Tensor, card: WorkloadCard) -> None:
    # The card's text states these.
    matrices, measured = (splits["training"][key].double() for key in ("matrices", "measured"))
    spectral = (measured[:, None, None] * matrices).mean(dim=0)
    fitted = least_squares(matrices, measured)
    estimates = {
        "zero": torch.zeros_like(truth),
        "least squares": fitted,
        "its rank 3": part_of_rank_3(fitted),
        "spectral": part_of_rank_3((spectral + spectral.T) / 2),
    }
    found = {name: recovery_error(matrix, truth).item() for name, matrix in estimates.items()}
    assert found == pytest.approx(LANDMARKS, abs=2e-3)
    assert card.metric.target < min(LANDMARKS.values()) / 100
    for value in LANDMARKS.values():
        assert f"{value:.2f}" in card.evidence["metric"]


def test_without_outliers_least_squares_would_do(splits: Splits, truth: Tensor) -> None:
    matrices = splits["training"]["matrices"].double()
    fitted = least_squares(matrices, matrices.flatten(1) @ truth.flatten())
    assert recovery_error(fitted, truth) < 1e-9


def test_outliers_spoil_the_squared_error_and_not_the_absolute(
    workload: MatrixRecovery, splits: Splits, truth: Tensor
) -> None:
    errors = {
        squared: recovery_error(
            trained(
                workload,
                splits["training"],
                steps=120,
                optimizer=torch.optim.AdamW,
                lr=0.003,
                squared=squared,
            )[0],
            truth,
        )
        for squared in (False, True)
    }
    assert errors[False] < 0.4 and errors[True] > 1.1


def test_a_small_start_keeps_the_directions_that_are_not_needed_small(
    workload: MatrixRecovery, splits: Splits, truth: Tensor
) -> None:
    # The paper's method: subgradient steps. Directions that X* lacks shrink slowly at best.
    errors = {
        std: recovery_error(
            trained(
                workload,
                splits["training"],
                steps=500,
                optimizer=torch.optim.SGD,
                lr=0.02,
                initial_std=std,
            )[0],
            truth,
        )
        for std in (1e-3, 0.1)
    }
    assert errors[1e-3] < 0.05 and errors[0.1] > 0.5


def test_with_too_few_measurements_loss_and_error_part_ways(
    workload: MatrixRecovery, splits: Splits, truth: Tensor
) -> None:
    few = {key: tensor[:1024] for key, tensor in splits["training"].items()}
    estimate, loss = trained(workload, few, steps=500, optimizer=torch.optim.AdamW, lr=0.003)
    assert loss < 0.8 * residuals(few, truth).abs().mean()  # better than the truth, and wrong
    assert recovery_error(estimate, truth) > 1


def test_each_choice_changes_the_model(workload: MatrixRecovery) -> None:
    inputs, _ = workload.synthetic_batch(4, generator(0))

    def outputs(**choices: object) -> Tensor:
        torch.manual_seed(0)
        found: Tensor = SquaredFactor(RecoverySettings(**choices))(inputs)  # type: ignore[arg-type]
        return found

    usual = outputs()
    torch.testing.assert_close(outputs(initial_std=1e-2), 100 * usual)
    assert not torch.allclose(outputs(columns=8), usual)


def test_model_can_be_differentiated_twice(workload: MatrixRecovery) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(8, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    curvature = torch.autograd.grad(sum_of_squares(gradients), parameters)
    for tensors in (gradients, curvature):
        assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in tensors)


def test_batches(workload: MatrixRecovery, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([7, 0, 7])
    inputs, targets = workload.training_batch(data, indices, generator(0))
    assert torch.equal(inputs, data["matrices"][indices].float())
    assert torch.equal(targets, data["measured"][indices])
    first, again = (workload.synthetic_batch(3, generator(0)) for _ in range(2))
    for ours, theirs, real in zip(first, again, (inputs, targets), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.shape == real.shape and ours.dtype == real.dtype
