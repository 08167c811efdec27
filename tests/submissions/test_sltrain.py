"""SLTrain against the parameterization of Han et al. 2024, entry by entry."""

import copy
import inspect
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from harness.cards import SubmissionCard, read_card
from harness.workload import canonical_weights
from submissions.parameterizations import sltrain
from submissions.parameterizations.sltrain import SLTrain, SparseLowRankLinear
from workloads.gpt.model import GPT

PATHS = pytest.mark.parametrize("recompute", [True, False], ids=["fast", "reference"])
MODELS = pytest.mark.parametrize("kind", ["gpt", "mlp"])


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return GPT(vocabulary=13, context=6, width=8, depth=2, heads=2)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Tanh(), nn.Linear(9, 9), nn.Linear(9, 4)
    )


def build(kind: str) -> tuple[nn.Module, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    if kind == "gpt":
        return gpt(), torch.randint(13, (5, 6), generator=generator)
    return mlp().double(), torch.randn(5, 6, generator=generator, dtype=torch.float64)


def layer(
    inputs: int = 4, outputs: int = 3, bias: bool = True, recompute: bool = True, **changes: Any
) -> SparseLowRankLinear:
    """A layer in float64 whose B is no longer zero."""
    torch.manual_seed(0)
    settings = {"rank": 2, "alpha": 3.0, "density": 0.4, **changes}
    replaced = nn.Linear(inputs, outputs, bias=bias).double()
    made = SparseLowRankLinear(replaced, recompute=recompute, **settings)
    nn.init.normal_(made.B)
    return made


def weight_by_hand(made: SparseLowRankLinear, alpha: float) -> list[list[float]]:
    B, A, values = made.B.tolist(), made.A.tolist(), made.values.tolist()
    rank, columns = len(A), len(A[0])
    W = [
        [alpha / rank * sum(row[k] * A[k][j] for k in range(rank)) for j in range(columns)]
        for row in B
    ]
    for place, value in zip(made.support.tolist(), values, strict=True):
        W[place // columns][place % columns] += value
    return W


@PATHS
def test_follows_the_published_rule_for_some_steps(recompute: bool) -> None:
    """y = Wx + b with W = (α/r) BA + S, and SGD on B, A, the values and b, by hand."""
    alpha, lr = 3.0, 0.05
    made = layer(alpha=alpha, recompute=recompute)
    assert made.bias is not None
    optimizer = torch.optim.SGD(made.parameters(), lr=lr)
    x, target = [0.5, -1.0, 2.0, 0.25], [1.0, -1.0, 0.5]
    for _ in range(4):
        W, b = weight_by_hand(made, alpha), made.bias.tolist()
        B, A = made.B.tolist(), made.A.tolist()
        values, support = made.values.tolist(), made.support.tolist()
        y = [sum(w * v for w, v in zip(row, x, strict=True)) + c for row, c in zip(W, b)]  # noqa: B905
        dy = [2 * (p - t) for p, t in zip(y, target, strict=True)]
        dW = [[d * v for v in x] for d in dy]
        scale = alpha / 2
        new_B = [
            [B[i][k] - lr * scale * sum(dW[i][j] * A[k][j] for j in range(4)) for k in range(2)]
            for i in range(3)
        ]
        new_A = [
            [A[k][j] - lr * scale * sum(B[i][k] * dW[i][j] for i in range(3)) for j in range(4)]
            for k in range(2)
        ]
        new_values = [v - lr * dW[s // 4][s % 4] for v, s in zip(values, support, strict=True)]

        optimizer.zero_grad()
        output = made(torch.tensor([x], dtype=torch.float64))
        assert output[0].tolist() == pytest.approx(y, rel=1e-12)
        (output - torch.tensor([target], dtype=torch.float64)).square().sum().backward()
        optimizer.step()
        for trained, expected in ((made.B, new_B), (made.A, new_A)):
            for row, row_by_hand in zip(trained.tolist(), expected, strict=True):
                assert row == pytest.approx(row_by_hand, rel=1e-12, abs=1e-14)
        assert made.values.tolist() == pytest.approx(new_values, rel=1e-12)
        assert made.bias.tolist() == pytest.approx(
            [c - lr * d for c, d in zip(b, dy, strict=True)], rel=1e-12
        )
        assert made.support.tolist() == support  # fixed


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(4,), (7, 4), (2, 5, 4)])
def test_fast_and_reference_paths_agree(shape: tuple[int, ...], bias: bool) -> None:
    both = []
    for recompute in (True, False):
        made = layer(bias=bias, recompute=recompute)
        x = torch.linspace(-1, 2, math.prod(shape), dtype=torch.float64).view(shape)
        x.requires_grad_()
        y = made(x)
        y.sin().sum().backward()
        both.append([y, x.grad, *(p.grad for p in made.parameters())])
    for fast, reference in zip(*both, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-13, atol=1e-14)


def test_the_fast_path_has_first_and_second_derivatives() -> None:
    made = layer()
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def product(x: torch.Tensor, *factors: torch.Tensor) -> Any:
        function: Any = sltrain.RecomputedLinear
        return function.apply(x, *factors, made.support, 1.5)

    inputs = (x, made.B, made.A, made.values)
    assert torch.autograd.gradcheck(product, inputs)
    assert torch.autograd.gradgradcheck(product, inputs)


def test_the_fast_path_keeps_no_dense_matrix_for_the_backward_pass() -> None:
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for recompute, kept in sizes.items():

        def keep(t: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(t.numel())
            return t

        made = layer(inputs=40, outputs=30, recompute=recompute)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            made(torch.randn(2, 40, dtype=torch.float64, requires_grad=True))
    assert 1200 in sizes[False]
    assert 1200 not in sizes[True]


def test_what_a_layer_starts_with() -> None:
    torch.manual_seed(3)
    replaced = nn.Linear(50, 80)
    made = SparseLowRankLinear(replaced, 8, 16.0, 0.1, True)
    assert made.scale == 2.0
    assert not made.B.any()
    assert made.A.shape == (8, 50)
    assert made.values.shape == made.support.shape == (400,)
    assert made.bias is replaced.bias
    for drawn in (made.A, made.values):
        assert drawn.abs().max() <= 50**-0.5
        assert drawn.abs().max() > 0.98 * 50**-0.5
        assert abs(drawn.mean().item()) < 0.2 * 50**-0.5
    places = made.support.tolist()
    assert len(set(places)) == 400
    assert 0 <= min(places) < max(places) < 4000
    rows = Counter(place // 50 for place in places)
    assert len(rows) > 70  # spread over the matrix: 5 a row on average
    assert torch.count_nonzero(made.weight) <= 400  # W = S


def test_the_support_is_a_buffer_and_the_values_a_parameter() -> None:
    made = layer()
    assert {name for name, _ in made.named_buffers()} == {"support"}
    assert {name for name, _ in made.named_parameters()} == {"B", "A", "values", "bias"}


@MODELS
def test_names_shapes_and_dtypes_are_the_models_own(kind: str) -> None:
    plain, _ = build(kind)
    expected = {n: (t.shape, t.dtype) for n, t in canonical_weights(plain).items()}
    method = SLTrain(rank=2)
    weights = method.canonical_weights(method.wrap(build(kind)[0]))
    assert {n: (t.shape, t.dtype) for n, t in weights.items()} == expected
    assert not any(t.requires_grad for t in weights.values())


@MODELS
@PATHS
def test_after_steps_the_canonical_weights_compute_the_same(kind: str, recompute: bool) -> None:
    plain, inputs = build(kind)
    method = SLTrain(rank=2, density=0.2, recompute=recompute)
    trained = method.wrap(build(kind)[0])
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = trained(inputs).logsumexp(dim=-1).mean()
        loss.backward()
        assert all(p.grad is not None for p in trained.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    plain.load_state_dict(method.canonical_weights(trained))
    with torch.no_grad():
        expected = trained.eval()(inputs)
        torch.testing.assert_close(plain.eval()(inputs), expected, rtol=1e-5, atol=1e-5)


@MODELS
def test_all_hidden_layers_and_nothing_else_are_replaced(kind: str) -> None:
    plain, _ = build(kind)
    wrapped = SLTrain(rank=2).wrap(build(kind)[0])
    dense = [n for n, m in plain.named_modules() if isinstance(m, nn.Linear)]
    ours = [n for n, m in wrapped.named_modules() if isinstance(m, SparseLowRankLinear)]
    assert ours == dense[:-1]
    for name, tensor in canonical_weights(plain).items():
        if name.rpartition(".")[0] not in ours or name.endswith("bias"):
            assert torch.equal(canonical_weights(wrapped)[name], tensor)


def test_fewer_numbers_are_trained() -> None:
    model = GPT(vocabulary=13, context=16, width=64, depth=2, heads=8)
    full = sum(p.numel() for p in model.blocks.parameters())
    SLTrain().wrap(model)
    trained = sum(p.numel() for p in model.blocks.parameters())
    shapes = [(192, 64), (64, 64), (256, 64), (64, 256)]
    by_hand = sum(16 * (o + i) + round(0.03 * o * i) for o, i in shapes) + 4 * 64
    assert trained == 2 * by_hand
    assert trained < 0.4 * full


def test_layers_that_do_not_train_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    SLTrain(rank=1).wrap(model)
    assert [type(m) for m in model] == [nn.Linear, SparseLowRankLinear, nn.Linear]


def test_a_layer_used_twice_is_replaced_in_both_places() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(3, 2))
    names = set(canonical_weights(model))
    method = SLTrain(rank=1)
    wrapped = method.wrap(model)
    assert isinstance(model[0], SparseLowRankLinear)
    assert model[0] is model[2]
    assert set(method.canonical_weights(wrapped)) == names


def test_a_weight_of_two_layers_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"shared, among 0\.weight, 1\.weight"):
        SLTrain(rank=1).wrap(model)


def test_a_model_without_hidden_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no hidden nn\.Linear"):
        SLTrain().wrap(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2)))


def test_a_wrapped_model_can_be_copied_and_its_state_loaded() -> None:
    model = SLTrain(rank=2).wrap(gpt())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in twin.parameters():
            p.zero_()
    twin.load_state_dict(model.state_dict())
    tokens = torch.arange(6)[None]
    assert torch.equal(twin(tokens), model(tokens))


@pytest.mark.parametrize(
    ("name", "value"),
    [("rank", 0), ("alpha", 0.0), ("alpha", math.inf), ("density", -0.1), ("density", 1.1)],
)
def test_illegal_hyperparameters_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"SLTrain: {name} must be .*not "):
        SLTrain(**{name: value})


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_the_ends_of_the_density(density: float) -> None:
    made = layer(density=density)
    assert len(made.values) == 12 * density
    made(torch.ones(2, 4, dtype=torch.float64)).sum().backward()


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(sltrain.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(SLTrain).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items() if name != "recompute"
    }
    assert card.kind == "parameterization"
