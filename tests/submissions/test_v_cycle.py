"""The V-cycle of Zou et al. 2024: its operators by hand, and what they preserve."""

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.cards import SubmissionCard, read_card
from submissions.procedures import v_cycle
from submissions.procedures.v_cycle import VCycle, coalesced, decoalesced, interpolate
from workloads.gpt.model import GPT
from workloads.resnet.model import ResNet

TOKENS = torch.arange(24).view(4, 6) % 13


def gpt(width: int = 16, depth: int = 4, heads: int = 4, seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    model = GPT(vocabulary=13, context=6, width=width, depth=depth, heads=heads).double()
    with torch.no_grad():
        for parameter in model.parameters():  # norms too are to tell their units apart
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def parameters(model: nn.Module) -> dict[str, list[Any]]:
    return {name: p.detach().tolist() for name, p in model.named_parameters()}


def exact(values: list[Any]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def pairs(n: int) -> list[tuple[int, int]]:
    return [(j, j + n // 2) for j in range(n // 2)]


def rows_by_hand(w: list[list[float]]) -> list[list[float]]:
    return [[(w[a][j] + w[b][j]) / 2 for j in range(len(w[0]))] for a, b in pairs(len(w))]


def columns_by_hand(w: list[list[float]]) -> list[list[float]]:
    return [[row[a] + row[b] for a, b in pairs(len(row))] for row in w]


def same(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(exact(actual), exact(expected), rtol=1e-13, atol=1e-14)


def test_coalescing_in_width_by_hand() -> None:
    big = gpt(width=8, depth=1, heads=2)
    w = parameters(big)
    small = parameters(coalesced(big, halve_depth=False))
    for name in ("projection", "expand", "contract"):
        path = f"blocks.0.{'attention.' if name == 'projection' else ''}{name}.weight"
        same(small[path], rows_by_hand(columns_by_hand(w[path])))
    qkv = w["blocks.0.attention.qkv.weight"]  # query, key and value: 8 rows each
    by_hand = [row for i in (0, 8, 16) for row in rows_by_hand(columns_by_hand(qkv[i : i + 8]))]
    same(small["blocks.0.attention.qkv.weight"], by_hand)
    same(small["head.weight"], columns_by_hand(w["head.weight"]))  # the vocabulary stays
    for name in ("tokens", "positions"):
        averaged = [[(row[a] + row[b]) / 2 for a, b in pairs(8)] for row in w[f"{name}.weight"]]
        same(small[f"{name}.weight"], averaged)
    for name in ("norm.weight", "norm.bias", "blocks.0.norm1.weight", "blocks.0.norm2.bias"):
        same(small[name], [(w[name][a] + w[name][b]) / 2 for a, b in pairs(8)])


def test_decoalescing_in_width_by_hand() -> None:
    big = gpt(width=8, depth=1, heads=2)
    small = coalesced(big, halve_depth=False)
    w, grown = parameters(small), decoalesced(small, big)

    def grow(matrix: list[list[float]]) -> list[list[float]]:
        return [[x / 2 for x in (*row, *row)] for row in (*matrix, *matrix)]

    for name in ("attention.projection", "expand", "contract"):
        same(grown[f"blocks.0.{name}.weight"].tolist(), grow(w[f"blocks.0.{name}.weight"]))
    qkv = w["blocks.0.attention.qkv.weight"]
    by_hand = [row for i in (0, 4, 8) for row in grow(qkv[i : i + 4])]
    same(grown["blocks.0.attention.qkv.weight"].tolist(), by_hand)
    for name in ("tokens.weight", "positions.weight"):
        same(grown[name].tolist(), [[*row, *row] for row in w[name]])
    same(grown["norm.bias"].tolist(), [*w["norm.bias"], *w["norm.bias"]])
    same(grown["head.weight"].tolist(), [[x / 2 for x in (*r, *r)] for r in w["head.weight"]])


def test_the_operators_are_the_matrices_of_the_paper() -> None:
    """F W T and T w F with F = ½ [I I], T = [I; I], for which F T = I."""
    eye = torch.eye(3, dtype=torch.float64)
    f, t = torch.cat((eye, eye), dim=1) / 2, torch.cat((eye, eye))
    assert torch.equal(f @ t, eye)
    big = torch.randn(6, 6, dtype=torch.float64)
    small = v_cycle._fold(v_cycle._fold(big, 0, incoming=False), 1, incoming=True)
    torch.testing.assert_close(small, f @ big @ t)
    grown = v_cycle._unfold(v_cycle._unfold(small, 0, incoming=False), 1, incoming=True)
    torch.testing.assert_close(grown, t @ small @ f)


def test_depth_averages_adjacent_layers_and_copies_them_back() -> None:
    big = gpt(depth=4)
    small = coalesced(big, halve_width=False)
    w, averaged, grown = parameters(big), parameters(small), decoalesced(small, big)
    for name in ("attention.qkv.weight", "norm1.bias", "contract.weight"):
        for layer in (0, 1):
            first, second = (exact(w[f"blocks.{2 * layer + i}.{name}"]) for i in (0, 1))
            same(averaged[f"blocks.{layer}.{name}"], ((first + second) / 2).tolist())
            for i in (0, 1):
                same(
                    grown[f"blocks.{2 * layer + i}.{name}"].tolist(),
                    averaged[f"blocks.{layer}.{name}"],
                )
    for name in ("head.weight", "tokens.weight", "norm.weight"):
        same(averaged[name], w[name])


@pytest.mark.parametrize(("width", "depth"), [(True, True), (True, False), (False, True)])
def test_shrinking_what_was_grown_gives_the_small_model_again(width: bool, depth: bool) -> None:
    big = gpt()
    small = coalesced(big, halve_width=width, halve_depth=depth)
    big.load_state_dict(decoalesced(small, big))
    again = coalesced(big, halve_width=width, halve_depth=depth)
    for (name, p), q in zip(small.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p, q, msg=name)


def test_the_small_model_has_half_of_everything() -> None:
    small = coalesced(gpt())
    assert isinstance(small, GPT)
    sizes = v_cycle.transformer_sizes(small)
    assert sizes == {"vocabulary": 13, "context": 6, "width": 8, "depth": 2, "heads": 2}
    assert small.get_parameter("blocks.0.expand.weight").shape == (32, 8)
    assert small.tokens.weight.dtype == torch.float64


def test_growing_in_width_preserves_the_function() -> None:
    big = gpt()
    small = coalesced(big, halve_depth=False)
    grown = gpt(seed=1)
    grown.load_state_dict(decoalesced(small, big))
    torch.testing.assert_close(grown(TOKENS), small(TOKENS), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(big(TOKENS), small(TOKENS), atol=0.1)  # shrinking does not


def test_growing_in_depth_does_not() -> None:
    big = gpt()
    small = coalesced(big, halve_width=False)
    grown = gpt(seed=1)
    grown.load_state_dict(decoalesced(small, big))
    assert not torch.allclose(grown(TOKENS), small(TOKENS), atol=0.01)


def asymmetry(model: GPT) -> float:
    """The largest difference between the gradients of the two units of an MLP's pair."""
    model.zero_grad()
    logits = model(TOKENS)
    F.cross_entropy(logits.flatten(0, 1), TOKENS.roll(1).flatten()).backward()
    gradient = model.get_parameter("blocks.0.expand.weight").grad
    assert gradient is not None
    assert gradient.abs().max() > 1e-4
    first, second = gradient.chunk(2)
    return (first - second).abs().max().item()


def test_interpolation_breaks_the_symmetry_of_equal_units() -> None:
    for alpha, symmetric in ((1.0, True), (0.5, False)):
        big = gpt()
        interpolate(big, decoalesced(coalesced(big), big), alpha)
        assert (asymmetry(big) < 1e-12) == symmetric


def test_interpolation_by_hand() -> None:
    big, other = gpt(), gpt(seed=5)
    before, mixed_in = parameters(big), dict(other.named_parameters())
    interpolate(big, {name: p.detach() for name, p in mixed_in.items()}, 0.25)
    for name, p in big.named_parameters():
        w, v = exact(before[name]).flatten().tolist(), mixed_in[name].flatten().tolist()
        expected = [0.75 * a + 0.25 * b for a, b in zip(w, v, strict=True)]
        assert p.flatten().tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)


class EndOfRunError(Exception):
    pass


class PhaseSession:
    """Ten examples a step, a horizon of 200; every step adds its learning rate to the weights."""

    def __init__(self, steps: int = 30) -> None:
        self.examples = 0
        self.trained: list[nn.Module] = []
        self.evaluated: list[nn.Module] = []
        self.rates: list[list[float]] = []
        self.trainings = 0
        self._steps = steps

    def progress(self, examples: int) -> float:
        return min(1.0, examples / 200)

    def training(self, model: nn.Module) -> Any:
        self.trainings += 1
        optimizer = torch.optim.SGD(
            [{"params": [p], "lr": lr} for p, lr in zip(model.parameters(), (0.1, 0.3))]  # noqa: B905
        )

        def step() -> None:
            for group, lr in zip(optimizer.param_groups, (0.1, 0.3), strict=True):
                group["lr"] = lr  # as the schedule does
                group["params"][0].grad = -torch.ones_like(group["params"][0])
            optimizer.step()
            self.rates.append([group["lr"] for group in optimizer.param_groups])
            self.trained.append(model)
            self.examples += 10

        return SimpleNamespace(optimizer=optimizer, step=step)

    def maybe_evaluate(self, model: nn.Module) -> None:
        self.evaluated.append(model)
        if len(self.evaluated) == self._steps:
            raise EndOfRunError


def test_the_three_phases() -> None:
    session: Any = PhaseSession()
    big = gpt()
    tokens = big.tokens.weight.detach().clone()
    with pytest.raises(EndOfRunError):
        VCycle(first=0.1, small=0.4, alpha=0.25, small_lr_factor=4.0).train(session, big)
    assert session.trainings == 3
    assert [model is big for model in session.trained] == [True] * 2 + [False] * 8 + [True] * 20
    assert all(model is big for model in session.evaluated)  # past the horizon too
    assert session.rates == [[0.1, 0.3]] * 2 + [pytest.approx([0.4, 1.2])] * 8 + [[0.1, 0.3]] * 20
    assert len({id(model) for model in session.trained}) == 2
    # The embedding is the first parameter: 2 steps of 0.1, 8 of 0.4 on the pairs' means, 20 of 0.1.
    stood = tokens + 0.2
    mean = (stood[:, :8] + stood[:, 8:]) / 2 + 3.2
    expected = 0.75 * stood + 0.25 * torch.cat((mean, mean), dim=1) + 2.0
    torch.testing.assert_close(big.tokens.weight.detach(), expected)


def test_what_stands_to_evaluation_is_still_while_the_small_model_trains() -> None:
    big, states = gpt(), []

    class Recording(PhaseSession):
        def maybe_evaluate(self, model: nn.Module) -> None:
            states.append(big.head.weight.detach().clone())
            super().maybe_evaluate(model)

    session: Any = Recording(steps=9)
    with pytest.raises(EndOfRunError):
        VCycle(first=0.1, small=0.4).train(session, big)
    assert all(torch.equal(state, states[1]) for state in states[2:])


def test_other_models_are_refused() -> None:
    resnet = ResNet(in_channels=1, classes=2, widths=(4,), depths=(1,))
    with pytest.raises(ValueError, match=r"v-cycle: needs a transformer .* ResNet has stem, norm"):
        coalesced(resnet)
    no_heads = gpt()
    for module in no_heads.blocks.modules():
        vars(module).pop("heads", None)
    with pytest.raises(ValueError, match="as many `heads`"):
        coalesced(no_heads)
    tied = gpt()
    tied.head.weight = tied.tokens.weight
    with pytest.raises(ValueError, match="shares parameters"):
        coalesced(tied)


class Another(GPT):
    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__(**sizes)


def test_a_class_that_is_built_otherwise_is_refused() -> None:
    sizes = {"vocabulary": 13, "context": 6, "width": 8, "depth": 2, "heads": 2}
    with pytest.raises(ValueError, match="cannot build a small Another"):
        coalesced(Another(sizes))


def test_an_unknown_layer_is_refused() -> None:
    class Gated(GPT):
        def __init__(self, **sizes: int) -> None:
            super().__init__(**sizes)
            self.gate = nn.PReLU()

    with pytest.raises(ValueError, match=r"no rule for `gate\.weight` of a PReLU"):
        coalesced(Gated(vocabulary=13, context=6, width=8, depth=2, heads=2))


def test_what_is_odd_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="cannot halve 3 heads"):
        coalesced(gpt(width=12, heads=3))
    with pytest.raises(ValueError, match="cannot halve 3 depth"):
        coalesced(gpt(depth=3))
    coalesced(gpt(depth=3), halve_depth=False)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"first": -0.1}, "first must be in"),
        ({"small": 1.1}, "small must be in"),
        ({"alpha": 1.5}, "alpha must be in"),
        ({"first": 0.6, "small": 0.6}, "at most 1"),
        ({"small_lr_factor": 0.0}, "small_lr_factor must be in"),
        ({"halve_width": False, "halve_depth": False}, "must be true"),
    ],
)
def test_illegal_hyperparameters_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VCycle(**settings)


def test_the_card_and_the_constructor_agree() -> None:
    card = read_card(Path(v_cycle.__file__).with_suffix(".yaml"), SubmissionCard)
    arguments = inspect.signature(VCycle).parameters
    assert {name: h.convert(h.default) for name, h in card.hyperparameters.items()} == {
        name: argument.default for name, argument in arguments.items()
    }
    assert card.kind == "procedure"
