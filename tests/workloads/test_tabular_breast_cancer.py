"""tabular/breast-cancer: quantiles, what is hidden, the model, loss and metric by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from torch import Tensor, nn

from harness import catalogue
from harness.cards import WorkloadCard
from workloads.tabular.breast_cancer import (
    COLUMNS,
    COPIES,
    DIAGNOSES,
    HELD_OUT_PER_CLASS,
    HIDDEN,
    UNKNOWN,
    BreastCancer,
    quantiles,
)
from workloads.tabular.model import EMBEDDING_WIDTH, TabularNet, TabularSettings

Splits = dict[str, dict[str, Tensor]]
ROWS = {"training": 569 - 4 * HELD_OUT_PER_CLASS, "evaluation": 120, "test": 120}


@pytest.fixture(scope="module")
def card() -> WorkloadCard:
    return catalogue.workload("tabular/breast-cancer").card


@pytest.fixture(scope="module")
def workload(card: WorkloadCard) -> BreastCancer:
    return BreastCancer(card)


@pytest.fixture(scope="module")
def splits(workload: BreastCancer) -> Splits:
    return workload.prepare()


def sum_of_squares(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([tensor.square().sum() for tensor in tensors]).sum()


def numpy_key() -> list[int]:
    keys: list[int] = np.random.get_state(legacy=False)["state"]["key"].tolist()
    return keys


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**choices: object) -> TabularNet:
    settings = TabularSettings(**{"width": 12, "depth": 1} | choices)  # type: ignore[arg-type]
    return TabularNet(numeric=3, levels=(4, 2), outputs=5, settings=settings)


def small_rows(n: int) -> Tensor:
    numbers = torch.randn(n, 3, generator=generator(3))
    levels = torch.stack([torch.arange(n) % 4, torch.arange(n) % 2], dim=1)
    return torch.cat((numbers, levels), dim=1)


def test_quantiles_by_counting() -> None:
    table = np.array([[3.0, 1.0], [1.0, 1.0], [2.0, 1.0], [9.0, 0.0], [0.0, 5.0], [2.5, 1.0]])
    found = quantiles(table, np.array([0, 1, 2, 5]))
    for row, column in np.ndindex(*table.shape):
        seen = [table[i, column] for i in (0, 1, 2, 5)]
        below = sum(other < table[row, column] for other in seen)
        ties = sum(other == table[row, column] for other in seen)
        quantile = (below + ties / 2) / len(seen)
        assert found[row, column] == pytest.approx((2 * quantile - 1) * math.sqrt(3), abs=1e-15)


def test_training_columns_have_mean_0_and_variance_1(splits: Splits) -> None:
    values = splits["training"]["values"].double()
    torch.testing.assert_close(values.mean(dim=0), torch.zeros(COLUMNS).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(values.var(dim=0), torch.ones(COLUMNS).double(), atol=5e-3, rtol=0)
    for name in ("evaluation", "test"):
        held_out = splits[name]["values"]
        assert held_out.abs().max() <= math.sqrt(3) * 1.000001
        assert 0.7 < held_out.var().item() < 1.3


def test_no_patient_stands_in_two_splits(splits: Splits) -> None:
    patients = {name: torch.unique(t["values"], dim=0) for name, t in splits.items()}
    assert {name: len(rows) for name, rows in patients.items()} == ROWS
    assert len(torch.unique(torch.cat(list(patients.values())), dim=0)) == 569


def test_rows_are_the_bundled_table_with_its_diagnoses(splits: Splits) -> None:
    table = load_breast_cancer()
    # The order of the first column's values and their diagnoses survive; ties share a quantile.
    found = []
    for name, tensors in splits.items():
        patients = tensors["values"].unflatten(0, (ROWS[name], COPIES[name]))
        assert (patients == patients[:, :1]).all()  # copies stand together
        levels = tensors["diagnoses"].view(ROWS[name], COPIES[name])
        for row, asked in zip(patients[:, 0, 0].tolist(), levels, strict=True):
            shown = {int(level) for level in asked.tolist()} - {UNKNOWN}
            assert len(shown) == 1
            found.append((round(row, 5), shown.pop()))
    by_radius = sorted(zip(table.data[:, 0].tolist(), table.target.tolist(), strict=True))
    malignant = [radius for radius, diagnosis in by_radius if diagnosis == 0]
    assert sum(diagnosis == 0 for _, diagnosis in found) == len(malignant) == 212
    largest = sorted(found)[-20:]
    assert [diagnosis for _, diagnosis in largest] == [d for _, d in by_radius[-20:]]
    for name in ("evaluation", "test"):
        levels = splits[name]["diagnoses"].view(120, -1).min(dim=1).values
        assert (levels == 0).sum() == HELD_OUT_PER_CLASS


def test_ten_columns_and_a_third_of_the_diagnoses_are_hidden(splits: Splits) -> None:
    for name, tensors in splits.items():
        hidden = tensors["hidden"]
        assert set(hidden.unique().tolist()) == {0.0, 1.0}
        assert (hidden.sum(dim=1) == HIDDEN).all()
        shares = hidden.mean(dim=0)
        assert (shares - HIDDEN / COLUMNS).abs().max() < 0.05
        assert (tensors["diagnoses"] == UNKNOWN).float().mean().item() == pytest.approx(
            1 / 3, abs=0.03
        )
        choices = hidden.unflatten(0, (ROWS[name], COPIES[name]))
        assert all(len(torch.unique(choice, dim=0)) == COPIES[name] for choice in choices)


def test_the_model_never_sees_what_it_is_asked_for(workload: BreastCancer, splits: Splits) -> None:
    data = splits["training"]
    indices = torch.tensor([5, 0, 5, 7000])
    inputs, targets = workload.training_batch(data, indices, generator(0))
    assert inputs.shape == (4, 2 * COLUMNS + 1) and targets.shape == (4, 2, COLUMNS)
    values, hidden = data["values"][indices], data["hidden"][indices]
    for i in range(4):
        for column in range(COLUMNS):
            asked = hidden[i, column].item() == 1
            assert inputs[i, column] == (0 if asked else values[i, column])
            assert inputs[i, COLUMNS + column] == asked
            assert targets[i, 0, column] == values[i, column]
            assert targets[i, 1, column] == asked
    assert torch.equal(inputs[:, -1:], data["diagnoses"][indices])
    targets.zero_()
    assert torch.equal(values, data["values"][indices])


def test_loss_by_hand_counts_hidden_columns_only(workload: BreastCancer) -> None:
    outputs = torch.randn(3, COLUMNS, dtype=torch.float64, generator=generator(0))
    inputs, targets = workload.synthetic_batch(3, generator(1))
    outputs.requires_grad_()
    losses = workload.per_example_loss(outputs, targets.double(), 0.1)
    for row, (values, counted), loss in zip(
        outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
    ):
        errors = [(a - b) ** 2 for a, b, counts in zip(row, values, counted, strict=True) if counts]
        assert len(errors) == HIDDEN
        assert loss == pytest.approx(sum(errors) / HIDDEN, rel=1e-12)
    losses.sum().backward()
    assert outputs.grad is not None
    assert torch.equal(outputs.grad != 0, targets[:, 1] == 1)
    assert not inputs[:, :COLUMNS][targets[:, 1] == 1].any()


class AnswersAHalf(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return torch.full((len(rows), COLUMNS), 0.5)


def test_evaluate_by_hand(workload: BreastCancer, splits: Splits) -> None:
    data = {name: tensor[:600] for name, tensor in splits["test"].items()}
    total = 0.0
    for values, hidden in zip(data["values"].tolist(), data["hidden"].tolist(), strict=True):
        total += sum((v - 0.5) ** 2 for v, h in zip(values, hidden, strict=True) if h) / HIDDEN
    with torch.inference_mode():
        metrics = workload.evaluate(AnswersAHalf(), data)
    assert metrics == {"squared_error": pytest.approx(total / 600, rel=1e-6)}


def test_the_target_takes_more_than_a_linear_model(
    workload: BreastCancer, splits: Splits, card: WorkloadCard
) -> None:
    # Ridge regression on the values shown, one a column, on the examples that hide it.
    inputs, targets = workload.training_batch(
        splits["training"], torch.arange(ROWS["training"] * COPIES["training"]), generator(0)
    )
    seen = splits["evaluation"]
    tested, answers = workload.training_batch(seen, torch.arange(len(seen["values"])), generator(0))
    squared = 0.0
    for column in range(COLUMNS):
        asked = targets[:, 1, column] == 1
        x = torch.cat((inputs[asked, : 2 * COLUMNS], torch.ones(int(asked.sum()), 1)), 1).double()
        y = targets[asked, 0, column].double()
        weights = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]).double(), x.T @ y)
        asked = answers[:, 1, column] == 1
        x = torch.cat((tested[asked, : 2 * COLUMNS], torch.ones(int(asked.sum()), 1)), 1).double()
        squared += (x @ weights - answers[asked, 0, column]).square().sum().item()
    linear = squared / (HIDDEN * len(answers))
    assert card.metric.target < linear < 0.5


def test_evaluate_in_inference_mode_changes_no_state(
    workload: BreastCancer, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        error = workload.evaluate(model, splits["test"])["squared_error"]
    assert 0.8 < error < 2
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_by_a_formula_of_its_own() -> None:
    torch.manual_seed(0)
    model = small().double()
    rows = small_rows(6).double()
    p = dict(model.named_parameters())

    def layer_norm(x: Tensor, prefix: str) -> Tensor:
        centred = x - x.mean(dim=1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return scaled * p[f"{prefix}.weight"] + p[f"{prefix}.bias"]

    first, second = rows[:, 3].long(), rows[:, 4].long()
    parts = (rows[:, :3], p["embeddings.0.weight"][first], p["embeddings.1.weight"][second])
    x = torch.cat(parts, 1) @ p["stem.weight"].T + p["stem.bias"]
    hidden = layer_norm(x, "blocks.0.norm") @ p["blocks.0.widen.weight"].T
    hidden = (hidden + p["blocks.0.widen.bias"]).clamp_min(0)
    x = x + hidden @ p["blocks.0.narrow.weight"].T + p["blocks.0.narrow.bias"]
    x = layer_norm(x, "norm").clamp_min(0)
    torch.testing.assert_close(model(rows), x @ p["head.weight"].T + p["head.bias"])


def test_model_takes_levels_by_embedding_and_tables_without_any() -> None:
    model = small()
    rows = small_rows(8)
    assert model(rows).shape == (8, 5)
    assert [tuple(p.shape) for p in model.embeddings.parameters()] == [
        (4, EMBEDDING_WIDTH),
        (2, EMBEDDING_WIDTH),
    ]
    changed = rows.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 4
    assert not torch.isclose(model(changed), model(rows)).all(dim=1).any()
    plain = TabularNet(numeric=3, levels=(), outputs=2, settings=TabularSettings(width=8))
    assert plain(rows[:, :3]).shape == (8, 2)


@pytest.mark.parametrize(
    "choices",
    [
        {"activation": "gelu"},
        {"activation": "tanh"},
        {"activation": "silu"},
        {"normalisation": "batch"},
        {"normalisation": "none"},
        {"depth": 2},
        {"width": 16},
    ],
    ids=str,
)
def test_each_choice_changes_the_model(choices: dict[str, object]) -> None:
    torch.manual_seed(0)
    usual = small()
    torch.manual_seed(0)
    other = small(**choices)
    assert not torch.allclose(usual(small_rows(8)), other(small_rows(8)))


def test_model_can_be_differentiated_twice(workload: BreastCancer) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(8, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    curvature = torch.autograd.grad(sum_of_squares(gradients), parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(
    workload: BreastCancer, card: WorkloadCard
) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert sum(p.numel() for p in model.parameters()) == card.parameters
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())


def test_synthetic_batch_looks_like_a_real_one(workload: BreastCancer, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    levels = synthetic[0][:, -1]
    assert set(levels.tolist()) <= set(map(float, range(DIAGNOSES + 1)))
    assert (synthetic[1][:, 1].sum(dim=1) == HIDDEN).all()
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
