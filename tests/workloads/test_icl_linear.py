"""icl/linear: the data's facts, ridge regression solved by hand, the model's causality."""

import math
import statistics

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.icl.linear import (
    CONTEXT,
    DIMENSION,
    HELD_OUT_EXAMPLES,
    NOISE,
    PAIRS,
    QUANTILES,
    TRAINING_EXAMPLES,
    UNIT,
    ICLLinear,
    ICLSettings,
    gaussian_table,
    read_along,
    ridge_predictions,
)
from workloads.icl.model import VectorTransformer

Splits = dict[str, dict[str, Tensor]]


def workload_with(**model: str) -> ICLLinear:
    card = catalogue.workload("icl/linear").card
    return ICLLinear(msgspec.structs.replace(card, model=model))


@pytest.fixture(scope="module")
def workload() -> ICLLinear:
    return workload_with()


@pytest.fixture(scope="module")
def splits(workload: ICLLinear) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_splits_have_the_stated_shapes_and_share_no_sequence(splits: Splits) -> None:
    sizes = {name: len(tensors["y"]) for name, tensors in splits.items()}
    held_out = {"evaluation": HELD_OUT_EXAMPLES, "test": HELD_OUT_EXAMPLES}
    assert sizes == {"training": TRAINING_EXAMPLES} | held_out
    for tensors in splits.values():
        assert tensors["x"].dtype == tensors["y"].dtype == torch.float32
        assert tensors["x"].shape == (len(tensors["y"]), PAIRS, DIMENSION)
        assert tensors["y"].shape[1:] == (PAIRS,)
    xs = torch.cat([tensors["x"].flatten(1) for tensors in splits.values()])
    assert len(torch.unique(xs, dim=0)) == len(xs)


def test_the_table_is_gaussian_and_far_from_every_rounding_boundary() -> None:
    table = gaussian_table()
    assert len(table) == QUANTILES and (np.diff(table) >= 0).all()
    assert np.array_equal(table, -table[::-1])
    assert np.array_equal(table * UNIT, np.round(table * UNIT))
    assert table.var() == pytest.approx(1, abs=1e-3)
    assert (table**4).mean() == pytest.approx(3, abs=0.03)
    # 10⁻⁶ of a rounding step is ten million times what processors differ by.
    normal = statistics.NormalDist()
    fractions = [normal.inv_cdf((i + 0.5) / QUANTILES) * UNIT % 1 for i in range(QUANTILES)]
    assert min(abs(fraction - 0.5) for fraction in fractions) > 1e-6


def test_sequences_are_linear_with_noise_of_the_stated_size(splits: Splits) -> None:
    x, y = splits["training"]["x"].double(), splits["training"]["y"].double()
    # Exact in binary: a product of two multiples of 1/UNIT, halved.
    assert torch.equal(y * 2 * UNIT**2, (y * 2 * UNIT**2).round())
    assert x.mean().item() == pytest.approx(0, abs=0.005)
    assert x.var().item() == pytest.approx(1, abs=0.01)
    assert y.var().item() == pytest.approx(1 + NOISE**2, abs=0.02)
    # Least squares on eight pairs leaves four degrees of freedom to the noise.
    weights = torch.linalg.lstsq(x, y.unsqueeze(-1)).solution
    residual = (y - (x @ weights).squeeze(-1)).square().sum(dim=1).mean().item()
    assert residual / (PAIRS - DIMENSION) == pytest.approx(NOISE**2, rel=0.02)
    # Of the weights' estimates the variance is 1/d plus what the noise adds.
    spread = NOISE**2 * torch.linalg.inv(x.mT @ x).diagonal(dim1=1, dim2=2)
    well_conditioned = spread.amax(dim=1) < 0.5  # says nothing of w
    squares = (weights.squeeze(-1).square() - spread)[well_conditioned]
    assert squares.mean().item() == pytest.approx(1 / DIMENSION, rel=0.03)


def test_ridge_predictions_against_solving_the_normal_equations(splits: Splits) -> None:
    x, y = splits["evaluation"]["x"][:50], splits["evaluation"]["y"][:50]
    predictions = ridge_predictions(x, y)
    assert predictions.shape == (50, PAIRS) and predictions.dtype == torch.float64
    for xs, ys, row in zip(x.double().numpy(), y.double().numpy(), predictions, strict=True):
        for t, prediction in enumerate(row.tolist()):
            penalty = NOISE**2 * DIMENSION * np.eye(DIMENSION)
            weights = np.linalg.solve(xs[:t].T @ xs[:t] + penalty, xs[:t].T @ ys[:t])
            assert prediction == pytest.approx(xs[t] @ weights, rel=1e-9, abs=1e-12)


def bayes_risk(x: Tensor) -> float:
    """The expected squared error of the posterior mean, given the xs alone, mean over pairs.

    The posterior covariance of w given t pairs is (dI + XᵀX/σ²)⁻¹, times the table's variance.
    """
    x = x.double()
    total = 0.0
    for t in range(PAIRS):
        before, query = x[:, :t], x[:, t]
        precision = DIMENSION * torch.eye(DIMENSION, dtype=x.dtype) + before.mT @ before / NOISE**2
        spread = torch.linalg.solve(precision, query.unsqueeze(-1)).squeeze(-1)
        total += (NOISE**2 + (query * spread).sum(dim=1)).mean().item()
    return total / PAIRS * float(gaussian_table().var())


def test_the_limit_on_the_card_is_the_bayes_risk_in_closed_form(splits: Splits) -> None:
    card = catalogue.workload("icl/linear").card
    risk = bayes_risk(splits["evaluation"]["x"])
    assert f"Bayes risk of the evaluation split is {risk:.4f}" in card.evidence["metric"]
    assert f"{card.metric.target / risk:.3f} times" in card.evidence["metric"]
    # Ridge regression attains it up to the luck of this draw: the errors' own spread ÷ √N.
    x, y = splits["evaluation"]["x"], splits["evaluation"]["y"].double()
    errors = (ridge_predictions(x, y) - y).square().mean(dim=1)
    assert abs(errors.mean().item() - risk) < 3 * errors.std().item() / HELD_OUT_EXAMPLES**0.5
    assert errors.mean().item() < card.metric.target


def test_another_penalty_or_least_squares_does_worse(splits: Splits) -> None:
    x, y = splits["training"]["x"][:20_000].double(), splits["training"]["y"][:20_000].double()
    best = (ridge_predictions(x, y) - y)[:, -1].square().mean().item()
    for penalty in (0.0, 0.3, 3.0):
        shrunk = x[:, :-1].mT @ x[:, :-1] + penalty * torch.eye(DIMENSION, dtype=x.dtype)
        weights = torch.linalg.solve(shrunk, x[:, :-1].mT @ y[:, :-1, None]).squeeze(-1)
        assert ((weights * x[:, -1]).sum(dim=1) - y[:, -1]).square().mean().item() > best


def test_training_batch_is_the_pairs_one_after_another(workload: ICLLinear, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([7, 0, 7, TRAINING_EXAMPLES - 1])
    stream = generator(1)
    inputs, targets = workload.training_batch(data, indices, stream)
    assert torch.equal(stream.get_state(), generator(1).get_state())
    assert inputs.shape == (4, CONTEXT, DIMENSION + 1) and targets.shape == (4, PAIRS)
    for row, index in enumerate(indices.tolist()):
        for t in range(PAIRS):
            assert inputs[row, 2 * t].tolist() == [0.0, *data["x"][index, t].tolist()]
            y = data["y"][index, t].item()
            assert inputs[row, 2 * t + 1].tolist() == [y] + [0.0] * DIMENSION
            assert targets[row, t].item() == y


def test_loss_against_squared_errors_by_hand(workload: ICLLinear) -> None:
    outputs = torch.randn(3, PAIRS, dtype=torch.float64, generator=generator(0))
    targets = torch.randn(3, PAIRS, dtype=torch.float64, generator=generator(1))
    losses = workload.per_example_loss(outputs, targets, 0.0)
    assert losses.shape == (3,) and losses.dtype == torch.float64
    for o, y, loss in zip(outputs.tolist(), targets.tolist(), losses.tolist(), strict=True):
        assert loss == pytest.approx(math.fsum((a - b) ** 2 for a, b in zip(o, y, strict=True)) / 8)


class Ridge(nn.Module):
    """Reads the sequence as the transformer does and answers with ridge regression."""

    def forward(self, vectors: Tensor) -> Tensor:
        return ridge_predictions(vectors[:, ::2, 1:], vectors[:, 1::2, 0])


class Zero(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return vectors.new_zeros(len(vectors), PAIRS)


def test_evaluate_against_ridge_regression_and_against_zero(
    workload: ICLLinear, splits: Splits
) -> None:
    data = {name: tensor[:300] for name, tensor in splits["test"].items()}
    ridge = workload.evaluate(Ridge(), data)
    assert set(ridge) == {"loss", "excess"}
    assert ridge["excess"] == pytest.approx(0, abs=1e-12)
    zero = workload.evaluate(Zero(), data)
    ys = data["y"].flatten().tolist()
    assert zero["loss"] == pytest.approx(math.fsum(y * y for y in ys) / len(ys), rel=1e-12)
    assert zero["excess"] == pytest.approx(zero["loss"] - ridge["loss"], rel=1e-12)


def test_evaluate_in_inference_mode_changes_no_state(workload: ICLLinear, splits: Splits) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert 1 < metrics["loss"] < 5 and metrics["excess"] > 0.3
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_no_prediction_sees_its_own_y_or_what_comes_later(workload: ICLLinear) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    vectors, _ = workload.synthetic_batch(4, generator(0))
    outputs = model(vectors)
    assert outputs.shape == (4, PAIRS)
    for position in range(CONTEXT):
        changed = vectors.clone()
        changed[:, position] += 1
        others = model(changed)
        first = (position + 1) // 2  # the first prediction made at or after the position
        assert torch.equal(others[:, :first], outputs[:, :first])
        assert ((others - outputs)[:, first:].abs() > 0).all()


def test_model_against_its_formula_in_float64(workload: ICLLinear) -> None:
    torch.manual_seed(0)
    model = workload.build_model().double()
    assert isinstance(model, VectorTransformer)
    weights = dict(model.named_parameters())
    vectors = torch.randn(2, CONTEXT, DIMENSION + 1, dtype=torch.float64)

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(dim=-1, keepdim=True)
        scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = vectors @ weights["read.weight"].T + weights["positions.weight"]
    settings = ICLSettings()
    for i in range(settings.depth):
        at = f"blocks.{i}"
        q, k, v = (
            part.unflatten(2, (settings.heads, -1)).transpose(1, 2)
            for part in (norm(x, f"{at}.norm1") @ weights[f"{at}.attention.qkv.weight"].T).chunk(
                3, dim=2
            )
        )
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + mixed.transpose(1, 2).flatten(2) @ weights[f"{at}.attention.projection.weight"].T
        hidden = norm(x, f"{at}.norm2") @ weights[f"{at}.expand.weight"].T
        hidden = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        x = x + hidden @ weights[f"{at}.contract.weight"].T
    expected = (norm(x, "norm") @ weights["head.weight"].T).squeeze(-1)[:, ::2]
    torch.testing.assert_close(model(vectors), expected, rtol=1e-9, atol=1e-11)


def test_model_can_be_differentiated_twice(workload: ICLLinear) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(2, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    curvature = torch.autograd.grad(norm, parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(workload: ICLLinear) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters


def test_every_choice_of_the_model_changes_it(workload: ICLLinear) -> None:
    vectors, _ = workload.synthetic_batch(2, generator(0))

    def outputs(**model: str) -> Tensor:
        torch.manual_seed(0)
        built: Tensor = workload_with(**model).build_model()(vectors)
        return built

    plain = outputs()
    assert torch.equal(plain, outputs(width="48", depth="2", heads="6", residual="scaled"))
    for choice in ({"width": "60"}, {"depth": "3"}, {"heads": "4"}, {"residual": "full"}):
        assert not torch.allclose(plain, outputs(**choice))
    with pytest.raises(UsageError, match="residual"):
        workload_with(residual="none").build_model()
    # With residual branches at full size the weights themselves are larger by √(2 depth) = 2.
    for residual, std in (("scaled", 48**-0.5 / 2), ("full", 48**-0.5)):
        torch.manual_seed(0)
        weights = dict(workload_with(residual=residual).build_model().named_parameters())
        found = weights["blocks.0.attention.projection.weight"].std().item()
        assert found == pytest.approx(std, rel=0.05)


def test_synthetic_batch_looks_like_a_real_one(workload: ICLLinear, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(32), generator(0))
    synthetic = workload.synthetic_batch(32, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    assert torch.equal(synthetic[0][:, 1::2, 0], synthetic[1])  # the ys stand in both
    for vectors, _ in (real, synthetic):
        assert not vectors[:, ::2, 0].any() and not vectors[:, 1::2, 1:].any()
    again = workload.synthetic_batch(32, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
    expected = read_along(real[0][:, ::2, 1:], real[1])
    assert torch.equal(real[0], expected)
