"""grokking/modular: every sum, no pair in two splits in either order, the model by hand."""

import math

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import catalogue
from harness.errors import UsageError
from workloads.grokking.model import PairPerceptron
from workloads.grokking.modular import MODULUS, PAIRS, GrokkingModular

Splits = dict[str, dict[str, Tensor]]


def workload_with(**model: str) -> GrokkingModular:
    card = catalogue.workload("grokking/modular").card
    return GrokkingModular(msgspec.structs.replace(card, model=model))


@pytest.fixture(scope="module")
def workload() -> GrokkingModular:
    return workload_with()


@pytest.fixture(scope="module")
def splits(workload: GrokkingModular) -> Splits:
    return workload.prepare()


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unordered(pairs: Tensor) -> set[tuple[int, int]]:
    return {(min(a, b), max(a, b)) for a, b in pairs.tolist()}


def test_every_label_is_the_remainder_of_the_sum(splits: Splits) -> None:
    for tensors in splits.values():
        assert tensors["pairs"].shape == (len(tensors["labels"]), 2)
        for (a, b), label in zip(
            tensors["pairs"].tolist(), tensors["labels"].tolist(), strict=True
        ):
            assert 0 <= a < MODULUS and 0 <= b < MODULUS
            total = a + b
            assert label == (total if total < MODULUS else total - MODULUS)


def test_both_orders_of_a_pair_stand_in_one_split_and_in_it_once(splits: Splits) -> None:
    seen: set[tuple[int, int]] = set()
    for name, tensors in splits.items():
        pairs = [(a, b) for a, b in tensors["pairs"].tolist()]
        assert len(set(pairs)) == len(pairs)
        assert {(b, a) for a, b in pairs} == set(pairs)
        own = unordered(tensors["pairs"])
        assert len(own) == PAIRS[name]
        assert not own & seen
        seen |= own


def test_training_is_a_third_of_all_pairs_and_meets_every_number(splits: Splits) -> None:
    training = splits["training"]
    assert round(100 * PAIRS["training"] / (MODULUS * (MODULUS + 1) // 2)) == 35
    for of in (training["pairs"][:, 0], training["pairs"][:, 1], training["labels"]):
        assert torch.bincount(of, minlength=MODULUS).min() > 0


def test_training_batch_is_what_was_asked_for(workload: GrokkingModular, splits: Splits) -> None:
    data, indices = splits["training"], torch.tensor([9, 0, 9, 3000])
    stream = generator(1)
    pairs, labels = workload.training_batch(data, indices, stream)
    assert torch.equal(stream.get_state(), generator(1).get_state())
    for row, index in enumerate(indices.tolist()):
        assert pairs[row].tolist() == data["pairs"][index].tolist()
        assert labels[row] == sum(data["pairs"][index].tolist()) % MODULUS


def test_loss_against_cross_entropy_by_hand(workload: GrokkingModular) -> None:
    outputs = torch.randn(4, MODULUS, dtype=torch.float64, generator=generator(0))
    targets = torch.tensor([0, MODULUS - 1, 17, 17])
    for smoothing in (0.0, 0.1):
        losses = workload.per_example_loss(outputs, targets, smoothing)
        assert losses.shape == (4,) and losses.dtype == torch.float64
        for row, target, loss in zip(
            outputs.tolist(), targets.tolist(), losses.tolist(), strict=True
        ):
            log_total = math.log(sum(math.exp(z) for z in row))
            uniform = sum(log_total - z for z in row) / MODULUS
            expected = (1 - smoothing) * (log_total - row[target]) + smoothing * uniform
            assert loss == pytest.approx(expected, rel=1e-12)


class AddsWithoutRemainder(nn.Module):
    """Probability ½ for a + b, and for 0 where that is no residue; the rest is shared out."""

    def forward(self, pairs: Tensor) -> Tensor:
        total = pairs.sum(dim=1)
        answer = torch.where(total < MODULUS, total, 0)
        shared = torch.full((len(pairs), MODULUS), 0.5 / (MODULUS - 1))
        return shared.scatter(1, answer[:, None], 0.5).log()


def test_evaluate_against_a_model_that_knows_no_remainders(
    workload: GrokkingModular, splits: Splits
) -> None:
    data = splits["test"]
    metrics = workload.evaluate(AddsWithoutRemainder(), data)
    right = sum(a + b <= MODULUS for a, b in data["pairs"].tolist())  # of MODULUS it says 0
    share = right / len(data["labels"])
    assert 0.4 < share < 0.6 and set(metrics) == {"accuracy", "loss"}
    assert metrics["accuracy"] == pytest.approx(share, rel=1e-12)
    expected = -share * math.log(0.5) - (1 - share) * math.log(0.5 / (MODULUS - 1))
    assert metrics["loss"] == pytest.approx(expected, rel=1e-6)


def test_evaluate_in_inference_mode_changes_no_state(
    workload: GrokkingModular, splits: Splits
) -> None:
    torch.manual_seed(0)
    model = workload.build_model().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        metrics = workload.evaluate(model, splits["test"])
    assert metrics["accuracy"] < 0.05 and metrics["loss"] > math.log(MODULUS)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_model_against_its_formula_in_float64(workload: GrokkingModular) -> None:
    torch.manual_seed(0)
    model = workload.build_model().double()
    pairs, _ = workload.synthetic_batch(7, generator(0))
    weights = dict(model.named_parameters())
    first, second = (F.one_hot(column, MODULUS).double() for column in pairs.T)
    x = first @ weights["first.weight"] + second @ weights["second.weight"]
    hidden = (x @ weights["hidden.weight"].T).clamp(min=0)
    expected = hidden @ weights["head.weight"].T
    torch.testing.assert_close(model(pairs), expected, rtol=1e-12, atol=1e-12)
    # Homogeneous: the weights' scale is one of the logits and of nothing else.
    with torch.no_grad():
        torch._foreach_mul_(list(weights.values()), 2)
    torch.testing.assert_close(model(pairs), 8 * expected, rtol=1e-12, atol=1e-12)


def test_waves_add_modulo_the_modulus(workload: GrokkingModular, splits: Splits) -> None:
    """Weights in closed form are right on every pair: the model can represent the solution."""
    model = workload.build_model().double()
    assert isinstance(model, PairPerceptron)
    residues = torch.arange(MODULUS).double()
    waves, phases = 8, 64  # waves × phases hidden units; a wave takes two dimensions
    for weight in model.parameters():
        nn.init.zeros_(weight)
    with torch.no_grad():
        for wave in range(waves):
            w = 2 * math.pi * (3 * wave + 1) / MODULUS
            for part, of in enumerate((torch.cos, torch.sin)):
                model.first.weight[:, 2 * wave + part] = of(w * residues)
                model.second.weight[:, 2 * wave + part] = of(w * residues)
            # A unit reads cos(wa - angle) + cos(wb - angle), which is 2 cos(w(a - b)/2) times
            # cos(w(a + b)/2 - angle). Rectified, it has a part of twice the angle, of which the
            # head sums up |cos(w(a - b)/2)| cos(w(a + b - c)): largest at c = a + b.
            for phase in range(phases):
                angle = 2 * math.pi * phase / phases
                unit = wave * phases + phase
                model.hidden.weight[unit, 2 * wave] = math.cos(angle)
                model.hidden.weight[unit, 2 * wave + 1] = math.sin(angle)
                model.head.weight[:, unit] = torch.cos(w * residues - 2 * angle)
    for tensors in splits.values():
        assert workload.evaluate(model, tensors)["accuracy"] == 1.0


def test_model_can_be_differentiated_twice(workload: GrokkingModular) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    inputs, targets = workload.synthetic_batch(64, generator(0))
    parameters = list(model.parameters())
    loss = workload.per_example_loss(model(inputs), targets, 0.0).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    assert all(gradient.any() for gradient in gradients)
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
    curvature = torch.autograd.grad(norm, parameters)
    assert all(torch.isfinite(tensor).all() and tensor.any() for tensor in curvature)


def test_model_comes_in_training_mode_from_the_global_seed(workload: GrokkingModular) -> None:
    torch.manual_seed(0)
    model = workload.build_model()
    torch.manual_seed(0)
    twin = workload.build_model()
    assert model.training
    names = dict(model.named_parameters())
    assert workload.head_parameters <= names.keys()
    assert all(torch.equal(names[name], tensor) for name, tensor in twin.named_parameters())
    assert sum(p.numel() for p in model.parameters()) == workload.card.parameters
    for name, inputs in (("first", 128), ("second", 128), ("hidden", 128), ("head", 512)):
        std = names[f"{name}.weight"].std().item()
        assert std == pytest.approx(inputs**-0.5, rel=0.03)


def test_every_choice_of_the_model_changes_it(workload: GrokkingModular) -> None:
    pairs, _ = workload.synthetic_batch(3, generator(0))

    def outputs(**model: str) -> Tensor:
        torch.manual_seed(0)
        built: Tensor = workload_with(**model).build_model()(pairs)
        return built

    plain = outputs()
    assert torch.equal(
        plain, outputs(embedding="128", width="512", activation="relu", tables="separate")
    )
    for choice in (
        {"embedding": "64"},
        {"width": "256"},
        {"activation": "gelu"},
        {"activation": "silu"},
        {"activation": "tanh"},
        {"tables": "shared"},
    ):
        assert not torch.allclose(plain, outputs(**choice))
    with pytest.raises(UsageError, match="activation"):
        workload_with(activation="step").build_model()


def test_one_table_makes_addition_commute_and_two_do_not(workload: GrokkingModular) -> None:
    pairs, _ = workload.synthetic_batch(5, generator(0))
    shared = workload_with(tables="shared").build_model()
    torch.testing.assert_close(shared(pairs), shared(pairs.flip(1)))
    assert not any(name.startswith("second") for name, _ in shared.named_parameters())
    separate = workload.build_model()
    assert not torch.allclose(separate(pairs), separate(pairs.flip(1)))


def test_synthetic_batch_looks_like_a_real_one(workload: GrokkingModular, splits: Splits) -> None:
    real = workload.training_batch(splits["training"], torch.arange(1024), generator(0))
    synthetic = workload.synthetic_batch(1024, generator(0))
    for ours, theirs in zip(synthetic, real, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert ours.min() == theirs.min() == 0 and ours.max() == theirs.max() == MODULUS - 1
    again = workload.synthetic_batch(1024, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(synthetic, again, strict=True))
